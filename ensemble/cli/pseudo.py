"""`ens pseudo`."""

from pathlib import Path
from typing import Any

import click

from ensemble.cli.options import FOLDER_OR_FILE, JSON, OneOf, names, searchable_metrics
from ensemble.cli.session import session
from ensemble.run import Run


@click.command()
@click.argument("run", type=FOLDER_OR_FILE)
@click.argument("images", type=FOLDER_OR_FILE)
@click.option("--students", help="Members that get a student, comma-separated. [default: all that are fine-tuned]")
@click.option("--rounds", type=click.IntRange(1, 3), default=3, show_default=True, help="How many at most.")
@click.option(
    "--metric",
    type=OneOf(searchable_metrics),
    default="log_loss",
    show_default=True,
    help="What a round has to gain in for its students to be kept.",
)
@click.option(
    "--power",
    type=click.FloatRange(min=0, min_open=True),
    default=2.0,
    show_default=True,
    help="To which the teachers' probabilities are raised: above 1 sharpens them, 1 leaves them.",
)
@click.option(
    "--weight",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="What an unlabelled image counts beside a labelled one.",
)
@click.option(
    "--set", "changes", multiple=True, metavar="KEY=VALUE", help="A key of the students': --set train.epochs=6"
)
@JSON
def pseudo(
    run: Path, images: Path, students: str | None, changes: tuple[str, ...], as_json: bool, **options: Any
) -> None:
    """Train students of a RUN's members on its labelled rows and on IMAGES (a folder or a table) without labels.

    The student of fold i learns only from networks of fold i, so that its out-of-fold score stays honest. Rounds go on
    while they gain; the students of one that gains nothing are set aside. The same command resumes after a stop.

    Example: ens pseudo runs/art data/art/test
    """
    with session(as_json, run) as events:
        from ensemble.cli.plain import plain
        from ensemble.pseudo.command import PseudoOptions, self_train
        from ensemble.pseudo.students import parse_changes

        changed = parse_changes(changes)
        asked = PseudoOptions(students=names(students), changes=changed, **options)
        rounds = self_train(Run(run), images, asked, events)
        events.answer({"run": str(Run(run)), "rounds": plain(rounds)})
        if any(made.kept for made in rounds):
            events.message(f"next: ens blend {Run(run)}")

"""`ens distill`."""

from pathlib import Path
from typing import Any

import click

from ensemble.cli.blend import OF_EVERY_ROW
from ensemble.cli.options import FOLDER_OR_FILE, JSON, names
from ensemble.cli.session import session
from ensemble.plural import pluralize
from ensemble.run import Run


@click.command()
@click.argument("run", type=FOLDER_OR_FILE)
@click.option("--into", metavar="BACKBONE", required=True, help="timm architecture of the student.")
@click.option("--name", help="Name of the new member. [default: BACKBONE-distilled]")
@click.option("--teachers", metavar="NAMES", help="Members to learn from. [default: all that are finished]")
@click.option(
    "--weights",
    type=FOLDER_OR_FILE,
    help="Weights to start from: a file, or a member (RUN/MEMBER). [default: as the run's member of this architecture "
    "started, else timm's]",
)
@click.option(
    "--unlabelled",
    metavar="IMAGES",
    type=FOLDER_OR_FILE,
    help="Folder or table of images without a label, to hear the teachers on these too.",
)
@click.option(
    "--teacher-weight",
    type=click.FloatRange(0, 1),
    default=0.9,
    show_default=True,
    help="Weight of the teachers' answers in the loss; the labels have the rest.",
)
@click.option(
    "--temperature",
    type=click.FloatRange(0, min_open=True),
    default=1.0,
    show_default=True,
    help="By which logits are divided before they are compared.",
)
@click.option(
    "--set", "changes", multiple=True, metavar="KEY=VALUE", help="A key of the student's: --set train.epochs=30"
)
@JSON
def distill(run: Path, teachers: str | None, as_json: bool, **options: Any) -> None:
    """Train a new member that learns from the members of a RUN beside the labels.

    The student of each fold learns from the networks of that fold alone, on the same augmented images, so that its
    out-of-fold score is as honest as theirs. It is trained as the run's member of its architecture was, for three times
    as many epochs. The same command resumes it.

    Example: ens distill runs/art --into tf_efficientnet_lite0 --set train.epochs=30
    """
    with session(as_json, run) as events:
        from ensemble.cli.plain import plain
        from ensemble.distill.distill import distill as train_student
        from ensemble.distill.student import DistillOptions
        from ensemble.tables.compare import show_comparison, verdict

        found = train_student(Run(run), DistillOptions(teachers=names(teachers), **options), events)
        show_comparison(found.comparison)
        events.answer({**plain(found, OF_EVERY_ROW), "verdict": verdict(found.comparison.blocks[0])})
        events.message(
            f"{found.student}: {found.student_ms:.1f} ms an image; its {pluralize(len(found.teachers), 'teacher')}: "
            f"{found.teachers_ms:.1f} ms, {found.teachers_ms / found.student_ms:.1f} times as much (networks of one "
            f"fold, {pluralize(found.views, 'view')} each)"
        )

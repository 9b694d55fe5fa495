"""`ens score`: predictions of a labelled test set."""

from pathlib import Path

import click

from ensemble.cli.options import FOLDER_OR_FILE, JSON
from ensemble.cli.session import session


@click.command()
@click.argument("file", type=FOLDER_OR_FILE)
@click.option(
    "--truth",
    type=FOLDER_OR_FILE,
    required=True,
    help="A table with the columns id and label (and group, if rows belong together).",
)
@click.option(
    "--run", type=FOLDER_OR_FILE, metavar="RUN", help="The run that predicted: its out-of-fold scores stand beside."
)
@click.option("--blend", metavar="NAME", help="Its blend. [default: the one that wrote FILE, or the only one]")
@JSON
def score(file: Path, truth: Path, run: Path | None, blend: str | None, as_json: bool) -> None:
    """Score predictions, now that the labels are known, and say whether that is as expected.

    FILE is a submission, a table of probabilities, or a file of RUN/predictions. Rows are joined by id, spelled as in
    a submission: with or without an ending or folders. Every id of the truth needs a prediction.

    Example: ens score submission.csv --truth labels.csv --run runs/art
    """
    with session(as_json) as events:
        from ensemble.cli.plain import plain
        from ensemble.overview.score import score_file
        from ensemble.run import Run
        from ensemble.tables.score import show_score

        found = score_file(file, truth, None if run is None else Run(run), blend)
        show_score(found)
        places = {metric: scored.place for metric, scored in found.metrics.items()}
        events.answer({**plain(found), "as_expected": places})

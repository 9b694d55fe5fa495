"""`ens report`, `ens relabel`: what became of a run."""

from pathlib import Path

import click

from ensemble.cli.options import FOLDER_OR_FILE, JSON
from ensemble.cli.session import session


@click.command()
@click.argument("run", type=FOLDER_OR_FILE)
@click.option("-o", "--output", type=FOLDER_OR_FILE, help="The page to write. [default: report.html in the run]")
@JSON
def report(run: Path, output: Path | None, as_json: bool) -> None:
    """Write one HTML page on a RUN: its verdict, what is suspicious, its members, classes and images.

    The page is whole in itself: it needs no network and no other file.

    Example: ens report runs/art
    """
    with session(as_json, run) as events:
        from ensemble.report import write_report
        from ensemble.run import Run

        path = write_report(Run(run), output, events)
        events.answer({"report": str(path)})


@click.command()
@click.argument("run", type=FOLDER_OR_FILE)
@click.option(
    "-o",
    "--output",
    type=FOLDER_OR_FILE,
    default="relabel.csv",
    show_default=True,
    help="The table to write; what you entered into one that is there is kept.",
)
@JSON
def relabel(run: Path, output: Path, as_json: bool) -> None:
    """Write the doubtful labels of a RUN into a table, the most doubtful first, for you to look at.

    Enter a class, keep or drop into its column new_label, and train with data.relabel naming the file.

    Example: ens relabel runs/art -o relabel.csv
    """
    with session(as_json, run) as events:
        from ensemble.report.relabel import write_relabel
        from ensemble.run import Run

        path = write_relabel(Run(run), output, events)
        events.answer({"relabel": str(path)})

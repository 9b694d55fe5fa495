"""`ens report`, `ens relabel`: looking at a run."""

from pathlib import Path

import click

from ensemble.cli.options import FOLDER_OR_FILE, JSON
from ensemble.cli.session import session


@click.command()
@click.argument("run", type=FOLDER_OR_FILE)
@click.option("-o", "--output", type=FOLDER_OR_FILE, help="The page to write. [default: report.html in the run]")
@click.option(
    "--against", metavar="RUN2", type=FOLDER_OR_FILE, help="Compare it with another run, as ens compare does."
)
@click.option("--attention", is_flag=True, help="Show what the best member looked at. Needs captum.")
@JSON
def report(run: Path, output: Path | None, against: Path | None, attention: bool, as_json: bool) -> None:
    """Write one HTML page on a RUN: its verdict, what to check, its members, classes and images.

    The page needs no network and no other file.

    Example: ens report runs/art
    """
    with session(as_json, run) as events:
        from ensemble.report import write_report
        from ensemble.run import Run

        path = write_report(Run(run), output, events, None if against is None else Run(against), attention)
        events.answer({"report": str(path)})


@click.command()
@click.argument("run", type=FOLDER_OR_FILE)
@click.option(
    "-o",
    "--output",
    type=FOLDER_OR_FILE,
    default="relabel.csv",
    show_default=True,
    help="The table to write; your entries in an existing one are kept.",
)
@JSON
def relabel(run: Path, output: Path, as_json: bool) -> None:
    """Write the doubtful labels of a RUN into a table, the most doubtful first.

    Look at each image, enter a class, keep or drop into the column new_label, and set data.relabel to the file to
    train with the changes.

    Example: ens relabel runs/art -o relabel.csv
    """
    with session(as_json, run) as events:
        from ensemble.report.relabel import write_relabel
        from ensemble.run import Run

        path = write_relabel(Run(run), output, events)
        events.answer({"relabel": str(path)})

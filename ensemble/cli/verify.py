"""`ens verify`: are the files of a run as they were written?"""

import sys
from pathlib import Path

import click

from ensemble.cli.options import FOLDER_OR_FILE, JSON
from ensemble.cli.session import session


@click.command()
@click.argument("run", type=FOLDER_OR_FILE)
@click.option("--cache", type=FOLDER_OR_FILE, help="Folder of the decoded pixels, if it was moved.")
@JSON
def verify(run: Path, cache: Path | None, as_json: bool) -> None:
    """Compare every file of a RUN, and its cached pixels, with the digests that were kept when they were written.

    Lists the files that are damaged or missing, what is lost with them, and which command makes them again. Changes
    nothing. Ends with status 1 if there are any. The run may have been copied anywhere.

    Example: ens verify runs/art
    """
    with session(as_json, run) as events:
        from ensemble.cli.plain import plain
        from ensemble.overview.verify import lines
        from ensemble.overview.verify import verify as compare
        from ensemble.run import Run

        found = compare(Run(run), events, cache)
        for line in lines(found):
            events.message(line)
        events.answer(plain(found))
        if found.findings:
            sys.exit(1)

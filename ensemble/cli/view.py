"""`ens view`."""

from pathlib import Path

import click

from ensemble.cli.options import FOLDER_OR_FILE, JSON
from ensemble.cli.session import session


@click.command()
@click.argument("run", type=FOLDER_OR_FILE)
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen; 0.0.0.0 for all networks.")
@click.option("--port", type=click.IntRange(0, 65535), default=8001, show_default=True, help="0 takes a free one.")
@JSON
def view(run: Path, host: str, port: int, as_json: bool) -> None:
    """Show a RUN on a page while it trains: progress, curves, time left, images and messages.

    It reads the run's files, whoever trains it, and changes nothing. Only this machine can open the page, unless --host
    says otherwise. Ctrl-C closes it.

    Example: ens view runs/art
    """
    with session(as_json, is_server=True) as events:  # with no run: what is only looked at is not written into
        from ensemble import view as viewing
        from ensemble.run import Run

        url = viewing.view(Run(run), host, port, events)
        events.answer({"run": str(Run(run)), "address": url})
        events.message("closed")

"""`ens doctor`: what this machine has, and what will be slow on it."""

import click

from ensemble.cli.options import JSON
from ensemble.cli.session import session


@click.command()
@JSON
def doctor(as_json: bool) -> None:
    """Look at this machine: versions, device, memory, disk and cache; what will be slow on it, and why.

    Example: ens doctor
    """
    with session(as_json) as events:
        from ensemble.cli.plain import plain
        from ensemble.overview.doctor import examine
        from ensemble.tables.doctor import show_doctor

        items = examine()
        show_doctor(items)
        events.answer(plain(items))

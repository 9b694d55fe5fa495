"""`ens unknown`."""

from pathlib import Path

import click

from ensemble.cli.options import FOLDER_OR_FILE, JSON
from ensemble.cli.session import session
from ensemble.run import Run


@click.command()
@click.argument("run", type=FOLDER_OR_FILE)
@click.option("--blend", metavar="NAME", help="For which blend. [default: the only one]")
@click.option(
    "--foreign",
    type=FOLDER_OR_FILE,
    metavar="FOLDER",
    help="Images that are none of the classes, such as those that may come by mistake: the scores are chosen by these "
    "too.",
)
@JSON
def unknown(run: Path, blend: str | None, foreign: Path | None, as_json: bool) -> None:
    """Learn to tell images that are none of the classes, for ens tta-predict --unknown.

    Images are compared with a RUN's training rows: by what its members say of them, and by the features of a network
    that never saw them. Which scores are added up is chosen on classes that are left out and on synthetic images.

    Example: ens unknown runs/art --blend stack
    """
    with session(as_json, run) as events:
        from ensemble.cli.plain import plain
        from ensemble.tables.unknown import show_unknown
        from ensemble.unknown.command import fit_unknown

        found = fit_unknown(Run(run), blend, foreign, events)
        show_unknown(found)
        events.answer(plain(found))
        follows = f"ens tta-predict {Run(run)} IMAGES --blend {found.blend} --unknown {found.rate:g}"
        events.message(f"saved {found.path}; next: {follows}")

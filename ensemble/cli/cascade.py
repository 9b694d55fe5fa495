"""`ens cascade`."""

from pathlib import Path

import click

from ensemble.cli.options import FOLDER_OR_FILE, JSON
from ensemble.cli.session import session
from ensemble.errors import RunFailure
from ensemble.run import Run


@click.command()
@click.argument("run", type=FOLDER_OR_FILE)
@click.option("--blend", metavar="NAME", help="The blend to make a cascade of. [default: the only one]")
@click.option(
    "--max-loss",
    type=click.FloatRange(min=0),
    metavar="NATS",
    help="The cheapest cascade whose log loss is at most so much above the blend's. [default: 0.005]",
)
@click.option(
    "--max-ms",
    type=click.FloatRange(min=0, min_open=True),
    metavar="MS",
    help="Instead: the best cascade that takes at most so many milliseconds per image, in the mean.",
)
@click.option("--name", help="Save it under this name. [default: the blend's, with -cascade]")
@JSON
def cascade(
    run: Path, blend: str | None, max_loss: float | None, max_ms: float | None, name: str | None, as_json: bool
) -> None:
    """Ask a blend's cheapest members first, and no further ones for images that these are sure of.

    Every stage is a blend of the members so far, calibrated as the whole one is; an image exits at the first stage
    whose confidence reaches a threshold (early exit). Scores are out of fold, of thresholds that were chosen on the
    other folds; costs are measured on this machine. ens tta-predict --blend NAME then predicts by the cascade.

    Example: ens cascade runs/art --blend mean --max-loss 0.005
    """
    with session(as_json, run) as events:
        from ensemble.cascade.command import CascadeOptions, cascade_run
        from ensemble.cli.plain import plain
        from ensemble.tables.cascade import show_cascade

        found = cascade_run(Run(run), CascadeOptions(blend, max_loss, max_ms, name), events)
        show_cascade(found)
        events.answer(plain(found))
        if found.path is None:
            raise RunFailure(
                f"nothing was saved: no cascade is cheaper than {found.blend} within {found.limit}; allow more"
            )
        events.message(f"saved {found.path}; next: ens tta-predict {Run(run)} IMAGES --blend {found.name}")

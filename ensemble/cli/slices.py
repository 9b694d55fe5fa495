"""`ens slices`."""

from pathlib import Path

import click

from ensemble.cli.options import FOLDER_OR_FILE, JSON, names
from ensemble.cli.session import session
from ensemble.run import Run


@click.command()
@click.argument("run", type=FOLDER_OR_FILE)
@click.option(
    "--blend", metavar="NAME", help="The blend whose predictions are looked at. [default: the best one, or the mean]"
)
@click.option(
    "--columns",
    type=FOLDER_OR_FILE,
    help="Table with further columns of the images, joined by its column id, path or the first one. [default: the "
    "experiment's own table]",
)
@click.option("--by", metavar="COLUMN,...", help="The columns to look at. [default: all]")
@click.option("--test", type=FOLDER_OR_FILE, help="Folder or table of images to predict: how many lie in the slices?")
@click.option(
    "--min-size", type=click.IntRange(min=2), default=20, show_default=True, help="Images of a slice, at least."
)
@click.option(
    "--alpha",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.05,
    show_default=True,
    help="The chance that any slice is reported where none is worse.",
)
@JSON
def slices(
    run: Path,
    blend: str | None,
    columns: Path | None,
    by: str | None,
    test: Path | None,
    min_size: int,
    alpha: float,
    as_json: bool,
) -> None:
    """Find parts of the images in which a RUN's accuracy is worse than elsewhere.

    Looked at are classes, groups, properties of the files (size, brightness, contrast, sharpness, type, camera), the
    columns of a table, and clusters of frozen features. Accuracies are out of fold, and p-values are corrected for how
    many slices were looked at. ens report then shows the slices with their images, and a map of all images.

    Example: ens slices runs/art --test data/art/test
    """
    with session(as_json, run) as events:
        from ensemble.cli.plain import plain
        from ensemble.slices.command import SliceOptions, slices_run
        from ensemble.tables.slices import show_slices

        found = slices_run(Run(run), SliceOptions(blend, columns, names(by), test, alpha, min_size), events)
        show_slices(found)
        events.answer(plain(found, without=("map", "made_of")))
        events.message(f"saved {found.path}; next: ens report {Run(run)}")

"""`ens init`, `ens cache`: before training."""

from pathlib import Path

import click

from ensemble.cli.options import FOLDER_OR_FILE


@click.command()
@click.argument("data", type=FOLDER_OR_FILE)
@click.option("--test", type=FOLDER_OR_FILE, help="Folder or table of the images to predict.")
@click.option("--sample-submission", type=FOLDER_OR_FILE, help="CSV whose ids, order and header to follow.")
@click.option(
    "-o", "--output", type=FOLDER_OR_FILE, default="experiment.toml", show_default=True, help="The file to write."
)
def init(data: Path, test: Path | None, sample_submission: Path | None, output: Path) -> None:
    """Look at labelled images and write an experiment file for them.

    DATA is a folder of class folders, a CSV or a Parquet file.

    Example: ens init data/art/train --test data/art/test -o art.toml
    """
    from ensemble.init import init as write_experiment

    for line in write_experiment(data, test, sample_submission, output):
        click.echo(line)


@click.command()
@click.option("--folder", type=FOLDER_OR_FILE, help='Folder of the cache. [default: that of data.cache = "auto"]')
@click.option("--clear", is_flag=True, help="Remove all decoded pixels; they are made anew when they are needed.")
def cache(folder: Path | None, clear: bool) -> None:
    """List the decoded pixels that are kept on disk, or remove them.

    Example: ens cache
    """
    import time

    from ensemble.data import cache as pixels
    from ensemble.data.shards import size

    folder = folder or pixels.cache_folder("auto")
    if clear:
        click.echo(f"{folder}: removed {size(pixels.clear(folder))}")
        return
    rows = pixels.summary(folder)
    click.echo(f"{folder}: {size(sum(row.bytes for row in rows))} of decoded pixels")
    if rows:
        click.echo("  images     size   last used  decoding")
    for row in rows:
        day = time.strftime("%Y-%m-%d", time.localtime(row.used))
        click.echo(f"{row.images:8,} {size(row.bytes):>8}  {day}  {row.decoding}")

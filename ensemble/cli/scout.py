"""`ens scout`."""

import shlex
from pathlib import Path
from typing import Any

import click

from ensemble.cli.look import CLASSES
from ensemble.cli.options import FOLDER_OR_FILE, JSON, OneOf, names, searchable_metrics
from ensemble.cli.session import session


@click.command()
@click.argument("path", metavar="DATA|FILE", type=FOLDER_OR_FILE)
@click.option(
    "--weights-dir",
    type=FOLDER_OR_FILE,
    help="Try the weights files in this folder. [default: the experiment's backbones, or 12 families of timm's]",
)
@click.option("--image-size", type=click.IntRange(min=8), help="Of every backbone, in px. [default: each one's own]")
@click.option(
    "--metric", type=OneOf(searchable_metrics), default="log_loss", show_default=True, help="To compare blends by."
)
@click.option(
    "--pick",
    type=click.IntRange(min=1),
    help="Number of the blend to take. [default: the cheapest within one standard error of the best]",
)
@click.option("--budget", metavar="TIME", help="Plan fine-tuning that takes no longer on this machine: 90m, 2h, 1h30m.")
@click.option(
    "-o", "--output", type=FOLDER_OR_FILE, default="scout.toml", show_default=True, help="The experiment to write."
)
@click.option("--test", type=FOLDER_OR_FILE, help="Of DATA, as for ens init: folder or table of images to predict.")
@click.option("--sample-submission", type=FOLDER_OR_FILE, help="Of DATA: CSV whose ids, order and header to follow.")
@CLASSES
@click.option("--images", type=FOLDER_OR_FILE, help="Of DATA: folder that a table's paths start from.")
@click.option("--label", help="Of DATA: a table's column of class names, or columns of 0 and 1.")
@click.option("--for", "machine", type=click.Choice(["gpu", "cpu"]), help="Of DATA: the list and experiment to take.")
@JSON
def scout(
    path: Path, output: Path, pick: int | None, budget: str | None, label: str | None, as_json: bool, **given: Any
) -> None:
    """Find out which backbones suit the images, as linear probes, and write an experiment for the best few.

    DATA is a folder of class folders, a CSV or a Parquet file. FILE is an experiment file, whose backbones are tried.
    Each blend of up to four is scored, against what it costs at prediction. What was probed is kept: the same command
    goes on after a stop, and another --pick or --budget takes seconds.

    Example: ens scout data/art/train --weights-dir weights --budget 1h
    """
    with session(as_json) as events:
        from ensemble.cli.plain import plain
        from ensemble.scout.command import ScoutOptions, Source
        from ensemble.scout.command import scout as find
        from ensemble.tables.scout import show_scout

        columns = names(label)
        chosen = None if columns is None else columns[0] if len(columns) == 1 else tuple(columns)
        of_backbones = {name: given.pop(name) for name in ("weights_dir", "metric", "image_size")}
        options = ScoutOptions(output, pick=pick, budget=budget, **of_backbones)
        result = find(Source(path, label=chosen, **given), options, events)
        show_scout(result)
        events.message(f"wrote {output}: read it, then run  ens train-folds {shlex.quote(str(output))}")
        events.answer(plain(result))

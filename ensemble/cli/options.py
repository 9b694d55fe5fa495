"""Options that commands share, and reading them."""

from pathlib import Path

import click

from ensemble.scoring.metrics import METRICS

FOLDER_OR_FILE = click.Path(path_type=Path)
METRIC = click.option(
    "--metric",
    type=click.Choice(list(METRICS)),
    default="log_loss",
    show_default=True,
    help="What it is directed at.",
)
JSON = click.option(
    "--json", "as_json", is_flag=True, help="Print the result as one JSON document; everything else goes to stderr."
)


def names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]

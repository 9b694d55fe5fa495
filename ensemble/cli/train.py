"""`ens train-folds`, `ens demo`."""

from pathlib import Path

import click

from ensemble.cli.options import FOLDER_OR_FILE, say
from ensemble.errors import RunFailure


@click.command()
@click.argument("file", type=FOLDER_OR_FILE)
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change a key: --set train.epochs=3")
def train_folds(file: Path, changes: tuple[str, ...]) -> None:
    """Train every backbone of an experiment FILE on every fold.

    Finished folds are skipped and an unfinished one goes on from its last epoch, so the same command resumes a run
    that was stopped.

    Example: ens train-folds configs/digits.toml
    """
    from ensemble import blend, tables
    from ensemble.config import load_config
    from ensemble.progress import progress
    from ensemble.train import jobs

    config = load_config(file, changes)
    with progress() as show:
        failures = jobs.train_folds(config, show, say)
    tables.show_members(blend.members_table(config.run))
    if failures:
        raise RunFailure(f"{len(failures)} jobs failed: " + "; ".join(failures))
    click.echo(f"next: ens blend {config.run} --method stack")


@click.command()
@click.argument("folder", type=FOLDER_OR_FILE, default="ens-demo")
def demo(folder: Path) -> None:
    """Run the whole way on scikit-learn's handwritten digits, into FOLDER (ens-demo). Needs no download.

    Example: ens demo
    """
    from ensemble import demo as digits

    digits.run_demo(folder, say)

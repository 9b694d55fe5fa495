"""The command `ens`: parse, call one function, print. Each command imports what it needs when it runs, so that
`ens --help` answers at once and `ens blend` never waits for torch."""

import sys

import click

from ensemble import __version__
from ensemble.cli import blend, look, predict, train
from ensemble.errors import RunFailure, UserError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="ens")
def ens() -> None:
    """From labelled images to the best classifier they can give.

    \b
    ens demo                       see all of it work, in three minutes
    ens init DATA -o mine.toml     look at your images, write an experiment file
    ens train-folds mine.toml      k folds x every backbone
    ens blend RUN --method stack   combine them, scored honestly
    ens tta-search RUN             which views are worth their cost?
    ens tta-predict RUN IMAGES     predict, with test-time augmentation
    ens compare RUN RUN            which recipe is really better?
    """


for command in (
    look.init,
    train.train_folds,
    blend.blend_command,
    blend.compare,
    predict.tta_search,
    predict.tta_oof,
    predict.tta_predict,
    train.demo,
    look.cache,
):
    ens.add_command(command)


def main() -> None:
    """Entry point: a user's mistake ends with status 2, a failure with 1, each with one line and no traceback."""
    try:
        ens(standalone_mode=False)
    except UserError as error:
        click.echo(f"ens: {error}", err=True)
        sys.exit(2)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except RunFailure as error:
        click.echo(f"ens: {error}", err=True)
        sys.exit(1)
    except OSError as error:
        click.echo(f"ens: {error.filename}: {error.strerror}" if error.filename else f"ens: {error}", err=True)
        sys.exit(1)
    except (click.Abort, KeyboardInterrupt):
        click.echo("ens: stopped (train-folds, tta-oof, tta-predict and demo go on where they were)", err=True)
        sys.exit(130)

"""The command `ens`: parse, call one function, print. Each command imports what it needs when it runs, so that
`ens --help` answers at once and `ens blend` never waits for torch."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ensemble import __version__
from ensemble.errors import RunFailure, UserError

if TYPE_CHECKING:
    from ensemble.blend import ForeignFiles

FOLDER_OR_FILE = click.Path(path_type=Path)
METRIC = click.option(
    "--metric",
    type=click.Choice(["log_loss", "accuracy", "macro_f1", "balanced_accuracy"]),
    default="log_loss",
    show_default=True,
    help="What it is directed at.",
)


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


@ens.command()
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


@ens.command()
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


@ens.command("blend")
@click.argument("run", type=FOLDER_OR_FILE, required=False)
@click.option(
    "--method",
    type=click.Choice(["mean", "vote", "pool", "greedy", "stack", "trees", "auto"]),
    default="stack",
    show_default=True,
    help="How to combine; auto takes the simplest within one standard error of the best.",
)
@METRIC
@click.option("--views", help="These views of the OOF logits, comma-separated. [default: those of training]")
@click.option("--members", help="Only these members, comma-separated. [default: all that are finished]")
@click.option("--name", help="Save it under this name. [default: the method's]")
@click.option("--prune", is_flag=True, help="Say which members and views can be left out without loss.")
@click.option(
    "--priors",
    metavar="uniform|FILE",
    help="The test set's class shares, if you know them: all equal, or a CSV with the columns class and share.",
)
@click.option(
    "--add",
    "added",
    multiple=True,
    metavar="NAME=OOF[,TEST]",
    help="Blend these predictions too, which ens did not make: out of fold, and of the test set.",
)
@click.option("--labels", type=FOLDER_OR_FILE, help="Instead of a RUN: a table of id, label and perhaps fold, group.")
@click.option("--apply", "output", type=FOLDER_OR_FILE, help="With --labels: blend the TEST predictions into this CSV.")
@click.option("--sample-submission", type=FOLDER_OR_FILE, help="With --apply: whose ids, order and header to follow.")
def blend_command(
    run: Path | None,
    method: str,
    metric: str,
    views: str | None,
    members: str | None,
    name: str | None,
    prune: bool,
    priors: str | None,
    added: tuple[str, ...],
    labels: Path | None,
    output: Path | None,
    sample_submission: Path | None,
) -> None:
    """Fit a blend on a RUN's out-of-fold logits, and score it on rows that it was not fitted on.

    The plain mean and the best single member stand beside it, with bootstrap intervals. With --labels and --add it
    blends predictions that ens did not make, with no run directory.

    Example: ens blend runs/digits --method vote
    """
    from ensemble import blend, tables

    foreign = [_foreign(text) for text in added]
    if (run is None) == (labels is None):
        raise UserError("name either a RUN, or --labels with --add; see: ens blend --help")
    if run is not None:
        for option, given in (("--apply", output), ("--sample-submission", sample_submission)):
            if given is not None:
                raise UserError(
                    f"{option} goes with --labels; the images of a run are predicted by: ens tta-predict {run}"
                )
        result = blend.blend_run(run, method, metric, name, _names(views), _names(members), foreign, priors, prune, say)
        tables.show_details(result)
        tables.show_blend(result)
        click.echo(f"saved {result.path}")
        return
    assert labels is not None
    for option, text in (("--name", name), ("--members", members), ("--views", views)):
        if text is not None:
            raise UserError(f"{option} goes with a RUN; with --labels every --add is a member, and no blend is saved")
    if sample_submission is not None and output is None:
        raise UserError("--sample-submission goes with --apply, which names the CSV to write")
    lacking = [own.name for own in foreign if own.test is None]
    if output is not None and lacking:
        raise UserError(f"--apply needs test predictions of every member: --add {lacking[0]}=OOF,TEST")
    sample = None
    if sample_submission is not None:
        from ensemble.tta.submission import read_sample

        sample = read_sample(sample_submission)
    wanted = None if sample is None else sample.ids
    result = blend.blend_files(labels, foreign, method, metric, priors, prune, say, wanted)
    tables.show_details(result)
    tables.show_blend(result)
    if output is not None:
        from ensemble.tta.submission import arrange, write_submission

        ids, probabilities = blend.apply_files(result, wanted)
        table, said = arrange(list(ids), probabilities, result.fitted.classes, sample)
        write_submission(output, table)
        click.echo(f"wrote {output} ({said})")


@ens.command()
@click.argument("runs", metavar="RUN...", type=FOLDER_OR_FILE, nargs=-1, required=True)
def compare(runs: tuple[Path, ...]) -> None:
    """Say which recipe is really better, on the same out-of-fold rows, with paired intervals.

    RUN is a run directory, for all its finished members, or one member, RUN/MEMBER. The first is the baseline. Members
    of the same name in different runs are paired, and so are the plain means of such members.

    Example: ens compare runs/a runs/b
    """
    from ensemble import blend, tables

    tables.show_comparison(blend.compare(runs))


@ens.command()
@click.argument("run", type=FOLDER_OR_FILE)
@click.argument("images", type=FOLDER_OR_FILE)
@click.option("--blend", "blend_name", metavar="NAME", help="Which blend. [default: the only one]")
@click.option("--views", help="Comma-separated; must be those that the blend was fitted on, which is the default.")
@click.option("--sample-submission", type=FOLDER_OR_FILE, help="CSV whose ids, order and header to follow.")
@click.option("--form", type=click.Choice(["label", "index", "probability"]), help="[default: as in the sample]")
@click.option(
    "--on-bad",
    type=click.Choice(["error", "skip"]),
    default="error",
    show_default=True,
    help="At an image that can't be read: stop, or leave its prediction empty.",
)
@click.option(
    "-o", "--output", type=FOLDER_OR_FILE, default="submission.csv", show_default=True, help="The CSV to write."
)
def tta_predict(
    run: Path,
    images: Path,
    blend_name: str | None,
    views: str | None,
    sample_submission: Path | None,
    form: str | None,
    on_bad: str,
    output: Path,
) -> None:
    """Predict IMAGES (a folder or a table) with all fold models of a RUN and a blend of them.

    Predictions are kept in shards as they are made: the same command goes on after a stop, and ends with the same
    files.

    Example: ens tta-predict runs/art data/art/test --blend stack --sample-submission sample.csv
    """
    from ensemble.progress import progress
    from ensemble.tta import run as tta

    with progress() as show:
        made = tta.tta_predict(
            run, images, output, show, blend_name, _names(views), sample_submission, form, say, on_bad
        )
    click.echo(f"wrote {made.submission} ({made.said}) and {made.predictions}")


@ens.command()
@click.argument("run", type=FOLDER_OR_FILE)
@click.option("--views", required=True, help="Views or named sets to add, comma-separated: --views d4,scale1.15")
def tta_oof(run: Path, views: str) -> None:
    """Add out-of-fold logits under more views to a RUN that is trained, so that a blend can weigh them.

    Each row's come from the network that never saw it. Nothing is trained again.

    Example: ens tta-oof runs/art --views d4,scale1.15
    """
    from ensemble.progress import progress
    from ensemble.tta import oof

    with progress() as show:
        members = oof.add_views(run, _names(views) or [], show, say)
    click.echo(f"{', '.join(members)}: next: ens tta-search {run}, or ens blend {run} --views ... --name NAME")


@ens.command()
@click.argument("run", type=FOLDER_OR_FILE)
@click.option("--views", help="Views or named sets to try beside those that are there; added first.")
@METRIC
def tta_search(run: Path, views: str | None, metric: str) -> None:
    """Find the smallest set of views that is worth its cost, and name those that hurt.

    Scores are out of fold, and of sets that were chosen on the other folds; costs are measured on this machine.

    Example: ens tta-search runs/art --views d4
    """
    from ensemble import tables
    from ensemble.progress import progress
    from ensemble.tta import search

    with progress() as show:
        found, path = search.tta_search(run, _names(views), metric, show, say)
    tables.show_view_search(found)
    click.echo(f"saved {path}; next: ens blend {run} --views {','.join(found.chosen)} --name NAME")


@ens.command()
@click.argument("folder", type=FOLDER_OR_FILE, default="ens-demo")
def demo(folder: Path) -> None:
    """Run the whole way on scikit-learn's handwritten digits, into FOLDER (ens-demo). Needs no download.

    Example: ens demo
    """
    from ensemble import demo as digits

    digits.run_demo(folder, say)


@ens.command()
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


def say(line: str) -> None:
    """Print a line at once. Not click.echo: that writes past rich, into the middle of a live progress bar."""
    print(line, flush=True)


def _foreign(text: str) -> "ForeignFiles":
    from ensemble.blend import ForeignFiles

    name, equals, files = text.partition("=")
    oof, _, test = files.partition(",")
    if not (name and equals and oof):
        raise UserError(f"--add {text}: want NAME=OOF or NAME=OOF,TEST, as in --add xgb=oof_xgb.csv,test_xgb.csv")
    return ForeignFiles(name, Path(oof), Path(test) if test else None)


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


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


if __name__ == "__main__":
    main()

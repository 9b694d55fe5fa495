"""`ens check`, `ens init`, `ens cache`: before training."""

import shlex
import sys
from pathlib import Path
from typing import Any, Literal

import click

from ensemble.cli.options import FOLDER_OR_FILE, JSON, names
from ensemble.cli.session import session
from ensemble.errors import UserError

CLASSES = click.option(
    "--classes",
    multiple=True,
    metavar="PATTERN",
    help="Which folders in DATA are the classes, if there are several readings: 'train/*', '*', '!test'.",
)


@click.command()
@click.argument("data", metavar="DATA|FILE", type=FOLDER_OR_FILE)
@click.option(
    "--test", type=FOLDER_OR_FILE, help="Folder or table of the images to predict, to find leaks and how they differ."
)
@click.option("--sample-submission", type=FOLDER_OR_FILE, help="CSV whose ids to compare with the test images.")
@click.option(
    "--fix",
    is_flag=False,
    flag_value="cleaned.csv",
    type=FOLDER_OR_FILE,
    help="Write a cleaned table to train on, and a list of the dropped rows with reasons. Images are not changed. "
    "[alone: cleaned.csv]",
)
@click.option(
    "--fail-on",
    type=click.Choice(["error", "warning", "note", "never"]),
    default="error",
    show_default=True,
    help="The lowest level of finding that ends with status 1.",
)
@CLASSES
@click.option(
    "-o",
    "--output",
    type=FOLDER_OR_FILE,
    help="File for all findings. [default: audit.json, in the run if there is one]",
)
@JSON
def check(
    data: Path,
    test: Path | None,
    sample_submission: Path | None,
    fix: Path | None,
    fail_on: str,
    classes: tuple[str, ...],
    output: Path | None,
    as_json: bool,
) -> None:
    """Find what is wrong with labelled images: broken files, copies, labels, leaks, shortcuts, shift.

    DATA is a folder of class folders, a CSV or a Parquet file, or a zip or URL of these. FILE is an experiment file;
    the folds of its run are checked too.

    Example: ens check data/art/train --test data/art/test
    """
    with session(as_json) as events:
        from ensemble.audit.check import check as audit
        from ensemble.cli.plain import plain
        from ensemble.config import load_config
        from ensemble.tables.audit import show_audit

        if data.suffix.lower() == ".toml" and data.is_file():
            events.in_run(load_config(data).run)
        found = audit(data, test, sample_submission, fix, output, classes, events)
        show_audit(found)
        events.answer(plain(found.findings))
        follows = fix or not found.fails(fail_on)
        if follows and (command := _after_check(data, fix, test, sample_submission, classes)):
            events.message(f"next: {command}")
        if found.fails(fail_on):
            sys.exit(1)


def _after_check(
    data: Path, fix: Path | None, test: Path | None, sample_submission: Path | None, classes: tuple[str, ...]
) -> str | None:
    """The command that goes on with the images; None for a cleaned table of an experiment, which has to name it."""
    from ensemble.data.unpacked.local import is_packed
    from ensemble.data.unpacked.source_names import source_name

    if data.suffix.lower() == ".toml" and data.is_file():
        return None if fix else shlex.join(["ens", "train-folds", str(data)])
    images = data if fix and is_packed(data) else None  # the paths of the cleaned table start in it
    given = {"--images": images, "--test": test, "--sample-submission": sample_submission}
    words = [word for option, path in given.items() if path is not None for word in (option, source_name(path))]
    words += [word for pattern in ([] if fix else classes) for word in ("--classes", pattern)]
    return shlex.join(["ens", "init", source_name(fix or data), *words])


@click.command()
@click.argument("data", type=FOLDER_OR_FILE)
@click.option("--test", type=FOLDER_OR_FILE, help="Folder or table of the images to predict.")
@click.option("--sample-submission", type=FOLDER_OR_FILE, help="CSV whose ids, order and header to follow.")
@CLASSES
@click.option(
    "-o", "--output", type=FOLDER_OR_FILE, default="experiment.toml", show_default=True, help="The file to write."
)
@click.option("--images", type=FOLDER_OR_FILE, help="Folder that a table's paths start from. [default: found]")
@click.option(
    "--label",
    help="A table's column of class names, or its columns of 0 and 1, one per class, separated by commas. "
    "[default: found]",
)
@click.option(
    "--for",
    "machine",
    type=click.Choice(["gpu", "cpu"]),
    help="Choose networks, image size and epochs for this kind of machine. [default: the one ens runs on]",
)
@click.option("--fast", is_flag=True, help="Only classifiers on frozen networks: a score in minutes.")
@click.option("--best", is_flag=True, help="More and larger networks, trained for longer.")
@click.option(
    "--weights-dir",
    type=FOLDER_OR_FILE,
    help="Folder of weights files to start from: the networks are chosen from those. [default: timm fetches its own]",
)
@JSON
def init(
    data: Path,
    output: Path,
    label: str | None,
    machine: str | None,
    fast: bool,
    best: bool,
    weights_dir: Path | None,
    as_json: bool,
    **found: Any,
) -> None:
    """Look at labelled images and write an experiment file for them.

    DATA is a folder of class folders, a CSV or a Parquet file, or a zip or URL of these.

    Example: ens init data/art/train --test data/art/test -o art.toml
    """
    from ensemble.init import Options
    from ensemble.init import init as write_experiment

    with session(as_json) as events:
        from ensemble.data.unpacked.local import as_local

        if fast and best:
            raise UserError("--fast and --best exclude each other: choose one")
        columns = names(label)
        chosen = None if columns is None else columns[0] if len(columns) == 1 else tuple(columns)
        effort: Literal["usual", "fast", "best"] = "fast" if fast else "best" if best else "usual"
        for source in filter(None, (data, found["test"], found["images"])):
            as_local(source, events)  # here, where it is seen how far that is
        for line in write_experiment(
            data, output=output, label=chosen, options=Options(machine, effort, weights_dir), **found
        ):
            events.message(line)
        events.answer({"experiment": str(output)})


@click.command()
@click.option("--folder", type=FOLDER_OR_FILE, help='Folder of the cache. [default: that of data.cache = "auto"]')
@click.option(
    "--clear",
    is_flag=True,
    help="Remove all that is kept: pixels, scans, searches, timings, compiled graphs, images that were unpacked or "
    "fetched. They are made anew when needed.",
)
@JSON
def cache(folder: Path | None, clear: bool, as_json: bool) -> None:
    """List the decoded pixels that are kept on disk, or remove all that is kept.

    Example: ens cache
    """
    import time

    from ensemble.cli.plain import plain
    from ensemble.data.cache import store as pixels
    from ensemble.data.cache.folder import cache_folder
    from ensemble.data.cache.shards import size
    from ensemble.data.unpacked import copies, fetch

    with session(as_json) as events:
        is_users = folder is None or folder.absolute() == cache_folder("auto").absolute()
        folder = folder or cache_folder("auto")
        if clear:
            removed = pixels.clear(folder) + (copies.clear() + fetch.clear() if is_users else 0)
            events.message(f"{folder}: removed {size(removed)}")
            events.answer({"folder": str(folder), "removed_bytes": removed})
            return
        rows = pixels.summary(folder)
        total = sum(row.bytes for row in rows)
        images = {"unpacked": copies.summary(), "fetched": fetch.summary()} if is_users else {}
        others = {f"{what}_bytes": nbytes for what, nbytes in images.items() if nbytes}
        events.answer({"folder": str(folder), "bytes": total, "kept": plain(rows), **others})
        events.message(f"{folder}: {size(total)} of decoded pixels")
        if rows:
            events.message("  images     size   last used  decoding")
        for row in rows:
            day = time.strftime("%Y-%m-%d", time.localtime(row.used))
            events.message(f"{row.images:8,} {size(row.bytes):>8}  {day}  {row.decoding}")
        for what, nbytes in images.items():
            if nbytes:
                events.message(f"{size(nbytes)} of {what} images")

"""Labelled and test images as rows, read without stopping at the first mistake.

`ens train-folds` refuses a table at its first repeated path or empty cell, as it should; here every such row is kept,
so that all of them can be named at once.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from ensemble.audit.rows import UNKNOWN_FOLD, Columns, Given, Rows, clean_labels
from ensemble.config import load_config
from ensemble.data.folders.class_folders import bare_folders, class_folders, labels_of, outside, tree
from ensemble.data.folders.layout import follow, levels, refuse_loose, refuse_parts
from ensemble.data.folders.listing import Listing, list_folder
from ensemble.data.folds import read_folds
from ensemble.data.labelled import names_base, read_labelled
from ensemble.data.name_groups import FROM_NAMES, name_groups
from ensemble.data.pixels.formats import IMAGE_ENDINGS
from ensemble.data.samples import (  # fmt: skip
    image_column,
    image_names,
    nfc,
    read_class_folders,
    read_image_table,
    read_samples,
)
from ensemble.data.source import Source
from ensemble.data.source import follow as follow_data
from ensemble.data.submission.sample import read_sample
from ensemble.data.table.column_names import ID_NAMES, plain
from ensemble.data.table.columns import find_columns
from ensemble.data.table.find_files import locate
from ensemble.data.table.fold_column import fold_number
from ensemble.data.table.one_hot import one_hot_labels
from ensemble.data.unpacked.local import as_local, image_folder, refuse_several_tables
from ensemble.errors import UserError
from ensemble.events import SILENT, Events
from ensemble.run import Run

K = 5  # folds.k where no experiment file says another
MOSTLY = 0.9  # distinct values of a column of ids that holds repeated ones


def read_given(
    data: Path, sample_submission: Path | None, classes: tuple[str, ...] = (), events: Events = SILENT
) -> Given:
    """Read a folder, a table or an experiment file. classes: patterns of a folder's class folders, none where they are
    found by their structure. events: hears of what is unpacked or fetched. Raises UserError where there is nothing to
    audit."""
    if data.suffix.lower() == ".toml" and data.is_file():
        return _read_experiment(data, events)
    data = as_local(data, events)
    found_at = Source(data) if classes else follow_data(data, sample_submission)
    source, notes = found_at.path, list(found_at.notes)
    images = None
    if source.is_dir():
        rows, more = _read_folders(source, classes)
        notes += more
    else:
        table, more = read_image_table(source, source.parent, image_names)
        sample = read_sample(sample_submission).table() if sample_submission is not None else None
        found = find_columns(source, table, sample)
        columns: Columns = {"path": found.path, "label": found.label, "group": found.group, "fold": found.fold}
        columns["id"] = found.id or _id_with_repeats(table, [found.path, found.label, found.fold])
        if columns["group"] == columns["id"]:
            columns["group"] = None
        used = ", ".join(f"{key} in {column!r}" for key, column in columns.items() if column)
        rows = _read_rows(source, table, columns, found.images)
        notes += [*more, f"{source.name}: {used}", *found.notes, *rows.notes]
        images = found.images
    return Given(
        rows, False, K, None, None, None, rows.folds is not None, "auto", tuple(notes), images, classes=classes
    )


def read_test(test: Path, events: Events = SILENT) -> Rows:
    """Images to predict: a folder, or a table whose images lie beside it or in a folder below. events: as of
    `read_given`. Raises UserError where there is no image."""
    test = as_local(test, events)
    if test.is_dir():
        listing = list_folder(test)
        if not listing.images:
            raise UserError(listing.no_images())
        refuse_parts(tree(listing))
        found, files = _with_lost(listing)
        ids = np.array([nfc(file.relative_to(test).as_posix()) for file in found], dtype=np.str_)
        return Rows(test, ids, files, None, listing=listing)
    table, notes = read_image_table(test, test.parent, image_names)
    column = image_column(test, table)
    columns: Columns = {"path": column.name, "label": None, "id": None, "group": None, "fold": None}
    rows = _read_rows(test, table, columns, column.folder)
    return replace(rows, notes=(*notes, *column.notes, *rows.notes))


def _read_experiment(path: Path, events: Events) -> Given:
    config = load_config(path)
    data = config.data
    source, images = as_local(data.train, events, data.images is None), image_folder(data.images, events)
    if not source.exists():
        raise UserError(f"{path}: data.train = {str(source)!r}: no such file or folder (seen from {Path.cwd()})")
    columns: Columns = {
        "path": data.path,
        "label": data.label,
        "id": data.id,
        "group": None if data.group == FROM_NAMES else data.group,
        "fold": config.folds.fold,
    }
    notes: list[str] = []
    if source.is_dir():
        refuse_several_tables(source)
        rows, notes = _read_folders(source, data.classes)
    else:
        table, notes = read_image_table(source, images or source.parent, image_names)
        for key, given in columns.items():
            for column in (given,) if isinstance(given, str) else given or ():
                if column not in table.columns:
                    where = "folds.fold" if key == "fold" else f"data.{key}"
                    raise UserError(f"{source}: no column {column!r} ({where}); it has: {', '.join(table.columns)}")
        rows = _read_rows(source, table, columns, images)
    if data.group == FROM_NAMES:
        found = name_groups(rows.files, clean_labels(rows).tolist(), names_base(config))
        if found is not None:  # else training refuses the key
            rows = replace(rows, groups=found.each(rows.ids.tolist()))
            notes.append(found.describe())
    run = config.run if Run(config.run).folds_csv.is_file() else None
    own_folds = rows.folds is not None
    if run is not None and not own_folds:
        known = dict(zip(*(read_folds(Run(run))[name].tolist() for name in ("id", "fold")), strict=True))
        folds = np.array([known.get(id, UNKNOWN_FOLD) for id in rows.ids.tolist()], dtype=np.int64)
        rows = replace(rows, folds=folds)
    notes = [
        f"{path} trains on {source}",
        *notes,
        *rows.notes,
        *([f"its run {run} has folds, which are checked too"] if run else []),
    ]
    return Given(
        rows, True, config.folds.k, data.image_size, data.crop, run, own_folds, data.cache, tuple(notes), images,
        config.folds.near_copies, data.classes,
    )  # fmt: skip


def fingerprint(data: Path, given: Given) -> str | None:
    """The fingerprint of the samples that `ens train-folds` would read; None where it would refuse them. data: what
    `given` was read from."""
    rows = given.rows
    try:
        if given.experiment:
            return read_labelled(load_config(data)).fingerprint()
        if rows.columns is None:
            return read_class_folders(rows.source, given.classes).fingerprint()
        path, label = rows.columns["path"], rows.columns["label"]
        id, group, fold = (rows.columns[key] for key in ("id", "group", "fold"))
        assert isinstance(path, str) and label is not None
        assert not isinstance(id, tuple) and not isinstance(group, tuple) and not isinstance(fold, tuple)
        return read_samples(rows.source, path, label, id, group, fold, given.images).fingerprint()
    except (UserError, OSError):
        return None


def _read_folders(source: Path, classes: tuple[str, ...]) -> tuple[Rows, list[str]]:
    """The images of a folder of class folders, and lines on what it was taken for."""
    listing = list_folder(source)
    if not listing.images and not listing.lost:
        raise UserError(listing.no_images())
    top, notes = tree(listing), list[str]()
    folder = top
    if not classes:
        place = follow(top)
        folder, notes, listing = place.folder, list(place.notes), listing.below(place.folder.path)
        notes += levels(folder)
        if not folder.inner and len(place.passed) > 1:
            refuse_loose(place, listing.images)
    found, files = _with_lost(listing)
    chosen = class_folders(folder, classes or ("*",))
    labels = labels_of(found, chosen)
    if classes:
        notes += outside(listing, labels_of(listing.images, chosen))
        found = [path for path, label in zip(found, labels, strict=True) if label]
        files = tuple(file for file, label in zip(files, labels, strict=True) if label)
        labels = [label for label in labels if label]
    ids = np.array([nfc(path.relative_to(folder.path).as_posix()) for path in found], dtype=np.str_)
    bare = bare_folders(listing, classes or ("*",))
    return Rows(folder.path, ids, files, np.array(labels, dtype=np.str_), listing=listing, bare=bare), notes


def _with_lost(listing: Listing) -> tuple[list[Path], tuple[Path | None, ...]]:
    """Images and links that are named like images and lead nowhere, sorted; and the files, None for the latter."""
    lost = {path for path in listing.lost if path.suffix.lower() in IMAGE_ENDINGS}
    found = sorted([*listing.images, *lost])
    return found, tuple(None if path in lost else path for path in found)


def _read_rows(source: Path, table: pd.DataFrame, columns: Columns, images: Path | None) -> Rows:
    def cells(key: str) -> list[str] | None:
        column = columns[key]
        if isinstance(column, tuple):
            return one_hot_labels(table, column, source)
        return None if column is None else [str(text) for text in table[column]]

    written = cells("path") or []
    located = locate(images or source.parent, written, image_names, cells("label"))
    ids = [nfc(text.strip()) or f"(row {row + 1})" for row, text in enumerate(cells("id") or written)]
    labels, groups, folds = cells("label"), cells("group"), cells("fold")
    lost = [row for row, file in enumerate(located.files) if file is None and written[row].strip()]
    return Rows(
        source,
        np.array(ids, dtype=np.str_),
        located.files,
        None if labels is None else np.array(labels, dtype=np.str_),
        None if groups is None else np.array([nfc(text.strip()) for text in groups], dtype=np.str_),
        None if folds is None else np.array([_fold(text) for text in folds], dtype=np.int64),
        table,
        columns,
        notes=(*located.notes, *(f"image {located.reason(row)}" for row in lost[:1])),
    )


def _fold(text: str) -> int:
    try:
        number = fold_number(text)
    except ValueError:
        return UNKNOWN_FOLD
    return number if abs(number) < 2**31 else UNKNOWN_FOLD


def _id_with_repeats(table: pd.DataFrame, taken: list[str | tuple[str, ...] | None]) -> str | None:
    """A column named like an id whose values repeat a little: `find_columns` takes none but a unique one."""
    for name in map(str, table.columns):
        if plain(name) in ID_NAMES and name not in taken and MOSTLY * len(table) <= table[name].nunique() < len(table):
            return name
    return None

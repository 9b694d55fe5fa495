"""Labelled and unlabelled images as rows: read, checked and fingerprinted.

A source is a folder of class folders, a folder of images, a CSV or a Parquet file. Rows are sorted by id, so that a
run depends neither on the file system's order nor on the table's.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from ensemble.data.classes import in_order
from ensemble.data.folders.class_folders import bare_folders, class_folders, labels_of, outside, tree
from ensemble.data.folders.layout import Followed, follow, levels, refuse_loose, refuse_parts
from ensemble.data.folders.listing import Listing, image_files, list_folder
from ensemble.data.names import nfc as nfc
from ensemble.data.table.find_files import ImageColumn, find_image_column, locate
from ensemble.data.table.fold_column import own_folds
from ensemble.data.table.one_hot import one_hot_labels
from ensemble.data.table.read import read_image_table as read_image_table
from ensemble.data.table.read import read_table as read_table
from ensemble.data.table.several import several_labels
from ensemble.data.unpacked.local import as_local, image_folder
from ensemble.errors import UserError
from ensemble.events import SILENT, Events
from ensemble.plural import pluralize


@dataclass(frozen=True)
class Samples:
    """N rows.

    ids: unique str (N,).
    paths: N files that exist.
    labels: int64 (N,), indices into `classes`, or None.
    classes: C names.
    groups: str (N,) or None; rows of one group stay on one side of every fold.
    folds: int64 (N,) or None, the user's own; -1 for rows never validated.
    weights: float64 (N,) or None, finite and 0 or more: how much a row counts in the training loss.
    corrections: how many labels `corrections.corrected` changed and how many rows it dropped, or None.
    notes: a line on each thing that was left out, or taken for what it seems to be.
    digests: SHA-256 of each file's bytes in hex, (N,), or None while nothing has asked for them
        (`contents.with_digests`).
    """

    ids: np.ndarray
    paths: tuple[Path, ...]
    labels: np.ndarray | None
    classes: tuple[str, ...]
    groups: np.ndarray | None = None
    folds: np.ndarray | None = None
    weights: np.ndarray | None = None
    corrections: tuple[int, int] | None = None
    notes: tuple[str, ...] = ()
    digests: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def fingerprint(self) -> str:
        """SHA-256 over ids, labels, groups, own folds, file sizes and (where there are any) weights, whatever the order
        of the rows."""
        digest = hashlib.sha256()
        for row in np.argsort(self.ids):
            label = "" if self.labels is None else self.classes[self.labels[row]]
            group = "" if self.groups is None else self.groups[row]
            fold = "" if self.folds is None else self.folds[row]
            weight = () if self.weights is None else (float(self.weights[row]),)
            parts = (self.ids[row], label, group, fold, self.paths[row].stat().st_size, *weight)
            digest.update(("\0".join(map(str, parts)) + "\n").encode())
        return digest.hexdigest()


def read_samples(
    source: Path,
    path: str = "path",
    label: str | Sequence[str] = "label",
    id: str | None = None,
    group: str | None = None,
    fold: str | None = None,
    images: Path | None = None,
    weight: str | None = None,
) -> Samples:
    """Read labelled images from a folder of class folders or from a table with the columns named.

    label: one column of class names, or a column of 0 and 1 for each class. images: the folder that a table's paths
    start from; None: the table's own. Without an `id` column the path as written is the id. Weights are finite and 0
    or more, and not all 0.
    Raises UserError that names the file, the column or the row.
    """
    source = as_local(source, with_images=images is None)
    if source.is_dir():
        refuse_columns(source, group, fold, weight)
        return read_class_folders(source)
    folder = image_folder(images) or source.parent
    table, notes = read_image_table(source, folder, image_names)
    labels = [label] if isinstance(label, str) else list(label)
    for key, column in [
        ("data.path", path),
        *(("data.label", name) for name in labels),
        ("data.id", id),
        ("data.group", group),
        ("folds.fold", fold),
        ("data.weight", weight),
    ]:
        if column is not None and column not in table.columns:
            raise UserError(f"{source}: no column {column!r} ({key}); it has: {', '.join(table.columns)}")
    _refuse_empty(table, [column for column in (path, *labels, id, group) if column], source)
    written = [nfc(text.strip()) for text in table[path]]
    _refuse_repeats(written, f"{source}: path")
    ids = [nfc(text.strip()) for text in table[id]] if id else written
    if isinstance(label, str):
        names = [nfc(text.strip()) for text in table[label]]
    else:
        names = one_hot_labels(table, labels, source)
    files, more = _files(source, folder, table[path].tolist(), names)
    several = several_labels(names)
    notes += [*more, *([] if several is None else [f"warning: {several}"])]
    samples = _samples(ids, files, names, source)
    order = np.argsort(np.array(ids, dtype=np.str_))
    groups = np.array([nfc(text.strip()) for text in table[group]], dtype=np.str_)[order] if group else None
    folds = own_folds(table[fold], source)[order] if fold else None
    weights = _weights(table[weight], ids, source)[order] if weight else None
    return replace(samples, groups=groups, folds=folds, weights=weights, notes=tuple(notes))


def refuse_columns(source: Path, group: str | None, fold: str | None, weight: str | None) -> None:
    """Raise UserError if one of these columns is asked of a folder."""
    for key, column in {"data.group": group, "folds.fold": fold, "data.weight": weight}.items():
        if column:
            raise UserError(f"{key} = {column!r} names a column, but {source} is a folder, not a table")


def read_class_folders(source: Path, classes: Sequence[str] = ()) -> Samples:
    """Read a folder of class folders, or what an unpacked data set wraps around one.

    classes: patterns of the class folders (`layout.class_folders`), seen from `source`; none: found by `layout.follow`.
    Raises UserError that names the file or folder, or the readings if there are several.
    """
    listing = list_folder(source)
    top = tree(listing)
    place = Followed(top, (top,)) if classes else follow(top)
    folder = place.folder.path
    listing = listing.below(folder)
    patterns = classes or ("*",)
    _refuse_bare_folders(listing, patterns)
    if not classes:
        refuse_loose(place, listing.images)
    if not listing.images:
        raise UserError(
            f"{folder}: no images in class folders; want one folder per class: {folder.name}/<class>/*.jpg, or a CSV"
        )
    labels = labels_of(listing.images, class_folders(place.folder, patterns))
    rows = [row for row, label in enumerate(labels) if label]
    notes = [*place.notes, *([] if classes else levels(place.folder)), *outside(listing, labels), *listing.left_out()]
    files = [listing.images[row] for row in rows]
    ids = [nfc(file.relative_to(folder).as_posix()) for file in files]
    return replace(_samples(ids, files, [labels[row] for row in rows], folder), notes=tuple(notes))


def read_images(source: Path, events: Events = SILENT) -> tuple[list[str], list[Path], tuple[str, ...]]:
    """Ids and files of unlabelled images, sorted: every image below a folder (its relative path is its id), or the
    rows of a table (its `path` column, else the first one that names images). The third are lines on what is left out,
    or taken for what it seems to be. events: hears of what is unpacked or fetched. Raises UserError that names what is
    wrong."""
    source = as_local(source, events)
    if source.is_dir():
        listing = list_folder(source)
        if not listing.images:
            raise UserError(listing.no_images())
        refuse_parts(tree(listing))
        notes = tuple(listing.left_out())
        files = list(listing.images)
        ids = [nfc(file.relative_to(source).as_posix()) for file in files]
    else:
        table, found = read_image_table(source, source.parent, image_names)
        column = image_column(source, table)
        ids = [nfc(text.strip()) for text in table[column.name]]
        files, more = _files(source, column.folder or source.parent, table[column.name].tolist())
        notes = (*found, *column.notes, *more)
    _refuse_repeats(ids, f"{source}: id")
    order = np.argsort(np.array(ids, dtype=np.str_))
    return [ids[row] for row in order], [files[row] for row in order], notes


def image_column(source: Path, table: pd.DataFrame) -> ImageColumn:
    """The column of a table of unlabelled images that names them: `path`, else one that names images that are there,
    else the first. Raises UserError if it could be images of several folders."""
    if "path" in table.columns:
        return ImageColumn("path", None)
    found = find_image_column(source, table, image_names, labelled=False)
    return ImageColumn(str(table.columns[0]), None) if found is None else found


def image_names(folder: Path) -> list[str]:
    """Relative paths of all images below a folder."""
    return [file.relative_to(folder).as_posix() for file in image_files(folder)]


def _files(
    source: Path, folder: Path, written: Sequence[str], labels: Sequence[str] | None = None
) -> tuple[list[Path], tuple[str, ...]]:
    """The file that each cell names, and lines on those that are written otherwise. Raises UserError that says why the
    first that names none doesn't, or which two name one."""
    located = locate(folder, written, image_names, labels)
    lost = [row for row, file in enumerate(located.files) if file is None]
    if lost:
        others = f"; {len(lost):,} of {len(written):,} rows have no file" if len(lost) > 1 else ""
        raise UserError(f"{source}: image {located.reason(lost[0])} (seen from {folder}{others})")
    files = [file for file in located.files if file is not None]
    seen: dict[Path, int] = {}
    for row, file in enumerate(files):
        first = seen.setdefault(file, row)
        if written[first] != written[row]:
            raise UserError(f"{source}: {written[first]!r} and {written[row]!r} are one file; every row needs its own")
    return files, located.notes


def _refuse_bare_folders(listing: Listing, patterns: Sequence[str]) -> None:
    """A class whose images are all of an unknown kind must not silently be no class."""
    for folder in bare_folders(listing, patterns):
        if folder in listing.turned:
            raise UserError(f"{folder}: a link to a folder that is read already, or to one above; remove it")
        other = next((file.name for file in listing.others if folder in file.parents), None)
        holds = f"no images that ens can read (but {other!r})" if other else "nothing"
        raise UserError(f"{folder}: holds {holds}; convert them to JPEG or PNG, or remove the folder")


def _samples(ids: Sequence[str], files: Sequence[Path], names: Sequence[str], source: Path) -> Samples:
    _refuse_repeats(ids, f"{source}: id")
    for name in ids:
        if name.encode(errors="ignore").decode() != name:  # names of an old Korean zip, say
            raise UserError(f"{source}: file name {name!r} is not UTF-8; rename it (convmv does whole folders)")
    classes = in_order(names)
    if len(classes) < 2:
        raise UserError(f"{source}: only one class, {classes[0]!r}; a classifier needs two or more")
    index = {name: position for position, name in enumerate(classes)}
    array = np.array(ids, dtype=np.str_)
    order = np.argsort(array)
    labels = np.array([index[name] for name in names], dtype=np.int64)
    return Samples(array[order], tuple(files[row] for row in order), labels[order], classes)


def _weights(column: pd.Series, ids: Sequence[str], source: Path) -> np.ndarray:
    """Sample weights, float64 (N,), in the table's order; ids: those of the rows, for the error."""
    weights = np.empty(len(column))
    for row, text in enumerate(column):
        try:
            weights[row] = float(text)
        except ValueError:
            weights[row] = np.nan
        if not (np.isfinite(weights[row]) and weights[row] >= 0):
            raise UserError(
                f"{source}: weight column {column.name!r} holds {text!r} in row {ids[row]!r}; "
                "want a finite number of 0 or more"
            )
    if not weights.any():
        raise UserError(f"{source}: weight column {column.name!r} is 0 in every row; there is nothing to learn from")
    return weights


def _refuse_empty(table: pd.DataFrame, columns: list[str], source: Path) -> None:
    for column in columns:
        empty = np.flatnonzero(table[column].str.strip() == "")
        if len(empty):
            raise UserError(
                f"{source}: column {column!r} is empty in row {empty[0] + 1} ({pluralize(len(empty), 'row')} in all)"
            )


def _refuse_repeats(values: Sequence[str], what: str) -> None:
    seen: set[str] = set()
    for value in values:
        if value in seen:
            raise UserError(f"{what} {value!r} is there twice; every row needs its own")
        seen.add(value)

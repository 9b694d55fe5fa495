"""Which column of a table is what, by its values first and its name second."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from ensemble.data.listing import image_files
from ensemble.data.table import nfc
from ensemble.errors import UserError

# In order of likelihood, in lower case and with _ between words.
# fmt: off
PATH_NAMES = ("path", "filepath", "file_path", "image_path", "img_path", "file", "filename", "file_name", "image",
              "img", "image_name", "image_file")
LABEL_NAMES = ("label", "labels", "class", "class_name", "classname", "label_name", "category", "target", "y",
               "species", "breed", "diagnosis", "ans", "answer", "cls")
ID_NAMES = ("id", "image_id", "imageid", "img_id", "sample_id", "row_id", "uid", "uuid", "key", "index")
GROUP_NAMES = ("group", "person", "subject", "patient", "participant", "people", "identity", "individual", "user",
               "scene", "session", "video", "clip", "sequence", "burst", "series", "case", "study", "animal", "donor",
               "family", "owner", "author", "artist", "painter", "photographer", "slide", "plot")
FOLD_NAMES = ("fold", "folds", "kfold", "k_fold", "fold_id", "cv_fold", "cv")
SPLIT_NAMES = ("split", "subset", "set", "partition")
# fmt: on

SAMPLE_ROWS = 200  # whose files are looked for
WEAK_GROUPS = 10  # a column that is group-like only by its "id" ending needs so many values


@dataclass(frozen=True)
class Columns:
    """Column names as the table writes them; None where it has no such column. images: the folder that the paths
    start from, None for the table's own. notes: what was unsure, a line each."""

    images: Path | None
    path: str
    label: str
    id: str | None
    group: str | None
    fold: str | None
    notes: tuple[str, ...]


def find_columns(source: Path, table: pd.DataFrame, submission: pd.DataFrame | None = None) -> Columns:
    """Find the columns of a labelled table (every cell text). submission: a sample submission, whose header and values
    show which of two label columns is meant.

    Raises UserError that lists the columns if no column holds image files or no column is a label.
    """
    notes: list[str] = []
    images, path = _path(source, table, notes)
    rest = [name for name in map(str, table.columns) if name != path]
    fold = _fold(table, rest, notes)
    rest = [name for name in rest if name != fold and _plain(name) not in FOLD_NAMES + SPLIT_NAMES]
    label = _label(source, table, rest, submission, notes)
    rest = [name for name in rest if name != label]
    ids = [name for name in rest if _plain(name) in ID_NAMES and table[name].is_unique and not _empty(table, name)]
    id = min(ids, key=lambda name: ID_NAMES.index(_plain(name)), default=None)
    group = _group(table, label, [name for name in rest if name not in ids], notes)
    for name in map(str, table.columns):
        if _plain(name) in SPLIT_NAMES and name != label and 1 < table[name].nunique() <= 5:
            notes.append(
                f"column {name!r} holds {_some(sorted(set(table[name])))}: it is not used, rows of every kind are "
                "trained on; make a table of the training rows if the others are for testing"
            )
    return Columns(images, path, label, id, group, fold, tuple(notes))


def _path(source: Path, table: pd.DataFrame, notes: list[str]) -> tuple[Path | None, str]:
    shares = {
        str(name): np.mean([_is_file(source.parent, text) for text in _sample(table[name])]) for name in table.columns
    }
    found = [name for name, share in shares.items() if share > 0]
    if not found:
        return _path_below(source, table)
    found.sort(key=lambda name: (-shares[name], not table[name].is_unique, _rank(name, PATH_NAMES)))
    if len(found) > 1:
        others = ", ".join(map(repr, found[1:]))
        notes.append(f"column {found[0]!r} is taken for the images; {others} holds files too (to change: data.path)")
    return None, found[0]


def _path_below(source: Path, table: pd.DataFrame) -> tuple[Path | None, str]:
    """The folder and the column where the files lie in a folder below, or are written without their ending. Raises
    UserError that lists the columns if that is not so either."""
    files = {nfc(file.relative_to(source.parent).as_posix()) for file in image_files(source.parent)}
    folders = sorted({f"{parent}/" for file in files for parent in PurePosixPath(file).parents if str(parent) != "."})
    endings = ["", *sorted({PurePosixPath(file).suffix for file in files})]
    for name in sorted(map(str, table.columns), key=lambda name: (_rank(name, PATH_NAMES), _rank(name, ID_NAMES))):
        texts = [nfc(text) for text in _sample(table[name])[:50]]
        for folder in ["", *folders]:
            for ending in endings:
                if sum(f"{folder}{text}{ending}" in files for text in texts) > len(texts) / 2:
                    return (source.parent / folder if folder else None), name
    raise UserError(
        f"{source}: no column holds images that are there, seen from the table's folder {source.parent}; columns: "
        + "; ".join(f"{name} ({table[name].iloc[0]!r}, ...)" for name in table.columns)
    )


def _fold(table: pd.DataFrame, names: Sequence[str], notes: list[str]) -> str | None:
    for name in sorted((name for name in names if _plain(name) in FOLD_NAMES), key=lambda n: _rank(n, FOLD_NAMES)):
        values = sorted(set(table[name]) - {"", "-1", "-1.0"})
        try:
            numbers = sorted({int(float(value)) for value in values})
        except ValueError:
            numbers = []
        if len(numbers) >= 2 and numbers == list(range(len(numbers))):
            return name
        notes.append(
            f"column {name!r} is named like your own folds but holds {_some(values)}: folds are made anew "
            "(to use it, number it 0, 1, 2, ... and set folds.fold)"
        )
    return None


def _label(
    source: Path, table: pd.DataFrame, names: Sequence[str], submission: pd.DataFrame | None, notes: list[str]
) -> str:
    rows = len(table)
    distinct = {name: table[name].nunique() for name in names}
    named = [name for name in names if _rank(name, LABEL_NAMES) < len(LABEL_NAMES) and distinct[name] < max(2, rows)]
    unnamed = [
        name
        for name in names
        if 2 <= distinct[name] <= min(rows // 2, max(20, rows // 10))
        and _base(name) not in GROUP_NAMES
        and not _empty(table, name)
        and not table[name].str.fullmatch(r"-?\d*\.\d+").any()
    ]
    asked: set[str] = set()
    header: list[str] = []
    if submission is not None:
        header = [_plain(name) for name in submission.columns[1:]]
        asked = set(submission.iloc[:, 1]) if len(header) == 1 else set(submission.columns[1:])

    def likelihood(name: str) -> tuple[bool, bool, int, int]:
        fits = bool(asked) and asked <= set(table[name])
        return not fits, _plain(name) not in header, _rank(name, LABEL_NAMES), distinct[name]

    found = sorted(named or unnamed, key=likelihood)
    if not found:
        raise UserError(
            f"{source}: no column looks like a label (named label, class, target, ..., or with few values); columns: "
            + "; ".join(f"{name} ({table[name].nunique()} different values)" for name in table.columns)
        )
    label = found[0]
    if len(found) > 1:
        others = ", ".join(f"{name!r} ({distinct[name]} values)" for name in found[1:4])
        notes.append(f"column {label!r} is taken for the label rather than {others} (to change: data.label)")
    elif not named:
        notes.append(f"column {label!r} is taken for the label: no other has few values (to change: data.label)")
    return label


def _group(table: pd.DataFrame, label: str, names: Sequence[str], notes: list[str]) -> str | None:
    classes = table[label].nunique()
    strong: list[str] = []
    weak: list[str] = []
    hints: list[str] = []
    for name in names:
        values = table[name].nunique()
        if not 2 <= values < len(table) or table.groupby(label)[name].nunique().max() == 1:
            continue  # constant, unique, or another way of writing the label
        if _base(name) in GROUP_NAMES:
            strong.append(name)
        elif _plain(name).endswith("id") and values >= max(WEAK_GROUPS, classes + 1):
            weak.append(name)
        elif values > classes and not table[name].str.fullmatch(r"-?[\d.]*").all():
            hints.append(name)
    strong.sort(key=lambda name: GROUP_NAMES.index(_base(name)))
    found = [name for name in strong + weak if not _empty(table, name)]
    for name in strong:
        if _empty(table, name):
            notes.append(
                f"column {name!r} looks like groups but is empty in {(table[name].str.strip() == '').sum()} rows, so "
                "it is left out: fill it and set data.group, or images of one group land on both sides of a fold"
            )
    if not found:
        notes += [
            f"if rows that share a value of {name!r} belong together (one person, one place, one video), "
            f"set data.group = {name!r}"
            for name in hints[:1]
        ]
        return None
    if len(found) > 1:
        others = ", ".join(map(repr, found[1:4]))
        notes.append(f"column {found[0]!r} is taken for the groups rather than {others} (to change: data.group)")
    return found[0]


def _plain(name: str) -> str:
    return re.sub(r"[\s.-]+", "_", name.strip()).lower()


def _base(name: str) -> str:
    """ "PatientID", "patient_no" and "Patient" are all "patient"."""
    return re.sub(r"_?(ids?|idx|no|nr|num|number|name|key)$", "", _plain(name)) or _plain(name)


def _rank(name: str, known: Sequence[str]) -> int:
    return known.index(_plain(name)) if _plain(name) in known else len(known)


def _sample(column: "pd.Series[str]") -> list[str]:
    rows = np.unique(np.linspace(0, len(column) - 1, SAMPLE_ROWS).astype(int))
    return [str(text) for text in column.iloc[rows]]


def _is_file(folder: Path, text: str) -> bool:
    try:
        return (folder / text).is_file() or (folder / nfc(text)).is_file()
    except OSError:  # a cell of prose is longer than any file name
        return False


def _empty(table: pd.DataFrame, name: str) -> bool:
    return bool((table[name].str.strip() == "").any())


def _some(values: Sequence[str]) -> str:
    return ", ".join(map(repr, values[:6])) + (", ..." if len(values) > 6 else "")

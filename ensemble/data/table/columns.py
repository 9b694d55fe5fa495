"""Which column of a table is what, by its values first and its name second."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ensemble.data.samples import image_names
from ensemble.data.table.column_names import (
    FOLD_NAMES,
    GROUP_NAMES,
    ID_NAMES,
    LABEL_NAMES,
    PATH_NAMES,
    SPLIT_NAMES,
    plain,
    rank,
)
from ensemble.data.table.find_files import find_image_column, locate
from ensemble.data.table.fold_column import are_folds, fold_numbers
from ensemble.data.table.one_hot import class_columns, indicators, not_one_hot, one_hot_labels
from ensemble.data.table.read import row_numbers
from ensemble.errors import UserError

WEAK_GROUPS = 10  # a column that is group-like only by its "id" ending needs so many values


@dataclass(frozen=True)
class Columns:
    """Column names as the table writes them; None where it has no such column.

    images: the folder that the paths start from, None for the table's own.
    path: of image files.
    label: one column, or one of 0 and 1 for each class.
    id: of the rows' ids.
    group: of what no fold may split.
    fold: of the user's own folds.
    notes: a line on each thing that was unsure.
    """

    images: Path | None
    path: str
    label: str | tuple[str, ...]
    id: str | None
    group: str | None
    fold: str | None
    notes: tuple[str, ...]


def find_columns(
    source: Path,
    table: pd.DataFrame,
    submission: pd.DataFrame | None = None,
    images: Path | None = None,
    label: str | tuple[str, ...] | None = None,
) -> Columns:
    """Find the columns of a labelled table (every cell text).

    submission: a sample submission, whose header and values show which of two label columns is meant. images, label:
    the folder of the images and the label's column or columns, None where they are to be found.
    Raises UserError that lists the columns if no column holds image files or no column is a label, and for columns of 0
    and 1 that give a row several labels, or none.
    """
    notes: list[str] = []
    column = find_image_column(source, table, image_names, images)
    if column is None:
        raise UserError(
            f"{source}: no column holds images that are there, seen from {images or source.parent}: "
            f"{_nearest(table, images or source.parent)}; columns: "
            + "; ".join(f"{name} ({table[name].iloc[0]!r}, ...)" for name in table.columns)
        )
    path = column.name
    notes += column.notes
    numbers = row_numbers(table)
    rest = [name for name in map(str, table.columns) if name != path and name not in numbers]
    fold = _fold(table, rest, notes)
    rest = [name for name in rest if name != fold and plain(name) not in FOLD_NAMES + SPLIT_NAMES]
    if label is None:
        label = _one_hot(source, table, rest, submission, notes) or _label(source, table, rest, submission, notes)
    labels = (label,) if isinstance(label, str) else label
    for name in labels:
        if name not in table.columns:
            raise UserError(f"{source}: no column {name!r} (--label); it has: {', '.join(table.columns)}")
    classes = [str(name) for name in table[label]] if isinstance(label, str) else one_hot_labels(table, label, source)
    rest = [name for name in rest if name not in labels]
    ids = [name for name in rest if plain(name) in ID_NAMES and table[name].is_unique and not _empty(table, name)]
    id = min(ids, key=lambda name: ID_NAMES.index(plain(name)), default=None)
    group = _group(table, classes, [name for name in rest if name not in ids], notes)
    for name in map(str, table.columns):
        if plain(name) in SPLIT_NAMES and name not in labels and 1 < table[name].nunique() <= 5:
            notes.append(
                f"column {name!r} holds {_some(sorted(set(table[name])))}: it is not used, rows of every kind are "
                "trained on; make a table of the training rows if the others are for testing"
            )
    return Columns(images or column.folder, path, label, id, group, fold, tuple(notes))


def _nearest(table: pd.DataFrame, folder: Path) -> str:
    """Why the first cell of the column that is named most like one of images names none."""
    name = min(map(str, table.columns), key=lambda name: (rank(name, PATH_NAMES), rank(name, ID_NAMES)))
    located = locate(folder, [str(table[name].iloc[0])], image_names)
    return located.reason(0) if located.files[0] is None else f"{located.written[0]!r} is, but most others are not"


def _one_hot(
    source: Path, table: pd.DataFrame, names: Sequence[str], submission: pd.DataFrame | None, notes: list[str]
) -> tuple[str, ...] | None:
    """The columns of 0 and 1 that are the classes; None where one column is the label. Raises UserError if such columns
    give a row several labels or none, and nothing else could be a label."""
    values = {name: found for name in names if (found := indicators(table[name])) is not None}
    asked = [] if submission is None else [str(name).strip() for name in submission.columns[1:]]
    if len(asked) > 1 and set(asked) <= set(values):  # a column of the sample for each class
        values = {name: found for name, found in values.items() if name in asked}
    elif any(rank(name, LABEL_NAMES) < len(LABEL_NAMES) for name in names):
        return None
    bare = [name for name, found in values.items() if not found.any()]
    values = {name: found for name, found in values.items() if name not in bare}
    classes = class_columns(values)
    if classes:
        notes.append(
            f"the classes are the columns {_some(classes)}: each row has exactly one 1 in these {len(classes)} columns "
            "(to change: data.label)"
        )
        if bare:
            notes.append(f"warning: no class is made of {_some(bare)}: 0 in every row")
        return tuple(classes)
    others = [name for name in names if name not in values and _few_values(table, name)]
    if len(values) < 2 or (others and not asked):
        return None
    wrong = not_one_hot(np.stack(list(values.values()), axis=1), list(values))
    if wrong is None:  # several sets of columns would do
        wrong = "several sets of them hold exactly one 1 in each row"
    first = next(iter(values))
    answers = " and ".join(sorted(set(table[first])))  # 0 and 1, -1 and 1, no and yes
    raise UserError(
        f"{source}: the columns {_some(list(values))} hold {answers}, but {wrong}. Either an image has several labels, "
        "which ens can't train yet; or only some of these are the classes (--label A,B,C: one 1 in each row); "
        f"or one is the question (--label {first}: the classes {answers})"
    )


def _fold(table: pd.DataFrame, names: Sequence[str], notes: list[str]) -> str | None:
    for name in sorted((name for name in names if plain(name) in FOLD_NAMES), key=lambda n: rank(n, FOLD_NAMES)):
        try:
            if are_folds(fold_numbers(table[name])):
                return name
        except ValueError:  # the note shows what it holds
            pass
        values = sorted(set(table[name]) - {"", "-1", "-1.0"})
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
    named = [name for name in names if rank(name, LABEL_NAMES) < len(LABEL_NAMES) and distinct[name] < max(2, rows)]
    unnamed = [name for name in names if _few_values(table, name)]
    asked: set[str] = set()
    header: list[str] = []
    if submission is not None:
        header = [plain(name) for name in submission.columns[1:]]
        asked = set(submission.iloc[:, 1]) if len(header) == 1 else set(submission.columns[1:])

    def likelihood(name: str) -> tuple[bool, bool, int, int]:
        fits = bool(asked) and asked <= set(table[name])
        return not fits, plain(name) not in header, rank(name, LABEL_NAMES), distinct[name]

    found = sorted(named or unnamed, key=likelihood)
    if not found:
        raise UserError(
            f"{source}: no column looks like a label (named label, class, target, ..., or with few values); columns: "
            + "; ".join(f"{name} ({table[name].nunique()} different values)" for name in table.columns)
        )
    label = found[0]
    alike = [name for name in found if set(table[name]) == set(table[label])]
    if len(alike) > 1 and not named and not asked:
        raise UserError(
            f"{source}: each of the columns {_some(alike)} holds {_some(sorted(set(table[label])))}, and nothing tells "
            f"which of them is the label: say which one (--label {label}). An image of several labels ens can't train "
            "yet; to train on which column applies, write 1 into that one and 0 into the others"
        )
    if len(found) > 1:
        others = ", ".join(f"{name!r} ({distinct[name]} values)" for name in found[1:4])
        notes.append(f"column {label!r} is taken for the label rather than {others} (to change: data.label)")
    elif not named:
        notes.append(f"column {label!r} is taken for the label: no other has few values (to change: data.label)")
    return label


def _few_values(table: pd.DataFrame, name: str) -> bool:
    """True for a column that may be a label by its values."""
    rows, distinct = len(table), table[name].nunique()
    return (
        2 <= distinct <= min(rows // 2, max(20, rows // 10))
        and _base(name) not in GROUP_NAMES
        and not _empty(table, name)
        and not table[name].str.fullmatch(r"-?\d*\.\d+").any()
    )


def _group(table: pd.DataFrame, labels: Sequence[str], names: Sequence[str], notes: list[str]) -> str | None:
    """labels: the class of each row."""
    classes = len(set(labels))
    strong: list[str] = []
    weak: list[str] = []
    hints: list[str] = []
    for name in names:
        values = table[name].nunique()
        if not 2 <= values < len(table) or table[name].groupby(np.array(labels)).nunique().max() == 1:
            continue  # constant, unique, or another way of writing the label
        if _base(name) in GROUP_NAMES:
            strong.append(name)
        elif plain(name).endswith("id") and values >= max(WEAK_GROUPS, classes + 1):
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


def _base(name: str) -> str:
    """ "PatientID", "patient_no" and "Patient" are all "patient"."""
    return re.sub(r"_?(ids?|idx|no|nr|num|number|name|key)$", "", plain(name)) or plain(name)


def _empty(table: pd.DataFrame, name: str) -> bool:
    return bool((table[name].str.strip() == "").any())


def _some(values: Sequence[str]) -> str:
    return ", ".join(map(repr, values[:6])) + (", ..." if len(values) > 6 else "")

"""Labels that were looked at again: a CSV of `ens relabel`, edited, laid over the labels that the images came with.

A row of it changes a label where its column `new_label` names a class. `keep`, or nothing, leaves the row as it is;
`drop` leaves it out of the data.
"""

import difflib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from ensemble.data.samples import Samples, nfc, read_table
from ensemble.errors import UserError

KEEP, DROP = "keep", "drop"
COLUMN = "new_label"


def read_edited(path: Path) -> pd.DataFrame:
    """The file as a spreadsheet saved it, in whatever form; every cell as text. It may have no rows.

    Raises UserError that names the file, and the column that it lacks.
    """
    table = read_table(path, may_be_empty=True)
    for column in ("id", COLUMN):
        if column not in table.columns:
            names = ", ".join(map(str, table.columns))
            raise UserError(f"{path}: no column {column!r}; it has: {names} (write one with: ens relabel RUN)")
    return table


def read_new_labels(path: Path) -> dict[str, str]:
    """id -> new_label, stripped, of every row, also where it is empty.

    Raises UserError as `read_edited` does, and for an id that is there twice, which it names.
    """
    table = read_edited(path)
    found: dict[str, str] = {}
    for written, new in zip(table["id"], table[COLUMN], strict=True):
        name = nfc(written)
        if name in found:
            raise UserError(f"{path}: id {name!r} is there twice; leave one of its rows")
        found[name] = nfc(new.strip())
    return found


def corrected(samples: Samples, path: Path) -> Samples:
    """The samples with the new labels of the CSV at `path`, less the rows that it drops; `corrections` counts both.
    A label that is given anew as it was is no change.

    Raises UserError, naming the file and the row, for an id that is not among the samples, for a label that is none of
    their classes (it offers the nearest), and for a class that would be left without rows.
    """
    assert samples.labels is not None
    number = {name: position for position, name in enumerate(samples.classes)}
    place = {name: row for row, name in enumerate(samples.ids.tolist())}
    labels, stays = samples.labels.copy(), np.ones(len(samples), dtype=bool)
    for name, new in read_new_labels(path).items():
        if name not in place:
            near = difflib.get_close_matches(name, place, n=1, cutoff=0.0) if len(place) <= 10_000 else []
            hint = f"; the nearest is {near[0]!r}" if near else ""
            raise UserError(f"{path}: id {name!r} is not in the data{hint}: remove its row, or mend data.relabel")
        word = new.casefold()
        if word in (KEEP, DROP) and new in number:
            raise UserError(
                f"{path}: row {name!r}: {new!r} is also a class, so it can't be told which is meant: change the data "
                "itself for this row, and leave the cell empty"
            )
        if new in number:
            labels[place[name]] = number[new]
        elif word == DROP:
            stays[place[name]] = False
        elif word not in ("", KEEP):
            near = difflib.get_close_matches(new, samples.classes, n=1, cutoff=0.0)
            raise UserError(
                f"{path}: row {name!r}: new_label {new!r} is not one of the {len(number)} classes (the nearest is "
                f"{near[0]!r}); give one of them, {KEEP!r} or {DROP!r}: a new class has to be in the data"
            )
    counts = np.bincount(labels[stays], minlength=len(samples.classes))
    if counts.min() == 0:
        raise UserError(f"{path}: leaves class {samples.classes[counts.argmin()]!r} without rows; keep some of it")
    done = int((labels != samples.labels).sum()), int((~stays).sum())
    rows = np.flatnonzero(stays)
    return replace(
        samples,
        ids=samples.ids[rows],
        paths=tuple(samples.paths[row] for row in rows),
        labels=labels[rows],
        groups=None if samples.groups is None else samples.groups[rows],
        folds=None if samples.folds is None else samples.folds[rows],
        weights=None if samples.weights is None else samples.weights[rows],
        corrections=done,
    )

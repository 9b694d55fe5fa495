"""Tables with a column of 0 and 1 for each class."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ensemble.data.names import nfc
from ensemble.data.table.read import number
from ensemble.errors import UserError
from ensemble.plural import pluralize

TRUTH = {"true": 1, "false": 0, "yes": 1, "no": 0}
WINDOWS = 100  # of more columns only all together are looked at


def indicators(column: "pd.Series[str]") -> np.ndarray | None:
    """int8 (N,) of 0 and 1, written as 0 and 1, 0.0 and 1.0, -1 and 1, True and False, or yes and no; None if the
    column holds others."""
    code = {text: TRUTH.get(text.strip().lower(), number(text)) for text in set(column)}
    if not (set(code.values()) <= {0, 1} or set(code.values()) <= {-1, 1}):
        return None
    return np.array([code[text] == 1 for text in column], dtype=np.int8)


def class_columns(columns: dict[str, np.ndarray]) -> list[str]:
    """Of these columns of 0 and 1 those that are classes: all of them if each row holds exactly one 1, else neighbours
    that do, three or more and most of the columns: two (day, night) may do so among several labels. Empty if there are
    none, or if several sets are as large."""
    names = list(columns)
    if len(names) < 2:
        return []
    sums = np.cumsum(np.stack([np.zeros_like(columns[names[0]]), *columns.values()]), axis=0, dtype=np.int32)
    smaller = range(len(names) - 1, max(2, len(names) // 2), -1) if len(names) <= WINDOWS else ()
    for size in (len(names), *smaller):
        fits = [at for at in range(len(names) - size + 1) if (sums[at + size] - sums[at] == 1).all()]
        if fits:
            return names[fits[0] : fits[0] + size] if len(fits) == 1 else []
    return []


def one_hot_labels(table: pd.DataFrame, columns: Sequence[str], source: Path) -> list[str]:
    """The class of each row: the column that holds its only 1.

    Raises UserError for a column of other values, for rows with several or none, and for a column without a 1.
    """
    values = []
    for name in columns:
        found = indicators(table[name])
        if found is None:
            other = next(text for text in table[name] if indicators(pd.Series([text])) is None)
            raise UserError(
                f"{source}: column {name!r} holds {other!r}; where data.label is a list of columns, each holds 0 and 1"
            )
        values.append(found)
    matrix = np.stack(values, axis=1)
    if (wrong := not_one_hot(matrix, columns)) is not None:
        raise UserError(f"{source}: {wrong}: with data.label as a list of columns each row needs exactly one 1")
    bare = [name for name, count in zip(columns, matrix.sum(axis=0), strict=True) if count == 0]
    if bare:
        raise UserError(f"{source}: column {bare[0]!r} is 0 in every row: take it out of data.label, or add its images")
    names: list[str] = [nfc(name.strip()) for name in columns]
    return [names[place] for place in np.argmax(matrix, axis=1).tolist()]


def not_one_hot(matrix: np.ndarray, columns: Sequence[str]) -> str | None:
    """How many rows of 0 and 1, int8 (N, C), have several 1s or none, in words; None where each has one."""
    counts = matrix.sum(axis=1)
    several, none = np.flatnonzero(counts > 1), np.flatnonzero(counts == 0)
    words = []
    if len(several):
        marked = [name for name, value in zip(columns, matrix[several[0]], strict=True) if value]
        count = pluralize(len(several), "row has", "rows have")
        words.append(f"{count} several 1s (row {several[0] + 1}: {', '.join(marked[:4])})")
    if len(none):
        words.append(f"{pluralize(len(none), 'row has', 'rows have')} none (the first is row {none[0] + 1})")
    return " and ".join(words) or None

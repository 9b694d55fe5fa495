"""A column of a table that holds the user's own folds: 0, 1, ..., and -1 or nothing for rows never validated."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from ensemble.errors import UserError

FEWEST, MOST = 2, 127  # folds: they are kept as int8


def fold_number(cell: str) -> int:
    """The fold that a cell names, -1 for an empty one; "1.0", as pandas writes a column that has gaps, is 1. Raises
    ValueError that names a cell which is no whole number."""
    if not cell:
        return -1
    try:
        number = float(cell)
    except ValueError:
        number = np.nan
    if not number.is_integer():  # as NaN and infinity are not either
        raise ValueError(f"{cell!r} is none")
    return int(number)


def fold_numbers(cells: Iterable[str]) -> list[int]:
    """The fold of each cell. Raises ValueError as `fold_number` does."""
    return [fold_number(cell) for cell in cells]


def are_folds(numbers: Iterable[int]) -> bool:
    """Whether these numbers are folds without a gap between them."""
    present = sorted(set(numbers) - {-1})
    return FEWEST <= len(present) <= MOST and present == list(range(len(present)))


def own_folds(column: pd.Series, source: Path) -> np.ndarray:
    """The user's own folds, int64 (N,). source: of the table, for the errors. Raises UserError for a column that holds
    no whole numbers, or no folds."""
    try:
        folds = fold_numbers(column)
    except ValueError as error:
        raise UserError(f"{source}: fold column {column.name!r} must hold whole numbers ({error})") from None
    if not are_folds(folds):
        raise UserError(
            f"{source}: fold column {column.name!r} holds {sorted(set(folds))}; "
            f"want 0, 1, ... without gaps, {FEWEST} to {MOST} of them, and -1 or nothing for rows never validated"
        )
    return np.array(folds, dtype=np.int64)

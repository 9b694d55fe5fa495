"""What `ens check` looks at: rows as they stand in a table or folder, mistakes and all."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ensemble.data.folders.listing import Listing
from ensemble.data.samples import nfc

UNKNOWN_FOLD = -2  # of a row that the run does not hold, or whose cell is no number

Columns = dict[str, str | tuple[str, ...] | None]


@dataclass(frozen=True)
class Rows:
    """N rows as they stand in a table or folder.

    source: the table or folder.
    ids: str (N,), composed (NFC) and not always unique; an empty one is "(row 5)".
    files: the N files, None where there is none.
    labels: str (N,) as written, "" where empty; None for test images.
    groups: str (N,) or None.
    folds: int64 (N,) or None, -1 for rows never validated.
    table: the table, None for folders.
    columns: the names in it of path, label (several: one of 0 and 1 for each class), id, group and fold.
    listing: of a folder, what else lies in it.
    bare: class folders without an image.
    notes: lines on what was taken for what.
    """

    source: Path
    ids: np.ndarray
    files: tuple[Path | None, ...]
    labels: np.ndarray | None
    groups: np.ndarray | None = None
    folds: np.ndarray | None = None
    table: pd.DataFrame | None = None
    columns: Columns | None = None
    listing: Listing | None = None
    bare: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Given:
    """What is to be audited.

    rows: the labelled images.
    experiment: whether an experiment file was given.
    k: folds that training will make.
    image_size: of the networks, px, None where unknown.
    crop: (height, width), px, or None.
    run: a run directory that exists, or None.
    own_folds: whether the folds are a column of the user's.
    cache: the setting of data.cache.
    notes: lines on what was taken for what.
    images: the folder that a table's paths start from, None for its own.
    near_copies: the setting of folds.near_copies.
    classes: the patterns of a folder's class folders that were given.
    """

    rows: Rows
    experiment: bool
    k: int
    image_size: int | None
    crop: tuple[int, int] | None
    run: Path | None
    own_folds: bool
    cache: str
    notes: tuple[str, ...]
    images: Path | None = None
    near_copies: bool = True
    classes: tuple[str, ...] = ()


def clean_labels(rows: Rows) -> np.ndarray:
    """Labels as training reads them: stripped and composed, str (N,)."""
    assert rows.labels is not None
    return np.array([nfc(text.strip()) for text in rows.labels.tolist()], dtype=np.str_)

"""The classes' shares where a blend will be used, when its owner knows them."""

from pathlib import Path

import numpy as np
import pandas as pd

from ensemble.data.samples import read_table
from ensemble.errors import UserError


def read_priors(text: str, classes: tuple[str, ...]) -> np.ndarray:
    """Shares float64 (C,), sum 1: equal ones for "uniform", else those of a CSV file with the columns class and share.

    The shares may be counts: they are divided by their sum. Raises UserError, naming file and class, for a class that
    lacks, is unknown or is there twice, a share that is not a number of 0 or more, or none above 0.
    """
    if text == "uniform":
        return np.full(len(classes), 1 / len(classes))
    path = Path(text)
    table = read_table(path)
    for column in ("class", "share"):
        if column not in table.columns:
            raise UserError(f"{path}: no column {column!r}; class shares have the columns class and share")
    names = [str(name) for name in table["class"]]
    for name in names:
        if name not in classes:
            raise UserError(f"{path}: class {name!r} is not one of: {', '.join(classes[:20])}")
        if names.count(name) > 1:
            raise UserError(f"{path}: class {name!r} is there twice")
    lacking = [name for name in classes if name not in names]
    if lacking:
        raise UserError(f"{path}: no share for class {lacking[0]!r}; every class needs one (0 is allowed)")
    shares = pd.to_numeric(table["share"], errors="coerce").to_numpy(dtype=np.float64)
    bad = ~np.isfinite(shares) | (shares < 0)
    if bad.any():
        where = int(np.flatnonzero(bad)[0])
        raise UserError(
            f"{path}: the share of class {names[where]!r} is {table['share'].iloc[where]!r}; want a number of 0 or more"
        )
    if shares.sum() == 0:
        raise UserError(f"{path}: all shares are 0")
    return np.asarray(shares[[names.index(name) for name in classes]] / shares.sum())

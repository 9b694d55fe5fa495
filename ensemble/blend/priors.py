"""The classes' shares where a blend will be used, when its owner knows them: read, and what they do to a blend."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ensemble.blend.params import array
from ensemble.blend.probabilities import biased
from ensemble.errors import UserError


def read_priors(text: str, classes: tuple[str, ...]) -> np.ndarray:
    """Shares float64 (C,), sum 1: equal ones for "uniform", else those of a CSV file with the columns class and share.

    The shares may be counts: they are divided by their sum. Raises UserError, naming file and class, for a class that
    lacks, is unknown or is there twice, a share that is not a number of 0 or more, or none above 0.
    """
    if text == "uniform":
        return np.full(len(classes), 1 / len(classes))
    import pandas as pd

    from ensemble.data.table.read import read_table

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


def prior_ratio(labels: np.ndarray, priors: np.ndarray) -> np.ndarray:
    """The classes' shares `priors` over those among the labels, (C,); a class without rows counts as one of a row."""
    return np.asarray(priors / (np.maximum(np.bincount(labels, minlength=len(priors)), 1) / len(labels)))


def row_weights(labels: np.ndarray, priors: np.ndarray) -> np.ndarray:
    """What each row counts, float64 (N,), mean 1, for the classes to have the shares `priors` (C,) among the rows.

    With them a mean over the rows estimates one over rows drawn with those shares, as long as a class's images are
    alike (label shift: Saerens, Latinne & Decaestecker, Neural Computation 2002).
    """
    weights = prior_ratio(labels, priors)[labels]
    return np.asarray(weights / weights.mean())


@dataclass(frozen=True)
class PriorShift:
    """prior_bias: float64 (C,), what is added to each class's log-probability; -inf of a class that is not there."""

    prior_bias: np.ndarray


def fit(labels: np.ndarray, priors: np.ndarray) -> PriorShift:
    """From the shares among labels int64 (N,) to the shares `priors` (C,)."""
    with np.errstate(divide="ignore"):
        return PriorShift(np.log(prior_ratio(labels, priors)))


def apply(learned: PriorShift, probs: np.ndarray) -> np.ndarray:
    """Probabilities (N, C) with the new shares, rows sum to 1."""
    return biased(learned.prior_bias, probs)


def load(params: Mapping[str, Any], classes: int) -> PriorShift | None:
    """None where a blend has none. Raises ValueError for what is no bias of `classes` classes."""
    if "prior_bias" not in params:
        return None
    bias = array(params, "prior_bias", (classes,), least=-np.inf)
    if not np.isfinite(bias).any():
        raise ValueError("prior_bias leaves no class")
    return PriorShift(bias)

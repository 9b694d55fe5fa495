"""What suspicions rest on: the tests behind them, as plain functions."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2

from ensemble.report.curves import by_epoch
from ensemble.report.run import MemberFacts

RISE = 0.05  # of the held-out log loss from its least to its end, as a share
NAMES = 6  # of classes or members in a line


@dataclass(frozen=True)
class Finding:
    """what: a sentence. why: what it may mean and what to do. level: "suspicious" or "hint"."""

    level: str
    what: str
    why: str


def fold_test(right: np.ndarray, folds: np.ndarray, units: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Whether folds differ in accuracy by more than chance: (p-value, z of each fold (K,), fold numbers (K,)).

    right: bool (N,). Under one accuracy for all, each fold's differs from it by a variance that is that of the units'
    sums of residuals, so that rows of a group need not be independent; without groups this is the chi-square test of
    homogeneity. z: each fold against the others, in standard errors. p is 1 where nothing varies.
    """
    numbers, fold = np.unique(folds, return_inverse=True)
    rows = np.bincount(fold).astype(np.float64)
    whole = float(right.mean())
    residuals = right - whole
    _, unit = np.unique(units, return_inverse=True)
    variance = float((np.bincount(unit, residuals) ** 2).sum() / len(right))  # of a row, what its group shares included
    if variance == 0 or len(numbers) < 2:
        return 1.0, np.zeros(len(numbers)), numbers
    sums = np.bincount(fold, residuals)
    statistic = float((sums**2 / rows).sum() / variance)
    others = len(right) - rows
    z = (sums / rows + sums / others) / np.sqrt(variance * (1 / rows + 1 / others))
    return float(chi2.sf(statistic, len(numbers) - 1)), z, numbers


def smoothing_floor(smoothing: float, classes: int) -> float:
    """The least cross-entropy (nats) that labels smoothed this much allow: their own entropy."""
    if smoothing == 0 or classes < 2:
        return 0.0
    other = smoothing / classes
    top = 1 - smoothing + other
    return -top * math.log(top) - (classes - 1) * other * math.log(other)


def rise(own: MemberFacts) -> str | None:
    """If the mean held-out loss rises from an epoch to the end, by 5 % and by twice the standard error over folds."""
    epochs, values = by_epoch(own, "held_out_log_loss")
    if len(values) < 2 or len(epochs) < 2 or not np.isfinite(values).all():
        return None
    first = int(values.mean(axis=0).argmin())
    more = values[:, -1] - values[:, first]
    least, last = values[:, first].mean(), values[:, -1].mean()
    if last - least > RISE * least and more.mean() > 2 * more.std(ddof=1) / math.sqrt(len(more)):
        return f"{least:.3f} after {epochs[first]} epochs, {last:.3f} after {epochs[-1]}"
    return None


def some(names: list[str]) -> str:
    """All names, or the first and how many more there are."""
    more = len(names) - NAMES
    return ", ".join(names[:NAMES]) + (f" and {more} more" if more > 0 else "")

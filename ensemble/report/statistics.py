"""The statistical tests behind the report's checks, as plain functions."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2, hypergeom, norm

from ensemble.plural import pluralize
from ensemble.report.curves import by_epoch
from ensemble.report.run import MemberResults

RISE = 0.05  # of the held-out log loss from its least to its end, as a share
NAMES = 6  # of classes or members in a line


@dataclass(frozen=True)
class Issue:
    """Something to check in a run.

    level: "warning" or "note"
    what: a sentence
    why: what it may mean and what to do
    """

    level: str
    what: str
    why: str


def fold_test(right: np.ndarray, folds: np.ndarray, clusters: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Whether folds differ in accuracy by more than chance: (p-value, z of each fold (K,), fold numbers (K,)).

    right: bool (N,). The variance of a fold's accuracy, if all folds share one accuracy, is taken from the residuals
    summed over each cluster, so rows of a group need not be independent. Without groups this is the chi-square test of
    homogeneity. z: each fold against the others, in standard errors. p is 1 if nothing varies.
    """
    numbers, fold = np.unique(folds, return_inverse=True)
    rows = np.bincount(fold).astype(np.float64)
    whole = float(right.mean())
    residuals = right - whole
    _, cluster = np.unique(clusters, return_inverse=True)
    variance = float((np.bincount(cluster, residuals) ** 2).sum() / len(right))  # per row, with what its group shares
    if variance == 0 or len(numbers) < 2:
        return 1.0, np.zeros(len(numbers)), numbers
    sums = np.bincount(fold, residuals)
    statistic = float((sums**2 / rows).sum() / variance)
    others = len(right) - rows
    z = (sums / rows + sums / others) / np.sqrt(variance * (1 / rows + 1 / others))
    return float(chi2.sf(statistic, len(numbers) - 1)), z, numbers


def tails(right: np.ndarray, folds: np.ndarray, z: np.ndarray, grouped: bool) -> np.ndarray:
    """Two-sided p-value of each fold against the others, float64 (K,), in the order of fold numbers.

    Exact without groups: how many of all errors a random fold of this size would have (hypergeometric, Fisher's test).
    Grouped rows use the normal tail of z, which raises three times too many alarms if errors are few.
    """
    if grouped:
        return np.asarray(2 * norm.sf(np.abs(z)))
    fold = np.unique(folds, return_inverse=True)[1]
    rows, wrong = np.bincount(fold), np.bincount(fold, ~right).astype(np.int64)
    law = hypergeom(len(right), wrong.sum(), rows)
    return np.asarray(np.minimum(1.0, 2 * np.minimum(law.cdf(wrong), law.sf(wrong - 1))))


def near_chance(predicted: np.ndarray, labels: np.ndarray) -> tuple[float, bool]:
    """The balanced accuracy over the classes that have rows, and whether it is at most two standard errors above
    chance."""
    rows = np.bincount(labels)
    hits = np.bincount(labels[predicted == labels], minlength=len(rows))[rows > 0]
    rows = rows[rows > 0]
    share = 1 / len(rows)
    error = math.sqrt(float((share * (1 - share) / rows).sum())) / len(rows)
    balanced = float((hits / rows).mean())
    return balanced, balanced <= share + 2 * error


def smoothing_floor(smoothing: float, classes: int) -> float:
    """The least cross-entropy (nats) that labels smoothed this much allow: their own entropy."""
    if smoothing == 0 or classes < 2:
        return 0.0
    other = smoothing / classes
    top = 1 - smoothing + other
    return -top * math.log(top) - (classes - 1) * other * math.log(other)


def rise(member: MemberResults) -> str | None:
    """How far the mean held-out loss rises from its least to the end, in words; None if that is less than 5 % or than
    two standard errors over folds."""
    epochs, values = by_epoch(member, "held_out_log_loss")
    if len(values) < 2 or len(epochs) < 2 or not np.isfinite(values).all():
        return None
    first = int(values.mean(axis=0).argmin())
    more = values[:, -1] - values[:, first]
    least, last = values[:, first].mean(), values[:, -1].mean()
    if last - least > RISE * least and more.mean() > 2 * more.std(ddof=1) / math.sqrt(len(more)):
        return f"{least:.3f} after {pluralize(int(epochs[first]), 'epoch')}, {last:.3f} after {epochs[-1]}"
    return None


def some(names: list[str]) -> str:
    """All names, or the first and how many more there are."""
    more = len(names) - NAMES
    return ", ".join(names[:NAMES]) + (f" and {more} more" if more > 0 else "")

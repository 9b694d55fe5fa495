"""Honest scores: cross-fitting over the run's folds, spread over folds, bootstrap intervals, paired comparisons.

A system (a blend, a member) is reduced to an `Outcome`: all that log loss, accuracy and macro F1 need of it.
Intervals are percentile bootstrap (Efron & Tibshirani, 1993) over `units`: rows, or whole groups where the run has
groups, since the rows of a group are not independent. They say how the score would vary with the sample of rows; the
fitted blends are held fixed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ensemble.blend.metrics import METRICS, TARGETS, f1_from_counts, macro_f1_of, row_losses
from ensemble.errors import UserError

RESAMPLES = 1000


@dataclass(frozen=True)
class Outcome:
    """One system on N rows: losses float64 (N,), -log(true-class probability); predicted int64 (N,)."""

    losses: np.ndarray
    predicted: np.ndarray


@dataclass(frozen=True)
class Score:
    """A metric over all rows, its 95% interval, and its value on each fold alone (in the order of fold numbers)."""

    value: float
    low: float
    high: float
    folds: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over folds."""
        return float(np.mean(self.folds))

    @property
    def std(self) -> float:
        """Standard deviation over folds (n - 1); NaN for a single fold."""
        return float(np.std(self.folds, ddof=1)) if len(self.folds) > 1 else float("nan")


@dataclass(frozen=True)
class Gain:
    """What a blend gains over `against` in a metric: positive is better, whichever way the metric points.

    low, high: 95% interval of the paired difference. p_better: share of resamples with a gain, a tie counting half.
    """

    against: str
    metric: str
    value: float
    low: float
    high: float
    p_better: float


def outcome(labels: np.ndarray, probs: np.ndarray) -> Outcome:
    """Outcome of probabilities (N, C) for labels int64 (N,)."""
    return Outcome(row_losses(labels, probs), probs.argmax(axis=1))


def usable_folds(folds: np.ndarray, units: np.ndarray, parts: int = 5, seed: int = 0) -> np.ndarray:
    """`folds` where it has at least two numbers, else units dealt at random into `parts` folds: int64 (N,).

    A run with one held-out part has a single fold number; no model saw any of its rows, so they may be divided.
    """
    if len(np.unique(folds)) > 1:
        return folds
    names, where = np.unique(units, return_inverse=True)
    return np.asarray((np.random.default_rng(seed).permutation(len(names)) % parts)[where], dtype=np.int64)


def cross_fit(
    fit_apply: Callable[[np.ndarray, np.ndarray], np.ndarray], folds: np.ndarray, units: np.ndarray, classes: int
) -> np.ndarray:
    """Probabilities float64 (N, classes) where each fold's rows come from a fit on the rows of the other folds.

    fit_apply(train, test): row numbers int64 -> probabilities of the test rows. Raises UserError if there is only one
    unit (row or group), which can't be divided.
    """
    folds = usable_folds(folds, units)
    if len(np.unique(folds)) < 2:
        raise UserError("a blend is scored on rows it was not fitted on: it needs at least 2 rows (or 2 groups)")
    probs = np.empty((len(folds), classes))
    for fold in np.unique(folds):
        test = np.flatnonzero(folds == fold)
        probs[test] = fit_apply(np.flatnonzero(folds != fold), test)
    return probs


def value(metric: str, labels: np.ndarray, result: Outcome, classes: int) -> float:
    """The metric (log_loss, accuracy or macro_f1) of one outcome."""
    if metric == "log_loss":
        return float(result.losses.mean())
    if metric == "accuracy":
        return float((result.predicted == labels).mean())
    return macro_f1_of(labels, result.predicted, classes)


def bootstrap(
    labels: np.ndarray,
    outcomes: Sequence[Outcome],
    units: np.ndarray,
    classes: int,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Each metric of TARGETS, of each of S outcomes, in each resample of the units: float64 (resamples, S).

    All outcomes see the same resamples, so that differences between columns are paired. Macro F1 is computed from
    counts: rows with the same label and the same predictions by all outcomes are first drawn together.
    """
    from scipy.sparse import csr_array

    rows, systems = len(labels), len(outcomes)
    _, where = np.unique(units, return_inverse=True)
    sizes = int(where.max()) + 1
    per_row = np.column_stack([o.losses for o in outcomes] + [o.predicted == labels for o in outcomes])
    pattern = labels
    for result in outcomes:
        pattern = np.unique(pattern * classes + result.predicted, return_inverse=True)[1]
    order = np.argsort(pattern, kind="stable")  # rows of one pattern side by side, so that their weights add up fast
    starts = np.unique(pattern[order], return_index=True)[1]
    first, where, per_row = order[starts], where[order], per_row[order]

    def indicator(kept: np.ndarray, columns: np.ndarray) -> "csr_array":
        """(classes, patterns): 1 where a kept pattern has that class."""
        own = np.flatnonzero(kept)
        return csr_array((np.ones(len(own)), (columns[own], own)), shape=(classes, len(first)))

    true = indicator(np.ones(len(first), dtype=bool), labels[first])
    predicted = [indicator(np.ones(len(first), dtype=bool), o.predicted[first]) for o in outcomes]
    right = [indicator(o.predicted[first] == labels[first], labels[first]) for o in outcomes]

    draw = np.random.default_rng(seed)
    out = {metric: np.empty((resamples, systems)) for metric in TARGETS}
    step = max(1, min(resamples, 1_000_000 // max(rows, classes)))
    for start in range(0, resamples, step):
        part = slice(start, min(start + step, resamples))
        drawn = [np.bincount(draw.integers(sizes, size=sizes), minlength=sizes) for _ in range(part.start, part.stop)]
        weights = np.stack(drawn)[:, where].astype(np.float64)
        means = weights @ per_row / weights.sum(axis=1, keepdims=True)
        out["log_loss"][part], out["accuracy"][part] = means[:, :systems], means[:, systems:]
        counts = np.ascontiguousarray(np.add.reduceat(weights, starts, axis=1).T)
        truly = (true @ counts).T
        for s in range(systems):
            out["macro_f1"][part, s] = f1_from_counts((right[s] @ counts).T, (predicted[s] @ counts).T, truly)
    return out


def interval(values: np.ndarray) -> tuple[float, float]:
    """95% percentile interval of resampled values (B,)."""
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def scores(
    labels: np.ndarray, outcomes: Sequence[Outcome], folds: np.ndarray, classes: int, drawn: dict[str, np.ndarray]
) -> list[dict[str, Score]]:
    """For each outcome, metric -> Score; `drawn` is what `bootstrap` gave for the same outcomes."""
    parts = [np.flatnonzero(folds == fold) for fold in np.unique(folds)]
    out = []
    for s, result in enumerate(outcomes):
        of_folds = [(labels[rows], Outcome(result.losses[rows], result.predicted[rows])) for rows in parts]
        row = {}
        for metric in TARGETS:
            each = tuple(value(metric, own, part, classes) for own, part in of_folds)
            row[metric] = Score(value(metric, labels, result, classes), *interval(drawn[metric][:, s]), each)
        out.append(row)
    return out


def gain(
    metric: str, table: list[dict[str, Score]], drawn: dict[str, np.ndarray], system: int, other: int, against: str
) -> Gain:
    """Paired gain of column `system` over column `other` of `table` and `drawn`."""
    sign = 1 if METRICS[metric][1] else -1
    difference = sign * (drawn[metric][:, system] - drawn[metric][:, other])
    difference = np.where(np.abs(difference) < 1e-12, 0.0, difference)  # a tie, whatever the last bit says
    observed = sign * (table[system][metric].value - table[other][metric].value) + 0.0
    p_better = float((difference > 0).mean() + 0.5 * (difference == 0).mean())
    return Gain(against, metric, observed, *interval(difference), p_better)

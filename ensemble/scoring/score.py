"""Honest scores: cross-fitting over the run's folds, spread over folds, bootstrap intervals, paired comparisons.

A system (a blend, a member) is reduced to an `Outcome`: all that the metrics need of it.
Intervals are percentile bootstrap (Efron & Tibshirani, 1993) over `units`: rows, or whole groups where the run has
groups, since the rows of a group are not independent. They say how the score would vary with the sample of rows; the
fitted blends are held fixed. `weights`, float (N,), says what each row counts where the classes' shares are to be other
than those of the rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ensemble.errors import UserError
from ensemble.scoring.metrics import METRICS, TARGETS, class_counts, ece_of, from_counts, row_briers, row_losses

RESAMPLES = 1000
MOST_UNITS = 10_000  # of more, random blocks are drawn: their sums vary as much, and the variance is known to 1.4%


@dataclass(frozen=True)
class Outcome:
    """One system on N rows, each (N,): losses float64, -log(true-class probability); predicted int64; confidence
    float64, the largest probability; briers float64, the rows' Brier scores."""

    losses: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    briers: np.ndarray


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
    return Outcome(
        row_losses(labels, probs), probs.argmax(axis=1), probs.max(axis=1).astype(np.float64), row_briers(labels, probs)
    )


@dataclass(frozen=True)
class Calibration:
    """How far probabilities can be believed: log loss (nats), ECE over 15 bins, Brier score."""

    log_loss: float
    ece: float
    brier: float


def calibration(labels: np.ndarray, result: Outcome) -> Calibration:
    """Calibration of one outcome."""
    right = result.predicted == labels
    return Calibration(float(result.losses.mean()), ece_of(right, result.confidence), float(result.briers.mean()))


def usable_folds(folds: np.ndarray, units: np.ndarray, parts: int = 5, seed: int = 0) -> np.ndarray:
    """`folds` where it has at least two numbers, else units dealt at random into `parts` folds: int64 (N,).

    A run with one held-out part has a single fold number; no model saw any of its rows, so they may be divided.
    """
    if len(np.unique(folds)) > 1:
        return folds
    names, where = np.unique(units, return_inverse=True)
    return np.asarray((np.random.default_rng(seed).permutation(len(names)) % parts)[where], dtype=np.int64)


def cross_fit(
    fit_apply: Callable[[np.ndarray, np.ndarray], np.ndarray], folds: np.ndarray, units: np.ndarray
) -> np.ndarray:
    """What `fit_apply` gives for each fold's rows from a fit on the rows of the other folds, (N, ...).

    fit_apply(train, test): row numbers int64 -> probabilities of the test rows, (n, ...). Raises UserError if there is
    only one unit (row or group), which can't be divided.
    """
    folds = usable_folds(folds, units)
    if len(np.unique(folds)) < 2:
        raise UserError("a blend is scored on rows it was not fitted on: it needs at least 2 rows (or 2 groups)")
    out: np.ndarray | None = None
    for fold in np.unique(folds):
        test = np.flatnonzero(folds == fold)
        probs = fit_apply(np.flatnonzero(folds != fold), test)
        if out is None:
            out = np.empty((len(folds), *probs.shape[1:]))
        out[test] = probs
    assert out is not None
    return out


def simplest(losses: Sequence[np.ndarray] | np.ndarray, units: np.ndarray) -> int:
    """The first candidate within one standard error of the least mean loss; candidates in order of growing freedom.

    losses: each candidate's held-out losses, (N,). Breiman et al., "Classification and Regression Trees" (1984), with
    the error of the paired difference.
    """
    best = min(losses, key=lambda own: float(own.mean()))
    return next(i for i, own in enumerate(losses) if (own - best).mean() <= standard_error(own - best, units))


def standard_error(values: np.ndarray, units: np.ndarray) -> float:
    """Standard error of the mean of values (N,), whose units (groups of rows) are independent of each other."""
    sums = np.bincount(np.unique(units, return_inverse=True)[1], values - values.mean())
    return float(np.sqrt((sums**2).sum()) / len(values))


def value(metric: str, labels: np.ndarray, result: Outcome, classes: int, weights: np.ndarray | None = None) -> float:
    """The metric (one of TARGETS) of one outcome."""
    if metric == "log_loss":
        return float(np.average(result.losses, weights=weights))
    return float(from_counts(metric, *class_counts(labels, result.predicted, classes, weights)))


def bootstrap(
    labels: np.ndarray,
    outcomes: Sequence[Outcome],
    units: np.ndarray,
    classes: int,
    weights: np.ndarray | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Each metric of TARGETS, of each of S outcomes, in each resample of the units: float64 (resamples, S).

    All outcomes see the same resamples, so that differences between columns are paired. Every metric is computed from
    sums over the units: of losses, and of rows per class.
    """
    from scipy.sparse import csr_array

    rows, systems = len(labels), len(outcomes)
    names, where = np.unique(units, return_inverse=True)
    draw = np.random.default_rng(seed)
    size = min(len(names), MOST_UNITS)
    if size < len(names):
        where = (draw.permutation(len(names)) % size)[where]
    every = np.ones(rows) if weights is None else np.asarray(weights, dtype=np.float64)

    def per_class(kept: np.ndarray, of: np.ndarray) -> "csr_array":
        """(C, U): the weight of each unit's kept rows, by class."""
        own = np.flatnonzero(kept)
        return csr_array((every[own], (of[own], where[own])), shape=(classes, size))

    all_rows = np.ones(rows, dtype=bool)
    true = per_class(all_rows, labels)
    predicted = [per_class(all_rows, o.predicted) for o in outcomes]
    right = [per_class(o.predicted == labels, labels) for o in outcomes]
    total = np.bincount(where, every, minlength=size)
    losses = np.stack([np.bincount(where, every * o.losses, minlength=size) for o in outcomes], axis=1)

    out = {metric: np.empty((resamples, systems)) for metric in TARGETS}
    step = max(1, min(resamples, 1_000_000 // max(size, classes)))
    for start in range(0, resamples, step):
        part = slice(start, min(start + step, resamples))
        drawn = np.stack(
            [np.bincount(draw.integers(size, size=size), minlength=size) for _ in range(part.start, part.stop)]
        ).astype(np.float64)
        out["log_loss"][part] = drawn @ losses / (drawn @ total)[:, None]
        times = np.ascontiguousarray(drawn.T)
        truly = (true @ times).T
        for s in range(systems):
            counts = (right[s] @ times).T, (predicted[s] @ times).T, truly
            for metric in TARGETS[1:]:
                out[metric][part, s] = from_counts(metric, *counts)
    return out


def interval(values: np.ndarray) -> tuple[float, float]:
    """95% percentile interval of resampled values (B,)."""
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def scores(
    labels: np.ndarray,
    outcomes: Sequence[Outcome],
    folds: np.ndarray,
    classes: int,
    drawn: dict[str, np.ndarray],
    weights: np.ndarray | None = None,
) -> list[dict[str, Score]]:
    """For each outcome, metric -> Score; `drawn` is what `bootstrap` gave for the same outcomes."""
    every = np.ones(len(labels)) if weights is None else weights
    parts = [np.flatnonzero(folds == fold) for fold in np.unique(folds)]
    out = []
    for s, result in enumerate(outcomes):
        row = {}
        for metric in TARGETS:
            each = tuple(value(metric, labels[own], on_rows(result, own), classes, every[own]) for own in parts)
            whole = value(metric, labels, result, classes, every)
            row[metric] = Score(whole, *interval(drawn[metric][:, s]), each)
        out.append(row)
    return out


def on_rows(result: Outcome, rows: np.ndarray) -> Outcome:
    """The outcome of some rows alone."""
    return Outcome(result.losses[rows], result.predicted[rows], result.confidence[rows], result.briers[rows])


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

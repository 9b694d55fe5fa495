"""Scores with bootstrap intervals, and paired comparisons.

Intervals are percentile bootstrap (Efron & Tibshirani, 1993) over `clusters`: rows, or whole groups where the run has
groups, since the rows of a group are not independent. They say how the score would vary with the sample of rows; the
fitted blends are held fixed. `weights`, float (N,), says what each row counts where the classes' shares are to be other
than those of the rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ensemble.files.reading import Finite
from ensemble.scoring.counts import ClassCounts
from ensemble.scoring.metrics import METRICS
from ensemble.scoring.outcomes import Outcome, on_rows, value

if TYPE_CHECKING:
    from scipy.sparse import csr_array

RESAMPLES = 1000
MOST_CLUSTERS = 10_000  # of more, random blocks are drawn: their sums vary as much; the variance is known to 1.4%
MOST_WEIGHTS = 8_000_000  # rows x draws at once, of a metric that needs the rows: 64 MB


@dataclass(frozen=True)
class Score:
    """A metric of one outcome.

    value: over all rows.
    low, high: its 95% interval.
    folds: on each fold alone, in the order of fold numbers.
    """

    value: Finite
    low: Finite
    high: Finite
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
    """What a blend gains over another outcome in a metric: positive is better, whichever way the metric points.

    against: the name of the other.
    metric: the name of the metric.
    value: the gain over all rows.
    low, high: 95% interval of the paired difference.
    p_better: the share of resamples with a gain, a tie counting half.
    """

    against: str
    metric: str
    value: Finite
    low: Finite
    high: Finite
    p_better: Finite


def bootstrap(
    labels: np.ndarray,
    outcomes: Sequence[Outcome],
    clusters: np.ndarray,
    classes: int,
    weights: np.ndarray | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Each metric of the outcomes, of each of S outcomes, in each resample of the clusters: float64 (resamples, S).

    All outcomes see the same resamples, so that differences between columns are paired. Metrics of row values and of
    class counts are computed from sums over the clusters; those that need the rows, from what each row counts in each
    resample, and are NaN in one without a row that they need.
    """
    rows, systems = len(labels), len(outcomes)
    names, where = np.unique(clusters, return_inverse=True)
    draw = np.random.default_rng(seed)
    size = min(len(names), MOST_CLUSTERS)
    if size < len(names):
        where = (draw.permutation(len(names)) % size)[where]
    every = np.ones(rows) if weights is None else np.asarray(weights, dtype=np.float64)

    metrics = outcomes[0].metrics
    out = {metric: np.empty((resamples, systems)) for metric in metrics}
    of_values, of_counts, of_rows = (
        [metric for metric in metrics if METRICS[metric].needs in needs]
        for needs in (("values", "costs"), ("counts",), ("rows",))
    )
    total = np.bincount(where, every, minlength=size)
    sums = {metric: _cluster_sums([o.values[metric] for o in outcomes], where, every, size) for metric in of_values}
    numbers, shape = np.arange(rows), (classes, size)
    true = _class_sums(labels, numbers, where, every, shape)
    predicted = [_class_sums(o.predicted, numbers, where, every, shape) for o in outcomes]
    right = [_class_sums(labels, np.flatnonzero(o.predicted == labels), where, every, shape) for o in outcomes]
    squares = _cluster_sums([np.square(labels - o.predicted) for o in outcomes], where, every, size)
    kept = np.empty((size, resamples if of_rows else 0), dtype=np.int32)
    step = max(1, min(resamples, 1_000_000 // max(size, classes)))
    for start in range(0, resamples, step):
        part = slice(start, min(start + step, resamples))
        drawn = np.stack(
            [np.bincount(draw.integers(size, size=size), minlength=size) for _ in range(part.start, part.stop)]
        ).astype(np.float64)
        for metric in of_values:
            out[metric][part] = drawn @ sums[metric] / (drawn @ total)[:, None]
        times = np.ascontiguousarray(drawn.T)
        truly, distances = (true @ times).T, drawn @ squares
        for s in range(systems):
            counts = ClassCounts((right[s] @ times).T, (predicted[s] @ times).T, truly, distances[:, s])
            for metric in of_counts:
                out[metric][part, s] = METRICS[metric].score(counts)
        if of_rows:
            kept[:, part] = times
    most = max(1, MOST_WEIGHTS // rows)
    for start in range(0, resamples if of_rows else 0, most):
        part = slice(start, start + most)
        counted = kept[:, part][where] * every[:, None]
        for metric in of_rows:
            for s, result in enumerate(outcomes):
                out[metric][part, s] = METRICS[metric].score(labels, result.probs, counted)
    return out


def _cluster_sums(values: Sequence[np.ndarray], where: np.ndarray, weights: np.ndarray, size: int) -> np.ndarray:
    """(U, S): the sum over each cluster of every system's row values (N,), weighted."""
    return np.stack([np.bincount(where, weights * of_rows, minlength=size) for of_rows in values], axis=1)


def _class_sums(
    classes: np.ndarray, rows: np.ndarray, where: np.ndarray, weights: np.ndarray, shape: tuple[int, int]
) -> "csr_array":
    """(C, U): the weight of each cluster's rows, of those with the numbers `rows`, by the class of each row (N,)."""
    from scipy.sparse import csr_array

    return csr_array((weights[rows], (classes[rows], where[rows])), shape=shape)


def deviation(values: np.ndarray) -> float:
    """Standard deviation (n - 1) of resampled values (B,), of those that are not NaN."""
    return float(values[~np.isnan(values)].std(ddof=1))


def interval(values: np.ndarray) -> tuple[float, float]:
    """95% percentile interval of resampled values (B,), of those that are not NaN; NaN if all are."""
    known = values[~np.isnan(values)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [0.025, 0.975])
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
        for metric in drawn:
            each = tuple(value(metric, labels[part], on_rows(result, part), classes, every[part]) for part in parts)
            whole = value(metric, labels, result, classes, every)
            row[metric] = Score(whole, *interval(drawn[metric][:, s]), each)
        out.append(row)
    return out


def gain(
    metric: str, table: list[dict[str, Score]], drawn: dict[str, np.ndarray], system: int, other: int, against: str
) -> Gain:
    """Paired gain of column `system` over column `other` of `table` and `drawn`."""
    sign = METRICS[metric].sign
    difference = sign * (drawn[metric][:, system] - drawn[metric][:, other])
    difference = np.where(np.abs(difference) < 1e-12, 0.0, difference)  # a tie, whatever the last bit says
    observed = sign * (table[system][metric].value - table[other][metric].value) + 0.0
    difference = difference[~np.isnan(difference)]
    p_better = float((difference > 0).mean() + 0.5 * (difference == 0).mean()) if len(difference) else float("nan")
    return Gain(against, metric, observed, *interval(difference), p_better)

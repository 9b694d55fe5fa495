"""Scores with their intervals, and paired comparisons, from resampled rows.

Resampled (Efron & Tibshirani, 1993) are `clusters`: rows, or whole groups where the run has groups, since the rows of a
group are not independent. `intervals.py` makes intervals of what the resamples give: they say how the score would vary
with the sample of rows, for the networks that there are. `weights`, float (N,), says what each row counts where the
classes' shares are to be other than those of the rows.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ensemble.files.reading import Finite
from ensemble.scoring.counts import ClassCounts
from ensemble.scoring.intervals import SAME, Support, chance_of_gain, gain_interval, score_interval
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
    p_better: how probable it is that the gain is one; 0.5 of a tie. See `chance_of_gain`.
    """

    against: str
    metric: str
    value: Finite
    low: Finite
    high: Finite
    p_better: Finite


@dataclass(frozen=True)
class Resampled:
    """The metrics of S outcomes in B resamples of the clusters; resampled["accuracy"] is one of them.

    values: metric -> float64 (B, S), NaN where a resample has none.
    support: what was resampled.
    fits: metric -> float64 (S,), the variance between the scores of the fits behind an outcome, see `score_interval`;
        of metrics that are not there it is 0.
    """

    values: Mapping[str, np.ndarray]
    support: Support
    fits: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __getitem__(self, metric: str) -> np.ndarray:
        return self.values[metric]

    def __iter__(self) -> Iterator[str]:
        return iter(self.values)


def bootstrap(
    labels: np.ndarray,
    outcomes: Sequence[Outcome],
    clusters: np.ndarray,
    classes: int,
    weights: np.ndarray | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Resampled:
    """Each metric of S outcomes in each resample of the clusters.

    labels: int64 (N,).
    outcomes: of the same N rows.
    clusters: int64 (N,), the number of each row's cluster.
    classes: C, how many there are.
    weights: float (N,), of the rows; None for 1.
    resamples: B, how many.

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
    return Resampled(out, _support(len(names), total, true))


def _cluster_sums(values: Sequence[np.ndarray], where: np.ndarray, weights: np.ndarray, size: int) -> np.ndarray:
    """(U, S): the sum over each cluster of every system's row values (N,), weighted."""
    return np.stack([np.bincount(where, weights * of_rows, minlength=size) for of_rows in values], axis=1)


def _class_sums(
    classes: np.ndarray, rows: np.ndarray, where: np.ndarray, weights: np.ndarray, shape: tuple[int, int]
) -> "csr_array":
    """(C, U): the weight of each cluster's rows, of those with the numbers `rows`, by the class of each row (N,)."""
    from scipy.sparse import csr_array

    return csr_array((weights[rows], (classes[rows], where[rows])), shape=shape)


def _support(clusters: int, total: np.ndarray, true: "csr_array") -> Support:
    """total: (U,), the weight of each resampled cluster. true: (C, U), the same by class. Where these are random
    blocks, they stand for so many."""
    more = clusters / len(total)
    rows = more * float(total.sum() ** 2 / (total**2).sum())
    squares, sums = np.asarray(true.multiply(true).sum(axis=1)), np.asarray(true.sum(axis=1))
    there = squares > 0
    by_class = sums[there] ** 2 / squares[there]
    return Support(clusters, rows, float(len(by_class) ** 2 / (1 / by_class).sum()))


def deviation(values: np.ndarray) -> float:
    """Standard deviation (n - 1) of resampled values (B,), of those that are not NaN."""
    return float(values[~np.isnan(values)].std(ddof=1))


def scores(
    labels: np.ndarray,
    outcomes: Sequence[Outcome],
    folds: np.ndarray,
    classes: int,
    drawn: Resampled,
    weights: np.ndarray | None = None,
) -> list[dict[str, Score]]:
    """For each outcome, metric -> Score.

    labels, outcomes, classes, weights: as `bootstrap` was given.
    folds: int (N,), the fold of each row.
    drawn: what `bootstrap` gave for them.
    """
    every = np.ones(len(labels)) if weights is None else weights
    parts = [np.flatnonzero(folds == fold) for fold in np.unique(folds)]
    out = []
    for s, result in enumerate(outcomes):
        row = {}
        for metric in drawn:
            each = tuple(value(metric, labels[part], on_rows(result, part), classes, every[part]) for part in parts)
            whole = value(metric, labels, result, classes, every)
            ends = score_interval(METRICS[metric], whole, drawn[metric][:, s], drawn.support, _fits(drawn, metric, s))
            row[metric] = Score(whole, *ends, each)
        out.append(row)
    return out


def gain(
    metric: str,
    table: list[dict[str, Score]],
    drawn: Resampled,
    system: int,
    other: int,
    against: str,
    among: Sequence[int] = (),
    same_classes: bool = False,
) -> Gain:
    """Paired gain of column `system` over column `other` of `table` and `drawn`.

    metric: the name of the metric.
    table, drawn: what `scores` and `bootstrap` gave for the same outcomes.
    against: the name of the other.
    among: the columns of which `other` is the best by this metric on these very rows. Its score is optimistic then, and
        the gain over it may be larger than it looks: the upper end is moved by how much, see `bias_of_best`.
    same_classes: both predict the same classes whatever the rows are; where these alone count, the gain is 0, as it is
        of one system over itself. Two others that are right on the same rows here may differ on the next one.
    """
    sign = METRICS[metric].sign
    difference = _difference(drawn[metric], system, other, sign)
    observed = sign * (table[system][metric].value - table[other][metric].value) + 0.0
    known = difference[~np.isnan(difference)]
    alike = system == other or (same_classes and METRICS[metric].needs == "counts")
    if len(known) and not known.any() and (alike or _are_one(drawn, system, other)):
        low, high = observed, observed
    else:
        fits = _fits(drawn, metric, system) + _fits(drawn, metric, other)
        low, high = gain_interval(METRICS[metric], observed, difference, drawn.support, fits)
    if among:
        scores_of = sign * np.array([table[column][metric].value for column in among])
        high += bias_of_best(scores_of, sign * drawn[metric][:, list(among)])
    return Gain(against, metric, observed, low, high, chance_of_gain(observed, low, high))


def bias_of_best(values: np.ndarray, drawn: np.ndarray) -> float:
    """Selection bias: how much better the best of S values looks than it is, since the rows that it is scored on chose
    it.

    values: float64 (S,), greater is better.
    drawn: float64 (B, S), the same in B resamples.

    In each resample the best is chosen again: the bias is the mean of how much that one is above its value here, less
    how much resampling alone moves values. As in Tsamardinos, Greasidou & Borboudakis, "Bootstrapping the out-of-sample
    predictions for efficient and accurate cross-validation" (Machine Learning, 2018). 0 of a single value, and never
    below.
    """
    surplus = drawn - values
    surplus = surplus[~np.isnan(surplus).any(axis=1)]
    if len(values) < 2 or not len(surplus):
        return 0.0
    surplus = surplus - surplus.mean(axis=0)
    chosen = (surplus + values).argmax(axis=1)
    return max(0.0, float(surplus[np.arange(len(surplus)), chosen].mean()))


def _difference(drawn: np.ndarray, system: int, other: int, sign: int) -> np.ndarray:
    """sign x (one column less another) of (B, S): (B,), 0 where only the last bit differs."""
    difference = sign * (drawn[:, system] - drawn[:, other])
    return np.where(np.abs(difference) < SAME, 0.0, difference)


def _are_one(drawn: Resampled, system: int, other: int) -> bool:
    """Whether two columns have the same losses, too, which two systems hardly have."""
    return "log_loss" in drawn.values and not _difference(drawn["log_loss"], system, other, 1).any()


def _fits(drawn: Resampled, metric: str, system: int) -> float:
    return float(drawn.fits[metric][system]) if metric in drawn.fits else 0.0

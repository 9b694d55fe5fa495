"""Whether probabilities can be believed class by class and group by group, as far as chance can be told from fault.

An expected calibration error is never 0: of few rows in a bin, shares differ from probabilities by chance alone. Here
its square is estimated without that bias, from pairs of different rows (Kumar, Liang & Ma, "Verified Uncertainty
Calibration", NeurIPS 2019, debias it too; sums over pairs: Widmann, Lindsten & Zachariah, NeurIPS 2019), and it is set
beside what it would be if the probabilities were right: labels are drawn from them again and again (consistency
resampling: Bröcker & Smith, "Increasing the Reliability of Reliability Diagrams", Weather and Forecasting 2007).
"""

from dataclasses import dataclass

import numpy as np

from ensemble.files.reading import Count, Finite

BINS = 15
DOUBTED = 0.05  # adjusted p below which a class or group is named
MOST_ROWS, MOST_NUMBERS = 20_000, 5_000_000  # of more rows, or rows x classes, so many are drawn
MOST_DRAWN = 2_000_000  # rows x draws
LEAST_DRAWS, MOST_DRAWS = 199, 999
LONG = 2000  # rows of a group: of more, the number of hits is nearly normal


@dataclass(frozen=True)
class ClassCalibration:
    """One class against the rest.

    rows: how many the class has among those that were looked at.
    expected: how many it should have: the sum of its probabilities.
    error: root mean square, over 15 bins of its probability, of share - mean probability, debiased: 0 to 1.
    chance: what the error stays below in 95% of draws, if the probabilities are right.
    p: the share of draws in which any class stands out as much as this one: adjusted for the number of classes.
    """

    rows: Count
    expected: Finite
    error: Finite
    chance: Finite
    p: Finite


@dataclass(frozen=True)
class ClasswiseCalibration:
    """All classes together, and each.

    rows: how many were looked at: all, or one of each group, and 20,000 at most.
    error, chance, p: as in `ClassCalibration`, for the root mean square over the classes.
    classes: of each class, in order.
    """

    rows: Count
    error: Finite
    chance: Finite
    p: Finite
    classes: tuple[ClassCalibration, ...]


@dataclass(frozen=True)
class GroupCalibration:
    """The rows of one group.

    rows: how many they are.
    confidence: the mean of their largest probability.
    accuracy: the share whose most probable class is right.
    p: two-sided p-value of so many right rows if each is right with its confidence, adjusted for the number of groups.
    """

    rows: Count
    confidence: Finite
    accuracy: Finite
    p: Finite


def by_class(labels: np.ndarray, probs: np.ndarray, clusters: np.ndarray, seed: int = 0) -> ClasswiseCalibration:
    """Class-wise calibration, by bins of equal width as in Kull et al. (NeurIPS 2019).

    labels: int64 (N,).
    probs: float (N, C).
    clusters: int64 (N,), the number of each row's cluster; one row of each, drawn at random, is looked at, since labels
        are drawn for each row by itself.
    """
    draw = np.random.default_rng(seed)
    order = draw.permutation(len(labels))
    firsts = order[np.unique(clusters[order], return_index=True)[1]]
    most = min(MOST_ROWS, max(2_000, MOST_NUMBERS // probs.shape[1]))
    kept = np.sort(draw.permutation(firsts)[:most])
    labels, p = labels[kept], probs[kept].astype(np.float64)
    p /= p.sum(axis=1, keepdims=True)
    rows, classes = p.shape
    bins = _binned(p)
    observed = _squares(bins, labels)
    draws = int(np.clip(MOST_DRAWN // rows, LEAST_DRAWS, MOST_DRAWS))
    start = np.arange(rows)
    ends = (p.cumsum(axis=1) + start[:, None]).ravel()
    ends[classes - 1 :: classes] = start + 1  # not a last bit less
    drawn = np.empty((draws, classes))
    for number in range(draws):
        places = np.searchsorted(ends, start + draw.random(rows), side="right")
        drawn[number] = _squares(bins, places - start * classes)
    spread = np.maximum(drawn.std(axis=0, ddof=1), 1e-15)
    centre = drawn.mean(axis=0)
    farthest = ((drawn - centre) / spread).max(axis=1)
    adjusted = _share(farthest[:, None] >= (observed - centre) / spread)
    chance, counts = np.quantile(drawn, 0.95, axis=0), np.bincount(labels, minlength=classes)
    found = tuple(
        ClassCalibration(int(counts[c]), float(p[:, c].sum()), _root(observed[c]), _root(chance[c]), float(adjusted[c]))
        for c in range(classes)
    )
    whole = drawn.mean(axis=1)
    return ClasswiseCalibration(
        rows=rows,
        error=_root(observed.mean()),
        chance=_root(np.quantile(whole, 0.95)),
        p=float(_share(whole >= observed.mean())),
        classes=found,
    )


def by_group(right: np.ndarray, confidence: np.ndarray, groups: np.ndarray) -> dict[int, GroupCalibration]:
    """number of a group -> its calibration.

    right: bool (N,), whether a row's most probable class is right.
    confidence: float (N,), its probability.
    groups: int64 (N,), the number of each row's group.

    The p-values are exact (Poisson binomial) for groups of up to 2,000 rows, and adjusted by Holm's method (1979).
    """
    order = np.argsort(groups, kind="stable")
    numbers, first = np.unique(groups[order], return_index=True)
    parts = np.split(order, first[1:])
    tails = np.array([_tail(int(right[part].sum()), confidence[part]) for part in parts])
    adjusted = holm(tails)
    return {
        int(number): GroupCalibration(
            len(part), float(confidence[part].mean()), float(right[part].mean()), float(adjusted[place])
        )
        for place, (number, part) in enumerate(zip(numbers, parts, strict=True))
    }


def holm(p: np.ndarray) -> np.ndarray:
    """p-values, float64 (M,), adjusted for their number by Holm's method: the chance that any below 0.05 is a false
    alarm is 5% at most."""
    order = np.argsort(p, kind="stable")
    steps = np.minimum(1, np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p)))))
    out = np.empty(len(p))
    out[order] = steps
    return out


@dataclass(frozen=True)
class _Binned:
    """Probabilities, in 15 bins for each class: of C classes there are S = 15 C cells.

    probs: float64 (N, C).
    cells: int64 (N, C), the number of the cell of each probability.
    expected, squares: float64 (S,), the sums of the probabilities in a cell, and of their squares.
    weights: float64 (S,), the cell's share of the rows over its number of pairs of rows; 0 of a cell without a pair.
    """

    probs: np.ndarray
    cells: np.ndarray
    expected: np.ndarray
    squares: np.ndarray
    weights: np.ndarray


def _binned(probs: np.ndarray) -> _Binned:
    rows, classes = probs.shape
    bins = np.clip(np.ceil(probs * BINS).astype(np.int64) - 1, 0, BINS - 1)
    cells = bins + BINS * np.arange(classes)
    counts, expected, squares = (
        np.bincount(cells.ravel(), weights, minlength=classes * BINS)
        for weights in (None, probs.ravel(), np.square(probs).ravel())
    )
    pairs = counts * (counts - 1.0)
    weights = np.where(pairs > 0, counts / rows / np.maximum(pairs, 1), 0)
    return _Binned(probs, cells, expected, squares, weights)


def _squares(binned: _Binned, labels: np.ndarray) -> np.ndarray:
    """Of each class the squared calibration error for these labels, without bias, float64 (C,): of a cell the mean of
    d_i d_j over pairs of its rows, d being 1 or 0 less the probability."""
    rows, size = np.arange(len(labels)), len(binned.weights)
    cells = binned.cells[rows, labels]
    surplus = np.bincount(cells, minlength=size) - binned.expected
    same = np.bincount(cells, 1 - 2 * binned.probs[rows, labels], minlength=size) + binned.squares
    return np.asarray((binned.weights * (np.square(surplus) - same)).reshape(-1, BINS).sum(axis=1))


def _tail(hits: int, chances: np.ndarray) -> float:
    """Two-sided p of `hits` successes of independent trials with these chances (n,)."""
    if len(chances) > LONG:
        from scipy.stats import norm

        away = abs(hits - chances.sum()) - 0.5
        return float(min(1.0, 2 * norm.sf(away / max(np.sqrt((chances * (1 - chances)).sum()), 1e-12))))
    law = np.ones(1)
    for chance in chances.tolist():
        law = np.append(law * (1 - chance), 0.0) + np.append(0.0, law * chance)
    return float(min(1.0, 2 * min(law[: hits + 1].sum(), law[hits:].sum())))


def _share(happened: np.ndarray) -> np.ndarray:
    """Of draws (B, ...), the observed one among them, so that it is never 0."""
    return np.asarray((1 + happened.sum(axis=0)) / (1 + len(happened)))


def _root(square: float) -> float:
    return float(np.sqrt(max(0.0, float(square))))

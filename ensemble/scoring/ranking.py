"""Metrics of how each class's probability ranks the rows, one class against the rest.

They need the rows themselves: labels int64 (N,), probs float (N, C), and weights float64 (N, B), what each row counts
in each of B draws. Of two classes the second is the positive one, and the only one that is scored; of more, the score
is the mean over the classes that have one, and NaN where none has.
"""

from collections.abc import Callable

import numpy as np

from ensemble.scoring.metric import Metric


def roc_auc(labels: np.ndarray, probs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Area under the ROC curve, float64 (B,): the chance that a row of the class has a greater probability of it than a
    row of another class, a tie counting half. A class has none without a row of it and one of another.

    The mean over classes, each against the rest, weighs all classes alike: Provost & Domingos, "Tree induction for
    probability-based ranking" (Machine Learning, 2003) with equal weights.
    """
    return _over_classes(_class_auc, labels, probs, weights)


def average_precision(labels: np.ndarray, probs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean precision at the rows of the class, float64 (B,), the rows in order of falling probability; rows of equal
    probability are taken together. A class has none without a row of it."""
    return _over_classes(_class_precision, labels, probs, weights)


def _over_classes(
    of_class: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
    labels: np.ndarray,
    probs: np.ndarray,
    weights: np.ndarray,
) -> np.ndarray:
    classes = probs.shape[1]
    total, known = np.zeros(weights.shape[1]), np.zeros(weights.shape[1])
    for c in [1] if classes == 2 else range(classes):
        of_c = of_class(labels == c, probs[:, c], weights)
        known += ~np.isnan(of_c)
        total += np.nan_to_num(of_c)
    return np.where(known > 0, total / np.maximum(known, 1), np.nan)


def _class_auc(positive: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """positive: bool (N,). scores: (N,). NaN in draws without a positive or without a negative row."""
    mine, others = _rising(positive, scores), np.flatnonzero(~positive)
    # A row of another class is beaten by the positive ones from place `right` on, and tied with those from `left` on.
    left, right = (np.searchsorted(scores[mine], scores[others], side) for side in ("left", "right"))
    places, halves = np.concatenate([left, right]), np.full(2 * len(others), 0.5)
    beaten = _sums_up_to(places, np.tile(others, 2), halves, len(mine), weights)
    counted = weights[mine]
    pairs = counted.sum(axis=0) * beaten[-1]
    return np.where(pairs > 0, np.einsum("nb,nb->b", counted, beaten[:-1]) / np.where(pairs > 0, pairs, 1), np.nan)


def _class_precision(positive: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """As `_class_auc`. NaN in draws without a positive row."""
    mine, every = _rising(positive, -scores), np.arange(len(scores))
    places = np.searchsorted(-scores[mine], -scores)  # from which positive row on a row is among those taken
    taken = _sums_up_to(places, every, np.ones(len(every)), len(mine), weights)[:-1]
    hits = _sums_up_to(places[mine], mine, np.ones(len(mine)), len(mine), weights)
    found = np.einsum("nb,nb->b", weights[mine], hits[:-1] / np.where(taken > 0, taken, 1))
    return np.where(hits[-1] > 0, found / np.where(hits[-1] > 0, hits[-1], 1), np.nan)


def _rising(positive: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The numbers of the positive rows, in order of rising scores."""
    mine = np.flatnonzero(positive)
    return np.asarray(mine[scores[mine].argsort()])


def _sums_up_to(
    places: np.ndarray, rows: np.ndarray, shares: np.ndarray, count: int, weights: np.ndarray
) -> np.ndarray:
    """(count + 1, B): the sums of the shares (K,) of the weights of rows (K,) whose places (K,) are 0, 0 to 1, ...

    Only these sums are made, not the N cumulative ones: of 20,000 rows and 18 classes that takes a third of the time.
    """
    from scipy.sparse import coo_array

    at_place = coo_array((shares, (places, rows)), shape=(count + 1, len(weights))).tocsr()
    return np.asarray((at_place @ weights).cumsum(axis=0))


METRICS = (
    Metric("roc_auc", "ROC AUC", True, "rows", roc_auc, bounds=(0, 1), by_class=True),
    Metric("average_precision", "average precision", True, "rows", average_precision, bounds=(0, 1), by_class=True),
)

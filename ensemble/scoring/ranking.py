"""Metrics of how each class's probability ranks the rows, one class against the rest.

They need the rows themselves: labels int64 (N,), probs float (N, C), and weights float64 (N, B), what each row counts
in each of B draws. Of two classes the second is the positive one, and the only one that is scored; of more, the score
is the mean over the classes that have one, and NaN where none has.
"""

from collections.abc import Callable

import numpy as np


def roc_auc(labels: np.ndarray, probs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Area under the ROC curve, float64 (B,): how likely a row of the class has a greater probability of it than one of
    another class, a tie counting half. A class has none without a row of it and one of another.

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
        own = of_class(labels == c, probs[:, c], weights)
        known += ~np.isnan(own)
        total += np.nan_to_num(own)
    return np.where(known > 0, total / np.maximum(known, 1), np.nan)


def _class_auc(positive: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """positive: bool (N,). scores: (N,). NaN in draws without a positive or without a negative row."""
    mine, others = np.flatnonzero(positive), np.flatnonzero(~positive)
    others = others[scores[others].argsort()]
    below = _cumulative(weights[others])
    ends = [np.searchsorted(scores[others], scores[mine], side) for side in ("left", "right")]
    beaten = below[ends[0]]
    if (ends[0] != ends[1]).any():
        beaten = (beaten + below[ends[1]]) / 2
    counted = weights[mine]
    pairs = counted.sum(axis=0) * below[-1]
    return np.where(pairs > 0, np.einsum("nb,nb->b", counted, beaten) / np.where(pairs > 0, pairs, 1), np.nan)


def _class_precision(positive: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """As `_class_auc`. NaN in draws without a positive row."""
    order = (-scores).argsort()
    mine = order[positive[order]]
    every, right = _cumulative(weights[order]), _cumulative(weights[mine])
    taken = every[np.searchsorted(-scores[order], -scores[mine], "right")]
    hits = right[np.searchsorted(-scores[mine], -scores[mine], "right")]
    found = np.einsum("nb,nb->b", weights[mine], hits / np.where(taken > 0, taken, 1))
    return np.where(right[-1] > 0, found / np.where(right[-1] > 0, right[-1], 1), np.nan)


def _cumulative(weights: np.ndarray) -> np.ndarray:
    """(n + 1, B): the sums of the first 0, 1, .. n rows."""
    out = np.zeros((len(weights) + 1, weights.shape[1]))
    np.cumsum(weights, axis=0, out=out[1:])
    return out

"""Scores of predicted probabilities: plain functions on labels int64 (N,) and probabilities (N, C).

Each returns one float over all N rows pooled (never a mean of batches or folds). `METRICS` says which way is better.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ensemble.errors import UserError

FLOOR = 1e-15  # below this a probability counts as this, so that one sure mistake costs 34.5 nats and not infinity


def row_losses(labels: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """-log of each row's true-class probability, in nats, float64 (N,); probabilities below 1e-15 count as 1e-15."""
    right = probs[np.arange(len(labels)), labels].astype(np.float64)
    return np.asarray(-np.log(np.maximum(right, FLOOR)))


def log_loss(labels: np.ndarray, probs: np.ndarray) -> float:
    """Mean of -log(true-class probability), in nats."""
    return float(row_losses(labels, probs).mean())


def accuracy(labels: np.ndarray, probs: np.ndarray) -> float:
    """Share of rows whose largest probability is the true class's (the first class wins a tie)."""
    return float((probs.argmax(axis=1) == labels).mean())


def f1_from_counts(right: np.ndarray, predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Macro F1 from per-class counts, each (..., C): rows predicted right, predicted, and truly of the class -> (...).

    The mean is over the classes that occur as a label or as a prediction; one in neither is left out, one that is
    predicted but never true (or true but never predicted) counts as 0. The counts may be weighted.
    """
    seen = predicted + true
    f1 = 2 * right / np.where(seen > 0, seen, 1)
    return np.asarray(f1.sum(axis=-1) / np.maximum((seen > 0).sum(axis=-1), 1))


def class_counts(
    labels: np.ndarray, predicted: np.ndarray, classes: int, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per class, (C,): rows predicted right, rows predicted, rows truly of it; with optional row weights (N,)."""
    hit = labels == predicted
    right = np.bincount(labels[hit], None if weights is None else weights[hit], minlength=classes)
    return (
        right,
        np.bincount(predicted, weights, minlength=classes),
        np.bincount(labels, weights, minlength=classes),
    )


def from_counts(metric: str, right: np.ndarray, predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """accuracy, macro_f1 or balanced_accuracy from per-class counts, each (..., C) -> (...).

    Macro F1 as `f1_from_counts`; balanced accuracy is the mean recall over the classes that have a true row.
    """
    if metric == "macro_f1":
        return f1_from_counts(right, predicted, true)
    if metric == "accuracy":
        return np.asarray(right.sum(axis=-1) / true.sum(axis=-1))
    recall = right / np.where(true > 0, true, 1)
    return np.asarray(recall.sum(axis=-1) / np.maximum((true > 0).sum(axis=-1), 1))


def macro_f1(labels: np.ndarray, probs: np.ndarray) -> float:
    """Mean F1 over the classes that occur as a label or as a prediction (see `f1_from_counts`)."""
    return macro_f1_of(labels, probs.argmax(axis=1), probs.shape[1])


def macro_f1_of(labels: np.ndarray, predicted: np.ndarray, classes: int, weights: np.ndarray | None = None) -> float:
    """Macro F1 of predicted classes int64 (N,), with optional row weights (N,)."""
    return float(f1_from_counts(*class_counts(labels, predicted, classes, weights)))


def balanced_accuracy(labels: np.ndarray, probs: np.ndarray) -> float:
    """Mean recall over the classes that have at least one true row."""
    return float(from_counts("balanced_accuracy", *class_counts(labels, probs.argmax(axis=1), probs.shape[1])))


def brier(labels: np.ndarray, probs: np.ndarray) -> float:
    """Mean over the rows of the squared distance between probabilities and the true class's indicator: 0 to 2.

    Brier, "Verification of forecasts expressed in terms of probability" (Monthly Weather Review, 1950).
    """
    return float(row_briers(labels, probs).mean())


def row_briers(labels: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """Each row's part of `brier`, float64 (N,)."""
    right = probs[np.arange(len(labels)), labels].astype(np.float64)
    return np.asarray(np.einsum("nc,nc->n", probs, probs, dtype=np.float64) - 2 * right + 1)


def ece(labels: np.ndarray, probs: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error: |accuracy - mean confidence| of the rows in each bin, weighted by their share.

    `bins` equal-width bins (a, b] of the largest probability. Naeini, Cooper & Hauskrecht (AAAI 2015); 15 bins as in
    Guo et al. (ICML 2017).
    """
    return ece_of(probs.argmax(axis=1) == labels, probs.max(axis=1), bins)


def ece_of(right: np.ndarray, confidence: np.ndarray, bins: int = 15) -> float:
    """`ece` from whether each row's prediction is right, bool (N,), and its largest probability, (N,)."""
    surplus = [abs(own.accuracy - own.confidence) * own.rows for own in reliability(right, confidence, bins)]
    return float(sum(surplus) / len(right))


@dataclass(frozen=True)
class Bin:
    """The rows whose confidence is in (low, high]: how many, how often right, their mean confidence."""

    low: float
    high: float
    rows: int
    accuracy: float
    confidence: float


def reliability(right: np.ndarray, confidence: np.ndarray, bins: int = 15) -> list[Bin]:
    """The bins of `ece` that hold a row, from the least sure to the surest."""
    where = np.clip(np.ceil(confidence.astype(np.float64) * bins).astype(np.int64) - 1, 0, bins - 1)
    rows = np.bincount(where, minlength=bins)
    hits, sure = (np.bincount(where, values, minlength=bins) for values in (right, confidence))
    return [
        Bin(float(b / bins), float((b + 1) / bins), int(rows[b]), float(hits[b] / rows[b]), float(sure[b] / rows[b]))
        for b in np.flatnonzero(rows)
    ]


METRICS: dict[str, tuple[Callable[[np.ndarray, np.ndarray], float], bool]] = {  # name -> (function, greater is better)
    "log_loss": (log_loss, False),
    "accuracy": (accuracy, True),
    "macro_f1": (macro_f1, True),
    "balanced_accuracy": (balanced_accuracy, True),
    "ece": (ece, False),
    "brier": (brier, False),
}
TARGETS = ("log_loss", "accuracy", "macro_f1", "balanced_accuracy")  # what a blend may be directed at


def require_target(metric: str) -> None:
    """Raise UserError unless a blend can be directed at `metric`."""
    if metric not in TARGETS:
        raise UserError(f"metric {metric!r} is not one of: {', '.join(TARGETS)}")

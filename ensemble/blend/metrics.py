"""Scores of predicted probabilities: plain functions on labels int64 (N,) and probabilities (N, C).

Each returns one float over all N rows pooled (never a mean of batches or folds). `METRICS` says which way is better.
"""

from collections.abc import Callable

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


def macro_f1(labels: np.ndarray, probs: np.ndarray) -> float:
    """Mean F1 over the classes that occur as a label or as a prediction (see `f1_from_counts`)."""
    return macro_f1_of(labels, probs.argmax(axis=1), probs.shape[1])


def macro_f1_of(labels: np.ndarray, predicted: np.ndarray, classes: int, weights: np.ndarray | None = None) -> float:
    """Macro F1 of predicted classes int64 (N,), with optional row weights (N,)."""
    hit = labels == predicted
    right = np.bincount(labels[hit], None if weights is None else weights[hit], minlength=classes)
    counts = [np.bincount(which, weights, minlength=classes) for which in (predicted, labels)]
    return float(f1_from_counts(right, *counts))


def balanced_accuracy(labels: np.ndarray, probs: np.ndarray) -> float:
    """Mean recall over the classes that have at least one true row."""
    classes = probs.shape[1]
    true = np.bincount(labels, minlength=classes)
    right = np.bincount(labels[probs.argmax(axis=1) == labels], minlength=classes)
    return float((right[true > 0] / true[true > 0]).mean())


def ece(labels: np.ndarray, probs: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error: |accuracy - mean confidence| of the rows in each bin, weighted by their share.

    `bins` equal-width bins (a, b] of the largest probability. Naeini, Cooper & Hauskrecht (AAAI 2015); 15 bins as in
    Guo et al. (ICML 2017).
    """
    confidence = probs.max(axis=1).astype(np.float64)
    where = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    surplus = (probs.argmax(axis=1) == labels) - confidence
    return float(np.abs(np.bincount(where, surplus, minlength=bins)).sum() / len(labels))


METRICS: dict[str, tuple[Callable[[np.ndarray, np.ndarray], float], bool]] = {  # name -> (function, greater is better)
    "log_loss": (log_loss, False),
    "accuracy": (accuracy, True),
    "macro_f1": (macro_f1, True),
    "balanced_accuracy": (balanced_accuracy, True),
    "ece": (ece, False),
}
TARGETS = ("log_loss", "accuracy", "macro_f1")  # what a blend may be directed at, and what every table shows


def require_target(metric: str) -> None:
    """Raise UserError unless a blend can be directed at `metric`."""
    if metric not in TARGETS:
        raise UserError(f"metric {metric!r} is not one of: {', '.join(TARGETS)}")

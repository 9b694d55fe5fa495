"""Metrics of the predicted classes alone, from counts of rows per class.

Counts may be weighted, and of any number of draws at once: "(..., C)" is one row of C classes a draw.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ensemble.scoring.metric import Metric

ROUNDING = 1e-12  # what is left of 1 where weighted shares of the rows add up to it


@dataclass(frozen=True)
class ClassCounts:
    """Weighted numbers of rows, for any number of draws.

    right: float (..., C), rows of the class that are predicted as it.
    predicted: float (..., C), rows that are predicted as the class.
    true: float (..., C), rows of the class.
    squares: float (...), sum over rows of (number of the true class - number of the predicted class) squared.
    """

    right: np.ndarray
    predicted: np.ndarray
    true: np.ndarray
    squares: np.ndarray


def class_counts(
    labels: np.ndarray, predicted: np.ndarray, classes: int, weights: np.ndarray | None = None
) -> ClassCounts:
    """The counts (C,), and squares (), of one draw.

    labels: int64 (N,).
    predicted: int64 (N,), the predicted classes.
    classes: C, how many there are.
    weights: float (N,), of the rows; None for 1.
    """
    hit = labels == predicted
    squares = np.square(labels - predicted, dtype=np.float64)
    return ClassCounts(
        np.bincount(labels[hit], None if weights is None else weights[hit], minlength=classes),
        np.bincount(predicted, weights, minlength=classes),
        np.bincount(labels, weights, minlength=classes),
        np.asarray(squares.sum() if weights is None else weights @ squares),
    )


def added(parts: Sequence[ClassCounts]) -> ClassCounts:
    """The counts of the rows of all parts together."""
    return ClassCounts(
        right=np.sum([part.right for part in parts], axis=0),
        predicted=np.sum([part.predicted for part in parts], axis=0),
        true=np.sum([part.true for part in parts], axis=0),
        squares=np.sum([part.squares for part in parts], axis=0),
    )


def accuracy(counts: ClassCounts) -> np.ndarray:
    """Share of the rows that are predicted right."""
    return np.asarray(counts.right.sum(axis=-1) / counts.true.sum(axis=-1))


def macro_f1(counts: ClassCounts) -> np.ndarray:
    """Mean F1 over the classes that occur as a label or as a prediction.

    A class in neither is left out; one that is predicted but never true (or true but never predicted) counts as 0.
    """
    seen = counts.predicted + counts.true
    f1 = 2 * counts.right / np.where(seen > 0, seen, 1)
    return np.asarray(f1.sum(axis=-1) / np.maximum((seen > 0).sum(axis=-1), 1))


def balanced_accuracy(counts: ClassCounts) -> np.ndarray:
    """Mean recall over the classes that have at least one true row."""
    recall = counts.right / np.where(counts.true > 0, counts.true, 1)
    return np.asarray(recall.sum(axis=-1) / np.maximum((counts.true > 0).sum(axis=-1), 1))


def matthews(counts: ClassCounts) -> np.ndarray:
    """Matthews correlation of labels and predictions, -1 to 1; 0 where either is one class alone.

    Gorodkin, "Comparing two K-category assignments by a K-category correlation coefficient" (Computational Biology and
    Chemistry, 2004); with two classes it is the phi coefficient.
    """
    rows = counts.true.sum(axis=-1, keepdims=True)
    # Shares of the rows, not counts.
    right, true, predicted = (counted / rows for counted in (counts.right, counts.true, counts.predicted))
    together = right.sum(axis=-1) - (true * predicted).sum(axis=-1)
    spreads = [1 - (shares**2).sum(axis=-1) for shares in (true, predicted)]
    varied = np.minimum(*spreads) > ROUNDING
    return np.asarray(np.where(varied, together / np.sqrt(np.where(varied, spreads[0] * spreads[1], 1)), 0.0))


def quadratic_kappa(counts: ClassCounts) -> np.ndarray:
    """Cohen's kappa with quadratic weights: 1 - (mean squared distance of predicted and true class numbers) / (that of
    predictions dealt at random). 1 where rows and predictions are all of one class.

    Cohen, "Weighted kappa" (Psychological Bulletin, 1968). Classes are ordered as in the run: numbers by their value.
    """
    number = np.arange(counts.true.shape[-1], dtype=np.float64)
    rows = counts.true.sum(axis=-1)
    mean_true, mean_predicted = (counted @ number / rows for counted in (counts.true, counts.predicted))
    square_true, square_predicted = (counted @ number**2 / rows for counted in (counts.true, counts.predicted))
    chance = square_true + square_predicted - 2 * mean_true * mean_predicted
    varied = chance > ROUNDING
    return np.asarray(np.where(varied, 1 - counts.squares / rows / np.where(varied, chance, 1), 1.0))


METRICS = (
    Metric("accuracy", "accuracy %", True, "counts", accuracy, default=True, column=True, bounds=(0, 1)),
    Metric("macro_f1", "macro F1 %", True, "counts", macro_f1, default=True, column=True, bounds=(0, 1), by_class=True),
    Metric(
        "balanced_accuracy", "balanced accuracy %", True, "counts", balanced_accuracy, default=True, bounds=(0, 1),
        by_class=True,
    ),
    Metric("quadratic_kappa", "quadratic kappa", True, "counts", quadratic_kappa, bounds=(-1, 1)),
    Metric("matthews", "Matthews correlation", True, "counts", matthews, bounds=(-1, 1)),
)  # fmt: skip

"""Calibration: whether predicted probabilities are as often right as they say."""

from dataclasses import dataclass

import numpy as np

from ensemble.files.reading import Count, Finite
from ensemble.scoring.outcomes import Outcome


@dataclass(frozen=True)
class Calibration:
    """Calibration of probabilities against labels; smaller is better.

    log_loss: in nats.
    ece: expected calibration error over 15 bins, 0 to 1.
    brier: mean of the rows' Brier scores, 0 to 2.
    """

    log_loss: Finite
    ece: Finite
    brier: Finite


@dataclass(frozen=True)
class Bin:
    """The rows whose confidence is in (low, high].

    low, high: its ends, 0 to 1.
    rows: how many there are.
    accuracy: the share of them that is predicted right.
    confidence: their mean confidence.
    """

    low: Finite
    high: Finite
    rows: Count
    accuracy: float
    confidence: float


def calibration(labels: np.ndarray, result: Outcome) -> Calibration:
    """Calibration of one outcome: of its most probable classes, also where costs decide for others."""
    right = result.most_probable == labels
    return Calibration(float(result.losses.mean()), ece(right, result.confidence), float(result.briers.mean()))


def ece(right: np.ndarray, confidence: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error: |accuracy - mean confidence| of the rows in each bin, weighted by their share.

    right: bool (N,), whether each row's most probable class is right.
    confidence: float (N,), its probability.
    bins: how many of equal width, (a, b].

    Naeini, Cooper & Hauskrecht (AAAI 2015); 15 bins as in Guo et al. (ICML 2017).
    """
    surplus = [abs(part.accuracy - part.confidence) * part.rows for part in reliability(right, confidence, bins)]
    return float(sum(surplus) / len(right))


def reliability(right: np.ndarray, confidence: np.ndarray, bins: int = 15) -> list[Bin]:
    """The bins of `ece` that hold a row, in order of rising confidence."""
    where = np.clip(np.ceil(confidence.astype(np.float64) * bins).astype(np.int64) - 1, 0, bins - 1)
    rows = np.bincount(where, minlength=bins)
    hits, sure = (np.bincount(where, values, minlength=bins) for values in (right, confidence))
    return [
        Bin(float(b / bins), float((b + 1) / bins), int(rows[b]), float(hits[b] / rows[b]), float(sure[b] / rows[b]))
        for b in np.flatnonzero(rows)
    ]

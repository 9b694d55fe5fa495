"""Prediction sets by cross-conformal prediction (CV+): a class is in an image's set unless it fits the image worse than
nearly all out-of-fold rows are fitted by their true class.

The networks of a fold never saw the fold's rows, so these rows and a new image are alike to them. A class's score of
each fold's networks is compared with that fold's rows, and the folds' counts are added up: Romano, Sesia & Candès,
"Classification with valid and adaptive coverage" (NeurIPS 2020); Barber, Candès, Ramdas & Tibshirani, "Predictive
inference with the jackknife+" (Annals of Statistics 2021). In theory a set at level 1 - a holds the true class with a
probability of at least 1 - 2a (less a term that vanishes with the rows of a fold), in practice of about 1 - a.

Rows of a group are alike. By group each row counts 1 / (rows of its group), which is the average over all ways to draw
one row of each group: Dunn, Wasserman & Ramdas, "Distribution-free prediction sets for two-layer hierarchical models"
(JASA 2022, repeated subsampling).

By class (Mondrian: Vovk, Gammerman & Shafer, "Algorithmic learning in a random world", 2005) a class is compared with
its own rows alone, so that the promise is one for each class.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ensemble.conformal.rows import HeldOut, cluster_weights
from ensemble.conformal.scores import ConformityScore, scores_of

BY = ("class", "group")
LEAST_MISSES = 5  # how many of its rows a class's set must be allowed to miss for a promise of the class's own
TIE = 1e-9  # a count that reaches the level up to rounding does not exceed it


@dataclass(frozen=True)
class Strata:
    """Which rows each class is compared with.

    of_class: int64 (C,), the stratum of each class, one of S.
    rows: of each stratum bool (N,), its rows.
    pooled: numbers of the classes that share a stratum, having too few rows for one.
    least: how many rows a stratum of one class takes.
    """

    of_class: np.ndarray
    rows: tuple[np.ndarray, ...]
    pooled: tuple[int, ...]
    least: int


@dataclass(frozen=True)
class Calibrated:
    """What prediction sets are made with.

    score: the conformity score.
    level: the share of images whose set is to hold the true class.
    of_class: as in `Strata`.
    rising: for each stratum and fold the scores of the rows' true classes, float64 (n,), ascending.
    tails: for each of these float64 (n + 1,), the total weight of the rows from each place on.
    totals: float64 (S,), the total weight of each stratum's rows.
    """

    score: ConformityScore
    level: float
    of_class: np.ndarray
    rising: tuple[tuple[np.ndarray, ...], ...]
    tails: tuple[tuple[np.ndarray, ...], ...]
    totals: np.ndarray


def strata_of(labels: np.ndarray, classes: int, level: float, by: str | None) -> Strata:
    """One stratum for all rows, or by class one for each class with enough rows and one for all other classes together.
    The classes of a stratum of fewer than 1 / (1 - level) - 1 rows are in every set.

    labels: int64 (N,).
    classes: C, how many there are.
    level, by: as in `calibrate`.
    """
    least = math.ceil(round(LEAST_MISSES / (1 - level), 6))
    if by != "class":
        return Strata(np.zeros(classes, dtype=np.int64), (np.ones(len(labels), dtype=bool),), (), least)
    counts = np.bincount(labels, minlength=classes)
    few = counts < least
    if not few.any():
        return Strata(np.arange(classes), tuple(labels == c for c in range(classes)), (), least)
    of_class = np.where(few, 0, np.cumsum(~few))
    alone = tuple(labels == c for c in np.flatnonzero(~few))
    return Strata(of_class, (few[labels], *alone), tuple(np.flatnonzero(few).tolist()), least)


def row_weights(rows: HeldOut, by: str | None) -> np.ndarray:
    """The weight of each row, float64 (N,): 1, or by group 1 / (rows of its group)."""
    return cluster_weights(rows.clusters) if by == "group" else np.ones(len(rows.labels))


def calibrate(rows: HeldOut, score: ConformityScore, level: float, by: str | None, folds: int) -> Calibrated:
    """What makes prediction sets at this level.

    rows: the out-of-fold rows to calibrate on.
    score: the conformity score.
    level: the share of images whose set is to hold the true class, between 0 and 1.
    by: None, "class" (the level holds for each class) or "group" (each group counts as one row).
    folds: K, how many folds have networks that predict; a fold need not have rows.
    """
    true = true_scores(scores_of([score], rows.probabilities)[0], rows.labels)
    weights, strata = row_weights(rows, by), strata_of(rows.labels, rows.probabilities.shape[1], level, by)
    rising, tails = [], []
    for of_stratum in strata.rows:
        parts = [np.flatnonzero(of_stratum & (rows.folds == fold)) for fold in range(folds)]
        ordered = [part[np.argsort(true[part], kind="stable")] for part in parts]
        rising.append(tuple(true[part] for part in ordered))
        tails.append(tuple(tails_of(weights[part]) for part in ordered))
    totals = np.array([weights[of_stratum].sum() for of_stratum in strata.rows])
    return Calibrated(score, level, strata.of_class, tuple(rising), tuple(tails), totals)


def prediction_sets(calibrated: Calibrated, of_folds: Iterable[np.ndarray]) -> np.ndarray:
    """Which classes are in the sets of n images, bool (n, C); a set may be empty.

    of_folds: from the networks of each of the K folds the blend's probabilities, float (n, C).
    """
    counts: np.ndarray | None = None
    columns = [np.flatnonzero(calibrated.of_class == number) for number in range(len(calibrated.rising))]
    folds = range(len(calibrated.rising[0]))
    for fold, probabilities in zip(folds, of_folds, strict=True):
        scores = scores_of([calibrated.score], probabilities)[0]
        counts = np.zeros(scores.shape) if counts is None else counts
        for number, some in enumerate(columns):
            places = np.searchsorted(calibrated.rising[number][fold], scores[:, some])
            counts[:, some] += calibrated.tails[number][fold][places]
    assert counts is not None
    return exceeds(counts, calibrated.totals[calibrated.of_class], calibrated.level)


def exceeds(counts: np.ndarray, totals: np.ndarray | float, level: float) -> np.ndarray:
    """Whether p-values, (1 + weight of the rows of at least this score) / (1 + weight of all rows), are above
    1 - level.

    counts: float64, the weight of the rows of at least this score.
    totals: float64 of a shape that broadcasts with it, the weight of all rows.

    Returns bool of their broadcast shape.
    """
    return np.asarray(1 + counts - (1 - level) * (1 + totals) > TIE)


def true_scores(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Each row's score of its true class, (N,), of scores (N, C)."""
    return np.asarray(scores[np.arange(len(labels)), labels])


def tails_of(weights: np.ndarray) -> np.ndarray:
    """Sums of weights (n,) from each place on, float64 (n + 1,)."""
    return np.concatenate([np.cumsum(weights[::-1])[::-1], [0.0]])


def with_most_probable(sets: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Sets bool (n, C) that hold the most probable class of probabilities (n, C) too, so that none is empty."""
    out = sets.copy()
    out[np.arange(len(out)), np.nan_to_num(probabilities).argmax(axis=1)] = True
    return out

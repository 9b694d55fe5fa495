"""Which conformity score makes the smallest sets, and what these are worth on rows that were not used for them."""

from dataclasses import dataclass

import numpy as np

from ensemble.conformal.calibrate import exceeds, row_weights, strata_of, tails_of, true_scores, with_most_probable
from ensemble.conformal.rows import HeldOut
from ensemble.conformal.scores import CANDIDATES, ConformityScore, scores_of
from ensemble.scoring.cross_fit import standard_error, usable_folds

MOST_NUMBERS = 500_000  # rows x classes that the choice is made on: less than a second


@dataclass(frozen=True)
class Choice:
    """A conformity score, and what its sets are worth on out-of-fold rows: those of each fold are scored by sets that
    were chosen and calibrated without them.

    score: the one that is chosen on all rows.
    coverage: the share of the rows whose set holds the true class, 0 to 1; the most probable class is in every set.
    size: the mean number of classes in a set.
    single: the share of the sets that hold one class, 0 to 1.
    raw_coverage, raw_size: the same before the most probable class is added; these sets may be empty.
    accuracy: the share of the rows whose most probable class is right.
    of_classes: coverage of the rows of each class, float64 (C,); NaN without rows.
    """

    score: ConformityScore
    coverage: float
    size: float
    single: float
    raw_coverage: float
    raw_size: float
    accuracy: float
    of_classes: np.ndarray


def choose(
    rows: HeldOut,
    level: float,
    by: str | None,
    candidates: tuple[ConformityScore, ...] = CANDIDATES,
    ratios: np.ndarray | None = None,
) -> Choice:
    """The candidate with the smallest sets among those that hold the true class often enough; of equal ones the first.

    rows: the out-of-fold rows to choose on.
    level, by: as in `calibrate`.
    candidates: the scores to choose from.
    ratios: float64 (C,), the classes' shares of the images over those of the rows, where these differ: sets are as
        small as can be among images with such shares.
    """
    rows = rows.some(MOST_NUMBERS)
    folds = usable_folds(rows.folds, rows.clusters)
    numbers = np.unique(folds).tolist()
    weights = row_weights(rows, by)
    of_images = weights if ratios is None else weights * ratios[rows.labels]
    every = scores_of(candidates, rows.probabilities)

    def sets(candidate: int, test: np.ndarray, train: np.ndarray) -> np.ndarray:
        """Of the rows `test`, calibrated on the rows `train`, both bool (N,)."""
        limits = _limits(every[candidate], rows.labels, weights, train, level, by)
        return np.asarray(every[candidate][test] <= limits)

    def best(without: int | None) -> int:
        """The number of the best candidate, on the rows of all folds but one."""
        used = folds != without
        parts = np.full(len(folds), -1)
        parts[used] = usable_folds(folds[used], rows.clusters[used])  # of two folds one is left: it is divided
        sizes = []
        for candidate in range(len(candidates)):
            hits, size = np.zeros(len(folds)), np.zeros(len(folds))
            for part in np.unique(parts[used]):
                test = parts == part
                found = sets(candidate, test, used & ~test)
                hits[test], size[test] = true_scores(found, rows.labels[test]), found.sum(axis=1)
            enough = level - 2 * standard_error((hits * weights)[used], rows.clusters[used]) / weights[used].mean()
            is_valid = np.average(hits[used], weights=weights[used]) >= enough
            # Of a class without rows among these nothing is known.
            of_used = of_images[used] if of_images[used].any() else weights[used]
            sizes.append(np.average(size[used], weights=of_used) if is_valid else np.inf)
        return int(np.argmin(sizes))

    raw = np.zeros(rows.probabilities.shape, dtype=bool)
    for fold in numbers:
        test = folds == fold
        raw[test] = sets(best(fold), test, ~test)
    written = with_most_probable(raw, rows.probabilities)
    hits, raw_hits = (true_scores(each, rows.labels).astype(np.float64) for each in (written, raw))
    right = rows.probabilities.argmax(axis=1) == rows.labels
    classes = rows.probabilities.shape[1]
    counts = np.bincount(rows.labels, minlength=classes)
    with np.errstate(invalid="ignore"):
        of_classes = np.asarray(np.bincount(rows.labels, hits, minlength=classes) / counts)
    coverage, size, single, raw_coverage, raw_size, accuracy = (
        float(np.average(values, weights=of_images))
        for values in (hits, written.sum(axis=1), written.sum(axis=1) == 1, raw_hits, raw.sum(axis=1), right)
    )
    return Choice(candidates[best(None)], coverage, size, single, raw_coverage, raw_size, accuracy, of_classes)


def _limits(
    scores: np.ndarray, labels: np.ndarray, weights: np.ndarray, train: np.ndarray, level: float, by: str | None
) -> np.ndarray:
    """The largest score of each class that is in a set, float64 (C,), by the rows `train`, bool (N,): infinite where
    any is."""
    where = np.flatnonzero(train)
    strata = strata_of(labels[where], scores.shape[1], level, by)
    true = true_scores(scores[where], labels[where])
    limits = []
    for of_stratum in strata.rows:
        rising = np.argsort(true[of_stratum], kind="stable")
        tails = tails_of(weights[where][of_stratum][rising])
        inside = np.flatnonzero(exceeds(tails, tails[0], level))
        ordered = np.append(true[of_stratum][rising], np.inf)
        limits.append(ordered[inside[-1]] if len(inside) else -np.inf)
    return np.asarray(np.array(limits)[strata.of_class])

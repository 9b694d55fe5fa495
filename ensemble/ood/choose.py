"""Which scores are added up: those that best tell classes that were left out, and images that are none of the classes,
from the training rows. No image of a test set is looked at.

A class is left out by removing its rows from what rows are compared with. Members that were trained on it can't forget
it, so that linear classifiers on the frozen features, fitted without the class, answer in their place. Without frozen
features the class's column is removed from the members' logits, which makes their scores look better than they are: of
three probes of the paintings, AUROC in %, entropy 93.7 against 90.3 by probes that were fitted without the class, logit
neighbours 89.9 against 89.1, and energy, which is no candidate then, 98.4 against 90.4: the level of the other logits
still knows the class.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ensemble.conformal.rows import cluster_weights
from ensemble.ood.auroc import auroc
from ensemble.ood.detector import CHUNK, Detector, conformal_quantile, normal_scores, part_scores
from ensemble.ood.parts import DISAGREEMENT, ENERGY, ENTROPY, FEATURES, LOGITS, Bank, bank_of, centred

Parts = tuple[str, ...]
WITH_FEATURES: tuple[Parts, ...] = (
    (ENERGY,), (ENTROPY,), (LOGITS,), (FEATURES,), (ENERGY, FEATURES), (ENTROPY, FEATURES), (LOGITS, FEATURES),
    (ENERGY, LOGITS, FEATURES),
)  # fmt: skip
WITHOUT_FEATURES: tuple[Parts, ...] = ((ENTROPY,), (DISAGREEMENT,), (LOGITS,), (ENTROPY, LOGITS))
YOURS = "yours"  # the kind of the images that a user named
MOST_CLASSES = 10  # that are left out
FALSE_ALARMS = 0.01  # at which the share of unknown images that are flagged is shown


@dataclass(frozen=True)
class FoldOutputs:
    """n images, each with the outputs of the networks of one fold, which did not train on it.

    z: the members' logits, float32 (M, n, C), the mean over their views
    folds: int64 (n,), the fold whose networks gave them
    features: float32 (n, D), by the frozen network; None where there is none
    """

    z: np.ndarray
    folds: np.ndarray
    features: np.ndarray | None


@dataclass(frozen=True)
class Trial:
    """How well a candidate tells unknown images from training rows, each scored by one network of each member.

    parts: its scores
    left_out: class -> AUROC where that class is left out; empty with fewer than three classes that have rows
    foreign: kind -> AUROC of images that are none of the classes
    flagged_left_out: the share of rows of left-out classes that is flagged at 1 % false alarms; None without them
    flagged_foreign: likewise of foreign images
    """

    parts: tuple[str, ...]
    left_out: dict[str, float]
    foreign: dict[str, float]
    flagged_left_out: float | None
    flagged_foreign: float | None

    @property
    def foreign_images(self) -> str:
        """What the foreign images are called in a sentence."""
        return "synthetic images and yours" if YOURS in self.foreign else "synthetic images"

    @property
    def value(self) -> float:
        """What is compared: the mean over left-out classes and the mean over kinds of foreign images, each counting
        half."""
        return float(np.mean([np.mean(list(each.values())) for each in (self.left_out, self.foreign) if each]))


def choose(
    known: FoldOutputs,
    labels: np.ndarray,
    clusters: np.ndarray,
    classes: Sequence[str],
    foreign: Mapping[str, FoldOutputs],
    refit: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> tuple[Detector, list[Trial]]:
    """The detector of the best candidate, and every candidate's trial, the best one first.

    known: the N training rows, each with the outputs of the networks that never saw it.
    labels: int64 (N,), of these rows.
    clusters: int64 (N,), the number of each row's group, or of the row.
    classes: their C names.
    foreign: kind -> images that are none of the classes.
    refit: given rows, bool (N,), and labels 0, 1, ... int64 (n,) of these n, fits a linear classifier on the frozen
        features for each fold, and gives the logits of all rows by that of their fold, float32 (N, C).
    """
    candidates = WITHOUT_FEATURES if known.features is None else WITH_FEATURES
    candidates = tuple(parts for parts in candidates if len(known.z) > 1 or DISAGREEMENT not in parts)
    names = list(dict.fromkeys(name for parts in candidates for name in parts))
    logits, features = bank_of(centred(known.z)), None if known.features is None else bank_of(known.features)
    every = np.ones(len(labels), dtype=bool)
    of_rows = _scores(names, known, logits, features, known.folds, every)
    of_foreign = {kind: _scores(names, rows, logits, features, known.folds, every) for kind, rows in foreign.items()}
    of_classes = dict(_left_out(names, known, labels, classes, refit))

    trials, numbers = [], {name: number for number, name in enumerate(classes)}
    for parts in candidates:
        chosen = [names.index(name) for name in parts]
        foreign_pairs = {kind: _summed(of_rows, scores, chosen) for kind, scores in of_foreign.items()}
        class_pairs = {name: _summed(inside, outside, chosen) for name, (inside, outside) in of_classes.items()}
        trials.append(
            Trial(
                parts,
                {name: auroc(*pair) for name, pair in class_pairs.items()},
                {kind: auroc(*pair) for kind, pair in foreign_pairs.items()},
                _flagged(
                    (*pair, cluster_weights(clusters[labels != numbers[name]])) for name, pair in class_pairs.items()
                ),
                _flagged((*pair, cluster_weights(clusters)) for pair in foreign_pairs.values()),
            )
        )
    trials.sort(key=lambda trial: -trial.value)
    parts = trials[0].parts
    of_parts = of_rows[[names.index(name) for name in parts]]
    reference = np.sort(of_parts, axis=1)
    row_scores = normal_scores(reference, of_parts).sum(axis=0)
    bank = features if FEATURES in parts else None
    return Detector(parts, reference, known.folds, logits, bank, row_scores, cluster_weights(clusters)), trials


def _left_out(
    names: Sequence[str],
    known: FoldOutputs,
    labels: np.ndarray,
    classes: Sequence[str],
    refit: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> Iterator[tuple[str, tuple[np.ndarray, np.ndarray]]]:
    """Each class that is left out, with the scores (P, n) of the other rows and of its own."""
    counts = np.bincount(labels, minlength=len(classes))
    there = np.flatnonzero((counts > 0) & (counts < len(labels)))
    if len(there) < 3:  # without one of two, a single class would be left
        return
    by_size = there[np.argsort(counts[there], kind="stable")]
    spread = np.unique(np.linspace(0, len(there) - 1, min(len(there), MOST_CLASSES)).round().astype(int))
    for number in np.sort(by_size[spread]):
        inside = labels != number
        if any(not (inside & (known.folds != fold)).any() for fold in np.unique(known.folds)):
            continue  # a fold's networks would have no row to compare with
        z = np.delete(known.z, number, axis=-1)
        if known.features is not None:
            z = refit(inside, np.unique(labels[inside], return_inverse=True)[1])[None]
        without = FoldOutputs(z, known.folds, known.features)
        # The mean too would know the class: of features it made the distance look 8 points of AUROC better.
        banks = bank_of(centred(z), inside), None if known.features is None else bank_of(known.features, inside)
        scores = _scores(names, without, *banks, known.folds, inside)
        yield classes[number], (scores[:, inside], scores[:, ~inside])


def _scores(
    names: Sequence[str],
    rows: FoldOutputs,
    logits: Bank,
    features: Bank | None,
    bank_folds: np.ndarray,
    in_bank: np.ndarray,
) -> np.ndarray:
    """The scores (P, n) of rows, each compared with those rows of the banks that its networks were trained on. in_bank:
    bool (N,), the rows of the banks that count."""
    found = np.empty((len(names), len(rows.folds)))
    for fold in np.unique(rows.folds):
        where = np.flatnonzero(rows.folds == fold)
        for part in (where[start : start + CHUNK] for start in range(0, len(where), CHUNK)):
            cosines = None
            if features is not None:
                assert rows.features is not None
                cosines = features.cosines(rows.features[part])
            allowed = in_bank & (bank_folds != fold)
            found[:, part] = part_scores(names, rows.z[:, part], logits, cosines, allowed)
    return found


def _summed(inside: np.ndarray, outside: np.ndarray, chosen: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """The sums (n,) and (m,) of the chosen scores of (P, n) and (P, m), as normal scores among the former."""
    reference = np.sort(inside[chosen], axis=1)
    known, unknown = (normal_scores(reference, scores[chosen]).sum(axis=0) for scores in (inside, outside))
    return known, unknown


def _flagged(tried: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> float | None:
    """The mean share of unknown rows that are flagged at FALSE_ALARMS; 0 where the known rows are too few for it.

    tried: scores of known and of unknown rows, and what the known ones count
    """
    shares = [(unknown > conformal_quantile(known, weights, FALSE_ALARMS)).mean() for known, unknown, weights in tried]
    return float(np.mean(shares)) if shares else None

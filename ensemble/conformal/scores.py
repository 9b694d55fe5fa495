"""Conformity scores: how badly each class fits a row's probabilities. The lower its score, the sooner a class is in the
row's prediction set.

threshold (LAC): by the class's own probability. Sadinle, Lei & Wasserman, "Least ambiguous set-valued classifiers with
    bounded error levels" (JASA 2019).
APS: the probability of all classes up to this one, the most probable first. Romano, Sesia & Candès, "Classification
    with valid and adaptive coverage" (NeurIPS 2020).
RAPS: the same, with a penalty for each class beyond the first few. Angelopoulos, Bates, Malik & Jordan, "Uncertainty
    sets for image classifiers using conformal prediction" (ICLR 2021).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ConformityScore:
    """A score of one of the kinds above.

    kind: "threshold", "APS" or "RAPS".
    penalty: of RAPS, for each class beyond the first `free`.
    free: of RAPS, how many classes have no penalty.
    """

    kind: str
    penalty: float = 0.0
    free: int = 0

    def __str__(self) -> str:
        if self.kind == "RAPS":
            return f"RAPS ({self.penalty:g} for each class after the first{f' {self.free}' if self.free > 1 else ''})"
        return self.kind


CANDIDATES = (
    ConformityScore("threshold"),
    ConformityScore("APS"),
    *(ConformityScore("RAPS", penalty, free) for penalty in (0.01, 0.1) for free in (1, 2, 5)),
)


def scores_of(
    kinds: Sequence[ConformityScore], probabilities: np.ndarray, chance: np.ndarray | float = 1.0
) -> list[np.ndarray]:
    """The scores of all classes by each kind, float64 (n, C).

    probabilities: float (n, C).
    chance: (n, 1) or one number in [0, 1], the share of the class's own probability that APS and RAPS count. 1 counts
    all of it, so that a set depends on nothing but the image; the paper draws it at random.
    """
    known = np.asarray(probabilities, dtype=np.float32).astype(np.float64)  # rounded as the calibration rows are saved
    if all(each.kind == "threshold" for each in kinds):
        return [-known] * len(kinds)
    order = np.argsort(-known, axis=1, kind="stable")
    falling = np.take_along_axis(known, order, axis=1)
    mass, rank = np.empty_like(known), np.empty_like(known)
    np.put_along_axis(mass, order, falling.cumsum(axis=1) - (1 - chance) * falling, axis=1)
    np.put_along_axis(rank, order, np.arange(1.0, known.shape[1] + 1)[None], axis=1)
    return [
        -known if each.kind == "threshold" else mass + each.penalty * np.maximum(rank - each.free, 0) for each in kinds
    ]

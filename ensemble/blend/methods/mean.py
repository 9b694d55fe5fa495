"""The plain mean of the members' logits: nothing of them is fitted."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ensemble.blend.methods.method import Method, Training
from ensemble.blend.probabilities import geometric_mean


@dataclass(frozen=True)
class Mean:
    """What the plain mean learns: nothing."""


def fit(training: Training) -> Mean:
    return Mean()


def apply(learned: Mean, z: np.ndarray) -> np.ndarray:
    """Probabilities float64 (N, C), rows sum to 1, of z float32 (M, N, C)."""
    return geometric_mean(z)


def load(params: Mapping[str, Any], members: int, classes: int) -> Mean:
    return Mean()


def describe(learned: Mean, metric: str) -> list[str]:
    return []


def weights_of(learned: Mean, members: int) -> list[dict[str, float]]:
    return [{"weight": 1 / members}] * members


METHOD = Method(
    name="mean",
    fit=fit,
    apply=apply,
    load=load,
    describe=describe,
    weights_of=weights_of,
    reading="Every member counts the same.",
    weighs_views=False,
)

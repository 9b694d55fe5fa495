"""A blend's own temperature: one number that makes its probabilities as sure as they are right.

Guo et al., "On Calibration of Modern Neural Networks" (ICML 2017).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ensemble.blend.methods.pool import inverse_temperature
from ensemble.blend.params import number


@dataclass(frozen=True)
class Temperature:
    """inverse_temperature: 1 / T, between 1e-3 and 1e3."""

    inverse_temperature: float


def fit(log_probs: np.ndarray, labels: np.ndarray) -> Temperature:
    """By log loss, of log-probabilities float32 (N, C) and labels int64 (N,)."""
    return Temperature(inverse_temperature(log_probs, labels))


def apply(learned: Temperature, probs: np.ndarray) -> np.ndarray:
    """Probabilities (N, C) to the power 1 / T, each row divided by its sum; computed in place."""
    probs **= learned.inverse_temperature
    probs /= probs.sum(axis=1, keepdims=True)
    return probs


def load(params: Mapping[str, Any]) -> Temperature | None:
    """None where a blend has none. Raises ValueError for what is no number above 0."""
    if "inverse_temperature" not in params:
        return None
    if not number(params, "inverse_temperature") > 0:
        raise ValueError("inverse_temperature is not above 0")
    return Temperature(params["inverse_temperature"])

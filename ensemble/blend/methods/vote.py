"""Weighted soft vote: one temperature per member, then simplex weights over the tempered probabilities.

Both steps are convex problems in log loss and both use exact first and second derivatives.
Temperature: Guo et al., "On Calibration of Modern Neural Networks" (ICML 2017). Weights: maximum likelihood of
mixture proportions, as in Kim, Carbonetto, Stephens & Anitescu (JCGS 2020).
`z` is float32 (M, N, C) everywhere.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from ensemble.blend import params as saved
from ensemble.blend.methods.method import Method, member_weights
from ensemble.blend.methods.pool import inverse_temperature
from ensemble.blend.probabilities import mixture, true_class
from ensemble.machine import cores


@dataclass(frozen=True)
class Vote:
    """What the vote learns.

    weights: float64 (M,), on the simplex.
    inverse_temperatures: float64 (M,), 1 / T of each member.
    certificate: for these temperatures the fitted log loss is at most so many nats above that of any other weights.
    """

    weights: np.ndarray
    inverse_temperatures: np.ndarray
    certificate: float


def fit(z: np.ndarray, labels: np.ndarray) -> Vote:
    """Fit temperatures and weights by log loss on labels int64 (N,)."""
    inverse = inverse_temperatures(z, labels)
    weights, gap = simplex_weights(true_class(z, labels, inverse))
    return Vote(weights, inverse, gap)


def apply(learned: Vote, z: np.ndarray) -> np.ndarray:
    """Blended probabilities, float64 (N, C), rows sum to 1."""
    return mixture(z, learned.weights, learned.inverse_temperatures)


def load(params: Mapping[str, Any], members: int, classes: int) -> Vote:
    """Raises ValueError that names what is not as `fit` makes it."""
    certificate = saved.number(params, "certificate")
    return Vote(saved.simplex(params, members), saved.inverse_temperatures(params, members), certificate)


def describe(learned: Vote, metric: str) -> list[str]:
    return [f"weights certified within {learned.certificate:.1g} nats of the least log loss"]


def inverse_temperatures(z: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """1 / T of each member, float64 (M,); see `pool.inverse_temperature`."""
    with ThreadPoolExecutor(cores()) as threads:  # numpy lets go of the interpreter while it computes
        return np.array(list(threads.map(lambda member: inverse_temperature(member, labels), z)))


def simplex_weights(p: np.ndarray, lowest_barrier: float = 1e-10) -> tuple[np.ndarray, float]:
    """Weights w on the simplex that minimise -mean(log(p @ w)), and the bound on what is left to gain.

    p: float64 (N, M), positive: each member's probability of the true class, which is all that the loss depends on.
    Newton on -mean(log(p w)) + sum(w) - barrier * sum(log w): with sum(w) in the place of the constraint, the optimum
    over w >= 0 has sum 1 by itself. The bound is max_m mean(p_m / (p @ w)) - 1 (nats), by convexity.
    """
    rows, members = p.shape
    p = p / p.max(axis=1, keepdims=True)  # a row's scale moves the loss by a constant, not its minimiser
    w, barrier = np.full(members, 1 / members), 0.1
    ratio, even = np.empty_like(p), np.full(rows, 1 / rows)

    def value(w: np.ndarray) -> float:
        return float(-np.log(p @ w).mean() + w.sum() - barrier * np.log(w).sum())

    for _ in range(200):
        np.multiply(p, (1 / (p @ w))[:, None], out=ratio)
        slope = w - w * (even @ ratio) - barrier  # in units of w, in which the system stays well conditioned
        gram = ratio.T @ ratio * np.outer(w, w) / rows
        step = -np.linalg.solve(gram + barrier * np.eye(members), slope)
        decrement = float(-slope @ step)
        if decrement <= (0.3 if barrier > lowest_barrier else 1e-2) * barrier:
            if barrier <= lowest_barrier:
                break
            barrier /= 1000  # with 100, 36 steps on 30 members x 50,000 rows and not 22
            continue
        size = min(1.0, 0.95 / max(1e-300, float(-step.min())))  # no weight may reach 0
        start = value(w)
        while value(w * (1 + size * step)) > start - 0.1 * size * decrement and size > 1e-9:
            size /= 2
        w = w * (1 + size * step)
    w /= w.sum()
    gap = optimality_gap(p, w)
    pruned = np.where(w < 1e-6, 0.0, w)
    pruned /= pruned.sum()
    pruned_gap = optimality_gap(p, pruned)
    return (pruned, pruned_gap) if pruned_gap <= max(2 * gap, 1e-7) else (w, gap)


def optimality_gap(p: np.ndarray, w: np.ndarray) -> float:
    """max_m mean(p_m / (p @ w)) - 1: an upper bound, in nats, on how far w's log loss is above the best weights'."""
    return max(0.0, float((1 / (p @ w) @ p).max()) / len(p) - 1)


METHOD = Method(
    name="vote",
    fit=lambda training: fit(training.z, training.labels),
    apply=apply,
    load=load,
    describe=describe,
    weights_of=lambda learned, members: member_weights(learned.weights, learned.inverse_temperatures),
    reading="Weights sum to 1 and count the members' probabilities, each at its own temperature.",
    sparse=True,
)

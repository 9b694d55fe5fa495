"""The geometric pool: softmax of a weighted sum of the members' logits, with weights of 0 or more.

A weighted product of the members' probabilities, normalised (Genest & Zidek, "Combining Probability Distributions",
Statistical Science 1986). The sum of the weights is free: it is the pool's inverse temperature. In the weights the log
loss is convex, so Newton finds the one optimum, and a bound on what is left to gain proves it. With one member the
pool is temperature scaling (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017).
`z` is float32 (M, N, C) everywhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ensemble.blend import params as saved
from ensemble.blend.methods.method import Method, member_weights
from ensemble.blend.probabilities import chunks, over_classes, row_sums, softmax

LOWEST, HIGHEST = 1e-3, 1e3  # bounds of 1 / temperature
FEW = 1 << 20  # numbers: on more than twice as many, Newton first goes to the optimum of every n-th row
ENOUGH = 1e-7  # nats: where the certificate needs no better weights
REACH = 2.0  # the certificate covers all weights whose sum is at most this many times the fitted sum


@dataclass(frozen=True)
class Pool:
    """What the pool learns.

    weights: float64 (M,), 0 or more; their sum is the pool's inverse temperature.
    certificate: the fitted log loss is at most so many nats above that of any other weights of 0 or more whose sum is
    no more than twice theirs.
    """

    weights: np.ndarray
    certificate: float


def fit(z: np.ndarray, labels: np.ndarray) -> Pool:
    """Fit the weights by log loss on labels int64 (N,)."""
    return Pool(*pool_weights(z, labels))


def apply(learned: Pool, z: np.ndarray) -> np.ndarray:
    """Blended probabilities, float64 (N, C), rows sum to 1."""
    return pooled(learned.weights, z)


def load(params: Mapping[str, Any], members: int, classes: int) -> Pool:
    """Raises ValueError that names what is not as `fit` makes it."""
    certificate = saved.number(params, "certificate")
    return Pool(saved.array(params, "weights", (members,)), certificate)


def describe(learned: Pool, metric: str) -> list[str]:
    return [f"weights certified within {learned.certificate:.1g} nats of the least log loss"]


def pooled(weights: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Softmax of sum_m weights[m] z[m], float64 (N, C), rows sum to 1."""
    _, rows, classes = z.shape
    out = np.empty((rows, classes))
    for part in chunks(rows, classes):
        out[part] = softmax(weighted_sum(weights, z[:, part]).astype(np.float64))
    return out


def inverse_temperature(z: np.ndarray, labels: np.ndarray, start: float | None = None) -> float:
    """1 / T, between 1e-3 and 1e3, that minimises the log loss of softmax(z / T), for one member's z float32 (N, C).

    start: a guess, to save time. A member whose rows are all constant keeps T = 1.
    """
    near = None if start is None else np.array([start])
    # One number fitted on n rows costs about 1 / 2n nats of log loss on new ones: 20,000 rows are enough for .00003.
    step = max(1, len(labels) // max(20_000, FEW // z.shape[1]))
    z, labels = z[::step], labels[::step]
    return float(pool_weights(z[None], labels, LOWEST, near)[0][0])


def at_best_temperature(z: np.ndarray, labels: np.ndarray, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Probabilities of the rows `test` at the temperature that fits the rows `train`, of logits z (N, C), for
    `cross_fit`."""
    return softmax(z[test] * inverse_temperature(z[train], labels[train]))


def pool_weights(
    z: np.ndarray, labels: np.ndarray, lowest: float = 0.0, start: np.ndarray | None = None
) -> tuple[np.ndarray, float]:
    """Weights float64 (M,) between `lowest` and 1e3 that minimise the log loss, and the bound of `Pool`.

    Projected Newton (Bertsekas, SIAM J. Control and Optimization 1982) from `start` (the plain mean). The targets hold
    one row's weight of a uniform label (Platt's smoothing, 1999), so that members without a mistake get finite
    weights; the bound is on that loss.
    """
    members, rows, _ = z.shape
    smooth = 1 / (rows + 1)
    w, step = np.full(members, 1 / members) if start is None else start, z.size // FEW
    if step > 1 and start is None:  # the optimum of a few rows is so near that one or two steps on all of them remain
        w, _ = _newton(z[:, ::step], labels[::step], w, smooth, lowest)
    return _newton(z, labels, w, smooth, lowest)


def weighted_sum(weights: np.ndarray, z: np.ndarray) -> np.ndarray:
    """sum_m weights[m] z[m], in z's float type, (N, C)."""
    members, rows, classes = z.shape
    if members == 1:  # a product with one row takes a path that is ten times slower
        return np.asarray(z[0] * weights.astype(z.dtype)[0])
    return np.asarray(weights.astype(z.dtype) @ z.reshape(members, -1)).reshape(rows, classes)


def centred(z: np.ndarray) -> np.ndarray:
    """A copy whose rows have mean 0 over the classes, which a softmax does not see."""
    return np.asarray(z - row_sums(z)[..., None] / np.float32(z.shape[-1]))


def derivatives(
    z: np.ndarray, labels: np.ndarray, w: np.ndarray, smooth: float
) -> tuple[float, np.ndarray, np.ndarray]:
    """Mean log loss of softmax(sum_m w_m z_m), its gradient (M,) and its Hessian (M, M), by w.

    Sums over the classes are in float32, sums over the rows in float64: the gradient is good to about 1e-8.
    """
    members, rows, classes = z.shape
    loss, slope, curvature = 0.0, np.zeros(members), np.zeros((members, members))
    for part in chunks(rows, members * classes):
        true, logits = labels[part], centred(z[:, part])  # centred, smoothed targets become a factor of the slope
        found, p = loss_and_softmax(weighted_sum(w, logits), true, smooth)
        _, mean, bend = tilt(logits, p)
        loss += found
        slope += mean.sum(axis=1, dtype=np.float64)
        slope -= (1 - smooth) * logits[:, np.arange(len(true)), true].sum(axis=1, dtype=np.float64)
        curvature += bend
    return loss / rows, slope / rows, curvature / rows


def loss_and_softmax(scores: np.ndarray, labels: np.ndarray, smooth: float = 0.0) -> tuple[float, np.ndarray]:
    """Log loss, summed over the rows, of scores float32 (N, C), and their softmax, which takes their place.

    smooth: the uniform label's part in each target.
    """
    scores -= over_classes(np.maximum, scores)
    loss = -(1 - smooth) * float(scores[np.arange(len(labels)), labels].sum(dtype=np.float64))
    if smooth:
        loss -= smooth * float(row_sums(scores).sum(dtype=np.float64)) / scores.shape[1]
    p = np.exp(scores, out=scores)
    total = row_sums(p)
    p /= total[:, None]
    return loss + float(np.log(total).sum(dtype=np.float64)), p


def tilt(logits: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of logits (M, N, C) and probabilities (N, C): p z (M, N, C), its sums over the classes (M, N), and the sum over
    the rows of the members' covariances under p (M, M), the Hessian by the weights of the loss of sum_m w_m z_m."""
    members = len(logits)
    tilted = logits * p
    mean = row_sums(tilted)
    return tilted, mean, tilted.reshape(members, -1) @ logits.reshape(members, -1).T - mean @ mean.T


def _newton(z: np.ndarray, labels: np.ndarray, w: np.ndarray, smooth: float, lowest: float) -> tuple[np.ndarray, float]:
    loss, slope, curvature = derivatives(z, labels, w, smooth)
    gap = optimality_gap(w, slope, lowest)
    for _ in range(100):
        free = (w > lowest) | (slope < 0)
        ridge = 1e-7 * np.trace(curvature) / len(w) + 1e-12  # identical members: of all optima, the even one
        step = np.zeros(len(w))
        of_free = curvature[np.ix_(free, free)] + ridge * np.eye(int(free.sum()))
        step[free] = -np.linalg.solve(of_free, slope[free])
        new, size = np.clip(w + step, lowest, HIGHEST), 1.0
        trial = derivatives(z, labels, new, smooth) if gap > ENOUGH else None
        while trial is not None and trial[0] > loss + 1e-4 * float(slope @ (new - w)) + 1e-7 * abs(loss):
            size /= 2
            new = np.clip(w + size * step, lowest, HIGHEST)
            trial = derivatives(z, labels, new, smooth) if size > 1e-6 else None
        if trial is None:
            break
        last, found = gap, optimality_gap(new, trial[1], lowest)
        if last < 1e-5 and found > last / 2:  # near the optimum a step squares the gap: float32 has no more to give
            break
        w, (loss, slope, curvature), gap = new, trial, found
    return w, gap


def optimality_gap(w: np.ndarray, slope: np.ndarray, lowest: float = 0.0) -> float:
    """By convexity an upper bound, in nats, on how far w's loss is above that of any v >= lowest with sum(v) at most
    REACH * sum(w): the most that slope @ (w - v) can be. No multiple of a sum of 0 reaches other weights: infinite
    there, unless 0 is the optimum."""
    if not w.any():
        return float("inf") if slope.min() < 0 else 0.0
    spare = REACH * float(w.sum()) - lowest * len(w)
    return max(0.0, float(slope @ (w - lowest)) + spare * max(0.0, -float(slope.min())))


METHOD = Method(
    name="pool",
    fit=lambda training: fit(training.z, training.labels),
    apply=apply,
    load=load,
    describe=describe,
    weights_of=lambda learned, members: member_weights(learned.weights),
    reading="Weights multiply the members' logits; they are 0 or more.",
    sparse=True,
    scaled=True,
)

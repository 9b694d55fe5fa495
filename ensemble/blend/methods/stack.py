"""Stacking: L2-regularised multinomial regression on the members' logits, drawn towards their plain mean.

Wolpert, "Stacked Generalization" (Neural Networks, 1992). Score of class c = sum_m (W_m z_m)_c + b_c on logits that
are centred over the classes. Few parameters first:

    pool    W_m = a_m I         M weights      + C biases, drawn towards the plain mean
    full    W_m any matrix      M x C x C      + C biases, drawn towards the pool

The penalty is on the distance from the simpler fit, so that with infinite strength `pool` is the plain mean of logits
at its best temperature, not a uniform guess, and many classes with few rows lose nothing. Where members' scales differ
so much that it pays, that mean is one of members each at its own temperature ("calibrated"). Drawn towards the pool,
`full` needs fewer rows than from the mean: on 12 synthetic members x 20,000 rows x 18 classes that confuse classes
(3,888 weights), fresh log loss .392, from the plain mean .406, the pool alone .446. It is not the best there:
scikit-learn's LogisticRegression on the log-probabilities, drawn towards no weights at all, reaches .383 at C = 3e-4,
and .407 and .396 at 1e-4 and 1e-3 (100 iterations; each C scored on the fresh rows).

Family and strength are chosen by inner cross-validated log loss: the simplest within one standard error (of the
paired difference, over groups where there are groups) of the best, where simple means the plain mean first, then the
calibrated one, then `pool`, then `full`, each with a greater strength first.
`z` is float32 (M, N, C).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ensemble.blend.methods.pool import centred, inverse_temperature, loss_and_softmax, tilt, weighted_sum
from ensemble.blend.probabilities import chunks, softmax
from ensemble.scoring.cross_fit import simplest, usable_folds
from ensemble.scoring.row_values import row_losses

CENTRES = ("mean", "calibrated")
FAMILIES = ("pool", "full")
STRENGTHS = {"pool": (1.0, 1e-1, 1e-2, 1e-3, 1e-4), "full": (1e-1, 3e-2, 1e-2, 3e-3, 1e-3)}
CHOICE = 5_000_000  # numbers: of larger logits, a random part so large chooses family and strength
NEWTON = 1000  # parameters of the pool: up to so many, Newton; above L-BFGS, which `full` always has
FULL = 200_000_000  # rows x M x C x C: beyond, `full` is not tried: 1,000,000 x 10 x 10 took over two minutes

Fit = tuple[np.ndarray, np.ndarray]  # weights and bias


@dataclass(frozen=True)
class Tried:
    """One candidate: a family at a strength (infinite for a plain mean), its held-out losses (N,), its fit by fold."""

    family: str
    strength: float
    held: np.ndarray
    fits: list[Fit]


def fit(z: np.ndarray, labels: np.ndarray, folds: np.ndarray, units: np.ndarray) -> dict[str, Any]:
    """Choose family and strength by inner cross-validation over `folds` and refit on all rows.

    labels, folds, units: int64 (N,); rows of one unit (group) must stand in one fold. With fewer than two units the
    answer is the plain mean.

    Returns weights float64 (M,) or (M, C, C) by the family, bias float64 (C,), family ("mean" or "calibrated" where
    nothing more pays), centre (one of those two), strengths ({family: strength} of the chosen family and of the pool
    that `full` is drawn towards), and inner_log_loss, the chosen one's on held-out rows.
    """
    members, rows, classes = z.shape
    families = FAMILIES if rows * members * classes**2 <= FULL else ("pool",)
    kept = some_units(units, CHOICE // (members * classes))
    some, right = (z, labels) if len(kept) == rows else (z[:, kept], labels[kept])
    chain = choose(some, right, folds[kept], units[kept], families)
    whole = len(chain) == 1  # the mean is the answer, so all rows have a part in it
    weights = mean_weights(z if whole else some, labels if whole else right, chain[0].family)
    bias = np.zeros(classes)
    for step in chain[1:]:
        fitted = solve(step.family, step.strength, some, right, (weights, bias))
        if some is not z:  # the loss is a mean over rows, the penalty is not
            fitted = solve(step.family, step.strength * len(kept) / rows, z, labels, (weights, bias), fitted)
        weights, bias = fitted
    return {
        "weights": weights,
        "bias": bias,
        "family": chain[-1].family,
        "centre": chain[0].family,
        "strengths": {step.family: step.strength for step in chain[1:]},
        "inner_log_loss": float(chain[-1].held.mean()),
    }


def apply(params: dict[str, Any], z: np.ndarray) -> np.ndarray:
    """Blended probabilities, float64 (N, C), rows sum to 1."""
    members, rows, classes = z.shape
    weights = params["weights"]
    out = np.empty((rows, classes))
    for part in chunks(rows, members * classes):
        own = centred(z[:, part])
        if weights.ndim == 3:
            own = side_by_side(own)
        out[part] = softmax((_forward(weights, own) + params["bias"]).astype(np.float64))
    return out


def side_by_side(z: np.ndarray) -> np.ndarray:
    """(M, N, C) as (1, N, M x C), all members' logits of a row together: one matrix product and not M small ones."""
    return np.ascontiguousarray(z.transpose(1, 0, 2)).reshape(1, z.shape[1], -1)


def some_units(units: np.ndarray, rows: int) -> np.ndarray:
    """Row numbers of about `rows` rows, whole units drawn at random (the same ones every time); all if no more."""
    if len(units) <= rows:
        return np.arange(len(units))
    names, where = np.unique(units, return_inverse=True)
    return np.flatnonzero(np.random.default_rng(0).permutation(len(names))[where] < len(names) * rows / len(units))


def choose(
    z: np.ndarray, labels: np.ndarray, folds: np.ndarray, units: np.ndarray, families: Sequence[str]
) -> list[Tried]:
    """The simplest candidate within one standard error of the best, last, after those that it is drawn towards."""
    folds = usable_folds(folds, units)
    parts = [(np.flatnonzero(folds != f), np.flatnonzero(folds == f)) for f in np.unique(folds)]
    if len(parts) < 2:
        return [Tried("mean", np.inf, np.full(len(labels), np.nan), [])]
    whole = {kind: mean_weights(z, labels, kind) for kind in CENTRES}  # from which each fold's are a step away
    tried: list[Tried] = []
    for kind in CENTRES:
        means = [mean_weights(z[:, train], labels[train], kind, whole[kind]) for train, _ in parts]
        tried.append(_held(kind, np.inf, [(own, np.zeros(z.shape[2])) for own in means], z, labels, parts))
    chain = [_simplest(tried, units)]
    for family in families:
        around, path = chain[-1].fits, [chain[-1]]
        fits: list[Fit | None] = [None] * len(parts)
        for strength in STRENGTHS[family]:
            fits = [
                solve(family, strength, z[:, train], labels[train], centre, start)
                for (train, _), centre, start in zip(parts, around, fits, strict=True)
            ]
            path.append(_held(family, strength, fits, z, labels, parts))
            worse = path[-1].held.mean() >= path[-2].held.mean()
            if worse or (len(path) > 2 and _simplest(path[-2:], units) is path[-2]):  # so will weaker ones be
                break
        best = _simplest(path, units)
        if best is not chain[-1]:
            chain.append(best)
    return chain


def mean_weights(z: np.ndarray, labels: np.ndarray, kind: str, start: np.ndarray | None = None) -> np.ndarray:
    """Weights (M,) of the members' mean at its best temperature; "calibrated": of members at their own temperatures.

    start: weights of the same kind, from other rows, to save time.
    """
    near: Any = [None] * len(z) if start is None else start * len(z)
    inverse = np.ones(len(z))
    if kind == "calibrated":
        inverse = np.array([inverse_temperature(member, labels, b) for member, b in zip(z, near, strict=True)])
    pooled = np.empty(z.shape[1:], dtype=np.float32)
    for part in chunks(z.shape[1], z.shape[2]):
        pooled[part] = weighted_sum(inverse / len(z), z[:, part])
    return inverse / len(z) * inverse_temperature(pooled, labels, near[0] if kind == "mean" else None)


def spread(z: np.ndarray) -> np.ndarray:
    """Root mean square (M,) of each member's centred logits, at least 1e-6."""
    members, rows, classes = z.shape
    total = np.zeros(members)
    for part in chunks(rows, members * classes):
        own = centred(z[:, part]).reshape(members, -1)
        total += np.einsum("mi,mi->m", own, own)
    return np.asarray(np.maximum(np.sqrt(total / (rows * classes)), 1e-6))


def solve(
    family: str, strength: float, z: np.ndarray, labels: np.ndarray, around: Fit, start: Fit | None = None
) -> Fit:
    """Minimise mean log loss + strength / 2 * (squared distance from `around`), a convex problem.

    around: weights (M,) and bias (C,) to which the penalty draws. A weight's distance is measured in the root mean
    square of its member's logits, so that a member's scale does not matter. start: a solution nearby, to save time.
    Returns weights float64 (M,) or (M, C, C) and bias float64 (C,).
    """
    classes = z.shape[2]
    weights, bias = around
    scale = spread(z)
    if family == "full":
        weights = weights[:, None, None] * np.eye(classes)
        scale = scale[:, None, None] * np.ones((classes, classes))
    centre = np.append(weights, bias)
    units = np.append(1 / scale, np.ones(classes))  # of the parameters, in those of x

    def fitted(x: np.ndarray) -> Fit:
        own = centre + x * units
        return own[:-classes].reshape(weights.shape), own[-classes:]

    def value(x: np.ndarray) -> tuple[float, np.ndarray]:
        loss, slope, _ = _derivatives(*fitted(x), z, labels, False)
        return loss + strength / 2 * float(x @ x), slope * units + strength * x

    def curved(x: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        loss, slope, curvature = _derivatives(*fitted(x), z, labels, True)
        curvature = curvature * units[:, None] * units + strength * np.eye(len(units))
        return loss + strength / 2 * float(x @ x), slope * units + strength * x, curvature

    x: Any = np.zeros(len(centre)) if start is None else (np.append(*start) - centre) / units
    if family == "pool" and len(x) <= NEWTON:
        return fitted(_newton(curved, x))
    from scipy.optimize import minimize

    options: Any = {"maxiter": 200, "ftol": 1e-7, "gtol": 1e-5}
    return fitted(minimize(value, x, jac=True, method="L-BFGS-B", options=options).x)


def _newton(curved: Callable[[np.ndarray], tuple[float, np.ndarray, np.ndarray]], x: np.ndarray) -> np.ndarray:
    loss, slope, curvature = curved(x)
    for _ in range(50):
        step = -np.linalg.solve(curvature, slope)
        expected = -float(slope @ step)
        if expected <= 1e-6:  # nats: far less than the rows can tell apart
            break
        size = 1.0
        while (trial := curved(x + size * step))[0] > loss - 1e-4 * size * expected and size > 1e-4:
            size /= 2
        x = x + size * step
        loss, slope, curvature = trial
    return x


def _derivatives(
    weights: np.ndarray, bias: np.ndarray, z: np.ndarray, labels: np.ndarray, curved: bool
) -> tuple[float, np.ndarray, np.ndarray]:
    """Mean log loss, its gradient by (weights, bias), flat, and if `curved` its Hessian, else an empty one."""
    members, rows, classes = z.shape
    size = weights.size + classes
    loss, slope, curvature = 0.0, np.zeros(size), np.zeros((size, size) if curved else (0, 0))
    for part in chunks(rows, members * classes):
        own, logits = labels[part], centred(z[:, part])
        if weights.ndim == 3:
            logits = side_by_side(logits)
        found, p = loss_and_softmax(_forward(weights, logits) + bias.astype(np.float32), own)
        loss += found
        if curved:
            curvature += _curvature(logits, p)
        p[np.arange(len(own)), own] -= 1
        slope += np.append(_backward(p, logits, weights.ndim), p.sum(axis=0, dtype=np.float64))
    return loss / rows, slope / rows, curvature / rows


def _curvature(z: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Sum over the rows of the pool's Hessian by (weights, bias): J' (diag(p) - p p') J, J the scores' derivatives."""
    tilted, mean, inner = tilt(z, p)
    cross = tilted.sum(axis=1) - mean @ p
    of_bias = np.diag(p.sum(axis=0, dtype=np.float64)) - p.T @ p
    return np.asarray(np.block([[inner, cross], [cross.T, of_bias]]), dtype=np.float64)


def _forward(weights: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Scores float32 (N, C) without the bias, of z (M, N, C), or (1, N, M x C) where the weights are (M, C, C)."""
    w = weights.astype(np.float32)
    if w.ndim == 1:
        return weighted_sum(w, z)
    return np.asarray(z[0] @ w.transpose(0, 2, 1).reshape(-1, w.shape[1]))


def _backward(residual: np.ndarray, z: np.ndarray, ndim: int) -> np.ndarray:
    """Gradient of the loss by the weights, flat float64, from its gradient by the scores, (N, C); z as `_forward`."""
    if ndim == 1:
        return np.asarray(z.reshape(len(z), -1) @ residual.ravel(), dtype=np.float64)
    classes = residual.shape[1]
    by_class = (residual.T @ z[0]).reshape(classes, -1, classes)
    return np.asarray(by_class.transpose(1, 0, 2).ravel(), dtype=np.float64)


def _held(
    family: str,
    strength: float,
    fits: Sequence[Fit | None],
    z: np.ndarray,
    labels: np.ndarray,
    parts: Sequence[tuple[np.ndarray, np.ndarray]],
) -> Tried:
    held, found = np.empty(len(labels)), [own for own in fits if own is not None]
    for (weights, bias), (_, test) in zip(found, parts, strict=True):
        held[test] = row_losses(labels[test], apply({"weights": weights, "bias": bias}, z[:, test]))
    return Tried(family, strength, held, found)


def _simplest(tried: Sequence[Tried], units: np.ndarray) -> Tried:
    return tried[simplest([candidate.held for candidate in tried], units)]

"""The multinomial regression of `stack.py`: one convex fit, drawn towards a simpler one. `z` is float32 (M, N, C)."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ensemble.blend.methods.pool import centred, loss_and_softmax, tilt, weighted_sum
from ensemble.blend.probabilities import chunks, softmax

NEWTON = 1000  # parameters of the pool: up to so many, Newton; above L-BFGS, which `full` always has

Fit = tuple[np.ndarray, np.ndarray]  # weights and bias


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
        parameters = centre + x * units
        return parameters[:-classes].reshape(weights.shape), parameters[-classes:]

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


def stacked(weights: np.ndarray, bias: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Probabilities float64 (N, C), rows sum to 1, by weights (M,) or (M, C, C) and bias (C,)."""
    members, rows, classes = z.shape
    out = np.empty((rows, classes))
    for part in chunks(rows, members * classes):
        logits = centred(z[:, part])
        if weights.ndim == 3:
            logits = side_by_side(logits)
        out[part] = softmax((_forward(weights, logits) + bias).astype(np.float64))
    return out


def side_by_side(z: np.ndarray) -> np.ndarray:
    """(M, N, C) as (1, N, M x C), all members' logits of a row together: one matrix product and not M small ones."""
    return np.ascontiguousarray(z.transpose(1, 0, 2)).reshape(1, z.shape[1], -1)


def spread(z: np.ndarray) -> np.ndarray:
    """Root mean square (M,) of each member's centred logits, at least 1e-6."""
    members, rows, classes = z.shape
    total = np.zeros(members)
    for part in chunks(rows, members * classes):
        logits = centred(z[:, part]).reshape(members, -1)
        total += np.einsum("mi,mi->m", logits, logits)
    return np.asarray(np.maximum(np.sqrt(total / (rows * classes)), 1e-6))


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
        true, logits = labels[part], centred(z[:, part])
        if weights.ndim == 3:
            logits = side_by_side(logits)
        found, p = loss_and_softmax(_forward(weights, logits) + bias.astype(np.float32), true)
        loss += found
        if curved:
            curvature += _curvature(logits, p)
        p[np.arange(len(true)), true] -= 1
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

"""Stacking: L2-regularised multinomial regression on the members' logits, drawn towards their plain mean.

Wolpert, "Stacked Generalization" (Neural Networks, 1992). Score of class c = sum_m (W_m z_m)_c + b_c on logits that
are centred over the classes. The penalty is on the distance from W_m = (beta / M) I, b = 0, the plain mean of logits
at its best temperature: with infinite strength this is the plain mean, not a uniform guess, so that many classes and
few rows lose nothing. Where members' scales differ so much that it pays, that centre is the mean of the members each
at its own temperature ("calibrated"). Three families, each holding the one before:

    pool    W_m = a_m I         M weights      + C biases
    class   W_m = diag(a_m)     M x C          + C
    full    W_m any matrix      M x C x C      + C   (tried only where a smaller family beats the plain mean, and with
                                                      at least 10 rows a weight)

Family and strength are chosen by inner cross-validated log loss: the simplest within one standard error (of the
paired difference, over groups where there are groups) of the best, where simple means the plain mean first, then the
calibrated one, then a smaller family, then a greater strength.
`z` is float32 (M, N, C).
"""

from typing import Any

import numpy as np

from ensemble.blend.metrics import FLOOR
from ensemble.blend.probabilities import log_softmax, softmax
from ensemble.blend.score import usable_folds
from ensemble.blend.vote import inverse_temperature

CENTRES = ("mean", "calibrated")
FAMILIES = ("pool", "class", "full")
STRENGTHS = (1.0, 1e-1, 1e-2, 1e-3, 1e-4)
ROWS_PER_WEIGHT = 10


def fit(
    z: np.ndarray,
    labels: np.ndarray,
    folds: np.ndarray,
    units: np.ndarray,
    families: tuple[str, ...] = FAMILIES,
    strengths: tuple[float, ...] = STRENGTHS,
) -> dict[str, Any]:
    """Choose family and strength by inner cross-validation over `folds` and refit on all rows.

    labels, folds, units: int64 (N,); rows of one unit (group) must stand in one fold. With fewer than two units the
    answer is the plain mean.

    Returns weights float64 (M,), (M, C) or (M, C, C) by the family, bias float64 (C,), family ("mean" or "calibrated"
    where nothing more pays), centre (one of those two), strength (only where there is a family), and inner_log_loss,
    the chosen one's on held-out rows.
    """
    z = centred(z)
    folds = usable_folds(folds, units)
    parts = [(np.flatnonzero(folds != f), np.flatnonzero(folds == f)) for f in np.unique(folds)]
    no_bias = np.zeros(z.shape[2])
    if len(parts) < 2:
        return {"weights": mean_weights(z, labels, "mean"), "bias": no_bias, "family": "mean", "centre": "mean"}
    centres, tried = {}, []
    for kind in CENTRES:
        centres[kind] = [mean_weights(z[:, train], labels[train], kind) for train, _ in parts]
        held = np.empty(len(labels))
        for (_, test), weights in zip(parts, centres[kind], strict=True):
            held[test] = _losses(weights, no_bias, z[:, test], labels[test])
        tried.append((kind, np.inf, held))
    chosen = simplest(tried, units)
    centre = chosen[0]
    for family in families:
        if family == "full" and (chosen[0] in CENTRES or ROWS_PER_WEIGHT * len(z) * z.shape[2] ** 2 > len(labels)):
            break  # it costs C times the others
        tried += _path(family, strengths, z, labels, parts, centres[centre], units)
        chosen = simplest(tried, units)
    family, strength, held = chosen
    around = mean_weights(z, labels, family if family in CENTRES else centre)
    found: dict[str, Any] = {"family": family, "centre": centre, "inner_log_loss": float(held.mean())}
    if family in CENTRES:
        return {"weights": around, "bias": no_bias} | found
    weights, bias, _ = solve(family, strength, z, labels, around)
    return {"weights": weights, "bias": bias, "strength": strength} | found


def apply(params: dict[str, Any], z: np.ndarray) -> np.ndarray:
    """Blended probabilities, float64 (N, C), rows sum to 1."""
    return softmax(_forward(params["weights"], centred(z)) + params["bias"])


def centred(z: np.ndarray) -> np.ndarray:
    """A copy whose rows have mean 0 over the classes: a softmax does not see that mean, but a weight would."""
    return np.asarray(z - z.mean(axis=-1, keepdims=True))


def simplest(tried: list[tuple[str, float, np.ndarray]], units: np.ndarray) -> tuple[str, float, np.ndarray]:
    """The first (tried is in order of growing freedom) within one standard error of the least mean loss.

    Breiman et al., "Classification and Regression Trees" (1984), with the error of the paired difference.
    """
    best = min(tried, key=lambda t: float(t[2].mean()))[2]
    for candidate in tried:
        difference = candidate[2] - best
        if difference.mean() <= standard_error(difference, units):
            return candidate
    raise AssertionError("the best is within one standard error of itself")


def standard_error(values: np.ndarray, units: np.ndarray) -> float:
    """Standard error of the mean of values (N,), whose units (groups of rows) are independent of each other."""
    sums = np.bincount(np.unique(units, return_inverse=True)[1], values - values.mean())
    return float(np.sqrt((sums**2).sum()) / len(values))


def solve(
    family: str,
    strength: float,
    z: np.ndarray,
    labels: np.ndarray,
    around: np.ndarray,
    start: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Minimise mean log loss + strength / 2 * (squared distance from `around`) on centred z.

    around: (M,), the weights to which the penalty draws, from `mean_weights`.
    A weight's distance is measured in the root mean square of its member's logits, so that a member's scale does not
    matter. Convex; exact gradient, L-BFGS. Returns weights float64 (as `fit`), bias float64 (C,), and the solution
    itself, from which a weaker strength on the same rows may `start`.
    """
    from scipy.optimize import minimize

    members, rows, classes = z.shape
    shape = {"pool": (members,), "class": (members, classes), "full": (members, classes, classes)}[family]
    spread = np.sqrt(np.einsum("mnc,mnc->m", z, z, dtype=np.float64) / (rows * classes))
    scale = np.maximum(spread, 1e-6).reshape((members,) + (1,) * (len(shape) - 1))
    centre = around.reshape(scale.shape) * (np.eye(classes) if family == "full" else np.ones(shape[1:]))
    own = (np.arange(rows), labels)

    def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
        offsets, bias = x[:-classes].reshape(shape), x[-classes:]
        log_p = log_softmax(_forward(centre + offsets / scale, z) + bias)
        loss = -float(log_p[own].mean())
        residual = np.exp(log_p, out=log_p)
        residual[own] -= 1
        residual /= rows
        slope = np.concatenate([(_backward(residual, z, family) / scale).ravel(), residual.sum(axis=0)])
        return loss + strength / 2 * float(x @ x), slope + strength * x

    x0: Any = np.zeros(int(np.prod(shape)) + classes) if start is None else start
    found = minimize(objective, x0, jac=True, method="L-BFGS-B", options={"maxiter": 200, "ftol": 1e-9, "gtol": 1e-5})
    x = np.asarray(found.x, dtype=np.float64)
    return centre + x[:-classes].reshape(shape) / scale, x[-classes:], x


def _forward(weights: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Scores float64 (N, C) without the bias; the shape of the weights says which family."""
    members, rows, classes = z.shape
    w = weights.astype(np.float32)
    if w.ndim == 1:
        return np.asarray(w @ z.reshape(members, -1), dtype=np.float64).reshape(rows, classes)
    out = np.zeros((rows, classes), dtype=np.float32)
    for member, own in zip(z, w, strict=True):
        out += member * own if w.ndim == 2 else member @ own.T
    return out.astype(np.float64)


def _backward(residual: np.ndarray, z: np.ndarray, family: str) -> np.ndarray:
    """Gradient of the loss by the family's weights, from its gradient by the scores, (N, C)."""
    r = residual.astype(np.float32)
    if family == "pool":
        return np.asarray(z.reshape(len(z), -1) @ r.ravel(), dtype=np.float64)
    if family == "class":
        return np.stack([np.einsum("nc,nc->c", member, r) for member in z]).astype(np.float64)
    return np.stack([r.T @ member for member in z]).astype(np.float64)


def mean_weights(z: np.ndarray, labels: np.ndarray, kind: str) -> np.ndarray:
    """Weights (M,) of the members' mean at its best temperature; "calibrated": of members at their own temperatures."""
    inverse = np.array([inverse_temperature(member, labels) if kind == "calibrated" else 1.0 for member in z])
    inverse /= len(z)
    return inverse * inverse_temperature(_forward(inverse, z).astype(np.float32), labels)


def _losses(weights: np.ndarray, bias: np.ndarray, z: np.ndarray, labels: np.ndarray) -> np.ndarray:
    log_p = log_softmax(_forward(weights, z) + bias)[np.arange(len(labels)), labels]
    return np.asarray(-np.maximum(log_p, np.log(FLOOR)))


def _path(
    family: str,
    strengths: tuple[float, ...],
    z: np.ndarray,
    labels: np.ndarray,
    parts: list[tuple[np.ndarray, np.ndarray]],
    centres: list[np.ndarray],
    units: np.ndarray,
) -> list[tuple[str, float, np.ndarray]]:
    """Held-out losses (N,) of one family at falling strengths, until they are clearly past their best."""
    out: list[tuple[str, float, np.ndarray]] = []
    starts: list[np.ndarray | None] = [None] * len(parts)
    for strength in strengths:
        held = np.empty(len(labels))
        for i, (train, test) in enumerate(parts):
            weights, bias, starts[i] = solve(family, strength, z[:, train], labels[train], centres[i], starts[i])
            held[test] = _losses(weights, bias, z[:, test], labels[test])
        out.append((family, strength, held))
        past = held - min((losses for _, _, losses in out), key=lambda losses: float(losses.mean()))
        if past.mean() > 2 * standard_error(past, units):
            break
    return out

"""What may follow a blend's temperature: a factor and a bias for each class, or a matrix, on its log-probabilities.

Vector scaling: softmax(w * log p + b), with w and b (C,), drawn towards the blend as it is (w = 1, b = 0); Guo et al.,
"On Calibration of Modern Neural Networks" (ICML 2017), who fit it without a penalty. Dirichlet calibration:
softmax(W log p + b), with a penalty on what lies off W's diagonal and on b (ODIR); Kull et al., "Beyond Temperature
Scaling" (NeurIPS 2019).

Both learn from probabilities of rows that the blend was not fitted on, never from those of its own rows, which are too
sure of themselves. The strength of the penalty is chosen by cross-validation over the same folds, and "auto" takes the
simplest within one standard error of the best. (In that choice the blend of one fold has seen the labels of another, as
in any stack; the blend's score has not: `crossfit.held_out` leaves its fold out of all of this.)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ensemble.blend import params as saved
from ensemble.blend.methods.stack import some_clusters
from ensemble.blend.probabilities import log_softmax, softmax
from ensemble.errors import UserError
from ensemble.scoring.cross_fit import simplest, usable_folds
from ensemble.scoring.row_values import row_losses

KINDS = ("temperature", "vector", "dirichlet", "auto")  # what `ens blend --calibration` takes
FAMILIES = ("vector", "dirichlet")  # from simple to free
STRENGTHS = (1.0, 1e-1, 1e-2, 1e-3, 1e-4)  # of the penalty, in nats per square
MOST_NUMBERS = 2_000_000  # of larger log-probabilities a random part of the rows is enough, 20,000 at least
MOST_WORK = 200_000_000  # rows x C x C: beyond, there is no Dirichlet calibration
LEAST = 1e-30  # probabilities below count as this


@dataclass(frozen=True)
class Scaling:
    """What is learned, on log-probabilities (N, C).

    scaling_family: one of FAMILIES, or "none" where nothing paid.
    scaling_weights: float64 (C,), or (C, C) of the family "dirichlet"; None of "none".
    scaling_bias: float64 (C,); None of "none".
    scaling_strength: of the penalty; None of "none".
    scaling_untried: the family that "auto" left out since it would take too long; None where it tried all.
    """

    scaling_family: str
    scaling_weights: np.ndarray | None = None
    scaling_bias: np.ndarray | None = None
    scaling_strength: float | None = None
    scaling_untried: str | None = None


@dataclass(frozen=True)
class _Tried:
    """A family at its best strength, with the held-out losses of the rows, (N,)."""

    family: str
    strength: float
    held: np.ndarray


def require_kind(kind: str) -> None:
    """Raise UserError unless there is such a calibration."""
    if kind not in KINDS:
        raise UserError(f"calibration {kind!r} is not one of: {', '.join(KINDS)}")


def fit(
    log_probs: np.ndarray, labels: np.ndarray, folds: np.ndarray, clusters: np.ndarray, kind: str = "auto"
) -> Scaling:
    """The scaling of log-probabilities float (N, C) of rows that the blend was not fitted on.

    labels, folds, clusters: int64 (N,); clusters share a fold. kind: one of KINDS but "temperature". Raises UserError
    for "dirichlet" with so many rows and classes that it would take too long.
    """
    classes = log_probs.shape[1]
    kept = some_clusters(clusters, max(20_000, MOST_NUMBERS // classes))
    x, labels, clusters = log_probs[kept].astype(np.float64), labels[kept], clusters[kept]
    folds = usable_folds(folds[kept], clusters)
    is_large = len(x) * classes**2 > MOST_WORK
    if is_large and kind == "dirichlet":
        raise UserError(f"--calibration dirichlet would take too long with {classes:,} classes; take vector")
    families = FAMILIES[: 1 if is_large else None] if kind == "auto" else (kind,)
    untried = FAMILIES[1] if is_large and kind == "auto" else None
    if len(np.unique(folds)) < 2:
        return Scaling("none")
    tried = [_best(family, x, labels, folds) for family in families]
    if kind == "auto":
        plain = _Tried("none", np.inf, row_losses(labels, np.exp(x)))
        tried = [plain, *tried]
    chosen = tried[simplest([each.held for each in tried], clusters)]
    if chosen.family == "none":
        return Scaling("none", scaling_untried=untried)
    weights, bias = solve(chosen.family, chosen.strength, x, labels)
    return Scaling(chosen.family, weights, bias, chosen.strength, untried)


def apply(learned: Scaling, probs: np.ndarray) -> np.ndarray:
    """Probabilities float64 (N, C), rows sum to 1, of probabilities (N, C)."""
    weights, bias = learned.scaling_weights, learned.scaling_bias
    if weights is None or bias is None:
        return probs
    return softmax(_forward(weights, bias, np.log(np.maximum(probs, LEAST))))


def load(params: Mapping[str, Any], classes: int) -> Scaling | None:
    """None where a blend has none. Raises ValueError that names what is not as `fit` makes it."""
    if "scaling_family" not in params:
        return None
    family = saved.one_of(params, "scaling_family", ("none", *FAMILIES))
    untried = saved.one_of(params, "scaling_untried", FAMILIES) if "scaling_untried" in params else None
    if family == "none":
        return Scaling(family, scaling_untried=untried)
    shape = (classes, classes) if family == "dirichlet" else (classes,)
    return Scaling(
        scaling_family=family,
        scaling_weights=saved.array(params, "scaling_weights", shape),
        scaling_bias=saved.array(params, "scaling_bias", (classes,)),
        scaling_strength=saved.number(params, "scaling_strength"),
        scaling_untried=untried,
    )


def describe(learned: Scaling) -> str:
    """What was chosen, one line."""
    untried = "" if learned.scaling_untried is None else "; a Dirichlet map would take too long here and was not tried"
    if learned.scaling_family == "none":
        why = "no scaling paid on held-out folds, or the rows can't be divided into folds: there is none"
        return f"calibration: {why}{untried}"
    what = {
        "vector": "vector scaling, a factor and a bias for each class",
        "dirichlet": "a Dirichlet map, a matrix and a bias for each class",
    }[learned.scaling_family]
    strength = f"strength {learned.scaling_strength:g}"
    return f"calibration: {what} ({strength}), fitted on rows that the blend had not seen{untried}"


def solve(
    family: str,
    strength: float,
    x: np.ndarray,
    labels: np.ndarray,
    start: tuple[np.ndarray, np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Weights float64 (C,) or (C, C) and bias float64 (C,) that minimise mean log loss + strength / 2 * penalty.

    x: log-probabilities float64 (N, C). The penalty is the squared distance from weights of 1 and no bias; of the
    family "dirichlet" the squares of what is off the diagonal and of the bias, the diagonal being free. start: a
    solution nearby, to save time. The targets hold one row's weight of a uniform label (Platt's smoothing, 1999), as
    those of a temperature do: without it, classes that are never mistaken grew so sure that 1,437 digits lost 0.010
    nats by a Dirichlet map, and skewed draws of them 0.17.
    """
    from scipy.optimize import minimize

    rows, classes = x.shape
    every, smooth = np.arange(rows), 1 / (rows + 1)
    is_full = family == "dirichlet"
    shape = (classes, classes) if is_full else (classes,)
    centre, drawn = (np.eye(classes), 1 - np.eye(classes)) if is_full else (np.ones(classes), np.ones(classes))
    count = centre.size

    def value(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        weights, bias = parameters[:count].reshape(shape), parameters[count:]
        logs = log_softmax(_forward(weights, bias, x))
        away = drawn * (weights - centre)
        loss = -(1 - smooth) * float(logs[every, labels].mean()) - smooth * float(logs.mean())
        residual = np.exp(logs) - smooth / classes
        residual[every, labels] -= 1 - smooth
        residual /= rows
        slope = residual.T @ x if is_full else np.einsum("nc,nc->c", residual, x)
        penalty = strength / 2 * float((away**2).sum() + bias @ bias)
        of_bias = residual.sum(axis=0) + strength * bias
        return loss + penalty, np.append((slope + strength * away).ravel(), of_bias)

    first = np.append(centre.ravel(), np.zeros(classes)) if start is None else np.append(start[0].ravel(), start[1])
    options: Any = {"maxiter": 300, "ftol": 1e-10, "gtol": 1e-6}
    found = minimize(value, first, jac=True, method="L-BFGS-B", options=options).x
    return found[:count].reshape(shape), found[count:]


def _best(family: str, x: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> _Tried:
    """The strength of the least held-out log loss, from the strongest on, as long as weaker ones are better."""
    parts = [(np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)) for fold in np.unique(folds)]
    fits: Sequence[tuple[np.ndarray, np.ndarray] | None] = [None] * len(parts)
    best: _Tried | None = None
    for strength in STRENGTHS:
        found = [
            solve(family, strength, x[train], labels[train], start)
            for (train, _), start in zip(parts, fits, strict=True)
        ]
        held = np.empty(len(x))
        for (weights, bias), (_, test) in zip(found, parts, strict=True):
            held[test] = row_losses(labels[test], softmax(_forward(weights, bias, x[test])))
        if best is not None and held.mean() >= best.held.mean():
            break
        best, fits = _Tried(family, strength, held), found
    assert best is not None
    return best


def _forward(weights: np.ndarray, bias: np.ndarray, x: np.ndarray) -> np.ndarray:
    return np.asarray((x @ weights.T if weights.ndim == 2 else x * weights) + bias)

"""The blending methods by name: one place that says what each is fitted on and what a metric does to it.

What `metric` means: `mean` has nothing to fit and ignores it. `greedy` selects members by it. `vote` and `stack` are
fitted (and stack's strength chosen) by log loss, a proper score, whatever the metric; directed at accuracy or macro F1
they then get one bias a class for it (see `directed.py`), which the result names and which moves probabilities away
from calibrated ones.
"""

from typing import Any

import numpy as np

from ensemble.blend import directed, greedy, stack, vote
from ensemble.blend.metrics import require_target
from ensemble.blend.probabilities import geometric_mean
from ensemble.blend.score import usable_folds
from ensemble.errors import UserError

METHODS = ("mean", "vote", "greedy", "stack")


def require_method(method: str) -> None:
    """Raise UserError unless there is such a method."""
    if method not in METHODS:
        raise UserError(f"blend method {method!r} is not one of: {', '.join(METHODS)}")


def fit(
    method: str, metric: str, z: np.ndarray, labels: np.ndarray, folds: np.ndarray, units: np.ndarray
) -> dict[str, Any]:
    """Params of `method` directed at `metric`, from z float32 (M, N, C) and labels, folds, units int64 (N,).

    Arrays, numbers and strings by name; what `apply` takes. Raises UserError for an unknown method or metric.
    """
    require_method(method)
    require_target(metric)
    if method == "mean":
        return {}
    if method == "greedy":
        return greedy.fit(z, labels, metric)
    params = vote.fit(z, labels) if method == "vote" else stack.fit(z, labels, folds, units)
    if metric != "log_loss":
        log_probs = np.log(np.maximum(apply(method, params, z), 1e-30))
        bias, family = directed.fit(log_probs, labels, usable_folds(folds, units), metric)
        params |= {"metric_bias": bias, "metric_bias_family": family}
    return params


def apply(method: str, params: dict[str, Any], z: np.ndarray) -> np.ndarray:
    """Probabilities float64 (N, C), rows sum to 1, of z float32 (M, N, C)."""
    if method == "mean":
        return geometric_mean(z)
    probs = {"vote": vote.apply, "greedy": greedy.apply, "stack": stack.apply}[method](params, z)
    return directed.apply(params["metric_bias"], probs) if "metric_bias" in params else probs


def readable(method: str, params: dict[str, Any], members: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """For each member, what can be read of it: its weight, and its temperature where the method has one.

    Weights of mean, vote and greedy sum to 1. Those of stack multiply logits and may be negative or sum to anything;
    of a family with more than one weight a member, this is the mean over the classes' own weights.
    """
    out: dict[str, dict[str, float]] = {}
    for m, member in enumerate(members):
        if method == "mean":
            out[member] = {"weight": 1 / len(members)}
            continue
        weight = params["weights"][m]
        own = np.diagonal(weight).mean() if np.ndim(weight) == 2 else np.mean(weight)
        out[member] = {"weight": float(own)}
        if "inverse_temperatures" in params:
            out[member]["temperature"] = 1 / float(params["inverse_temperatures"][m])
    return out


def notes(method: str, metric: str, params: dict[str, Any]) -> list[str]:
    """Lines for the reader: the certificate, what was chosen, and what the metric did or did not do."""
    lines = []
    if method == "mean" and metric != "log_loss":
        lines.append(f"mean has nothing to fit: it is the same for {metric} as for any metric")
    if method == "vote":
        lines.append(f"weights certified within {params['certificate']:.1g} nats of the least log loss")
    if method == "greedy":
        lines.append(f"members selected by {metric}, {params['bags']} bags of up to {params['rounds']} rounds")
    if method == "stack":
        centre = {"mean": "the plain mean", "calibrated": "the mean of members at their own temperatures"}
        choice = centre[params["centre"]]
        if "strength" in params:
            choice = f"family {params['family']!r}, drawn towards {choice} at strength {params['strength']:g}"
        lines.append(f"inner cross-validation chose {choice}")
    if "metric_bias" in params:
        family = {
            "none": "no class bias paid on held-out folds, so there is none",
            "frequency": "classes shifted by a power of their frequency",
            "class": "one bias a class",
        }[params["metric_bias_family"]]
        lines.append(f"{method} is fitted by log loss; for {metric}: {family}")
    return lines

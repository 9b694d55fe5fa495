"""What a saved blend's numbers must be: a blend of other shapes would raise far from its file or, worse, broadcast."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ensemble.blend.methods.auto import CANDIDATES
from ensemble.blend.methods.trees import NODES

NUMBERS = {  # plain ones that `apply` or the lines about a blend read, by method
    "vote": ("certificate",),
    "pool": ("certificate",),
    "greedy": ("bags", "rounds"),
    "trees": ("beta", "stages"),
}
MOST = 1e30  # of any number: some are computed with in float32
OF_TREES = ("left", "right", "feature", "threshold", "value", "gain")


def check_params(method: str, params: dict[str, Any], members: int, classes: int) -> None:
    """Raise ValueError that names what is not as `methods.fit` makes it, for M members and C classes."""
    if method == "auto":
        method = _one_of(params, "chosen", CANDIDATES)
        _numbers_by_name(params, "tried")
    for key in NUMBERS.get(method, ()):
        _number(params, key)
    if method != "mean":
        full = method == "stack" and getattr(params.get("weights"), "ndim", 0) == 3
        _array(params, "weights", (members, classes, classes) if full else (members,))
    if method == "vote" or (method == "greedy" and "inverse_temperatures" in params):
        _array(params, "inverse_temperatures", (members,))
        if not (params["inverse_temperatures"] > 0).all():
            raise ValueError("inverse_temperatures are not all above 0")
    if method in ("vote", "greedy") and ((params["weights"] < 0).any() or not params["weights"].any()):
        raise ValueError("weights are negative, or all 0")
    if method == "stack":
        _array(params, "bias", (classes,))
        _one_of(params, "centre", ("mean", "calibrated"))
        _numbers_by_name(params, "strengths", ("pool", "full"))
    if method == "trees":
        _array(params, "lean", (classes,))
        _trees(params, members)
    if "inverse_temperature" in params and not _number(params, "inverse_temperature") > 0:
        raise ValueError("inverse_temperature is not above 0")
    if "prior_bias" in params:  # -inf for a class that is not there
        _array(params, "prior_bias", (classes,), least=-np.inf)
        if not np.isfinite(params["prior_bias"]).any():
            raise ValueError("prior_bias leaves no class")
    if "metric_bias" in params:
        _array(params, "metric_bias", (classes,))
        _one_of(params, "metric_bias_family", ("none", "frequency", "class"))


def _number(params: dict[str, Any], key: str) -> float:
    found = params.get(key)
    if isinstance(found, bool) or not isinstance(found, int | float) or not abs(found) < MOST:
        raise ValueError(f"{key} is {_short(found)}, want a finite number")
    return found


def _one_of(params: dict[str, Any], key: str, known: Sequence[str]) -> str:
    found = params.get(key)
    if found not in known:
        raise ValueError(f"{key} is {_short(found)}, want one of: {', '.join(known)}")
    return str(found)


def _numbers_by_name(params: dict[str, Any], key: str, known: Sequence[str] = CANDIDATES) -> None:
    found = params.get(key)
    if not isinstance(found, dict):
        raise ValueError(f"{key} is {_short(found)}, want numbers by name")
    for name in found:
        if name not in known:
            raise ValueError(f"{key} names {_short(name)}, want some of: {', '.join(known)}")
        _number(found, name)


def _array(params: dict[str, Any], key: str, shape: tuple[int, ...], kind: str = "f", least: float = -MOST) -> None:
    found = params.get(key)
    if not isinstance(found, np.ndarray):
        raise ValueError(f"{key} is {_short(found)}, want an array {shape}")
    if found.shape != shape or found.dtype.kind != kind:
        numbers = "floats" if kind == "f" else "integers"
        raise ValueError(f"{key} is {found.dtype} {found.shape}, want {numbers} {shape}")
    if not ((found >= least) & (found < MOST)).all():
        raise ValueError(f"{key} holds a number that is NaN or infinite")


def _trees(params: dict[str, Any], members: int) -> None:
    stages = params["stages"]
    if not isinstance(stages, int) or not 0 <= stages <= 10_000:
        raise ValueError(f"stages is {_short(stages)}, want a whole number of trees")
    for key in OF_TREES:
        _array(params, key, (stages, NODES), "f" if key in ("threshold", "value", "gain") else "i")
    met = np.zeros((stages, NODES), dtype=np.bool_)  # by a walk from the root; what is past a tree's last node is not
    met[:, 0] = True
    for node in range(NODES):
        inner = np.flatnonzero(met[:, node] & (params["left"][:, node] >= 0))
        for side in ("left", "right"):
            child = params[side][inner, node]
            if ((child <= node) | (child >= NODES)).any():  # else a walk might be without end
                raise ValueError("a tree's nodes are not in order")
            met[inner, child] = True
        feature = params["feature"][inner, node]
        if ((feature < 0) | (feature > members)).any():
            raise ValueError(f"a tree looks at a feature that {members} members don't have")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."

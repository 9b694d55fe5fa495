"""The blending methods by name: one place that says what each is fitted on and what a metric does to it.

A blend is a chain: the method; for those that don't scale their own probabilities (`mean`, `vote`, `greedy`) one
temperature; the shift to the test set's class shares, where they are known; one bias a class for the metric.

What `metric` means: `greedy` selects members by it and `auto` chooses by it. All else is fitted by log loss, a proper
score, whatever the metric; directed at another one, a blend then gets one bias a class for it (see `metric_bias.py`),
which the result names and which moves probabilities away from calibrated ones.
"""

from functools import partial
from typing import Any

import numpy as np

from ensemble.blend import metric_bias
from ensemble.blend.methods import auto, greedy, pool, stack, trees, vote
from ensemble.blend.probabilities import chunks, geometric_mean
from ensemble.errors import UserError
from ensemble.scoring.cross_fit import usable_folds
from ensemble.scoring.metrics import METRICS, require_metric

METHODS = ("mean", "vote", "pool", "greedy", "stack", "trees", "auto")
UNSCALED = ("mean", "vote", "greedy")
APPLY = {
    "vote": vote.apply,
    "pool": pool.apply,
    "greedy": greedy.apply,
    "stack": stack.apply,
    "trees": trees.apply,
}
SPARSE = ("vote", "pool", "greedy")  # their weights are 0 or more, and a member of weight 0 has no part in the answer


def require_method(method: str) -> None:
    """Raise UserError unless there is such a method."""
    if method not in METHODS:
        raise UserError(f"blend method {method!r} is not one of: {', '.join(METHODS)}")


def fit(
    method: str,
    metric: str,
    z: np.ndarray,
    labels: np.ndarray,
    folds: np.ndarray,
    units: np.ndarray,
    priors: np.ndarray | None = None,
) -> dict[str, Any]:
    """Params of `method` directed at `metric`, from z float32 (M, N, C) and labels, folds, units int64 (N,).

    priors: (C,), the classes' shares where the blend is to be used; those of `labels` where they are not given.
    Arrays, numbers and strings by name; what `apply` takes. Raises UserError for an unknown method or metric.
    """
    require_method(method)
    require_metric(metric)
    weights = None if priors is None else row_weights(labels, priors)
    params: dict[str, Any] = {}
    match method:
        case "auto":

            def fit_apply(name: str, train: np.ndarray, test: np.ndarray) -> np.ndarray:
                found = fit(name, metric, z[:, train], labels[train], folds[train], units[train], priors)
                return apply(name, found, z[:, test])

            runs = {name: partial(fit_apply, name) for name in auto.CANDIDATES}
            # Of one member there is nothing to combine: the candidates differ in how they calibrate it alone.
            several = len(z) > 1
            chosen, tried = (
                auto.choose(runs, labels, folds, units, z.shape[2], metric, weights) if several else ("mean", {})
            )
            return {"chosen": chosen, "tried": tried} | fit(chosen, metric, z, labels, folds, units, priors)
        case "vote":
            params = vote.fit(z, labels)
        case "pool":
            params = pool.fit(z, labels)
        case "greedy":  # of members at their own temperatures, or one that is too modest would count too little
            inverse = vote.inverse_temperatures(z, labels)
            by = metric if METRICS[metric].needs == "counts" else "log_loss"
            params = greedy.fit(z, labels, by, weights=weights, inverse=inverse)
        case "stack":
            params = stack.fit(z, labels, folds, units)
        case "trees":
            params = trees.fit(z, labels, folds, units)
    if method in UNSCALED:
        params["inverse_temperature"] = pool.inverse_temperature(log_probabilities(method, params, z), labels)
    if priors is not None:
        with np.errstate(divide="ignore"):
            params["prior_bias"] = np.log(prior_ratio(labels, priors))
    if METRICS[metric].needs == "counts":
        log_probs = log_probabilities(method, params, z).astype(np.float64)
        bias, family = metric_bias.fit(log_probs, labels, usable_folds(folds, units), metric, weights)
        params |= {"metric_bias": bias, "metric_bias_family": family}
    return params


def apply(method: str, params: dict[str, Any], z: np.ndarray, calibrated: bool = True) -> np.ndarray:
    """Probabilities float64 (N, C), rows sum to 1, of z float32 (M, N, C).

    calibrated: False leaves the blend's own temperature out.
    """
    method = params.get("chosen", method)
    probs = geometric_mean(z) if method == "mean" else APPLY[method](params, z)
    if calibrated and "inverse_temperature" in params:
        probs **= params["inverse_temperature"]
        probs /= probs.sum(axis=1, keepdims=True)
    for bias in ("prior_bias", "metric_bias"):
        if bias in params:
            probs = metric_bias.apply(params[bias], probs)
    return probs


def log_probabilities(method: str, params: dict[str, Any], z: np.ndarray) -> np.ndarray:
    """Log of what `apply` gives, at least -69, float32 (N, C), with no more memory than that."""
    _, rows, classes = z.shape
    out = np.empty((rows, classes), dtype=np.float32)
    for part in chunks(rows, classes):
        out[part] = np.log(np.maximum(apply(method, params, z[:, part]), 1e-30))
    return out


def prior_ratio(labels: np.ndarray, priors: np.ndarray) -> np.ndarray:
    """The classes' shares `priors` over those among the labels, (C,); a class without rows counts as one of a row."""
    return np.asarray(priors / (np.maximum(np.bincount(labels, minlength=len(priors)), 1) / len(labels)))


def row_weights(labels: np.ndarray, priors: np.ndarray) -> np.ndarray:
    """What each row counts, float64 (N,), mean 1, for the classes to have the shares `priors` (C,) among the rows.

    With them a mean over the rows estimates one over rows drawn with those shares, as long as a class's images are
    alike (label shift: Saerens, Latinne & Decaestecker, Neural Computation 2002).
    """
    weights = prior_ratio(labels, priors)[labels]
    return np.asarray(weights / weights.mean())


def used(method: str, params: dict[str, Any], members: int) -> np.ndarray:
    """Which members have a part in the answer, bool (M,)."""
    sparse = params.get("chosen", method) in SPARSE
    return np.asarray(params["weights"] != 0) if sparse else np.ones(members, dtype=bool)


def keep(params: dict[str, Any], members: np.ndarray) -> dict[str, Any]:
    """Params of a sparse method without the members that are not in bool (M,) `members`."""
    per_member = [key for key in ("weights", "inverse_temperatures") if key in params]
    return params | {key: params[key][members] for key in per_member}


def readable(method: str, params: dict[str, Any], members: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """For each member, what can be read of it: its weight, and its temperature where the method has one.

    Weights of mean, vote and greedy sum to 1; those of pool multiply logits, are 0 or more, and sum to the inverse
    temperature. Those of stack multiply logits and may be negative; of a full matrix this is the mean of its diagonal.
    Those of trees are shares of what the splits gained, which also counts where a member is corrected for.
    """
    method = params.get("chosen", method)
    out: dict[str, dict[str, float]] = {}
    for m, member in enumerate(members):
        if method == "mean":
            out[member] = {"weight": 1 / len(members)}
            continue
        weight = params["weights"][m]
        out[member] = {"weight": float(np.diagonal(weight).mean() if np.ndim(weight) == 2 else weight)}
        if "inverse_temperatures" in params:
            out[member]["temperature"] = 1 / float(params["inverse_temperatures"][m])
    return out


def notes(method: str, metric: str, params: dict[str, Any]) -> list[str]:
    """Lines for the reader: the certificate, what was chosen, and what the metric did or did not do."""
    lines = []
    if "chosen" in params:
        scores = ", ".join(f"{name} {score:.4f}" for name, score in params["tried"].items())
        method = params["chosen"]
        why = f"the simplest within one standard error of the best by {metric}: {scores}"
        lines.append(f"auto took {method}, {why if scores else 'the simplest: there is nothing to choose between'}")
    if method in ("vote", "pool"):
        lines.append(f"weights certified within {params['certificate']:.1g} nats of the least log loss")
    if method == "greedy":
        by = metric if METRICS[metric].needs == "counts" else "log_loss"
        lines.append(f"members selected by {by}, {params['bags']} bags of up to {params['rounds']} rounds")
    if method == "stack":
        centre = {"mean": "the plain mean", "calibrated": "the mean of members at their own temperatures"}
        choice = centre[params["centre"]]
        for family, strength in params["strengths"].items():
            what = {"pool": "one weight a member and one bias a class", "full": "a full matrix a member"}[family]
            choice = f"{what}, drawn (strength {strength:g}) towards {choice}"
        lines.append(f"inner cross-validation chose {choice}")
    if method == "trees":
        lines.append(f"inner cross-validation chose {params['stages']} stages of trees on top of the plain mean")
    if "inverse_temperature" in params:
        lines.append(f"the blend's own temperature: {1 / params['inverse_temperature']:.3f}")
    if "prior_bias" in params:
        lines.append("classes shifted to the given shares; scores are those expected with them")
    if "metric_bias" in params:
        family = {
            "none": "no class bias paid on held-out folds, so there is none",
            "frequency": "classes shifted by a power of their frequency",
            "class": "one bias a class",
        }[params["metric_bias_family"]]
        fitted = "selected by it" if method == "greedy" else "fitted by log loss"
        lines.append(f"{method} is {fitted}; for {metric}: {family}")
    return lines

"""The table of blend methods, and the chain that a fitted blend is.

A blend is a chain: the method; for those that don't scale their probabilities one temperature; the shift to the
test set's class shares, where they are known; one bias per class for the metric.

What `metric` means: `auto` chooses by it, and `greedy` selects members by it if it is one of counts of the predicted
classes. All else is fitted by log loss, a proper score, whatever the metric; for one of such counts a blend then gets
one bias per class (see `metric_bias.py`), which the result names and which moves probabilities away from calibrated
ones.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ensemble.blend import metric_bias, priors, temperature
from ensemble.blend.methods import auto, greedy, mean, pool, stack, trees, vote
from ensemble.blend.methods.method import Method, Training, only
from ensemble.blend.metric_bias import MetricBias
from ensemble.blend.priors import PriorShift
from ensemble.blend.probabilities import chunks
from ensemble.blend.temperature import Temperature
from ensemble.errors import UserError
from ensemble.scoring.cross_fit import usable_folds
from ensemble.scoring.metrics import METRICS, require_metric

# From simple to free: of equal ones `auto` takes the first.
METHODS: dict[str, Method] = {
    method.name: method for method in (mean.METHOD, pool.METHOD, vote.METHOD, greedy.METHOD, stack.METHOD, trees.METHOD)
}


@dataclass(frozen=True)
class Chain:
    """A fitted blend of M members, as the steps that `apply` takes.

    method: the name in METHODS; where `auto` chose it, `choice` says among what.
    learned: what the method learned, the dataclass of its file.
    temperature, prior_shift, metric_bias: the steps after it; None where the blend has none.
    """

    method: str
    learned: Any
    temperature: Temperature | None = None
    prior_shift: PriorShift | None = None
    metric_bias: MetricBias | None = None
    choice: auto.Choice | None = None

    def params(self) -> dict[str, Any]:
        """All that it learned: arrays, numbers and texts by their keys on disk. `load` reads them back."""
        parts = (self.choice, self.learned, self.temperature, self.prior_shift, self.metric_bias)
        fields = [vars(part) for part in parts if part is not None]
        return {key: value for part in fields for key, value in part.items() if value is not None}


def names() -> tuple[str, ...]:
    """What `ens blend --method` takes."""
    return (*METHODS, auto.NAME)


def candidates() -> tuple[str, ...]:
    """What `auto` chooses between, from simple to free."""
    return tuple(method.name for method in METHODS.values() if not method.slow)


def is_slow(method: str) -> bool:
    """Whether it takes too long to be fitted again without each member."""
    return method in METHODS and METHODS[method].slow


def weighs_views(method: str) -> bool:
    """Whether it is given weighted views of each member, not their plain average."""
    return method not in METHODS or METHODS[method].weighs_views


def require_method(method: str) -> None:
    """Raise UserError unless there is such a method."""
    if method not in names():
        raise UserError(f"blend method {method!r} is not one of: {', '.join(names())}")


def fit(
    method: str,
    metric: str,
    z: np.ndarray,
    labels: np.ndarray,
    folds: np.ndarray,
    clusters: np.ndarray,
    shares: np.ndarray | None = None,
    costs: np.ndarray | None = None,
) -> Chain:
    """`method` for `metric`, fitted on z float32 (M, N, C) and labels, folds, clusters int64 (N,).

    shares: (C,), the classes' shares where the blend is to be used; those of `labels` where they are not given.
    costs: float64 (C, C), what mistakes cost, for a metric that needs it. Raises UserError for an unknown method or
    metric, and as `require_metric`.
    """
    require_method(method)
    require_metric(metric, z.shape[2], costs)
    weights = None if shares is None else priors.row_weights(labels, shares)
    training = Training(z, labels, folds, clusters, metric, weights)
    if method == auto.NAME:
        choice = _choose(training, shares, costs)
        return replace(fit(choice.chosen, metric, z, labels, folds, clusters, shares, costs), choice=choice)
    chain = Chain(method, METHODS[method].fit(training))
    if not METHODS[method].scaled:
        chain = replace(chain, temperature=temperature.fit(log_probabilities(chain, z), labels))
    if shares is not None:
        chain = replace(chain, prior_shift=priors.fit(labels, shares))
    if METRICS[metric].needs == "counts":
        log_probs = log_probabilities(chain, z).astype(np.float64)
        bias = metric_bias.fit(log_probs, labels, usable_folds(folds, clusters), metric, weights)
        chain = replace(chain, metric_bias=bias)
    return chain


def _choose(training: Training, shares: np.ndarray | None, costs: np.ndarray | None) -> auto.Choice:
    z, labels, folds, clusters = training.z, training.labels, training.folds, training.clusters
    if len(z) == 1:  # nothing to combine: the candidates differ in how they calibrate the one member
        return auto.Choice(candidates()[0], {})

    def fit_apply(name: str, train: np.ndarray, test: np.ndarray) -> np.ndarray:
        some = labels[train], folds[train], clusters[train]
        chain = fit(name, training.metric, z[:, train], *some, shares, costs)
        return apply(chain, z[:, test])

    runs = {name: partial(fit_apply, name) for name in candidates()}
    return auto.Choice(
        *auto.choose(runs, labels, folds, clusters, z.shape[2], training.metric, training.weights, costs)
    )


def apply(chain: Chain, z: np.ndarray, calibrated: bool = True) -> np.ndarray:
    """Probabilities float64 (N, C), rows sum to 1, of z float32 (M, N, C).

    calibrated: False leaves the blend's own temperature out.
    """
    probs = METHODS[chain.method].apply(chain.learned, z)
    if calibrated and chain.temperature is not None:
        probs = temperature.apply(chain.temperature, probs)
    if chain.prior_shift is not None:
        probs = priors.apply(chain.prior_shift, probs)
    if chain.metric_bias is not None:
        probs = metric_bias.apply(chain.metric_bias, probs)
    return probs


def log_probabilities(chain: Chain, z: np.ndarray) -> np.ndarray:
    """Log of what `apply` gives, at least -69, float32 (N, C), with no more memory than that."""
    _, rows, classes = z.shape
    out = np.empty((rows, classes), dtype=np.float32)
    for part in chunks(rows, classes):
        out[part] = np.log(np.maximum(apply(chain, z[:, part]), 1e-30))
    return out


def load(method: str, params: Mapping[str, Any], members: int, classes: int) -> Chain:
    """What `Chain.params` gave, of M members and C classes. method: as in `names`.

    Raises ValueError that names what is not as `fit` makes it.
    """
    choice = auto.load(params, candidates()) if method == auto.NAME else None
    name = choice.chosen if choice else method
    return Chain(
        method=name,
        learned=METHODS[name].load(params, members, classes),
        temperature=temperature.load(params),
        prior_shift=priors.load(params, classes),
        metric_bias=metric_bias.load(params, classes),
        choice=choice,
    )


def used(chain: Chain, members: int) -> np.ndarray:
    """Which members have a part in the answer, bool (M,)."""
    method = METHODS[chain.method]
    if not method.sparse:
        return np.ones(members, dtype=bool)
    return np.array([member["weight"] != 0 for member in method.weights_of(chain.learned, members)])


def keep(chain: Chain, members: np.ndarray) -> Chain:
    """A sparse method's chain without the members that are not in bool (M,) `members`."""
    return replace(chain, learned=only(chain.learned, members))


def readable(chain: Chain, members: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """For each member its "weight", which `Method.reading` explains, and its "temperature" where the method has one."""
    return dict(zip(members, METHODS[chain.method].weights_of(chain.learned, len(members)), strict=True))


def notes(chain: Chain, metric: str) -> list[str]:
    """Lines for the reader: what was chosen, the certificate, and what the metric did or did not do."""
    method = METHODS[chain.method]
    lines = [auto.describe(chain.choice, metric)] if chain.choice else []
    lines += method.describe(chain.learned, metric)
    if chain.temperature is not None:
        lines.append(f"the blend's own temperature: {1 / chain.temperature.inverse_temperature:.3f}")
    if chain.prior_shift is not None:
        lines.append("classes shifted to the given shares; scores are those expected with them")
    if chain.metric_bias is not None:
        fitted = "selected by it" if method.by_metric else "fitted by log loss"
        family = metric_bias.FAMILIES[chain.metric_bias.metric_bias_family]
        lines.append(f"{chain.method} is {fitted}; for {metric}: {family}")
    elif METRICS[metric].needs == "costs":
        lines.append(
            f"{chain.method} is fitted by log loss; images are decided for the class of the least expected cost, in "
            "the rows of the members and of the mean too"
        )
    elif metric != "log_loss":
        lines.append(f"{chain.method} is fitted by log loss; for {metric} there is no class bias")
    return lines

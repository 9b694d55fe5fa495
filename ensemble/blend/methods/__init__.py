"""The table of blend methods, and the chain that a fitted blend is.

A blend is a chain: the method; for those that don't scale their probabilities one temperature; vector scaling or a
Dirichlet map, where it is asked for; the shift to the test set's class shares, where they are known; one bias per class
for the metric.

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
import xxhash

from ensemble.blend import metric_bias, priors, scaling, temperature
from ensemble.blend.methods import auto, greedy, mean, pool, stack, trees, vote
from ensemble.blend.methods.method import Method, Training, only
from ensemble.blend.metric_bias import MetricBias
from ensemble.blend.priors import PriorShift
from ensemble.blend.probabilities import chunks
from ensemble.blend.recipe import Recipe
from ensemble.blend.scaling import Scaling
from ensemble.blend.temperature import Temperature
from ensemble.errors import UserError
from ensemble.scoring.cross_fit import cross_fit, usable_folds
from ensemble.scoring.metrics import METRICS, require_metric

# From simple to free: of equal ones `auto` takes the first.
METHODS: dict[str, Method] = {
    method.name: method for method in (mean.METHOD, pool.METHOD, vote.METHOD, greedy.METHOD, stack.METHOD, trees.METHOD)
}


Made = dict[bytes, "Chain"]  # fits of methods, by digests of what they were fitted on


@dataclass(frozen=True)
class Chain:
    """A fitted blend of M members, as the steps that `apply` takes.

    method: the name in METHODS; where `auto` chose it, `choice` says among what.
    learned: what the method learned, the dataclass of its file.
    temperature, scaling, prior_shift, metric_bias: the steps after it; None where the blend has none.
    """

    method: str
    learned: Any
    temperature: Temperature | None = None
    scaling: Scaling | None = None
    prior_shift: PriorShift | None = None
    metric_bias: MetricBias | None = None
    choice: auto.Choice | None = None

    def params(self) -> dict[str, Any]:
        """All that it learned: arrays, numbers and texts by their keys on disk. `load` reads them back."""
        parts = (self.choice, self.learned, self.temperature, self.scaling, self.prior_shift, self.metric_bias)
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


def is_nested(recipe: Recipe) -> bool:
    """Whether a fit is made of fits without each fold. Cross-fitting asks for nearly all of those twice: that without
    folds 0 and 1 is a part both of the fit without fold 0 and of the fit without fold 1."""
    return recipe.method == auto.NAME or recipe.calibration != "temperature"


def fit(
    recipe: Recipe,
    z: np.ndarray,
    labels: np.ndarray,
    folds: np.ndarray,
    clusters: np.ndarray,
    made: Made | None = None,
) -> Chain:
    """The recipe's method for its metric, fitted on z float32 (M, N, C) and labels, folds, clusters int64 (N,).

    made: what was fitted by the same recipe before; it is not fitted again, and what is fitted now is added. None to
        remember nothing.

    Raises UserError for an unknown method, metric or calibration, and as `require_metric` and `scaling.fit`.
    """
    require_method(recipe.method)
    require_metric(recipe.metric, z.shape[2], recipe.costs)
    scaling.require_kind(recipe.calibration)
    training = _training(recipe, z, labels, folds, clusters)
    if recipe.method == auto.NAME:
        choice = _choose(recipe, training, made)
        return replace(fit(replace(recipe, method=choice.chosen), z, labels, folds, clusters, made), choice=choice)
    chain = _fit_method(recipe.method, training, made)
    if recipe.calibration != "temperature":
        chain = replace(chain, scaling=_fit_scaling(recipe, training, made))
    if recipe.shares is not None:
        chain = replace(chain, prior_shift=priors.fit(labels, recipe.shares))
    if METRICS[recipe.metric].needs == "counts":
        log_probs = log_probabilities(chain, z).astype(np.float64)
        bias = metric_bias.fit(log_probs, labels, usable_folds(folds, clusters), recipe.metric, training.weights)
        chain = replace(chain, metric_bias=bias)
    return chain


def _training(recipe: Recipe, z: np.ndarray, labels: np.ndarray, folds: np.ndarray, clusters: np.ndarray) -> Training:
    weights = None if recipe.shares is None else priors.row_weights(labels, recipe.shares)
    return Training(z, labels, folds, clusters, recipe.metric, weights)


def _fit_method(method: str, training: Training, made: Made | None) -> Chain:
    """The method and, where it has no scale, its temperature. It may be one that was made before."""
    key = b"" if made is None else _digest(method, training)
    if made is not None and key in made:
        return made[key]
    chain = Chain(method, METHODS[method].fit(training))
    if not METHODS[method].scaled:
        chain = replace(chain, temperature=temperature.fit(log_probabilities(chain, training.z), training.labels))
    if made is not None:
        made[key] = chain
    return chain


def _digest(method: str, training: Training) -> bytes:
    """Of all that a fit depends on, of one recipe. The order in memory too: sums in another differ in the last bit."""
    z = training.z
    in_memory = z.transpose(np.argsort(z.strides)[::-1])
    digest = xxhash.xxh3_128(f"{method} {z.shape} {z.strides}".encode())
    for array in (in_memory, training.labels, training.folds, training.clusters):
        digest.update(np.ascontiguousarray(array).data)
    return digest.digest()


def _fit_scaling(recipe: Recipe, training: Training, made: Made | None) -> Scaling:
    """On log-probabilities of rows that the method, fitted again without each fold, has not seen."""
    z, labels, clusters = training.z, training.labels, training.clusters
    folds = usable_folds(training.folds, clusters)
    if len(np.unique(folds)) < 2:
        return Scaling("none")

    def fit_apply(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        without = _training(recipe, z[:, train], labels[train], folds[train], clusters[train])
        return log_probabilities(_fit_method(recipe.method, without, made), z[:, test])

    return scaling.fit(cross_fit(fit_apply, folds, clusters), labels, folds, clusters, recipe.calibration)


def _choose(recipe: Recipe, training: Training, made: Made | None) -> auto.Choice:
    """By the method and its temperature alone: what follows is the same for all."""
    z, labels, folds, clusters = training.z, training.labels, training.folds, training.clusters
    if len(z) == 1:  # nothing to combine: the candidates differ in how they calibrate the one member
        return auto.Choice(candidates()[0], {})

    def fit_apply(name: str, train: np.ndarray, test: np.ndarray) -> np.ndarray:
        candidate = replace(recipe, method=name, calibration="temperature")
        return apply(fit(candidate, z[:, train], labels[train], folds[train], clusters[train], made), z[:, test])

    runs = {name: partial(fit_apply, name) for name in candidates()}
    return auto.Choice(
        *auto.choose(runs, labels, folds, clusters, z.shape[2], recipe.metric, training.weights, recipe.costs)
    )


def apply(chain: Chain, z: np.ndarray, calibrated: bool = True) -> np.ndarray:
    """Probabilities float64 (N, C), rows sum to 1, of z float32 (M, N, C).

    calibrated: False leaves the scaling out or, where the blend has none, its own temperature.
    """
    probs = METHODS[chain.method].apply(chain.learned, z)
    if chain.temperature is not None and (calibrated or chain.scaling is not None):
        probs = temperature.apply(chain.temperature, probs)
    if chain.scaling is not None and calibrated:
        probs = scaling.apply(chain.scaling, probs)
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
        scaling=scaling.load(params, classes),
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
    if chain.scaling is not None:
        lines.append(scaling.describe(chain.scaling))
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

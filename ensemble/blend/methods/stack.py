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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ensemble.blend import params as saved
from ensemble.blend.methods.method import Method
from ensemble.blend.methods.pool import inverse_temperature, weighted_sum
from ensemble.blend.methods.stack_regression import Fit, solve, stacked
from ensemble.blend.probabilities import chunks
from ensemble.scoring.cross_fit import simplest, usable_folds
from ensemble.scoring.row_values import row_losses

CENTRES = ("mean", "calibrated")
FAMILIES = ("pool", "full")
STRENGTHS = {"pool": (1.0, 1e-1, 1e-2, 1e-3, 1e-4), "full": (1e-1, 3e-2, 1e-2, 3e-3, 1e-3)}
CHOICE = 5_000_000  # numbers: of larger logits, a random part so large chooses family and strength
FULL = 200_000_000  # rows x M x C x C: beyond, `full` is not tried: 1,000,000 x 10 x 10 took over two minutes


@dataclass(frozen=True)
class Tried:
    """One candidate: a family at a strength (infinite for a plain mean), its held-out losses (N,), its fit by fold."""

    family: str
    strength: float
    held: np.ndarray
    fits: list[Fit]


@dataclass(frozen=True)
class Stack:
    """What stacking learns.

    weights: float64 (M,), or (M, C, C) of the family "full".
    bias: float64 (C,).
    family: one of FAMILIES, or of CENTRES where nothing more pays.
    centre: one of CENTRES, which the others are drawn towards.
    strengths: of the penalty, by family: of the chosen one, and of the pool that "full" is drawn towards.
    inner_log_loss: the chosen one's on held-out rows; NaN where there was no choice, None where it is not known.
    """

    weights: np.ndarray
    bias: np.ndarray
    family: str
    centre: str
    strengths: dict[str, float]
    inner_log_loss: float | None = None


def fit(z: np.ndarray, labels: np.ndarray, folds: np.ndarray, clusters: np.ndarray) -> Stack:
    """Choose family and strength by inner cross-validation over `folds` and refit on all rows.

    labels, folds, clusters: int64 (N,); rows of one cluster (group) must stand in one fold. With fewer than two
    clusters the answer is the plain mean.
    """
    members, rows, classes = z.shape
    families = FAMILIES if rows * members * classes**2 <= FULL else ("pool",)
    kept = some_clusters(clusters, CHOICE // (members * classes))
    some, right = (z, labels) if len(kept) == rows else (z[:, kept], labels[kept])
    chain = choose(some, right, folds[kept], clusters[kept], families)
    whole = len(chain) == 1  # the mean is the answer, so all rows have a part in it
    weights = mean_weights(z if whole else some, labels if whole else right, chain[0].family)
    bias = np.zeros(classes)
    for step in chain[1:]:
        fitted = solve(step.family, step.strength, some, right, (weights, bias))
        if some is not z:  # the loss is a mean over rows, the penalty is not
            fitted = solve(step.family, step.strength * len(kept) / rows, z, labels, (weights, bias), fitted)
        weights, bias = fitted
    return Stack(
        weights=weights,
        bias=bias,
        family=chain[-1].family,
        centre=chain[0].family,
        strengths={step.family: step.strength for step in chain[1:]},
        inner_log_loss=float(chain[-1].held.mean()),
    )


def apply(learned: Stack, z: np.ndarray) -> np.ndarray:
    """Blended probabilities, float64 (N, C), rows sum to 1."""
    return stacked(learned.weights, learned.bias, z)


def load(params: Mapping[str, Any], members: int, classes: int) -> Stack:
    """Raises ValueError that names what is not as `fit` makes it."""
    full = getattr(params.get("weights"), "ndim", 0) == 3
    return Stack(
        weights=saved.array(params, "weights", (members, classes, classes) if full else (members,)),
        bias=saved.array(params, "bias", (classes,)),
        family=saved.one_of(params, "family", (*CENTRES, *FAMILIES)),
        centre=saved.one_of(params, "centre", CENTRES),
        strengths=saved.numbers_by_name(params, "strengths", FAMILIES),
        inner_log_loss=saved.optional_number(params, "inner_log_loss"),
    )


def describe(learned: Stack, metric: str) -> list[str]:
    """What inner cross-validation chose."""
    choice = {"mean": "the plain mean", "calibrated": "the mean of members at their own temperatures"}[learned.centre]
    for family, strength in learned.strengths.items():
        what = {"pool": "one weight per member and one bias per class", "full": "a full matrix per member"}[family]
        choice = f"{what}, drawn (strength {strength:g}) towards {choice}"
    return [f"inner cross-validation chose {choice}"]


def weights_of(learned: Stack, members: int) -> list[dict[str, float]]:
    """Of a full matrix the mean of its diagonal."""
    weights = learned.weights
    return [{"weight": float(np.diagonal(w).mean() if np.ndim(w) == 2 else w)} for w in weights]


def some_clusters(clusters: np.ndarray, rows: int) -> np.ndarray:
    """Row numbers of about `rows` rows, whole clusters drawn at random (the same ones every time); all if no more."""
    if len(clusters) <= rows:
        return np.arange(len(clusters))
    names, where = np.unique(clusters, return_inverse=True)
    return np.flatnonzero(np.random.default_rng(0).permutation(len(names))[where] < len(names) * rows / len(clusters))


def choose(
    z: np.ndarray, labels: np.ndarray, folds: np.ndarray, clusters: np.ndarray, families: Sequence[str]
) -> list[Tried]:
    """The simplest candidate within one standard error of the best, last, after those that it is drawn towards."""
    folds = usable_folds(folds, clusters)
    parts = [(np.flatnonzero(folds != f), np.flatnonzero(folds == f)) for f in np.unique(folds)]
    if len(parts) < 2:
        return [Tried("mean", np.inf, np.full(len(labels), np.nan), [])]
    whole = {kind: mean_weights(z, labels, kind) for kind in CENTRES}  # from which each fold's are a step away
    tried: list[Tried] = []
    for kind in CENTRES:
        means = [mean_weights(z[:, train], labels[train], kind, whole[kind]) for train, _ in parts]
        tried.append(_held(kind, np.inf, [(weights, np.zeros(z.shape[2])) for weights in means], z, labels, parts))
    chain = [_simplest(tried, clusters)]
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
            if worse or (len(path) > 2 and _simplest(path[-2:], clusters) is path[-2]):  # so will weaker ones be
                break
        best = _simplest(path, clusters)
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


def _held(
    family: str,
    strength: float,
    fits: Sequence[Fit | None],
    z: np.ndarray,
    labels: np.ndarray,
    parts: Sequence[tuple[np.ndarray, np.ndarray]],
) -> Tried:
    held, found = np.empty(len(labels)), [fold_fit for fold_fit in fits if fold_fit is not None]
    for (weights, bias), (_, test) in zip(found, parts, strict=True):
        held[test] = row_losses(labels[test], stacked(weights, bias, z[:, test]))
    return Tried(family, strength, held, found)


def _simplest(tried: Sequence[Tried], clusters: np.ndarray) -> Tried:
    return tried[simplest([candidate.held for candidate in tried], clusters)]


METHOD = Method(
    name="stack",
    fit=lambda training: fit(training.z, training.labels, training.folds, training.clusters),
    apply=apply,
    load=load,
    describe=describe,
    weights_of=weights_of,
    reading="Weights multiply the members' logits; a negative one corrects another member.",
    scaled=True,
)

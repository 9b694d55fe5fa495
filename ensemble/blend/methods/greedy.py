"""Greedy selection with replacement, with sorted initialisation and bagging.

Caruana, Niculescu-Mizil, Crew & Ksikes, "Ensemble Selection from Libraries of Models" (ICML 2004). Members are added
one at a time to an average of probabilities, each time the one that makes the metric best; the weights are the counts.
`z` is float32 (M, N, C). The answers are those of the plain rule: what is left out here could not change them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ensemble.blend import params as saved
from ensemble.blend.methods.greedy_metric import Bag, open_members, path_losses, select
from ensemble.blend.methods.method import Method, Training, member_weights
from ensemble.blend.methods.vote import inverse_temperatures
from ensemble.blend.probabilities import mixture, true_class
from ensemble.scoring.metrics import METRICS

ROUNDS = 50
BAGS = 20
SMALLEST_BAG = 4  # members; half of a small pool would leave the best ones out of many bags
# Rows drawn for a bag. Against bags of all 200,000 rows of 10 members and 10 classes, on new rows, n = 4: log loss
# +.0001 +- .0001, macro F1 .0000 +- .0001, in a fifth of the time; of 40,000 rows of 16 and 100, n = 3: +.0002 +- .0001
# and -.0002 +- .0001. Which members a bag sees matters ten times as much.
BAG_ROWS, CLASS_ROWS = 10_000, 100


@dataclass(frozen=True)
class Search:
    """How it is searched.

    rounds: members taken in one selection.
    bags: selections, whose weights are averaged.
    seed: of the random numbers that draw the bags' members and rows.
    sorted_start: begin with the best set of the k best members, not with the best member.
    """

    rounds: int = ROUNDS
    bags: int = BAGS
    seed: int = 0
    sorted_start: bool = True


@dataclass(frozen=True)
class Greedy:
    """What greedy selection learns.

    weights: float64 (M,), on the simplex.
    rounds, bags, seed: of its `Search`.
    inverse_temperatures: float64 (M,), 1 / T of each member; None where the members were taken as they are.
    """

    weights: np.ndarray
    rounds: int
    bags: int
    seed: int
    inverse_temperatures: np.ndarray | None = None


def fit(
    z: np.ndarray,
    labels: np.ndarray,
    metric: str = "log_loss",
    search: Search = Search(),
    weights: np.ndarray | None = None,
    inverse: np.ndarray | None = None,
) -> Greedy:
    """Select by `metric`, log_loss or one that needs "counts" (see `ensemble.scoring.metrics`), on labels int64 (N,).

    Each of `search.bags` selections sees a random half of the members (at least 4, or all) and rows drawn with
    replacement, as many as there are but no more than 10,000 or 100 a class; the weights are the mean of theirs. With
    bags = 1 the selection sees all members and each row once. A selection starts from the best of the sets of the k
    best members or, unless sorted_start, from the best member; it ends at `rounds` members, and the best set on the way
    counts.
    Ties in the metric go to the lower log loss, then to the earlier member; for log_loss see `select_log_loss`.
    The same seed gives the same weights.

    weights: (N,), how much each row counts: >= 0, not all 0, what is below 1e-9 of the largest may count as 0.
    inverse: (M,), 1 / temperature of each member.

    Memory beyond z: for log_loss 24 bytes per member and row (37 MB where the 30 x 50,000 x 100 logits are 600 MB); for
    the others 28, and one bag's sums and up to 64 MB (123 MB there).
    """
    members, rows, classes = z.shape
    p = true_class(z, labels, inverse)
    opened = None if metric == "log_loss" else open_members(z, inverse)
    # whole numbers, whose sums are exact: a class that loses its last row is left with 0 and not with 1e-17
    units = np.ones(rows) if weights is None else np.rint(np.ldexp(weights, 30 - np.frexp(weights.max())[1]))
    alive = np.flatnonzero(units)
    draw, bags, rounds = np.random.default_rng(search.seed), search.bags, search.rounds
    size = members if bags == 1 else max(-(-members // 2), min(members, SMALLEST_BAG))
    most = min(len(alive), max(BAG_ROWS, CLASS_ROWS * classes))
    total = np.zeros(members)
    for chosen in [np.sort(draw.permutation(members)[:size]) for _ in range(bags)]:
        drawn = alive if bags == 1 else alive[draw.integers(len(alive), size=most)]
        if opened is None:
            counted = None if weights is None else weights[drawn]
            total[chosen] += select_log_loss(p[np.ix_(drawn, chosen)], rounds, search.sorted_start, counted)
        else:
            seen = np.bincount(drawn, minlength=rows) * units
            picked = np.flatnonzero(seen)
            bag = Bag(opened, chosen, picked, labels[picked], seen[picked], classes)
            true_p = np.ascontiguousarray(p[np.ix_(picked, chosen)].T)
            total[chosen] += select(bag, true_p, seen[picked], metric, rounds, search.sorted_start)
    return Greedy(total / bags, rounds, bags, search.seed, inverse)


def apply(learned: Greedy, z: np.ndarray) -> np.ndarray:
    """Blended probabilities, float64 (N, C), rows sum to 1."""
    return mixture(z, learned.weights, learned.inverse_temperatures)


def load(params: Mapping[str, Any], members: int, classes: int) -> Greedy:
    """Raises ValueError that names what is not as `fit` makes it."""
    bags, rounds, seed = (saved.count(params, key) for key in ("bags", "rounds", "seed"))
    weights, inverse = saved.simplex(params, members), None
    if "inverse_temperatures" in params:
        inverse = saved.inverse_temperatures(params, members)
    return Greedy(weights, rounds, bags, seed, inverse)


def describe(learned: Greedy, metric: str) -> list[str]:
    return [f"members selected by {_selected_by(metric)}, {learned.bags} bags of up to {learned.rounds} rounds"]


def _selected_by(metric: str) -> str:
    """The metric itself where it is one of counts of the predicted classes; else log loss."""
    return metric if METRICS[metric].needs == "counts" else "log_loss"


def _fit_tempered(training: Training) -> Greedy:
    """Of members at their own temperatures: one that is too modest would count too little."""
    inverse = inverse_temperatures(training.z, training.labels)
    return fit(training.z, training.labels, _selected_by(training.metric), weights=training.weights, inverse=inverse)


def select_log_loss(
    p: np.ndarray, rounds: int, sorted_start: bool = True, weights: np.ndarray | None = None
) -> np.ndarray:
    """Weights float64 (M,) on the simplex of one selection by log loss, to which nothing matters but p: float64 (N, M),
    each member's probability of each row's true class, at least 1e-15. weights: (N,), how much each row counts.

    Without sorted_start this is AutoGluon's EnsembleSelection of ensemble_size = rounds (autogluon.core 1.6.3): of
    losses equal to six decimals those of members already taken go first, then the lower one (there, unless
    tie_breaker is "second_metric", a random one), then the earlier member; the first of the best sets counts.
    """
    members = p.shape[1]
    p = np.ascontiguousarray(p.T)  # one member's rows lie together
    total, best_loss, start = np.zeros(p.shape[1]), np.inf, 0
    order = np.argsort(path_losses(p, total, 1, weights), kind="stable")
    for size, m in enumerate(order[: min(members, rounds) if sorted_start else 1], 1):
        loss = path_losses(p[[m]], total, size, weights)[0]
        total += p[m]
        if loss < best_loss - 1e-12:  # more than rounding, so that a copy of a member adds nothing
            best_loss, start = loss, size
    digits = 6 if best_loss > 1e-4 else 15  # its rule too
    best_loss = np.round(best_loss, digits)
    counts = np.bincount(order[:start], minlength=members).astype(np.float64)
    best, total = counts.copy(), counts @ p
    for size in range(start + 1, rounds + 1):
        losses = path_losses(p, total, size, weights)
        rounded = losses.round(digits)
        tied = rounded <= rounded.min() * (1 + 1e-12)
        if (tied & (counts > 0)).any():
            tied &= counts > 0
        m = int(np.where(tied, losses, np.inf).argmin())
        counts[m] += 1
        total += p[m]
        if rounded[m] < best_loss:
            best, best_loss = counts.copy(), rounded[m]
    return np.asarray(best / best.sum())


METHOD = Method(
    name="greedy",
    fit=_fit_tempered,
    apply=apply,
    load=load,
    describe=describe,
    weights_of=lambda learned, members: member_weights(learned.weights, learned.inverse_temperatures),
    reading="Weights sum to 1 and count the members' probabilities, each at its own temperature.",
    sparse=True,
    by_metric=True,
)

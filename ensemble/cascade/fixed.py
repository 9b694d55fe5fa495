"""What a cascade has to beat: some of the members, asked for all images."""

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from ensemble.blend.crossfit import plain_average
from ensemble.blend.methods.pool import centred, inverse_temperature
from ensemble.blend.oof import Oof
from ensemble.blend.probabilities import softmax
from ensemble.blend.recipe import Recipe
from ensemble.cascade.fits import new_fits, probabilities
from ensemble.cascade.order import Costs, MemberAndView, restricted
from ensemble.scoring.outcomes import Outcome, outcome
from ensemble.scoring.row_values import row_losses

MOST_WORK = 2_000_000_000  # logits in all sets of members: some seconds; of more, only the cheapest members are tried


@dataclass(frozen=True)
class FixedAnswer:
    """Sets of one size under as many views.

    pairs: the best of them on all rows. by_fold: on how many folds that is the best without them as well.
    result: of the rows, each answered by the set that is the best without its fold.
    ms: milliseconds of each row, float64 (N,).
    """

    pairs: frozenset[MemberAndView]
    by_fold: int
    result: Outcome
    ms: np.ndarray


def fixed_sets(oof: Oof, recipe: Recipe, costs: Costs) -> list[FixedAnswer]:
    """For each number of members, under their first view and under all, the best such set but the whole blend. Sets are
    compared by their plain mean at one temperature, and the chosen ones fitted by the recipe."""
    found = []
    for views in sorted({1, max(map(len, oof.views))}):
        pairs = [
            frozenset((member, view) for view in names[:views])
            for member, names in zip(oof.members, oof.views, strict=True)
        ]
        part = restricted(oof, {pair for of_member in pairs for pair in of_member})
        z = centred(plain_average(part))
        costs_of = np.array([sum(costs.passes[pair] for pair in of_member) for of_member in pairs])
        last = len(pairs) if views < max(map(len, oof.views)) else len(pairs) - 1
        found += [_best_of(size, pairs, costs_of, z, oof, recipe, costs) for size in range(1, last + 1)]
    return found


def _best_of(
    size: int,
    pairs: list[frozenset[MemberAndView]],
    ms: np.ndarray,
    z: np.ndarray,
    oof: Oof,
    recipe: Recipe,
    costs: Costs,
) -> FixedAnswer:
    rows = oof.rows
    sets = list(combinations(range(len(pairs)), size))
    if math.comb(len(pairs), size) * z[0].size > MOST_WORK:
        sets = [tuple(sorted(np.argsort(ms, kind="stable")[:size].tolist()))]
    losses = [_losses(z[list(chosen)].mean(axis=0), rows.labels) for chosen in sets]
    best = min(range(len(sets)), key=lambda number: float(losses[number].mean()))
    answers = np.empty((len(rows.labels), oof.classes))
    row_ms, by_fold = np.empty(len(rows.labels)), 0
    for fold in np.unique(rows.folds):
        train, test = np.flatnonzero(rows.folds != fold), np.flatnonzero(rows.folds == fold)
        chosen = sets[min(range(len(sets)), key=lambda number: float(losses[number][train].mean()))]
        asked = {pair for member in chosen for pair in pairs[member]}
        answers[test] = probabilities(new_fits(restricted(oof, asked), recipe), train, test)
        row_ms[test] = ms[list(chosen)].sum() + costs.decoding
        by_fold += chosen == sets[best]
    every = frozenset(pair for member in sets[best] for pair in pairs[member])
    return FixedAnswer(every, by_fold, outcome(rows.labels, answers), row_ms)


def _losses(z: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """float64 (N,). One temperature of all rows serves while sets are compared: it is one number for all of them."""
    return row_losses(labels, softmax(z * np.float32(inverse_temperature(z, labels))))

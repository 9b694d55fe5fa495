"""What a blend can do without: members and views whose loss costs no more than chance."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ensemble.blend.crossfit import held_out, only, plain_average
from ensemble.blend.diversity import leave_out_costs
from ensemble.blend.oof import EXTERNAL_VIEW, Oof
from ensemble.blend.priors import row_weights
from ensemble.blend.recipe import Recipe
from ensemble.scoring.bootstrap import Gain, bootstrap, deviation
from ensemble.scoring.metrics import METRICS
from ensemble.scoring.outcomes import Outcome, value

RESAMPLES = 500


@dataclass(frozen=True)
class Pruned:
    """What is left of a blend.

    members: the names of those that are kept.
    views: the names of those that are kept.
    cost: what the whole blend's cross-fitted score is better by, in the metric.
    error: the standard error of that (paired, over groups where there are groups).
    passes: forward passes per image and fold, before and after.
    """

    members: tuple[str, ...]
    views: tuple[str, ...]
    cost: float
    error: float
    passes: tuple[int, int]


def pruned(
    oof: Oof,
    recipe: Recipe,
    honest: Outcome,
    costs: Mapping[str, Gain],
    fitted: Callable[[], None] = lambda: None,
) -> Pruned:
    """Leave out members, the least missed first, then views, as long as the cross-fitted score stays within one
    standard error of the whole blend's.

    honest: the whole blend's cross-fitted outcome. costs: as `leave_out_costs`, which is called where they are empty.
    fitted: called after each of the fits.
    Backward elimination; each step is scored against the whole blend, so that small losses can't add up.
    """
    rows = oof.rows
    metric, weights = recipe.metric, None if recipe.shares is None else row_weights(rows.labels, recipe.shares)
    sign = METRICS[metric].sign

    def loss(trial: Oof) -> tuple[float, float]:
        other = held_out(trial, plain_average(trial), recipe, fitted)[0]
        drawn = bootstrap(rows.labels, [honest, other], rows.clusters, oof.classes, weights, RESAMPLES)[metric]
        both = [value(metric, rows.labels, result, oof.classes, weights) for result in (honest, other)]
        return sign * (both[0] - both[1]), deviation(drawn[:, 0] - drawn[:, 1])

    if not costs and len(oof.members) > 1:
        costs = leave_out_costs(oof, recipe, honest, fitted)
    kept, cost, error = oof, 0.0, 0.0
    for name in sorted(costs, key=lambda member: costs[member].value):
        if len(kept.members) > 1:
            trial = only(kept, [member for member in kept.members if member != name])
            found = loss(trial)
            if found[0] <= found[1]:
                kept, (cost, error) = trial, found
    for view in reversed(_views(oof)):
        rest = without_view(kept, view)
        if rest is not None:
            found = loss(rest)
            if found[0] <= found[1]:
                kept, (cost, error) = rest, found
    return Pruned(kept.members, _views(kept), cost, error, (_passes(oof), _passes(kept)))


def without_view(oof: Oof, view: str) -> Oof | None:
    """The same members without one view of all of them; None where a member has no other, or none has it."""
    kept = [[v for v, name in enumerate(names) if name != view] for names in oof.views]
    if not all(kept) or view not in _views(oof):
        return None
    return replace(
        oof,
        views=tuple(tuple(names[v] for v in numbers) for names, numbers in zip(oof.views, kept, strict=True)),
        values=tuple(values[numbers] for values, numbers in zip(oof.values, kept, strict=True)),
    )


def _views(oof: Oof) -> tuple[str, ...]:
    return tuple(dict.fromkeys(view for names in oof.views if names != EXTERNAL_VIEW for view in names))


def _passes(oof: Oof) -> int:
    return sum(len(names) for names in oof.views if names != EXTERNAL_VIEW)

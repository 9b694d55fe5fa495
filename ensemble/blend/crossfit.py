"""A method on the members of an `Oof`: fitted on some rows, and scored on rows that it was not fitted on."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from ensemble.blend import methods, view_weights
from ensemble.blend.oof import Oof
from ensemble.blend.recipe import Recipe
from ensemble.blend.saved import Blend
from ensemble.events import Events
from ensemble.progress import counted
from ensemble.scoring.cross_fit import cross_fit
from ensemble.scoring.outcomes import Outcome, outcome

RowsFit = tuple[list[np.ndarray], methods.Chain]  # view weights and chain, see `fit_rows`


def plain_average(oof: Oof) -> np.ndarray:
    """z float32 (M, N, C): the members' logits, the plain averages of their views."""
    return view_weights.apply(view_weights.even(oof.values), oof.values, slice(None))


def fit_rows(
    oof: Oof, plain: np.ndarray, recipe: Recipe, rows: np.ndarray, made: methods.Made | None = None
) -> RowsFit:
    """The view weights and the chain of a fit on some rows.

    plain: z float32 (M, N, C), the plain averages of views.
    rows: int64 (n,), their numbers.
    made: fits that are not made again, see `methods.fit`.
    """
    every = oof.rows
    of_views = view_weights.even(oof.values)
    if methods.weighs_views(recipe.method):
        of_views = view_weights.fit(oof.values, every.labels, every.folds, every.clusters, rows)
    z = member_logits(oof, plain, of_views, rows)
    labels, folds, clusters = every.labels[rows], every.folds[rows], every.clusters[rows]
    return of_views, methods.fit(recipe, z, labels, folds, clusters, made)


def held_out(
    oof: Oof, plain: np.ndarray, recipe: Recipe, fitted: Callable[[], None] = lambda: None
) -> tuple[Outcome, Outcome]:
    """The cross-fitted outcome of a recipe, and what it would be without its last step of calibration, see
    `methods.apply`. fitted: called after each fold's fit."""
    both = held_out_probabilities(oof, plain, recipe, fitted)
    labels = oof.rows.labels
    return outcome(labels, both[:, 0], (recipe.metric,), recipe.costs), outcome(labels, both[:, 1])


def held_out_probabilities(
    oof: Oof,
    plain: np.ndarray,
    recipe: Recipe,
    fitted: Callable[[], None] = lambda: None,
    fits: list[RowsFit] | None = None,
    made: methods.Made | None = None,
) -> np.ndarray:
    """What the outcomes of `held_out` are of: float64 (N, 2, C), of each row by a fit without its fold.

    fitted: called after each fit.
    fits: the fits are added to it.
    made: fits that are not made again, see `methods.fit`; None for none but its own.
    """
    if made is None and methods.is_nested(recipe):
        made = {}

    def fit_apply(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        of_views, chain = fit_rows(oof, plain, recipe, train, made)
        if fits is not None:
            fits.append((of_views, chain))
        z = member_logits(oof, plain, of_views, test)
        both = [methods.apply(chain, z), methods.apply(chain, z, calibrated=False)]
        fitted()
        return np.stack(both, axis=1)

    return cross_fit(fit_apply, oof.rows.folds, oof.rows.clusters)


def member_logits(oof: Oof, plain: np.ndarray, of_views: Sequence[np.ndarray], rows: np.ndarray) -> np.ndarray:
    """z float32 (M, n, C) of some rows; `plain` itself where those are all rows and no view weights were learned."""
    if any(np.ptp(weights) > 0 for weights in of_views):
        return view_weights.apply(of_views, oof.values, rows)
    return plain if len(rows) == plain.shape[1] else plain[:, rows]


def only(oof: Oof, members: Sequence[str]) -> Oof:
    """The same rows with some of the members."""
    kept = [m for m, name in enumerate(oof.members) if name in members]
    return replace(
        oof,
        members=tuple(oof.members[m] for m in kept),
        views=tuple(oof.views[m] for m in kept),
        values=tuple(oof.values[m] for m in kept),
        external=tuple(name for name in oof.external if name in members),
    )


def without_zero_weight(
    oof: Oof, recipe: Recipe, of_views: Sequence[np.ndarray], chain: methods.Chain
) -> tuple[Blend, tuple[str, ...]]:
    """The blend of the members and views that have a weight, and the names of those that have none.

    Prediction is given a blend's members and views, so it saves the time of those that would count nothing.
    """
    used = methods.used(chain, len(oof.members))
    unused = [name for name, kept in zip(oof.members, used, strict=True) if not kept]
    kept = only(oof, [name for name, is_used in zip(oof.members, used, strict=True) if is_used])
    names, weights = [], []
    for name, all_names, member_weights in zip(oof.members, oof.views, of_views, strict=True):
        if name in kept.members:
            names.append(tuple(view for view, weight in zip(all_names, member_weights, strict=True) if weight > 0))
            weights.append(tuple(float(weight) for weight in member_weights if weight > 0))
            unused += [
                f"{view} of {name}" for view, weight in zip(all_names, member_weights, strict=True) if weight == 0
            ]
    blend = Blend(
        method=recipe.method,
        metric=recipe.metric,
        members=kept.members,
        views=tuple(names),
        classes=oof.rows.classes,
        view_weights=tuple(weights),
        chain=chain if used.all() else methods.keep(chain, used),
        external=kept.external,
        costs=recipe.costs,
        calibration=recipe.calibration,
    )
    return blend, tuple(unused)


def counted_fits(events: Events, oof: Oof, costly: bool) -> Callable[[], None]:
    """Shows how many fits are done, each time it is called: one of each fold, and one of all rows; `costly`: and again
    of each fold without each member. (Of fewer members a fit takes less, and of the chosen method than of "auto".)"""
    folds = max(len(np.unique(oof.rows.folds)), 2)
    return counted(events, "fitting the blend", folds * (1 + len(oof.members) * costly) + 1)

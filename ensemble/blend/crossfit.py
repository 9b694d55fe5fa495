"""A method on the members of an `Oof`: fitted on some rows, and scored on rows that it was not fitted on."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ensemble.blend import methods, views
from ensemble.blend.oof import Oof
from ensemble.blend.score import Outcome, cross_fit, outcome


def plain_average(oof: Oof) -> np.ndarray:
    """z float32 (M, N, C): the members' logits, the plain averages of their views."""
    return views.apply(views.even(oof.values), oof.values, slice(None))


def fit_rows(
    oof: Oof, plain: np.ndarray, method: str, metric: str, priors: np.ndarray | None, rows: np.ndarray
) -> tuple[list[np.ndarray], dict[str, Any]]:
    """The view weights and params of a fit on some rows. plain: z float32 (M, N, C), the plain averages of views."""
    every = oof.rows
    even = views.even(oof.values)
    of_views = even if method == "mean" else views.fit(oof.values, every.labels, every.folds, every.units, rows)
    z = member_logits(oof, plain, of_views, rows)
    return of_views, methods.fit(method, metric, z, every.labels[rows], every.folds[rows], every.units[rows], priors)


def held_out(
    oof: Oof,
    plain: np.ndarray,
    method: str,
    metric: str,
    priors: np.ndarray | None,
    fitted: Callable[[], None] = lambda: None,
) -> tuple[Outcome, Outcome]:
    """The cross-fitted outcome of a method, and what it would be without the blend's own temperature. fitted: called
    after each fold's fit."""

    def fit_apply(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        of_views, params = fit_rows(oof, plain, method, metric, priors, train)
        z = member_logits(oof, plain, of_views, test)
        both = [methods.apply(method, params, z), methods.apply(method, params, z, calibrated=False)]
        fitted()
        return np.stack(both, axis=1)

    both = cross_fit(fit_apply, oof.rows.folds, oof.rows.units)
    return outcome(oof.rows.labels, both[:, 0]), outcome(oof.rows.labels, both[:, 1])


def member_logits(oof: Oof, plain: np.ndarray, of_views: Sequence[np.ndarray], rows: np.ndarray) -> np.ndarray:
    """z float32 (M, n, C) of some rows; `plain` itself where those are all rows and no view weights were learned."""
    if any(np.ptp(own) > 0 for own in of_views):
        return views.apply(of_views, oof.values, rows)
    return plain if len(rows) == plain.shape[1] else plain[:, rows]


def only(oof: Oof, members: Sequence[str]) -> Oof:
    """The same rows with some of the members."""
    kept = [m for m, name in enumerate(oof.members) if name in members]
    return replace(
        oof,
        members=tuple(oof.members[m] for m in kept),
        views=tuple(oof.views[m] for m in kept),
        values=tuple(oof.values[m] for m in kept),
        foreign=tuple(name for name in oof.foreign if name in members),
    )

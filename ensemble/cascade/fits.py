"""Blends of some members and views, fitted on some rows and asked about others; a fit is made once."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ensemble.blend import methods
from ensemble.blend.crossfit import fit_rows, member_logits, plain_average
from ensemble.blend.oof import Oof
from ensemble.blend.recipe import Recipe
from ensemble.blend.stages import Stage
from ensemble.scoring.cross_fit import cross_fit
from ensemble.scoring.outcomes import Outcome, outcome


@dataclass(frozen=True)
class Fits:
    """Fits of one recipe on the members and views of `oof`.

    plain: float32 (M, N, C), the averages of the members' views.
    advance: called after each fit.
    made: by the rows that they were fitted on.
    """

    oof: Oof
    recipe: Recipe
    plain: np.ndarray
    advance: Callable[[], None]
    made: dict[bytes, tuple[list[np.ndarray], methods.Chain]] = field(default_factory=dict)


def new_fits(oof: Oof, recipe: Recipe, advance: Callable[[], None] = lambda: None) -> Fits:
    return Fits(oof, recipe, plain_average(oof), advance)


def probabilities(fits: Fits, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Of the rows `test`, float64 (n, C), by the fit on the rows `train`, int64 (n,) each."""
    of_views, chain = _fit(fits, train)
    return methods.apply(chain, member_logits(fits.oof, fits.plain, of_views, test))


def cross_fitted(fits: Fits, rows: np.ndarray) -> Outcome:
    """Of the rows int64 (n,), each by a fit on those of them that are in other folds."""
    every = fits.oof.rows

    def of_others(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        return probabilities(fits, rows[train], rows[test])

    return outcome(every.labels[rows], cross_fit(of_others, every.folds[rows], every.clusters[rows]))


def as_stage(fits: Fits, threshold: float) -> Stage:
    """The fit on all rows, as it is saved."""
    of_views, chain = _fit(fits, np.arange(len(fits.oof.rows.labels)))
    weights = tuple(tuple(map(float, of_member)) for of_member in of_views)
    return Stage(threshold, fits.oof.members, fits.oof.views, weights, chain)


def _fit(fits: Fits, rows: np.ndarray) -> tuple[list[np.ndarray], methods.Chain]:
    key = rows.tobytes()
    if key not in fits.made:
        fits.made[key] = fit_rows(fits.oof, fits.plain, fits.recipe, rows)
        fits.advance()
    return fits.made[key]

"""The probabilities that a saved blend's scores are of: they are not saved with it, so it is fitted again."""

import numpy as np

from ensemble.blend import methods
from ensemble.blend.crossfit import Recipe, fit_rows, member_logits, plain_average
from ensemble.blend.oof import EXTERNAL_VIEW, Oof, read_oof
from ensemble.blend.result import BlendResult
from ensemble.run import Run
from ensemble.scoring.cross_fit import cross_fit


def cross_fitted(run: Run, blend: BlendResult) -> np.ndarray:
    """The probabilities that the blend's scores are of, float64 (N, C): those of each row by a fit without its fold.

    N is the number of validated rows. They are not saved with a blend, so it is fitted again. Raises UserError if the
    run no longer holds what it was fitted on.
    """
    trained = [member for member in blend.members if member not in blend.external]
    names = blend.views.get(trained[0])
    oof = read_oof(run, names if names != EXTERNAL_VIEW else None, trained)
    return cross_fit_of(oof, Recipe(blend.fitted.method, blend.fitted.metric, costs=blend.fitted.costs))


def cross_fit_of(oof: Oof, recipe: Recipe) -> np.ndarray:
    """As `ensemble.blend.crossfit.held_out`, but the probabilities themselves."""
    plain = plain_average(oof)

    def fit_apply(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        of_views, chain = fit_rows(oof, plain, recipe, train)
        return methods.apply(chain, member_logits(oof, plain, of_views, test))

    return cross_fit(fit_apply, oof.rows.folds, oof.rows.clusters)

"""The probabilities that a saved blend's scores are of: they are not saved with it, so it is fitted again."""

import numpy as np

from ensemble.blend.crossfit import held_out_probabilities, plain_average
from ensemble.blend.oof import EXTERNAL_VIEW, Oof, read_oof
from ensemble.blend.recipe import Recipe
from ensemble.blend.result import BlendResult
from ensemble.run import Run


def cross_fitted(run: Run, blend: BlendResult) -> np.ndarray:
    """The probabilities that the blend's scores are of, float64 (N, C): those of each row by a fit without its fold.

    N is the number of validated rows. They are not saved with a blend, so it is fitted again. Raises UserError if the
    run no longer holds what it was fitted on.
    """
    trained = [member for member in blend.members if member not in blend.external]
    names = blend.views.get(trained[0])
    oof = read_oof(run, names if names != EXTERNAL_VIEW else None, trained)
    fitted = blend.fitted
    recipe = Recipe(fitted.method, fitted.metric, costs=fitted.costs, calibration=fitted.calibration)
    return cross_fit_of(oof, recipe)


def cross_fit_of(oof: Oof, recipe: Recipe) -> np.ndarray:
    """As `ensemble.blend.crossfit.held_out`, but the probabilities themselves."""
    return held_out_probabilities(oof, plain_average(oof), recipe)[:, 0]

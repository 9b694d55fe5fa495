"""The probabilities that a saved blend's scores are of: as they were saved with it, or of the blend fitted again."""

import numpy as np

from ensemble.blend.crossfit import held_out_probabilities, plain_average
from ensemble.blend.described import read_described
from ensemble.blend.held_out import load_held_out
from ensemble.blend.oof import EXTERNAL_VIEW, Oof, read_oof, read_rows
from ensemble.blend.recipe import Recipe
from ensemble.blend.result import BlendResult
from ensemble.blend.saved import check_sources
from ensemble.errors import UserError
from ensemble.run import Run
from ensemble.scoring.row_values import row_losses

TOLERANCE = 1e-5  # nats: what float32 may move the log loss by


def cross_fitted(run: Run, blend: BlendResult) -> np.ndarray:
    """The probabilities that the blend's scores are of, float64 (N, C): those of each row by a fit without its fold.

    N is the number of validated rows. They are read where they were saved with the blend for all of these, else the
    blend is fitted again. Raises UserError if the run no longer holds what it was fitted on.
    """
    saved = _saved(run, blend)
    if saved is not None:
        return saved
    trained = [member for member in blend.members if member not in blend.external]
    names = blend.views.get(trained[0])
    oof = read_oof(run, names if names != EXTERNAL_VIEW else None, trained)
    fitted = blend.fitted
    recipe = Recipe(fitted.method, fitted.metric, costs=fitted.costs, calibration=fitted.calibration)
    return cross_fit_of(oof, recipe)


def cross_fit_of(oof: Oof, recipe: Recipe) -> np.ndarray:
    """As `ensemble.blend.crossfit.held_out`, but the probabilities themselves."""
    return held_out_probabilities(oof, plain_average(oof), recipe)[:, 0]


def _saved(run: Run, blend: BlendResult) -> np.ndarray | None:
    """None where the file lacks or is damaged, holds some of the rows or others, is of members that were trained again,
    or has another log loss than the blend's scores."""
    if blend.path is None or blend.external or blend.shifted or blend.fitted.sources is not None:
        return None
    try:
        check_sources(run, blend.name)
        sha256 = read_described(run, blend.name).get("held_out")
        found, rows = load_held_out(run, blend.name, sha256, len(blend.fitted.classes)), read_rows(run)
    except UserError:
        return None
    pairs = ((found.labels, rows.labels), (found.folds, rows.folds), (found.clusters, rows.clusters))
    if not all(np.array_equal(one, other) for one, other in pairs):
        return None
    probabilities = found.probabilities.astype(np.float64)
    loss = float(row_losses(rows.labels, probabilities).mean())
    return probabilities if abs(loss - blend.blend["log_loss"].value) < TOLERANCE else None

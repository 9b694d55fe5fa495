"""How the members differ: what blending lives on.

Disagreement and the correlation of errors are the pairwise measures of Kuncheva & Whitaker, "Measures of Diversity in
Classifier Ensembles" (Machine Learning, 2003).
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ensemble.blend.crossfit import held_out, only, plain_average
from ensemble.blend.oof import Oof
from ensemble.blend.priors import row_weights
from ensemble.blend.recipe import Recipe
from ensemble.scoring.bootstrap import Gain, bootstrap, gain, scores
from ensemble.scoring.outcomes import Outcome


@dataclass(frozen=True)
class Diversity:
    """How M members differ.

    disagreement: M rows of M shares of the rows, see the function below.
    error_correlation: M rows of M correlations, see the function below.
    costs: member -> what the blend gains by having it; empty where that was not computed.
    """

    disagreement: tuple[tuple[float, ...], ...] = ()
    error_correlation: tuple[tuple[float, ...], ...] = ()
    costs: dict[str, Gain] = field(default_factory=dict)


def diversity(predicted: np.ndarray, labels: np.ndarray, costs: dict[str, Gain]) -> Diversity:
    """How members differ that predict the classes int64 (M, N)."""
    tables = disagreement(predicted), error_correlation(predicted, labels)
    first, second = (tuple(tuple(map(float, row)) for row in table) for table in tables)
    return Diversity(first, second, costs)


def disagreement(predicted: np.ndarray) -> np.ndarray:
    """Share of the rows on which two members predict different classes, float64 (M, M), of predicted int64 (M, N)."""
    return np.array([[float((a != b).mean()) for b in predicted] for a in predicted])


def error_correlation(predicted: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Pearson correlation of two members' errors (0 or 1 on each row), float64 (M, M).

    NaN where a member is always right or always wrong: its errors don't vary.
    """
    wrong = (predicted != labels).astype(np.float64)
    wrong -= wrong.mean(axis=1, keepdims=True)
    norm = np.sqrt((wrong**2).sum(axis=1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(wrong @ wrong.T / np.outer(norm, norm))


def leave_out_costs(
    oof: Oof, recipe: Recipe, honest: Outcome, fitted: Callable[[], None] = lambda: None
) -> dict[str, Gain]:
    """For each member, what the cross-fitted blend with it gains, by its metric, over the same blend without it.

    fitted: called after each of the fits.
    """
    outcomes = [honest]
    for name in oof.members:
        rest = only(oof, [other for other in oof.members if other != name])
        outcomes.append(held_out(rest, plain_average(rest), recipe, fitted)[0])
    rows, weights = oof.rows, None if recipe.shares is None else row_weights(oof.rows.labels, recipe.shares)
    drawn = bootstrap(rows.labels, outcomes, rows.clusters, oof.classes, weights)
    table = scores(rows.labels, outcomes, rows.folds, oof.classes, drawn, weights)
    return {name: gain(recipe.metric, table, drawn, 0, 1 + m, f"without {name}") for m, name in enumerate(oof.members)}

"""A blend's scores beside those of the plain mean and of each member, and what it gains over them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ensemble.blend import methods
from ensemble.blend.crossfit import RowsFit, member_logits
from ensemble.blend.oof import Oof
from ensemble.blend.recipe import Recipe
from ensemble.scoring.bootstrap import Gain, Resampled, Score, bootstrap, gain, scores
from ensemble.scoring.metrics import METRICS
from ensemble.scoring.outcomes import Outcome, outcome, value

MOST_ROWS = 10_000  # of more, so many are drawn: scores of so many tell how the fits differ


@dataclass(frozen=True)
class Scored:
    """A blend, the plain mean and M members on the same rows.

    drawn: of these M + 2, in this order.
    table: metric -> Score of each.
    best: metric -> the best member by it.
    gains: of the blend over "mean" and over best[metric], per metric.
    """

    drawn: Resampled
    table: list[dict[str, Score]]
    best: dict[str, str]
    gains: tuple[Gain, ...]


def scored(
    oof: Oof,
    plain: np.ndarray,
    recipe: Recipe,
    outcomes: Sequence[Outcome],
    fits: Sequence[RowsFit],
    weights: np.ndarray | None,
) -> Scored:
    """outcomes: of the blend, cross-fitted; of the plain mean; of each member. fits: of the blend, without each fold.
    weights: float64 (N,), what each row counts. plain: z float32 (M, N, C), the plain averages of views."""
    rows, classes = oof.rows, oof.classes
    is_blend = np.arange(len(outcomes)) == 0
    between = variance_between(oof, plain, recipe, fits, weights)
    drawn = replace(
        bootstrap(rows.labels, outcomes, rows.clusters, classes, weights),
        fits={metric: variance * is_blend for metric, variance in between.items()},
    )
    table = scores(rows.labels, outcomes, rows.folds, classes, drawn, weights)
    members, best = range(2, len(outcomes)), {}
    gains: list[Gain] = []
    for metric in outcomes[0].metrics:
        first = max(members, key=lambda s: METRICS[metric].sign * table[s][metric].value)
        best[metric] = oof.members[first - 2]
        gains.append(gain(metric, table, drawn, 0, 1, "mean", same_classes=_decides_as_the_mean(recipe)))
        gains.append(gain(metric, table, drawn, 0, first, best[metric], members))
    return Scored(drawn, table, best, tuple(gains))


def variance_between(
    oof: Oof, plain: np.ndarray, recipe: Recipe, fits: Sequence[RowsFit], weights: np.ndarray | None = None
) -> dict[str, float]:
    """metric -> the variance (n - 1) of its value, on all rows, over the fits without each fold; 0 where it has none.

    The blend that is saved is none of those that were scored, and may lie as far from them as they from each other.
    """
    rows = np.arange(plain.shape[1])
    if len(rows) > MOST_ROWS:  # not every n-th: classes may take turns
        rows = np.sort(np.random.default_rng(0).permutation(rows)[:MOST_ROWS])
    labels, counted = oof.rows.labels[rows], None if weights is None else weights[rows]
    found: dict[str, list[float]] = {}
    for of_views, chain in fits:
        probs = methods.apply(chain, member_logits(oof, plain, of_views, rows))
        result = outcome(labels, probs, (recipe.metric,), recipe.costs)
        for metric in result.metrics:
            found.setdefault(metric, []).append(value(metric, labels, result, oof.classes, counted))
    return {
        metric: 0.0 if np.isnan(values).any() else float(np.var(values, ddof=1)) for metric, values in found.items()
    }


def _decides_as_the_mean(recipe: Recipe) -> bool:
    """Whether a blend predicts the plain mean's classes whatever the rows are: nothing moves them but a temperature."""
    return (
        recipe.method == "mean"
        and recipe.calibration == "temperature"
        and recipe.shares is None
        and recipe.costs is None
        and METRICS[recipe.metric].needs != "counts"
    )

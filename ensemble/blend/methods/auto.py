"""The simplest method within one standard error of the best cross-fitted score.

The one-standard-error rule is Breiman et al., "Classification and Regression Trees" (1984); choosing among candidates
by cross-fitting is the discrete super learner of van der Laan, Polley & Hubbard (SAGMB 2007).
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ensemble.blend import params as saved
from ensemble.scoring.bootstrap import bootstrap, deviation
from ensemble.scoring.cross_fit import cross_fit, usable_folds
from ensemble.scoring.metrics import METRICS
from ensemble.scoring.outcomes import outcome, value

NAME = "auto"
RESAMPLES = 200
# Scores that differ by less are equal: of one member, mean and vote are one function, fitted by two searches.
EQUAL = 1e-6

FitApply = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Choice:
    """What `auto` took.

    chosen: the name of the method.
    tried: name -> cross-fitted score of each candidate; empty where there was nothing to choose between.
    """

    chosen: str
    tried: dict[str, float]


def choose(
    candidates: Mapping[str, FitApply],
    labels: np.ndarray,
    folds: np.ndarray,
    clusters: np.ndarray,
    classes: int,
    metric: str,
    weights: np.ndarray | None = None,
    costs: np.ndarray | None = None,
) -> tuple[str, dict[str, float]]:
    """The chosen candidate's name, and each one's cross-fitted score by `metric`.

    candidates: from simple to free; each a function (train, test) -> probabilities, as `cross_fit` takes. The standard
    error is that of the paired difference from the best, by bootstrap over the clusters; scores that differ by less
    than 1e-6 are equal. With fewer than two clusters, or rows that the metric has no value on, there is nothing to
    compare and the first is chosen. costs: see `evaluate`.
    """
    if len(np.unique(usable_folds(folds, clusters))) < 2:
        return next(iter(candidates)), {}
    outcomes = [outcome(labels, cross_fit(run, folds, clusters), (metric,), costs) for run in candidates.values()]
    sign = METRICS[metric].sign
    scores = np.array([sign * value(metric, labels, result, classes, weights) for result in outcomes])
    drawn = sign * bootstrap(labels, outcomes, clusters, classes, weights, RESAMPLES)[metric]
    if np.isnan(scores).any():
        return next(iter(candidates)), {}
    best = int(scores.argmax())
    errors = [deviation(difference) for difference in (drawn - drawn[:, [best]]).T]
    first = next(i for i in range(len(outcomes)) if scores[best] - scores[i] <= max(errors[i], EQUAL))
    names = list(candidates)
    return names[first], {name: sign * float(score) for name, score in zip(names, scores, strict=True)}


def load(params: Mapping[str, Any], candidates: Collection[str]) -> Choice:
    """Raises ValueError that names what is not as `choose` makes it."""
    chosen = saved.one_of(params, "chosen", candidates)
    return Choice(chosen, saved.numbers_by_name(params, "tried", candidates))


def describe(choice: Choice, metric: str) -> str:
    """What was chosen, and why."""
    scores = ", ".join(f"{name} {score:.4f}" for name, score in choice.tried.items())
    why = f"the simplest within one standard error of the best by {metric}: {scores}"
    return f"auto took {choice.chosen}, {why if scores else 'the simplest: there is nothing to choose between'}"

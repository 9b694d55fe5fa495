"""The simplest method within one standard error of the best cross-fitted score.

The one-standard-error rule is Breiman et al., "Classification and Regression Trees" (1984); choosing among candidates
by cross-fitting is the discrete super learner of van der Laan, Polley & Hubbard (SAGMB 2007).
"""

from collections.abc import Callable, Mapping

import numpy as np

from ensemble.scoring.bootstrap import bootstrap
from ensemble.scoring.cross_fit import cross_fit, usable_folds
from ensemble.scoring.metrics import METRICS
from ensemble.scoring.outcomes import outcome, value

CANDIDATES = ("mean", "pool", "vote", "greedy", "stack")  # from simple to free; trees are left out for their time
RESAMPLES = 200
# Scores that differ by less are equal: of one member, mean and vote are one function, fitted by two searches.
EQUAL = 1e-6

FitApply = Callable[[np.ndarray, np.ndarray], np.ndarray]


def choose(
    candidates: Mapping[str, FitApply],
    labels: np.ndarray,
    folds: np.ndarray,
    units: np.ndarray,
    classes: int,
    metric: str,
    weights: np.ndarray | None = None,
) -> tuple[str, dict[str, float]]:
    """The chosen candidate's name, and each one's cross-fitted score by `metric`.

    candidates: from simple to free; each a function (train, test) -> probabilities, as `cross_fit` takes. The standard
    error is that of the paired difference from the best, by bootstrap over the units; scores that differ by less than
    1e-6 are equal. With fewer than two units there is nothing to compare and the first is chosen.
    """
    if len(np.unique(usable_folds(folds, units))) < 2:
        return next(iter(candidates)), {}
    outcomes = [outcome(labels, cross_fit(run, folds, units), (metric,)) for run in candidates.values()]
    sign = METRICS[metric].sign
    scores = np.array([sign * value(metric, labels, result, classes, weights) for result in outcomes])
    drawn = sign * bootstrap(labels, outcomes, units, classes, weights, RESAMPLES)[metric]
    best = int(scores.argmax())
    errors = (drawn - drawn[:, [best]]).std(axis=0, ddof=1)
    first = next(i for i in range(len(outcomes)) if scores[best] - scores[i] <= max(errors[i], EQUAL))
    names = list(candidates)
    return names[first], {name: sign * float(score) for name, score in zip(names, scores, strict=True)}

"""What a blend gains in log loss over rivals that are given one temperature each.

Networks are rarely calibrated: label smoothing alone makes them underconfident, and every blend corrects that. If its
rivals had no temperature (Guo et al., ICML 2017), a blend would be credited with what a single number does.
"""

import numpy as np

from ensemble.blend import BlendResult
from ensemble.blend.crossfit import plain_average
from ensemble.blend.methods.pool import inverse_temperature
from ensemble.blend.oof import EXTERNAL_VIEW, Oof, read_oof
from ensemble.blend.probabilities import softmax
from ensemble.run import Run
from ensemble.scoring.bootstrap import Gain, bootstrap, gain, scores
from ensemble.scoring.cross_fit import cross_fit
from ensemble.scoring.outcomes import outcome


def over_tempered(run: Run, best: BlendResult, oof: Oof, saved: bool, probabilities: np.ndarray) -> dict[str, Gain]:
    """The gains in log loss over "mean", the plain mean, and "single", the best member, at their temperatures, each
    fitted on the other folds. "single" is the member that is best at its temperature.

    best: the blend, or the plain mean if no blend is saved, which then has a temperature too
    oof: the logits that the plain mean is of, if no blend is saved
    probabilities: float64 (N, C), the cross-fitted ones of a saved blend
    """
    if saved:
        names = best.views.get(next(iter(best.members)))
        oof = read_oof(run, names if names != EXTERNAL_VIEW else None, list(best.members))
    rows, labels = oof.rows, oof.rows.labels
    plain = plain_average(oof)

    def at_temperature(z: np.ndarray) -> np.ndarray:
        def fit_apply(train: np.ndarray, test: np.ndarray) -> np.ndarray:
            return softmax(z[test] * inverse_temperature(z[train], labels[train]))

        return cross_fit(fit_apply, rows.folds, rows.clusters)

    tempered = [outcome(labels, at_temperature(z)) for z in (plain.mean(axis=0), *plain)]
    first = 1 + int(np.argmin([member.losses.mean() for member in tempered[1:]]))
    outcomes = [outcome(labels, probabilities) if saved else tempered[0], tempered[0], tempered[first]]
    drawn = bootstrap(labels, outcomes, rows.clusters, oof.classes)
    table = scores(labels, outcomes, rows.folds, oof.classes, drawn)
    return {
        "mean": gain("log_loss", table, drawn, 0, 1, "mean"),
        "single": gain("log_loss", table, drawn, 0, 2, oof.members[first - 1]),
    }

"""The predictions of the best saved blend of a run, and the plain mean in the place of one."""

from dataclasses import replace

import numpy as np

from ensemble.blend import BlendResult
from ensemble.blend.crossfit import plain_average
from ensemble.blend.fit import fit_oof
from ensemble.blend.members import member_outcomes
from ensemble.blend.oof import Oof, Rows
from ensemble.blend.probabilities import geometric_mean
from ensemble.blend.recipe import Recipe
from ensemble.blend.refitted import cross_fitted
from ensemble.errors import UserError
from ensemble.run import Run
from ensemble.scoring.bootstrap import Gain, Score, bootstrap, gain, scores
from ensemble.scoring.outcomes import outcome

Scores = dict[str, Score]  # by metric

TOLERANCE = 1e-4  # nats: what a refit may differ by from the saved score, on another machine or library


def row_probabilities(
    run: Run, oof: Oof, candidates: tuple[BlendResult, ...], problems: list[str]
) -> tuple[np.ndarray, str, np.ndarray | None]:
    """The cross-fitted probabilities of the best blend that can be fitted again from the run alone, else of the mean;
    what they are of, in words, and the blend's costs.

    The out-of-fold predictions of an external member are in the user's file, not in the run.
    """
    for blend in candidates:
        if blend.external:
            continue
        try:
            probabilities = cross_fitted(run, blend)
        except UserError as error:
            problems.append(str(error))
            continue
        now = float(outcome(oof.rows.labels, probabilities).losses.mean())
        saved = blend.blend["log_loss"].value
        if abs(now - saved) > TOLERANCE:
            problems.append(
                f"blend {blend.name}: fitted again, its log loss is {now:.4f}, but {saved:.4f} is saved; save it again "
                f"with: ens blend {run}"
            )
            continue
        return probabilities, of_blend(blend), blend.fitted.costs
    what = "the plain mean of the members, out of fold" if len(oof.members) > 1 else f"{oof.members[0]}, out of fold"
    return geometric_mean(plain_average(oof)), what, None


def of_blend(blend: BlendResult) -> str:
    return f"blend {blend.name}, cross-fitted"


def plain_mean(oof: Oof) -> BlendResult:
    """The plain mean of the members in the place of a blend, with nothing fitted."""
    mean = fit_oof(oof, Recipe("mean"))
    labels = oof.rows.labels
    single = member_outcomes(plain_average(oof), labels)
    outcomes = [outcome(labels, geometric_mean(plain_average(oof))), *single]
    drawn = bootstrap(labels, outcomes, oof.rows.clusters, oof.classes)
    table = scores(labels, outcomes, oof.rows.folds, oof.classes, drawn)
    gains: list[Gain] = []
    for metric in drawn if len(oof.members) > 1 else ():
        index = oof.members.index(mean.best[metric])
        gains.append(gain(metric, table, drawn, 0, 1 + index, mean.best[metric]))
    plain = {"blend": mean.calibration["plain mean"]}
    bins = {"blend": mean.reliability["plain mean"]}
    return replace(
        mean,
        name="plain mean",
        blend=table[0],
        gains=tuple(gains),
        calibration=plain,
        reliability=bins,
        diversity=replace(mean.diversity, costs={}),
        notes=(),
    )


def some_rows(oof: Oof, where: np.ndarray) -> Oof:
    """The same members on the rows `where` int64 (n,)."""
    every = oof.rows
    rows = Rows(
        every.ids[where], every.labels[where], every.folds[where], every.clusters[where], every.grouped, every.classes
    )
    return Oof(
        rows, oof.members, oof.views, tuple(logits[:, where] for logits in oof.values), oof.left_out, oof.external
    )

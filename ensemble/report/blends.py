"""The saved blends of a run with their scores, and the plain mean in the place of one."""

from dataclasses import replace

import numpy as np

from ensemble.blend import BlendResult
from ensemble.blend.crossfit import plain_average
from ensemble.blend.fit import fit_oof
from ensemble.blend.members import member_outcomes
from ensemble.blend.oof import Oof, Rows
from ensemble.blend.probabilities import geometric_mean
from ensemble.blend.recipe import Recipe
from ensemble.scoring.bootstrap import Gain, Score, bootstrap, gain, scores
from ensemble.scoring.outcomes import outcome

Scores = dict[str, Score]  # by metric


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

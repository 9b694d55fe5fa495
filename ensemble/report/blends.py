"""The saved blends of a run with their scores, and the plain mean in the place of one."""

from dataclasses import replace

import numpy as np

from ensemble.blend import BlendResult, check_sources, list_blends, load_blend, read_result
from ensemble.blend.crossfit import plain_average
from ensemble.blend.fit import fit_oof
from ensemble.blend.members import member_outcomes
from ensemble.blend.oof import Oof, Rows, finished
from ensemble.blend.probabilities import geometric_mean
from ensemble.blend.recipe import Recipe
from ensemble.blend.sources import other_runs
from ensemble.errors import UserError
from ensemble.plural import pluralize
from ensemble.run import Run
from ensemble.scoring.bootstrap import Gain, Score, bootstrap, gain, scores
from ensemble.scoring.outcomes import outcome

Scores = dict[str, Score]  # by metric


def read_blends(run: Run, rows: Rows) -> tuple[tuple[BlendResult, ...], dict[str, str], tuple[str, ...]]:
    """The blends, the lowest log loss first; name -> why, of those that don't belong to what the run holds now; and a
    line for each that can't be shown."""
    found, stale, problems = [], {}, []
    for name in list_blends(run):
        try:
            result = read_result(run, name)
        except UserError as error:
            problems.append(str(error))
            continue
        if result is None and load_blend(run, name).stages:
            continue  # a cascade, which is shown as such
        if result is None:
            problems.append(f"blend {name} holds no scores; fit it again with: ens blend {run}")
            continue
        found.append(result)
        why = _stale(run, result, rows)
        if why is not None:
            stale[name] = why
        if others := ", ".join(map(str, other_runs(run, result.fitted.sources))):
            problems.append(f"blend {name} holds members of {others} too: it stands in the table of blends alone")
    # Blends that differ only in the last bits count as equal: the plainer name comes first.
    found.sort(
        key=lambda result: (round(result.blend["log_loss"].value, 9), result.fitted.metric != "log_loss", result.name)
    )
    return tuple(found), stale, tuple(problems)


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


def _stale(run: Run, blend: BlendResult, rows: Rows) -> str | None:
    if blend.fitted.sources is None and blend.rows != len(rows.ids):
        return f"it was fitted on {pluralize(blend.rows, 'row')}, but the run has {len(rows.ids):,}"
    try:
        check_sources(run, blend.name)
    except UserError as error:
        return str(error)
    there = run.member_names()
    for member in blend.members:
        if member in blend.external or "/" in member:  # of another run: `check_sources` has seen it
            continue
        if member not in there:
            return f"the run has no member {member!r} any more"
        if len(finished(run, member, rows)) < len(np.unique(rows.folds)):
            return f"its member {member!r} is not finished now"
    return None

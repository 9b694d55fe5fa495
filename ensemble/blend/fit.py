"""`ens blend`: from a run's out-of-fold logits to a saved blend and the table that says what it is worth."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ensemble import rundir
from ensemble.blend import methods
from ensemble.blend.metrics import METRICS, TARGETS, require_target
from ensemble.blend.oof import finished, read_member, read_oof, read_rows
from ensemble.blend.probabilities import geometric_mean, true_class
from ensemble.blend.saved import Blend, require_name
from ensemble.blend.score import Gain, Outcome, Score, bootstrap, cross_fit, gain, outcome, scores


@dataclass(frozen=True)
class BlendResult:
    """A saved blend with its cross-fitted scores and what they are compared with.

    Scores are metric -> Score for log_loss, accuracy and macro_f1; `blend` on rows that its weights were not fitted
    on, `mean` and `members` (which have nothing fitted) on the same rows. best: metric -> the best single member by
    that metric on these rows, which favours it a little. gains: against "mean" and against best[metric], per metric.
    weights: member -> weight and, where there is one, temperature, of the blend fitted on all rows, which is the one
    saved. left_out: member -> why. notes: lines to print.
    """

    name: str
    path: Path
    fitted: Blend
    rows: int
    folds: int
    groups: int | None
    blend: dict[str, Score]
    mean: dict[str, Score]
    members: dict[str, dict[str, Score]]
    best: dict[str, str]
    gains: tuple[Gain, ...]
    weights: dict[str, dict[str, float]]
    left_out: dict[str, str]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class MemberRow:
    """One member's own out-of-fold scores on the rows of its finished folds; no scores where none is finished."""

    member: str
    done: tuple[int, ...]
    folds: int
    rows: int
    scores: dict[str, Score]


def blend_run(
    run: Path,
    method: str,
    metric: str = "log_loss",
    name: str | None = None,
    views: Sequence[str] | None = None,
    members: Sequence[str] | None = None,
) -> BlendResult:
    """Fit `method`, directed at `metric`, on the run's OOF logits, score it by cross-fitting, and save it.

    name: what to save it as; the method's name, with "-<metric>" for another metric than log_loss. views, members:
    those to use; None for all. The saved blend is fitted on all rows; its score is that of fits on the other folds.
    Raises UserError as `read_oof`, for an unknown method or metric, and if the rows can't be divided.
    """
    methods.require_method(method)
    require_target(metric)
    name = name or (method if metric == "log_loss" else f"{method}-{metric}")
    require_name(name)
    oof = read_oof(run, views, members)
    rows, z = oof.rows, oof.z
    labels, classes = rows.labels, len(rows.classes)

    def fit(train: np.ndarray) -> dict[str, Any]:
        own = z if len(train) == len(labels) else z[:, train]
        return methods.fit(method, metric, own, labels[train], rows.folds[train], rows.units[train])

    def fit_apply(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        return methods.apply(method, fit(train), z[:, test])

    mean = outcome(labels, geometric_mean(z))
    honest = mean if method == "mean" else outcome(labels, cross_fit(fit_apply, rows.folds, rows.units, classes))
    outcomes = [honest, mean, *member_outcomes(z, labels)]
    drawn = bootstrap(labels, outcomes, rows.units, classes)
    table = scores(labels, outcomes, rows.folds, classes, drawn)

    gains, best = [], {}
    for target in TARGETS:
        sign = 1 if METRICS[target][1] else -1
        first = max(range(len(oof.members)), key=lambda m: sign * table[2 + m][target].value)
        best[target] = oof.members[first]
        gains += [gain(target, table, drawn, 0, 1, "mean"), gain(target, table, drawn, 0, 2 + first, best[target])]

    params = fit(np.arange(len(labels)))
    blend = Blend(method, metric, oof.members, oof.views, rows.classes, params)
    result = BlendResult(
        name=name,
        path=rundir.blend_json(run, name),
        fitted=blend,
        rows=len(labels),
        folds=len(np.unique(rows.folds)),
        groups=len(np.unique(rows.units)) if rows.grouped else None,
        blend=table[0],
        mean=table[1],
        members=dict(zip(oof.members, table[2:], strict=True)),
        best=best,
        gains=tuple(gains),
        weights=methods.readable(method, params, oof.members),
        left_out=oof.left_out,
        notes=tuple(methods.notes(method, metric, params)),
    )
    facts = asdict(result)
    kept = ("rows", "folds", "groups", "blend", "mean", "members", "best", "gains", "weights", "left_out", "notes")
    blend.save(run, name, {key: facts[key] for key in kept})
    return result


def members_table(run: Path) -> list[MemberRow]:
    """Every member of the run with the OOF scores of its finished folds (views averaged), in order of name.

    Raises UserError as `read_rows` and `read_member` do.
    """
    rows = read_rows(run)
    numbers = np.unique(rows.folds)
    out = []
    for member in rundir.members(run):
        done = finished(run, member, rows)
        if not done:
            out.append(MemberRow(member, (), len(numbers), 0, {}))
            continue
        z = read_member(run, member, rows, folds=done)[0]
        where = np.flatnonzero(np.isin(rows.folds, done))
        labels = rows.labels[where]
        own = member_outcomes(z[None, where], labels)
        drawn = bootstrap(labels, own, rows.units[where], len(rows.classes))
        table = scores(labels, own, rows.folds[where], len(rows.classes), drawn)
        out.append(MemberRow(member, tuple(done), len(numbers), len(where), table[0]))
    return out


def member_outcomes(z: np.ndarray, labels: np.ndarray) -> list[Outcome]:
    """The outcome of each member by itself, from z float32 (M, N, C)."""
    losses = -np.log(true_class(z, labels))
    return [Outcome(losses[:, m], z[m].argmax(axis=1)) for m in range(len(z))]

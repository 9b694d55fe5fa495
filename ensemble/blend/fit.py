"""`ens blend`: from out-of-fold logits to a fitted blend and the table that says what it is worth."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from ensemble import rundir
from ensemble.blend import methods
from ensemble.blend.crossfit import counted, fit_rows, held_out, plain_average, without_useless
from ensemble.blend.described import read_described
from ensemble.blend.diversity import Diversity, diversity, leave_out_costs
from ensemble.blend.external.members import ForeignFiles, read_labels, read_tests, rows_of, with_foreign
from ensemble.blend.oof import Oof, finished, read_member, read_oof, read_rows
from ensemble.blend.priors import read_priors
from ensemble.blend.probabilities import geometric_mean, softmax
from ensemble.blend.prune import Pruned, pruned
from ensemble.blend.saved import Blend, require_name
from ensemble.data.logits import Logits
from ensemble.errors import UserError
from ensemble.progress import Show
from ensemble.scoring.bootstrap import Gain, Score, bootstrap, gain, scores
from ensemble.scoring.calibration import Bin, Calibration, calibration, reliability
from ensemble.scoring.cross_fit import usable_folds
from ensemble.scoring.metrics import METRICS, require_metric
from ensemble.scoring.outcomes import Outcome, outcome

MOST_WORK = 200_000_000  # numbers x members: of more, what leaving each member out costs is not computed


@dataclass(frozen=True)
class BlendResult:
    """A fitted blend with its cross-fitted scores and what they are compared with.

    Scores are metric -> Score, of the metrics that are computed always and of the one asked for; `blend` on rows that
    its weights were not fitted on, `mean` and `members` (which have nothing fitted) on the same rows, views averaged.
    best: metric -> the best single member by that metric on these rows, which favours it a little. gains: against
    "mean" and against best[metric], per metric. calibration: "plain mean", "blend" and, where it has a temperature of
    its own, "blend before its temperature". reliability: the bins of the same. diversity: how the members differ.
    weights: member -> weight and, where there is one, temperature, of the blend fitted on all rows, which is `fitted`;
    views: member -> the views that it was fitted on; view_weights: member -> view -> weight, for members of several
    views. unused: members, and (member, view) pairs, that have no part in it. pruned: what can be left out without
    loss, if that was asked for. left_out: member -> why. notes: lines to print. path: where it is saved, if it is.
    tests: member -> test predictions, of the foreign members that have some.
    """

    name: str
    path: Path | None
    fitted: Blend
    rows: int
    folds: int
    groups: int | None
    blend: dict[str, Score]
    mean: dict[str, Score]
    members: dict[str, dict[str, Score]]
    best: dict[str, str]
    gains: tuple[Gain, ...]
    calibration: dict[str, Calibration]
    reliability: dict[str, tuple[Bin, ...]]
    diversity: Diversity
    weights: dict[str, dict[str, float]]
    views: dict[str, tuple[str, ...]]
    view_weights: dict[str, dict[str, float]]
    unused: tuple[str, ...]
    pruned: Pruned | None
    left_out: dict[str, str]
    notes: tuple[str, ...]
    optimistic: tuple[str, ...] = ()
    tests: dict[str, Logits] = field(default_factory=dict)


@dataclass(frozen=True)
class MemberRow:
    """One member's own out-of-fold scores on the rows of its finished folds; no scores where none is finished."""

    member: str
    done: tuple[int, ...]
    folds: int
    rows: int
    scores: dict[str, Score]
    optimistic: bool  # each fold kept the epoch that was best on these rows


def blend_run(
    run: Path,
    method: str,
    metric: str = "log_loss",
    name: str | None = None,
    views: Sequence[str] | None = None,
    members: Sequence[str] | None = None,
    foreign: Sequence[ForeignFiles] = (),
    priors: str | None = None,
    prune: bool = False,
    say: Callable[[str], None] = print,
    show: Show = lambda text, done, total: None,
) -> BlendResult:
    """Fit `method`, directed at `metric`, on the run's OOF logits, score it by cross-fitting, and save it.

    name: what to save it as; the method's name, with "-<metric>" for another metric than log_loss. views, members:
    those to use; None for all. foreign: predictions of others, to blend as further members. priors: "uniform" or a
    file, see `read_priors`. The saved blend is fitted on all rows; its score is that of fits on the other folds.
    Raises UserError as `read_oof`, for an unknown method or metric, if the rows can't be divided, and, where only some
    members or views were asked for and no name, if a blend of others would be written over.
    """
    methods.require_method(method)
    require_metric(metric)
    partial = not name and (views is not None or members is not None)
    name = name or (method if metric == "log_loss" else f"{method}-{metric}")
    require_name(name)
    oof = with_foreign(read_oof(run, views, members), foreign, say)
    if partial:
        _refuse_to_replace(run, name, oof)
    shares = None if priors is None else read_priors(priors, oof.rows.classes)
    tests = read_tests(foreign, oof.rows, say)
    flattered = tuple(member for member in oof.members if rundir.is_optimistic(run, member))
    result = replace(fit_oof(oof, method, metric, shares, prune, show), optimistic=flattered)
    facts = asdict(result)
    for key in ("name", "path", "fitted", "tests"):
        del facts[key]
    result.fitted.save(run, name, facts, tests)
    lacking = [member for member in result.fitted.foreign if member not in tests]
    if lacking:
        say(f"warning: {lacking[0]} has no test predictions; to predict, fit again with --add {lacking[0]}=OOF,TEST")
    return replace(result, name=name, path=rundir.blend_json(run, name), tests=tests)


def blend_files(
    labels: Path,
    foreign: Sequence[ForeignFiles],
    method: str,
    metric: str = "log_loss",
    priors: str | None = None,
    prune: bool = False,
    say: Callable[[str], None] = print,
    wanted: Callable[[Sequence[str], tuple[str, ...]], Sequence[str]] | None = None,
    show: Show = lambda text, done, total: None,
) -> BlendResult:
    """As `blend_run`, of foreign members alone, with no run directory and nothing saved.

    labels: see `read_labels`. wanted: called before the fit with the ids of the first member's test predictions and the
    classes; it gives the ids that all test predictions must have.
    """
    methods.require_method(method)
    require_metric(metric)
    oof = with_foreign(Oof(read_labels(labels), (), (), (), {}), foreign, say)
    # With no folds of their own the rows are dealt at random, here already: the spread over folds is shown for these.
    oof = replace(oof, rows=replace(oof.rows, folds=usable_folds(oof.rows.folds, oof.rows.units)))
    shares = None if priors is None else read_priors(priors, oof.rows.classes)
    tests = read_tests(foreign, oof.rows, say)
    if wanted is not None and tests:
        ids = wanted([str(name) for name in next(iter(tests.values())).ids], oof.rows.classes)
        for member, test in tests.items():
            _test_rows(member, test, ids)
    return replace(fit_oof(oof, method, metric, shares, prune, show), tests=tests)


def apply_files(result: BlendResult, ids: Sequence[str] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Blend the test predictions of `blend_files`: ids str (N,) and probabilities float64 (N, C).

    ids: those wanted, in their order; None for those of the blend's first member. Raises UserError for a member of the
    blend without test predictions, and for an id that one lacks.
    """
    blend = result.fitted
    lacking = [member for member in blend.members if member not in result.tests]
    if lacking:
        raise UserError(f"{lacking[0]} has no test predictions; name them with --add {lacking[0]}=OOF,TEST")
    tests = {member: result.tests[member] for member in blend.members}
    wanted = tests[blend.members[0]].ids if ids is None else np.asarray(ids)
    return wanted, blend.apply([_test_rows(member, test, wanted) for member, test in tests.items()])


def fit_oof(
    oof: Oof,
    method: str,
    metric: str = "log_loss",
    priors: np.ndarray | None = None,
    prune: bool = False,
    show: Show = lambda text, done, total: None,
) -> BlendResult:
    """Fit, cross-fit and compare; nothing is read or written. priors: (C,), see `methods.fit`. prune: see `pruned`."""
    rows, labels, classes = oof.rows, oof.rows.labels, oof.classes
    weights = None if priors is None else methods.row_weights(labels, priors)
    plain = plain_average(oof)
    mean, single = outcome(labels, geometric_mean(plain), (metric,)), member_outcomes(plain, labels, (metric,))
    costly = len(oof.members) > 1 and method != "trees" and plain.size * len(oof.members) <= MOST_WORK
    fitted = counted(show, oof, costly)
    honest, before = held_out(oof, plain, method, metric, priors, fitted)
    outcomes = [honest, mean, *single]
    drawn = bootstrap(labels, outcomes, rows.units, classes, weights)
    table = scores(labels, outcomes, rows.folds, classes, drawn, weights)
    gains, best = [], {}
    for target in honest.metrics:
        sign = METRICS[target].sign
        first = max(range(len(oof.members)), key=lambda m: sign * table[2 + m][target].value)
        best[target] = oof.members[first]
        gains += [gain(target, table, drawn, 0, 1, "mean"), gain(target, table, drawn, 0, 2 + first, best[target])]

    of_views, params = fit_rows(oof, plain, method, metric, priors, np.arange(len(labels)))
    fitted()
    blend, unused = without_useless(oof, method, metric, of_views, params)
    stages = {"plain mean": mean, "blend before its temperature": before, "blend": honest}
    if "inverse_temperature" not in params:
        del stages["blend before its temperature"]
    notes = methods.notes(method, metric, params)
    final = params.get("chosen", method)
    costs: dict[str, Gain] = {}
    if costly:
        costs = leave_out_costs(oof, final, metric, priors, honest, fitted)
    elif len(oof.members) > 1:
        notes.append("what leaving each member out costs was not computed: it would take long here")
    return BlendResult(
        name=method,
        path=None,
        fitted=blend,
        rows=len(labels),
        folds=len(np.unique(rows.folds)),
        groups=len(np.unique(rows.units)) if rows.grouped else None,
        blend=table[0],
        mean=table[1],
        members=dict(zip(oof.members, table[2:], strict=True)),
        best=best,
        gains=tuple(gains),
        calibration={name: calibration(labels, own) for name, own in stages.items()},
        reliability={name: tuple(reliability(own.predicted == labels, own.confidence)) for name, own in stages.items()},
        diversity=diversity(np.stack([own.predicted for own in single]), labels, costs),
        weights=methods.readable(method, params, oof.members),
        views=dict(zip(oof.members, oof.views, strict=True)),
        view_weights={
            member: dict(zip(names, map(float, own), strict=True))
            for member, names, own in zip(oof.members, oof.views, of_views, strict=True)
            if len(names) > 1
        },
        unused=unused,
        pruned=pruned(oof, final, metric, priors, honest, costs, counted(show, oof, not costs)) if prune else None,
        left_out=oof.left_out,
        notes=tuple(notes),
    )


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
            out.append(MemberRow(member, (), len(numbers), 0, {}, rundir.is_optimistic(run, member)))
            continue
        z = read_member(run, member, rows, folds=done)[0].mean(axis=0)
        where = np.flatnonzero(np.isin(rows.folds, done))
        labels = rows.labels[where]
        own = member_outcomes(z[None, where], labels)
        drawn = bootstrap(labels, own, rows.units[where], len(rows.classes))
        table = scores(labels, own, rows.folds[where], len(rows.classes), drawn)
        flattered = rundir.is_optimistic(run, member)
        out.append(MemberRow(member, tuple(done), len(numbers), len(where), table[0], flattered))
    return out


def member_outcomes(z: np.ndarray, labels: np.ndarray, asked: Sequence[str] = ()) -> list[Outcome]:
    """The outcome of each member by itself, from z float32 (M, N, C). asked: as `outcome` takes."""
    return [outcome(labels, softmax(member), asked) for member in z]


def _refuse_to_replace(run: Path, name: str, oof: Oof) -> None:
    """Raise UserError if the run's blend `name` was fitted on other members or views than those of `oof`."""
    path = rundir.blend_json(run, name)
    if path.is_file():
        try:
            fitted_on = read_described(run, name).get("scores", {}).get("views")
        except UserError:  # broken: to fit it again is what mends it
            return
        if fitted_on != {member: list(own) for member, own in zip(oof.members, oof.views, strict=True)}:
            raise UserError(
                f"{run}: there is a blend {name!r} already, of other members or views; give this one its own --name"
            )


def _test_rows(member: str, test: Logits, ids: Sequence[str] | np.ndarray) -> np.ndarray:
    return rows_of(test, ids, f"{test.meta['source']}: {member}")

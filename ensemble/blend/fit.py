"""`ens blend`: from out-of-fold logits to a fitted blend and the table that says what it is worth.

What reads tables is imported where there are any: importing pandas takes a third of the time of a small blend.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ensemble.blend import methods, scaling
from ensemble.blend.calibrated import miscalibrated_groups, scaling_gain
from ensemble.blend.costs import read_costs
from ensemble.blend.crossfit import (
    RowsFit,
    counted_fits,
    fit_rows,
    held_out_probabilities,
    plain_average,
    without_zero_weight,
)
from ensemble.blend.decision import decision
from ensemble.blend.diversity import diversity, leave_out_costs
from ensemble.blend.gains import scored
from ensemble.blend.oof import Oof, read_oof
from ensemble.blend.options import BlendOptions
from ensemble.blend.priors import read_priors, row_weights
from ensemble.blend.probabilities import geometric_mean, softmax
from ensemble.blend.prune import pruned
from ensemble.blend.recipe import Recipe
from ensemble.blend.result import BlendResult, saved_views
from ensemble.blend.saved import require_name
from ensemble.blend.several import read_runs
from ensemble.blend.sources import run_names, source
from ensemble.conformal.rows import HeldOut
from ensemble.conformal.selective import risk_coverage
from ensemble.data.logits import Logits
from ensemble.errors import UserError
from ensemble.events import SILENT, Events
from ensemble.run import Run
from ensemble.scoring.bootstrap import Gain, Score
from ensemble.scoring.calibration import calibration, reliability
from ensemble.scoring.cross_fit import usable_folds
from ensemble.scoring.metrics import METRICS, require_metric
from ensemble.scoring.miscalibration import by_class
from ensemble.scoring.outcomes import outcome, value
from ensemble.trackers.results import log_blend

MOST_WORK = 200_000_000  # numbers x members: of more, what leaving each member out costs is not computed
MOST_HELD_OUT = 20_000_000  # numbers that are kept of the cross-fitted probabilities: 80 MB


def blend_run(
    run: Run,
    options: BlendOptions,
    events: Events = SILENT,
) -> BlendResult:
    """Fit a blend on the run's OOF logits, score it by cross-fitting, and save it.

    The saved blend is fitted on all rows; its score is that of fits on the other folds. Raises UserError as `read_oof`,
    for an unknown method or metric, if the rows can't be divided, and, where only some members or views were asked for
    and no name, if a blend of others would be written over.
    """
    _require(options)
    others = [Run(path) for path in options.with_runs]
    plain = plain_name(options.method, options.metric, options.calibration)
    name = options.name or "-".join([plain, *list(run_names([run, *others]).values())[1:]])
    require_name(name)
    sources = None
    if others:
        oof, sources = read_runs([run, *others], options.views, options.members, events.message)
    else:
        oof = read_oof(run, options.views, options.members)
    if options.external:
        from ensemble.blend.external.members import with_external

        oof = with_external(oof, options.external, events.message)
    if not options.name and (others or options.views is not None or options.members is not None):
        _refuse_to_replace(run, name, oof)
    recipe = _recipe(options, oof)
    tests: dict[str, Logits] = {}
    if options.external:
        from ensemble.blend.external.members import read_tests

        tests = read_tests(options.external, oof.rows, events.message)
    trained = [member for member in oof.members if member not in oof.external]
    optimistic = tuple(member for member in trained if source(run, sources, member).is_optimistic())
    result = fit_oof(oof, recipe, options.prune, events)
    result = replace(result, fitted=replace(result.fitted, sources=sources), optimistic=optimistic, tests=tests)
    if sources is not None and result.held_out is not None:
        parts = np.unique(oof.rows.folds)  # in the order of the sets
        placed = replace(result.held_out, folds=np.searchsorted(parts, result.held_out.folds))
        result = replace(result, held_out=placed if sources.are_folds(len(parts)) else None)
    result = result.save(run, name)
    log_blend(run, name, result.blend, events)
    lacking = [member for member in result.fitted.external if member not in tests]
    if lacking:
        events.message(
            f"warning: {lacking[0]} has no test predictions; to predict, fit again with --add {lacking[0]}=OOF,TEST"
        )
    return result


def plain_name(method: str, metric: str, calibration: str) -> str:
    """What a blend is saved as that was given no name."""
    metric, calibration = metric.replace("log_loss", ""), calibration.replace("temperature", "")
    return "-".join(part for part in (method, metric, calibration) if part)


def blend_files(
    labels: Path,
    options: BlendOptions,
    events: Events = SILENT,
    wanted: Callable[[Sequence[str], tuple[str, ...]], Sequence[str]] | None = None,
) -> BlendResult:
    """As `blend_run`, of external members alone, with no run directory and nothing saved.

    labels: see `read_labels`. options: without name, views and members. wanted: called before the fit with the ids of
    the first member's test predictions and the classes; it gives the ids that all test predictions must have.
    """
    from ensemble.blend.external.members import read_labels, read_tests, with_external

    _require(options)
    rows = read_labels(labels)
    if len(rows.classes) < 2:
        raise UserError(f"{labels}: only one class, {rows.classes[0]!r}; a classifier needs two or more")
    oof = with_external(Oof(rows, (), (), (), {}), options.external, events.message)
    # Rows without folds are dealt at random, here already: the spread over folds is shown for these.
    oof = replace(oof, rows=replace(oof.rows, folds=usable_folds(oof.rows.folds, oof.rows.clusters)))
    recipe = _recipe(options, oof)
    tests = read_tests(options.external, oof.rows, events.message)
    if wanted is not None and tests:
        ids = wanted([str(name) for name in next(iter(tests.values())).ids], oof.rows.classes)
        for member, test in tests.items():
            _test_rows(member, test, ids)
    return replace(fit_oof(oof, recipe, options.prune, events), tests=tests)


def _require(options: BlendOptions) -> None:
    """Raise UserError, before anything is read, for an unknown method or metric, and for costs without the metric that
    needs them, or that metric without costs."""
    methods.require_method(options.method)
    scaling.require_kind(options.calibration)
    unread = None if options.costs is None else np.empty(0)
    if require_metric(options.metric, costs=unread).needs != "costs" and options.costs is not None:
        needing = ", ".join(name for name, metric in METRICS.items() if metric.needs == "costs")
        raise UserError(f"--costs {options.costs} goes with --metric {needing}, not {options.metric}")


def _recipe(options: BlendOptions, oof: Oof) -> Recipe:
    classes = oof.rows.classes
    shares = None if options.priors is None else read_priors(options.priors, classes)
    costs = None if options.costs is None else read_costs(options.costs, classes)
    return Recipe(options.method, options.metric, shares, costs, options.calibration)


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


def fit_oof(oof: Oof, recipe: Recipe, prune: bool = False, events: Events = SILENT) -> BlendResult:
    """Fit, cross-fit and compare; nothing is read or written. prune: see `pruned`."""
    rows, labels, classes = oof.rows, oof.rows.labels, oof.classes
    weights = None if recipe.shares is None else row_weights(labels, recipe.shares)
    plain = plain_average(oof)
    require_metric(recipe.metric, classes, recipe.costs)
    mean, *single = (
        outcome(labels, probs, (recipe.metric,), recipe.costs)
        for probs in (geometric_mean(plain), *(softmax(member) for member in plain))
    )
    if np.isnan(value(recipe.metric, labels, mean, classes, weights)):
        raise UserError(f"metric {recipe.metric!r} has no value here: all rows that count are of one class")
    costly = len(oof.members) > 1 and not methods.is_slow(recipe.method) and plain.size * len(oof.members) <= MOST_WORK
    fitted = counted_fits(events, oof, costly)
    fits: list[RowsFit] = []
    made: methods.Made | None = {} if methods.is_nested(recipe) else None
    probs = held_out_probabilities(oof, plain, recipe, fitted, fits, made)
    honest, before = outcome(labels, probs[:, 0], (recipe.metric,), recipe.costs), outcome(labels, probs[:, 1])
    outcomes = [honest, mean, *single]
    found = scored(oof, plain, recipe, outcomes, fits, weights)
    drawn, table = found.drawn, found.table

    of_views, chain = fit_rows(oof, plain, recipe, np.arange(len(labels)), made)
    fitted()
    blend, unused = without_zero_weight(oof, recipe, of_views, chain)
    last = "temperature" if recipe.calibration == "temperature" else "scaling"
    stages = {"plain mean": mean, f"blend before its {last}": before, "blend": honest}
    if last == "temperature" and chain.temperature is None:
        del stages["blend before its temperature"]
    selective = None
    if weights is None:
        confidence = probs[np.arange(len(labels)), 0, honest.predicted]
        selective = risk_coverage(confidence, honest.predicted != labels, rows.clusters)
    kept = HeldOut(probs[:, 0], labels, rows.folds, rows.clusters).some(MOST_HELD_OUT)
    notes = methods.notes(chain, recipe.metric)
    notes += _without_value(recipe.metric, drawn[recipe.metric], table[0][recipe.metric], np.unique(rows.folds))
    if weights is not None:
        notes.append("calibration by class is not shown for other class shares than those of the rows")
    final = replace(recipe, method=chain.method)  # what `auto` chose
    costs: dict[str, Gain] = {}
    if costly:
        costs = leave_out_costs(oof, final, honest, fitted)
    elif len(oof.members) > 1:
        notes.append("what leaving each member out costs was not computed: it would take long here")
    return BlendResult(
        name=recipe.method,
        path=None,
        fitted=blend,
        rows=len(labels),
        folds=len(np.unique(rows.folds)),
        groups=len(np.unique(rows.clusters)) if rows.grouped else None,
        blend=table[0],
        mean=table[1],
        members=dict(zip(oof.members, table[2:], strict=True)),
        best=found.best,
        gains=found.gains,
        calibration={name: calibration(labels, result) for name, result in stages.items()},
        reliability={
            name: tuple(reliability(result.most_probable == labels, result.confidence))
            for name, result in stages.items()
        },
        scaling_gain=scaling_gain(rows, honest, before, weights) if last == "scaling" else None,
        by_class=by_class(labels, probs[:, 0], rows.clusters) if weights is None else None,
        by_group=miscalibrated_groups(rows, honest) if rows.grouped and weights is None else None,
        decision=decision(rows, honest, recipe.costs, weights) if recipe.costs is not None else None,
        diversity=diversity(np.stack([result.predicted for result in single]), labels, costs),
        weights=methods.readable(chain, oof.members),
        views=dict(zip(oof.members, oof.views, strict=True)),
        view_weights={
            member: dict(zip(names, map(float, weights_of_views), strict=True))
            for member, names, weights_of_views in zip(oof.members, oof.views, of_views, strict=True)
            if len(names) > 1
        },
        unused=unused,
        pruned=pruned(oof, final, honest, costs, counted_fits(events, oof, not costs)) if prune else None,
        left_out=oof.left_out,
        notes=tuple(notes),
        selective=selective,
        held_out=replace(kept, probabilities=kept.probabilities.astype(np.float32)),
    )


def _without_value(metric: str, drawn: np.ndarray, score: Score, folds: np.ndarray) -> list[str]:
    """Lines on the resamples, of drawn float64 (resamples, S), and on the folds where a metric has no value."""
    lines, title = [], METRICS[metric].title
    resamples = int(np.isnan(drawn).any(axis=1).sum())
    if resamples:
        lines.append(f"{title} has no value in {resamples} of {len(drawn)} resamples; intervals are of the others")
    lacking = [str(fold) for fold, of_fold in zip(folds, score.folds, strict=True) if np.isnan(of_fold)]
    if lacking:
        lines.append(f"{title} has no value on fold {', '.join(lacking)} alone, so there is no deviation over folds")
    return lines


def _refuse_to_replace(run: Run, name: str, oof: Oof) -> None:
    """Raise UserError if the run's blend `name` was fitted on other members or views than those of `oof`."""
    if not run.blend_json(name).is_file():
        return
    there = saved_views(run, name)
    if there is not None and there != dict(zip(oof.members, oof.views, strict=True)):
        raise UserError(
            f"{run}: there is a blend {name!r} already, of other members or views; give this one its own --name"
        )


def _test_rows(member: str, test: Logits, ids: Sequence[str] | np.ndarray) -> np.ndarray:
    from ensemble.blend.external.members import rows_of

    return rows_of(test, ids, f"{test.meta['source']}: {member}")

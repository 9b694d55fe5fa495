"""From a blend's out-of-fold logits and what its networks cost to a cascade, and what it is worth."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ensemble.blend.oof import Oof
from ensemble.blend.recipe import Recipe
from ensemble.blend.stages import Stage
from ensemble.cascade.fits import Fits, as_stage, cross_fitted, new_fits
from ensemble.cascade.fixed import FixedAnswer, fixed_sets
from ensemble.cascade.order import Costs, MemberAndView, asked_so_far, in_order, stage_ms
from ensemble.cascade.policy import Limit, Policy, StageRows, Tried, choose, last_stages, row_ms, try_all
from ensemble.cascade.result import Cascade, CascadeStage, FixedSet, FrontPoint, Worth
from ensemble.errors import UserError
from ensemble.events import Events
from ensemble.progress import counted
from ensemble.scoring.bootstrap import bootstrap, gain, scores
from ensemble.scoring.cross_fit import usable_folds
from ensemble.scoring.outcomes import Outcome

FRONT = (0.001, 0.002, 0.005, 0.01, 0.02)  # nats that cascades of the front may lose
WHOLE = "the whole blend"


@dataclass(frozen=True)
class _Answers:
    """One way to answer the N rows: what it says, and what it costs, float64 (N,)."""

    result: Outcome
    ms: np.ndarray


def find_cascade(oof: Oof, recipe: Recipe, costs: Costs, limit: Limit, events: Events) -> tuple[Cascade, list[Stage]]:
    """The cascade of a blend of `recipe` on these members and views that `limit` asks for, and its stages but the last,
    which is the blend itself. The names and the path are the caller's to fill in.

    Raises UserError for a `max_ms` that nothing keeps.
    """
    rows = oof.rows
    oof = replace(oof, rows=replace(rows, folds=usable_folds(rows.folds, rows.clusters)))
    folds = np.unique(oof.rows.folds)
    added = in_order(oof, costs)
    ms, parts = stage_ms(added, costs), asked_so_far(oof, added)
    sets = len(folds) + len(folds) * (len(folds) - 1) // 2 + 1  # of rows: without one fold, without two, and all
    advance = counted(events, "fitting the stages", len(parts) * sets)
    fits = [new_fits(part, recipe, advance) for part in parts]

    every = np.arange(len(rows.labels))
    outcomes = [cross_fitted(each, every) for each in fits]
    without = [_tried(fits, every[oof.rows.folds != fold], ms, costs) for fold in folds]
    tried = try_all(_stage_rows(outcomes), ms, costs.decoding)
    final = choose(tried, limit)
    if final is None:
        raise UserError(f"--max-ms {limit.max_ms:g}: the cheapest cascade takes {tried.ms.min():.3g} ms per image")

    def answers(policies: Sequence[Policy]) -> _Answers:
        return _answered(outcomes, policies, oof.rows.folds, ms, costs)

    whole = Policy(len(ms) - 1, 1.0)
    chosen = [choose(each, limit) or Policy(0, 0.0) for each in without]
    fronts = [[choose(each, Limit(max_loss)) or whole for each in without] for max_loss in FRONT]
    fixed = fixed_sets(oof, recipe, costs)
    worth = _worth(
        oof, [answers([whole] * len(folds)), answers(chosen), *map(answers, fronts), *(map(_fixed_answers, fixed))]
    )
    last = last_stages(final, _stage_rows(outcomes).confidence)
    stages = _merged(added, ms, final, costs, np.bincount(last, minlength=len(ms)) / len(every))
    found = Cascade(
        blend="",
        name="",
        path=None,
        max_loss=limit.max_loss,
        max_ms=limit.max_ms,
        threshold=final.threshold,
        by_fold=tuple(policy.threshold for policy in chosen),
        stages=stages,
        whole=worth[0],
        worth=worth[1],
        front=tuple(map(FrontPoint, FRONT, worth[2 : 2 + len(FRONT)])),
        fixed=_front_of_fixed(fixed, worth[2 + len(FRONT) :]),
        rows=len(every),
        groups=len(np.unique(rows.clusters)) if rows.grouped else None,
        folds=len(folds),
        networks=1,
    )
    return found, [as_stage(each, final.threshold) for each in fits[final.first : -1]]


def _tried(fits: Sequence[Fits], rows: np.ndarray, ms: np.ndarray, costs: Costs) -> Tried:
    """All policies on some rows, by stages that were cross-fitted among these rows alone."""
    return try_all(_stage_rows([cross_fitted(each, rows) for each in fits]), ms, costs.decoding)


def _stage_rows(outcomes: Sequence[Outcome]) -> StageRows:
    return StageRows(np.stack([each.confidence for each in outcomes]), np.stack([each.losses for each in outcomes]))


def _answered(
    outcomes: Sequence[Outcome], policies: Sequence[Policy], folds: np.ndarray, ms: np.ndarray, costs: Costs
) -> _Answers:
    """What the policies, one for each fold, answer there. outcomes: of each stage, cross-fitted."""
    confidence = _stage_rows(outcomes).confidence
    last, cost = np.empty(len(folds), dtype=np.int64), np.empty(len(folds))
    for fold, policy in zip(np.unique(folds), policies, strict=True):
        test = np.flatnonzero(folds == fold)
        last[test] = last_stages(policy, confidence[:, test])
        cost[test] = row_ms(policy, last[test], ms, costs.decoding)
    numbers = np.arange(len(folds))

    def of_last(field: Callable[[Outcome], np.ndarray]) -> np.ndarray:
        return np.asarray(np.stack([field(each) for each in outcomes])[last, numbers])

    values = {name: of_last(lambda each, name=name: each.values[name]) for name in outcomes[0].values}  # type: ignore[misc]
    result = Outcome(
        predicted=of_last(lambda each: each.predicted),
        most_probable=of_last(lambda each: each.most_probable),
        confidence=of_last(lambda each: each.confidence),
        briers=of_last(lambda each: each.briers),
        values=values,
        metrics=outcomes[0].metrics,
    )
    return _Answers(result, cost)


def _fixed_answers(found: FixedAnswer) -> _Answers:
    return _Answers(found.result, found.ms)


def _worth(oof: Oof, answers: Sequence[_Answers]) -> list[Worth]:
    """Of each way to answer, compared with the first one."""
    rows, results = oof.rows, [each.result for each in answers]
    drawn = bootstrap(rows.labels, results, rows.clusters, oof.classes)
    table = scores(rows.labels, results, rows.folds, oof.classes, drawn)
    found = []
    for number, each in enumerate(answers):
        p50, p99 = np.quantile(each.ms, [0.5, 0.99], method="inverted_cdf")
        found.append(
            Worth(
                ms=float(each.ms.mean()),
                p50_ms=float(p50),
                p99_ms=float(p99),
                scores=table[number],
                gains={metric: gain(metric, table, drawn, number, 0, WHOLE) for metric in drawn},
                changed=float((each.result.predicted != results[0].predicted).mean()),
            )
        )
    return found


def _front_of_fixed(found: Sequence[FixedAnswer], worth: Sequence[Worth]) -> tuple[FixedSet, ...]:
    """Those that no cheaper one beats in log loss, the cheapest first."""
    front: list[FixedSet] = []
    for each, of_set in sorted(zip(found, worth, strict=True), key=lambda pair: pair[1].ms):
        loss = of_set.scores["log_loss"].value
        if not front or loss < front[-1].worth.scores["log_loss"].value:
            members = tuple(dict.fromkeys(member for member, _ in sorted(each.pairs)))
            views = max(sum(name == member for name, _ in each.pairs) for member in members)
            front.append(FixedSet(members, views, of_set, each.by_fold))
    return tuple(front)


def _merged(
    added: Sequence[Sequence[MemberAndView]], ms: np.ndarray, policy: Policy, costs: Costs, exits: np.ndarray
) -> tuple[CascadeStage, ...]:
    """The stages, those before the first at which an image may exit together with that one."""
    groups = [[pair for pairs in added[: policy.first + 1] for pair in pairs], *added[policy.first + 1 :]]
    of_groups = [ms[: policy.first + 1].sum(), *ms[policy.first + 1 :]]
    found = []
    for pairs, group_ms, share in zip(groups, of_groups, exits[policy.first :], strict=True):
        views: dict[str, tuple[str, ...]] = {}
        for member, view in pairs:
            views[member] = (*views.get(member, ()), view)
        found.append(CascadeStage(views, float(group_ms + costs.decoding), float(share)))
    return tuple(found)

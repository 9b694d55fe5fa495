"""The saved blends of a run beside each other, as `ens runs RUN` and the report list them. Never imports torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ensemble.blend import BlendResult, check_sources, list_blends, load_blend, read_result
from ensemble.blend.oof import Rows, finished, read_rows
from ensemble.blend.saved import Digests
from ensemble.blend.sources import other_runs
from ensemble.errors import UserError
from ensemble.overview.selection_bias import SelectionBias, System, selection_bias
from ensemble.plural import pluralize
from ensemble.run import Run
from ensemble.scoring.bootstrap import Score
from ensemble.scoring.metrics import HEADLINE, METRICS


@dataclass(frozen=True)
class BlendRow:
    """A blend, or what blends are compared with.

    name: of the blend; "plain mean", or "best single" of the best blend's members.
    method: as `ens blend` was told, "auto" with what it took; "" of what is no blend.
    members: those that have a part in it.
    scores: metric -> out-of-fold score; of a blend cross-fitted.
    is_best: whether it is the blend of the lowest log loss, of those that are comparable.
    remarks: what its score can't be compared for, and the like.
    """

    name: str
    method: str
    members: tuple[str, ...]
    scores: Mapping[str, Score]
    is_best: bool = False
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class BlendList:
    """The blends of a run.

    rows, groups: how many the run has; groups is None where it has none.
    blends: the lowest log loss first, those that are comparable before the others; then the plain mean and the best
        single member.
    selection_bias: how much better the best blend looks than it is; None where not known.
    notes: a line for each that can't be shown.
    """

    rows: int
    groups: int | None
    blends: tuple[BlendRow, ...]
    selection_bias: SelectionBias | None
    notes: tuple[str, ...]


def list_run_blends(run: Run) -> BlendList:
    """Every saved blend of a run. Raises UserError where the run's rows can't be read."""
    rows = read_rows(run)
    found, stale, problems = read_blends(run, rows)
    usable = comparable(found, stale)
    listed = []
    for result in sorted(found, key=lambda result: result not in usable):
        taken = result.fitted.chain.method
        listed.append(
            BlendRow(
                result.name,
                result.fitted.method if taken == result.fitted.method else f"{result.fitted.method}: {taken}",
                tuple(name for name in result.members if name not in result.unused),
                result.blend,
                bool(usable) and result is usable[0],
                tuple(remarks(run, result, stale)),
            )
        )
    if usable:
        best = usable[0]
        single = best.best["log_loss"]
        if len(best.members) > 1:
            listed.append(BlendRow("plain mean", "", tuple(best.members), best.mean))
        listed.append(BlendRow("best single", "", (single,), best.members[single]))
    systems = [System(run.path, each.name, "", {m: each.blend[m].value for m in HEADLINE}) for each in usable]
    return BlendList(
        len(rows.ids),
        len(np.unique(rows.clusters)) if rows.grouped else None,
        tuple(listed),
        selection_bias(systems, ("log_loss", "accuracy")) if len(systems) > 1 else None,
        (*problems, *_cascades(run)),
    )


def read_blends(run: Run, rows: Rows) -> tuple[tuple[BlendResult, ...], dict[str, str], tuple[str, ...]]:
    """The blends, the lowest log loss first; name -> why, of those that don't belong to what the run holds now; and a
    line for each that can't be shown."""
    found, stale, problems = [], {}, []
    digests: Digests = {}
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
        why = _stale(run, result, rows, digests)
        if why is not None:
            stale[name] = why
        if others := ", ".join(map(str, other_runs(run, result.fitted.sources))):
            problems.append(f"blend {name} holds members of {others} too: it stands in the table of blends alone")
    # Blends that differ only in the last bits count as equal: the plainer name comes first.
    found.sort(
        key=lambda result: (round(result.blend["log_loss"].value, 9), result.fitted.metric != "log_loss", result.name)
    )
    return tuple(found), stale, tuple(problems)


def comparable(blends: Sequence[BlendResult], stale: Mapping[str, str]) -> tuple[BlendResult, ...]:
    """Those of the run alone whose scores are of its rows as they are: neither stale nor for other class shares."""
    return tuple(
        blend for blend in blends if blend.name not in stale and not blend.shifted and blend.fitted.sources is None
    )


def remarks(run: Run, blend: BlendResult, stale: Mapping[str, str]) -> list[str]:
    """What has to be known of a blend beside its scores."""
    found = []
    if blend.fitted.metric != "log_loss":
        found.append(f"for {METRICS[blend.fitted.metric].title}")
    if blend.external:
        found.append(f"with {', '.join(blend.external)}, not trained here")
    if others := ", ".join(map(str, other_runs(run, blend.fitted.sources))):
        found.append(f"with members of {others}")
    if blend.shifted:
        found.append("for other class shares, so not comparable")
    if blend.name in stale:
        found.append("stale: fitted on other logits than the run holds now")
    return found


def _cascades(run: Run) -> list[str]:
    """A line that names them: their scores are of other rows' networks at other costs, so that no line fits them."""
    names = []
    for name in list_blends(run):
        try:
            names += [name] if load_blend(run, name).stages else []
        except UserError:  # `read_blends` has said so
            continue
    return [f"cascades are not listed here, ens report {run} shows them: {', '.join(names)}"] if names else []


def _stale(run: Run, blend: BlendResult, rows: Rows, digests: Digests) -> str | None:
    if blend.fitted.sources is None and blend.rows != len(rows.ids):
        return f"it was fitted on {pluralize(blend.rows, 'row')}, but the run has {len(rows.ids):,}"
    try:
        check_sources(run, blend.name, digests)
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

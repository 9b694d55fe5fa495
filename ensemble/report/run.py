"""What a report is made of: everything that a run directory holds, read once and joined by id."""

import csv
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ensemble.blend import BlendResult, MemberRow, members_table
from ensemble.blend.crossfit import Recipe, plain_average
from ensemble.blend.fit import fit_oof, member_outcomes
from ensemble.blend.oof import Oof, Rows, read_member, read_oof, read_rows
from ensemble.blend.probabilities import geometric_mean
from ensemble.config import Config, load_run_config
from ensemble.errors import UserError
from ensemble.events import Events
from ensemble.files.reading import read_json
from ensemble.report.blends import cross_fitted, read_blends, some_rows
from ensemble.report.tempered import over_tempered
from ensemble.run import Run
from ensemble.run.shapes import Provenance, SavedAudit, SavedSearch
from ensemble.scoring.bootstrap import Gain, bootstrap, gain, scores
from ensemble.scoring.outcomes import Outcome, outcome

T = TypeVar("T")

TOLERANCE = 1e-4  # nats: what a refit may differ by from the saved score, on another machine or library


@dataclass(frozen=True)
class MemberFacts:
    """A member (one backbone over the folds). row: its own out-of-fold scores, of the folds that are done.

    settings: settings.json. logs: fold -> the lines of its log.jsonl, one an epoch; empty for a linear probe. seconds:
    fold -> how long its epochs took. optimistic: it kept the epoch that was best on the held-out rows.
    """

    name: str
    row: MemberRow
    settings: dict[str, Any]
    logs: dict[int, list[dict[str, Any]]]
    seconds: dict[int, float]

    @property
    def whole(self) -> bool:
        """All its folds are done."""
        return len(self.row.done) == self.row.folds

    @property
    def optimistic(self) -> bool:
        return self.row.optimistic


@dataclass(frozen=True)
class RunFacts:
    """A run, as read at one time.

    config: None where config.toml can't be read any more (config_text holds it as it is). rows: the validated rows of
    folds.csv; unvalidated: how many more it has, which are only trained on. members: all, finished or not. blends: the
    saved ones, the least log loss first; stale: name -> why, of those that don't belong to what the run holds now.

    What the sections on single images rest on: oof, the out-of-fold logits (V, N, C) of the members that have all
    folds, under the views of training (where no member is whole: of those that have the most folds, on these folds'
    rows; None where no fold is done at all), and probabilities, float64 (N, C), of the same N rows, `oof.rows`: those
    of `basis`, which says in words where they come from. `best` is the saved blend of least cross-fitted log loss;
    without one its place is taken by the plain mean of the members, and `best.name` is "plain mean".

    tempered: the gains of `best` in log loss over "single" and "mean" at one temperature each; empty where `basis` is
    not of `best`. problems: lines about files that could not be read.
    """

    run: Run
    config: Config | None
    config_text: str
    rows: Rows
    unvalidated: int
    members: tuple[MemberFacts, ...]
    blends: tuple[BlendResult, ...]
    stale: dict[str, str]
    best: BlendResult | None
    saved: bool
    oof: Oof | None
    probabilities: np.ndarray
    basis: str
    tempered: dict[str, Gain]
    provenance: Provenance
    view_search: SavedSearch | None
    audit: SavedAudit | None
    problems: tuple[str, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        return self.rows.classes

    @cached_property
    def predicted(self) -> np.ndarray:
        """Each row's most probable class, int64 (N,)."""
        return np.asarray(self.probabilities.argmax(axis=1))

    @cached_property
    def single(self) -> list[Outcome]:
        """The outcome of each member of `oof` by itself, its views averaged."""
        assert self.oof is not None
        return member_outcomes(plain_average(self.oof), self.oof.rows.labels)

    @property
    def comparable(self) -> tuple[BlendResult, ...]:
        """The blends whose scores are of these rows as they are: neither stale nor for other class shares."""
        return _comparable(self.blends, self.stale)

    @property
    def optimistic(self) -> tuple[str, ...]:
        return tuple(own.name for own in self.members if own.optimistic)


def read_run(run: Run, events: Events) -> RunFacts:
    """Read it all; the cross-fitted probabilities of the best blend are fitted again (they are not saved).

    Raises UserError if `run` is not a run directory, or if its rows or logits don't fit together. What else can't be
    read is left out and said in `problems`.
    """
    events.progress("reading the run", 0, 3)
    rows = read_rows(run)
    problems: list[str] = []
    try:
        config = load_run_config(run.config_toml)
    except UserError as error:
        config = None
        problems.append(str(error))
    members = tuple(_member(run, row, problems) for row in members_table(run))
    blends, stale, unread = read_blends(run, rows)
    problems += unread
    oof = _oof(run, rows, members)
    best, saved, basis = None, False, ""
    probabilities, tempered = np.empty((0, len(rows.classes))), {}
    if oof is not None:
        events.progress("fitting the best blend again", 1, 3)
        candidates = _comparable(blends, stale)
        best, saved = (candidates[0], True) if candidates else (_plain_mean(oof), False)
        probabilities, basis = _row_probabilities(run, oof, candidates, problems)
        if not saved or basis == _of_blend(best):
            tempered = over_tempered(run, best, oof, saved, probabilities)
    events.progress("laying out the page", 2, 3)
    provenance = _unless_broken(run.provenance_json, Provenance, problems) or {"facts": {}}
    return RunFacts(
        run=run,
        config=config,
        config_text=_text(run.config_toml),
        rows=rows,
        unvalidated=_lines(run.folds_csv) - len(rows.ids),
        members=members,
        blends=blends,
        stale=stale,
        best=best,
        saved=saved,
        oof=oof,
        probabilities=probabilities,
        basis=basis,
        tempered=tempered,
        provenance=provenance,
        view_search=_unless_broken(run.view_search_json, SavedSearch, problems),
        audit=_audit(run, provenance["facts"].get("data fingerprint"), problems),
        problems=tuple(dict.fromkeys(problems)),
    )


def _member(run: Run, row: MemberRow, problems: list[str]) -> MemberFacts:
    logs, seconds = {}, {}
    member = run.member(row.member)
    for fold in member.folds():
        try:  # of a linear probe there is one line, without an epoch
            logs[fold.number] = [dict(line) for line in fold.read_log() if "epoch" in line]
        except UserError as error:
            if fold.log_file.is_file():
                problems.append(str(error))
        if fold.number in row.done:
            seconds[fold.number] = fold.read_done().get("seconds", 0.0)
    return MemberFacts(row.member, row, dict(member.read_settings()), logs, seconds)


def _oof(run: Run, rows: Rows, members: tuple[MemberFacts, ...]) -> Oof | None:
    """The logits of the whole members; if there are none, of those with the most folds, on these folds."""
    if any(own.whole for own in members):
        return read_oof(run)
    most = max((own.row.done for own in members), key=len, default=())
    if not most:
        return None
    ready = [own.name for own in members if set(most) <= set(own.row.done)]
    where = np.flatnonzero(np.isin(rows.folds, most))
    values: list[np.ndarray] = []
    names: tuple[str, ...] = ()
    for member in ready:
        own, names = read_member(run, member, rows, names or None, most)
        values.append(own)
    lacking = {own.name: "not finished" for own in members if own.name not in ready}
    return some_rows(Oof(rows, tuple(ready), (names,) * len(ready), tuple(values), lacking), where)


def _row_probabilities(
    run: Run, oof: Oof, candidates: tuple[BlendResult, ...], problems: list[str]
) -> tuple[np.ndarray, str]:
    """The cross-fitted probabilities of the best blend that can be fitted again from the run alone, else of the mean.

    An external member's out-of-fold predictions are in the user's file, not in the run.
    """
    for own in candidates:
        if own.external:
            continue
        try:
            probabilities = cross_fitted(run, own)
        except UserError as error:
            problems.append(str(error))
            continue
        now = float(outcome(oof.rows.labels, probabilities).losses.mean())
        if abs(now - own.blend["log_loss"].value) > TOLERANCE:
            problems.append(
                f"blend {own.name}: fitted again its log loss is {now:.4f}, not the {own.blend['log_loss'].value:.4f} "
                f"that is saved; fit it again with: ens blend {run}"
            )
            continue
        return probabilities, _of_blend(own)
    what = "the plain mean of the members, out of fold" if len(oof.members) > 1 else f"{oof.members[0]}, out of fold"
    return geometric_mean(plain_average(oof)), what


def _comparable(blends: tuple[BlendResult, ...], stale: dict[str, str]) -> tuple[BlendResult, ...]:
    return tuple(own for own in blends if own.name not in stale and not own.shifted)


def _of_blend(own: BlendResult) -> str:
    return f"blend {own.name}, cross-fitted"


def _plain_mean(oof: Oof) -> BlendResult:
    """The plain mean in a blend's place: nothing is fitted."""
    own = fit_oof(oof, Recipe("mean"))
    labels = oof.rows.labels
    single = member_outcomes(plain_average(oof), labels)
    outcomes = [outcome(labels, geometric_mean(plain_average(oof))), *single]
    drawn = bootstrap(labels, outcomes, oof.rows.clusters, oof.classes)
    table = scores(labels, outcomes, oof.rows.folds, oof.classes, drawn)
    gains: list[Gain] = []
    for metric in drawn if len(oof.members) > 1 else ():
        index = oof.members.index(own.best[metric])
        gains.append(gain(metric, table, drawn, 0, 1 + index, own.best[metric]))
    plain = {"blend": own.calibration["plain mean"]}
    bins = {"blend": own.reliability["plain mean"]}
    return replace(
        own,
        name="plain mean",
        blend=table[0],
        gains=tuple(gains),
        calibration=plain,
        reliability=bins,
        diversity=replace(own.diversity, costs={}),
        notes=(),
    )


def _audit(run: Run, fingerprint: str | None, problems: list[str]) -> SavedAudit | None:
    """What `ens check` wrote into the run or, before there was one, into the working directory. One that is known to be
    of other images or labels than the run's is left out."""
    own = _unless_broken(run.audit_json, SavedAudit, problems)
    if own is not None:
        seen = own.get("fingerprint")
        if None in (seen, fingerprint) or seen == fingerprint:
            return own
        problems.append(f"{run.audit_json}: is of other images or labels than the run's; check them again")
    earlier = _unless_broken(Run(Path()).audit_json, SavedAudit, [])
    matches = earlier is not None and fingerprint is not None and earlier.get("fingerprint") == fingerprint
    return earlier if matches else None


def _unless_broken(path: Path, kind: type[T], problems: list[str]) -> T | None:
    if not path.is_file():
        return None
    try:
        return read_json(path, kind)
    except UserError as error:
        problems.append(str(error))
        return None


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8-sig", errors="replace") if path.is_file() else ""


def _lines(path: Path) -> int:
    with path.open(encoding="utf-8", newline="") as file:
        return sum(1 for _ in csv.DictReader(file))

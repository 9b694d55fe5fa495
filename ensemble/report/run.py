"""What a report is made of: everything that a run directory holds, read once and joined by id."""

import csv
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ensemble.blend import BlendResult, MemberRow, members_table
from ensemble.blend.crossfit import plain_average
from ensemble.blend.members import member_outcomes
from ensemble.blend.oof import Oof, Rows, read_member, read_oof, read_rows
from ensemble.config import Config, load_run_config
from ensemble.errors import UserError
from ensemble.events import Events
from ensemble.files.reading import read_json
from ensemble.overview.blends import comparable, read_blends
from ensemble.report.blends import of_blend, plain_mean, row_probabilities, some_rows
from ensemble.report.tempered import over_tempered
from ensemble.report.thumbnails import image_files
from ensemble.run import Run
from ensemble.run.shapes import Provenance, SavedAudit, SavedSearch
from ensemble.scoring.bootstrap import Gain
from ensemble.scoring.outcomes import Outcome
from ensemble.scoring.row_values import cheapest

T = TypeVar("T")


@dataclass(frozen=True)
class MemberResults:
    """A member: one backbone over the folds.

    name: of the backbone
    row: out-of-fold scores, over the folds that are done
    settings: the content of settings.json
    logs: fold -> the lines of its log.jsonl, one per epoch; empty for a linear probe
    seconds: fold -> how long its training took
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
        """It kept the epoch that was best on the held-out rows."""
        return self.row.optimistic


@dataclass(frozen=True)
class RunResults:
    """A run, as read at one time.

    run: its directory
    config: None if config.toml can't be read
    config_text: config.toml as it is
    rows: the validated rows of folds.csv
    unvalidated: number of further rows in folds.csv, which are only trained on
    members: all of them, finished or not
    blends: those that are saved, the lowest log loss first
    stale: name of a blend -> why it does not belong to what the run holds now
    best: the saved blend of the lowest cross-fitted log loss; without one, the plain mean of the members, whose name
        is "plain mean"; None if no fold is done
    saved: whether `best` is a saved blend
    oof: out-of-fold logits, float32 (V, N, C) per member, of the members that have all folds, under the views of
        training; if no member has all folds, of those with the most folds, on the rows of these folds; None if no fold
        is done
    probabilities: float64 (N, C), of the rows of `oof`
    basis: what the probabilities are of, in words
    costs: float64 (C, C), what mistakes cost, if the probabilities are of a blend that knows it
    tempered: "single" and "mean" -> the gain of `best` in log loss over it at one temperature; empty if `basis` is not
        of `best`
    provenance: the content of provenance.json
    view_search, audit: what ens tta-search and ens check have found; None if they were not run
    problems: lines about files that could not be read
    against: another run that the page compares it with; None: none
    attention: the page shows what a network looked at
    """

    run: Run
    config: Config | None
    config_text: str
    rows: Rows
    unvalidated: int
    members: tuple[MemberResults, ...]
    blends: tuple[BlendResult, ...]
    stale: dict[str, str]
    best: BlendResult | None
    saved: bool
    oof: Oof | None
    probabilities: np.ndarray
    basis: str
    costs: np.ndarray | None
    tempered: dict[str, Gain]
    provenance: Provenance
    view_search: SavedSearch | None
    audit: SavedAudit | None
    problems: tuple[str, ...]
    against: Run | None = None
    attention: bool = False

    @property
    def classes(self) -> tuple[str, ...]:
        return self.rows.classes

    @property
    def files(self) -> dict[str, Path]:
        """id -> file of the run's labelled images; none where they can't be found."""
        return self._found_files[0]

    @property
    def files_problem(self) -> str:
        """Why the images can't be found; "" if they are."""
        return self._found_files[1]

    @cached_property
    def _found_files(self) -> tuple[dict[str, Path], str]:
        try:
            return image_files(self.config), ""
        except UserError as error:
            return {}, str(error)

    @cached_property
    def predicted(self) -> np.ndarray:
        """The class each row is decided for, int64 (N,): the most probable one; with costs, that of the least expected
        cost."""
        return self.probabilities.argmax(axis=1) if self.costs is None else cheapest(self.probabilities, self.costs)

    @cached_property
    def single(self) -> list[Outcome]:
        """The outcome of each member of `oof` by itself, its views averaged."""
        assert self.oof is not None
        return member_outcomes(plain_average(self.oof), self.oof.rows.labels)

    @property
    def comparable(self) -> tuple[BlendResult, ...]:
        """The blends of this run alone whose scores are of its rows as they are: neither stale nor for other class
        shares."""
        return comparable(self.blends, self.stale)

    @property
    def optimistic(self) -> tuple[str, ...]:
        return tuple(member.name for member in self.members if member.optimistic)


def read_run(run: Run, events: Events) -> RunResults:
    """Read it all; the cross-fitted probabilities of the best blend are those saved with it, else it is fitted again.

    Raises UserError if `run` is not a run directory, or if its rows or logits don't fit together. What else can't be
    read is left out and listed in `problems`.
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
    probabilities, costs, tempered = np.empty((0, len(rows.classes))), None, {}
    if oof is not None:
        events.progress("reading the best blend's predictions", 1, 3)
        candidates = comparable(blends, stale)
        best, saved = (candidates[0], True) if candidates else (plain_mean(oof), False)
        probabilities, basis, costs = row_probabilities(run, oof, candidates, problems)
        if not saved or basis == of_blend(best):
            tempered = over_tempered(run, best, oof, saved, probabilities)
    events.progress("laying out the page", 2, 3)
    provenance = _unless_broken(run.provenance_json, Provenance, problems) or {"facts": {}}
    return RunResults(
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
        costs=costs,
        tempered=tempered,
        provenance=provenance,
        view_search=_unless_broken(run.view_search_json, SavedSearch, problems),
        audit=_audit(run, provenance["facts"].get("data fingerprint"), problems),
        problems=tuple(dict.fromkeys(problems)),
    )


def _member(run: Run, row: MemberRow, problems: list[str]) -> MemberResults:
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
    return MemberResults(row.member, row, dict(member.read_settings()), logs, seconds)


def _oof(run: Run, rows: Rows, members: tuple[MemberResults, ...]) -> Oof | None:
    """The logits of the whole members; if there are none, of those with the most folds, on these folds."""
    if any(member.whole for member in members):
        return read_oof(run)
    most = max((member.row.done for member in members), key=len, default=())
    if not most:
        return None
    ready = [member.name for member in members if set(most) <= set(member.row.done)]
    where = np.flatnonzero(np.isin(rows.folds, most))
    values: list[np.ndarray] = []
    names: tuple[str, ...] = ()
    for name in ready:
        logits, names = read_member(run, name, rows, names or None, most)
        values.append(logits)
    lacking = {member.name: "not finished" for member in members if member.name not in ready}
    return some_rows(Oof(rows, tuple(ready), (names,) * len(ready), tuple(values), lacking), where)


def _audit(run: Run, fingerprint: str | None, problems: list[str]) -> SavedAudit | None:
    """What `ens check` wrote into the run or, before there was one, into the working directory. One that is known to be
    of other images or labels than the run's is left out."""
    audit = _unless_broken(run.audit_json, SavedAudit, problems)
    if audit is not None:
        seen = audit.get("fingerprint")
        if None in (seen, fingerprint) or seen == fingerprint:
            return audit
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

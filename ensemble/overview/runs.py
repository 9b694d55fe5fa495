"""`ens runs`: scores and costs of the runs below a directory, and the settings in which they differ. Never imports
torch."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from ensemble.blend import BlendResult, check_sources, list_blends, members_table, read_result
from ensemble.blend.saved import Digests
from ensemble.blend.sources import source
from ensemble.config import load_run_config
from ensemble.errors import UserError
from ensemble.events import SILENT, Events
from ensemble.files.mirror import local
from ensemble.overview.selection_bias import SelectionBias, System, selection_bias
from ensemble.run import Run
from ensemble.scoring.bootstrap import Score
from ensemble.scoring.metrics import HEADLINE

DEPTH = 3  # folders below the one that is named
SORTS = ("score", "date", "name")
ABSENT = "-"

Scores = Mapping[str, Score]  # by metric


@dataclass(frozen=True)
class RunRow:
    """One run.

    done, folds: number of finished folds and of all folds, of its members together
    fingerprint: of its data
    blend: the one of the lowest cross-fitted log loss; "" if there is none
    blends: how many there are
    blend_scores: cross-fitted
    blend_optimistic: whether the best epoch of one of its members was chosen on the rows of the scores
    single: the member of the lowest log loss, of the blend's members, or of the finished ones if there is no blend
    singles: how many members that was chosen from
    single_scores, single_optimistic: as of the blend
    seconds: of training so far
    ms: prediction time per image with the blend's views; None if ens tta-search has not measured it
    date: when its last fold was finished, or when it was begun
    settings: dotted keys of its config, as text
    notes: what is wrong with it, if anything; other fields may then be unknown
    """

    run: Path
    members: tuple[str, ...] = ()
    done: int = 0
    folds: int = 0
    fingerprint: str = ""
    blend: str = ""
    blends: int = 0
    blend_scores: Scores | None = None
    blend_optimistic: bool = False
    single: str = ""
    singles: int = 0
    single_scores: Scores | None = None
    single_optimistic: bool = False
    seconds: float = 0.0
    ms: float | None = None
    date: datetime | None = None
    settings: Mapping[str, str] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunList:
    """Runs in order, those of the same data together.

    groups: the numbers of the rows of each data set
    selection_bias: of each data set how much better the best of its runs looks than it is; None where not known
    differs: run -> the settings that are not the same in all runs, as text; of runs whose config can be read
    """

    rows: tuple[RunRow, ...]
    groups: tuple[tuple[int, ...], ...]
    differs: Mapping[Path, Mapping[str, str]]
    selection_bias: tuple[SelectionBias | None, ...] = ()


def list_runs(folder: Path, sort: str = "score", events: Events = SILENT) -> RunList:
    """Every run in `folder` and up to DEPTH folders below it. A run that can't be read is listed with the reason.

    sort: "score", "date" (latest first) or "name". The score is the log loss of the best blend, or of the best member
    if there is no blend. For a blend of a single member it is the lower of the two; of more members the best one is
    optimistic, being chosen. Raises UserError if `folder` does not exist or holds no run.
    """
    found = list(find_runs(folder))
    if not found:
        what = "holds no run of ens" if folder.is_dir() else "no such folder"
        raise UserError(f"{folder}: {what}; make one with: ens train-folds FILE")
    rows = []
    for number, run in enumerate(found):
        events.progress("reading the runs", number, len(found))
        rows.append(read_run(run))
    keys: dict[str, Callable[[RunRow], Any]] = {
        "score": lambda row: (_loss(row), str(row.run)),
        "date": lambda row: (-row.date.timestamp() if row.date else 0.0, str(row.run)),
        "name": lambda row: str(row.run),
    }
    rows.sort(key=keys[sort])
    order = sorted(dict.fromkeys(row.fingerprint for row in rows), key=lambda data: data == "")  # unknown data last
    rows.sort(key=lambda row: order.index(row.fingerprint))
    groups = [tuple(r for r, row in enumerate(rows) if row.fingerprint == data) for data in order]
    of_groups = tuple(_selection_bias([rows[r] for r in group]) for group in groups)
    return RunList(tuple(rows), tuple(groups), differences(rows), of_groups)


def _selection_bias(rows: Sequence[RunRow]) -> SelectionBias | None:
    """Of the runs of one data set."""
    systems = []
    for row in rows:
        scores = row.blend_scores or row.single_scores
        if row.fingerprint and scores:
            values = {metric: scores[metric].value for metric in HEADLINE}
            systems.append(System(row.run, row.blend if row.blend_scores else "", row.single, values))
    return selection_bias(systems, ("log_loss", "accuracy")) if len(systems) > 1 else None


def find_runs(folder: Path) -> Iterator[Path]:
    """The run directories in `folder` and below it, in order of name; there are none inside of a run.

    Links are followed, since runs often lie on another disk. If several paths lead to a run, the one without a link is
    taken.
    """
    found: dict[Path, Path] = {}
    folder = local(folder)
    for path, folders, files in os.walk(folder, followlinks=True):  # a link to above ends at DEPTH
        here = Path(path)
        if "folds.csv" in files or ("config.toml" in files and Run(here).is_begun()):
            real = here.resolve()
            if real not in found or real == folder.resolve() / here.relative_to(folder):
                found[real] = here
            folders.clear()
        elif len(here.relative_to(folder).parts) == DEPTH:
            folders.clear()
        folders[:] = sorted(name for name in folders if not name.startswith("."))
    yield from sorted(found.values())


def read_run(run: Path) -> RunRow:
    """What a run holds. Never raises, whatever is in it."""
    row = RunRow(run)
    for part in (_of_folds, _of_data, _of_config, _of_scores):
        try:
            row = part(row)
        except UserError as error:
            row = _noted(row, str(error))
        except Exception as error:  # made by another version of ens, or by hand: any file may hold anything
            row = _noted(row, f"can't be read ({type(error).__name__}: {error})")
    return row


def differences(rows: Sequence[RunRow]) -> dict[Path, dict[str, str]]:
    """run -> the dotted keys whose values are not the same in all runs, with its values. Keys of a backbone that some
    runs lack are compared among the others."""
    known = {row.run: row.settings for row in rows if row.settings is not None}
    out: dict[Path, dict[str, str]] = {run: {} for run in known}
    for key in dict.fromkeys(key for settings in known.values() for key in settings):
        parts = key.split(".")
        where = list(known)
        if parts[0] == "backbone" and len(parts) > 2:
            where = [run for run in where if ".".join(parts[:2]) in known[run]]
        values = {run: known[run].get(key, ABSENT) for run in where}
        if len(set(values.values())) > 1:
            for run, value in values.items():
                out[run][key] = value
    return out


def _of_folds(row: RunRow) -> RunRow:
    run = Run(row.run)
    members = run.member_names()
    finished = [fold for name in members for fold in run.member(name).folds() if fold.is_done()]
    dated = [fold.done_json for fold in finished] or [run.folds_csv]
    date = max((path.stat().st_mtime for path in dated if path.is_file()), default=None)
    seconds = sum(fold.read_done().get("seconds", 0.0) for fold in finished)
    row = replace(row, members=tuple(members), done=len(finished), seconds=seconds)
    return replace(row, date=None if date is None else datetime.fromtimestamp(date).astimezone())


def _of_data(row: RunRow) -> RunRow:
    from ensemble.data.folds import read_folds

    numbers = read_folds(Run(row.run))["fold"].to_numpy()
    row = replace(row, folds=len(np.unique(numbers[numbers >= 0])) * len(row.members))
    if row.done < row.folds:
        row = _noted(row, f"not finished; {'; '.join(_remedies(Run(row.run), row.folds // len(row.members)))}")
    facts = Run(row.run).read_provenance()["facts"]
    if "data fingerprint" not in facts:
        return _noted(row, f"{Run(row.run).provenance_json}: has no data fingerprint")
    return replace(row, fingerprint=facts["data fingerprint"])


def _remedies(run: Run, folds: int) -> list[str]:
    """What trains the members that are not finished. folds: of each member."""
    members = [run.member(name) for name in run.member_names()]
    unfinished = [each for each in members if sum(fold.is_done() for fold in each.folds()) < folds]
    return list(dict.fromkeys(each.how_to_go_on() for each in unfinished))


def _of_config(row: RunRow) -> RunRow:
    values = load_run_config(Run(row.run).config_toml).model_dump(mode="json")
    del values["run"], values["log"]
    backbones = {backbone.pop("name"): backbone for backbone in values.pop("backbone")}
    settings = dict(_flat("", values))
    for name, backbone in backbones.items():
        settings[f"backbone.{name}"] = "yes"
        settings |= dict(_flat(f"backbone.{name}.", backbone))
    return replace(row, settings=settings)


def _of_scores(row: RunRow) -> RunRow:
    best: BlendResult | None = None
    names = list_blends(Run(row.run))
    digests: Digests = {}
    for name in names:
        try:
            result = read_result(Run(row.run), name)
            check_sources(Run(row.run), name, digests)
        except UserError as error:
            row = _noted(row, str(error).removesuffix(f"; fit it again with: ens blend {Run(row.run)}"))
            continue
        except Exception as error:  # as in `read_run`
            row = _noted(row, f"blend {name!r} can't be read ({type(error).__name__}: {error})")
            continue
        if result is None or result.shifted:
            continue
        if best is None or result.blend["log_loss"].value < best.blend["log_loss"].value:
            best, row = result, replace(row, blend=name)
    row = replace(row, blends=len(names))
    if best is None:
        members = [
            member for member in members_table(Run(row.run)) if member.scores and len(member.done) == member.folds
        ]
        if members:
            single = min(members, key=lambda member: member.scores["log_loss"].value)
            row = replace(row, single=single.member, singles=len(members), single_scores=single.scores)
            row = replace(row, single_optimistic=single.optimistic)
        return row
    name = best.best["log_loss"]
    views = {view for member_views in best.fitted.views for view in member_views}
    trained = [member for member in best.members if member not in best.external]
    sources = best.fitted.sources
    optimistic = {member for member in trained if source(Run(row.run), sources, member).is_optimistic()}
    return replace(
        row,
        blend_scores=best.blend,
        blend_optimistic=bool(optimistic),
        single=name,
        singles=len(best.members),
        single_scores=best.members[name],
        single_optimistic=name in optimistic,
        ms=None if sources else _ms(row.run, views),  # the search timed this run's members alone
    )


def _ms(run: Path, views: set[str]) -> float | None:
    if not Run(run).view_search_json.is_file():
        return None
    sizes = Run(run).read_view_search()["sizes"]
    return next((size["ms"] for size in sizes if set(size["views"]) == views), None)


def _loss(row: RunRow) -> float:
    known = [scores["log_loss"].value for scores in (row.blend_scores, row.single_scores) if scores]
    return min(known[: 2 if row.singles == 1 else 1], default=float("inf"))


def _noted(row: RunRow, note: str) -> RunRow:
    return replace(row, notes=tuple(dict.fromkeys([*row.notes, note.removeprefix(f"{Run(row.run)}: ")])))


def _flat(prefix: str, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(f"{prefix}{key}.", value)
        else:
            yield prefix + key, ABSENT if value is None else _text(value)


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(_text, value)) + "]"
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)

"""The out-of-fold logits of a run: read, joined by id, checked."""

import csv
import difflib
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ensemble.data.logits import Logits, load_logits
from ensemble.errors import UserError
from ensemble.files.damage import damaged
from ensemble.files.reading import read_text
from ensemble.run import Fold, Run
from ensemble.run.vouched import require_vouched

EXTERNAL_VIEW = ("given",)  # the one view of an external member


@dataclass(frozen=True)
class Rows:
    """The validated rows of folds.csv (fold >= 0), in its order.

    ids: str (N,).
    labels: int64 (N,), numbers of `classes`.
    folds: int64 (N,), in which each row was held out, 0 or more.
    clusters: int64 (N,), the number of the row's group, or of the row where there are no groups.
    grouped: whether there are groups.
    classes: C names.
    """

    ids: np.ndarray
    labels: np.ndarray
    folds: np.ndarray
    clusters: np.ndarray
    grouped: bool
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Oof:
    """Out-of-fold logits of M members.

    rows: the N rows that they are of.
    members: M names.
    views: each member's V names; an external member (one that ens did not train) has one, "given".
    values: of each member float32 (V, N, C); V may differ.
    left_out: member -> why, for members of the run that are not here.
    external: the names of the members that ens did not train.
    """

    rows: Rows
    members: tuple[str, ...]
    views: tuple[tuple[str, ...], ...]
    values: tuple[np.ndarray, ...]
    left_out: dict[str, str]
    external: tuple[str, ...] = ()

    @property
    def classes(self) -> int:
        return len(self.rows.classes)


def read_rows(run: Run) -> Rows:
    """Read folds.csv and classes.json of a run.

    Raises UserError, naming file, line and value, for a lacking column, a repeated id, a label that is not a class, a
    fold that is not a number, or no validated row.
    """
    run.require()
    path = run.folds_csv
    require_vouched(path)
    classes = tuple(run.read_classes())
    number = {name: c for c, name in enumerate(classes)}
    ids: list[str] = []
    labels, folds, groups = [], [], []
    table = csv.DictReader(io.StringIO(read_text(path), newline=""))
    try:
        lacking = [name for name in ("id", "label", "fold") if name not in (table.fieldnames or [])]
        if lacking:
            raise UserError(f"{path}: no column {lacking[0]!r}")
        grouped = "group" in (table.fieldnames or [])
        for row in table:
            if None in row or None in row.values():
                raise UserError(f"{path}, line {table.line_num}: has more or fewer cells than the header")
            try:
                fold = int(row["fold"])
            except ValueError:
                raise UserError(f"{path}, line {table.line_num}: fold {row['fold']!r} is not a number") from None
            if fold < 0:
                continue
            if row["label"] not in number:
                raise UserError(
                    f"{path}, line {table.line_num}: label {row['label']!r} is not one of the {len(classes)} "
                    "classes in classes.json"
                )
            ids.append(row["id"])
            labels.append(number[row["label"]])
            folds.append(fold)
            groups.append(row["group"] if grouped else "")
    except csv.Error as error:
        raise damaged(path, f"line {table.line_num} is not readable as CSV ({error})") from None
    if not ids:
        raise UserError(f"{path}: no row has a fold (0 or more), so there is nothing to blend on")
    names, counts = np.unique(np.array(ids), return_counts=True)
    if len(names) != len(ids):
        raise UserError(f"{path}: id {str(names[counts > 1][0])!r} is there twice")
    clusters = np.unique(np.array(groups), return_inverse=True)[1] if grouped else np.arange(len(ids))
    return Rows(np.array(ids), np.array(labels), np.array(folds), clusters.astype(np.int64), grouped, classes)


def finished(run: Run, member: str, rows: Rows) -> list[int]:
    """The fold numbers of `rows` that `member` has finished, sorted."""
    return [int(f) for f in np.unique(rows.folds) if run.member(member).fold(int(f)).is_done()]


def read_oof(run: Run, views: Sequence[str] | None = None, members: Sequence[str] | None = None) -> Oof:
    """Join the OOF logits of every member whose folds are all done, but for those set aside, or of just `members`, by
    id.

    views: which to read; None for those that the run was trained with, not those that were added. Raises UserError if
    a member asked for is unknown or not finished, if none is finished, and as `read_member` does.
    """
    rows = read_rows(run)
    there = run.member_names()
    for name in members or []:
        if name not in there:
            near = difflib.get_close_matches(name, there, n=3, cutoff=0.0)
            raise UserError(f"{run}: no member {name!r}; nearest: {', '.join(near) or 'there is none'}")
    left_out = {} if members is None else {name: "not asked for" for name in there if name not in members}
    ready = []
    for name in dict.fromkeys(members if members is not None else there):
        lacking = sorted(set(np.unique(rows.folds).tolist()) - set(finished(run, name, rows)))
        aside = run.member(name).why_aside() if members is None else None
        if lacking:
            left_out[name] = f"not finished: fold {', '.join(map(str, lacking))}"
        elif aside is not None:
            left_out[name] = aside
        else:
            ready.append(name)
    again = f"train on with: ens train-folds {run.config_toml}"
    if members is not None and len(ready) < len(set(members)):
        first = next(name for name in members if name not in ready)
        raise UserError(f"{run}: member {first!r} is {left_out[first]}; {run.member(first).how_to_go_on()}")
    if not ready:
        raise UserError(f"{run}: no member has all its folds finished; {again}")
    values: list[np.ndarray] = []
    names: tuple[str, ...] = ()
    for member in ready:
        logits, names = read_member(run, member, rows, names or views)
        values.append(logits)
    return Oof(rows, tuple(ready), (names,) * len(ready), tuple(values), left_out)


def read_member(
    run: Run,
    member: str,
    rows: Rows,
    views: Sequence[str] | None = None,
    folds: Sequence[int] | None = None,
) -> tuple[np.ndarray, tuple[str, ...]]:
    """One member's OOF logits float32 (V, N, C), and the views' names; NaN in rows of no `folds`.

    Raises UserError, naming member, fold and first id, if a fold's OOF rows are not exactly that fold's rows, or if a
    logit is NaN or infinite; and if classes or views are not those expected.
    """
    out: np.ndarray | None = None
    names = None if views is None else tuple(views)
    if names is not None and (not names or len(set(names)) < len(names)):
        raise UserError(f"views {', '.join(names) or '(none)'}: name at least one, each once")
    for fold in np.unique(rows.folds).tolist() if folds is None else folds:
        job = run.member(member).fold(fold)
        path, logits = job.oof_file, fold_logits(job)
        where = np.flatnonzero(rows.folds == fold)
        _require_same_rows(logits, rows.ids[where], member, fold, path)
        if logits.classes != rows.classes:
            raise UserError(f"{path}: its classes are not those of classes.json; train the fold again")
        if logits.values.ndim != 3:
            raise UserError(f"{path}: holds {logits.values.shape}, want out-of-fold logits (V, N, C)")
        if names is None:  # those that it was trained with
            names = load_logits(path).views
        lacking = [name for name in names if name not in logits.views]
        if lacking:
            raise UserError(
                f"{path}: {member} has the views {', '.join(logits.views)}, not {', '.join(lacking)}; choose with "
                f"--views among those that all members have, or add it: ens tta-oof {run} --views {','.join(lacking)}"
            )
        aligned = logits.align(rows.ids[where], str(path)).values
        values = aligned[[logits.views.index(name) for name in names]]
        bad = ~np.isfinite(values).all(axis=(0, 2))
        if bad.any():
            raise UserError(
                f"{path}: {member}, fold {fold}: NaN or infinite logits for id {str(rows.ids[where][bad][0])!r} "
                f"({int(bad.sum())} rows); train the fold again, or leave the member out with --members"
            )
        if out is None:
            out = np.full((len(names), len(rows.ids), len(rows.classes)), np.nan, dtype=np.float32)
        out[:, where] = values
    assert names is not None and out is not None
    return out, names


def fold_logits(fold: Fold) -> Logits:
    """A fold's OOF logits: the views that it was trained with, then those that were added later.

    Raises UserError that names the file that is missing, cut short or not of these rows.
    """
    logits = load_logits(fold.oof_file)
    path = fold.added_views_file
    if not path.is_file():
        return logits
    added = load_logits(path)
    if added.classes != logits.classes or not np.array_equal(added.ids, logits.ids):
        raise UserError(f"{path}: not of the rows and classes of {fold.oof_file.name}; delete it")
    return replace(logits, views=logits.views + added.views, values=np.concatenate([logits.values, added.values]))


def common_views(run: Run) -> tuple[str, ...]:
    """The views that all folds of all finished members, but for those set aside, have OOF logits of, in the first
    one's order."""
    rows = read_rows(run)
    numbers = np.unique(rows.folds).tolist()
    names = [name for name in run.member_names() if run.member(name).why_aside() is None]
    ready = [name for name in names if finished(run, name, rows) == numbers]
    every = [fold_logits(run.member(name).fold(fold)).views for name in ready for fold in numbers]
    return tuple(view for view in every[0] if all(view in there for there in every)) if every else ()


def _require_same_rows(logits: Logits, want: np.ndarray, member: str, fold: int, path: Path) -> None:
    missing, extra = np.setdiff1d(want, logits.ids), np.setdiff1d(logits.ids, want)
    if len(missing) or len(extra):
        what = f"has no row for id {str(missing[0])!r}" if len(missing) else f"has a row for id {str(extra[0])!r}"
        where = "which folds.csv puts there" if len(missing) else "which folds.csv does not put there"
        raise UserError(
            f"{path}: {member}, fold {fold}: the out-of-fold file {what}, {where} ({len(missing)} missing, "
            f"{len(extra)} too many); members with different ids can't be blended: train the fold again"
        )

"""Which fold each row is validated in. All backbones of a run share the one answer, kept in folds.csv."""

import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ensemble.data.digests import digest_of
from ensemble.data.samples import Samples
from ensemble.errors import UserError
from ensemble.files import sealed
from ensemble.files.atomic import write_text
from ensemble.files.damage import damaged
from ensemble.files.reading import read_text
from ensemble.plural import pluralize
from ensemble.run import Run
from ensemble.run.vouched import require_vouched


def copies(paths: tuple[Path, ...]) -> np.ndarray:
    """For each file the row of the first file with the same bytes (itself where there is none), int64 (N,).

    Only files of equal size are read, so a set without copies costs little more than a stat each.
    """
    by_size = defaultdict(list)
    for row, path in enumerate(paths):
        by_size[path.stat().st_size].append(row)
    first = np.arange(len(paths))
    for rows in by_size.values():
        if len(rows) == 1:
            continue
        seen: dict[str, int] = {}
        for row in rows:
            first[row] = seen.setdefault(digest_of(paths[row]), row)
    return first


def first_of_each(values: Sequence[str]) -> np.ndarray:
    """For each row the first row of the same value, int64 (N,)."""
    _, first, number = np.unique(np.array(values, dtype=np.str_), return_index=True, return_inverse=True)
    return np.asarray(first[number], dtype=np.int64)


def joined(groups: np.ndarray | None, first_copy: np.ndarray) -> np.ndarray | None:
    """Groups widened so that rows with the same bytes share one, str (N,); None where nothing ties rows together.

    Two people who share a photo become one group: otherwise the copy stands on both sides of a fold.
    """
    rows = np.arange(len(first_copy))
    if groups is None:
        return None if np.array_equal(first_copy, rows) else first_copy.astype(np.str_)
    parent = {name: name for name in groups.tolist()}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    for row in rows[first_copy != rows]:
        a, b = root(groups[row]), root(groups[first_copy[row]])
        parent[max(a, b)] = min(a, b)
    return np.array([root(name) for name in groups.tolist()], dtype=np.str_)


def make_folds(
    labels: np.ndarray, classes: tuple[str, ...], k: int, seed: int, groups: np.ndarray | None, method: str | None
) -> np.ndarray:
    """Fold of each row, int8 (N,), shuffled by `seed`.

    method: "stratified", "grouped", "stratified-grouped", or None for the right one by whether there are groups.
    Raises UserError if a class has fewer rows than k, or stands in one group only (then some fold never trains on it).
    """
    # here, since reading folds needs no scikit-learn: half of the time that a second blend takes is imports
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold, StratifiedKFold

    counts = np.bincount(labels, minlength=len(classes))
    if counts.min() < k:
        name, count = classes[counts.argmin()], counts.min()
        raise UserError(
            f"class {name!r} has {pluralize(count, 'row')}, fewer than folds.k = {k}: lower k, add images, or drop it"
        )
    if groups is None:
        if method in ("grouped", "stratified-grouped"):
            raise UserError(f"folds.method = {method!r} needs groups: name their column with data.group")
        splits = StratifiedKFold(k, shuffle=True, random_state=seed).split(labels, labels)
    else:
        unique = len(np.unique(groups))
        if unique < k:
            raise UserError(f"there are {unique} groups, fewer than folds.k = {k}: lower k")
        for index, name in enumerate(classes):
            if len(np.unique(groups[labels == index])) < 2:
                raise UserError(f"class {name!r} stands in one group only, so a fold could not train on it: drop it")
        grouped = GroupKFold if method == "grouped" else StratifiedGroupKFold
        splits = grouped(k, shuffle=True, random_state=seed).split(labels, labels, groups)
    folds = np.full(len(labels), -1, dtype=np.int8)
    for fold, (_, held_out) in enumerate(splits):
        folds[held_out] = fold
    check_classes(folds, labels, classes, 'set another seed, or folds.method = "stratified-grouped"')
    return folds


def check_classes(folds: np.ndarray, labels: np.ndarray, classes: tuple[str, ...], advice: str) -> None:
    """Raise UserError, ending with `advice`, if all rows of a class are in one fold, which then can't train on it."""
    for fold in range(int(folds.max()) + 1):
        lost = np.setdiff1d(labels, labels[folds != fold])
        if len(lost):
            name = classes[lost[0]]
            raise UserError(f"all rows of class {name!r} are in fold {fold}, which could not train on it: {advice}")


def check_own_folds(folds: np.ndarray, groups: np.ndarray | None, ids: np.ndarray) -> None:
    """Raise UserError if a group (or a file and its copy) stands in two of the user's own folds."""
    if groups is None:
        return
    order = np.argsort(groups, kind="stable")
    split = (groups[order][1:] == groups[order][:-1]) & (folds[order][1:] != folds[order][:-1])
    if split.any():
        at = int(split.argmax())
        row, other = order[at], order[at + 1]
        raise UserError(
            f"folds.fold: {str(ids[row])!r} is in fold {folds[row]} and {str(ids[other])!r} in fold "
            f"{folds[other]}, but they are of one group or copies of one file: put them in one fold"
        )


def across(folds: np.ndarray, groups: np.ndarray) -> int:
    """How many groups stand in two folds or more."""
    order = np.argsort(groups, kind="stable")
    split = (groups[order][1:] == groups[order][:-1]) & (folds[order][1:] != folds[order][:-1])
    return len(np.unique(groups[order][1:][split]))


def listing(samples: Samples, folds: np.ndarray, groups: np.ndarray | None) -> dict[str, str]:
    """The texts of classes.json and folds.csv (id, label, fold and, where there are any, group), by name."""
    assert samples.labels is not None
    columns = {"id": samples.ids, "label": np.array(samples.classes)[samples.labels], "fold": folds}
    if groups is not None:
        columns["group"] = groups
    return {
        "classes.json": sealed.json_text(list(samples.classes)),
        "folds.csv": pd.DataFrame(columns).to_csv(index=False),  # the last: a run without it is begun anew
    }


def write_folds(run: Run, listed: Mapping[str, str]) -> None:
    """Write what `listing` gives."""
    for name, text in listed.items():
        write_text(run.path / name, text)


def fold_count(run: Run) -> int:
    """K, by the run's folds.csv. Raises as `read_folds` does."""
    return int(read_folds(run)["fold"].max()) + 1


def read_folds(run: Run) -> pd.DataFrame:
    """folds.csv: id, label and group as text, fold as int8. Raises Damaged if it is not as it was written, UserError if
    it is no such table."""
    run.require()
    path = run.folds_csv
    require_vouched(path)
    try:
        text = read_text(path)
        table = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False, index_col=False)
        lacking = [name for name in ("id", "label", "fold") if name not in table]
        if lacking:
            raise ValueError(f"it has no column {lacking[0]!r}")
        return table.assign(fold=table["fold"].astype(np.int8))
    except (ValueError, OverflowError) as error:  # pandas' own are ValueErrors
        raise damaged(path, f"not a table of folds ({error})") from None

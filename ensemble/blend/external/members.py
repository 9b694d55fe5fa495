"""Labels and predictions that ens did not make (a notebook's, scikit-learn's, AutoGluon's), in the form that it blends.

Rows are joined by their ids, which are compared as text, never by position. What had to be guessed is said in a
warning line, what can't be guessed is a UserError. `say` takes the warnings, one line a call.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from ensemble.blend.external.checks import suspicious
from ensemble.blend.external.external_files import ExternalFiles
from ensemble.blend.external.files import (
    array_predictions,
    cell_numbers,
    cell_texts,
    checked_ids,
    find_id_column,
    read_columns,
    table_predictions,
)
from ensemble.blend.external.scale import LARGEST, floored, logits_of, recognised, without_unknown_classes
from ensemble.blend.oof import EXTERNAL_VIEW, Oof, Rows
from ensemble.data.classes import in_order, listed
from ensemble.data.logits import Logits
from ensemble.data.names import nfc
from ensemble.errors import UserError


def read_labels(path: Path, with_folds: bool = True) -> Rows:
    """The rows of a CSV or Parquet file whose fold is 0 or more, in its order.

    Ids are in the column "id", else in the first; labels in "label", or in the other one of two columns. A column
    `fold` holds whole numbers (an empty cell counts as -1; without the column all are 0), a column `group` what must
    stay together. The classes are the labels of all rows, sorted, numbers by their value. with_folds: False takes every
    row, as of fold 0, whatever its fold is. Raises UserError that names file, column, row and value.
    """
    table = read_columns(path)
    id_column = find_id_column(table)
    others = [str(name) for name in table.columns if name != id_column]
    label_column = others[0] if len(others) == 1 and others[0] not in ("fold", "group") else "label"
    if label_column not in table.columns:
        raise UserError(f"{path}: no column {label_column!r} for the labels; it has: {listed(table.columns)}")
    if id_column in (label_column, "fold", "group"):
        raise UserError(
            f"{path}: the ids would be read from {id_column!r}, which holds another thing; name theirs 'id'"
        )
    ids = checked_ids(cell_texts(table[id_column]), path)
    has_folds = with_folds and "fold" in others
    folds = _folds(table["fold"], ids, path) if has_folds else np.zeros(len(ids), dtype=np.int64)
    kept = np.flatnonzero(folds >= 0)
    if not len(kept):
        raise UserError(f"{path}: no row has a fold (0 or more), so there is nothing to blend on")
    codes, names = _coded(table[label_column])
    _refuse_empty(codes, kept, label_column, ids, path)
    classes = in_order(names)
    number = {name: c for c, name in enumerate(classes)}
    labels = np.array([number[name] for name in names], dtype=np.int64)[codes[kept]]
    clusters = np.arange(len(kept))
    if "group" in others:
        groups = _coded(table["group"])[0]
        _refuse_empty(groups, kept, "group", ids, path)
        clusters = np.unique(groups[kept], return_inverse=True)[1]
    return Rows(ids[kept], labels, folds[kept], clusters.astype(np.int64), "group" in others, classes)


def read_predictions(
    path: Path, classes: tuple[str, ...], say: Callable[[str], None], what: str, kind: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Ids str (N,) and logits float64 (N, C), -inf for a probability of 0, from a CSV, Parquet, npz or npy file, in its
    order of rows.

    A table has its ids in the column "id", else in the first, and one column per class, named after it. An npz has one
    2-D array of floats, `ids`, and perhaps `classes` in the order of its columns. An npy has its ids beside it
    (`oof.npy`: `oof.ids.txt`, `oof.ids.npy`). What the numbers are is seen by their range and sums (see
    `scale.recognised`) and said, unless `kind` says it. Logits stay as they are; the rows of probabilities are
    made to sum to 1 and their logs returned. what: the member's name, for what is said. Raises UserError that names
    file, id and column, or where the numbers could be of two kinds.
    """

    def warn(text: str) -> None:
        say(f"warning: {what} ({path.name}): {text}")

    if path.suffix.lower() in (".npz", ".npy"):
        ids, values = array_predictions(path, classes)
        columns: Sequence[str] = classes
    else:
        ids, values, columns = table_predictions(path, classes, warn, 100.0 if kind == "percentages" else 1.0)
    _refuse_not_finite(values, ids, columns, path)
    scale = recognised(values, path, what, kind)
    say(f"{what} ({path.name}): {scale.message}")
    return ids, logits_of(values, scale, ids, warn)


def join(
    rows: Rows, members: Sequence[tuple[str, np.ndarray, np.ndarray]], say: Callable[[str], None]
) -> tuple[Rows, np.ndarray]:
    """The rows that every member has, in the order of `rows`, and the members' logits float32 (M, N', C) for them.

    members: name, unique ids str (n,) and logits (n, C), finite or -inf, of each. Rows that a member lacks are left out
    for all, rows that it has besides are not used; a warning says how many. Raises UserError if fewer than half the
    rows remain.
    """
    wanted = pd.Index(rows.ids.astype(object), dtype=object)
    where = np.empty((len(members), len(wanted)), dtype=np.int64)
    for m, (_, ids, _) in enumerate(members):
        where[m] = pd.Index(ids.astype(object), dtype=object).get_indexer(wanted)
    has = where >= 0
    kept = has.all(axis=0)
    if 2 * int(kept.sum()) < len(wanted) or not len(wanted):
        least = int(has.sum(axis=1).argmin())
        _refuse_join(rows.ids, has[least], int(kept.sum()), *members[least][:2])
    z = np.empty((len(members), int(kept.sum()), len(rows.classes)), dtype=np.float32)
    for m, (name, ids, values) in enumerate(members):
        z[m] = values[where[m][kept]]
        if not has[m].all():
            say(
                f"warning: {name}: has no prediction for {int((~has[m]).sum())} of the {len(wanted)} rows (first: id "
                f"{str(rows.ids[~has[m]][0])!r}); they are left out for all members"
            )
        others = np.ones(len(ids), dtype=np.bool_)
        others[where[m][has[m]]] = False
        if others.any():
            say(
                f"warning: {name}: {int(others.sum())} of its {len(ids)} ids are not among the rows (first: "
                f"{str(ids[others][0])!r}); they are not used"
            )
    clusters = np.unique(rows.clusters[kept], return_inverse=True)[1].astype(np.int64)
    return Rows(rows.ids[kept], rows.labels[kept], rows.folds[kept], clusters, rows.grouped, rows.classes), z


def with_external(oof: Oof, members: Sequence[ExternalFiles], say: Callable[[str], None]) -> Oof:
    """`oof` with further members, joined by id, on the rows that all of them have.

    Says in warnings what can be seen to be wrong. Raises UserError as `read_predictions` and `join` do, for a name
    that is there already, and if there is no member at all.
    """
    names = [*oof.members, *(files.name for files in members)]
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise UserError(f"two members are named {repeated[0]!r}; give each its own name: NAME=OOF,TEST")
    if not names:
        raise UserError("no members to blend; name their files with --add NAME=OOF,TEST")
    if not members:
        return oof
    read = [
        (files.name, *read_predictions(files.oof, oof.rows.classes, say, files.name, files.kind)) for files in members
    ]
    rows, z = join(oof.rows, read, say)
    for m, files in enumerate(members):
        z[m] = _finite(z[m], rows.folds, rows, files, files.oof, say)
    kept = np.isin(oof.rows.ids, rows.ids)
    trained = [values if kept.all() else values[:, kept] for values in oof.values]
    everything = [*trained, *z[:, None]]
    for line in suspicious(rows, names, np.stack([v.mean(axis=0) for v in everything]), names[len(trained) :]):
        say(line)
    return replace(
        oof,
        rows=rows,
        members=tuple(names),
        views=(*oof.views, *(EXTERNAL_VIEW,) * len(members)),
        values=tuple(everything),
        external=tuple(names[len(trained) :]),
    )


def read_tests(members: Sequence[ExternalFiles], rows: Rows, say: Callable[[str], None]) -> dict[str, Logits]:
    """The test predictions of those members that have some, by name: before a fit, which a bad file must not cost."""
    return {files.name: read_test(files, rows, say) for files in members if files.test is not None}


def read_test(files: ExternalFiles, rows: Rows, say: Callable[[str], None]) -> Logits:
    """A member's test predictions, values (1, N, C). rows: the labelled ones. Raises UserError if it has none, and as
    `read_predictions`."""
    if files.test is None:
        raise UserError(f"{files.name} has no test predictions; name them with --add {files.name}={files.oof},TEST")
    ids, z = read_predictions(files.test, rows.classes, say, files.name, files.kind)
    z = _finite(z, np.full(len(ids), -1), rows, files, files.test, say)
    return Logits(ids, EXTERNAL_VIEW, rows.classes, z[None], {"source": str(files.test)})


def _finite(
    z: np.ndarray, folds: np.ndarray, rows: Rows, files: ExternalFiles, path: Path, say: Callable[[str], None]
) -> np.ndarray:
    """Logits float32 (N, C) without the -inf of probabilities that are 0; see `scale`."""

    def warn(text: str) -> None:
        say(f"warning: {files.name} ({path.name}): {text}")

    counts = np.bincount(rows.labels, minlength=len(rows.classes))
    shares = (counts + 1) / (counts.sum() + len(counts))
    return floored(without_unknown_classes(z, folds, shares, rows.classes, warn), warn)


def rows_of(test: Logits, ids: Sequence[str] | np.ndarray, source: str) -> np.ndarray:
    """The values of the rows with these ids, in their order. Raises UserError, naming `source`, for one that lacks."""
    return test.align(np.array([nfc(str(name)) for name in ids]), source).values


def _folds(column: pd.Series, ids: np.ndarray, path: Path) -> np.ndarray:
    numbers, other = cell_numbers(column)
    numbers = np.where(np.isnan(numbers) & ~other, -1, numbers)
    wrong = np.flatnonzero(~((np.floor(numbers) == numbers) & (np.abs(numbers) < 2**31)))
    if len(wrong):
        cell = str(column.iloc[wrong[0]])
        raise UserError(f"{path}: row {wrong[0] + 1}, id {str(ids[wrong[0]])!r}: fold {cell!r} is not a whole number")
    return numbers.astype(np.int64)


def _coded(column: pd.Series) -> tuple[np.ndarray, list[str]]:
    """Each cell's number int64 (N,), -1 for an empty one, and the different texts, stripped and composed."""
    codes, texts = pd.factorize(cell_texts(column))
    written = [nfc(str(text).strip()) for text in texts]
    names = [name for name in dict.fromkeys(written) if name]
    number = {name: n for n, name in enumerate(names)}
    return np.array([number.get(name, -1) for name in written], dtype=np.int64)[codes], names


def _refuse_empty(codes: np.ndarray, kept: np.ndarray, column: str, ids: np.ndarray, path: Path) -> None:
    empty = kept[codes[kept] < 0]
    if len(empty):
        raise UserError(
            f"{path}: column {column!r} is empty in row {empty[0] + 1}, id {str(ids[empty[0]])!r} ({len(empty)} rows "
            "in all)"
        )


def _refuse_not_finite(values: np.ndarray, ids: np.ndarray, columns: Sequence[str], path: Path) -> None:
    """Refuse NaN, +inf, what float32 can't hold, and rows that are all 0 or all -inf."""
    wrong = ~(values <= LARGEST)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        what = "empty or NaN" if np.isnan(values[row, column]) else f"{values[row, column]:g}"
        raise UserError(
            f"{path}: id {str(ids[row])!r}, column {columns[column]!r}: the value is {what} "
            f"({int(wrong.any(axis=1).sum())} rows have such); leave rows without a prediction out of the file"
        )
    for what, bad in (("0", ~values.any(axis=1)), ("-inf", values.max(axis=1) < -LARGEST)):
        if bad.any():
            raise UserError(
                f"{path}: id {str(ids[bad][0])!r}: all its values are {what} ({int(bad.sum())} such rows); leave rows "
                "without a prediction out of the file"
            )


def _refuse_join(wanted: np.ndarray, has: np.ndarray, kept: int, name: str, ids: np.ndarray) -> None:
    """Raise the UserError of too few rows. has: bool (N,), the rows that `name`, which lacks the most, has."""
    other = ids[~np.isin(ids, wanted)]
    raise UserError(
        f"{name}: only {kept} of {len(wanted)} rows have a prediction by every member, and it lacks the most "
        f"({int((~has).sum())}, first: id {str(wanted[~has][0])!r}); its own ids are like "
        f"{str((other if len(other) else ids)[0])!r}: are they written otherwise?"
    )

"""A table of the rows that are sound, and one of those that left, with the reason. Images are never touched.

Rows leave whose file is missing or unreadable, that have no label, or whose image stands there twice: of exact copies
with one label the first stays; with several, all leave, since nothing says which label is right. Near copies and
look-alikes stay and share a group, so that folds keep them on one side, but for sets of so many that `data.ties` leaves
them apart. Spellings of one class become the commonest.
"""

import os
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ensemble.audit.files import has_image
from ensemble.audit.row_pairs import RowPairs, as_pairs
from ensemble.audit.rows import Given, Rows, clean_labels
from ensemble.data.copies.ties import near_ties
from ensemble.data.name_groups import label_key
from ensemble.data.scan import Scan
from ensemble.data.unpacked.source_names import copy_of_source, source_name
from ensemble.errors import UserError
from ensemble.files.atomic import require_writable, write_text

OWN = ("id", "path", "label", "group", "fold")


@dataclass(frozen=True)
class Fixed:
    """A cleaned table and what was done for it.

    table: id, path, label, perhaps group and fold, and the other columns as they were.
    removed: id, path, label, reason and copy_of of each row that was taken out.
    renamed: how many rows got another label or id.
    moved: how many got another fold.
    grouped: how many share a group with a copy or look-alike, which they did not before.
    images: the folder that the paths start from, where it is a copy of what is packed; None: the table's own.
    """

    table: pd.DataFrame
    removed: pd.DataFrame
    renamed: int
    moved: int
    grouped: int
    images: Path | None = None


def removed_file(output: Path) -> Path:
    return output.with_name(f"{output.stem}.removed.csv")


def require_new(output: Path) -> None:
    """Raise UserError if one of the two files is there already, or can't be written."""
    for path in (output, removed_file(output)):
        if path.exists():
            raise UserError(f"{path}: exists already; choose another name with --fix, or delete it")
        require_writable(path)


def fixed(given: Given, at: np.ndarray, scan: Scan, pairs: RowPairs, output: Path) -> Fixed:
    """at: row of each training row in `scan`, int64 (N,), -1 where its file is missing. pairs: of rows, all kinds."""
    rows = given.rows
    reasons, copy_of = _reasons(rows, at, scan)
    stay = np.array([reason == "" for reason in reasons], dtype=bool)
    labels = _spelt(clean_labels(rows))
    ids = _unique(rows.ids, stay)
    ties = _ties(rows, at, pairs)
    groups, grouped = _groups(rows, ties, stay)
    folds, moved = _folds(rows, ties) if given.own_folds and rows.folds is not None else (None, 0)
    images = copy_of_source(rows.source)
    folder = output.absolute().parent if images is None else images
    paths = ["" if file is None else Path(os.path.relpath(file, folder)).as_posix() for file in rows.files]
    columns: dict[str, object] = {"id": ids, "path": paths, "label": labels}
    if groups is not None:
        columns["group"] = groups
    if folds is not None:
        columns["fold"] = folds
    assert rows.labels is not None
    return Fixed(
        pd.DataFrame({**columns, **_others(rows)})[stay],
        pd.DataFrame(
            {"id": rows.ids, "path": paths, "label": rows.labels, "reason": reasons, "copy_of": copy_of}
        )[~stay],
        int(((labels != rows.labels) | (ids != rows.ids))[stay].sum()),
        moved,
        grouped,
        images,
    )  # fmt: skip


def write_fixed(output: Path, made: Fixed) -> list[str]:
    """Write both tables; lines on what left, what changed and how to train on it."""
    if not len(made.table):
        raise UserError(f"{output}: not written: no row is left")
    write_text(output, made.table.to_csv(index=False))
    write_text(removed_file(output), made.removed.to_csv(index=False))
    total = len(made.table) + len(made.removed)
    lines = [f"{output}: {len(made.table):,} of {total:,} rows stay"]
    if len(made.removed):
        reasons = Counter(reason.partition(":")[0] for reason in made.removed["reason"])
        each = ", ".join(f"{reason}: {count:,}" for reason, count in reasons.most_common())
        lines.append(f"{removed_file(output)}: {len(made.removed):,} leave ({each})")
    for count, text in (
        (made.renamed, "got a label in its common spelling, or an id of its own"),
        (made.grouped, "share a group with a copy or look-alike, which they did not before"),
        (made.moved, "moved to the fold of their copy or group"),
    ):
        if count:
            lines.append(f"{count:,} rows {text}" if count > 1 else f"1 row {text.replace('their', 'its')}")
    keys = [
        f'train = "{output}"',
        *([] if made.images is None else [f'images = "{source_name(made.images)}"']),
        'id = "id"',
    ]
    keys += ['group = "group"'] if "group" in made.table else []
    of_folds = '; under [folds]: fold = "fold"' if "fold" in made.table else ""
    lines.append(f"to train on it, under [data]: {', '.join(keys)} (path and label by their own names){of_folds}")
    return lines


def _reasons(rows: Rows, at: np.ndarray, scan: Scan) -> tuple[list[str], list[str]]:
    """Why each row leaves, "" if it stays, and the id of the row that it repeats or contradicts."""
    labels = clean_labels(rows)
    keys = [label_key(name) for name in labels.tolist()]
    readable = has_image(at, scan)
    reasons, copy_of = [""] * len(rows), [""] * len(rows)
    sets: dict[str, list[int]] = defaultdict(list)
    for row in range(len(rows)):
        if at[row] < 0:
            reasons[row] = "missing file"
        elif not readable[row]:
            reasons[row] = f"unreadable: {scan.errors[at[row]]}"
        elif labels[row] == "":
            reasons[row] = "no label"
        else:
            sets[str(scan.digests[at[row]])].append(row)
    for group in sets.values():
        first = group[0]
        for row in group if len({keys[row] for row in group}) > 1 else []:
            other = next(one for one in group if keys[one] != keys[row])
            same = at[row] == at[other]
            reasons[row] = "same file with another label" if same else "exact copy with another label"
            copy_of[row] = str(rows.ids[other])
        for row in group[1:]:
            if reasons[row] == "":
                reasons[row] = "repeated path" if at[row] == at[first] else "exact copy"
                copy_of[row] = str(rows.ids[first])
    return reasons, copy_of


def _spelt(labels: np.ndarray) -> np.ndarray:
    """Labels with each class in its commonest spelling."""
    counts = Counter(labels.tolist())
    best: dict[str, str] = {}
    for name in sorted(counts, key=lambda name: (-counts[name], name)):
        best.setdefault(label_key(name), name)
    return np.array([best[label_key(name)] for name in labels.tolist()], dtype=np.str_)


def _unique(ids: np.ndarray, stay: np.ndarray) -> np.ndarray:
    """Ids, the later ones of a repeated one numbered: a, a-2, a-3."""
    taken = set(ids[stay].tolist())
    seen: set[str] = set()
    made = ids.astype(object)
    for row in np.flatnonzero(stay):
        name, number = str(ids[row]), 1
        while name in seen or (number > 1 and name in taken):
            number += 1
            name = f"{ids[row]}-{number}"
        made[row] = name
        seen.add(name)
    return made.astype(np.str_)


def _ties(rows: Rows, at: np.ndarray, pairs: RowPairs) -> np.ndarray:
    """A number for each row, the same for rows that belong together: copies, rows of one file, those of one group. As
    in training, near copies of a set too large for one are left apart."""
    links = [(np.arange(len(rows)), near_ties(as_pairs(pairs), len(rows)))]
    for names in (at, rows.groups):
        if names is not None:
            of = np.unique(names, return_inverse=True, return_index=True)
            real = np.flatnonzero(names != ("" if names is rows.groups else -1))
            links.append((real, of[1][of[2][real]]))
    one, other = (np.concatenate(side) for side in zip(*links, strict=True))
    graph = coo_array((np.ones(len(one), dtype=bool), (one, other)), shape=(len(rows), len(rows)))
    return np.asarray(connected_components(graph, directed=False)[1])


def _groups(rows: Rows, ties: np.ndarray, stay: np.ndarray) -> tuple[np.ndarray | None, int]:
    """A group for each row, named as the user did where there is a name, else by its first row's id; None where all
    rows stand alone. Also how many rows share one with a row that they did not share one with."""
    sizes = np.bincount(ties[stay], minlength=int(ties.max()) + 1)
    if rows.groups is None and sizes.max() < 2:
        return None, 0
    given = rows.groups if rows.groups is not None else np.full(len(rows), "", dtype=np.str_)
    used = set(given.tolist())
    names: dict[int, str] = {}
    kinds: dict[int, set[str]] = defaultdict(set)
    for row in np.flatnonzero(stay):
        kinds[int(ties[row])].add(str(given[row]) or f"\0{row}")
    for row in np.argsort(given, kind="stable"):
        name = str(given[row])
        if name and stay[row]:
            names.setdefault(int(ties[row]), name)
    for row in np.flatnonzero(stay):
        if int(ties[row]) not in names:
            name = str(rows.ids[row])
            while name in used:
                name += "+"
            names[int(ties[row])] = name
    joined = sum(1 for row in np.flatnonzero(stay) if len(kinds[int(ties[row])]) > 1)
    return np.array([names.get(int(tie), "") for tie in ties], dtype=np.str_), joined


def _folds(rows: Rows, ties: np.ndarray) -> tuple[np.ndarray, int]:
    """The fold of each row, that of the first validated row that it is tied to, and how many rows changed theirs."""
    assert rows.folds is not None
    of: dict[int, int] = {}
    for row in np.argsort(rows.folds < 0, kind="stable"):
        of.setdefault(int(ties[row]), max(int(rows.folds[row]), -1))
    folds = np.array([of[int(tie)] for tie in ties], dtype=np.int64)
    return folds, int((folds != rows.folds).sum())


def _others(rows: Rows) -> dict[str, object]:
    """The table's other columns; one that is called like one of ens's own gets another name."""
    if rows.table is None or rows.columns is None:
        return {}
    used = set(rows.columns.values())
    return {
        f"given_{name}" if name in OWN else str(name): rows.table[name].to_numpy()
        for name in rows.table.columns
        if name not in used
    }

"""Groups: what is wrong with those that are given, and what file names suggest where none are.

A suggestion is made only where names fall into many small sets, and images of one set look more alike than others of
their class: running numbers and classes written into names are neither.
"""

import re
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from ensemble.audit.files import has_image
from ensemble.audit.findings import Finding, finding
from ensemble.audit.labels import label_key
from ensemble.audit.read import Given, Rows, clean_labels
from ensemble.data.scan import Scan
from ensemble.data.uneven import planned, uneven, written
from ensemble.errors import UserError

FEWEST_GROUPS = 8
IN_GROUPS = 0.8  # of the rows have another one of their group
LARGEST = 0.2  # of the rows
PAIRS = 2000  # that are looked at
# AUC of "two of a group are more alike than two others of the class". Names that mean nothing give 0.5 +- 0.01.
ALIKE = 0.6
COUNTED = re.compile(r"^(.*?)[\s_.()-]*\d+\)?$")  # what stands before a last number
WORDS = re.compile(r"[\s_.-]*(frame|frm|img|image|photo|pic|shot|view|crop|face|f|no)$", re.IGNORECASE)


def check_groups(given: Given) -> list[Finding]:
    """Given groups that folds can't be made of."""
    rows = given.rows
    if rows.groups is None:
        return []
    labels = clean_labels(rows)
    named = rows.groups != ""
    found = finding(
        "empty-group", "error", rows.ids[~named], ("row without a group", "rows without a group"),
        "name a group for each, one of its own where it stands alone (--fix)",
    )  # fmt: skip
    names = np.unique(rows.groups[named])
    if rows.folds is None and len(names) < given.k:
        found += finding(
            "few-groups", "error", names, (f"group for {given.k} folds", f"groups for {given.k} folds"),
            "lower folds.k, or use no groups",
        )  # fmt: skip
    lone = [name for name in np.unique(labels[labels != ""]) if len(np.unique(rows.groups[labels == name])) < 2]
    if rows.folds is None:
        found += finding(
            "lone-class", "error", lone,
            ("class that stands in one group only", "classes that stand in one group only"),
            "a fold could not both train on it and test it: add groups, or drop it",
        )  # fmt: skip
    found += _uneven(given, labels)
    if given.own_folds and rows.folds is not None:
        order = np.lexsort((rows.folds, rows.groups))
        order = order[named[order]]
        split = (rows.groups[order][1:] == rows.groups[order][:-1]) & (rows.folds[order][1:] != rows.folds[order][:-1])
        parted = np.unique(rows.groups[order][1:][split])
        found += finding(
            "group-across-folds", "error", parted, ("group that your folds part", "groups that your folds part"),
            "put each group into one fold (--fix)",
        )  # fmt: skip
    return found


def _uneven(given: Given, labels: np.ndarray) -> list[Finding]:
    """Folds of which one is far larger than its share, if folds can be made of the groups."""
    rows = given.rows
    assert rows.groups is not None
    sound = np.flatnonzero((labels != "") & (rows.groups != ""))
    folds = rows.folds
    if folds is None:
        classes, numbers = np.unique(labels[sound], return_inverse=True)
        try:
            folds = planned(numbers, tuple(classes.tolist()), given.k, rows.groups[sound])
        except (UserError, ValueError):  # other findings say why there are none
            return []
    else:
        folds = folds[sound]
    odd = None if folds is None else uneven(np.maximum(folds, -1), None if given.own_folds else rows.groups[sound])
    if folds is None or odd is None:
        return []
    text = f"of {odd.rows:,} images in one of {len(odd.sizes)} folds, of {written(odd.sizes)} images: {odd.why}"
    return finding("uneven-folds", "warning", rows.ids[sound][folds == odd.largest], (text, text), odd.advice)


def check_own_folds(given: Given) -> list[Finding]:
    """The user's own folds: numbers 0, 1, ... without gaps, and -1."""
    rows = given.rows
    if not given.own_folds or rows.folds is None or rows.table is None or rows.columns is None:
        return []
    odd = rows.folds < -1
    present = sorted(set(rows.folds[rows.folds >= 0].tolist()))
    found = finding(
        "odd-fold", "error", rows.ids[odd], ("row whose fold is no number", "rows whose folds are no numbers"),
        "number them 0, 1, ...; -1 or nothing for rows that are only trained on",
    )  # fmt: skip
    if present != list(range(len(present))) or len(present) < 2:
        found += finding(
            "fold-gap", "error", [str(fold) for fold in present] or ["none"],
            ("fold, where 0, 1, ... without gaps are wanted", "folds, where 0, 1, ... without gaps are wanted"),
            "number them anew",
        )  # fmt: skip
    return found


def suggest_groups(rows: Rows, at: np.ndarray, scan: Scan) -> dict[str, Any] | None:
    """What file names suggest: {how, groups, rows, median, largest, alike, names}, or None.

    at: row of each of `rows` in `scan`, -1 where there is no file. names: the group of each row, str (N,).
    """
    usable = has_image(at, scan)
    paths = [PurePosixPath(text) for text in _paths(rows)]
    labels = np.array([label_key(name) for name in clean_labels(rows).tolist()], dtype=np.str_)
    best = None
    for how, key in _keys():
        names = np.array([key(path, label_key(label)) for path, label in zip(paths, clean_labels(rows), strict=True)])
        facts = _sizes(names, labels)
        if facts is None:
            continue
        alike = _alike(names, labels, at, scan.thumbnails, usable)
        if alike is not None and alike >= ALIKE and (best is None or alike > best["alike"] + 0.02):
            best = {"how": how, **facts, "alike": round(alike, 3), "names": names}
    return best


def check_suggestion(found: dict[str, Any] | None) -> list[Finding]:
    if found is None:
        return []
    names, counts = np.unique(found["names"][found["names"] != ""], return_counts=True)
    text = (
        f"groups that file names suggest ({found['how']}): {found['median']:.0f} images each, at most "
        f"{found['largest']}; two of one are more alike than two of different ones in {100 * found['alike']:.0f} % of "
        "comparisons"
    )
    largest = np.argsort(-counts, kind="stable")[:3]
    return finding(
        "suggested-groups", "note", names, (text, text),
        "if each is one person, place or film: write them as a column of a table and name it with data.group",
        examples=[f"{names[one]} ({counts[one]})" for one in largest],
    )  # fmt: skip


def _paths(rows: Rows) -> list[str]:
    """Paths as written, from the table's folder or the folder of class folders on."""
    if rows.table is not None and rows.columns is not None and rows.columns["path"]:
        return [str(text) for text in rows.table[rows.columns["path"]]]
    return [str(name) for name in rows.ids]


def _keys() -> list[tuple[str, Callable[[PurePosixPath, str], str]]]:
    """Ways to read a group from a path and its class; "" where it has none."""

    def folder(path: PurePosixPath, label: str) -> str:
        parent = path.parent.name
        return "" if parent == "" or label_key(parent) == label else str(path.parent)

    def before_the_number(path: PurePosixPath, label: str) -> str:
        match = COUNTED.match(path.stem)
        start = WORDS.sub("", match[1]) if match else ""
        return "" if not start or label_key(start) == label else start

    def first_part(path: PurePosixPath, label: str) -> str:
        parts = re.split(r"[\s_.-]+", path.stem)
        return parts[0] if len(parts) > 1 and label_key(parts[0]) != label else ""

    return [
        ("the folder", folder),
        ("what stands before the last number", before_the_number),
        ("the first part of the name", first_part),
    ]


def _sizes(names: np.ndarray, labels: np.ndarray) -> dict[str, Any] | None:
    """Numbers of groups and rows; None where they are no groups of people or scenes: few, alone, or all but one."""
    groups, of, counts = np.unique(names, return_inverse=True, return_counts=True)
    shared = (counts > 1) & (groups != "")
    classes = len(np.unique(labels))
    if shared.sum() < max(FEWEST_GROUPS, 2 * classes):
        return None
    if shared[of].mean() < IN_GROUPS or counts[shared].max() > max(2, LARGEST * len(names)):
        return None
    return {
        "groups": int(shared.sum()),
        "rows": int(counts[shared].sum()),
        "median": float(np.median(counts[shared])),
        "largest": int(counts[shared].max()),
    }


def _alike(
    names: np.ndarray, labels: np.ndarray, at: np.ndarray, thumbnails: np.ndarray, usable: np.ndarray
) -> float | None:
    """AUC of likeness between pairs of a group and pairs of the same two classes but other groups; None without any.

    Likeness is the correlation of grey thumbnails of 8 x 8 cells.
    """
    random = np.random.default_rng(0)
    rows = np.flatnonzero(usable & (names != ""))
    order = rows[np.lexsort((random.random(len(rows)), names[rows]))]
    together = np.flatnonzero(names[order][1:] == names[order][:-1])
    if len(together) < 10:
        return None
    together = random.permutation(together)[:PAIRS]
    one, other = order[together], order[together + 1]
    by_label = {label: rows[labels[rows] == label] for label in np.unique(labels[rows])}
    strangers = np.array([random.choice(by_label[labels[row]]) for row in other])
    apart = names[one] != names[strangers]
    if apart.sum() < 10:
        return None
    inside, outside = (
        (_cells(thumbnails, at[these]) * _cells(thumbnails, at[those])).sum(axis=1)
        for these, those in ((one, other), (one[apart], strangers[apart]))
    )
    from ensemble.audit.shift import area

    return area(np.concatenate([outside, inside]), np.repeat([0, 1], [len(outside), len(inside)]))


def _cells(thumbnails: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """8 x 8 mean greys, each image's mean taken off and scaled to length 1, float64 (n, 64)."""
    side = thumbnails.shape[1] // 8 * 8
    cells = np.stack(
        [
            np.asarray(thumbnails[row])[:side, :side].reshape(8, side // 8, 8, side // 8).mean(axis=(1, 3))
            for row in rows
        ]
    )
    flat = cells.reshape(len(rows), 64) - cells.mean(axis=(1, 2))[:, None]
    return np.asarray(flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-9))

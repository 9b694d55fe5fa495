"""Groups: what is wrong with those that are given, and what file names suggest where none are."""

from pathlib import Path

import numpy as np

from ensemble.audit.findings import Finding, finding
from ensemble.audit.rows import Given, Rows, clean_labels
from ensemble.data.name_groups import FROM_NAMES, NameGroups, name_groups
from ensemble.data.uneven import planned, uneven, written
from ensemble.errors import UserError


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


def suggest_groups(given: Given) -> NameGroups | None:
    """What file names suggest, where there are no groups and no folds of the user's own."""
    rows = given.rows
    if rows.groups is not None or given.own_folds:
        return None
    return name_groups(rows.files, clean_labels(rows).tolist(), _base(rows, given.images))


def check_suggestion(found: NameGroups | None) -> list[Finding]:
    if found is None:
        return []
    names, counts = np.unique(found.names[found.names != ""], return_counts=True)
    text = (
        f"groups that file names suggest ({found.part}): {found.median:.0f} images each, at most {found.largest}; two "
        f"images of a group are more alike than two of different groups in {100 * found.alike:.0f} % of comparisons"
    )
    largest = np.argsort(-counts, kind="stable")[:3]
    return finding(
        "suggested-groups", "warning", names, (text, text),
        "if each is one person, place or film, folds that split it make every score optimistic: "
        f'data.group = "{FROM_NAMES}", or --fix',
        examples=[f"{names[one]} ({counts[one]})" for one in largest],
    )  # fmt: skip


def _base(rows: Rows, images: Path | None) -> Path:
    """The folder that names are seen from."""
    return rows.source if rows.table is None else images or rows.source.parent

"""Labels: empty, contradictory or written in two ways; and how many rows each class has."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import combinations

import numpy as np

from ensemble.audit.findings import Finding, finding
from ensemble.audit.rows import Given, Rows, clean_labels
from ensemble.data.name_groups import label_key as label_key
from ensemble.data.table.several import combined_labels

PLACEHOLDERS = frozenset(
    {"nan", "null", "na", "n/a", "?", "unlabeled", "unlabelled", "tbd"}
)  # "none" is a class to many
UNEVEN = 10  # times the smallest class, from where accuracy is a poor score
TYPO_LENGTH, TYPO_SHARE = 5, 0.2  # letters of names that may be typos; rows of the rarer spelling to the other's
TYPO_ROWS, TYPO_TINY = 9, 0.01  # a class of more rows than this, and of this share of the other, is no typo: a house
TYPO_CLASSES = 2000  # pairs of more names are not looked at


def check_labels(given: Given) -> list[Finding]:
    rows = given.rows
    assert rows.labels is not None
    labels = clean_labels(rows)
    empty = labels == ""
    folder = rows.table is None
    found = finding(
        "empty-label", "error", rows.ids[empty],
        ("image outside any class folder", "images outside any class folder") if folder
        else ("row without a label", "rows without a label"),
        "move them into class folders, or drop them (--fix)" if folder else "label them, or drop the rows (--fix)",
    )  # fmt: skip
    stray = (np.char.strip(rows.labels) != rows.labels) & ~empty
    found += finding(
        "stray-spaces", "note", rows.ids[stray],
        ("label with spaces around it", "labels with spaces around them"),
        "none needed: ens strips them; other programs make classes of them (--fix)",
        examples=[repr(text) for text in dict.fromkeys(rows.labels[stray].tolist())],
    )  # fmt: skip
    found += _spellings(rows, labels)
    counts = class_counts(labels)
    odd = [name for name in counts if name.casefold() in PLACEHOLDERS]
    found += finding(
        "placeholder", "warning", rows.ids[np.isin(labels, odd)],
        ("label that looks like a missing one", "labels that look like missing ones"),
        "it is taken for a class of that name; label these rows or drop them", examples=[repr(name) for name in odd],
    )  # fmt: skip
    found += finding(
        "several-labels", "warning", combined := combined_labels(labels.tolist()),
        ("class that looks like several labels in a cell", "classes that look like several labels in a cell"),
        "ens trains one label per image, and takes each combination for a class of its own: keep one label per row",
        examples=[repr(name) for name in combined],
    )  # fmt: skip
    return [*found, *_repeats(rows, labels), *_empty_classes(rows), *_sizes_of_classes(given, counts)]


def class_counts(labels: np.ndarray) -> dict[str, int]:
    """Rows of each class, the most first; labels as training reads them, empty ones left out."""
    counts = Counter(labels[labels != ""].tolist())
    return {name: counts[name] for name in sorted(counts, key=lambda name: (-counts[name], name))}


def _spellings(rows: Rows, labels: np.ndarray) -> list[Finding]:
    """Classes that differ by case or separators (trained apart), by Unicode form (ens joins them), or by a letter."""
    assert rows.labels is not None
    apart: dict[str, set[str]] = defaultdict(set)
    forms: dict[str, set[str]] = defaultdict(set)
    for raw in set(rows.labels.tolist()):
        name = unicodedata.normalize("NFC", raw.strip())
        if name:
            apart[label_key(name)].add(name)
            forms[name].add(raw.strip())
    split = [sorted(names) for names in apart.values() if len(names) > 1]
    written = [name for name, ways in forms.items() if len(ways) > 1]
    found = finding(
        "class-spelling", "error", rows.ids[np.isin(labels, [name for names in split for name in names])],
        ("class in several spellings", "classes in several spellings"),
        "they would be trained as different classes; make them one (--fix)",
        examples=[" / ".join(map(repr, names)) for names in sorted(split)], count=len(split),
    )  # fmt: skip
    found += finding(
        "unicode-form", "note", rows.ids[np.isin(labels, written)],
        ("class in two Unicode forms", "classes in two Unicode forms"),
        "none needed: ens joins them; other programs see two classes of the same look (--fix)",
        examples=sorted(written), count=len(written),
    )  # fmt: skip
    counts = class_counts(labels)
    typos = [
        (rare, usual)
        for rare, usual in (sorted(pair, key=lambda name: counts[name]) for pair in _near_names(list(counts)))
        if counts[rare] <= min(TYPO_SHARE * counts[usual], max(TYPO_ROWS, TYPO_TINY * counts[usual]))
        and label_key(rare) != label_key(usual)
    ]
    return found + finding(
        "class-typo", "warning", rows.ids[np.isin(labels, [rare for rare, _ in typos])],
        ("class that may be a typo of another", "classes that may be typos of others"),
        "rename it if they are one class", count=len(typos),
        examples=[f"{rare!r} ({counts[rare]}) / {usual!r} ({counts[usual]})" for rare, usual in typos],
    )  # fmt: skip


def _near_names(names: list[str]) -> list[tuple[str, str]]:
    """Pairs of long names that one letter more, less or other, or two in the wrong order, tells apart."""
    words = [name for name in names if len(name) >= TYPO_LENGTH][:TYPO_CLASSES]
    # one letter left out of either, or the two swapped: then the sets of such remainders meet
    rests = {name: {name} | {name[:at] + name[at + 1 :] for at in range(len(name))} for name in words}
    holders: dict[str, list[str]] = defaultdict(list)
    for name in words:
        for rest in rests[name]:
            holders[rest].append(name)
    pairs = {pair for group in holders.values() if len(group) > 1 for pair in combinations(sorted(group), 2)}
    return sorted(pair for pair in pairs if not _differ_by_digits(*pair))


def _differ_by_digits(one: str, other: str) -> bool:
    """class1 and class2 are numbered, not misspelt."""
    return re.sub(r"\d", "", one) == re.sub(r"\d", "", other) or one.rstrip("0123456789") == other.rstrip("0123456789")


def _repeats(rows: Rows, labels: np.ndarray) -> list[Finding]:
    """Files and ids that stand in several rows."""
    of_file: dict[object, list[int]] = defaultdict(list)
    of_id: dict[str, list[int]] = defaultdict(list)
    for row, (id, file) in enumerate(zip(rows.ids.tolist(), rows.files, strict=True)):
        of_id[id].append(row)
        if file is not None:
            of_file[file].append(row)
    same: list[int] = []
    torn: list[int] = []
    for group in of_file.values():
        if len(group) > 1:
            (same if len({label_key(labels[row]) for row in group if labels[row]}) < 2 else torn).extend(group)
    by_path = rows.columns is not None and not rows.columns["id"]
    ids = [] if by_path else [row for group in of_id.values() if len(group) > 1 for row in group]
    return [
        *finding(
            "path-two-labels", "error", rows.ids[sorted(torn)],
            ("row of a file with two labels", "rows of files that have two labels"),
            "find the right label; --fix drops all of them",
            examples=[f"{rows.ids[row]} ({labels[row]})" for row in torn],
        ),
        *finding(
            "repeated-path", "error", rows.ids[sorted(same)],
            ("row of a file that stands in several", "rows of files that stand in several"),
            "keep one row of each (--fix): repeats land on both sides of a split and make every score optimistic",
            examples=[str(name) for name in dict.fromkeys(rows.ids[same].tolist())],
        ),
        *finding(
            "repeated-id", "error", rows.ids[sorted(ids)], ("row with an id of several", "rows with ids of several"),
            "every row needs an id of its own (--fix numbers the later ones)",
            examples=[str(name) for name in dict.fromkeys(rows.ids[ids].tolist())],
        ),
    ]  # fmt: skip


def _empty_classes(rows: Rows) -> list[Finding]:
    """Class folders without an image that ens can read."""
    bare = [path.relative_to(rows.source).as_posix() for path in rows.bare]
    return finding(
        "empty-class", "error", bare, ("class folder without images", "class folders without images"),
        "add images that ens reads (JPEG, PNG), or remove the folder",
    )  # fmt: skip


def _sizes_of_classes(given: Given, counts: dict[str, int]) -> list[Finding]:
    names: Sequence[str] = list(counts)
    if not names:
        return finding(
            "one-class", "error", given.rows.ids, ("row, and no class", "rows, and no class"),
            "a classifier needs two classes or more",
        )  # fmt: skip
    if len(names) < 2:
        return finding(
            "one-class", "error", names, ("class only", "class only"), "a classifier needs two or more",
        )  # fmt: skip
    found = []
    if not given.own_folds:
        few = [name for name in names if counts[name] < given.k]
        words = (f"class of fewer rows than the {given.k} folds", f"classes of fewer rows than the {given.k} folds")
        level = "error" if given.experiment or any(counts[name] < 2 for name in few) else "warning"
        found += finding(
            "small-class", level, few, words, "add images, drop the class, or lower folds.k",
            examples=[f"{name!r} ({counts[name]})" for name in few],
        )  # fmt: skip
    largest, smallest = names[0], names[-1]
    times = counts[largest] / counts[smallest]
    if times >= UNEVEN:
        share = np.array(list(counts.values())) / sum(counts.values())
        effective = float(np.exp(-(share * np.log(share)).sum()))  # of the entropy: as uneven as so many equal classes
        found += finding(
            "uneven-classes", "note", names,
            ("", f"classes, the largest with {times:.0f} times the rows of the smallest: as uneven as {effective:.1f} "
             f"equal ones"),
            f"always saying {largest!r} is {100 * share[0]:.0f} % right: look at macro F1 or balanced accuracy",
            examples=[f"{name!r} ({counts[name]:,})" for name in (largest, smallest)],
        )  # fmt: skip
    return found

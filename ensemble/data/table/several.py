"""Cells that hold several labels ("scab rust", "a|b", "[0, 1]"), told from names of several words by their structure.

The parts of several labels recur, alone or with others: "scab rust" stands beside "scab" and "rust". The words of a
name do so rarely: "great" stands in no class but "great white shark".
"""

import re
from collections import Counter
from collections.abc import Sequence

LISTED = re.compile(r"^\s*[\[({].*[\])}]\s*$", re.DOTALL)
# In a name a space is common, a comma, a slash or an "and" not rare, a bar or semicolon hardly seen.
MARKS = ("|", ";", ",", "/", "+", "&", " ")
RARE = ("|", ";")


def several_labels(labels: Sequence[str]) -> str | None:
    """A line that says that labels (of rows) look like several in a cell, with an example; None if they don't."""
    found = combined_labels(labels)
    if not found:
        return None
    rows = sum(label in found for label in labels)
    looks, more = ("class looks", "") if len(found) == 1 else ("classes look", ", ...")
    return (
        f"{len(found):,} {looks} like several labels in a cell: {found[0]!r}{more} ({rows:,} "
        f"{'row' if rows == 1 else 'rows'}). ens trains one label per image, and takes each combination for a class of "
        "its own"
    )


def combined_labels(labels: Sequence[str]) -> list[str]:
    """The different labels that look like several in a cell, in the order of the rows."""
    different = list(dict.fromkeys(label for label in labels if label))
    listed = [label for label in different if LISTED.match(label)]
    lists = [label for label in listed if len(_listed(label)) > 1]
    if lists and len(listed) == len(different):
        return lists
    for mark in MARKS:
        combined = [label for label in different if len(_parts(label, mark)) > 1]
        if combined and (found := _made_of(combined, set(different), mark)):
            return found
    return []


def _made_of(combined: Sequence[str], classes: set[str], mark: str) -> list[str]:
    """Those of the combined labels that are made of labels."""
    parts = {label: _parts(label, mark) for label in combined}
    places = Counter(part for label in combined for part in set(parts[label]))
    recurring = {part for part, count in places.items() if count > 1 or part in classes}
    if mark in RARE:
        return [label for label in combined if recurring & set(parts[label])]
    alone = [label for label in combined if len(set(parts[label])) > 1 and set(parts[label]) <= classes]
    if 2 * len(alone) > len(combined):
        return alone
    recur = [label for label in combined if set(parts[label]) <= recurring]
    if len(recur) < 0.9 * len(combined):
        return []
    # Sets of labels are more than their labels, and differ in length. Names of two words ("red car") bring a word
    # each or, where all colours meet all things, are of one length.
    many = len({len(parts[label]) for label in combined}) > 1 and len(combined) > len(places)
    return recur if many or (mark != " " and classes & set(places)) else []


def _parts(label: str, mark: str) -> list[str]:
    return [part.strip() for part in label.split(mark) if part.strip()]


def _listed(label: str) -> list[str]:
    return [part for part in label.strip()[1:-1].split(",") if part.strip()]

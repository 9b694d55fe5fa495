"""Which images a slice holds: those of one value, or of an interval of a number. Never imports torch."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ensemble.files.reading import Finite

TAILS = (0.05, 0.1, 0.2)  # shares of the images with the lowest and the highest numbers
MOST_VALUES = 12  # of numbers with no more different values, each value is a slice


@dataclass(frozen=True)
class Rule:
    """Which images a slice holds.

    kind: "class", "group", "image" (a property of the file), "column" (of the user's table) or "cluster".
    of: what is looked at: the property's or column's name; "class", "group" or "cluster".
    value: the value that its images have; None for an interval.
    low, high: the ends of the interval, which belong to it; None where it is open.
    text: the rule in words.
    """

    kind: str
    of: str
    value: str | None
    low: Finite | None
    high: Finite | None
    text: str

    def holds(self, values: np.ndarray) -> np.ndarray:
        """Which of these values, str (N,) or float (N,), lie in the slice, bool (N,). NaN lies in none."""
        if self.value is not None:
            return np.asarray(values == self.value)
        inside = np.isfinite(values)
        with np.errstate(invalid="ignore"):
            if self.low is not None:
                inside &= values >= self.low
            if self.high is not None:
                inside &= values <= self.high
        return np.asarray(inside)


@dataclass(frozen=True)
class Candidate:
    """A slice that is tested.

    rule: which images it holds.
    rows: int64 (n,), the numbers of its rows.
    by_rows: whether it is tested by single rows, since it is itself one cluster, and not by clusters.
    """

    rule: Rule
    rows: np.ndarray
    by_rows: bool = False


def of_values(kind: str, of: str, values: np.ndarray, min_size: int) -> list[Candidate]:
    """A slice for each value that at least `min_size` rows have, and as many rows have not.

    kind, of: as in `Rule`.
    values: str (N,); "" is no value.
    """
    found = []
    for value in np.unique(values).tolist():
        rows = np.flatnonzero(values == value)
        if value and _is_part(len(rows), len(values), min_size):
            rule = Rule(kind, of, value, None, None, f"{of} {value}")
            found.append(Candidate(rule, rows, by_rows=kind == "group"))
    return found


def of_numbers(kind: str, of: str, values: np.ndarray, form: str, min_size: int) -> list[Candidate]:
    """Slices of the lowest and of the highest numbers, by several shares of the rows, which ties may make larger; where
    there are few different numbers, a slice for each.

    kind, of: as in `Rule`.
    values: float (N,); NaN lies in no slice.
    form: how a number is written, as in "{:g}".
    min_size: how many rows a slice has at least, and how many lie outside it.
    """
    known = np.sort(values[np.isfinite(values)])
    different = np.unique(known).tolist()
    found: list[Candidate] = []
    if len(different) <= MOST_VALUES:
        rules = [Rule(kind, of, None, value, value, f"{of} {form.format(value)}") for value in different]
    else:
        rules = list(_tails(kind, of, known, form))
    for rule in rules:
        rows = np.flatnonzero(rule.holds(values))
        is_new = not any(np.array_equal(rows, other.rows) for other in found)
        if is_new and _is_part(len(rows), len(values), min_size):
            found.append(Candidate(rule, rows))
    return found


def _tails(kind: str, of: str, known: np.ndarray, form: str) -> Iterator[Rule]:
    """known: the numbers in order."""
    for share in TAILS:
        count = max(round(share * len(known)), 1)
        low, high = float(known[count - 1]), float(known[-count])
        yield Rule(kind, of, None, None, low, f"{of} up to {form.format(low)} (the lowest {100 * share:g} %)")
        yield Rule(kind, of, None, high, None, f"{of} from {form.format(high)} (the highest {100 * share:g} %)")


def _is_part(rows: int, of: int, min_size: int) -> bool:
    return rows >= min_size and of - rows >= min_size

"""Names of classes: the one order that they have everywhere, and which of them are numbers.

A submission of class numbers means places in this order, so training tables, class folders, blends and predictions from
elsewhere must agree in it.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path

from ensemble.errors import UserError

NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)", re.ASCII)
SHOWN = 20  # names in one line


def is_number(name: str) -> bool:
    """True of "3", "-1", "007" and "4.0"; not of "nan", "1e5" and "1_000", which are likelier to be names."""
    return NUMBER.fullmatch(name) is not None


def listed(names: Iterable[str]) -> str:
    """Names with commas, the first 20 and how many there are."""
    known = [str(name) for name in names]
    more = f", ... ({len(known)} in all)" if len(known) > SHOWN else ""
    return ", ".join(known[:SHOWN]) + more


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """The different names, numbers first and by their value (2 before 10, 2.0 before 10.0), then the others as text."""
    return tuple(sorted(set(names), key=_by_value))


def _by_value(name: str) -> tuple[bool, Decimal, str]:
    number = is_number(name)
    return not number, Decimal(name) if number else Decimal(0), name


def reader(classes: Sequence[str]) -> Callable[[str], int | None]:
    """A function from a text to the number of the class that it names, None for none or several: exactly, else in any
    case and with spaces, "_" and "-" alike, else as a number of that value (1 and 001)."""
    exact = {name: number for number, name in enumerate(classes)}
    loose = _once((_loose(name), number) for number, name in enumerate(classes))
    values = _once((Decimal(name), number) for number, name in enumerate(classes) if is_number(name))

    def read(text: str) -> int | None:
        text = unicodedata.normalize("NFC", text).strip()
        if text in exact:
            return exact[text]
        if is_number(text):
            return values.get(Decimal(text))
        return loose.get(_loose(text))

    return read


def class_columns(classes: Sequence[str], names: Sequence[str], path: Path) -> list[int] | None:
    """The place among `names` of each class's column: named like it (see `reader`), or with the same text before or
    after each; None if they are not all there. Raises UserError if two sets of columns are named after them."""
    read = reader(classes)
    found: dict[tuple[int, ...], None] = {}
    for before, after in dict.fromkeys(_affixes(classes, names)):
        places: dict[int | None, list[int]] = defaultdict(list)
        for place, name in enumerate(names):
            inner = _within(name, before, after)
            label = None if inner is None else read(inner)
            if label is not None and inner == classes[label]:
                places[label].insert(0, place)
            else:
                places[label].append(place)
        if all(label in places for label in range(len(classes))):
            found[tuple(places[label][0] for label in range(len(classes)))] = None
            if not before and not after:
                break
    if len(found) > 1:
        one, other = ([names[place] for place in columns[:2]] for columns in list(found)[:2])
        raise UserError(
            f"{path}: both {one[0]!r}, {one[1]!r} and {other[0]!r}, {other[1]!r} are named after the classes; "
            "keep one column per class"
        )
    return list(next(iter(found))) if found else None


def _affixes(classes: Sequence[str], names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The texts that may stand before and after the class in each name: none, those about the longest class, and what
    all names have in common."""
    yield "", ""
    longest = max(classes, key=len)
    for name in names:
        for place in re.finditer(f"(?={re.escape(longest)})", name, re.IGNORECASE):
            before, after = name[: place.start()], name[place.start() + len(longest) :]
            if not re.search(r"\d\n\d", f"{before}\n{longest}\n{after}"):  # "12" is not the class "2"
                yield before, after
    if all(map(is_number, classes)):  # class_1 for 001
        for name in names:
            found = re.fullmatch(r"(.*[^\d.+-])([+-]?[\d.]+)(\D*)", name)
            if found is not None:
                yield found[1], found[3]


def _within(name: str, before: str, after: str) -> str | None:
    folded, start, end = name.casefold(), before.casefold(), after.casefold()
    if len(name) < len(before) + len(after) or not (folded.startswith(start) and folded.endswith(end)):
        return None
    return name[len(before) : len(name) - len(after)]


def _loose(name: str) -> str:
    return re.sub(r"[\s_-]+", "_", name.strip()).casefold()


def _once(pairs: Iterable[tuple[Hashable, int]]) -> dict[Hashable, int]:
    """The keys that stand for one number only."""
    found: dict[Hashable, list[int]] = defaultdict(list)
    for key, number in pairs:
        found[key].append(number)
    return {key: numbers[0] for key, numbers in found.items() if len(numbers) == 1}

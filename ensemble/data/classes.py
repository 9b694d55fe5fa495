"""Names of classes: the one order that they have everywhere, and which of them are numbers.

A submission of class numbers means places in this order, so training tables, class folders, blends and predictions from
elsewhere must agree in it.
"""

import re
from collections.abc import Iterable
from decimal import Decimal

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

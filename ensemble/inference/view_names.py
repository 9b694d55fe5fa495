"""The names of views, read: which chain of parts a name is, see ensemble/inference/views.py. Never imports torch."""

import difflib
import math
import re
from collections.abc import Sequence
from functools import lru_cache, reduce

import numpy as np

from ensemble.errors import UserError
from ensemble.inference.geometry import TURNS, WINDOWS, Chain, Geometry, rotation, sides

SETS: dict[str, tuple[str, ...]] = {
    "flips": ("identity", "hflip", "vflip", "rot180"),
    "d4": tuple(TURNS),
    "corners": tuple(window for window in WINDOWS if window != "centre"),  # beside identity, which may be the centre
    "five-crop": tuple(WINDOWS),
    "ten-crop": (*WINDOWS, *(f"{window}*hflip" for window in WINDOWS)),
    "multi-scale": ("identity", "scale1.15", "scale1.3"),
}
NUMBERED = ("rotate", "scale", "size")
NUMBER = re.compile(r"-?([0-9]+(\.[0-9]*)?|\.[0-9]+)")
LEAST_FACTOR, GREATEST_FACTOR = 0.25, 4.0
LEAST_SIZE, GREATEST_SIZE = 8, 2048
LEAST_LIKENESS = 0.5  # of a name that is offered for an unknown one, as d4 for d5


def expand(names: Sequence[str]) -> tuple[str, ...]:
    """The names of single views, each once: sets are replaced by their views, and where two sets overlap, or a set and
    a name, the first place counts.

    Raises UserError for a name that is unknown (it offers the nearest), malformed or written twice.
    """
    views: list[str] = []
    for name in names:
        if name not in SETS:
            chain_of(name)
            if list(names).count(name) > 1:
                raise UserError(f"view {name!r} is named twice: it would only count double")
        views += SETS.get(name, (name,))
    return tuple(dict.fromkeys(views))


def is_wide(name: str) -> bool:
    """Whether a single view is cut from the wide square. Raises UserError for an unknown name."""
    return chain_of(name).window is not None


def size_of(name: str) -> int | None:
    """The side in pixels that a single view names; None for the member's own. Raises UserError for an unknown name."""
    return chain_of(name).size


def sides_of(name: str, geometry: Geometry) -> Geometry:
    """The squares of a member at the size of this view. Raises UserError for an unknown name."""
    return sides(chain_of(name), geometry)


@lru_cache(maxsize=1024)
def chain_of(name: str) -> Chain:
    """A name in its parts. Raises UserError for one that is unknown or malformed."""
    parts = name.split("*")
    windows = [part for part in parts if part in WINDOWS]
    if len(windows) > 1:
        raise UserError(f"view {name!r} has {len(windows)} windows ({', '.join(windows)}): a chain takes one at most")
    at = parts.index(windows[0]) if windows else 0
    maps = [np.eye(2) if part in WINDOWS else _linear(part, name) for part in parts]
    sizes = [_number(part, "size") for part in parts if _kind(part) == "size"]
    if len(sizes) > 1:
        raise UserError(f"view {name!r} names {len(sizes)} sizes: a chain takes one at most")
    before, after = (reduce(np.matmul, some, np.eye(2)) for some in (maps[:at], maps[at:]))
    return Chain(name, before, windows[0] if windows else None, after, int(sizes[0]) if sizes else None)


def _linear(part: str, name: str) -> np.ndarray:
    """The map of a part other than a window, float64 (2, 2). name: of the whole chain, for errors."""
    if part in TURNS:
        return np.array(TURNS[part], dtype=np.float64)
    kind = _kind(part)
    number = _number(part, kind or "")
    if kind == "rotate":
        if not math.isfinite(number):
            raise UserError(f"view {name!r}: rotate takes a number of degrees, as in rotate15 or rotate-7.5")
        return rotation(number)
    if kind == "scale":
        if not LEAST_FACTOR <= number <= GREATEST_FACTOR:
            raise UserError(
                f"view {name!r}: scale takes a factor from {LEAST_FACTOR:g} to {GREATEST_FACTOR:g}, as in scale1.15"
            )
        return np.eye(2) / number
    if kind == "size":
        if not (LEAST_SIZE <= number <= GREATEST_SIZE and number == int(number)):
            raise UserError(
                f"view {name!r}: size takes whole pixels from {LEAST_SIZE} to {GREATEST_SIZE}, as in size256"
            )
        return np.eye(2)
    whole = "" if part == name else f" in {name!r}"
    if part in SETS:
        raise UserError(f"view {part!r}{whole} is a set of views: a chain takes single ones")
    raise UserError(f"unknown view {part!r}{whole}; {_nearest(part)}")


def _kind(part: str) -> str | None:
    """The word that a part with a number begins with."""
    return next((kind for kind in NUMBERED if part.startswith(kind)), None)


def _number(part: str, kind: str) -> float:
    """What follows the word; NaN where that is no number."""
    text = part.removeprefix(kind)
    return float(text) if NUMBER.fullmatch(text) else math.nan


def _nearest(part: str) -> str:
    """Suggests what an unknown name may have meant."""
    number = NUMBER.search(part)
    if number and number.end() == len(part):
        kinds = difflib.get_close_matches(part[: number.start()], NUMBERED, n=1)
        if kinds:
            return f"did you mean {kinds[0] + number.group()!r}?"
    names = [*TURNS, *NUMBERED, *WINDOWS, *SETS]
    likeness = {name: difflib.SequenceMatcher(None, part.lower(), name).ratio() for name in names}
    best = max(likeness.values())
    if best < LEAST_LIKENESS:
        known = [*TURNS, *(f"{kind}<number>" for kind in NUMBERED), *WINDOWS, *SETS]
        return f"known: {', '.join(known)}"
    *others, last = [repr(name) for name in names if likeness[name] == best]
    return f"did you mean {', '.join(others)}{' or ' if others else ''}{last}?"

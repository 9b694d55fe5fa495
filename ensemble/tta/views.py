"""Views of a batch: named pure functions from (B, 3, H, W) to the same shape, on whatever device it lies.

All are exact: they move pixels and invent none.
"""

import difflib
from collections.abc import Callable, Sequence

from torch import Tensor

from ensemble.errors import UserError


def identity(batch: Tensor) -> Tensor:
    return batch


def hflip(batch: Tensor) -> Tensor:
    return batch.flip(-1)


def vflip(batch: Tensor) -> Tensor:
    return batch.flip(-2)


def rot90(batch: Tensor) -> Tensor:
    """A quarter turn against the clock."""
    return batch.rot90(1, (-2, -1))


def rot180(batch: Tensor) -> Tensor:
    return batch.flip(-1, -2)


def rot270(batch: Tensor) -> Tensor:
    return batch.rot90(-1, (-2, -1))


VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": identity,
    "hflip": hflip,
    "vflip": vflip,
    "rot90": rot90,
    "rot180": rot180,
    "rot270": rot270,
}


def check_views(names: Sequence[str]) -> tuple[str, ...]:
    """The names, if each is known and stands once. Raises UserError that offers the nearest."""
    for name in names:
        if name not in VIEWS:
            near = difflib.get_close_matches(name, VIEWS, n=1)
            raise UserError(
                f"unknown view {name!r}; " + (f"did you mean {near[0]!r}?" if near else f"known: {', '.join(VIEWS)}")
            )
        if list(names).count(name) > 1:
            raise UserError(f"view {name!r} is named twice: it would only count double")
    return tuple(names)

"""Where on the image a view lies, and how its pixels are made from the image's.

A view is one affine map from its own square back to the square that it is cut from. Both have coordinates from -1 to 1,
edge to edge (torch's align_corners=False), x to the right and y down. The map of a chain is the product of the maps of
its parts from left to right, since each part takes its pixels from the part before it.
"""

import math
from dataclasses import dataclass

import numpy as np

from ensemble.errors import UserError

NEAR = 1e-6  # pixels: what is closer is the same place. Products of sines and cosines are off by 1e-13.

TURNS = {  # which x and y of the image each x and y of the view shows
    "identity": ((1, 0), (0, 1)),
    "hflip": ((-1, 0), (0, 1)),
    "vflip": ((1, 0), (0, -1)),
    "rot90": ((0, -1), (1, 0)),  # a quarter turn against the clock
    "rot180": ((-1, 0), (0, -1)),
    "rot270": ((0, 1), (-1, 0)),
    "transpose": ((0, 1), (1, 0)),
    "transverse": ((0, -1), (-1, 0)),
}
WINDOWS = {  # x and y: at the low end, in the middle or at the high end
    "centre": (0, 0),
    "top-left": (-1, -1),
    "top-right": (1, -1),
    "bottom-left": (-1, 1),
    "bottom-right": (1, 1),
}


@dataclass(frozen=True)
class Geometry:
    """Sides in pixels of a member's three squares.

    image_size: of a view, which the network takes
    decode_size: of the square that most views are cut from, at least image_size
    wide_size: of the square that windows are cut from, the same picture enlarged; at least decode_size
    """

    image_size: int
    decode_size: int
    wide_size: int

    def at(self, image_size: int) -> "Geometry":
        """The squares from which the same part of the picture is shown at another size."""
        if image_size == self.image_size:
            return self
        decode_size = max(image_size, self.decode_size * image_size // self.image_size)
        return Geometry(image_size, decode_size, max(decode_size, image_size * 8 // 7))


@dataclass(frozen=True)
class Chain:
    """The parts of a view's name.

    name: the whole name
    before: float64 (2, 2), the map of the parts before the window
    window: a key of WINDOWS; None for the middle of the decoded square
    after: float64 (2, 2), the map of the parts after the window
    size: side of the view, pixels; None for the member's image_size
    """

    name: str
    before: np.ndarray
    window: str | None
    after: np.ndarray
    size: int | None = None


@dataclass(frozen=True)
class Box:
    """A view that is a box of whole pixels, perhaps mirrored or turned by quarters.

    source: side of the square that it is cut from, pixels
    top: where the box begins in that square, pixels
    left: likewise
    side: of the box, pixels
    mirrored: the dimensions that are flipped, of -1 and -2
    transposed: whether rows and columns are exchanged after that
    """

    source: int
    top: int
    left: int
    side: int
    mirrored: tuple[int, ...]
    transposed: bool


@dataclass(frozen=True)
class Turned:
    """A view at another angle.

    source: side of the square that it is cut from, pixels
    theta: (2, 3), the map from the view to that square
    step: distance between neighbouring pixels of the view, in pixels of the source
    """

    source: int
    theta: tuple[tuple[float, ...], ...]
    step: float


def rotation(degrees: float) -> np.ndarray:
    """The map of a turn against the clock, float64 (2, 2)."""
    angle = math.radians(degrees % 360)
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


def sides(chain: Chain, geometry: Geometry) -> Geometry:
    """The squares of a member at the size of this view."""
    return geometry if chain.size is None else geometry.at(chain.size)


def affine(chain: Chain, geometry: Geometry) -> np.ndarray:
    """The map of a chain, float64 (3, 3), from the view to the decoded square, or to the wide one for a window."""
    window = _window(chain, geometry)
    before, after = np.eye(3), np.eye(3)
    before[:2, :2], after[:2, :2] = chain.before, chain.after
    # Turns are about the middle of the window, so they commute with it. That middle is half a pixel beside the
    # square's where the difference of their sides is odd.
    return before @ window @ after if _at_corner(chain) else window @ before @ after


def place(chain: Chain, geometry: Geometry) -> Box | Turned:
    """How a chain's pixels are made, at its size. Raises UserError for a chain that reaches beyond the image."""
    geometry = sides(chain, geometry)
    _check_reach(chain, geometry)
    map_, source = affine(chain, geometry), _source(chain, geometry)
    linear = map_[:2, :2] * source / geometry.image_size  # pixels of the source for each of the view
    middle = (map_[:2, 2] + 1) * source / 2
    step = math.sqrt(abs(np.linalg.det(linear)))
    is_zero = np.abs(linear) * geometry.image_size < NEAR
    if is_zero.any():  # of a turn, a mirror or a scale always two, on one of the diagonals
        across, down = linear.sum(axis=1)  # the only other number of each row
        side = _whole(step * geometry.image_size, 2 * middle[0])
        left, top = (round(round(at - side / 2, 6)) for at in middle.tolist())
        # rotations that undo each other around a window may leave it anywhere
        if min(left, top) >= 0 and max(left, top) + side <= source:
            mirrored = tuple(dim for dim, sign in ((-1, across), (-2, down)) if sign < 0)
            return Box(source, top, left, side, mirrored, transposed=bool(is_zero[0, 0]))
    theta = tuple(tuple(row) for row in map_[:2].round(12).tolist())
    return Turned(source, theta, step)


def same(one: Chain, other: Chain, geometry: Geometry) -> bool:
    """Whether two chains show the same part of the image in the same way, or the same pixels after rounding."""
    if sides(one, geometry) != sides(other, geometry):
        return False
    geometry = sides(one, geometry)
    apart = np.abs(affine(one, geometry) - affine(other, geometry)).sum(axis=1).max() * geometry.wide_size / 2
    return bool(apart < NEAR) or place(one, geometry) == place(other, geometry)


def _source(chain: Chain, geometry: Geometry) -> int:
    return geometry.decode_size if chain.window is None else geometry.wide_size


def _at_corner(chain: Chain) -> bool:
    return chain.window is not None and WINDOWS[chain.window] != (0, 0)


def _window(chain: Chain, geometry: Geometry) -> np.ndarray:
    """The map of the window alone, float64 (3, 3), on whole pixels."""
    source = _source(chain, geometry)
    room = source - geometry.image_size
    starts = {-1: 0, 0: room // 2, 1: room}
    window = np.diag([geometry.image_size / source, geometry.image_size / source, 1])
    for axis, end in enumerate(WINDOWS[chain.window or "centre"]):
        window[axis, 2] = (2 * starts[end] + geometry.image_size) / source - 1
    return window


def _check_reach(chain: Chain, geometry: Geometry) -> None:
    """Raise UserError for scales that reach beyond the square. Rotations may: the square is reflected for them."""
    window = _window(chain, geometry)
    share, shift = window[0, 0], np.abs(window[:2, 2]).max()
    before, after = (math.sqrt(abs(np.linalg.det(part))) for part in (chain.before, chain.after))
    if _at_corner(chain):
        if before * (shift + share * after) > 1 + 1e-9:
            raise UserError(
                f"view {chain.name!r} shows more than there is: a factor beside {chain.window!r} is at least 1"
            )
    elif share * before * after + shift > 1 + 1e-9:
        least = math.ceil(share / (1 - shift) * 10000 - NEAR) / 10000
        raise UserError(
            f"view {chain.name!r} shows more than there is: at {geometry.image_size} px out of "
            f"{_source(chain, geometry)} the factor is at least {least:g}"
        )


def _whole(side: float, ends: float) -> int:
    """`side` in whole pixels. ends: the sum of both ends of the box: where that is whole and of the same parity as the
    side, the box lies exactly in its place."""
    if abs(ends - round(ends)) > NEAR:
        return max(round(round(side, 6)), 1)
    odd = round(ends) % 2
    # + NEAR: of two that are as near, such as 194 and 196 to 195, the larger one on any machine
    return max(2 * math.floor((side - odd) / 2 + 0.5 + NEAR) + odd, 2 - odd)

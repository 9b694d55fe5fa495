"""Views of an image: names of pure functions from a batch of decoded squares to the network's input.

- `identity`, `hflip`, `vflip`, `rot90`, `rot180`, `rot270`, `transpose`, `transverse`: the symmetries of a square
- `rotate15`: turned by that many degrees counterclockwise; beyond the edge of the image lies its reflection
- `scale1.15`: enlarged by that factor about the middle
- `centre`, `top-left`, `top-right`, `bottom-left`, `bottom-right`: windows of a larger square of the same picture
- `top-left*hflip`: one after the other, from left to right

Quarter turns, mirrors and windows only move bytes; scales and rotations interpolate once, however long the chain.
"""

import difflib
import math
import re
from collections.abc import Sequence
from functools import lru_cache, reduce

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ensemble.errors import UserError
from ensemble.inference.geometry import TURNS, WINDOWS, Box, Chain, Geometry, Turned, place, rotation, same

__all__ = ["SETS", "Geometry", "check_views", "cut", "expand", "is_wide"]

SETS: dict[str, tuple[str, ...]] = {
    "flips": ("identity", "hflip", "vflip", "rot180"),
    "d4": tuple(TURNS),
    "corners": tuple(window for window in WINDOWS if window != "centre"),  # beside identity, which may be the centre
    "five-crop": tuple(WINDOWS),
    "ten-crop": (*WINDOWS, *(f"{window}*hflip" for window in WINDOWS)),
    "multi-scale": ("identity", "scale1.15", "scale1.3"),
}
NUMBERED = ("rotate", "scale")
NUMBER = re.compile(r"-?([0-9]+(\.[0-9]*)?|\.[0-9]+)")
LEAST_FACTOR, GREATEST_FACTOR = 0.25, 4.0
LEAST_LIKENESS = 0.5  # of a name that is offered for an unknown one, as d4 for d5


def expand(names: Sequence[str]) -> tuple[str, ...]:
    """The names of single views, each once: sets are replaced by their views, and where two sets overlap, or a set and
    a name, the first place counts.

    Raises UserError for a name that is unknown (it offers the nearest), malformed or written twice.
    """
    views: list[str] = []
    for name in names:
        if name not in SETS:
            _chain(name)
            if list(names).count(name) > 1:
                raise UserError(f"view {name!r} is named twice: it would only count double")
        views += SETS.get(name, (name,))
    return tuple(dict.fromkeys(views))


def check_views(names: Sequence[str], geometry: Geometry) -> tuple[str, ...]:
    """The names that `expand` gives. Raises UserError as it does, for a view that reaches beyond the image, and for two
    views that show the same pixels."""
    views = expand(names)
    for name in views:
        _place(name, geometry)
    for index, name in enumerate(views):
        for before in views[:index]:
            if same(_chain(before), _chain(name), geometry):
                raise UserError(
                    f"view {name!r} shows the same pixels as {before!r} at {geometry.image_size} px out of "
                    f"{geometry.decode_size}: leave one out"
                )
    return views


def is_wide(name: str) -> bool:
    """Whether a single view is cut from the wide square. Raises UserError for an unknown name."""
    return _chain(name).window is not None


def cut(squares: Tensor, name: str, geometry: Geometry) -> Tensor:
    """One view of a batch, (B, 3, S, S) in channels_last with S = image_size, on the squares' device.

    squares: uint8 (B, 3, side, side) with side = wide_size where `is_wide(name)`, else decode_size; or floats of any
        scale, such as normalised images. They are not changed, though the result may share their memory

    Of uint8 the result is uint8 where bytes are moved or the CPU's uint8 kernel scales them, else float32 in [0, 255];
    of floats it is of their dtype, and nothing is clipped. An image's pixels are the same whichever batch it comes in.
    Raises ValueError for squares of another size or dtype, UserError for an unknown name or a view that reaches beyond
    the image.
    """
    where = _place(name, geometry)
    want = (len(squares), 3, where.source, where.source)
    if squares.shape != want or not (squares.dtype == torch.uint8 or squares.dtype.is_floating_point):
        found = f"{squares.dtype} {tuple(squares.shape)}"
        raise ValueError(f"view {name!r} is cut from torch.uint8 or floats {want}, not from {found}")
    view = _turned(squares, where, geometry) if isinstance(where, Turned) else _boxed(squares, where, geometry)
    return view.contiguous(memory_format=torch.channels_last)


def _boxed(squares: Tensor, box: Box, geometry: Geometry) -> Tensor:
    view = squares[..., box.top : box.top + box.side, box.left : box.left + box.side]
    if box.side != geometry.image_size:
        view = _resized(view, geometry.image_size)
    if box.mirrored:
        view = view.flip(box.mirrored)
    return view.transpose(-1, -2) if box.transposed else view


def _turned(squares: Tensor, turned: Turned, geometry: Geometry) -> Tensor:
    # Bilinear takes 0.7 ms per image of 224 px on one core, bicubic 2.8 ms. It reads only four pixels for each pixel of
    # the view, so that where the view is smaller, pixels are skipped and the others form patterns. The square is
    # therefore shrunk by as much first. The map is in shares of the square, and stays the same.
    is_float = squares.dtype.is_floating_point  # as given: the shrunk square of bytes may be floats
    side = max(round(turned.source / turned.step), 1)
    if side < turned.source:
        squares = _resized(squares, side)
    theta = torch.tensor(turned.theta, dtype=torch.float32, device=squares.device)[None]
    size = geometry.image_size
    grid = F.affine_grid(theta, [1, 3, size, size], align_corners=False).expand(len(squares), -1, -1, -1)
    view = F.grid_sample(squares.float(), grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return view.to(squares.dtype) if is_float else view.clamp_(0, 255)


def _resized(pixels: Tensor, size: int) -> Tensor:
    """Bicubic and antialiased. Of uint8 the result is uint8 on a CPU, where that is 8 times as fast, else float32."""
    if pixels.dtype == torch.uint8 and pixels.device.type == "cpu":
        resized: Tensor = F.interpolate(pixels, (size, size), mode="bicubic", antialias=True)
        return resized
    resized = F.interpolate(pixels.float(), (size, size), mode="bicubic", antialias=True)
    return resized.to(pixels.dtype) if pixels.dtype.is_floating_point else resized.clamp_(0, 255)


@lru_cache(maxsize=1024)
def _place(name: str, geometry: Geometry) -> Box | Turned:
    return place(_chain(name), geometry)


@lru_cache(maxsize=1024)
def _chain(name: str) -> Chain:
    """A name in its parts. Raises UserError for one that is unknown or malformed."""
    parts = name.split("*")
    windows = [part for part in parts if part in WINDOWS]
    if len(windows) > 1:
        raise UserError(f"view {name!r} has {len(windows)} windows ({', '.join(windows)}): a chain takes one at most")
    at = parts.index(windows[0]) if windows else 0
    maps = [np.eye(2) if part in WINDOWS else _linear(part, name) for part in parts]
    before, after = (reduce(np.matmul, some, np.eye(2)) for some in (maps[:at], maps[at:]))
    return Chain(name, before, windows[0] if windows else None, after)


def _linear(part: str, name: str) -> np.ndarray:
    """The map of a part other than a window, float64 (2, 2). name: of the whole chain, for errors."""
    if part in TURNS:
        return np.array(TURNS[part], dtype=np.float64)
    kind = next((kind for kind in NUMBERED if part.startswith(kind)), None)
    text = part.removeprefix(kind or "")
    number = float(text) if NUMBER.fullmatch(text) else math.nan
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
    whole = "" if part == name else f" in {name!r}"
    if part in SETS:
        raise UserError(f"view {part!r}{whole} is a set of views: a chain takes single ones")
    raise UserError(f"unknown view {part!r}{whole}; {_nearest(part)}")


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

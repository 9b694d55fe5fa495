"""Views of an image: names of pure functions from a batch of decoded squares to the network's input.

- `identity`, `hflip`, `vflip`, `rot90`, `rot180`, `rot270`, `transpose`, `transverse`: the symmetries of a square
- `rotate15`: turned by that many degrees counterclockwise; beyond the edge of the image lies its reflection
- `scale1.15`: enlarged by that factor about the middle
- `centre`, `top-left`, `top-right`, `bottom-left`, `bottom-right`: windows of a larger square of the same picture
- `size256`: the same picture, given to the network at that many pixels a side instead of its own
- `top-left*hflip`: one after the other, from left to right

Quarter turns, mirrors and windows only move bytes; scales and rotations interpolate once, however long the chain.
"""

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ensemble.errors import UserError
from ensemble.inference.geometry import Box, Geometry, Turned, place, same
from ensemble.inference.view_names import SETS, chain_of, expand, is_wide, sides_of, size_of

__all__ = ["SETS", "Geometry", "check_views", "cut", "expand", "is_wide", "sides_of", "size_of"]


def check_views(names: Sequence[str], geometry: Geometry) -> tuple[str, ...]:
    """The names that `expand` gives. Raises UserError as it does, for a view that reaches beyond the image, and for two
    views that show the same pixels."""
    views = expand(names)
    for name in views:
        _place(name, geometry)
    for index, name in enumerate(views):
        for before in views[:index]:
            if same(chain_of(before), chain_of(name), geometry):
                size = sides_of(name, geometry)
                raise UserError(
                    f"view {name!r} shows the same pixels as {before!r} at {size.image_size} px out of "
                    f"{size.decode_size}: leave one out"
                )
    return views


def cut(squares: Tensor, name: str, geometry: Geometry) -> Tensor:
    """One view of a batch, (B, 3, S, S) in channels_last with S = image_size, on the squares' device. All sides are
    those of `sides_of(name, geometry)`.

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
    size = sides_of(name, geometry).image_size
    view = _turned(squares, where, size) if isinstance(where, Turned) else _boxed(squares, where, size)
    return view.contiguous(memory_format=torch.channels_last)


def _boxed(squares: Tensor, box: Box, size: int) -> Tensor:
    view = squares[..., box.top : box.top + box.side, box.left : box.left + box.side]
    if box.side != size:
        view = _resized(view, size)
    if box.mirrored:
        view = view.flip(box.mirrored)
    return view.transpose(-1, -2) if box.transposed else view


def _turned(squares: Tensor, turned: Turned, size: int) -> Tensor:
    # Bilinear takes 0.7 ms per image of 224 px on one core, bicubic 2.8 ms. It reads only four pixels for each pixel of
    # the view, so that where the view is smaller, pixels are skipped and the others form patterns. The square is
    # therefore shrunk by as much first. The map is in shares of the square, and stays the same.
    is_float = squares.dtype.is_floating_point  # as given: the shrunk square of bytes may be floats
    side = max(round(turned.source / turned.step), 1)
    if side < turned.source:
        squares = _resized(squares, side)
    theta = torch.tensor(turned.theta, dtype=torch.float32, device=squares.device)[None]
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
    return place(chain_of(name), geometry)

"""From decoded squares to a network's input, as a module: what `inference.views.cut` and
`inference.network_input.normalise` do on a CPU, in operations that every runtime has.

Windows, mirrors and quarter turns are slices and transposes. A scale is two products with one matrix: PyTorch's
antialiased bicubic kernel works on bytes along the rows and then along the columns, each time by weights of 15 bits,
with rounding to bytes. A rotation is `grid_sample`, on the same grid.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ensemble.data.pixels.preprocess import Preprocess
from ensemble.inference.decodings import decoding_of, decodings, geometry
from ensemble.inference.geometry import Box, Turned, place
from ensemble.inference.view_names import chain_of, sides_of

MOST_BITS = 22  # of the kernel's weights: fewer where the largest would not fit into 16 bits with its sign


class Front(torch.nn.Module):
    """Views of one size. From squares, uint8 (B, side, side, 3) of each decoding in `decodings`, to normalised images
    float32 (V * B, 3, S, S), one view after the other.

    views: their names
    size: S, pixels
    scale, shift: float32 (3, 1, 1), what bytes are multiplied with, and what is added
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, preprocess: Preprocess, views: Sequence[str]) -> None:
        super().__init__()
        self.views = tuple(views)
        self.size = sides_of(views[0], geometry(preprocess)).image_size
        self.decodings = decodings(preprocess, views)
        self.square_of_view = [self.decodings.index(decoding_of(preprocess, view)) for view in views]
        self.cuts = torch.nn.ModuleList(_cut(preprocess, view) for view in views)
        std = torch.tensor(preprocess.std, dtype=torch.float64) * 255
        mean = torch.tensor(preprocess.mean, dtype=torch.float64) * 255
        self.register_buffer("scale", (1 / std).float()[:, None, None])
        self.register_buffer("shift", (-mean / std).float()[:, None, None])

    def forward(self, *squares: Tensor) -> Tensor:
        pixels = [each.permute(0, 3, 1, 2).float() for each in squares]
        views = [cut(pixels[at]) for cut, at in zip(self.cuts, self.square_of_view, strict=True)]
        return torch.cat(views) * self.scale + self.shift


def _cut(preprocess: Preprocess, view: str) -> torch.nn.Module:
    sides = geometry(preprocess)
    where, size = place(chain_of(view), sides), sides_of(view, sides).image_size
    return TurnedView(where, size) if isinstance(where, Turned) else BoxView(where, size)


class BoxView(torch.nn.Module):
    """A box of the square, float32 (B, 3, side, side) of whole bytes: scaled, mirrored, turned by quarters."""

    def __init__(self, box: Box, size: int) -> None:
        super().__init__()
        self.box = box
        self.resize = Resize(box.side, size) if box.side != size else torch.nn.Identity()

    def forward(self, pixels: Tensor) -> Tensor:
        box = self.box
        view: Tensor = self.resize(pixels[..., box.top : box.top + box.side, box.left : box.left + box.side])
        if box.mirrored:
            view = view.flip(box.mirrored)
        return view.transpose(-1, -2) if box.transposed else view


class TurnedView(torch.nn.Module):
    """The square at another angle; float32 in [0, 255]."""

    grid: Tensor

    def __init__(self, turned: Turned, size: int) -> None:
        super().__init__()
        side = max(round(turned.source / turned.step), 1)
        self.resize = Resize(turned.source, side) if side < turned.source else torch.nn.Identity()
        theta = torch.tensor(turned.theta, dtype=torch.float32)[None]
        self.register_buffer("grid", F.affine_grid(theta, [1, 3, size, size], align_corners=False))

    def forward(self, pixels: Tensor) -> Tensor:
        grid = self.grid.expand(pixels.shape[0], -1, -1, -1)  # len() would fix the number
        view = F.grid_sample(self.resize(pixels), grid, mode="bilinear", padding_mode="reflection", align_corners=False)
        return view.clamp(0, 255)


class Resize(torch.nn.Module):
    """PyTorch's antialiased bicubic kernel for bytes, on float32 (..., side, side) that holds bytes: (..., size, size).

    weights: float32 (size, side), multiples of a power of 2
    """

    weights: Tensor

    def __init__(self, side: int, size: int) -> None:
        super().__init__()
        unit = torch.eye(side, dtype=torch.float64)[None, None]
        weights = F.interpolate(unit, (size, side), mode="bicubic", antialias=True)[0, 0]
        bits = next(
            n for n in range(MOST_BITS + 1) if n == MOST_BITS or int(0.5 + weights.max() * 2 ** (n + 1)) >= 1 << 15
        )
        rounded = torch.trunc(weights * 2**bits + torch.where(weights < 0, -0.5, 0.5))
        self.register_buffer("weights", (rounded / 2**bits).float())

    def forward(self, pixels: Tensor) -> Tensor:
        return _to_bytes(self.weights @ _to_bytes(pixels @ self.weights.T))


def _to_bytes(pixels: Tensor) -> Tensor:
    return torch.floor(pixels + 0.5).clamp(0, 255)

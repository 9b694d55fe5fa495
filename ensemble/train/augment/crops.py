"""Sampling the part of each image that was drawn: image by image on a CPU, in one gather on a GPU.

Positions are continuous: pixel 0 reaches from 0 to 1 and has its middle at 0.5. What lies outside an image is its
reflection. Both functions smooth what they shrink, so that they agree to about a grey level.
"""

import math
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F

from ensemble.device import array_on
from ensemble.train.augment.policy import Draws


class Images(Protocol):
    """Decoded images of their own shapes, such as ensemble.data.pixels.decode.Pixels."""

    @property
    def shapes(self) -> np.ndarray:
        """int64 (N, 2), height and width."""
        ...

    def image(self, row: int) -> np.ndarray:
        """uint8 (height, width, 3)."""
        ...


def crops(pixels: Images, rows: np.ndarray, draws: Draws, size: int) -> torch.Tensor:
    """On the CPU: what `draws` shows of each row, uint8 (N, 3, size, size) in channels_last.

    A box is cut out, smoothed and scaled by torch's antialiased uint8 kernel (0.1 ms an image of 128 px on one core);
    one that is turned or sheared goes through grid_sample in float (0.3 ms).
    """
    batch = torch.empty((len(rows), 3, size, size), dtype=torch.uint8, memory_format=torch.channels_last)
    upright = (draws.matrices[:, 0, 1] == 0) & (draws.matrices[:, 1, 0] == 0)
    straight, turned = np.flatnonzero(upright), np.flatnonzero(~upright)
    matrices = draws.matrices[straight]
    sides = size * matrices[:, [0, 1], [0, 1]]
    low = np.rint(matrices[:, :, 2] + np.minimum(sides, 0)).astype(int)
    high = np.rint(matrices[:, :, 2] + np.maximum(sides, 0)).astype(int)
    mirrored = [[dim for dim, side in zip((3, 2), pair, strict=True) if side < 0] for pair in sides.tolist()]
    for index, near, far, dims in zip(straight.tolist(), low.tolist(), high.tolist(), mirrored, strict=True):
        crop = _tensor(_box(pixels.image(rows[index]), near, far))
        batch[index : index + 1] = _resize(crop.flip(dims) if dims else crop, size, size)
    for index, piece in zip(turned.tolist(), _turned(pixels, rows[turned], draws.matrices[turned], size), strict=True):
        batch[index : index + 1] = piece
    return batch


def gather(flat: torch.Tensor, starts: torch.Tensor, shapes: torch.Tensor, draws: Draws, size: int) -> torch.Tensor:
    """On flat's device: what `draws` shows of each image, uint8 (N, 3, size, size) in channels_last.

    flat: uint8, all images of a set one after another, each (height, width, 3). starts: int64 (N,), where in it each
    drawn image starts. shapes: int64 (N, 2), their heights and widths. Each output pixel is the mean of k x k bilinear
    samples, spread as far as makes them as wide as the antialiased kernel of `crops`; k is 1 where nothing shrinks.
    """
    device = flat.device
    matrices = array_on(draws.matrices.astype(np.float32), device)
    scales = np.maximum(_scales(draws.matrices[:, :, :2].swapaxes(1, 2)), 1)
    samples = math.ceil(round(scales.max(), 2))
    # k points at a spacing e have the variance e^2 (k^2 - 1) / 12, a triangle of half-width s has s^2 / 6
    spacings = np.sqrt(2 * (scales**2 - 1) / max(1, samples**2 - 1)) / scales
    # Of each sample (samples * samples, N, 1, 1, 2), in pixels of the output, x and y from its pixel's middle. All that
    # comes from the host comes before the first kernel: each later copy would wait for the network's step.
    steps = np.arange(samples, dtype=np.float32) - (samples - 1) / 2
    offsets = np.stack(np.meshgrid(steps, steps, indexing="xy"), axis=2).reshape(-1, 1, 2) * spacings.astype(np.float32)
    shifts = array_on(offsets.astype(np.float32), device)[:, :, None, None, :]
    middle = torch.arange(size, device=device) + 0.5
    grid = torch.stack(torch.meshgrid(middle, middle, indexing="xy"), dim=2)  # (size, size, 2): x, y
    extent = shapes.flip(1)[:, None, None, :]  # width, height
    width, height = extent.unbind(-1)
    first, pixels = starts.view(-1, 1, 1) // 3, flat.view(-1, 3)  # a pixel's three bytes are taken at once
    total = torch.zeros((len(starts), size, size, 3), device=device)
    for shift in shifts:
        at = (grid + shift).flatten(1, 2) @ matrices[:, :, :2].mT + matrices[:, None, :, 2]
        at = _reflect(at.view(len(starts), size, size, 2), extent) - 0.5
        low = at.floor()
        part, (left, top) = at - low, low.long().unbind(-1)
        for right in (0, 1):
            x = torch.minimum((left + right).clamp_(min=0), width - 1)
            for below in (0, 1):
                y = torch.minimum((top + below).clamp_(min=0), height - 1)
                weight = (part[..., 0] if right else 1 - part[..., 0]) * (part[..., 1] if below else 1 - part[..., 1])
                total += pixels[first + y * width + x] * weight[..., None]
    return total.div_(samples * samples).add_(0.5).to(torch.uint8).permute(0, 3, 1, 2)


def _scales(matrices: np.ndarray) -> np.ndarray:
    """How far apart the lines of one grid lie on the other, per axis, so that a shear alone is no shrinking.

    matrices: (..., 2, 2), rows for the input's x and y; transposed, for the output's.
    """
    lengths = np.sqrt((matrices**2).sum(-1))
    apart: np.ndarray = np.abs(np.linalg.det(matrices))[..., None] / lengths[..., ::-1]
    return apart


def _reflect(at: torch.Tensor, extent: torch.Tensor) -> torch.Tensor:
    at = at.remainder(2 * extent)
    return torch.minimum(at, 2 * extent - at)


def _tensor(image: np.ndarray) -> torch.Tensor:
    """A copy, uint8 (1, 3, H, W) in channels_last: the pixels may be read-only, which torch has no notion of."""
    return torch.from_numpy(image[None].copy()).permute(0, 3, 1, 2)


def _resize(images: torch.Tensor, height: int, width: int) -> torch.Tensor:
    resized: torch.Tensor = F.interpolate(images, (height, width), mode="bilinear", antialias=True)
    return resized


def _box(image: np.ndarray, low: list[int], high: list[int]) -> np.ndarray:
    """The box of an image from x, y to x, y, and of its reflection where the box sticks out."""
    height, width = image.shape[:2]
    (left, top), (right, bottom) = low, high
    if top >= 0 and left >= 0 and bottom <= height and right <= width:
        return image[top:bottom, left:right]
    down, across = (
        np.minimum(index % (2 * side), 2 * side - 1 - index % (2 * side))
        for index, side in ((np.arange(top, bottom), height), (np.arange(left, right), width))
    )
    box: np.ndarray = image[down[:, None], across]
    return box


def _turned(pixels: Images, rows: np.ndarray, matrices: np.ndarray, size: int) -> Iterator[torch.Tensor]:
    """Turned or sheared pieces, float32 (1, 3, size, size) to be cut to whole numbers: bilinear samples.

    Where one shrinks by s > 1.41 it is shrunk by s / 1.41 first: both kernels together are as wide as `_resize`'s.
    """
    if len(rows) == 0:
        return
    sides = pixels.shapes[rows][:, ::-1]  # width, height, as x and y
    corners = matrices @ np.array([[0, size, 0, size], [0, 0, size, size], [1, 1, 1, 1]])
    low, high = np.floor(corners.min(2)).astype(int) - 1, np.ceil(corners.max(2)).astype(int) + 1
    low, high = np.minimum(low, 2 * sides - high), np.maximum(high, -low)  # the part that is reflected into the piece
    low, high = np.maximum(low, 0), np.minimum(high, sides)
    shrink = np.maximum(_scales(matrices[:, :, :2]) / math.sqrt(2), 1)
    shrunk = np.ceil((high - low) / shrink).astype(int)
    # Positions from -1 to 1 over the part, as grid_sample wants them: down x across, a product of rank 2, since they
    # are linear in the output's row and in its column.
    linear = np.concatenate([matrices[:, :, :2], matrices[:, :, 2:] - low[:, :, None]], axis=2)
    linear *= (2 / (high - low))[:, :, None]
    middle = np.arange(size) + 0.5
    across = linear[:, None, :, 0] * middle[:, None] + linear[:, None, :, 2] - 1  # (n, size, 2)
    steps = np.broadcast_to(linear[:, None, :, 1], across.shape)
    factors = torch.from_numpy(np.stack([steps, across], axis=1).astype(np.float32).reshape(len(rows), 2, -1))
    down = torch.from_numpy(np.stack([middle, np.ones(size)], axis=1).astype(np.float32))
    for index, (row, (left, top), (right, bottom)) in enumerate(zip(rows, low.tolist(), high.tolist(), strict=True)):
        part = _tensor(pixels.image(row)[top:bottom, left:right])
        if (shrink[index] > 1).any():
            part = _resize(part, int(shrunk[index, 1]), int(shrunk[index, 0]))
        grid = torch.mm(down, factors[index]).view(1, size, size, 2)
        piece = F.grid_sample(part.float(), grid, mode="bilinear", padding_mode="reflection", align_corners=False)
        yield piece.add_(0.5).contiguous(memory_format=torch.channels_last)

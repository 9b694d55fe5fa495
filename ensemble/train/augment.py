"""Random augmentation: which part of each image is seen, mirrored or not, and in what light.

All chances are drawn from one numpy generator that is seeded per epoch, so that an epoch that is trained again after
a kill sees the same pixels.
"""

import numpy as np
import torch
import torch.nn.functional as F

from ensemble.data.pixels import Pixels


def random_boxes(
    rng: np.random.Generator, shapes: np.ndarray, area: tuple[float, float], ratio: float = 4 / 3
) -> np.ndarray:
    """Random resized crops (Szegedy et al. 2015, "Going deeper with convolutions"): int64 (N, 4) top, left, height,
    width in pixels.

    shapes: int64 (N, 2). area: least and largest share of the image. The aspect ratio is log-uniform in [1/ratio,
    ratio]; where such a box sticks out it is cut to the image.
    """
    count = len(shapes)
    target = rng.uniform(*area, count) * shapes[:, 0] * shapes[:, 1]
    aspect = np.exp(rng.uniform(-np.log(ratio), np.log(ratio), count))
    sides = np.stack([np.sqrt(target / aspect), np.sqrt(target * aspect)], axis=1)
    sides = np.clip(np.rint(sides).astype(np.int64), 1, shapes)
    corners = np.floor(rng.random((count, 2)) * (shapes - sides + 1)).astype(np.int64)
    return np.concatenate([corners, sides], axis=1)


def random_crops(
    rng: np.random.Generator, pixels: Pixels, rows: np.ndarray, size: int, area: tuple[float, float], hflip: bool
) -> torch.Tensor:
    """A random crop of each row, scaled to (size, size) and mirrored half the time: uint8 (N, 3, size, size)."""
    boxes = random_boxes(rng, pixels.shapes[rows], area)
    mirrored = rng.random(len(rows)) < (0.5 if hflip else 0.0)
    batch = torch.empty((len(rows), 3, size, size), dtype=torch.uint8, memory_format=torch.channels_last)
    for position, (row, (top, left, height, width)) in enumerate(zip(rows, boxes, strict=True)):
        crop = pixels.image(row)[top : top + height, left : left + width]
        if mirrored[position]:
            crop = crop[:, ::-1]
        image = torch.from_numpy(crop.copy()).permute(2, 0, 1)[None]
        batch[position] = F.interpolate(image, (size, size), mode="bilinear", antialias=True)[0]
    return batch


def color_factors(rng: np.random.Generator, count: int, strength: float) -> torch.Tensor:
    """Brightness, contrast and saturation factors, float32 (N, 3), uniform in [1 - strength, 1 + strength]."""
    return torch.from_numpy(rng.uniform(1 - strength, 1 + strength, (count, 3)).astype(np.float32))


def color_jitter(images: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Per image: brightness, then contrast (about its mean grey), then saturation (about its own grey).

    images: float (N, 3, H, W) in [0, 1], on any device. factors: float (N, 3). Returns the same shape in [0, 1].
    """
    luma = images.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)  # ITU-R BT.601, as PIL and torchvision weigh
    brightness, contrast, saturation = (factors[:, index].view(-1, 1, 1, 1) for index in range(3))
    images = (images * brightness).clamp(0, 1)
    mean = (images * luma).sum(1, keepdim=True).mean((2, 3), keepdim=True)
    images = (mean + (images - mean) * contrast).clamp(0, 1)
    grey = (images * luma).sum(1, keepdim=True)
    return (grey + (images - grey) * saturation).clamp(0, 1)

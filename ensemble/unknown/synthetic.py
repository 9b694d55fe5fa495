"""Synthetic images that are none of the classes, made of training images: a detector is tried on them."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

COUNT = 40  # of each kind
GRIDS = (3, 4, 6, 8)  # patches along a side


def synthetic_images(squares: np.ndarray, labels: Sequence[int]) -> dict[str, list[Image.Image]]:
    """kind -> COUNT images, always the same ones.

    squares: uint8 (n, S, S, 3), of training images.
    labels: the n numbers of their classes.

    Noise has an image's mean and deviation; shuffled ones keep every patch and lose what it belongs to; mixtures are
    the mean of two images, of two classes where there are.
    """
    rng = np.random.default_rng(0)
    found: dict[str, list[Image.Image]] = {"noise": [], "plain colours": [], "shuffled patches": [], "mixtures": []}
    for _ in range(COUNT):
        first = int(rng.integers(len(squares)))
        others = [row for row, label in enumerate(labels) if label != labels[first]] or list(range(len(squares)))
        image, other = squares[first].astype(np.float64), squares[rng.choice(others)].astype(np.float64)
        noise = image.mean(axis=(0, 1)) + rng.normal(size=image.shape) * image.std(axis=(0, 1))
        plain = np.broadcast_to(rng.integers(0, 256, 3), image.shape)
        made = (noise, plain, shuffled(image, int(rng.choice(GRIDS)), rng), (image + other) / 2)
        for images, pixels in zip(found.values(), made, strict=True):
            images.append(Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8)))
    return found


def shuffled(image: np.ndarray, grid: int, rng: np.random.Generator) -> np.ndarray:
    """The patches of an image (S, S, 3) in another order: (S', S', 3), where S' is S rounded down to whole patches.

    grid: how many patches lie along a side.
    """
    side = max(len(image) // grid, 1)
    grid = min(grid, len(image))
    inner = image[: grid * side, : grid * side]
    patches = inner.reshape(grid, side, grid, side, 3).swapaxes(1, 2).reshape(grid * grid, side, side, 3)
    mixed = patches[rng.permutation(len(patches))].reshape(grid, grid, side, side, 3)
    return np.asarray(mixed.swapaxes(1, 2).reshape(inner.shape))

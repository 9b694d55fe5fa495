"""Random augmentation: which part of each image is seen, how it is turned, in what light, and what of it is hidden.

All chances of a batch are drawn first, from one numpy generator that is seeded per epoch, so that an epoch that is
trained again after a kill sees the same pixels, on whichever device the pixels are then made:

    draws = draw(rng, shapes, size, augmentation)   per image a matrix, colour factors, an operation, a hidden box
    batch = crops(pixels, rows, draws, size)    one sampling per image (on a GPU: gather)
    images = finish(batch, draws, mean, std)    light and normalisation in one product, straight to the net's input

Why not a library's: all of it (crop, mirror, colour jitter, erasing, normalisation) costs 0.23 core ms an image of
128 px here, 3 % of a training step of mobilenetv3_small_100. torchvision.transforms.v2 takes 1.08 without erasing, for
on a batch it draws once for all its images and so has to go image by image; kornia draws per image and takes 1.02
(RandomResizedCrop 0.28, RandomHorizontalFlip 0.12, ColorJiggle 0.54, Normalize 0.08) and wants decoded images of one
shape. The resampling itself is torch's. (benchmarks/augment.py, batches of 32, medians of 9.)
"""

from dataclasses import dataclass

import numpy as np
import torch

from ensemble.device import array_on
from ensemble.train.augment.trivial import (
    LUMA,
    OPS,
    change_values,
    draw_trivial,
    numbers_on,
    rotations,
    saturations,
    trivial_matrices,
)


@dataclass(frozen=True)
class Draws:
    """What chance decided for the N images of a batch.

    matrices: float64 (N, 2, 3), from pixels of the (size, size) output to pixels of the decoded image, both continuous
        (the middle of pixel 0 is 0.5). Upright boxes have whole-numbered sides and corners.
    factors: float32 (N, 3) of brightness, contrast and saturation; None for none.
    op: int64 (N,) of `draw_trivial`; None for none.
    magnitude: float64 (N,), likewise.
    hidden: int64 (N, 4) top, left, height, width of the erased box, all 0 where nothing is; None for none.
    """

    matrices: np.ndarray
    factors: np.ndarray | None = None
    op: np.ndarray | None = None
    magnitude: np.ndarray | None = None
    hidden: np.ndarray | None = None

    def of(self, images: np.ndarray) -> "Draws":
        """Those of some of the images, by their numbers, int64 (n,)."""

        def some(array: np.ndarray | None) -> np.ndarray | None:
            return None if array is None else array[images]

        return Draws(self.matrices[images], *map(some, (self.factors, self.op, self.magnitude, self.hidden)))


@dataclass(frozen=True)
class Augmentation:
    """What is left to chance.

    crop_area: least and largest share of the image that a crop takes.
    hflip: mirror half of the images left to right.
    vflip: mirror half of them top to bottom.
    rotate: greatest angle in degrees, either way.
    color_jitter: factors are uniform in 1 -+ this.
    trivial: TrivialAugment.
    erase: share of the images of which a box is hidden.
    """

    crop_area: tuple[float, float] = (1.0, 1.0)
    hflip: bool = False
    vflip: bool = False
    rotate: float = 0.0
    color_jitter: float = 0.0
    trivial: bool = False
    erase: float = 0.0


def draw(
    rng: np.random.Generator,
    shapes: np.ndarray,
    size: int,
    augmentation: Augmentation,
    trivial_shares: np.ndarray | None = None,
) -> Draws:
    """Draw a batch's chances: the same generator and arguments give the same.

    shapes: int64 (N, 2), heights and widths of the decoded images. size: side of the network's input. trivial_shares:
    float (N,), each image's chance of TrivialAugment, where not all or none of them take it.
    """
    count = len(shapes)
    matrices = box_matrices(random_boxes(rng, shapes, augmentation.crop_area), size)
    for axis, wanted in enumerate((augmentation.hflip, augmentation.vflip)):
        if wanted:
            mirrored = rng.random(count) < 0.5
            matrices[mirrored, axis, 2] += size * matrices[mirrored, axis, axis]
            matrices[mirrored, axis, axis] *= -1
    if angle := augmentation.rotate:
        matrices = matrices @ rotations(rng.uniform(-angle, angle, count), size)
    factors = op = magnitude = hidden = None
    if jitter := augmentation.color_jitter:
        factors = rng.uniform(1 - jitter, 1 + jitter, (count, 3)).astype(np.float32)
    if augmentation.trivial or trivial_shares is not None:
        op, magnitude = draw_trivial(rng, count)
        if trivial_shares is not None:
            without = rng.random(count) >= trivial_shares
            op[without], magnitude[without] = OPS.index("identity"), 0.0
        matrices = matrices @ trivial_matrices(op, magnitude, size)
        upright = (matrices[:, 0, 1] == 0) & (matrices[:, 1, 0] == 0)
        matrices[upright, :, 2] = np.rint(matrices[upright, :, 2])  # a shift by whole pixels of the decoded image
    if augmentation.erase:
        hidden = erased_boxes(rng, count, size) * (rng.random((count, 1)) < augmentation.erase)
    return Draws(matrices[:, :2], factors, op, magnitude, hidden)


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


def box_matrices(boxes: np.ndarray, size: int) -> np.ndarray:
    """From a (size, size) output to boxes (N, 4) of top, left, height, width: float64 (N, 3, 3)."""
    matrices = np.zeros((len(boxes), 3, 3))
    matrices[:, 0, 0], matrices[:, 1, 1] = boxes[:, 3] / size, boxes[:, 2] / size
    matrices[:, 0, 2], matrices[:, 1, 2] = boxes[:, 1], boxes[:, 0]
    matrices[:, 2, 2] = 1
    return matrices


def erased_boxes(rng: np.random.Generator, count: int, size: int) -> np.ndarray:
    """Random erasing (Zhong et al. 2017, "Random erasing data augmentation"): int64 (N, 4) top, left, height, width of
    boxes of 2 to 33 % of a (size, size) image, of aspect ratio 0.3 to 3.3 (log-uniform)."""
    return random_boxes(rng, np.full((count, 2), size), (0.02, 0.33), ratio=10 / 3)


def light(factors: torch.Tensor, means: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Brightness, then contrast about the image's mean grey, then saturation about each pixel's own grey, as one affine
    map of RGB: matrices (N, 3, 3), to be multiplied from the left, and a bias (N,) that is the same for all channels.

    factors: (N, 3). means: (N, 3), each image's mean RGB before. Nothing is cut off on the way.
    """
    brightness, contrast, saturation = factors.unbind(1)
    matrices = saturations(saturation) * (brightness * contrast).view(-1, 1, 1)
    return matrices, (1 - contrast) * brightness * (means @ numbers_on(LUMA, means.device))


def finish(
    batch: torch.Tensor, draws: Draws, mean: tuple[float, ...], std: tuple[float, ...], channels_last: bool = True
) -> torch.Tensor:
    """The network's input, float32 (N, 3, S, S), on the batch's device: TrivialAugment's changes of value (which the
    batch keeps), colour jitter, the member's normalisation, and 0, the mean colour, in the hidden boxes.

    batch: uint8 (N, 3, S, S) in channels_last, of `crops` or `gather`. mean, std: per channel, of values in [0, 1].
    Colour jitter and normalisation are one matrix and one bias an image. So nothing cuts the jittered values off at 0
    and 1, and that is meant: what is over-exposed keeps its texture, and the cost is that of normalising alone. The
    mean grey is measured on every eighth row (of 128). Call it outside of autocast.
    """
    if draws.op is not None and draws.magnitude is not None:
        change_values(batch, draws.op, draws.magnitude)
    count, _, height, width = batch.shape
    rows = batch.permute(0, 2, 3, 1)
    shift, scale = numbers_on(mean, batch.device), numbers_on(std, batch.device)
    if draws.factors is None:
        matrices, bias = torch.eye(3, device=batch.device).expand(count, 3, 3), shift.new_zeros(count)
    else:
        sampled = rows[:, :: max(1, height // 16)].float().flatten(2).mean(1)  # by column first: it is faster so
        means = sampled.view(count, width, 3).mean(1)
        matrices, bias = light(array_on(draws.factors, batch.device), means)
    matrices = matrices / (255 * scale[:, None])
    bias = (bias[:, None] / 255 - shift) / scale
    # On a CPU, products 12 wide are faster than those 3 wide by half, and adding the bias to whole rows takes a fifth
    # of what baddbmm takes.
    at_once = 4 if height * width % 4 == 0 else 1
    blocks = torch.eye(at_once, device=batch.device).view(1, at_once, 1, at_once, 1) * matrices.mT[:, None, :, None]
    blocks = blocks.reshape(count, at_once * 3, at_once * 3)
    images = torch.bmm(rows.float().reshape(count, -1, at_once * 3), blocks).view(count, height, width * 3)
    images += bias.repeat(1, width)[:, None]
    images = images.view(count, height, width, 3).permute(0, 3, 1, 2)
    if draws.hidden is not None:
        for index in np.flatnonzero(draws.hidden[:, 2]):
            top, left, down, across = draws.hidden[index]
            images[index, :, top : top + down, left : left + across] = 0
    return images if channels_last else images.contiguous()

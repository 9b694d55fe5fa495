"""mixup and CutMix: each image takes in part of another one, and the loss takes in as much of that one's label."""

from typing import NamedTuple

import numpy as np
import torch

from ensemble.device import array_on


class Mixing(NamedTuple):
    """What chance decided for the mixing of N images with others of the same M >= N images, of which they are the
    first.

    partner: int64 (N,), numbers of 0 to M.
    down, across: float32 (N, H) and (N, W), the partner's weight in pixel (y, x) is down[:, y] * across[:, x].
    share: float32 (N,), an image's part in what it becomes.
    """

    partner: np.ndarray
    down: np.ndarray
    across: np.ndarray
    share: np.ndarray


def draw_mixing(rng: np.random.Generator, count: int, size: int, mixup: float, cutmix: float) -> Mixing | None:
    """How `count` images of (size, size) are mixed with each other: partners are a permutation of them. None where
    mixup and cutmix, the alphas, are both 0."""
    if not (mixup or cutmix):
        return None
    return Mixing(rng.permutation(count), *draw_weights(rng, count, size, size, mixup, cutmix))


def mix(
    rng: np.random.Generator, images: torch.Tensor, mixup: float, cutmix: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """mixup (Zhang et al. 2018, "mixup: beyond empirical risk minimization") and CutMix (Yun et al. 2019, "CutMix:
    regularization strategy to train strong classifiers with localizable features").

    images: float (N, 3, H, W) on any device, fastest in channels_last. mixup, cutmix: alpha of Beta(alpha, alpha), 0
    for off. Where both are on, a fair coin decides for each image.
    Returns new images of the same layout, `partner` int64 (N,), a permutation of the batch, and `share` float32 (N,),
    an image's part in what it has become, all on the images' device: the loss is
    share * loss(labels) + (1 - share) * loss(labels[partner]). With both off, the images as they are, themselves as
    partners and shares of 1.
    """
    count, _, height, width = images.shape
    if not (mixup or cutmix):
        return images, torch.arange(count, device=images.device), torch.ones(count, device=images.device)
    drawn = Mixing(rng.permutation(count), *draw_weights(rng, count, height, width, mixup, cutmix))
    return _mixed(images, drawn)


def apply_mixing(
    images: torch.Tensor, mixing: Mixing | None
) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor] | None]:
    """The first N of the images, float (M, 3, H, W), mixed as was drawn for them, and partner and share, as of `mix`;
    the images as they are, and None, where nothing is mixed."""
    if mixing is None:
        return images, None
    images, partner, share = _mixed(images, mixing)
    return images, (partner, share)


def _mixed(images: torch.Tensor, mixing: Mixing) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    partner, first, second, share = (array_on(array, images.device) for array in mixing)
    count, (height, width) = len(partner), images.shape[2:]
    if images.is_contiguous(memory_format=torch.channels_last):  # whole rows: 3 channels are too few to loop over
        rows = images.permute(0, 2, 3, 1).flatten(2)
        weights = first[:, :, None] * second.repeat_interleave(3, dim=1)[:, None]
        result = rows.index_select(0, partner).lerp_(rows[:count], 1 - weights)
        return result.view(count, height, width, 3).permute(0, 3, 1, 2), partner, share
    weights = first[:, None, :, None] * second[:, None, None]
    return images.index_select(0, partner).lerp_(images[:count], 1 - weights), partner, share


def draw_weights(
    rng: np.random.Generator, count: int, height: int, width: int, mixup: float, cutmix: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The partner's weight in pixel (y, x) is down[:, y] * across[:, x]: float32 (N, H) and (N, W); and the image's own
    share, float32 (N,), the mean of what the partner leaves.

    mixup: 1 - lambda everywhere. CutMix: 1 in a box and 0 outside; the box has 1 - lambda of the area and the image's
    aspect ratio, its middle is anywhere, and what sticks out is cut off, which the share takes into account.
    """
    boxed = rng.random(count) < (0.5 if mixup and cutmix else float(cutmix > 0))
    alpha = np.where(boxed, cutmix, mixup)
    kept = rng.beta(alpha, alpha)
    middles, extents = rng.random((count, 2)), np.array([height, width])
    half = np.sqrt(1 - kept)[:, None] / 2
    low = np.rint(np.clip(middles - half, 0, 1) * extents)
    high = np.rint(np.clip(middles + half, 0, 1) * extents)
    inside = []
    for axis, extent in enumerate((height, width)):
        at = np.arange(extent)
        inside.append((at >= low[:, axis, None]) & (at < high[:, axis, None]))
    down = np.where(boxed[:, None], inside[0], (1 - kept)[:, None]).astype(np.float32)
    across = np.where(boxed[:, None], inside[1], 1.0).astype(np.float32)
    share = np.where(boxed, 1 - (high - low).prod(1) / (height * width), kept)
    return down, across, share.astype(np.float32)

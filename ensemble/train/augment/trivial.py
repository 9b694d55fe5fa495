"""TrivialAugment, wide (Müller and Hutter 2021, "TrivialAugment: tuning-free yet state-of-the-art data augmentation"):
each sample takes one of 14 operations at a strength of its own, both uniformly at random.

The five that move pixels are matrices, which the one sampling of the image takes in; the others change the values of
the sampled uint8 image, and only of the samples that drew them. Operations and strengths are those of the paper and of
torchvision.transforms.v2.TrivialAugmentWide; what comes from outside the image is its reflection instead of black.
That class draws once for a whole batch and, image by image, takes 0.40 core ms each at 128 px, beside the crop's own
resampling; this takes 0.26 (benchmarks/augment.py), and works on a batch that lies on a GPU.
"""

from functools import lru_cache

import numpy as np
import torch

from ensemble.device import array_on

OPS = (
    "identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate",
    "brightness", "color", "contrast", "sharpness", "posterize", "solarize", "autocontrast", "equalize",
)  # fmt: skip
STRONGEST = {
    "shear_x": 0.99, "shear_y": 0.99, "translate_x": 32, "translate_y": 32, "rotate": 135,
    "brightness": 0.99, "color": 0.99, "contrast": 0.99, "sharpness": 0.99,
}  # fmt: skip
STEPS = 31
BY_VALUE = ("brightness", "contrast", "posterize", "solarize", "autocontrast", "equalize")  # a table of 256 entries
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as PIL and torchvision weigh


def draw_trivial(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """An operation (index into OPS), int64 (N,), and its magnitude, float64 (N,), for each sample.

    Magnitudes: the shear's tangent; the shift in pixels of the network's input, whole; the angle in degrees, counter-
    clockwise; what is added to the factor 1 of brightness, colour, contrast and sharpness; the bits that posterize
    keeps; the value from which on solarize inverts.
    """
    op = rng.integers(len(OPS), size=count)
    step = rng.integers(STEPS, size=count) / (STEPS - 1)
    sign = np.where(rng.random(count) < 0.5, -1.0, 1.0)
    magnitude = sign * step * np.array([STRONGEST.get(name, 0.0) for name in OPS])[op]
    shifted = (op == OPS.index("translate_x")) | (op == OPS.index("translate_y"))
    magnitude = np.where(shifted, np.trunc(magnitude), magnitude)
    magnitude = np.where(op == OPS.index("posterize"), np.rint(8 - 6 * step), magnitude)
    return op, np.where(op == OPS.index("solarize"), 255 * (1 - step), magnitude)


def trivial_matrices(op: np.ndarray, magnitude: np.ndarray, size: int) -> np.ndarray:
    """From pixels of the changed image to those of the image before, both size x size: float64 (N, 3, 3).

    Identity where the operation moves nothing. Shears hold the upper left corner still, rotation the middle.
    """
    matrices = np.tile(np.eye(3), (len(op), 1, 1))
    for name, row, column, sign in (
        ("shear_x", 0, 1, 1), ("shear_y", 1, 0, 1), ("translate_x", 0, 2, -1), ("translate_y", 1, 2, -1)
    ):  # fmt: skip
        chosen = op == OPS.index(name)
        matrices[chosen, row, column] = sign * magnitude[chosen]
    chosen = op == OPS.index("rotate")
    matrices[chosen] = rotations(magnitude[chosen], size)
    return matrices


def rotations(degrees: np.ndarray, size: int) -> np.ndarray:
    """From pixels of an image turned counter-clockwise about its middle to those of the image before: (N, 3, 3)."""
    matrices = np.tile(np.eye(3), (len(degrees), 1, 1))
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    matrices[:, 0, 0], matrices[:, 0, 1] = cosine, -sine
    matrices[:, 1, 0], matrices[:, 1, 1] = sine, cosine
    matrices[:, 0, 2] = size / 2 * (1 - cosine + sine)
    matrices[:, 1, 2] = size / 2 * (1 - cosine - sine)
    return matrices


def change_values(batch: torch.Tensor, op: np.ndarray, magnitude: np.ndarray) -> None:
    """Apply, in place, the operations that change values and leave every pixel where it is.

    batch: uint8 (N, 3, H, W) in channels_last, on any device. op, magnitude: as `draw_trivial` gives them.
    """
    rows = batch.permute(0, 2, 3, 1)  # (N, H, W, 3), contiguous
    for names, change in ((BY_VALUE, _by_value), (("color",), _saturate), (("sharpness",), _sharpen)):
        chosen = np.flatnonzero(np.isin(op, [OPS.index(name) for name in names]))
        if len(chosen):
            images = rows.index_select(0, array_on(chosen, batch.device))
            changed = change(images, op[chosen], magnitude[chosen])
            for row, image in zip(chosen, changed, strict=True):  # 20 times as fast as rows[chosen] = changed
                rows[row] = image


def saturations(factors: torch.Tensor) -> torch.Tensor:
    """The matrices (N, 3, 3), to be multiplied from the left, that move RGB away from its own grey, factors (N,)."""
    luma = numbers_on(LUMA, factors.device).expand(3, 3)
    return luma + factors.view(-1, 1, 1) * (torch.eye(3, device=factors.device) - luma)


@lru_cache(maxsize=64)
def numbers_on(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """Constants, float32 (n,), copied to a device once: each copy would wait for all that a GPU has still to do."""
    return torch.tensor(values, device=device)


def _to_uint8(values: torch.Tensor) -> torch.Tensor:
    return values.clamp_(0, 255).add_(0.5).to(torch.uint8)


def _column(numbers: np.ndarray, device: torch.device) -> torch.Tensor:
    return array_on(numbers.astype(np.float32), device).view(-1, 1, 1)


def _saturate(images: torch.Tensor, op: np.ndarray, magnitude: np.ndarray) -> torch.Tensor:
    matrices = saturations(1 + _column(magnitude, images.device)).mT
    return _to_uint8(torch.bmm(images.float().flatten(1, 2), matrices)).view_as(images)


def _sharpen(images: torch.Tensor, op: np.ndarray, magnitude: np.ndarray) -> torch.Tensor:
    """Away from (or towards) the image smoothed by [1 1 1; 1 5 1; 1 1 1] / 13; the outermost pixels stay."""
    count, height, width, _ = images.shape
    if min(height, width) < 3:
        return images
    values = images.view(count, height, width * 3).float()
    middle = values[:, 1:-1, 3:-3]
    down = (values[:, :-2] + values[:, 1:-1]).add_(values[:, 2:])
    smooth = (down[:, :, :-6] + down[:, :, 3:-3]).add_(down[:, :, 6:]).add_(middle, alpha=4).div_(13)
    middle.copy_(torch.lerp(smooth, middle, 1 + _column(magnitude, images.device)))
    return _to_uint8(values).view_as(images)


def _by_value(images: torch.Tensor, op: np.ndarray, magnitude: np.ndarray) -> torch.Tensor:
    """Every value replaced by its entry in a table of the image's channel."""
    count, height, width, _ = images.shape
    device = images.device
    tables = torch.empty((count, 3, 256), device=device)
    for kind in np.unique(op):
        chosen = np.flatnonzero(op == kind)
        index = array_on(chosen, device)
        tables[index] = _tables(OPS[kind], _column(magnitude[chosen], device), images.index_select(0, index))
    first = torch.arange(count * 3, dtype=torch.int32, device=device).view(count, 1, 3).repeat(1, 1, width) * 256
    place = images.view(count, height, width * 3).int().add_(first)
    return _to_uint8(tables).view(-1).index_select(0, place.view(-1)).view_as(images)


def _tables(name: str, strength: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """What becomes of each value, float32 (n, 3, 256), for images (n, H, W, 3) and strengths (n, 1, 1)."""
    count, height, width, _ = images.shape
    values = torch.arange(256, dtype=torch.float32, device=images.device).expand(count, 3, 256)
    match name:
        case "brightness":
            return values * (1 + strength)
        case "posterize":
            step = 2 ** (8 - strength)
            return (values / step).floor() * step
        case "solarize":
            return torch.where(values >= strength, 255 - values, values)
        case "contrast":
            means = images.float().flatten(2).mean(1).view(count, width, 3).mean(1)  # by rows: faster than at once
            return torch.lerp((means @ numbers_on(LUMA, means.device)).view(-1, 1, 1), values, 1 + strength)
        case "autocontrast":  # the least value becomes 0 and the greatest 255
            rows = images.flatten(2)
            low = rows.amin(1).view(count, width, 3).amin(1).float()[:, :, None]
            high = rows.amax(1).view(count, width, 3).amax(1).float()[:, :, None]
            return torch.where(high > low, (values - low) * 255 / (high - low), values)
    # equalize, in PIL's whole numbers: all values but the greatest share 255 steps equally
    first = torch.arange(count * 3, device=images.device).view(count, 1, 3).repeat(1, 1, width) * 256
    place = images.flatten(2).long().add_(first)
    counts = torch.zeros(count * 768, dtype=torch.int64, device=images.device)
    counts.scatter_add_(0, place.view(-1), torch.ones_like(place).view(-1))
    counts = counts.view(count, 3, 256)
    greatest = torch.where(counts > 0, values, -1).amax(2, keepdim=True).long()
    step = (height * width - counts.gather(2, greatest)) // 255
    return torch.where(step > 0, (step // 2 + counts.cumsum(2) - counts) // step.clamp(min=1), values)

"""TrivialAugment's changes of value against torchvision's, and its chances."""

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import TrivialAugmentWide
from torchvision.transforms.v2 import functional as torchvision

from ensemble.train.augment.trivial import OPS, change_values, draw_trivial

VALUES = {
    "brightness": lambda image, m: torchvision.adjust_brightness(image, 1 + m),
    "color": lambda image, m: torchvision.adjust_saturation(image, 1 + m),
    "contrast": lambda image, m: torchvision.adjust_contrast(image, 1 + m),
    "sharpness": lambda image, m: torchvision.adjust_sharpness(image, 1 + m),
    "posterize": lambda image, m: torchvision.posterize(image, int(m)),
    "solarize": lambda image, m: torchvision.solarize(image, m),
    "autocontrast": lambda image, m: torchvision.autocontrast(image),
    "equalize": lambda image, m: torchvision.equalize(image),
}
MAGNITUDES = {
    "posterize": (8, 5, 2), "solarize": (255, 100, 0), "autocontrast": (0,), "equalize": (0,)
}  # fmt: skip


def photographs(count=3, side=40):
    """Images whose channels fill different ranges unevenly: uint8 (N, 3, side, side) in channels_last."""
    noise = torch.rand(count, 3, side // 5, side // 5, generator=torch.Generator().manual_seed(0))
    images = torch.nn.functional.interpolate(noise, (side, side), mode="bicubic").clamp(0, 1) ** 1.5
    images = images * torch.tensor([230, 150, 90]).view(1, 3, 1, 1) + torch.tensor([5, 60, 20]).view(1, 3, 1, 1)
    return images.to(torch.uint8).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", VALUES)
def test_changes_of_value_are_torchvisions(name):
    for magnitude in MAGNITUDES.get(name, (-0.99, -0.4, 0.1, 0.99)):
        images = photographs()
        want = VALUES[name](images, magnitude)
        change_values(images, np.full(3, OPS.index(name)), np.full(3, float(magnitude)))
        assert (images.int() - want.int()).abs().max() <= 2


def test_each_image_gets_its_own_operation_and_strength():
    op = np.array([OPS.index(name) for name in OPS] * 2)
    magnitude = np.array([{"posterize": 3, "solarize": 90}.get(name, 0.7) for name in OPS] * 2)
    magnitude[len(OPS) :] *= [-1 if name in ("brightness", "color", "contrast", "sharpness") else 1 for name in OPS]
    together = photographs(len(op))
    before = together.clone()
    change_values(together, op, magnitude)
    for row in range(len(op)):
        alone = before[row : row + 1].clone()
        change_values(alone, op[row : row + 1], magnitude[row : row + 1])
        assert (together[row : row + 1].int() - alone.int()).abs().max() <= 1  # means may round another way
        changed = not torch.equal(together[row], before[row])
        assert changed == (OPS[op[row]] in VALUES)


def test_images_of_one_color_and_of_few_pixels_are_left_by_what_cannot_change_them():
    for name in ("autocontrast", "equalize", "sharpness"):
        flat = torch.full((1, 3, 6, 6), 77, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
        change_values(flat, np.array([OPS.index(name)]), np.array([0.9]))
        assert flat.unique().tolist() == [77]
    tiny = torch.arange(12, dtype=torch.uint8).view(1, 3, 2, 2).contiguous(memory_format=torch.channels_last)
    before = tiny.clone()
    change_values(tiny, np.array([OPS.index("sharpness")]), np.array([0.9]))
    assert torch.equal(tiny, before)


def test_draws_are_uniform_over_operations_and_torchvisions_strengths():
    op, magnitude = draw_trivial(np.random.default_rng(0), 60_000)
    assert np.bincount(op) == pytest.approx(60_000 / 14, rel=0.07)
    space = TrivialAugmentWide._AUGMENTATION_SPACE
    for index, name in enumerate(OPS):
        torchvisions = next(key for key in space if key.lower() == name.replace("_", ""))
        steps, signed = space[torchvisions]
        drawn = magnitude[op == index]
        if steps(31, 100, 100) is None:
            assert (drawn == 0).all()
            continue
        want = steps(31, 100, 100).double().numpy() * (255 if name == "solarize" else 1)
        if name.startswith("translate"):
            want = np.trunc(want + 1e-4)  # its 16 is 15.9999
        want = np.unique(np.concatenate([want, -want]) if signed else want)
        assert np.unique(np.round(drawn, 4)) == pytest.approx(np.unique(np.round(want, 4)), abs=2e-4)
        if signed:
            assert 0.45 < (drawn > 0).sum() / (drawn != 0).sum() < 0.55

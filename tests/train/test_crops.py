"""Sampling on the CPU and by the GPU's gather, against each other and against torchvision's."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as torchvision

from ensemble.train.augment.crops import crops, gather
from ensemble.train.augment.policy import Augmentation, Draws, box_matrices, draw
from ensemble.train.augment.trivial import OPS, rotations, trivial_matrices


@dataclass
class Held:
    """Images of any shapes, in memory."""

    images: list

    @property
    def shapes(self):
        return np.array([image.shape[:2] for image in self.images])

    def image(self, row):
        return self.images[row]


def smooth(height, width, seed=0):
    """An image of soft blobs, as photographs are at the scale of a pixel: uint8 (height, width, 3)."""
    noise = torch.rand(1, 3, height // 6, width // 6, generator=torch.Generator().manual_seed(seed)) * 255
    image = torch.nn.functional.interpolate(noise, (height, width), mode="bicubic").clamp(0, 255)
    return image[0].permute(1, 2, 0).to(torch.uint8).numpy()


def gathered(images, draws, size, rows=None):
    rows = np.arange(len(images)) if rows is None else rows
    flat = torch.from_numpy(np.concatenate([image.ravel() for image in images]))
    starts = torch.tensor([0, *np.cumsum([image.size for image in images[:-1]])])
    shapes = torch.tensor([image.shape[:2] for image in images])
    return gather(flat, starts[rows], shapes[rows], draws, size)


def both(images, draws, size):
    return crops(Held(images), np.arange(len(images)), draws, size), gathered(images, draws, size)


def boxes(*box, size):
    return Draws(box_matrices(np.array(box), size)[:, :2])


def test_a_box_of_the_outputs_size_is_copied_to_the_bit():
    image = smooth(40, 50)
    for batch in both([image], boxes([3, 7, 16, 16], size=16), 16):
        assert batch.dtype == torch.uint8 and batch.shape == (1, 3, 16, 16)
        assert batch.is_contiguous(memory_format=torch.channels_last)
        assert np.array_equal(batch[0].permute(1, 2, 0).numpy(), image[3:19, 7:23])


def test_twice_as_large_by_hand():
    # pixel middles of the output lie at 0.25, 0.75, 1.25 and 1.75 of the source, whose own lie at 0.5 and 1.5
    image = np.array([[0, 100], [0, 100]], dtype=np.uint8)[..., None].repeat(3, axis=2)
    for batch in both([image], boxes([0, 0, 2, 2], size=4), 4):
        assert batch[0, 0].tolist() == [[0, 25, 75, 100]] * 4


def test_flips_mirror_to_the_bit():
    image = smooth(30, 30)
    for across, down in ((1, 0), (0, 1), (1, 1)):
        matrices = box_matrices(np.array([[2, 5, 16, 16]]), 16)
        flips = np.array([[1 - 2 * across, 0, 16 * across], [0, 1 - 2 * down, 16 * down], [0, 0, 1]])
        for batch in both([image], Draws((matrices @ flips)[:, :2]), 16):
            want = image[2:18, 5:21][:: 1 - 2 * down, :: 1 - 2 * across]
            assert np.array_equal(batch[0].permute(1, 2, 0).numpy(), want)


def test_what_lies_outside_is_the_reflection():
    row = np.arange(0, 80, 10, dtype=np.uint8)  # 0, 10, ..., 70
    image = np.broadcast_to(row[None, :, None], (8, 8, 3)).copy()
    for batch in both([image], boxes([-2, -3, 8, 8], size=8), 8):
        assert batch[0, 0].tolist() == [[20, 10, 0, 0, 10, 20, 30, 40]] * 8
    for batch in both([image.swapaxes(0, 1)], boxes([5, 2, 8, 8], size=8), 8):
        assert batch[0, 2, :, 3].tolist() == [50, 60, 70, 70, 60, 50, 40, 30]


def test_turned_pieces_reflect_at_the_images_border_and_not_at_their_parts():
    image = smooth(60, 90)
    for degrees in (30.0, -100.0):
        turned = box_matrices(np.array([[0, 0, 60, 90]]), 48) @ rotations(np.array([degrees]), 48)
        one, other = both([image], Draws(turned[:, :2]), 48)
        assert (one.float() - other.float()).abs().mean() < 2


@pytest.mark.parametrize(
    "chances",
    [
        {"crop_area": (0.35, 1.0), "hflip": True, "vflip": True},
        {"crop_area": (0.35, 1.0), "rotate": 30.0},
        {"crop_area": (0.35, 1.0), "trivial": True, "hflip": True},
        {"crop_area": (0.35, 1.0), "trivial": True, "rotate": 180.0},
    ],
)
def test_cpu_and_gather_agree_to_about_a_grey_level(chances):
    images = [smooth(70 + 3 * seed, 90 - seed, seed) for seed in range(24)]
    draws = draw(np.random.default_rng(0), Held(images).shapes, 64, Augmentation(**chances))
    one, other = both(images, draws, 64)
    difference = (one.float() - other.float()).abs().flatten(1)
    assert difference.mean() < 0.7 and difference.mean(1).max() < 2.5


@pytest.mark.parametrize("rotate", [0.0, 40.0])
def test_shrinking_smooths(rotate):
    fine = np.random.default_rng(0).integers(0, 256, (192, 192, 3), dtype=np.uint8)
    draws = draw(
        np.random.default_rng(1), np.array([[192, 192]]), 32, Augmentation(crop_area=(1.0, 1.0), rotate=rotate)
    )
    one, other = both([fine], draws, 32)
    for batch in (one, other):
        assert abs(batch.float().mean() - 127.5) < 2
        assert batch.float().std() < 25  # of 74 in single pixels; the mean of about 36 of them has 12
    assert (one.float() - other.float()).abs().mean() < 8


def test_gather_takes_each_row_from_its_place():
    images = [np.full((20 + row, 30, 3), 10 * row, dtype=np.uint8) for row in range(6)]
    rows = np.array([5, 0, 3])
    draws = draw(
        np.random.default_rng(0), Held(images).shapes[rows], 16, Augmentation(crop_area=(0.3, 1.0), rotate=50.0)
    )
    batch = gathered(images, draws, 16, rows)
    assert [image.unique().tolist() for image in batch] == [[50], [0], [30]]


def test_pixels_may_be_read_only():
    image = smooth(30, 30)
    image.flags.writeable = False
    for chances in ({}, {"rotate": 10.0}):
        draws = draw(np.random.default_rng(0), np.array([[30, 30]]), 16, Augmentation(**chances))
        assert crops(Held([image]), np.array([0]), draws, 16).shape == (1, 3, 16, 16)


def test_an_empty_batch_is_empty():
    draws = draw(np.random.default_rng(0), np.empty((0, 2), dtype=np.int64), 16, Augmentation(rotate=10.0))
    assert crops(Held([smooth(30, 30)]), np.empty(0, dtype=np.int64), draws, 16).shape == (0, 3, 16, 16)


# ---- against torchvision -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("box", [(0, 0, 90, 110), (10, 20, 40, 37), (5, 0, 80, 100)])
def test_upright_boxes_are_torchvisions_resized_crops(box):
    image = smooth(90, 110)
    want = torchvision.resized_crop(torch.from_numpy(image).permute(2, 0, 1), *box, [48, 48], antialias=True)
    one, other = both([image], boxes(box, size=48), 48)
    assert (one[0].float() - want.float()).abs().max() <= 1
    assert (other[0].float() - want.float()).abs().mean() < 1


BILINEAR = {"interpolation": InterpolationMode.BILINEAR}
STILL = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]}
AFFINE = {
    "shear_x": lambda image, m: torchvision.affine(
        image, **STILL | {"shear": [float(np.degrees(np.arctan(m))), 0.0]}, center=[0, 0], **BILINEAR
    ),
    "shear_y": lambda image, m: torchvision.affine(
        image, **STILL | {"shear": [0.0, float(np.degrees(np.arctan(m)))]}, center=[0, 0], **BILINEAR
    ),
    "translate_x": lambda image, m: torchvision.affine(image, **STILL | {"translate": [int(m), 0]}, **BILINEAR),
    "translate_y": lambda image, m: torchvision.affine(image, **STILL | {"translate": [0, int(m)]}, **BILINEAR),
    "rotate": lambda image, m: torchvision.rotate(image, m, **BILINEAR),
}


@pytest.mark.parametrize("name", AFFINE)
@pytest.mark.parametrize("share", [-1.0, -0.4, 0.1, 1.0])
def test_trivial_augments_moves_are_torchvisions(name, share):
    magnitude = {"shear_x": 0.99, "shear_y": 0.99, "translate_x": 32, "translate_y": 32, "rotate": 135}[name] * share
    if name.startswith("translate"):
        magnitude = np.trunc(magnitude)
    image = smooth(96, 96)
    planes = torch.from_numpy(image).permute(2, 0, 1)
    want = AFFINE[name](planes, magnitude).float()
    inside = AFFINE[name](torch.full_like(planes, 255), magnitude) == 255  # torchvision paints the rest black
    moved = trivial_matrices(np.array([OPS.index(name)]), np.array([magnitude]), 96)
    draws = Draws((box_matrices(np.array([[0, 0, 96, 96]]), 96) @ moved)[:, :2])
    assert 0.4 < inside.float().mean() < 1
    for batch in both([image], draws, 96):
        assert (batch[0].float() - want)[inside].abs().max() <= 2

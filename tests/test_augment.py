"""Random crops, mirroring and colour, against numbers worked out by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ensemble.data.pixels import Pixels
from ensemble.train.augment import color_factors, color_jitter, random_boxes, random_crops


def held(images):
    """Images of any shapes as Pixels."""
    shapes = np.array([image.shape[:2] for image in images])
    starts = np.cumsum([0] + [image.size for image in images[:-1]])
    return Pixels(np.concatenate([image.reshape(-1) for image in images]), starts, shapes)


def noise(count, height=24, width=32):
    rng = np.random.default_rng(0)
    return held([rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(count)])


# ---- boxes ---------------------------------------------------------------------------------------------------------


@given(
    shapes=st.lists(st.tuples(st.integers(1, 400), st.integers(1, 400)), min_size=1, max_size=20),
    shares=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(sorted),
    seed=st.integers(0, 100),
)
def test_boxes_lie_inside_and_their_area_in_range(shapes, shares, seed):
    shapes = np.array(shapes)
    boxes = random_boxes(np.random.default_rng(seed), shapes, tuple(shares))
    corners, sides = boxes[:, :2], boxes[:, 2:]
    assert boxes.dtype == np.int64 and boxes.shape == (len(shapes), 4)
    assert (corners >= 0).all() and (sides >= 1).all() and (corners + sides <= shapes).all()
    # a side is off by half a pixel at most: (h + .5)(w + .5) = hw + .5(h + w) + .25, and h + w < 2.03 sqrt(hw)
    area = sides.prod(axis=1)
    least, most = (share * shapes.prod(axis=1) for share in shares)
    assert (area <= most + 1.015 * np.sqrt(most) + 1.25).all()
    whole = (sides < shapes).all(axis=1)  # a box that stuck out was cut, and may be smaller
    assert (area >= least - 1.015 * np.sqrt(least))[whole].all()


def test_boxes_take_a_quarter_of_the_image_in_both_aspects():
    boxes = random_boxes(np.random.default_rng(0), np.full((2000, 2), 400), (0.25, 0.25))
    height, width = boxes[:, 2], boxes[:, 3]
    assert np.abs(height * width / 160_000 - 0.25).max() < 0.002
    aspect = width / height
    assert 0.745 < aspect.min() < 0.76 and 1.32 < aspect.max() < 1.34
    assert np.abs(np.log(aspect)).mean() == pytest.approx(np.log(4 / 3) / 2, abs=0.005)
    assert np.log(aspect).mean() == pytest.approx(0, abs=0.01)


def test_boxes_reach_every_corner():
    boxes = random_boxes(np.random.default_rng(0), np.full((2000, 2), 10), (0.04, 0.04))
    assert {(2, 2)} == set(map(tuple, boxes[:, 2:].tolist()))
    counts = np.bincount(boxes[:, 0] * 9 + boxes[:, 1], minlength=81)
    assert len(counts) == 81 and counts.min() > 8 and counts.max() < 45  # 24.7 expected of each


# ---- crops ---------------------------------------------------------------------------------------------------------


def test_crops_come_from_the_rows_asked_for():
    shades = held([np.full((20 + row, 30, 3), 10 * row, dtype=np.uint8) for row in range(6)])
    batch = random_crops(np.random.default_rng(0), shades, np.array([5, 0, 3]), 16, (0.3, 1.0), True)
    assert batch.dtype == torch.uint8 and batch.shape == (3, 3, 16, 16)
    assert [batch[row].unique().tolist() for row in range(3)] == [[50], [0], [30]]


def test_same_seed_gives_the_same_crops_to_the_bit():
    pixels, rows = noise(8), np.arange(8)
    first, again, other = (
        random_crops(np.random.default_rng(seed), pixels, rows, 16, (0.3, 1.0), True) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_hflip_mirrors_half_of_the_crops_exactly():
    pixels, rows = noise(40), np.arange(40)
    as_is, mixed = (
        random_crops(np.random.default_rng(0), pixels, rows, 16, (0.3, 1.0), hflip) for hflip in (False, True)
    )
    mirrored = [torch.equal(one.flip(2), other) for one, other in zip(as_is, mixed, strict=True)]
    same = [torch.equal(one, other) for one, other in zip(as_is, mixed, strict=True)]
    assert all(one != other for one, other in zip(mirrored, same, strict=True))
    assert 10 < sum(mirrored) < 30


def test_crops_show_the_boxes_that_were_drawn():
    down, across = np.mgrid[:60, :80].astype(np.uint8) * 3
    pixels = held([np.stack([down, across, down], axis=2)] * 10)
    batch = random_crops(np.random.default_rng(0), pixels, np.arange(10), 8, (0.1, 0.9), False).float()
    top, left, height, width = random_boxes(np.random.default_rng(0), pixels.shapes, (0.1, 0.9)).T
    assert batch[:, 0].mean((1, 2)).numpy() == pytest.approx(3 * (top + (height - 1) / 2), abs=0.6)
    assert batch[:, 1].mean((1, 2)).numpy() == pytest.approx(3 * (left + (width - 1) / 2), abs=0.6)


# ---- colour --------------------------------------------------------------------------------------------------------


def test_color_jitter_by_hand():
    image = torch.tensor([[[[0.4, 0.2]], [[0.2, 0.2]], [[0.6, 0.2]]]])
    # brightness 1.5: (.6, .3, .9) and (.3, .3, .3), of grey .299 x .6 + .587 x .3 + .114 x .9 = .4581 and .3
    # contrast .5 about their mean .37905: (.489525, .339525, .639525) and (.339525, ...), of grey .418575 and .339525
    # saturation 2: twice as far from its own grey
    out = color_jitter(image, torch.tensor([[1.5, 0.5, 2.0]]))
    assert out[0, :, 0, 0].tolist() == pytest.approx([0.560475, 0.260475, 0.860475], abs=1e-6)
    assert out[0, :, 0, 1].tolist() == pytest.approx([0.339525] * 3, abs=1e-6)


def test_color_jitter_clips_after_each_step():
    grey = torch.tensor([0.8, 0.2]).view(1, 1, 1, 2).expand(1, 3, 1, 2)
    # brightness 2: (1, .4), not (1.6, .4), so contrast .5 is about .7
    assert color_jitter(grey, torch.tensor([[2.0, 0.5, 1.0]]))[0, 0, 0].tolist() == pytest.approx(
        [0.85, 0.55], abs=1e-6
    )
    red = torch.tensor([0.9, 0.4, 0.4]).view(1, 3, 1, 1)
    # contrast 3 about .5495: (1, .101, .101), not (1.601, ...), of grey .369801; saturation .5 goes half way there
    out = color_jitter(red, torch.tensor([[1.0, 3.0, 0.5]])).flatten().tolist()
    assert out == pytest.approx([0.6849005, 0.2354005, 0.2354005], abs=1e-6)
    # saturation 3 about .5495 leaves the range on both sides
    assert color_jitter(red, torch.tensor([[1.0, 1.0, 3.0]])).amax() == 1
    assert color_jitter(red - 0.3, torch.tensor([[1.0, 1.0, 3.0]])).amin() == 0


def test_color_jitter_treats_each_image_by_its_own_factors():
    images = torch.rand(3, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    factors = torch.tensor([[1.0, 1.0, 1.0], [1.2, 0.9, 0.7], [0.6, 1.1, 1.4]])
    batch = color_jitter(images, factors)
    assert torch.allclose(batch[0], images[0], atol=1e-6)
    for row in (1, 2):
        assert torch.allclose(batch[row], color_jitter(images[row : row + 1], factors[row : row + 1])[0], atol=1e-6)
        assert not torch.allclose(batch[row], images[row], atol=0.01)


def test_color_factors_fill_their_range():
    factors = color_factors(np.random.default_rng(0), 1000, 0.2)
    assert factors.dtype == torch.float32 and factors.shape == (1000, 3)
    assert (factors.amin(0) >= 0.8).all() and (factors.amin(0) < 0.81).all()
    assert (factors.amax(0) <= 1.2).all() and (factors.amax(0) > 1.19).all()
    assert torch.equal(color_factors(np.random.default_rng(0), 4, 0.0), torch.ones(4, 3))

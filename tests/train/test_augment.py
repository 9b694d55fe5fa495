"""Random crops, mirroring and colour, against numbers worked out by hand."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ensemble.train.augment.crops import crops
from ensemble.train.augment.policy import Augmentation, Draws, box_matrices, draw, finish, light, random_boxes
from ensemble.train.augment.rarity import rare_shares
from ensemble.train.augment.trivial import OPS

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)


@dataclass
class Held:
    """Images of any shapes, in memory."""

    images: list

    @property
    def shapes(self):
        return np.array([image.shape[:2] for image in self.images])

    def image(self, row):
        return self.images[row]


def noise(count, height=24, width=32):
    rng = np.random.default_rng(0)
    return Held([rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(count)])


def random_crops(rng, pixels, rows, size, area, hflip):
    return crops(pixels, rows, draw(rng, pixels.shapes[rows], size, Augmentation(area, hflip)), size)


def plain(count, size=8):
    """Draws of the whole of (size, size) images, as they are."""
    return box_matrices(np.tile([0, 0, size, size], (count, 1)), size)[:, :2]


def batch_of(*colors, size=8):
    """One image of each colour, uint8 (N, 3, size, size) in channels_last."""
    colors = torch.tensor(colors, dtype=torch.uint8).view(-1, 3, 1, 1).expand(-1, 3, size, size)
    return colors.contiguous(memory_format=torch.channels_last)


def in_grey_levels(images):
    """Back from the network's input to values of 0 to 255."""
    return (images * torch.tensor(STD).view(1, 3, 1, 1) + torch.tensor(MEAN).view(1, 3, 1, 1)) * 255


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
    shades = Held([np.full((20 + row, 30, 3), 10 * row, dtype=np.uint8) for row in range(6)])
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
    pixels = Held([np.stack([down, across, down], axis=2)] * 10)
    batch = random_crops(np.random.default_rng(0), pixels, np.arange(10), 8, (0.1, 0.9), False).float()
    top, left, height, width = random_boxes(np.random.default_rng(0), pixels.shapes, (0.1, 0.9)).T
    assert batch[:, 0].mean((1, 2)).numpy() == pytest.approx(3 * (top + (height - 1) / 2), abs=0.6)
    assert batch[:, 1].mean((1, 2)).numpy() == pytest.approx(3 * (left + (width - 1) / 2), abs=0.6)


# ---- draws ---------------------------------------------------------------------------------------------------------

EVERYTHING = {
    "crop_area": (0.35, 1.0), "hflip": True, "vflip": True, "rotate": 20.0, "color_jitter": 0.2, "trivial": True,
    "erase": 0.5,
}  # fmt: skip


def test_same_seed_and_arguments_draw_the_same():
    shapes = noise(16).shapes
    first, again, other = (
        draw(np.random.default_rng(seed), shapes, 16, Augmentation(**EVERYTHING)) for seed in (0, 0, 1)
    )
    for name in ("matrices", "factors", "op", "magnitude", "hidden"):
        assert np.array_equal(getattr(first, name), getattr(again, name))
        assert not np.array_equal(getattr(first, name), getattr(other, name))


def test_nothing_asked_for_draws_the_whole_image():
    draws = draw(np.random.default_rng(0), np.array([[20, 20], [40, 40]]), 10, Augmentation())
    assert (draws.factors, draws.op, draws.magnitude, draws.hidden) == (None, None, None, None)
    # 20 px may be a 4:3 box cut to the image; its longer side is whole
    assert (draws.matrices[:, [0, 1], [0, 1]].max(axis=1) == [2, 4]).all()
    assert (draws.matrices[:, [0, 1], [1, 0]] == 0).all()


def test_flips_take_half_of_the_images_each_by_itself():
    draws = draw(np.random.default_rng(0), np.full((400, 2), 30), 10, Augmentation(hflip=True, vflip=True))
    across, down = draws.matrices[:, 0, 0] < 0, draws.matrices[:, 1, 1] < 0
    for chosen in (across, down, across == down):
        assert 160 < chosen.sum() < 240
    # a mirrored box ends where it would have begun
    low = draws.matrices[:, [0, 1], 2] + np.minimum(0, 10 * draws.matrices[:, [0, 1], [0, 1]])
    assert (low > -1e-9).all()


def test_rotation_turns_by_up_to_the_angle_about_the_middle():
    draws = draw(np.random.default_rng(0), np.full((500, 2), 40), 10, Augmentation(crop_area=(1.0, 1.0), rotate=30.0))
    box = draw(np.random.default_rng(0), np.full((500, 2), 40), 10, Augmentation(crop_area=(1.0, 1.0)))
    middle = np.array([5, 5, 1])
    assert draws.matrices @ middle == pytest.approx(box.matrices @ middle)
    ratio = draws.matrices[:, 1, 0] / box.matrices[:, 1, 1]  # the sine, whatever the box
    assert -0.5 <= ratio.min() < -0.48 and 0.48 < ratio.max() <= 0.5


def test_hidden_boxes_have_their_share_area_and_aspect():
    draws = draw(np.random.default_rng(0), np.full((4000, 2), 100), 100, Augmentation(erase=0.25))
    top, left, height, width = draws.hidden.T
    shown = height == 0
    assert 0.22 < 1 - shown.mean() < 0.28 and (draws.hidden[shown] == 0).all()
    area, aspect = (height * width / 1e4)[~shown], (width / np.maximum(height, 1))[~shown]
    assert 0.015 < area.min() < 0.03 and 0.31 < area.max() <= 0.34
    assert 0.27 < aspect.min() < 0.4 and 2.7 < aspect.max() < 3.7
    assert (top + height <= 100).all() and (left + width <= 100).all()


def test_color_factors_fill_their_range():
    factors = draw(np.random.default_rng(0), np.full((1000, 2), 9), 9, Augmentation(color_jitter=0.2)).factors
    assert factors.dtype == np.float32 and factors.shape == (1000, 3)
    assert (factors.min(0) >= 0.8).all() and (factors.min(0) < 0.81).all()
    assert (factors.max(0) <= 1.2).all() and (factors.max(0) > 1.19).all()


# ---- colour --------------------------------------------------------------------------------------------------------


def test_light_by_hand():
    # brightness 1.5 makes (.4, .2, .6) and (.2, .2, .2) into (.6, .3, .9) and (.3, .3, .3), of grey .4581 and .3
    # contrast .5 about their mean .37905: (.489525, .339525, .639525) and (.339525, ...), of grey .418575 and .339525
    # saturation 2: twice as far from its own grey
    pixels = torch.tensor([[0.4, 0.2, 0.6], [0.2, 0.2, 0.2]])
    matrices, bias = light(torch.tensor([[1.5, 0.5, 2.0]]), pixels.mean(0)[None])
    out = pixels @ matrices[0].T + bias
    assert out[0].tolist() == pytest.approx([0.560475, 0.260475, 0.860475], abs=1e-6)
    assert out[1].tolist() == pytest.approx([0.339525] * 3, abs=1e-6)


def test_finish_normalises_by_hand():
    images = finish(batch_of([255, 51, 0]), Draws(plain(1)), MEAN, STD)
    # (1 - .5) / .2, (.2 - .4) / .25, (0 - .3) / .5
    assert images[0, :, 3, 4].tolist() == pytest.approx([2.5, -0.8, -0.6], abs=1e-6)
    assert images.dtype == torch.float32 and images.shape == (1, 3, 8, 8)


@pytest.mark.parametrize("size", [8, 7])  # 7 x 7 pixels can't be taken four at a time
def test_finish_gives_each_pixel_its_own_color_in_either_layout(size):
    pixels = torch.randint(0, 256, (4, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    last = finish(pixels.contiguous(memory_format=torch.channels_last), Draws(plain(4, size)), MEAN, STD)
    first = finish(
        pixels.contiguous(memory_format=torch.channels_last), Draws(plain(4, size)), MEAN, STD, channels_last=False
    )
    assert last.is_contiguous(memory_format=torch.channels_last) and first.is_contiguous()
    assert torch.equal(first, last)
    assert torch.allclose(in_grey_levels(last), pixels.float(), atol=1e-3)


def test_finish_applies_each_images_own_factors_and_cuts_nothing_off():
    factors = np.array([[1, 1, 1], [1.5, 1, 1], [1, 1, 0], [1, 0.5, 1]], dtype=np.float32)
    images = batch_of(*[[200, 100, 50]] * 4)
    images[3, :, :4] = 0  # two colours, of mean grey 62.1
    out = in_grey_levels(finish(images, Draws(plain(4), factors), MEAN, STD))
    assert out[0, :, 0, 0].tolist() == pytest.approx([200, 100, 50], abs=1e-3)
    assert out[1, :, 0, 0].tolist() == pytest.approx([300, 150, 75], abs=1e-3)
    assert out[2, :, 0, 0].tolist() == pytest.approx([124.2] * 3, abs=1e-3)  # .299 x 200 + .587 x 100 + .114 x 50
    assert out[3, :, 7, 0].tolist() == pytest.approx([131.05, 81.05, 56.05], abs=1e-3)
    assert out[3, :, 0, 0].tolist() == pytest.approx([31.05] * 3, abs=1e-3)


def test_mean_grey_of_large_images_is_measured_on_every_few_rows():
    down = (torch.arange(128) * 2).to(torch.uint8).view(1, 1, 128, 1).expand(1, 3, 128, 128)
    factors = np.array([[1, 0, 1]], dtype=np.float32)  # no contrast at all leaves the mean grey
    draws = Draws(plain(1, 128), factors)
    out = in_grey_levels(finish(down.contiguous(memory_format=torch.channels_last), draws, MEAN, STD))
    assert out.unique().numpy() == pytest.approx(120, abs=0.01)  # rows 0, 8, ..., 120: mean 2 x 60; all rows: 127


def test_finish_hides_boxes_behind_the_mean_color():
    hidden = np.array([[1, 2, 3, 4], [0, 0, 0, 0]])
    images = finish(batch_of([255, 255, 255], [255, 255, 255]), Draws(plain(2), hidden=hidden), MEAN, STD)
    is_hidden = torch.zeros(8, 8, dtype=torch.bool)
    is_hidden[1:4, 2:6] = True
    assert torch.equal(images[0] == 0, is_hidden.expand(3, 8, 8))
    assert (images[1] != 0).all()


def test_finish_applies_what_trivial_augment_drew():
    draws = Draws(plain(2), op=np.array([OPS.index("solarize"), OPS.index("identity")]), magnitude=np.array([100.0, 0]))
    out = in_grey_levels(finish(batch_of([200, 90, 110], [200, 90, 110]), draws, MEAN, STD))
    assert out[0, :, 0, 0].tolist() == pytest.approx([55, 90, 145], abs=1e-3)
    assert out[1, :, 0, 0].tolist() == pytest.approx([200, 90, 110], abs=1e-3)


def test_the_rarer_a_class_the_larger_its_chance():
    labels = np.array([0, 0, 0, 0, 1, 1, 2, 0])
    found = rare_shares(labels, np.array([0, 1, 2, 3, 4, 6]))  # 4 of class 0, 1 of class 1, 1 of class 2
    assert found.tolist() == [0, 0, 0, 0, 0.75, 0.75, 0.75, 0]


def test_only_the_images_chosen_by_chance_take_an_operation():
    shapes, plain = np.full((2000, 2), 40), Augmentation(crop_area=(0.5, 1.0), color_jitter=0.2)
    shares = np.repeat([0.0, 0.5, 1.0], [500, 1000, 500])
    draws = draw(np.random.default_rng(0), shapes, 16, plain, shares)
    without = draw(np.random.default_rng(0), shapes, 16, plain)
    assert without.op is None
    assert np.array_equal(draws.factors, without.factors)
    still = draws.op == OPS.index("identity")
    assert still[:500].all() and not draws.magnitude[:500].any()
    assert np.array_equal(draws.matrices[:500], without.matrices[:500])
    taken = 13 / 14  # of the 14 operations one is the identity
    assert np.isclose(1 - still[500:1500].mean(), taken / 2, atol=0.05)
    assert np.isclose(1 - still[1500:].mean(), taken, atol=0.05)
    assert len(set(draws.op[1500:].tolist())) == len(OPS)

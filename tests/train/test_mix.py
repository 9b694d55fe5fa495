"""mixup and CutMix, against numbers worked out by hand."""

import numpy as np
import pytest
import torch

from ensemble.train.augment.mix import draw_weights, mix


def numbered(count, height=12, width=16):
    """Image i is i everywhere: float32 (N, 3, H, W) in channels_last."""
    values = torch.arange(count, dtype=torch.float32).view(-1, 1, 1, 1).expand(count, 3, height, width)
    return values.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("alphas", [(0.3, 0.0), (0.0, 1.0), (0.3, 1.0)])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_shares_are_what_is_left_of_each_image(alphas, layout):
    images = numbered(32).contiguous(memory_format=layout)
    mixed, partner, share = mix(np.random.default_rng(0), images, *alphas)
    assert mixed.dtype == torch.float32 and mixed.is_contiguous(memory_format=layout)
    assert partner.dtype == torch.int64 and share.dtype == torch.float32
    assert sorted(partner.tolist()) == list(range(32))
    own = torch.arange(32)
    assert torch.allclose(mixed.mean((1, 2, 3)), share * own + (1 - share) * partner, atol=1e-4)
    assert torch.equal(images, numbered(32))  # the images themselves stay as they are


def test_mixup_weighs_every_pixel_alike_by_hand():
    images = torch.randn(8, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    mixed, partner, share = mix(np.random.default_rng(0), images, 1.0, 0.0)
    for row in range(8):
        want = share[row] * images[row] + (1 - share[row]) * images[partner[row]]
        assert torch.allclose(mixed[row], want, atol=1e-6)


def test_cutmix_pastes_one_box():
    images = numbered(64)
    mixed, partner, share = mix(np.random.default_rng(0), images, 0.0, 1.0)
    for row in range(64):
        if partner[row] == row:
            continue
        pasted = (mixed[row] == partner[row]).all(0)
        assert torch.equal(pasted, (mixed[row] != row).all(0))
        assert torch.equal(pasted, pasted.any(1)[:, None] & pasted.any(0))
        assert share[row] == pytest.approx(1 - pasted.float().mean().item(), abs=1e-6)


def test_cutmix_boxes_have_the_drawn_area_where_they_do_not_stick_out():
    down, across, share = draw_weights(np.random.default_rng(0), 4000, 100, 200, 0.0, 1.0)
    height, width = down.sum(1), across.sum(1)
    middle = (down[:, 0] == 0) & (down[:, -1] == 0) & (across[:, 0] == 0) & (across[:, -1] == 0)
    assert np.abs(2 * height - width)[middle].max() <= 3  # the image's aspect ratio, to the pixel
    assert share == pytest.approx(1 - height * width / 20_000, abs=1e-6)
    # Beta(1, 1) is uniform. A side of s of 1 loses s^2 / 4 at the borders in the mean, and E[(s - s^2 / 4)^2] of
    # s^2 uniform is 1/2 - 1/5 + 1/48
    assert 1 - share.mean() == pytest.approx(0.5 - 0.2 + 1 / 48, abs=0.015)


def test_mixups_shares_are_beta():
    down, across, share = draw_weights(np.random.default_rng(0), 20_000, 4, 4, 0.4, 0.0)
    assert share.mean() == pytest.approx(0.5, abs=0.01)
    assert share.var() == pytest.approx(1 / (4 * (2 * 0.4 + 1)), abs=0.005)
    assert down[:, 0] == pytest.approx(1 - share, abs=1e-6) and (across == 1).all()


def test_a_fair_coin_decides_where_both_are_on():
    down, across, _ = draw_weights(np.random.default_rng(0), 2000, 20, 20, 0.5, 1.0)
    boxed = (across != 1).any(1) | ((down == 0) | (down == 1)).all(1)
    assert 0.45 < boxed.mean() < 0.55


def test_off_returns_the_images_themselves():
    images = numbered(4)
    mixed, partner, share = mix(np.random.default_rng(0), images, 0.0, 0.0)
    assert mixed is images
    assert partner.tolist() == [0, 1, 2, 3] and share.tolist() == [1, 1, 1, 1]


def test_same_seed_mixes_the_same():
    first, again = (mix(np.random.default_rng(0), numbered(16), 0.2, 1.0) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))

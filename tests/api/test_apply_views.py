"""`apply_views`: the pixels of prediction, of a whole batch at once."""

import pytest
import torch

import ensemble as ens
from ensemble.data.pixels.preprocess import Preprocess
from ensemble.inference.network_input import normalise, view_of
from ensemble.inference.views import expand


def noise(count, side):
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_views_by_hand_in_the_order_of_their_names():
    batch = torch.arange(4, dtype=torch.uint8).reshape(1, 1, 2, 2).expand(1, 3, 2, 2)
    views = ens.apply_views(batch, "vflip, rot90,flips")
    assert views.shape == (5, 1, 3, 2, 2) and views.dtype == torch.uint8
    assert views[:, 0, 1].flatten(1).tolist() == [[2, 3, 0, 1], [1, 3, 0, 2], [0, 1, 2, 3], [1, 0, 3, 2], [3, 2, 1, 0]]
    assert torch.equal(views, ens.apply_views(batch, ["vflip", "rot90", "flips"]))


@pytest.mark.parametrize("views", ["d4", "identity,scale1.15,rotate15", "rotate-30*hflip"])
def test_the_pixels_are_those_of_prediction(views):
    preprocess = Preprocess(32, 36, "bicubic", (0.5, 0.4, 0.3), (0.2, 0.3, 0.25))
    squares = noise(3, 36)
    shown = ens.apply_views(squares, views, size=32)
    for name, view in zip(expand(views.split(",")), shown, strict=True):
        of_prediction = view_of({preprocess.decoding: squares.permute(0, 2, 3, 1)}, preprocess, name, slice(0, 3), 3)
        assert torch.equal(normalise(view, preprocess), of_prediction)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_floats_of_any_scale_keep_their_type_and_are_not_clipped(dtype):
    batch = noise(2, 16)
    normal = (batch.double() - 120) / 60
    moved, turned = ens.apply_views(normal.to(dtype), "d4"), ens.apply_views(normal.to(dtype), "rotate10,scale1.3")
    assert moved.dtype == turned.dtype == dtype
    assert torch.equal(moved, ((ens.apply_views(batch, "d4").double() - 120) / 60).to(dtype))
    assert turned.min() < -1 and turned.max() > 1


def test_rotated_floats_are_the_rotated_bytes():
    batch = noise(2, 16)
    assert torch.equal(ens.apply_views(batch.float(), "rotate10"), ens.apply_views(batch, "rotate10"))


@pytest.mark.parametrize(
    ("batch", "views", "size", "line"),
    [
        (noise(1, 8)[0], "d4", None, r"batch: a tensor \(3, 8, 8\); want square images, \(B, 3, S, S\)"),
        (noise(1, 8)[..., :4], "d4", None, r"batch: a tensor \(1, 3, 8, 4\); want square images"),
        (noise(1, 8).int(), "d4", None, "batch: a tensor of torch.int32; want torch.uint8, or floats"),
        (noise(1, 8), "hflop", None, r"unknown view 'hflop'; did you mean 'hflip'\?"),
        (noise(1, 8), [], None, "views: none is named"),
        (noise(1, 8), "five-crop", None, "view 'top-left' shows the same pixels as 'centre' at 8 px out of 8"),
        (
            noise(1, 8),
            "identity,hflip*size16",
            None,
            r"view 'hflip\*size16': all views are shown at one size here; give it",
        ),
        (noise(1, 8), "d4", 9, "size = 9: want 1 to 8, the side of the images"),
    ],
)
def test_what_cannot_be_shown_is_refused(batch, views, size, line):
    with pytest.raises(ens.UserError, match=f"^{line}"):
        ens.apply_views(batch, views, size)


def test_windows_are_cut_where_there_is_room():
    views = ens.apply_views(noise(2, 8), "five-crop", size=6)
    assert views.shape == (5, 2, 3, 6, 6)
    assert torch.equal(views[1], noise(2, 8)[..., :6, :6]) and torch.equal(views[4], noise(2, 8)[..., 2:, 2:])

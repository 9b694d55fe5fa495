"""Views: whole pixels by hand and against numpy and torchvision, interpolated ones against formulas and SciPy."""

import numpy as np
import pytest
import scipy.ndimage
import torch
import torch.nn.functional as F
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as v2

from ensemble.errors import UserError
from ensemble.inference.geometry import TURNS, WINDOWS, Box, Turned
from ensemble.inference.views import SETS, Geometry, _place, check_views, cut, expand, is_wide, sides_of, size_of

SMALL = Geometry(2, 2, 2)
USUAL = Geometry(224, 256, 256)
FULL = Geometry(224, 224, 256)  # decoded to the input's own side

AS_NUMPY = {
    "identity": lambda image: image,
    "hflip": np.fliplr,
    "vflip": np.flipud,
    "rot90": np.rot90,
    "rot180": lambda image: np.rot90(image, 2),
    "rot270": lambda image: np.rot90(image, 3),
    "transpose": lambda image: image.T,
    "transverse": lambda image: np.rot90(image, 2).T,
}


def counting(side):
    """uint8 (1, 3, side, side) in channels_last: 0, 1, 2, ... in the first channel, 7 and 14 more in the others."""
    rows = torch.arange(side * side, dtype=torch.uint8).view(1, side, side, 1)
    return (rows + torch.tensor([0, 7, 14], dtype=torch.uint8)).permute(0, 3, 1, 2)


def noise(count, side, seed=0):
    """uint8 (count, 3, side, side) in channels_last."""
    pixels = np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def painted(values):
    """float (side, side) as uint8 (1, 3, side, side)."""
    return torch.from_numpy(values.round().astype(np.uint8)).expand(1, 3, -1, -1)


def shown(name, geometry):
    """The view of `counting`, as flat numbers of its first channel; the other channels must have moved alike."""
    view = cut(counting(geometry.wide_size if is_wide(name) else geometry.decode_size), name, geometry)
    assert view.dtype == torch.uint8
    assert torch.equal(view[:, 1], view[:, 0] + 7)
    assert torch.equal(view[:, 2], view[:, 0] + 14)
    return view[0, 0].flatten().tolist()


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        ("identity", [0, 1, 2, 3]),
        ("hflip", [1, 0, 3, 2]),
        ("vflip", [2, 3, 0, 1]),
        ("rot90", [1, 3, 0, 2]),
        ("rot180", [3, 2, 1, 0]),
        ("rot270", [2, 0, 3, 1]),
        ("transpose", [0, 2, 1, 3]),
        ("transverse", [3, 1, 2, 0]),
        ("rotate90", [1, 3, 0, 2]),
        ("rotate-90", [2, 0, 3, 1]),
        ("rotate540.0", [3, 2, 1, 0]),
        ("hflip*rot90", [0, 2, 1, 3]),  # 1 0 over 3 2, turned against the clock
        ("rot90*hflip", [3, 1, 2, 0]),  # 1 3 over 0 2, mirrored
        ("scale1", [0, 1, 2, 3]),
    ],
)
def test_the_eight_of_the_square_move_pixels(view, expected):
    assert shown(view, SMALL) == expected


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        ("centre", [5, 6, 9, 10]),
        ("top-left", [0, 1, 4, 5]),
        ("top-right", [2, 3, 6, 7]),
        ("bottom-left", [8, 9, 12, 13]),
        ("bottom-right", [10, 11, 14, 15]),
        ("top-left*hflip", [1, 0, 5, 4]),
        ("hflip*top-left", [3, 2, 7, 6]),
        ("bottom-left*rot90", [9, 13, 8, 12]),
        ("rot90*bottom-left", [1, 5, 0, 4]),
        ("transpose*top-right*vflip", [9, 13, 8, 12]),  # columns become rows: 8 12 over 9 13 stand at the top right
        ("rotate30*rotate60*bottom-left", [1, 5, 0, 4]),
    ],
)
def test_a_window_is_taken_from_the_wide_square_in_its_turn(view, expected):
    assert shown(view, Geometry(2, 3, 4)) == expected


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        ("identity", [0, 1, 3, 4]),
        ("hflip", [1, 0, 4, 3]),
        ("vflip", [3, 4, 0, 1]),
        ("rot90", [1, 4, 0, 3]),
        ("rot180", [4, 3, 1, 0]),
        ("rot270", [3, 0, 4, 1]),
        ("transpose", [0, 3, 1, 4]),
        ("transverse", [4, 1, 3, 0]),
        ("rotate30*rotate60", [1, 4, 0, 3]),
        ("centre", [6, 7, 11, 12]),
        ("centre*hflip", [7, 6, 12, 11]),
        ("hflip*centre", [7, 6, 12, 11]),
        ("bottom-right", [18, 19, 23, 24]),
    ],
)
def test_an_odd_difference_leaves_every_view_in_the_window_of_the_middle(view, expected):
    assert shown(view, Geometry(2, 3, 5)) == expected


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        ("size8", lambda square: square[:8, :8]),  # 8 px out of 9, as 6 are out of 7
        ("size8*hflip", lambda square: square[:8, 7::-1]),
        ("hflip*size8", lambda square: square[:8, 7::-1]),
        ("bottom-right*size8", lambda square: square[1:, 1:]),
        ("size8*rot90", lambda square: np.rot90(square[:8, :8])),
    ],
)
def test_a_size_is_cut_from_a_larger_square_of_the_same_picture(view, expected):
    geometry = Geometry(6, 7, 7)
    assert sides_of(view, geometry) == Geometry(8, 9, 9) and size_of(view) == 8
    square = np.arange(81).reshape(9, 9)
    assert np.array_equal(cut(counting(9), view, geometry)[0, 0], expected(square))


def test_a_size_shows_the_same_part_of_the_picture():
    assert USUAL.at(256) == Geometry(256, 292, 292)
    assert FULL.at(256) == Geometry(256, 256, 292)
    assert USUAL.at(160) == Geometry(160, 182, 182)
    assert Geometry(5, 8, 8).at(5) == Geometry(5, 8, 8)  # as it is, though 8 is more than a wide square needs
    assert sides_of("hflip", USUAL) == USUAL and size_of("hflip") is None


@pytest.mark.parametrize("view", ["size12", "rotate30*size12", "scale1.5*size12", "size12*rotate-20"])
def test_a_view_of_another_size_is_that_of_a_member_of_that_size(view):
    geometry = Geometry(8, 10, 10)
    other = sides_of(view, geometry)
    name = view.replace("*size12", "").replace("size12*", "").replace("size12", "identity")
    square = noise(2, other.decode_size)
    assert torch.equal(cut(square, view, geometry), cut(square, name, other))


@pytest.mark.parametrize("side", [7, 8])
def test_crops_are_torchvisions(side):
    geometry = Geometry(4, 5, side)
    square = noise(2, side)
    theirs = v2.five_crop(square, [4, 4])  # top left, top right, bottom left, bottom right, centre
    names = ["top-left", "top-right", "bottom-left", "bottom-right"]
    if side % 2 == 0:  # torchvision rounds a middle between two pixels up or down, whichever is even
        names.append("centre")
        mirrored = v2.ten_crop(square, [4, 4])[5:]
        for name, crop in zip(names, mirrored, strict=True):
            assert torch.equal(cut(square, f"hflip*{name}", geometry), crop)
        ours = {cut(square, name, geometry).numpy().tobytes() for name in SETS["ten-crop"]}
        assert ours == {
            crop.contiguous(memory_format=torch.channels_last).numpy().tobytes() for crop in (*theirs, *mirrored)
        }
    for name, crop in zip(names, theirs[: len(names)], strict=True):
        assert torch.equal(cut(square, name, geometry), crop)


def test_ten_crops_differ_even_where_images_are_decoded_to_the_inputs_side():
    names = check_views(["ten-crop"], FULL)
    assert len(names) == 10
    square = noise(1, 256)
    assert len({cut(square, name, FULL).numpy().tobytes() for name in names}) == 10


@given(st.lists(st.sampled_from(list(TURNS)), max_size=4), st.sampled_from([None, *WINDOWS]), st.integers(0, 4))
@example(["rot90", "hflip"], "top-right", 1)
def test_chains_of_turns_are_numpys(turns, window, at):
    geometry = Geometry(3, 4, 6)
    parts = [*turns[:at], *([window] if window else []), *turns[at:]]
    image = counting(6 if window else 4)
    pixels = image[0, 0].numpy()
    if window in (None, "centre"):  # these commute with all else: their middle is turned, not the square's
        pixels = pixels[1:4, 1:4] if window else pixels[:3, :3]
    for part in parts:
        if part in AS_NUMPY:
            pixels = AS_NUMPY[part](pixels)
        elif part != "centre":
            down, across = (slice(0, 3) if word in part else slice(3, 6) for word in ("top", "left"))
            pixels = pixels[down, across]
    assert np.array_equal(cut(image, "*".join(parts or ["identity"]), geometry)[0, 0].numpy(), pixels)


def test_scale_enlarges_the_middle():
    geometry = Geometry(64, 80, 80)
    at = np.arange(80)
    square = painted(2 * at[None, :] + 0.5 * at[:, None])
    # 64 / 1.6 = 40 px, from 20 to 60: each pixel of the view is 0.625 of the square
    x = 20 + (np.arange(64) + 0.5) * 0.625 - 0.5
    expected = 2 * x[None, :] + 0.5 * x[:, None]
    view = cut(square, "scale1.6", geometry)
    assert view.dtype == torch.uint8
    inside = slice(4, -4)  # a kernel at the border sees no ramp
    assert np.abs(view[0, 0].numpy() - expected)[inside, inside].max() < 1.1
    assert torch.equal(cut(square, "hflip*scale1.6", geometry), view.flip(-1))
    assert torch.equal(cut(square, "scale1.6*rot90", geometry), view.rot90(1, (-2, -1)))
    assert torch.equal(cut(square, "scale1.28*scale1.25", geometry), view)


def test_a_scale_below_1_shows_more_of_the_square():
    geometry = Geometry(48, 64, 64)
    square = noise(2, 64)
    whole = F.interpolate(square, (48, 48), mode="bicubic", antialias=True)
    assert torch.equal(cut(square, "scale0.75", geometry), whole)
    assert torch.equal(cut(square, "scale0.75*vflip", geometry), whole.flip(-2))


def test_a_scale_interpolates_once_with_the_bicubic_kernel():
    square = noise(1, 64)
    expected = F.interpolate(square[..., 12:52, 12:52], (64, 64), mode="bicubic", antialias=True)
    assert torch.equal(cut(square, "scale2*scale0.8", Geometry(64, 64, 64)), expected)


@pytest.mark.parametrize(
    ("view", "geometry", "expected"),
    [
        # 224 / 1.15 = 194.8: an even number of pixels, so that 31 of 256 lie on both sides
        ("scale1.15", USUAL, Box(256, 31, 31, 194, (), False)),
        # an odd square, an even window from 15 to 239, whose middle is at 127
        ("scale1.15", Geometry(224, 255, 256), Box(255, 30, 30, 194, (), False)),
        # an odd window has an odd middle
        ("scale1.15", Geometry(225, 225, 257), Box(225, 15, 15, 195, (), False)),
        ("scale1.15*hflip", FULL, Box(224, 15, 15, 194, (-1,), False)),
        ("rot90*scale0.875", USUAL, Box(256, 0, 0, 256, (-1,), True)),
        ("scale0.875", Geometry(224, 257, 257), Box(257, 0, 0, 256, (), False)),
        # the window of 0 to 224 about 112
        ("top-left*scale1.15", USUAL, Box(256, 15, 15, 194, (), False)),
        # the window's middle is 16 from the square's at 128; enlarged, it shows what is 16 / 1.15 = 13.9 from there:
        # 195 px about 114.1, and mirrored first, about 141.9 from the left
        ("scale1.15*top-left", USUAL, Box(256, 17, 17, 195, (), False)),
        ("hflip*scale1.15*top-left", USUAL, Box(256, 17, 44, 195, (-1,), False)),
        # 8 px beside the middle at 128, and 224 / 0.96 = 233.3 px wide: that is within the square
        ("scale2*top-left*scale0.48", USUAL, Box(256, 3, 3, 234, (), False)),
        ("scale4", Geometry(3, 3, 3), Box(3, 1, 1, 1, (), False)),
        ("scale1.001", USUAL, Box(256, 16, 16, 224, (), False)),
    ],
)
def test_the_box_of_a_scale_is_whole_pixels_about_its_middle(view, geometry, expected):
    assert _place(view, geometry) == expected


def test_rotate_turns_a_wave_against_the_clock():
    geometry = Geometry(96, 160, 160)

    def wave(side, degrees):
        """Along a direction that many degrees against the clock from the right, 24 px long."""
        along = np.arange(side) - (side - 1) / 2
        angle = np.radians(degrees)
        return 128 + 100 * np.sin(2 * np.pi / 24 * (along[None, :] * np.cos(angle) - along[:, None] * np.sin(angle)))

    square = painted(wave(160, 20))
    view = cut(square, "rotate30", geometry)
    assert view.dtype == torch.float32
    # between two points a line stays 100 / 8 * (2 pi / 24)**2 = 0.86 from the wave, and half a level is rounding
    assert np.abs(view[0, 1].numpy() - wave(96, 50)).max() < 1.4
    mirrored = cut(square, "hflip*rotate30", geometry)
    assert np.abs(mirrored[0, 1].numpy() - wave(96, 180 - 20 + 30)).max() < 1.4
    assert np.abs(cut(square, "rotate-15.5*rotate5.5", geometry)[0, 1].numpy() - wave(96, 10)).max() < 1.4


@pytest.mark.parametrize("degrees", [15, -40.5, 135])
def test_rotate_reflects_what_is_outside_as_scipy_does(degrees):
    square = noise(1, 40)
    full = scipy.ndimage.rotate(
        square[0, 2].numpy().astype(float), degrees, reshape=False, order=1, mode="reflect", prefilter=False
    )
    view = cut(square, f"rotate{degrees}", Geometry(40, 40, 45))
    assert np.abs(view[0, 2].numpy() - full).max() < 0.01
    view = cut(
        square, f"rotate{degrees}", Geometry(30, 40, 40)
    )  # the corners come from the square, not from the window
    assert np.abs(view[0, 2].numpy() - full[5:35, 5:35]).max() < 0.01


def test_rotate_agrees_with_torchvision():
    square = noise(1, 64)
    inside = np.hypot(*(np.mgrid[:64, :64] - 31.5)) < 30
    theirs = v2.rotate(square.float(), 25, interpolation=InterpolationMode.BILINEAR)
    ours = cut(square, "rotate25", Geometry(64, 64, 73))
    assert np.abs((ours - theirs)[0, 0].numpy()[inside]).max() < 0.01


def test_there_and_back_is_the_image_itself():
    geometry = Geometry(32, 32, 36)
    square = noise(1, 32)
    assert torch.equal(cut(square, "rotate17*scale1.3*rotate-17", geometry), cut(square, "scale1.3", geometry))
    assert torch.equal(cut(square, "rotate17*hflip*rotate17", geometry), square.flip(-1))
    assert torch.equal(cut(square, "rotate30*rotate60", geometry), square.rot90(1, (-2, -1)))


def test_a_window_that_was_turned_there_and_back_is_elsewhere():
    geometry = Geometry(32, 32, 36)
    wide = noise(1, 36)
    # the middle of the window is 2 px up and 2 left of the square's at 18; the square was turned by 60 degrees with the
    # clock before, so the window shows what is at (-2, -2) turned by 60 against it: 2.73 left and 0.73 down
    middle = 18 + 0.5 * -2 - 0.8660 * -2, 18 + 0.5 * -2 + 0.8660 * -2
    assert middle == pytest.approx((18.732, 15.268))
    assert _place("rotate-60*top-left*rotate60*scale1.6", geometry) == Box(36, 9, 5, 20, (), False)
    # without the scale it sticks out by 0.7 px, which is reflected
    view = cut(wide, "rotate-60*top-left*rotate60", geometry)
    rows, columns = (at - 16 + np.arange(32) for at in middle)
    places = np.meshgrid(rows, columns, indexing="ij")
    expected = scipy.ndimage.map_coordinates(wide[0, 0].numpy().astype(float), places, order=1, mode="reflect")
    assert np.abs(view[0, 0].numpy() - expected).max() < 0.05


def test_a_view_that_is_turned_and_made_smaller_makes_no_patterns():
    geometry = Geometry(64, 128, 128)
    stripes = painted(np.broadcast_to(255 * (np.arange(128) % 2), (128, 128)))
    view = cut(stripes, "rotate10*scale0.5", geometry)[0, 0].numpy()
    assert isinstance(_place("rotate10*scale0.5", geometry), Turned)
    inside = view[8:-8, 8:-8]  # stripes of one pixel are grey from afar
    assert abs(inside.mean() - 127.5) < 2
    assert inside.std() < 8
    ramp = painted(np.broadcast_to(np.arange(128.0) + 40, (128, 128)))
    # 10 degrees against the clock: one pixel of the view is 2 of the square, 2 cos 10 of them across
    at = np.arange(64) - 31.5
    expected = 103.5 + 2 * (at[None, :] * np.cos(np.radians(10)) - at[:, None] * np.sin(np.radians(10)))
    seen = cut(ramp, "rotate10*scale0.5", geometry)[0, 0].numpy()
    assert np.abs(seen - expected)[10:-10, 10:-10].max() < 1.1


@pytest.mark.parametrize(
    "name",
    [*TURNS, "rotate20", "scale1.3", "scale0.8*rotate20", "top-right", "top-left*rot90", "centre*scale0.9*vflip"],
)
def test_a_view_is_pure_in_channels_last_and_the_same_in_any_batch(name):
    geometry = Geometry(24, 30, 32)
    squares = noise(5, 32 if is_wide(name) else 30)
    before = squares.clone()
    view = cut(squares, name, geometry)
    assert view.shape == (5, 3, 24, 24)
    assert view.is_contiguous(memory_format=torch.channels_last)
    assert view.dtype == (torch.float32 if "rotate" in name else torch.uint8)
    assert 0 <= view.min() <= view.max() <= 255
    assert torch.equal(squares, before)
    for index in (0, 4):
        assert torch.equal(cut(squares[index : index + 1], name, geometry), view[index : index + 1])
    # the strides of the squares do not matter
    assert torch.equal(cut(squares.contiguous(), name, geometry), view)


def test_off_the_cpu_what_is_scaled_is_float():
    squares = noise(2, 30).to("meta")  # where nothing is computed, but every operation has to exist
    for name, dtype in (
        ("rot90", torch.uint8),
        ("scale1.3*rot90", torch.float32),
        ("scale0.8*rotate20", torch.float32),
    ):
        view = cut(squares, name, Geometry(24, 30, 30))
        assert (view.shape, view.dtype, view.device.type) == ((2, 3, 24, 24), dtype, "meta")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", [*TURNS, "rotate20", "scale1.3*hflip", "scale0.8*rotate20", "top-right"])
def test_a_gpu_shows_the_same(name):
    geometry = Geometry(24, 30, 32)
    squares = noise(3, 32 if is_wide(name) else 30)
    view = cut(squares.cuda(), name, geometry).cpu()
    assert (view.float() - cut(squares, name, geometry).float()).abs().max() < 1.5
    assert 0 <= view.min() <= view.max() <= 255


def test_sets_are_what_is_listed():
    assert SETS == {
        "flips": ("identity", "hflip", "vflip", "rot180"),
        "d4": ("identity", "hflip", "vflip", "rot90", "rot180", "rot270", "transpose", "transverse"),
        "corners": ("top-left", "top-right", "bottom-left", "bottom-right"),
        "five-crop": ("centre", "top-left", "top-right", "bottom-left", "bottom-right"),
        "ten-crop": (
            "centre",
            "top-left",
            "top-right",
            "bottom-left",
            "bottom-right",
            "centre*hflip",
            "top-left*hflip",
            "top-right*hflip",
            "bottom-left*hflip",
            "bottom-right*hflip",
        ),
        "multi-scale": ("identity", "scale1.15", "scale1.3"),
    }


@pytest.mark.parametrize("name", list(SETS))
@pytest.mark.parametrize("side", [16, 32, 224, 225, 384])
def test_every_set_is_possible_where_nothing_is_left_around_the_input(name, side):
    geometry = Geometry(side, side, side * 8 // 7)
    assert check_views([name], geometry) == SETS[name]


def test_overlapping_sets_count_once_at_their_first_place():
    assert expand(["vflip", "flips"]) == ("vflip", "identity", "hflip", "rot180")
    assert expand(["multi-scale", "flips", "hflip"]) == (
        *("identity", "scale1.15", "scale1.3"),
        *("hflip", "vflip", "rot180"),
    )
    assert expand(["five-crop", "ten-crop"]) == SETS["ten-crop"]
    assert check_views(("d4", "flips"), USUAL) == SETS["d4"]
    assert expand([]) == ()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["identity", "hflp"], "unknown view 'hflp'; did you mean 'hflip'?"),
        (["rotat30"], "unknown view 'rotat30'; did you mean 'rotate30'?"),
        (["rot-45.5"], "unknown view 'rot-45.5'; did you mean 'rotate-45.5'?"),
        (["scal"], "unknown view 'scal'; did you mean 'scale'?"),
        (["center"], "unknown view 'center'; did you mean 'centre'?"),
        (["d5"], "unknown view 'd5'; did you mean 'd4'?"),
        (["D4"], "unknown view 'D4'; did you mean 'd4'?"),
        (["flip"], "unknown view 'flip'; did you mean 'hflip', 'vflip' or 'flips'?"),
        (["ten-crops"], "unknown view 'ten-crops'; did you mean 'ten-crop'?"),
        (["top-left*hflp"], "unknown view 'hflp' in 'top-left*hflp'; did you mean 'hflip'?"),
        (
            ["mixup"],
            "unknown view 'mixup'; known: identity, hflip, vflip, rot90, rot180, rot270, transpose, transverse, "
            "rotate<number>, scale<number>, size<number>, centre, top-left, top-right, bottom-left, bottom-right, "
            "flips, d4, corners, five-crop, ten-crop, multi-scale",
        ),
        (["hflip", "hflip"], "view 'hflip' is named twice: it would only count double"),
        (["rotate15", "flips", "rotate15"], "view 'rotate15' is named twice: it would only count double"),
        (["d4*scale1.15"], "view 'd4' in 'd4*scale1.15' is a set of views: a chain takes single ones"),
        (
            ["centre*hflip*top-left"],
            "view 'centre*hflip*top-left' has 2 windows (centre, top-left): a chain takes one at most",
        ),
        *(
            ([name], f"view {name!r}: rotate takes a number of degrees, as in rotate15 or rotate-7.5")
            for name in ("rotate", "rotatenan", "rotateinf", "rotate1e3", "rotate 15", "rotate" + "9" * 400)
        ),
        (["size64*hflip*size32"], "view 'size64*hflip*size32' names 2 sizes: a chain takes one at most"),
        *(
            ([name], f"view {name!r}: size takes whole pixels from 8 to 2048, as in size256")
            for name in ("size", "size7", "size2049", "size256.5", "size-64", "size64px", "hflip*size")
        ),
        *(
            ([name], f"view {name!r}: scale takes a factor from 0.25 to 4, as in scale1.15")
            for name in ("scale", "scaleabc", "scale-1", "scale0", "scale0.249", "scale4.01", "scalenan", "hflip*scale")
        ),
    ],
)
def test_names_that_are_none_are_refused(names, message):
    with pytest.raises(UserError) as caught:
        expand(names)
    assert str(caught.value) == message
    with pytest.raises(UserError):
        check_views(names, USUAL)


def test_an_empty_part_is_unknown():
    for name in ("", "hflip*", "*hflip", "hflip**vflip"):
        with pytest.raises(UserError, match="unknown view ''"):
            expand([name])


@pytest.mark.parametrize(
    ("names", "geometry", "message"),
    [
        (
            ["identity", "centre"],
            USUAL,
            "view 'centre' shows the same pixels as 'identity' at 224 px out of 256: leave one out",
        ),
        (
            ["rot180", "hflip", "vflip*hflip"],
            USUAL,
            "view 'vflip*hflip' shows the same pixels as 'rot180' at 224 px out of 256: leave one out",
        ),
        (["scale1", "identity"], FULL, "view 'identity' shows the same pixels as 'scale1' at 224 px out of 224"),
        (["d4", "rotate90"], FULL, "view 'rotate90' shows the same pixels as 'rot90'"),
        (["hflip*top-left", "top-right*hflip"], FULL, "view 'top-right*hflip' shows the same pixels as 'hflip*top"),
        (["rotate15", "rotate15.0"], FULL, "view 'rotate15.0' shows the same pixels as 'rotate15'"),
        (["rotate15", "rotate-345"], FULL, "view 'rotate-345' shows the same pixels as 'rotate15'"),
        (["centre", "top-left"], Geometry(6, 6, 6), "view 'top-left' shows the same pixels as 'centre'"),
        (["identity", "size224"], USUAL, "view 'size224' shows the same pixels as 'identity' at 224 px out of 256"),
        (
            ["hflip*size256", "size256*hflip"],
            USUAL,
            "view 'size256*hflip' shows the same pixels as 'hflip*size256' at 256 px out of 292",
        ),
        # 194.8 and 193.1 px are both rounded to 194
        (["scale1.15", "scale1.16"], FULL, "view 'scale1.16' shows the same pixels as 'scale1.15'"),
        # the wide square shrunk to the decoded one: the same picture, though not to the last bit
        (["identity", "centre*scale0.875"], FULL, "view 'centre*scale0.875' shows the same pixels as 'identity'"),
    ],
)
def test_two_views_of_the_same_pixels_are_refused(names, geometry, message):
    assert expand(names)  # by their names alone they differ
    with pytest.raises(UserError) as caught:
        check_views(names, geometry)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("names", "geometry"),
    [
        (["identity", "centre"], FULL),
        (["identity", "hflip", "five-crop"], FULL),
        (["rotate15", "rotate-15", "rotate15*hflip", "rotate15*scale1.15"], FULL),
        (["hflip*top-left", "top-left*hflip"], USUAL),
        (["identity", "size256", "size160", "hflip*size256", "scale1.15*size256"], USUAL),
        (["scale1.15", "scale1.17"], FULL),
        (["top-left*scale1.15", "scale1.15*top-left"], USUAL),
    ],
)
def test_views_that_differ_are_let_be(names, geometry):
    assert check_views(names, geometry) == expand(names)


@pytest.mark.parametrize(
    ("view", "geometry", "message"),
    [
        (
            "scale0.87",
            USUAL,
            "view 'scale0.87' shows more than there is: at 224 px out of 256 the factor is at least 0.875",
        ),
        ("scale0.99", FULL, "view 'scale0.99' shows more than there is: at 224 px out of 224 the factor is at least 1"),
        (
            "rotate45*scale0.9*scale0.9",
            USUAL,
            "view 'rotate45*scale0.9*scale0.9' shows more than there is: at 224 px out of 256 the factor is at least "
            "0.875",
        ),
        (
            "centre*scale0.8",
            FULL,
            "view 'centre*scale0.8' shows more than there is: at 224 px out of 256 the factor is at least 0.875",
        ),
        # the window's 224 px begin at 5 of 235, so that 234 lie about its middle: 224 / 234 = 0.95726
        (
            "scale0.957",
            Geometry(224, 235, 256),
            "view 'scale0.957' shows more than there is: at 224 px out of 235 the factor is at least 0.9573",
        ),
        (
            "scale0.9*top-left",
            USUAL,
            "view 'scale0.9*top-left' shows more than there is: a factor beside 'top-left' is at least 1",
        ),
        (
            "scale0.9*top-left*scale1.12",  # together 1.008, but the corner has already left the square
            USUAL,
            "view 'scale0.9*top-left*scale1.12' shows more than there is: a factor beside 'top-left' is at least 1",
        ),
        (
            "bottom-right*scale0.9",
            USUAL,
            "view 'bottom-right*scale0.9' shows more than there is: a factor beside 'bottom-right' is at least 1",
        ),
    ],
)
def test_a_scale_that_shows_more_than_there_is_is_refused(view, geometry, message):
    assert expand([view]) == (view,)
    with pytest.raises(UserError) as caught:
        check_views([view], geometry)
    assert str(caught.value) == message
    side = geometry.wide_size if is_wide(view) else geometry.decode_size
    with pytest.raises(UserError, match="shows more than there is"):
        cut(noise(1, side), view, geometry)


@pytest.mark.parametrize("side", [224, 225, 235, 246, 256, 257])
def test_the_least_factor_named_is_possible(side):
    geometry = Geometry(224, side, 257)
    with pytest.raises(UserError) as caught:
        check_views(["scale0.5"], geometry)
    least = str(caught.value).split()[-1]
    assert cut(noise(1, side), f"scale{least}", geometry).shape == (1, 3, 224, 224)
    with pytest.raises(UserError):
        check_views([f"scale{float(least) - 0.0002:.4f}"], geometry)


PARTS = ["hflip", "vflip", "rot90", "transpose", "rotate30", "rotate-30", "rotate60", "scale1.25", "scale1.6"]
CHAINS = st.tuples(
    st.lists(st.sampled_from(PARTS), max_size=2),
    st.sampled_from(["identity", "identity", "centre", "top-left", "bottom-right"]),
    st.lists(st.sampled_from(PARTS), max_size=2),
).map(lambda parts: "*".join([*parts[0], parts[1], *parts[2]]))


@settings(max_examples=300)
@given(CHAINS, CHAINS, st.sampled_from([(16, 16, 18), (16, 20, 20), (15, 20, 21), (16, 17, 18), (8, 8, 9)]))
@example("vflip*hflip*identity", "identity*rot90*rot90", (16, 17, 18))
@example("rotate30*identity*rotate60", "identity*rot90", (15, 20, 21))
@example("hflip*top-left", "bottom-right*vflip*rot90", (16, 20, 20))
@example("identity*scale1.25", "scale1.25*centre", (16, 20, 20))
@example("hflip*centre", "centre*hflip", (15, 20, 20))
def test_two_chains_are_refused_just_where_they_show_the_same_of_any_image(one, other, sides):
    assume(one != other)
    geometry = Geometry(*sides)
    squares = {side: noise(1, side, seed=side) for side in sides}
    first, second = (
        cut(squares[geometry.wide_size if is_wide(name) else geometry.decode_size], name, geometry).float()
        for name in (one, other)
    )
    refused = False
    try:
        check_views([one, other], geometry)
    except UserError as error:
        assert "shows the same pixels" in str(error)
        refused = True
    assert refused == bool((first - second).abs().max() < 0.1)


@pytest.mark.parametrize(
    ("name", "wide"),
    [("identity", False), ("rotate15*scale2", False), ("centre", True), ("hflip*top-left", True)],
)
def test_windows_alone_are_cut_from_the_wide_square(name, wide):
    assert is_wide(name) is wide


def test_squares_of_another_size_or_type_are_refused():
    geometry = Geometry(24, 30, 32)
    with pytest.raises(
        ValueError,
        match=r"view 'hflip' is cut from torch.uint8 or floats \(2, 3, 30, 30\), not from torch.uint8 \(2, 3, 32, 32\)",
    ):
        cut(noise(2, 32), "hflip", geometry)
    with pytest.raises(ValueError, match=r"view 'top-left' is cut from torch.uint8 or floats \(1, 3, 32, 32\)"):
        cut(noise(1, 30), "top-left", geometry)
    with pytest.raises(ValueError, match=r"not from torch.int32 \(1, 3, 30, 30\)"):
        cut(noise(1, 30).int(), "hflip", geometry)
    with pytest.raises(ValueError, match=r"not from torch.uint8 \(1, 30, 30, 3\)"):
        cut(noise(1, 30).permute(0, 2, 3, 1), "hflip", geometry)
    with pytest.raises(UserError, match="unknown view 'hflp'"):
        cut(noise(1, 30), "hflp", geometry)

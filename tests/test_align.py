"""Two thumbnails laid upon each other: flips, turns and warps by hand, and what counts as a copy."""

import numpy as np
import pytest
from PIL import Image

from ensemble.data import align
from ensemble.data.align import ORIENTATIONS, SIDE, compare, turned

LETTERS = np.array([["a", "b"], ["c", "d"]])
BY_HAND = {
    "same": [["a", "b"], ["c", "d"]],
    "hflip": [["b", "a"], ["d", "c"]],
    "vflip": [["c", "d"], ["a", "b"]],
    "rot90": [["b", "d"], ["a", "c"]],  # counterclockwise
    "rot180": [["d", "c"], ["b", "a"]],
    "rot270": [["c", "a"], ["d", "b"]],
    "transpose": [["a", "c"], ["b", "d"]],
    "transverse": [["d", "b"], ["c", "a"]],
}


def texture(seed, cells=12):
    small = np.random.default_rng(seed).integers(0, 256, (cells, cells), dtype=np.uint8)
    return np.array(Image.fromarray(small).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def moved(image, matrix):
    """What Pillow makes of an image looked at through x' = a x + b y + c, y' = d x + e y + f."""
    return np.array(Image.fromarray(image).transform((SIDE, SIDE), Image.Transform.AFFINE, matrix, Image.BICUBIC))


# flips and turns


def test_the_eight_orientations_by_hand():
    assert {kind: turned(LETTERS, at).tolist() for at, kind in enumerate(ORIENTATIONS)} == BY_HAND


def test_leading_axes_stay_and_nothing_is_copied():
    stack = np.arange(3 * 16).reshape(3, 4, 4)
    for at in range(8):
        view = turned(stack, at)
        assert view.shape == (3, 4, 4) and np.shares_memory(view, stack)
        for one in range(3):
            assert np.array_equal(view[one], turned(stack[one], at))


def test_what_undoes_each_orientation():
    image = np.arange(16).reshape(4, 4)
    for at, kind in enumerate(ORIENTATIONS):
        back = ORIENTATIONS.index({"rot90": "rot270", "rot270": "rot90"}.get(kind, kind))
        assert np.array_equal(turned(turned(image, at), back), image), kind
        undone = [other for other in range(8) if np.array_equal(turned(turned(image, at), other), image)]
        assert undone == [back], kind


# warps


def test_a_zoom_looks_at_the_middle():
    assert align._zoomed(1.0).tolist() == [[1, 0, 0], [0, 1, 0]]
    warp = align._zoomed(0.9)
    # of pixels 0 to 63 the middle is 31.5; 5% of 63 px are left out at each end
    assert warp == pytest.approx(np.array([[0.9, 0, 3.15], [0, 0.9, 3.15]]), abs=1e-6)
    assert warp @ [31.5, 31.5, 1] == pytest.approx([31.5, 31.5], abs=1e-5)
    assert warp.dtype == np.float32


def test_how_far_corners_move_by_hand():
    assert align._moved(np.array([[1.0, 0, 0], [0, 1, 0]])) == 0
    assert align._moved(np.array([[1.0, 0, 3], [0, 1, -4]])) == pytest.approx(5)
    assert align._moved(align._zoomed(0.9)) == pytest.approx(3.15 * 2**0.5, abs=1e-4)
    # only the right corners move, down, by 63 / 10
    assert align._moved(np.array([[1.0, 0, 0], [0.1, 1, 0]])) == pytest.approx(6.3)


# alignment


def test_a_known_warp_is_found_and_the_start_stays():
    start = align._zoomed(1.0)
    warp = align._aligned(moved(texture(0), (0.92, 0, 2.5, 0, 0.92, 2.5)), texture(0), start, 60)
    # Pillow counts from the pixels' corners: half a pixel in it is 0.46 here
    assert warp == pytest.approx(np.array([[0.92, 0, 2.46], [0, 0.92, 2.46]]), abs=0.1)
    assert warp[:, :2] == pytest.approx(np.diag([0.92, 0.92]), abs=0.005)
    assert start.tolist() == [[1, 0, 0], [0, 1, 0]]


def test_nothing_is_aligned_with_an_empty_image():
    assert align._aligned(np.full((SIDE, SIDE), 128, dtype=np.uint8), texture(0), align._zoomed(1.0), 60) is None


# agreement


def test_an_image_agrees_with_itself():
    detail, share, blocks = align._agreement(texture(0), texture(0), align._zoomed(1.0))
    assert detail == pytest.approx(1, abs=1e-6) and share == 1 and blocks == 64


def test_brightness_and_contrast_do_not_count_and_a_negative_does():
    image = texture(0)
    detail, share, _ = align._agreement(image, (image // 2 + 60).astype(np.uint8), align._zoomed(1.0))
    assert detail > 0.95 and share == 1
    detail, share, _ = align._agreement(image, 255 - image, align._zoomed(1.0))
    assert detail == pytest.approx(-1, abs=1e-6) and share == 0


def test_the_share_of_blocks_that_agree_by_hand():
    image, other = texture(0), texture(1)
    halves = image.copy()
    halves[:, 32:] = other[:, 32:]
    detail, share, blocks = align._agreement(image, halves, align._zoomed(1.0))
    # 4 of 8 columns of blocks are the same, but at the seam the blur differs a little
    assert 0.4 <= share <= 0.6 and blocks == 64 and 0.3 < detail < 0.7


def test_only_blocks_with_details_are_counted():
    image = np.full((SIDE, SIDE), 128, dtype=np.uint8)
    image[24:32, 24:32] = texture(0)[24:32, 24:32]
    detail, share, blocks = align._agreement(image, image, align._zoomed(1.0))
    # the block itself, and neighbours that its blur reaches
    assert detail == pytest.approx(1, abs=1e-6) and share == 1 and 1 <= blocks <= 9
    flat = np.full((SIDE, SIDE), 128, dtype=np.uint8)
    assert align._agreement(flat, flat, align._zoomed(1.0)) == (0, 0, 0)


def test_images_that_hardly_overlap_do_not_agree():
    image = texture(0)
    for right, agrees in ((30, True), (45, False)):
        warp = np.array([[1, 0, right], [0, 1, 0]], dtype=np.float32)
        shifted = moved(image, (1, 0, right, 0, 1, 0))
        detail, share, blocks = align._agreement(shifted, image, warp)
        # what lies outside of the image takes no part: of 64 px 34 are left, or 19
        assert (
            (detail > 0.95 and share == 1 and 24 <= blocks <= 32) if agrees else (detail, share, blocks) == (-1, 0, 0)
        )


# copies


@pytest.mark.parametrize("orientation", range(1, 8))
def test_a_turned_copy_is_called_what_it_is(orientation):
    image = texture(0)
    match = compare(image, np.ascontiguousarray(turned(image, orientation)), orientation, 1.0)
    assert match.kind == ORIENTATIONS[orientation] and match.similarity == pytest.approx(1, abs=1e-5)


def test_the_same_picture():
    match = compare(texture(0), texture(0), 0, 1.0)
    assert match.kind == "re-encoded" and match.similarity == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("zoom", [1.0, 0.93])
def test_a_crop_is_found_from_either_start(zoom):
    image = texture(0)
    match = compare(image, moved(image, (0.92, 0, 2.5, 0, 0.92, 2.5)), 0, zoom)
    assert match.kind == "crop" and match.similarity > 0.9


def test_what_moved_less_than_a_pixel_is_the_same_picture():
    image = texture(0)
    assert compare(image, moved(image, (1, 0, 0.7, 0, 1, 0.7)), 0, 1.0).kind == "re-encoded"
    assert compare(image, moved(image, (1, 0, 2, 0, 1, 0)), 0, 1.0).kind == "crop"


def test_a_turn_of_three_degrees():
    image = texture(0)
    tilted = np.array(Image.fromarray(image).rotate(3, Image.Resampling.BICUBIC))
    match = compare(image, tilted, 0, 1.0)
    assert match.kind == "crop" and match.similarity > 0.85


def test_fine_details_take_more_steps_to_lay_upon_each_other():
    image = texture(0, 32)
    match = compare(image, moved(image, (0.9, 0.05, 2, -0.05, 0.9, 4)), 0, 1.0)
    assert match.kind == "crop" and match.similarity > 0.975  # 0.965 after two


def test_parts_drawn_over_are_an_edit_until_too_little_is_left():
    kinds = []
    for width in (0, 12, 24, 28, 44):
        image = texture(0)
        image[:, :width] = texture(1)[:, :width]
        match = compare(texture(0), image, 0, 1.0)
        kinds.append(match and match.kind)
    assert kinds[0] == kinds[1] == "re-encoded" and kinds[4] is None and kinds[2:4].count("edited") >= 1


def test_blocks_count_besides_the_correlation():
    """Pale strokes hide little of the whole, and yet four blocks in ten."""
    image = texture(0)
    image[:, :26] = 120 + 0.3 * (texture(1)[:, :26].astype(float) - 120)
    detail, share, _ = align._agreement(image, texture(0), align._zoomed(1.0))
    assert detail > align.DETAIL and align.EDITED_SHARE < share < align.SAME_SHARE
    assert compare(texture(0), image, 0, 1.0).kind == "edited"


def test_an_edit_of_a_turned_copy_is_an_edit():
    image = np.ascontiguousarray(turned(texture(0), 3))
    image[:, :27] = texture(1)[:, :27]
    match = compare(texture(0), image, 3, 1.0)
    assert match.kind == "edited" and 0.45 <= match.similarity < 0.9


def test_other_pictures_and_other_turns_are_no_match():
    for seed in range(1, 30):
        assert compare(texture(0), texture(seed), seed % 8, 1.0) is None
    for orientation in range(1, 8):
        assert compare(texture(0), texture(0), orientation, 1.0) is None


def test_empty_pictures_are_not_compared():
    image = np.full((SIDE, SIDE), 128, dtype=np.uint8)
    image[24:32, 24:32] = texture(0)[24:32, 24:32]
    assert compare(image, image, 0, 1.0) is None  # fewer than 8 blocks have details
    image[16:40, 16:40] = texture(0)[16:40, 16:40]
    assert compare(image, image, 0, 1.0).kind == "re-encoded"


def test_a_picture_on_white_must_agree_better_than_a_full_one():
    """The outline, which others share, is much of what there is to see."""
    outline = np.hypot(*(np.indices((SIDE, SIDE)) - 31.5)) < 20
    objects = [np.where(outline, 40 + texture(seed) * 0.75, 255).astype(np.uint8) for seed in range(20)]
    alike = 0
    for one, other in zip(objects[::2], objects[1::2], strict=True):
        detail, share, blocks = align._agreement(one, other, align._zoomed(1.0))
        assert align.BLOCKS <= blocks < align.FULL
        alike += detail >= align.DETAIL and share >= align.SAME_SHARE
        assert compare(one, other, 0, 1.0) is None
        assert compare(one, moved(one, (1, 0, 1, 0, 1, 0)), 0, 1.0).similarity > align.OUTLINED
    assert alike > 0  # would be copies among full pictures


def test_the_images_given_stay_as_they_are():
    one, other = texture(0), moved(texture(0), (0.92, 0, 2.5, 0, 0.92, 2.5))
    before = one.copy(), other.copy()
    compare(one, other, 0, 0.93)
    assert np.array_equal(one, before[0]) and np.array_equal(other, before[1])

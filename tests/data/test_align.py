"""Two thumbnails laid upon each other: flips, turns and warps by hand, and what counts as a copy."""

import numpy as np
import pytest
from PIL import Image

from ensemble.data.copies import align
from ensemble.data.copies.align import ORIENTATIONS, SIDE, compare, turned

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
    similarity, content = align._agreement(texture(0), texture(0), align._zoomed(1.0))
    assert similarity == pytest.approx(1, abs=1e-6) and content == 1


def test_brightness_and_contrast_do_not_count_and_a_negative_does():
    image = texture(0)
    assert align._agreement(image, (image // 2 + 60).astype(np.uint8), align._zoomed(1.0))[0] > 0.95
    assert align._agreement(image, 255 - image, align._zoomed(1.0))[0] == pytest.approx(-1, abs=1e-6)


def test_half_a_picture_agrees_by_half():
    halves = texture(0)
    halves[:, 32:] = texture(1)[:, 32:]
    similarity, content = align._agreement(texture(0), halves, align._zoomed(1.0))
    assert similarity == pytest.approx(0.5, abs=0.1) and content == 1


def test_a_faint_pattern_counts_as_much_as_a_strong_outline():
    """Discs on black of one outline, with other patterns at a tenth of its contrast."""
    inside = np.hypot(*(np.indices((SIDE, SIDE)) - 31.5)) < 26
    one, other = (np.where(inside, 150 + (texture(seed, 16) // 10), 0).astype(np.uint8) for seed in (0, 1))
    details = [align._details(image, align.BLUR).reshape(-1) for image in (one, other)]
    assert align._correlation(*details) > 0.95  # the outline's, nearly alone
    similarity, content = align._agreement(one, other, align._zoomed(1.0))
    assert similarity < 0.75 and 0.4 < content < 0.95
    assert compare(one, other, 0, 1.0) is None
    assert compare(one, np.ascontiguousarray(one[:, ::-1]), 1, 1.0).kind == "hflip"


def test_only_what_stands_out_from_its_surroundings_is_content():
    image = np.full((SIDE, SIDE), 128, dtype=np.uint8)
    image[24:32, 24:32] = texture(0)[24:32, 24:32]
    similarity, content = align._agreement(image, image, align._zoomed(1.0))
    # the block itself, and what its blur reaches: 4 to 20 px of 64
    assert similarity == pytest.approx(1, abs=1e-6) and 8**2 / 64**2 < content < 28**2 / 64**2
    flat = np.full((SIDE, SIDE), 128, dtype=np.uint8)
    assert align._agreement(flat, flat, align._zoomed(1.0)) == (0, 0)


def test_images_that_hardly_overlap_do_not_agree():
    image = texture(0)
    for right, agrees in ((30, True), (45, False)):
        warp = np.array([[1, 0, right], [0, 1, 0]], dtype=np.float32)
        shifted = moved(image, (1, 0, right, 0, 1, 0))
        similarity, content = align._agreement(shifted, image, warp)
        # what lies outside of the image takes no part: of 64 px 34 are left, or 19
        assert (similarity > 0.95 and content == 1) if agrees else (similarity, content) == (-1, 0)


def test_the_stretch_of_a_warp_by_hand():
    turn = np.array([[0.6, -0.8, 3], [0.8, 0.6, 9]])
    assert align._stretch(turn) == pytest.approx(1) and align._stretch(0.9 * turn) == pytest.approx(1)
    assert align._stretch(np.array([[1.2, 0, 0], [0, 0.8, 0]])) == pytest.approx(1.5)


def test_enlarged_pictures_are_soft():
    assert align._sharpness(texture(0, 8)) < align.SOFT < align._sharpness(texture(0, 20))
    assert align._sharpness(np.full((SIDE, SIDE), 7, dtype=np.uint8)) == 0


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


def test_parts_drawn_over_make_a_look_alike_until_too_little_is_left():
    kinds = []
    for width in (0, 12, 32):
        image = texture(0)
        image[:, :width] = texture(1)[:, :width]
        match = compare(texture(0), image, 0, 1.0)
        kinds.append(match and match.kind)
    assert kinds == ["re-encoded", "look-alike", None]


def test_a_look_alike_has_no_orientation():
    image = np.ascontiguousarray(turned(texture(0), 3))
    image[:, :12] = texture(1)[:, :12]
    match = compare(texture(0), image, 3, 1.0)
    assert match.kind == "look-alike" and 0.75 <= match.similarity < 0.945


def test_what_must_be_stretched_is_no_copy():
    """As slanted letters are upright ones."""
    sheared = moved(texture(0), (1, 0.2, -6.4, 0, 1, 0))
    match = compare(texture(0), sheared, 0, 1.0)
    assert match.kind == "look-alike" and match.similarity > 0.945


def test_soft_pictures_must_be_nearly_the_same():
    soft = texture(0, 8)
    match = compare(soft, (0.85 * soft + 0.15 * texture(1, 8)).astype(np.uint8), 0, 1.0)
    assert match.kind == "look-alike" and 0.945 < match.similarity < 0.985
    assert compare(soft, soft, 0, 1.0).kind == "re-encoded"


def test_other_pictures_and_other_turns_are_no_match():
    for seed in range(1, 30):
        assert compare(texture(0), texture(seed), seed % 8, 1.0) is None
    for orientation in range(1, 8):
        assert compare(texture(0), texture(0), orientation, 1.0) is None


def test_empty_pictures_are_not_compared():
    image = np.full((SIDE, SIDE), 128, dtype=np.uint8)
    image[28:31, 28:31] = texture(0)[28:31, 28:31]
    assert compare(image, image, 0, 1.0) is None  # less than a tenth has content
    image[16:40, 16:40] = texture(0)[16:40, 16:40]
    assert compare(image, image, 0, 1.0).kind == "re-encoded"


def test_things_of_one_outline_on_white_are_no_copies():
    outline = np.hypot(*(np.indices((SIDE, SIDE)) - 31.5)) < 20
    objects = [np.where(outline, 40 + texture(seed) * 0.75, 255).astype(np.uint8) for seed in range(20)]
    for one, other in zip(objects[::2], objects[1::2], strict=True):
        match = compare(one, other, 0, 1.0)
        assert match is None or match.kind == "look-alike"
        assert compare(one, np.ascontiguousarray(one[::-1]), 2, 1.0).kind == "vflip"


def test_the_images_given_stay_as_they_are():
    one, other = texture(0), moved(texture(0), (0.92, 0, 2.5, 0, 0.92, 2.5))
    before = one.copy(), other.copy()
    compare(one, other, 0, 0.93)
    assert np.array_equal(one, before[0]) and np.array_equal(other, before[1])

"""Files of every kind to uint8 pixels."""

import json

import numpy as np
import pytest
from PIL import Image

from ensemble.data.pixels.decode import Files, Pixels, decode, decode_each, decode_image, decoded, middle_square, shape
from ensemble.data.pixels.preprocess import Decoding, Preprocess, load_preprocess
from ensemble.errors import UserError

HOW = Decoding(32, "bicubic", None)
needs_avif = pytest.mark.skipif(".avif" not in Image.registered_extensions(), reason="this Pillow reads no AVIF")


def plain(width, height, color, mode="RGB"):
    return Image.new(mode, (width, height), color)


def saved(image, path, **options):
    image.save(path, **options)
    return path


def read(path):
    with Image.open(path) as file:
        return file.copy()


def refusal(path, how=HOW):
    with pytest.raises(UserError) as caught:
        decode(path, how)
    return str(caught.value)


def assert_all(pixels, color, within=0):
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - np.array(color)).max() <= within


# ---- kinds of image ------------------------------------------------------------------------------------------------


def test_one_pixel(tmp_path):
    pixels = decode(saved(plain(1, 1, (10, 20, 30)), tmp_path / "a.png"), HOW)
    assert pixels.shape == (32, 32, 3)
    assert_all(pixels, (10, 20, 30))


def test_cmyk_jpeg(tmp_path):
    pixels = decode(saved(plain(40, 40, (255, 0, 0, 0), "CMYK"), tmp_path / "a.jpg"), HOW)
    assert_all(pixels, (0, 255, 255), within=3)


def test_grey(tmp_path):
    assert_all(decode(saved(plain(40, 40, 77, "L"), tmp_path / "a.png"), HOW), (77, 77, 77))


def test_black_and_white(tmp_path):
    assert_all(decode(saved(plain(40, 40, 1, "1"), tmp_path / "a.png"), HOW), (255, 255, 255))


@pytest.mark.parametrize("value, shade", [(65535, 255), (257 * 100, 100), (0, 0), (257 * 100 + 128, 100), (25829, 101)])
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_16_bit_grey_is_scaled_and_rounded(tmp_path, value, shade, ending):
    image = Image.fromarray(np.full((40, 40), value, dtype=np.uint16))
    assert_all(decode(saved(image, tmp_path / f"a.{ending}"), HOW), (shade, shade, shade))


def test_transparency_is_laid_on_white(tmp_path):
    clear = saved(plain(40, 40, (255, 0, 0, 0), "RGBA"), tmp_path / "clear.png")
    half = saved(plain(40, 40, (255, 0, 0, 128), "RGBA"), tmp_path / "half.png")
    grey = saved(plain(40, 40, (0, 51), "LA"), tmp_path / "grey.png")
    assert_all(decode(clear, HOW), (255, 255, 255))
    assert_all(decode(half, HOW), (255, 127, 127))  # 255 x (1 - 128 / 255)
    assert_all(decode(grey, HOW), (204, 204, 204))  # 255 x (1 - 51 / 255)


def test_palette_with_a_transparent_colour(tmp_path):
    image = plain(40, 40, 0, "P")
    image.putpalette([200, 0, 0, 10, 20, 30])
    image.paste(1, (0, 20, 40, 40))
    pixels = decode(saved(image, tmp_path / "a.png", transparency=0), Decoding(40, "bicubic", None))
    assert_all(pixels[:20], (255, 255, 255))
    assert_all(pixels[20:], (10, 20, 30))


@pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
def test_exif_orientation_6_is_turned_upright(tmp_path, ending):
    image = plain(80, 40, "white")
    image.paste("black", (0, 0, 40, 40))  # stored on the left, seen at the top
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = decode(saved(image, tmp_path / f"a.{ending}", exif=exif), HOW)
    assert pixels.shape == (64, 32, 3)
    assert pixels[:28].max() < 10 and pixels[36:].min() > 245


def test_animation_gives_its_first_frame(tmp_path):
    frames = [plain(40, 40, color) for color in ("red", "blue", "lime")]
    path = saved(frames[0], tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with Image.open(path) as file:
        assert file.n_frames == 3
    assert_all(decode(path, HOW), (255, 0, 0))


# ---- what is no image ----------------------------------------------------------------------------------------------


def test_text_file_named_jpg(tmp_path):
    (tmp_path / "a.jpg").write_text("hello")
    assert refusal(tmp_path / "a.jpg") == (
        f"{tmp_path / 'a.jpg'}: not a readable image (cannot identify image file 'it'); replace it or remove it"
    )


def test_truncated_jpeg(tmp_path, paint):
    path = paint(tmp_path / "a.jpg", 64, 64)
    path.write_bytes(path.read_bytes()[:-500])
    assert refusal(path).startswith(f"{path}: not a readable image (image file is truncated")


@pytest.mark.parametrize(
    "ending", ["bmp", "gif", "jpg", "png", "ppm", "tif", "webp", pytest.param("avif", marks=needs_avif)]
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # some plugins warn before they raise
def test_no_cut_of_any_format_escapes_as_another_error(tmp_path, paint, ending):
    path = paint(tmp_path / f"a.{ending}")
    whole = path.read_bytes()
    for part in range(1, 40):
        path.write_bytes(whole[: len(whole) * part // 41])
        try:
            decode(path, HOW)  # a format may forgive the loss of its last bytes
        except UserError as error:
            assert str(error).startswith(f"{path}: not a readable image (")


@needs_avif
def test_avif_without_its_table_of_contents(tmp_path, paint):
    path = paint(tmp_path / "a.avif")
    path.write_bytes(path.read_bytes().replace(b"iloc", b"none"))
    assert refusal(path).startswith(f"{path}: not a readable image (Failed to decode image")


def test_empty_file(tmp_path):
    (tmp_path / "a.png").touch()
    assert refusal(tmp_path / "a.png") == (
        f"{tmp_path / 'a.png'}: not a readable image (empty file); replace it or remove it"
    )


def test_missing_file(tmp_path):
    assert refusal(tmp_path / "a.png").startswith(f"{tmp_path / 'a.png'}: not a readable image ([Errno 2]")


def test_float_pixels_are_refused(tmp_path):
    path = saved(Image.fromarray(np.ones((40, 40), dtype=np.float32)), tmp_path / "a.tif")
    assert refusal(path) == (
        f"{path}: not a readable image (32-bit float pixels have no known scale: save it with 8 or 16 bits per "
        "channel); "
        "replace it or remove it"
    )


# ---- shapes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size, shape", [((60, 40), (32, 48)), ((40, 60), (48, 32)), ((16, 16), (32, 32))])
def test_shorter_side_gets_the_size(tmp_path, paint, size, shape):
    assert decode(paint(tmp_path / "a.png", *size), HOW).shape == (*shape, 3)


@pytest.mark.parametrize("turned", [False, True])
def test_panorama_keeps_the_middle_two_squares(tmp_path, turned):
    image = plain(200, 20, "black")
    image.paste("white", (80, 0, 120, 20))
    path = saved(image.transpose(Image.Transpose.ROTATE_90) if turned else image, tmp_path / "a.png")
    pixels = decode(path, HOW)
    assert pixels.shape == ((64, 32, 3) if turned else (32, 64, 3))
    assert_all(pixels, (255, 255, 255))


def test_centre_crop_is_in_pixels_of_the_file(tmp_path, paint):
    path = paint(tmp_path / "a.png", 50, 40)
    whole = np.asarray(read(path))
    assert np.array_equal(decode(path, Decoding(10, "bicubic", (10, 20))), whole[15:25, 15:35])


def test_centre_crop_is_cut_from_the_upright_image(tmp_path, paint):
    path = paint(tmp_path / "a.png", 50, 40)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = saved(read(path), tmp_path / "turned.png", exif=exif)
    upright = np.rot90(np.asarray(read(path)), -1)  # 50 high, 40 wide
    assert np.array_equal(decode(turned, Decoding(10, "bicubic", (20, 10))), upright[15:35, 15:25])


def test_centre_crop_larger_than_the_image_takes_all_of_it(tmp_path, paint):
    path = paint(tmp_path / "a.png", 30, 20)
    assert np.array_equal(decode(path, Decoding(20, "bicubic", (100, 100))), np.asarray(read(path)))


def test_interpolation_is_the_one_asked_for(tmp_path, paint):
    path = paint(tmp_path / "a.png", 64, 64)
    for name, within in (("nearest", 0), ("bilinear", 1), ("bicubic", 2), ("lanczos", 0)):
        want = np.asarray(read(path).resize((32, 32), Image.Resampling[name.upper()])).astype(int)
        assert np.abs(decode(path, Decoding(32, name, None)) - want).max() <= within


def test_an_image_in_memory_is_what_its_file_gives(turned):
    for ending in ("png", "tif", "webp"):
        for path in turned(ending, 50, 40):
            for how in (HOW, Decoding(20, "bicubic", (30, 25)), Decoding(None, "bicubic", None)):
                with Image.open(path) as image:
                    assert np.array_equal(decode_image(image, how), decode(path, how))
    with pytest.raises(UserError, match=r"image in memory: not a readable image .32-bit float pixels"):
        decode_image(Image.new("F", (4, 4)), HOW)


def test_jpeg_decoded_at_a_lower_scale_stays_close_to_the_whole(tmp_path, paint):
    layers = [read(paint(tmp_path / f"{side}.png", side, side)).resize((512, 512)) for side in (8, 64)]
    path = saved(Image.blend(*layers, 0.5), tmp_path / "large.jpg", quality=90)
    want = np.asarray(read(path).resize((64, 64), Image.Resampling.BICUBIC)).astype(int)
    difference = np.abs(decode(path, Decoding(64, "bicubic", None)) - want).mean()
    assert 0 < difference < 2  # decoded at 128 px it is 1.2 of 255, at 64 px it would be 5


# ---- many images ---------------------------------------------------------------------------------------------------


def test_many_are_decoded_in_order(tmp_path, paint):
    shapes = [(40, 40), (70, 40), (40, 55), (200, 20), (33, 90)]
    paths = [paint(tmp_path / f"{row}.png", *shape) for row, shape in enumerate(shapes)]
    for path, image in zip(paths, decoded(paths, HOW, chunk=2), strict=True):
        assert np.array_equal(image, decode(path, HOW))


@pytest.fixture
def turned(tmp_path, paint):
    """turned(ending, width, height): a file of each EXIF orientation, and one without."""

    def write(ending, width=90, height=50):
        paths = [paint(tmp_path / "turned" / f"none.{ending}", width, height)]
        for orientation in range(1, 9):
            exif = Image.Exif()
            exif[0x0112] = orientation
            paths.append(saved(read(paths[0]), tmp_path / "turned" / f"{orientation}.{ending}", exif=exif))
        return paths

    return write


WAYS = [
    Decoding(size, "bicubic", crop)
    for size in (None, 10, 32)
    for crop in (None, (40, 70), (70, 40), (20, 60), (99, 99))
]


@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp", pytest.param("avif", marks=needs_avif)])
def test_files_know_the_shape_of_what_they_give_in_every_orientation(turned, ending):
    paths = turned(ending)
    for how in WAYS:
        files = Files(paths, how)
        assert files.shapes.dtype == np.int64
        assert files.shapes.tolist() == [list(files.image(row).shape[:2]) for row in range(len(paths))]
    assert Files(paths, WAYS[0]).shapes[[0, 1, 6]].tolist() == [[50, 90], [50, 90], [90, 50]]


@pytest.mark.parametrize("ending", ["bmp", "gif", "ppm"])
def test_files_know_the_shape_where_there_is_no_exif(tmp_path, paint, ending):
    paths = [paint(tmp_path / f"{row}.{ending}", *sides) for row, sides in enumerate([(90, 50), (200, 20), (7, 30)])]
    for how in WAYS:
        assert Files(paths, how).shapes.tolist() == [list(decode(path, how).shape[:2]) for path in paths]
    assert Files(paths, WAYS[0]).shapes.tolist() == [[50, 90], [20, 40], [14, 7]]


def test_a_png_whose_orientation_stands_behind_its_pixels(turned):
    path = turned("png")[6]
    data = path.read_bytes()
    begin, end = data.index(b"eXIf") - 4, data.index(b"IDAT") - 4
    last = data.index(b"IEND") - 4
    path.write_bytes(data[:begin] + data[end:last] + data[begin:end] + data[last:])
    for how in WAYS:
        assert shape(path, how) == decode(path, how).shape[:2]
    assert shape(path, WAYS[0]) == (90, 50)
    assert shape(path, WAYS[0], upright=False) == (50, 90)


def test_files_at_their_own_scale_are_upright_and_cropped(tmp_path, paint):
    path = paint(tmp_path / "a.png", 50, 40)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = saved(read(path), tmp_path / "turned.png", exif=exif)
    whole = np.asarray(read(path))
    files = Files([path, turned], Decoding(None, "bicubic", None))
    assert np.array_equal(files.image(0), whole) and np.array_equal(files.image(1), np.rot90(whole, -1))
    files = Files([path, turned], Decoding(None, "bicubic", (20, 30)))
    assert np.array_equal(files.image(0), whole[10:30, 10:40])
    assert np.array_equal(files.image(1), np.rot90(whole, -1)[15:35, 5:35])
    assert files.squares([1, 0]).shape == (2, 20, 20, 3)


def test_files_give_what_is_in_them_now(tmp_path, paint):
    paths = [paint(tmp_path / f"{row}.png", 40 + row, 40) for row in range(3)]
    files = Files(paths, HOW)
    assert np.array_equal(files.squares([2, 0, 2]), [middle_square(decode(paths[row], HOW)) for row in (2, 0, 2)])
    saved(plain(40, 40, "red"), paths[0])
    assert_all(files.image(0), (255, 0, 0))


def test_files_name_the_bad_one(tmp_path, paint):
    (tmp_path / "bad.png").write_text("no")
    for bad in ("bad.png", "missing.png"):
        with pytest.raises(UserError, match=rf"{bad}: not a readable image"):
            Files([paint(tmp_path / "a.png"), tmp_path / bad], HOW)


def test_no_files():
    assert Files([], HOW).shapes.shape == (0, 2)


def test_a_large_jpeg_at_its_own_scale_is_whole(tmp_path, paint):
    path = paint(tmp_path / "a.jpg", 200, 150)
    assert np.array_equal(decode(path, Decoding(None, "bicubic", None)), np.asarray(read(path)))


@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp"])
def test_several_ways_at_once_are_each_what_decode_gives(turned, ending):
    ways = [Decoding(size, "bicubic", crop) for size in (8, 20, 40, None, 32) for crop in (None, (30, 45))]
    for path in turned(ending, 130, 100):
        for image, how in zip(decode_each(path, path.read_bytes(), ways), ways, strict=True):
            assert np.array_equal(image, decode(path, how))


def test_pixels_in_parts_share_and_flatten():
    one, two = np.arange(24, dtype=np.uint8), 100 + np.arange(30, dtype=np.uint8)
    part, starts = np.array([1, 0, 1, 0], dtype=np.int32), np.array([12, 0, 12, 12])
    pixels = Pixels((one, two), part, starts, np.array([[2, 3], [2, 2], [2, 3], [2, 2]]))
    assert np.array_equal(pixels.image(0), two[12:].reshape(2, 3, 3)) and pixels.image(0).base is not None
    assert np.array_equal(pixels.image(1), one[:12].reshape(2, 2, 3))
    assert np.array_equal(pixels.image(3), one[12:].reshape(2, 2, 3))
    assert np.array_equal(pixels.squares([2, 1]), [two[12:].reshape(2, 3, 3)[:, :2], one[:12].reshape(2, 2, 3)])
    flat, starts = pixels.flat()
    assert starts.tolist() == [0, 18, 0, 30] and np.array_equal(flat, [*two[12:], *one])


def test_middle_square():
    wide = np.arange(2 * 5 * 3, dtype=np.uint8).reshape(2, 5, 3)
    assert np.array_equal(middle_square(wide), wide[:, 1:3])
    tall = wide.reshape(5, 2, 3)
    assert np.array_equal(middle_square(tall), tall[1:3])


# ---- stored preprocessing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("crop", [None, (300, 200)])
def test_preprocess_comes_back_as_it_was(tmp_path, crop):
    kept = Preprocess(224, 256, "bicubic", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), crop)
    kept.save(tmp_path / "preprocess.json")
    assert load_preprocess(tmp_path / "preprocess.json") == kept
    assert kept.decoding == Decoding(256, "bicubic", crop)


def test_preprocess_with_a_wrong_or_missing_key(tmp_path):
    path = tmp_path / "preprocess.json"
    for values, fault in (
        ({"image_size": 3}, "has no key 'decode_size'"),
        ({"sides": 4}, "has the unknown key 'sides'"),
    ):
        path.write_text(json.dumps(values))
        with pytest.raises(UserError) as caught:
            load_preprocess(path)
        assert str(caught.value).startswith(f"{path}: {fault}")

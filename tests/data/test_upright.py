"""EXIF orientations: every one by its pixels, in every format that has them, beside tags of a wrong type."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from ensemble.data.pixels.decode import decode, decode_image, shape
from ensemble.data.pixels.preprocess import Decoding
from ensemble.data.pixels.upright import orientation
from ensemble.data.scan import scan
from ensemble.events import SILENT
from ensemble.report.thumbnails import thumbnails, upright_size

WHOLE = Decoding(None, "bicubic", None)

# what a camera stores of an upright picture, from the standard's words for its first row and column
STORED = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: np.rot90(upright),
    7: lambda upright: upright.swapaxes(0, 1)[::-1, ::-1],
    8: lambda upright: np.rot90(upright, -1),
}
SHORT, RATIONAL = 3, 5
TURNED = (0x112, SHORT, 1, struct.pack("<H", 6))


def upright():
    """Red, green, blue and white quarters, 32 wide and 48 high: no flip or turn of it is the same."""
    pixels = np.zeros((48, 32, 3), dtype=np.uint8)
    pixels[:24, :16, 0] = pixels[:24, 16:, 1] = pixels[24:, :16, 2] = 255
    pixels[24:, 16:] = 255
    return pixels


def stored(orientation):
    return Image.fromarray(np.ascontiguousarray(STORED[orientation](upright())))


def exif_block(entries):
    """A little-endian EXIF block of one directory. entries: (tag, type, count, bytes)."""
    start, body, table = 8 + 2 + 12 * len(entries) + 4, b"", struct.pack("<H", len(entries))
    for tag, kind, count, data in sorted(entries):
        value = data.ljust(4, b"\0")
        if len(data) > 4:
            value = struct.pack("<I", start + len(body))
            body += data + b"\0" * (len(data) % 2)
        table += struct.pack("<HHI", tag, kind, count) + value
    return b"Exif\0\0II*\0" + struct.pack("<I", 8) + table + struct.pack("<I", 0) + body


def saved(image, path, block, **options):
    image.save(path, exif=block, **({"quality": 95, "subsampling": 0} if path.suffix == ".jpg" else {}) | options)
    return path


def assert_upright(path, want):
    """By every way that a file is read."""
    assert np.abs(decode(path, WHOLE).astype(int) - want).max() <= 3
    assert shape(path, WHOLE) == want.shape[:2] and upright_size(path) == want.shape[1::-1]
    with Image.open(path) as image:
        assert np.array_equal(decode_image(image, WHOLE), decode(path, WHOLE))
    (small,) = thumbnails([path])
    assert not small.problem and (small.width, small.height) == want.shape[1::-1]
    found = scan([path], path.parent / "memory", SILENT)
    grey = Image.fromarray(want).convert("L").resize((64, 64), Image.Resampling.BICUBIC)
    assert found.errors == (None,) and np.abs(found.thumbnails[0].astype(int) - np.asarray(grey)).max() <= 40
    return found


@pytest.mark.parametrize("kind", range(1, 9))
@pytest.mark.parametrize(
    "ending, options",
    [("jpg", {}), ("png", {}), ("tif", {}), ("tif", {"compression": "tiff_lzw"}), ("webp", {"lossless": True})],
)
def test_every_orientation_is_turned_upright(tmp_path, kind, ending, options):
    block = Image.Exif()
    block[0x112] = kind
    found = assert_upright(saved(stored(kind), tmp_path / f"a.{ending}", block, **options), upright())
    assert found.orientations.tolist() == [kind if ending != "tif" else 1]


@pytest.mark.parametrize("kind", range(1, 9))
def test_a_phone_photo_of_several_pictures(tmp_path, kind):
    block = Image.Exif()
    block[0x112] = kind
    more = {"format": "MPO", "save_all": True, "append_images": [Image.new("RGB", (8, 8))]}
    assert_upright(saved(stored(kind), tmp_path / "a.jpg", block, **more), upright())


@pytest.mark.parametrize(
    "tag",
    [
        (282, 2, 5, b"72/1\0"),  # the resolution as text, which ended in a TypeError
        (282, 7, 8, b"72/1\0\0\0\0"),
        (282, 10, 1, struct.pack("<ii", -72, 1)),  # struct.error
        (271, RATIONAL, 1, struct.pack("<II", 72, 1)),  # AttributeError
        (296, 2, 2, b"2\0"),
        (0x8769, SHORT, 1, b"\1\0"),  # the directories of camera and place, which lie nowhere
        (0x8825, 4, 1, b"\xff\xff\xff\x7f"),
        (0x9286, 99, 1, b"\1"),
        (306, 2, 400_000, b"\xff\xff\xff\xff\xff"),
    ],
)
@pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow warns of some, which is as well
def test_a_tag_of_a_wrong_type_hinders_no_turn(tmp_path, ending, tag):
    options = {"lossless": True} if ending == "webp" else {}
    path = saved(stored(6), tmp_path / f"a.{ending}", exif_block([TURNED, tag]), **options)
    assert assert_upright(path, upright()).orientations.tolist() == [6]


@pytest.mark.parametrize(
    "tag, kind",
    [
        ((0x112, 4, 1, struct.pack("<I", 6)), 6),
        ((0x112, RATIONAL, 1, struct.pack("<II", 6, 1)), 6),
        ((0x112, SHORT, 1, struct.pack("<H", 0)), 1),
        ((0x112, SHORT, 1, struct.pack("<H", 9)), None),
        ((0x112, 8, 1, struct.pack("<h", -6)), None),
        ((0x112, 2, 2, b"6\0"), None),
        ((0x112, 1, 1, b"\6"), None),
        ((0x112, RATIONAL, 1, struct.pack("<II", 0, 0)), None),
        ((0x112, RATIONAL, 1, struct.pack("<II", 13, 2)), None),
    ],
)
def test_orientations_of_odd_types_and_values(tmp_path, tag, kind):
    path = saved(stored(kind or 1), tmp_path / "a.jpg", exif_block([tag]))
    with Image.open(path) as image:
        assert orientation(image) == kind
    assert assert_upright(path, upright()).orientations.tolist() == [kind or 1]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_broken_block_leaves_the_picture_as_it_is_stored(tmp_path):
    whole = exif_block([TURNED, (282, RATIONAL, 1, struct.pack("<II", 72, 1))])
    for block in (
        b"Exif\0\0",
        b"Exif\0\0junk" * 5,
        whole[:9],
        b"Exif\0\0II*\0\xff\xff\xff\x7f",
        b"Exif\0\0" + bytes(40),
    ):
        assert_upright(saved(stored(1), tmp_path / "a.jpg", block), upright())


def test_the_pixels_behind_a_pngs_header_are_looked_at_for_its_orientation(tmp_path):
    stream = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(stream, "PNG")
    (tmp_path / "a.png").write_bytes(stream.getvalue()[:-200])
    with Image.open(tmp_path / "a.png") as image, pytest.raises(OSError, match="truncated"):
        orientation(image)

"""One pass over image files: what it finds in odd ones, what it remembers of all, and numbers worked out by hand."""

import hashlib
import os
import re
import struct
import zlib
from dataclasses import fields

import numpy as np
import pytest
from PIL import Image
from recorder import Recorder
from safetensors.numpy import save_file

from ensemble.data import scan as module
from ensemble.data.pixels.decode import decode
from ensemble.data.pixels.preprocess import Decoding
from ensemble.data.scan import scan
from ensemble.data.scan_pieces import RECORD, SIDE
from ensemble.events import SILENT
from ensemble.files.tensors import map_tensors, of_array, write_tensors


@pytest.fixture
def memory(tmp_path):
    return tmp_path / "memory"


@pytest.fixture
def look_at(tmp_path, memory):
    """look_at(image, name, **options of Image.save): the scan of that one file."""

    def save_and_scan(image, name="image.png", **options):
        image.save(tmp_path / name, **options)
        return scan([tmp_path / name], memory, SILENT)

    return save_and_scan


def kind(found):
    return found.formats[0], found.modes[0], int(found.widths[0]), int(found.heights[0])


def same(one, other):
    for field in fields(one):
        left, right = getattr(one, field.name), getattr(other, field.name)
        assert np.array_equal(left, right), field.name
        assert getattr(left, "dtype", None) == getattr(right, "dtype", None), field.name


def picture(seed, width=96, height=96):
    small = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def corners(size=64):
    """Red, green, blue and white quarters: no flip or turn of it is the same in grey."""
    pixels = np.zeros((size, size, 3), dtype=np.uint8)
    half = size // 2
    pixels[:half, :half, 0] = pixels[:half, half:, 1] = pixels[half:, :half, 2] = 255
    pixels[half:, half:] = 255
    return pixels


# files that are no good


def test_files_that_can_not_be_read_are_named_by_why(tmp_path, memory):
    (tmp_path / "folder").mkdir()
    found = scan([tmp_path / "gone.png", tmp_path / "folder"], memory, SILENT)
    assert found.errors == ("no such file or directory", "is a directory")
    assert found.digests.tolist() == ["", ""] and found.bytes.tolist() == [0, 0]
    assert found.formats.tolist() == found.modes.tolist() == ["", ""]
    assert found.widths.tolist() == found.heights.tolist() == [0, 0]
    assert found.orientations.tolist() == found.frames.tolist() == [1, 1]
    assert not found.thumbnails.any() and not found.means.any() and not found.stds.any() and not found.sharpness.any()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="this user may read every file")
def test_a_file_without_permission(tmp_path, memory, paint):
    paint(tmp_path / "a.png").chmod(0)
    assert scan([tmp_path / "a.png"], memory, SILENT).errors == ("permission denied",)


def test_empty_and_foreign_files(tmp_path, memory):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("no picture\n")
    found = scan([tmp_path / "empty.jpg", tmp_path / "text.jpg"], memory, SILENT)
    assert found.errors == ("empty file", "not an image")
    assert found.digests.tolist() == [hashlib.sha256(data).hexdigest() for data in (b"", b"no picture\n")]
    assert found.bytes.tolist() == [0, 11]


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_a_truncated_image_keeps_what_its_header_says(tmp_path, memory, ending):
    whole, cut = tmp_path / f"whole.{ending}", tmp_path / f"cut.{ending}"
    picture(0, 120, 80).save(whole)
    data = whole.read_bytes()
    cut.write_bytes(data[: len(data) // 2])
    found = scan([cut, whole], memory, SILENT)
    assert found.errors[0].startswith("image file is truncated") and found.errors[1] is None
    assert found.widths.tolist() == [120, 120] and found.heights.tolist() == [80, 80]
    assert found.formats.tolist() == [{"jpg": "JPEG", "png": "PNG"}[ending]] * 2
    assert found.bytes.tolist() == [len(data) // 2, len(data)]
    assert not found.thumbnails[0].any() and found.thumbnails[1].any()
    assert not found.means[0].any() and found.means[1].all()


def png_chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def test_an_image_that_would_fill_the_memory_is_not_decoded(tmp_path, memory):
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IEND", b""))
    assert scan([tmp_path / "bomb.png"], memory, SILENT).errors[0].startswith("100,000 x 100,000 pixels, more")


def test_the_content_says_the_format_and_not_the_ending(look_at):
    assert kind(look_at(picture(0, 40, 30), "painting.jpg", format="PNG")) == ("PNG", "RGB", 40, 30)


# modes: the means tell that the pixels were understood


@pytest.mark.parametrize(
    ("mode", "colour", "name", "mean"),
    [
        ("L", 51, "a.png", (0.2, 0.2, 0.2)),
        ("LA", (51, 0), "a.png", (1, 1, 1)),
        ("RGBA", (255, 0, 0, 51), "a.png", (1, 0.8, 0.8)),
        ("CMYK", (0, 255, 255, 0), "a.jpg", (1, 0, 0)),
        ("1", 1, "a.png", (1, 1, 1)),
        ("I;16", 128 * 257, "a.png", (128 / 255,) * 3),
        ("RGB", (51, 102, 153), "a.tif", (0.2, 0.4, 0.6)),
    ],
)
def test_modes(look_at, mode, colour, name, mean):
    found = look_at(Image.new(mode, (40, 30), colour), name)
    assert found.errors == (None,) and found.modes[0] == mode and kind(found)[2:] == (40, 30)
    assert found.means[0] == pytest.approx(mean, abs=0.005)
    assert found.stds[0] == pytest.approx((0, 0, 0), abs=0.001) and found.sharpness[0] == 0
    grey = np.dot(mean, (299, 587, 114)) / 1000 * 255
    assert np.abs(found.thumbnails[0] - grey).max() <= 1.5


def test_palettes_with_and_without_a_transparent_colour(look_at):
    image = Image.new("P", (40, 30), 1)
    image.putpalette([0, 0, 0, 255, 102, 0])
    found = look_at(image)
    assert kind(found) == ("PNG", "P", 40, 30) and found.means[0] == pytest.approx((1, 0.4, 0))
    assert look_at(image, transparency=1).means[0] == pytest.approx((1, 1, 1))


def test_pixels_without_a_scale_are_an_error(look_at):
    found = look_at(Image.new("F", (40, 30), 0.5), "a.tif")
    assert found.errors == ("32-bit float pixels have no known scale: save it with 8 or 16 bits per channel",)
    assert kind(found) == ("TIFF", "F", 40, 30)


# several pictures in a file


@pytest.mark.parametrize(("name", "form"), [("a.gif", "GIF"), ("a.tif", "TIFF"), ("a.png", "PNG"), ("a.webp", "WEBP")])
def test_animations_and_pages_are_counted_and_the_first_is_measured(look_at, name, form):
    first, *others = [Image.new("RGB", (40, 30), (255 * (at == 0), 0, 51 * at)) for at in range(3)]
    found = look_at(first, name, save_all=True, append_images=others)
    assert found.formats[0] == form and found.frames.tolist() == [3]
    assert found.means[0] == pytest.approx((1, 0, 0), abs=0.02)


def test_what_is_broken_behind_the_first_page_is_not_read(tmp_path, memory):
    """As in training and prediction."""
    picture(0).save(tmp_path / "a.tif", save_all=True, append_images=[picture(1)])
    data = bytearray((tmp_path / "a.tif").read_bytes())
    start = struct.unpack_from("<I", data, 4)[0]
    (count,) = struct.unpack_from("<H", data, start)
    struct.pack_into("<I", data, start + 2 + 12 * count, 10)  # the next page's directory lies where there is none
    (tmp_path / "a.tif").write_bytes(data)
    decode(tmp_path / "a.tif", Decoding(None, "bicubic", None))
    found = scan([tmp_path / "a.tif"], memory, SILENT)
    assert found.errors == (None,) and found.frames.tolist() == [1] and found.means.all()


def test_a_phone_photo_of_several_pictures_is_one(look_at):
    found = look_at(picture(0), "a.jpg", format="MPO", save_all=True, append_images=[picture(1)])
    assert found.formats[0] == "MPO" and found.frames.tolist() == [1] and found.errors == (None,)


# EXIF

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


def turned_exif(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("orientation", range(1, 9))
def test_thumbnails_are_upright_and_sizes_as_stored(look_at, orientation):
    upright = np.repeat(corners(), 2, axis=0)  # 64 wide, 128 high
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    found = look_at(stored, exif=turned_exif(orientation))
    assert found.orientations.tolist() == [orientation]
    assert kind(found)[2:] == ((64, 128) if orientation < 5 else (128, 64))
    centres = found.thumbnails[0][16::32, 16::32]
    assert centres.tolist() == [[76, 150], [29, 255]]  # 255 times 0.299, 0.587, 0.114 and 1


@pytest.mark.parametrize("orientation", [0, 9])
def test_an_orientation_that_is_none_is_upright(look_at, orientation):
    found = look_at(Image.fromarray(corners()), exif=turned_exif(orientation))
    assert found.orientations.tolist() == [1] and found.errors == (None,)
    assert found.thumbnails[0][16::32, 16::32].tolist() == [[76, 150], [29, 255]]


def test_exif_behind_the_pixels_of_a_png_counts(tmp_path, memory):
    Image.fromarray(corners()).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    exif = png_chunk(b"eXIf", turned_exif(3).tobytes().removeprefix(b"Exif\0\0"))
    (tmp_path / "a.png").write_bytes(data[:-12] + exif + data[-12:])
    found = scan([tmp_path / "a.png"], memory, SILENT)
    assert found.orientations.tolist() == [3]
    assert found.thumbnails[0][16::32, 16::32].tolist() == [[255, 29], [150, 76]]


def test_a_tiff_is_turned_once(look_at):
    found = look_at(Image.fromarray(corners()), "a.tif", exif=turned_exif(6))
    # a quarter clockwise: the lower left corner comes to the upper left
    assert found.thumbnails[0][16::32, 16::32].tolist() == [[29, 76], [255, 150]]


# measures


def test_means_and_deviations_of_two_colours(look_at):
    pixels = np.zeros((20, 40, 3), dtype=np.uint8)
    pixels[:, :10] = (255, 51, 0)
    pixels[:, 10:] = (0, 102, 0)
    found = look_at(Image.fromarray(pixels))
    # a quarter of one: 0.25 * 0.2 + 0.75 * 0.4 = 0.35; a deviation of sqrt(3) / 4 of their distance
    assert found.means[0] == pytest.approx((0.25, 0.35, 0), abs=1e-6)
    assert found.stds[0] == pytest.approx((3**0.5 / 4, 0.2 * 3**0.5 / 4, 0), abs=1e-6)


def grey_image(values):
    return Image.fromarray((255 * np.array(values, dtype=float)).astype(np.uint8))


@pytest.mark.parametrize(
    ("values", "sharpness"),
    [
        (np.indices((6, 6)).sum(axis=0) % 2, 4.0),  # a chessboard: 4 and -4
        ([[0, 0, 0, 1, 1, 1]] * 4, 0.5**0.5),  # 0, 1, -1, 0 in each row
        ([[0, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 0, 0], [0] * 5], (20 / 9) ** 0.5),
        ([[0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]], 4.25**0.5),  # -4, 1, 1, 0: mean -0.5
        ([[0, 0.2, 0.4, 0.6, 0.8, 1]] * 4, 0.0),  # a ramp
        ([[0, 1], [1, 0], [0, 1], [1, 0]], 0.0),  # too narrow to have an inside
    ],
)
def test_sharpness_by_hand(look_at, values, sharpness):
    assert look_at(grey_image(values)).sharpness[0] == pytest.approx(sharpness, abs=1e-5)


def test_a_blurred_picture_is_less_sharp(tmp_path, memory):
    for name, side in (("sharp", 1000), ("blurred", 60)):
        noise = np.random.default_rng(0).integers(0, 256, (side, side), dtype=np.uint8)
        Image.fromarray(noise).resize((1000, 1000), Image.Resampling.BICUBIC).save(tmp_path / f"{name}.png")
    sharp, blurred = scan([tmp_path / "sharp.png", tmp_path / "blurred.png"], memory, SILENT).sharpness
    assert sharp > 0.2 > 0.1 > blurred > 0


def test_large_images_are_measured_at_256_px(look_at):
    # columns in turn black and white: halved, all are grey and nothing is left to be sharp
    stripes = np.tile(np.array([0, 255], dtype=np.uint8), (300, 256))
    found = look_at(Image.fromarray(stripes))
    assert kind(found) == ("PNG", "L", 512, 300)
    assert found.means[0] == pytest.approx((0.5,) * 3, abs=0.003) and found.stds[0] == pytest.approx((0,) * 3, abs=1e-3)
    assert found.sharpness[0] == 0
    assert look_at(Image.fromarray(stripes[:, :256])).sharpness[0] == pytest.approx(2.0)  # 2 and -2


def test_one_pixel_and_one_row(tmp_path, memory):
    Image.new("RGB", (1, 1), (51, 102, 255)).save(tmp_path / "dot.png")
    Image.new("RGB", (4000, 1), (51, 51, 51)).save(tmp_path / "row.png")
    found = scan([tmp_path / "dot.png", tmp_path / "row.png"], memory, SILENT)
    assert found.errors == (None, None) and found.widths.tolist() == [1, 4000] and found.heights.tolist() == [1, 1]
    assert found.means == pytest.approx(np.array([[0.2, 0.4, 1], [0.2, 0.2, 0.2]]))
    # (299 * 51 + 587 * 102 + 114 * 255) / 1000 = 104.2
    assert (found.thumbnails[0] == 104).all() and (found.thumbnails[1] == 51).all()
    assert found.sharpness.tolist() == [0, 0]


def test_a_thumbnail_is_the_whole_picture_squeezed(look_at):
    found = look_at(Image.fromarray(np.repeat(corners(), 3, axis=1)))
    assert found.thumbnails.shape == (1, SIDE, SIDE) and found.thumbnails.dtype == np.uint8
    grey = found.thumbnails[0]
    for rows, columns, value in ((slice(28), slice(28), 76), (slice(36, 64), slice(28), 29)):
        assert (grey[rows, columns] == value).all()
    assert (grey[:28, 36:] == 150).all() and (grey[36:, 36:] == 255).all()


def test_the_shape_and_type_of_everything(tmp_path, memory, paint):
    found = scan([paint(tmp_path / "a.png"), tmp_path / "gone.png"], memory, SILENT)
    whole = {"widths": np.int64, "heights": np.int64, "orientations": np.int64, "frames": np.int64, "bytes": np.int64}
    for name, want in whole.items() | {("sharpness", np.float32)}:
        values = getattr(found, name)
        assert values.shape == (2,) and values.dtype == want, name
    for values in (found.means, found.stds):
        assert values.shape == (2, 3) and values.dtype == np.float32
    for values in (found.digests, found.formats, found.modes):
        assert values.shape == (2,) and values.dtype.kind == "U"
    assert found.bytes[0] == (tmp_path / "a.png").stat().st_size


def test_no_files_at_all(memory):
    found = scan([], memory, SILENT)
    assert found.errors == () and found.thumbnails.shape == (0, SIDE, SIDE) and found.means.shape == (0, 3)
    assert len(found.digests) == len(found.bytes) == len(found.sharpness) == 0


# memory


def pieces(memory):
    """Files of facts and thumbnails."""
    return sorted(memory.glob("scans/*/*.safetensors"))


def held(path):
    """What a piece remembers: its records and thumbnails."""
    arrays = map_tensors(path)
    return arrays["facts"].copy().reshape(-1).view(RECORD), arrays["thumbnails"].copy()


def write_piece(path, facts, thumbnails):
    arrays = {"facts": facts.view(np.uint8).reshape(len(facts), -1), "thumbnails": thumbnails}
    write_tensors(path, {name: of_array(array) for name, array in arrays.items()}, {})


def mark(path, value):
    """Replace what a piece remembers by something no image has."""
    facts, thumbnails = held(path)
    facts["sharpness"], thumbnails[:] = value, value
    write_piece(path, facts, thumbnails)


def marked(found, value):
    """Rows that came from memory."""
    remembered = found.sharpness == value
    assert np.array_equal(remembered, (found.thumbnails == value).all(axis=(1, 2)))
    return remembered.tolist()


def test_a_second_scan_decodes_nothing_again(tmp_path, memory, paint):
    paths = [paint(tmp_path / f"{row}.png") for row in range(5)]
    (tmp_path / "broken.png").write_bytes(paths[0].read_bytes()[:200])
    paths.append(tmp_path / "broken.png")
    first = scan(paths, memory, SILENT)
    same(first, scan(paths, memory, SILENT))
    (piece,) = pieces(memory)
    mark(piece, 77)
    second = scan(paths, memory, SILENT)
    assert marked(second, 77) == [True] * 6 and pieces(memory) == [piece]
    assert second.errors == first.errors and first.errors[5] is not None
    for name in (
        "digests",
        "formats",
        "modes",
        "widths",
        "heights",
        "orientations",
        "frames",
        "bytes",
        "means",
        "stds",
    ):
        assert np.array_equal(getattr(first, name), getattr(second, name)), name


def test_changed_files_are_decoded_and_moved_ones_are_not(tmp_path, memory, paint):
    paths = [paint(tmp_path / f"{name}.png") for name in "abc"]
    scan(paths, memory, SILENT)
    mark(pieces(memory)[0], 77)
    Image.new("RGB", (32, 32), (51, 51, 51)).save(paths[1])
    (tmp_path / "far").mkdir()
    paths[2] = paths[2].rename(tmp_path / "far" / "z.jpg")
    found = scan(paths, memory, SILENT)
    assert marked(found, 77) == [True, False, True]
    assert found.means[1] == pytest.approx((0.2, 0.2, 0.2)) and found.stds[1] == pytest.approx((0, 0, 0))
    assert len(pieces(memory)) == 2 and marked(scan(paths[::-1], memory, SILENT), 77) == [True, False, True]


def test_copies_are_decoded_once(tmp_path, memory, paint):
    one, two = paint(tmp_path / "one.png"), paint(tmp_path / "two.png")
    copy = tmp_path / "copy.jpg"
    copy.write_bytes(one.read_bytes())
    paths = [one, two, copy, one]
    found = scan(paths, memory, SILENT)
    (piece,) = pieces(memory)
    facts, thumbnails = held(piece)
    assert facts["digest"].astype("U").tolist() == [found.digests[0], found.digests[1]]
    assert thumbnails.shape == (2, SIDE, SIDE)
    for values in (
        found.digests,
        found.sharpness,
        found.thumbnails.reshape(4, -1)[:, :9].sum(axis=1),
        found.means[:, 0],
    ):
        assert values[0] == values[2] == values[3] != values[1]
    mark(piece, 77)
    assert marked(scan(paths, memory, SILENT), 77) == [True] * 4


def test_rows_keep_their_order(tmp_path, memory):
    order = np.random.default_rng(0).permutation(40)
    for row in order:
        Image.new("RGB", (10 + int(row), 10), (int(row),) * 3).save(tmp_path / f"{row}.png")
    for rows in (order[:25], order):  # the second time with some remembered
        found = scan([tmp_path / f"{row}.png" for row in rows], memory, SILENT)
        assert (found.widths - 10).tolist() == found.thumbnails[:, 5, 5].tolist() == rows.tolist()
        assert np.rint(255 * found.means[:, 1]).tolist() == rows.tolist()


def test_pieces_are_written_as_they_are_full(tmp_path, memory, monkeypatch, paint):
    monkeypatch.setattr(module, "PIECE", 3)
    monkeypatch.setattr(module, "CHUNK", 2)
    paths = [paint(tmp_path / f"{row}.png") for row in range(8)]
    whole = scan(paths, memory, SILENT)
    assert sorted(len(held(path)[0]) for path in pieces(memory)) == [2, 3, 3]
    same(whole, scan(paths, memory, SILENT))
    monkeypatch.undo()
    same(whole, scan(paths, tmp_path / "other", SILENT))


def test_a_stopped_scan_keeps_its_pieces(tmp_path, memory, monkeypatch, paint):
    monkeypatch.setattr(module, "PIECE", 3)
    paths = [paint(tmp_path / f"{row}.png") for row in range(8)]

    def stop(text, done, total):
        if text.startswith("looking at the images") and done > 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan(paths, memory, Recorder(on_progress=stop))
    (piece,) = pieces(memory)
    mark(piece, 77)
    assert marked(scan(paths, memory, SILENT), 77) == [True] * 3 + [False] * 5


def test_progress_counts_every_readable_file_once(tmp_path, memory, monkeypatch, paint):
    monkeypatch.setattr(module, "CHUNK", 2)
    paths = [paint(tmp_path / f"{row}.png") for row in range(5)]
    scan(paths[:2], memory, SILENT)
    (tmp_path / "copy.png").write_bytes(paths[4].read_bytes())
    events = Recorder()
    scan([*paths, tmp_path / "copy.png", tmp_path / "gone.png"], memory, events)
    assert events.steps[-3] == ("looking at the images", 2, 6)
    assert [step[1:] for step in events.steps[-2:]] == [(4, 6), (6, 6)]
    assert re.fullmatch(r"looking at the images: [\d.]+ images/s, 0:00 left", events.steps[-1][0])


@pytest.mark.parametrize("harm", ["other facts", "fewer thumbnails", "no checksum", "text", "empty"])
def test_a_piece_of_another_form_is_done_without_and_mended(tmp_path, memory, paint, harm):
    paths = [paint(tmp_path / f"{row}.png") for row in range(4)]
    whole = scan(paths, memory, SILENT)
    (piece,) = pieces(memory)
    mark(piece, 77)
    facts, thumbnails = held(piece)
    if harm == "other facts":
        write_piece(piece, np.ascontiguousarray(facts["digest"]), thumbnails)
    elif harm == "fewer thumbnails":
        write_piece(piece, facts, thumbnails[:3])
    elif harm == "no checksum":
        save_file(map_tensors(piece), piece)
    else:
        piece.write_text("no numbers" if harm == "text" else "")
    same(whole, scan(paths, memory, SILENT))
    (new,) = pieces(memory)
    assert new != piece
    mark(new, 88)
    assert marked(scan(paths, memory, SILENT), 88) == [True] * 4


def test_a_piece_with_any_byte_changed_or_cut_anywhere_gives_what_a_fresh_scan_gives(tmp_path, memory, paint):
    """As a bad disk and a full one leave a file."""
    path = paint(tmp_path / "a.png")
    whole = scan([path], memory, SILENT)
    (piece,) = pieces(memory)
    mark(piece, 77)
    data = piece.read_bytes()
    assert marked(scan([path], memory, SILENT), 77) == [True]
    flipped = (bytes((*data[:at], data[at] ^ 0x80, *data[at + 1 :])) for at in range(0, len(data), 37))
    cut = (data[:length] for length in range(0, len(data), 61))
    for content in (*flipped, *cut):
        for other in pieces(memory):
            other.unlink()
        piece.write_bytes(content)
        same(whole, scan([path], memory, SILENT))


def test_without_a_place_to_remember_the_scan_is_the_same(tmp_path, memory, paint):
    paths = [paint(tmp_path / f"{row}.png") for row in range(3)]
    (tmp_path / "file").write_text("in the way")
    same(scan(paths, memory, SILENT), scan(paths, tmp_path / "file", SILENT))
    assert (tmp_path / "file").read_text() == "in the way"
    # and where only the folder of pieces can't be made
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "scans").write_text("in the way")
    for _ in range(2):
        same(scan(paths, memory, SILENT), scan(paths, blocked, SILENT))


def test_nothing_is_left_beside_the_pieces(tmp_path, memory, paint):
    scan([paint(tmp_path / "a.png")], memory, SILENT)
    (piece,) = pieces(memory)
    assert [path for path in (memory / "scans").rglob("*") if path.is_file()] == [piece]
    assert {path.name for path in memory.iterdir()} <= {"scans", "digests"}


def test_any_number_of_threads_gives_the_same(tmp_path, monkeypatch, paint):
    paths = [paint(tmp_path / f"{row}.{'jpg' if row % 3 else 'png'}", 30 + row, 300) for row in range(40)]
    paths.append(tmp_path / "gone.png")
    found = []
    for count in (1, 7):
        monkeypatch.setattr(module, "cores", lambda count=count: count)
        found.append(scan(paths, tmp_path / f"memory{count}", SILENT))
    same(*found)


@pytest.mark.parametrize("change", ["other", "gone"])
def test_a_file_that_changes_meanwhile_is_not_remembered_by_what_it_was(tmp_path, memory, paint, change):
    path = paint(tmp_path / "a.png")
    data = path.read_bytes()

    def meddle(text, done, total):
        if text.startswith("looking for changed images") and done:
            path.unlink()
            if change == "other":
                Image.new("RGB", (10, 10)).save(path)

    scan([path], memory, Recorder(on_progress=meddle))
    path.write_bytes(data)
    found = scan([path], memory, SILENT)
    assert found.errors == (None,) and found.widths.tolist() == [32]


@pytest.mark.parametrize(
    ("failure", "error"),
    [(MemoryError(), "MemoryError"), (OSError(24, "Too many open files"), "[Errno 24] Too many open files")],
)
def test_what_the_machine_lacked_for_a_moment_is_not_remembered_of_the_file(
    tmp_path, memory, paint, monkeypatch, failure, error
):
    path = paint(tmp_path / "a.png")

    def fail(*_):
        raise failure

    with monkeypatch.context() as patched:
        patched.setattr(module, "rgb", fail)
        assert scan([path], memory, SILENT).errors == (error,)
    found = scan([path], memory, SILENT)
    assert found.errors == (None,) and found.means.all()


def test_what_is_wrong_with_the_bytes_is_remembered(tmp_path, memory, monkeypatch):
    (tmp_path / "a.png").write_text("no picture\n")
    error = scan([tmp_path / "a.png"], memory, SILENT).errors
    monkeypatch.setattr(module, "look", None)
    assert scan([tmp_path / "a.png"], memory, SILENT).errors == error == ("not an image",)

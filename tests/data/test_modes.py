"""Every kind of pixels as RGB, with values worked out by hand, and the rules that odd ones are read by."""

import io
import struct

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from ensemble.data.pixels.decode import decode, decode_image
from ensemble.data.pixels.modes import rgb
from ensemble.data.pixels.preprocess import Decoding
from ensemble.data.scan import scan
from ensemble.errors import UserError
from ensemble.events import SILENT

WHOLE = Decoding(None, "bicubic", None)
SHORT, LONG = 3, 4


def tiff(path, pixels, photometric, order="<", **tags):
    """A TIFF without compression. pixels: (H, W) or (H, W, C). tags: t281=[4095] and so on, all of them SHORT."""
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    kind = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    entries = {
        256: [pixels.shape[1]], 257: [pixels.shape[0]], 258: [8 * pixels.itemsize] * channels, 259: [1],
        262: [photometric], 273: [0], 277: [channels], 278: [pixels.shape[0]], 279: [pixels.nbytes],
        339: [kind] * channels,
    }  # fmt: skip
    entries |= {int(name[1:]): values for name, values in tags.items()}
    start = 8 + 2 + 12 * len(entries) + 4
    long = {tag: values for tag, values in entries.items() if len(values) > 2}
    entries[273] = [start + sum(2 * len(values) for values in long.values())]
    body, table = b"", struct.pack(order + "H", len(entries))
    for tag, values in sorted(entries.items()):
        packed = struct.pack(f"{order}{len(values)}H", *values).ljust(4, b"\0")
        if tag in (273, 279):
            table += struct.pack(order + "HHII", tag, LONG, 1, values[0])
        elif tag in long:
            table += struct.pack(order + "HHII", tag, SHORT, len(values), start + len(body))
            body += packed
        else:
            table += struct.pack(order + "HHI", tag, SHORT, len(values)) + packed
    magic = b"II*\0" if order == "<" else b"MM\0*"
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    path.write_bytes(magic + struct.pack(order + "I", 8) + table + bytes(4) + body + data)
    return path


def column(*values, dtype=np.uint16):
    """One value a row, 4 pixels wide."""
    return np.repeat(np.array(values, dtype=dtype)[:, None], 4, axis=1)


def read(path):
    """The first column of what is decoded, and the rules of the scan: the same by every way to the pixels."""
    pixels = decode(path, WHOLE)
    with Image.open(path) as image:
        of_memory = decode_image(image, WHOLE)
    found = scan([path], path.parent / "memory", SILENT)
    assert found.errors == (None,)
    assert found.means[0] == pytest.approx(pixels.reshape(-1, 3).mean(axis=0) / 255, abs=0.005)
    if "-bit" not in found.rules[0] or (pixels[..., :1] == pixels).all():  # of deep colours Pillow keeps 8 bits alone
        assert np.array_equal(of_memory, pixels)
    assert (pixels[:, :1] == pixels).all()
    return pixels[:, 0].tolist(), found.rules[0]


def greys(path):
    pixels, rules = read(path)
    assert all(len(set(pixel)) == 1 for pixel in pixels)
    return [pixel[0] for pixel in pixels], rules


# depth


@pytest.mark.parametrize(
    "values, want, rule",
    [
        ((0, 100, 255), [0, 100, 255], "8-bit"),
        ((0, 256, 1023), [0, 64, 255], "10-bit"),  # 256 x 255 / 1023 = 63.8
        ((0, 1024, 4095), [0, 64, 255], "12-bit"),  # 63.8
        ((0, 2048, 4000), [0, 128, 249], "12-bit"),  # 127.5, 249.1
        ((0, 8192, 16383), [0, 128, 255], "14-bit"),  # 127.5
        ((0, 16384, 32767), [0, 64, 127], "16-bit"),  # 63.8, 127.5
        ((0, 32768, 65535), [0, 128, 255], "16-bit"),
        ((0, 0), [0, 0], "16-bit"),
    ],
)
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_grey_of_16_bits_is_scaled_by_the_bits_that_it_uses(tmp_path, values, want, rule, ending):
    Image.fromarray(column(*values)).save(tmp_path / f"a.{ending}")
    assert greys(tmp_path / f"a.{ending}") == (want, rule)


@pytest.mark.parametrize("order", ["<", ">"])
def test_tiffs_of_both_byte_orders(tmp_path, order):
    assert greys(tiff(tmp_path / "a.tif", column(0, 1024, 4095), 1, order)) == ([0, 64, 255], "12-bit")


@pytest.mark.parametrize("most, want, rule", [(65535, 16, "16-bit"), (4095, 255, "12-bit"), (8000, 127, "13-bit")])
def test_a_tiff_that_states_its_maximum(tmp_path, most, want, rule):
    assert greys(tiff(tmp_path / "a.tif", column(0, 4080, 4095), 1, t281=[most]))[0][-1] == want
    assert greys(tmp_path / "a.tif")[1] == rule


def test_a_stated_maximum_that_can_not_be_true_is_left_aside(tmp_path):
    assert greys(tiff(tmp_path / "a.tif", column(0, 1024, 4095), 1, t281=[1000])) == ([0, 64, 255], "12-bit")


def test_twelve_bits_packed_are_twelve_however_dark(tmp_path):
    """0, 256, 512, 1023 in three bytes each two."""
    path = tiff(tmp_path / "a.tif", np.frombuffer(2 * b"\x00\x01\x00\x20\x03\xff", np.uint8).reshape(2, 6), 1)
    data = path.read_bytes()
    for tag, old, new in ((256, 6, 4), (258, 8, 12)):
        data = data.replace(struct.pack("<HHIH", tag, SHORT, 1, old), struct.pack("<HHIH", tag, SHORT, 1, new))
    path.write_bytes(data)
    assert decode(path, WHOLE)[0, :, 0].tolist() == [0, 16, 32, 64]  # 1023 x 255 / 4095 = 63.7


def test_a_pgms_maximum_is_its_scale(tmp_path):
    for most, want in ((4095, 64), (65535, 4), (1023, 255)):
        (tmp_path / "a.pgm").write_bytes(b"P5\n2 2\n%d\n" % most + struct.pack(">4H", 1023, 0, 1023, 0))
        assert decode(tmp_path / "a.pgm", WHOLE)[:, 0].tolist() == [[want] * 3] * 2


@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize(
    "most, rule", [(255, "8-bit"), (1023, "10-bit"), (4095, "12-bit"), (16383, "14-bit"), (65535, "16-bit")]
)
def test_colours_of_16_bits(tmp_path, ending, most, rule):
    pixels = np.broadcast_to(np.array([most // 4 + 1, most // 2 + 1, most], dtype=np.uint16)[::-1], (4, 4, 3))
    assert cv2.imwrite(str(tmp_path / f"a.{ending}"), np.ascontiguousarray(pixels))
    assert read(tmp_path / f"a.{ending}") == ([[64, 128, 255]] * 4, rule)


def test_full_colours_of_16_bits_stay_as_pillow_has_them(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 65536, (40, 40, 3), dtype=np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    assert np.array_equal(decode(tmp_path / "a.png", WHOLE), pixels[..., ::-1] >> 8)


@pytest.mark.parametrize("alpha", [65535, 4095, 1])
def test_colours_and_transparency_of_16_bits(tmp_path, alpha):
    pixels = np.zeros((4, 4, 4), dtype=np.uint16)
    pixels[:2] = (4095, 2048, 1024, alpha)
    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    found, rules = read(tmp_path / "a.png")
    assert found == [[64, 128, 255]] * 2 + [[255] * 3] * 2
    assert rules == ("12-bit,alpha-0-1" if alpha == 1 else "12-bit")


def test_grey_and_transparency_of_16_bits(tmp_path):
    """Written by hand: no library at hand writes it."""
    import zlib

    rows = b"".join(b"\0" + struct.pack(">4H", grey, 65535, grey, 0) for grey in (0, 1024, 4095))

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 2, 3, 16, 4, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    pixels = decode(tmp_path / "a.png", WHOLE)
    assert pixels[:, 0].tolist() == [[0] * 3, [64] * 3, [255] * 3] and pixels[:, 1].min() == 255


@pytest.mark.parametrize(
    "values, dtype, want, rule",
    [
        ((0, 100, 255), np.int32, [0, 100, 255], "8-bit"),
        ((0, 2**15, 2**16 - 1), np.int32, [0, 128, 255], "16-bit"),
        ((0, 2**23, 2**24 - 1), np.int32, [0, 128, 255], "24-bit"),
        ((0, 2**31, 2**32 - 1), np.uint32, [0, 128, 255], "32-bit"),
        ((0, 2048, 4095), np.int16, [0, 128, 255], "12-bit"),
    ],
)
def test_whole_numbers_of_32_bits_and_signed_ones(tmp_path, values, dtype, want, rule):
    assert greys(tiff(tmp_path / "a.tif", column(*values, dtype=dtype), 1)) == (want, rule)


@pytest.mark.parametrize(
    "pixels, reason",
    [
        (column(-1024, 3071, dtype=np.int16), "pixels from -1024 to 3071"),
        (column(-5, 7, dtype=np.int32), "pixels from -5 to 7"),
        (column(0, 1, dtype=np.float32), "32-bit float pixels"),
        (column(0, 255, dtype=np.float32), "32-bit float pixels"),
    ],
)
def test_pixels_without_a_scale_are_refused_and_found(tmp_path, pixels, reason):
    path = tiff(tmp_path / "a.tif", pixels, 1)
    reason = f"{reason} have no known scale: save it with 8 or 16 bits per channel"
    with pytest.raises(UserError) as caught:
        decode(path, WHOLE)
    assert str(caught.value) == f"{path}: not a readable image ({reason}); replace it or remove it"
    assert scan([path], tmp_path / "memory", SILENT).errors == (reason,)


# what is white


@pytest.mark.parametrize(
    "values, dtype, want, rules",
    [
        ((0, 100, 255), np.uint8, [255, 155, 0], "min-is-white"),
        ((0, 25700, 65535), np.uint16, [255, 155, 0], "16-bit,min-is-white"),
        ((0, 1024, 4095), np.uint16, [255, 191, 0], "12-bit,min-is-white"),
    ],
)
def test_tiffs_whose_0_is_white(tmp_path, values, dtype, want, rules):
    assert greys(tiff(tmp_path / "a.tif", column(*values, dtype=dtype), 0)) == (want, rules)


@pytest.mark.parametrize("compression", [None, "group4", "tiff_lzw", "packbits"])
def test_bilevel_tiffs_whose_0_is_white(tmp_path, compression):
    image = Image.fromarray(column(0, 255, 0, dtype=np.uint8)).convert("1")
    image.save(tmp_path / "a.tif", compression=compression, tiffinfo={262: 0})
    with Image.open(tmp_path / "a.tif") as file:
        assert file.tag_v2[262] == 0
    assert greys(tmp_path / "a.tif") == ([0, 255, 0], "min-is-white")


def test_compressed_16_bits_whose_0_is_white(tmp_path):
    image = Image.fromarray(column(0, 25700, 65535))
    image.save(tmp_path / "a.tif", compression="tiff_lzw", tiffinfo={262: 0})
    with Image.open(tmp_path / "a.tif") as file:
        assert file.tag_v2[262] == 0 and np.asarray(file)[:, 0].tolist() == [0, 25700, 65535]
    assert greys(tmp_path / "a.tif") == ([255, 155, 0], "16-bit,min-is-white")


# transparency, and what is none


@pytest.mark.parametrize("extra, want, rule", [
    ({}, (10, 20, 30), "fourth-band"), ({"t338": [0]}, (10, 20, 30), ""), ({"t338": [2]}, (255, 255, 255), "clear"),
])  # fmt: skip
def test_four_bands_with_and_without_an_alpha_channel(tmp_path, extra, want, rule):
    pixels = np.broadcast_to(np.array([10, 20, 30, 0], dtype=np.uint8), (4, 4, 4))
    assert read(tiff(tmp_path / "a.tif", np.ascontiguousarray(pixels), 2, **extra)) == ([list(want)] * 4, rule)


def test_four_bands_of_16_bits_without_an_alpha_channel(tmp_path):
    pixels = np.broadcast_to(np.array([1024, 2048, 4095, 7], dtype=np.uint16), (4, 4, 4))
    path = tiff(tmp_path / "a.tif", np.ascontiguousarray(pixels), 2)
    assert decode(path, WHOLE)[:, 0].tolist() == [[64, 128, 255]] * 4
    assert scan([path], tmp_path / "memory", SILENT).rules.tolist() == ["12-bit,fourth-band"]


@pytest.mark.parametrize("mode, colour", [("RGBA", (200, 100, 50)), ("LA", (77,))])
def test_transparency_of_only_0_and_1(tmp_path, mode, colour):
    image = Image.new(mode, (4, 4), (*colour, 1))
    image.paste((*colour, 0), (0, 2, 4, 4))
    for ending in ("png", "tif"):
        image.save(tmp_path / f"a.{ending}")
        want = [list(colour) * (3 if mode == "LA" else 1)] * 2 + [[255] * 3] * 2
        assert read(tmp_path / f"a.{ending}") == (want, "alpha-0-1")


def test_faint_and_missing_transparency_stay_what_they_are(tmp_path):
    Image.new("RGBA", (4, 4), (0, 0, 0, 2)).save(tmp_path / "faint.png")
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert read(tmp_path / "faint.png") == ([[253] * 3] * 4, "")
    assert read(tmp_path / "clear.png") == ([[255] * 3] * 4, "clear")


# the modes that Pillow can write


SRGB, LAB = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
ORANGE = Image.new("RGB", (4, 4), (200, 100, 50))
GREY = (124, 124, 124)  # .299 x 200 + .587 x 100 + .114 x 50
PREMULTIPLIED = Image.new("RGBA", (4, 4), (200, 100, 50, 255)).convert("RGBa")


@pytest.mark.parametrize(
    "image, want",
    [
        (ORANGE.convert("L"), GREY),
        (ORANGE.convert("LA"), GREY),
        (ORANGE.convert("LA").convert("La"), GREY),
        (Image.new("1", (4, 4), 1), (255, 255, 255)),
        (ORANGE.quantize(4), (200, 100, 50)),
        (ORANGE.quantize(4).convert("PA"), (200, 100, 50)),
        (ORANGE.convert("RGBA"), (200, 100, 50)),
        (PREMULTIPLIED, (200, 100, 50)),
        (ORANGE.convert("RGBX"), (200, 100, 50)),
        (ORANGE.convert("CMYK"), (200, 100, 50)),
        (ORANGE.convert("YCbCr"), (200, 100, 50)),
        (ORANGE.convert("HSV"), (200, 100, 50)),
        (ImageCms.profileToProfile(ORANGE, SRGB, LAB, outputMode="LAB"), (200, 100, 50)),
        (ORANGE.convert("I"), GREY),
        (Image.new("I;16", (4, 4), 257 * 124), GREY),
        (Image.new("I;16B", (4, 4), 257 * 124), GREY),
        (Image.new("I;16L", (4, 4), 257 * 124), GREY),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else "",
)
def test_every_mode_in_every_format_that_keeps_it(tmp_path, image, want):
    assert np.abs(np.asarray(rgb(image)[0]).astype(int) - want).max() <= 2
    kept = 0
    for form in ("TIFF", "PNG", "BMP", "TGA", "JPEG", "ICO"):
        stream = io.BytesIO()
        try:
            image.save(stream, form)
        except (OSError, ValueError, KeyError):  # it can't
            continue
        (tmp_path / "a").write_bytes(stream.getvalue())
        with Image.open(tmp_path / "a") as file:
            kept += file.mode == image.mode
        assert np.abs(decode(tmp_path / "a", WHOLE).astype(int) - want).max() <= 3, form
    assert kept or image.mode in ("La", "RGBa", "RGBX", "HSV", "I;16L")


def test_lab_by_its_numbers(tmp_path):
    """L* 0, 50 and 100 without colour are black, 119 (18.4 % of the light) and white."""
    pixels = np.zeros((3, 4, 3), dtype=np.uint8)
    pixels[:, :, 0] = np.array([0, 128, 255])[:, None]
    path = tiff(tmp_path / "a.tif", pixels, 8)
    assert np.abs(decode(path, WHOLE)[:, 0].astype(int) - np.array([[0], [119], [255]])).max() <= 1


def test_adobes_inverted_inks_are_right(tmp_path):
    ORANGE.convert("CMYK").save(tmp_path / "a.jpg", quality=100)
    assert b"Adobe" in (tmp_path / "a.jpg").read_bytes()
    assert np.abs(decode(tmp_path / "a.jpg", WHOLE).astype(int) - (200, 100, 50)).max() <= 2

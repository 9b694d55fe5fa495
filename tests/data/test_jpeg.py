"""Where JPEGs end: one that lacks its end marker alone is read, one that is cut is not, closed or open."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ensemble.data.pixels.decode import decode, decode_each
from ensemble.data.pixels.jpeg import check_whole, read_jpeg
from ensemble.data.pixels.preprocess import Decoding
from ensemble.data.scan import scan
from ensemble.errors import UserError
from ensemble.events import SILENT

END = b"\xff\xd9"
WAYS = [Decoding(None, "bicubic", None), Decoding(24, "bicubic", None), Decoding(100, "bicubic", None)]
KINDS = {
    "baseline": {"quality": 90},
    "coarse": {"quality": 30, "optimize": True},
    "full colour": {"quality": 95, "subsampling": 0},
    "progressive": {"quality": 80, "progressive": True},
    "restarts": {"quality": 80, "restart_marker_blocks": 3},
}
REFUSAL = "image file is truncated: the JPEG's data ends before its last block"
DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def picture(seed, width=227, height=170):
    small = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def jpeg(image, **options):
    stream = io.BytesIO()
    image.save(stream, "JPEG", **options)
    return stream.getvalue()


def refused(data):
    """Whether each way of decoding refuses the bytes: all do, or none."""
    answers = []
    for how in WAYS:
        try:
            decode_each(Path("a.jpg"), data, [how])
        except UserError as error:
            assert str(error).startswith("a.jpg: not a readable image (")
            answers.append(True)
        else:
            answers.append(False)
    assert len(set(answers)) == 1
    return answers[0]


@pytest.fixture(params=KINDS)
def whole(request):
    return jpeg(picture(0), **KINDS[request.param])


@pytest.mark.parametrize("lost", [1, 2])
def test_a_jpeg_that_lacks_its_end_marker_alone_is_the_whole_picture(tmp_path, whole, lost):
    (tmp_path / "whole.jpg").write_bytes(whole)
    (tmp_path / "open.jpg").write_bytes(whole[:-lost])
    for how in WAYS:
        assert np.array_equal(decode(tmp_path / "open.jpg", how), decode(tmp_path / "whole.jpg", how))
    found = scan([tmp_path / "open.jpg", tmp_path / "whole.jpg"], tmp_path / "memory", SILENT)
    assert found.errors == (None, None) and found.rules.tolist() == ["no-end-marker", ""]
    assert np.array_equal(found.thumbnails[0], found.thumbnails[1])


def test_zeros_at_the_end_are_a_flat_picture_or_a_file_that_was_never_written_to_its_end():
    def flat_below(seed):
        image = picture(seed, 227, 227)
        image.paste((40, 60, 80), (0, 60, 227, 227))
        return jpeg(image, quality=30, optimize=True)

    flat = next(data for data in map(flat_below, range(50)) if data[:-2].endswith(bytes(16)))  # in whole bytes: 1 in 8
    for data in (flat, flat[:-1], flat[:-2]):
        assert not refused(data)
    for data in (flat[:-40], flat[: len(flat) // 2] + bytes(len(flat)), flat[:-40] + bytes(60)):
        assert refused(data)


@pytest.mark.parametrize("part", [0.3, 0.5, 0.75, 0.9, 0.97])
def test_a_cut_is_refused_whether_it_is_closed_or_not(tmp_path, whole, part):
    cut = whole[: int(len(whole) * part)]
    assert refused(cut) and refused(cut + END) and refused(cut + END + b"\0" * 40)
    (tmp_path / "cut.jpg").write_bytes(cut + END)
    (error,) = scan([tmp_path / "cut.jpg"], tmp_path / "memory", SILENT).errors
    assert error.startswith(("image file is truncated", "broken data stream"))


@pytest.mark.parametrize("lost", range(4, 24))
def test_the_last_bytes_of_the_picture_are_missed(whole, lost):
    """Without them the last block is a guess; but for progressive ones, whose last bytes may change no pixel."""
    full = decode_each(Path("a.jpg"), whole, WAYS[:1])[0]
    try:
        (open_end,) = decode_each(Path("a.jpg"), whole[:-lost], WAYS[:1])
    except UserError as error:
        assert REFUSAL in str(error)
    else:
        assert np.abs(open_end.astype(int) - full).max() <= 2


def test_a_progressive_jpeg_that_lacks_whole_scans():
    """Cut between two of them, each of what remains is whole."""
    data = jpeg(picture(9), progressive=True)
    starts = [place for place in range(len(data)) if data.startswith((b"\xff\xc4", b"\xff\xda"), place)]
    for place in starts[1:]:
        assert not read_jpeg(data[:place]).complete
        assert refused(data[:place] + END) and refused(data[:place])


def test_grey_borders_are_no_cut(tmp_path):
    """As grey as what a cut leaves, on all sides, in one shade and in colour's neighbourhood."""
    for mode in ("RGB", "L"):
        for width, height in ((64, 64), (65, 33), (227, 170)):
            image = Image.new("RGB", (width + 40, height + 40), (128, 128, 128))
            image.paste(picture(1, width, height), (20, 20))
            for options in KINDS.values():
                data = jpeg(image.convert(mode), **options)
                assert not refused(data) and not refused(data[:-2])
    assert not refused(jpeg(Image.new("RGB", (50, 50), (128, 128, 128))))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_printed_ones(mode):
    data = jpeg(picture(2).convert(mode))
    assert not refused(data) and not refused(data[:-2])
    assert refused(data[:-40]) and refused(data[: len(data) // 2] + END)


def test_a_file_that_was_given_its_size_and_never_written_to_its_end():
    data = jpeg(picture(3))
    for kept in (0.3, 0.9):
        start = data[: int(len(data) * kept)]
        assert refused(start + bytes(len(data) - len(start)))


def test_pictures_within_and_behind_are_not_the_end(tmp_path):
    """A thumbnail in EXIF has an end marker of its own; a phone's second picture comes after."""
    small = jpeg(picture(4, 32, 32))
    exif = b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0" + small
    data = jpeg(picture(5), exif=exif)
    assert read_jpeg(data).end == len(data) - 2 and not refused(data) and not refused(data[:-2])
    assert refused(data[: len(data) // 2] + END)
    stream = io.BytesIO()
    picture(6).save(stream, "MPO", save_all=True, append_images=[picture(7)], progressive=True)
    several = stream.getvalue()
    assert not refused(several) and read_jpeg(several).end < len(several) // 2 + 2000
    (tmp_path / "a.jpg").write_bytes(several)
    assert scan([tmp_path / "a.jpg"], tmp_path / "memory", SILENT).errors == (None,)


def test_what_the_marks_say():
    data = jpeg(picture(8))
    assert (read_jpeg(data).end, read_jpeg(data).closed, read_jpeg(data).scans) == (len(data) - 2, True, 1)
    assert (read_jpeg(data[:-2]).data, read_jpeg(data[:-2]).closed) == (data, False)
    assert read_jpeg(data[:-1]).data == data and read_jpeg(jpeg(picture(8), progressive=True)).scans > 5
    assert read_jpeg(data[:-2] + b"\xff\xff" + END).end == len(data) - 2
    assert not refused(jpeg(picture(8), progressive=True)[:-2] + b"\xff\xff" + END)
    assert read_jpeg(b"\x89PNG\r\n") is None and read_jpeg(b"") is None
    for cut in range(3, 700):
        assert not read_jpeg(data[:cut]).closed


@pytest.mark.skipif(not DATA.is_dir(), reason="no folder of real images beside the checkout")
def test_no_painting_is_called_cut_and_every_cut_one_is():
    files = sorted((DATA / "art-painting").rglob("*.jpg"))[::16]
    assert len(files) == 128
    for file in files:
        data = file.read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            check_whole(read_jpeg(data), image)
        cut = read_jpeg(data[: len(data) // 2] + END)
        with Image.open(io.BytesIO(cut.data)) as image, pytest.raises(ValueError, match="truncated"):
            check_whole(cut, image)

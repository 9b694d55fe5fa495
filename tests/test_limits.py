"""What says that it is huge is refused from its header, in one line that says how to allow it."""

import re
import struct
import zlib

import pytest

from ensemble.data.pixels import Decoding, decode, shape
from ensemble.data.scan import look
from ensemble.errors import UserError
from ensemble.limits import PIXELS, limit
from ensemble.report.thumbnails import thumbnails


def write_png(path, width, height):
    """A PNG of that size by its header; its pixels end after 100 bytes."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(bytes(100))), chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


def test_an_image_of_too_many_pixels(tmp_path, monkeypatch):
    path = write_png(tmp_path / "bomb.png", 13000, 13000)
    line = (
        "13,000 x 13,000 pixels, more than the 120,000,000 that ens decodes; if it is sound, set "
        "ENS_MAX_PIXELS=169000000"
    )
    for how in (Decoding(64, "bicubic", None), Decoding(None, "bicubic", (32, 32))):
        for read in (decode, shape):
            with pytest.raises(UserError) as error:
                read(path, how)
            assert str(error.value) == f"{path}: {line}"
    record, _ = look(path)
    assert record["error"].item().decode() == line and not record["digest"].item()  # so that the next scan asks anew
    assert thumbnails([path])[0].problem == f"{path}: {line}"
    monkeypatch.setenv("ENS_MAX_PIXELS", "169000000")
    with pytest.raises(UserError, match="not a readable image"):  # cut short
        decode(path, Decoding(64, "bicubic", None))
    monkeypatch.setenv("ENS_MAX_PIXELS", "1e3")
    with pytest.raises(UserError, match=re.escape("100 x 100 pixels, more than the 1,000 that ens decodes")):
        decode(write_png(tmp_path / "b.png", 100, 100), Decoding(64, "bicubic", None))


@pytest.mark.parametrize("text", ["many", "0", "-1", "nan", "inf"])
def test_a_limit_that_is_no_number(monkeypatch, text):
    monkeypatch.setenv("ENS_MAX_PIXELS", text)
    with pytest.raises(UserError, match=f"ENS_MAX_PIXELS={text}: want a number above 0"):
        limit(PIXELS)

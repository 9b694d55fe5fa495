"""What says that it is huge is refused from its header, in one line that says how to allow it."""

import json
import re
import struct
import zlib

import numpy as np
import pytest

from ensemble.data.pixels.decode import decode, shape
from ensemble.data.pixels.preprocess import Decoding
from ensemble.data.scan import look
from ensemble.errors import UserError
from ensemble.events import SILENT
from ensemble.files.limits import PIXELS, allowed
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
        allowed(PIXELS)


def npy_header(shape, descr="'<f8'"):
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"
    text += " " * (-(len(text) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


def read_external(path):
    from ensemble.blend.external.files import array_predictions

    path.with_name(path.stem + ".ids.txt").write_text("a\nb\n")
    with pytest.raises(UserError) as error:
        array_predictions(path, ("x", "y"))
    return str(error.value)


def test_an_npy_that_says_22_tib(tmp_path):
    path = tmp_path / "p.npy"
    path.write_bytes(npy_header((2**38 * 11, 1)) + bytes(16))
    count = 2**38 * 11 * 8
    assert read_external(path) == (
        f"{path}: holds {count:,} bytes, more than the 4,294,967,296 that ens reads; if it is sound, set "
        f"ENS_MAX_TABLE_BYTES={count}"
    )
    path.write_bytes(npy_header((2000, 2)) + bytes(16))
    assert read_external(path) == (
        f"{path}: its array is (2000, 2), 32,000 bytes by its header, but 16 follow it; save it again"
    )
    for text in ("(-1, 2)", "(" * 2000, "(2, 'a')"):
        path.write_bytes(npy_header(text) + bytes(16))
        assert read_external(path).startswith(f"{path}: ")


def test_an_npz_that_unpacks_to_more_than_may_be_read(tmp_path, monkeypatch):
    path = tmp_path / "p.npz"
    np.savez_compressed(path, values=np.zeros((500_000, 2)), ids=np.array(["a", "b"]))
    assert path.stat().st_size < 20_000
    monkeypatch.setenv("ENS_MAX_TABLE_BYTES", "1e6")
    assert read_external(path).startswith(
        f"{path}: holds 8,000,000 bytes, more than the 1,000,000 that ens reads; if it"
    )
    monkeypatch.setenv("ENS_MAX_TABLE_BYTES", "8000004")  # each may be read, both may not
    assert "holds 8,000,008 bytes, more than the 8,000,004" in read_external(path)


def test_a_remembered_scan_that_says_22_tib_costs_only_time(tmp_path, paint):
    from ensemble.data.scan import scan

    image = paint(tmp_path / "images" / "a.png")
    first = scan([image], tmp_path / "cache", SILENT)
    (piece,) = (tmp_path / "cache" / "scans").rglob("*.safetensors")
    huge = {"dtype": "U8", "shape": [2**44, 1], "data_offsets": [0, 2**44]}
    header = json.dumps({"facts": huge, "thumbnails": huge}).encode()
    piece.write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
    again = scan([image], tmp_path / "cache", SILENT)
    assert again.widths.tolist() == first.widths.tolist() == [32] and again.formats.tolist() == ["PNG"]


def test_a_table_of_too_many_columns_or_bytes(tmp_path, monkeypatch):
    from ensemble.data.corrections import read_edited
    from ensemble.data.table.read import read_table
    from ensemble.overview.ledger import read_table as read_ledger

    path = tmp_path / "wide.csv"
    path.write_bytes(b"path" + b",a" * 2_000_000 + b"\n")
    line = "holds 2,000,001 columns, more than the 100,000 that ens reads; if it is sound, set ENS_MAX_COLUMNS=2000001"
    for read in (read_table, read_edited, read_ledger):
        with pytest.raises(UserError) as error:
            read(path)
        assert str(error.value) == f"{path}: {line}"
    path.write_text("path,label\na,b\n" * 100)
    monkeypatch.setenv("ENS_MAX_TABLE_BYTES", "1000")
    with pytest.raises(UserError, match=r"holds 1,500 bytes, more than the 1,000 that ens reads; if it is sound, set"):
        read_table(path)


def test_a_packed_table_that_unpacks_to_more_than_may_be_read(tmp_path, monkeypatch):
    import gzip

    import pandas as pd

    from ensemble.blend.external.files import read_columns
    from ensemble.data.table.read import read_table

    monkeypatch.setenv("ENS_MAX_TABLE_BYTES", "1e6")
    packed = tmp_path / "a.csv.gz"
    packed.write_bytes(gzip.compress(b"path,label\n" + b"a,b\n" * 1_000_000))
    with pytest.raises(UserError, match=r"a\.csv\.gz: unpacks to more than the 1,000,000 bytes that ens reads"):
        read_table(packed)
    rows = tmp_path / "a.parquet"
    pd.DataFrame({"path": ["a"] * 1_000_000}).to_parquet(rows)
    assert rows.stat().st_size < 100_000
    for read in (read_table, read_columns):
        with pytest.raises(UserError, match=r"a\.parquet: holds 8,000,000 bytes, more than the 1,000,000 that ens"):
            read(rows)

"""How large an input may be. Each limit is checked from a header, before anything of that size is allocated, and can be
set in the environment: a file of a few kB may say that it holds 22 TiB.
"""

import io
import os
from pathlib import Path

from ensemble.errors import UserError

PIXELS = "ENS_MAX_PIXELS", 120_000_000  # of an image: 360 MB decoded. The largest cameras of phones take 108 million
TABLE = "ENS_MAX_TABLE_BYTES", 4 * 2**30  # of a table or an array, as it lies in memory
COLUMNS = "ENS_MAX_COLUMNS", 100_000  # of a table: pandas takes a second and 5 MB for each 1,000

CHUNK = 2**20


def limit(which: tuple[str, int]) -> int:
    """The limit as the environment sets it, else its default. Raises UserError for what is no number above 0."""
    name, default = which
    text = os.environ.get(name, "")
    try:
        value = int(float(text.replace("_", ""))) if text else default
    except (ValueError, OverflowError):
        value = 0
    if value <= 0:
        raise UserError(f"{name}={text}: want a number above 0, as in {name}={default}")
    return value


def too_many_pixels(size: tuple[int, int]) -> str | None:
    """What is wrong with an image of this width and height, in words; None if it may be decoded."""
    width, height = size
    most = limit(PIXELS)
    if width * height <= most:
        return None
    return (
        f"{width:,} x {height:,} pixels, more than the {most:,} that ens decodes; if it is sound, set "
        f"{PIXELS[0]}={width * height}"
    )


def require_bytes(path: Path, count: int) -> None:
    """Raise UserError if a table or array of so many bytes is too large."""
    most = limit(TABLE)
    if count > most:
        raise UserError(
            f"{path}: holds {count:,} bytes, more than the {most:,} that ens reads; if it is sound, set "
            f"{TABLE[0]}={count}"
        )


def require_columns(path: Path, count: int) -> None:
    """Raise UserError if a table has too many columns."""
    most = limit(COLUMNS)
    if count > most:
        raise UserError(
            f"{path}: has {count:,} columns, more than the {most:,} that ens reads; if it is sound, set "
            f"{COLUMNS[0]}={count}"
        )


def require_text_table(path: Path, start: bytes | None = None) -> None:
    """Raise UserError if a text table is too large or its first line has too many cells. start: what it begins with,
    where the file is packed. A file that can't be read passes: reading says why."""
    try:
        require_bytes(path, path.stat().st_size)
        with path.open("rb") if start is None else io.BytesIO(start) as file:
            count = 1
            while chunk := file.read(CHUNK):
                head, end, _ = chunk.partition(b"\n")
                count += max(head.count(mark) for mark in (b",", b";", b"\t", b"|"))
                if end:
                    break
    except OSError:
        return
    require_columns(path, count)


def require_parquet(path: Path) -> None:
    """Raise UserError if a Parquet file unpacks to too much, by its footer: a column of one value that recurs takes a
    few bytes for a billion rows. A file that is none passes: reading says why."""
    from pyarrow.parquet import ParquetFile

    try:
        with path.open("rb") as file:
            held = ParquetFile(file).metadata
            rows, columns = held.num_rows, held.num_columns
            unpacked = sum(held.row_group(group).total_byte_size for group in range(held.num_row_groups))
    except Exception:  # pyarrow raises whatever a broken file leads it to
        return
    require_columns(path, columns)
    require_bytes(path, max(8 * rows * columns, unpacked))

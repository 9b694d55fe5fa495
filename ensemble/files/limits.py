"""How large an input may be. Each limit is checked from a header, before anything of that size is allocated, and can be
set in the environment: a file of a few kB may say that it holds 22 TiB.
"""

import io
import os
from dataclasses import dataclass
from pathlib import Path

from ensemble.errors import UserError


@dataclass(frozen=True)
class Limit:
    """How many of something a file may hold.

    variable: of the environment, which sets it.
    default: how many there may be without it.
    unit: what is counted.
    """

    variable: str
    default: int
    unit: str


# Of an image: 360 MB decoded. The largest cameras of phones take 108 million.
PIXELS = Limit("ENS_MAX_PIXELS", 120_000_000, "pixels")
# Of a table or an array, as it lies in memory.
TABLE = Limit("ENS_MAX_TABLE_BYTES", 4 * 2**30, "bytes")
# Of a table: pandas takes a second and 5 MB for each 1,000.
COLUMNS = Limit("ENS_MAX_COLUMNS", 100_000, "columns")

CHUNK = 2**20  # bytes of a table's first line that are read at a time


def allowed(limit: Limit) -> int:
    """How many the environment allows, else the default. Raises UserError for what is no number above 0."""
    text = os.environ.get(limit.variable, "")
    try:
        value = int(float(text.replace("_", ""))) if text else limit.default
    except (ValueError, OverflowError):
        value = 0
    if value <= 0:
        raise UserError(f"{limit.variable}={text}: want a number above 0, as in {limit.variable}={limit.default}")
    return value


def too_many_pixels(size: tuple[int, int]) -> str | None:
    """What is wrong with an image of this width and height, in words; None if it may be decoded."""
    width, height = size
    most = allowed(PIXELS)
    if width * height <= most:
        return None
    return (
        f"{width:,} x {height:,} pixels, more than the {most:,} that ens decodes; if it is sound, set "
        f"{PIXELS.variable}={width * height}"
    )


def require_at_most(limit: Limit, path: Path, count: int) -> None:
    """Raise UserError if a file holds more of what is counted than may be read."""
    most = allowed(limit)
    if count > most:
        raise UserError(
            f"{path}: holds {count:,} {limit.unit}, more than the {most:,} that ens reads; if it is sound, set "
            f"{limit.variable}={count}"
        )


def require_text_table(path: Path, start: bytes | None = None) -> None:
    """Raise UserError if a text table is too large or its first line has too many cells. start: what it begins with,
    where the file is packed. A file that can't be read passes: reading says why."""
    try:
        require_at_most(TABLE, path, path.stat().st_size)
        with path.open("rb") if start is None else io.BytesIO(start) as file:
            count = 1
            while chunk := file.read(CHUNK):
                head, end, _ = chunk.partition(b"\n")
                count += max(head.count(mark) for mark in (b",", b";", b"\t", b"|"))
                if end:
                    break
    except OSError:
        return
    require_at_most(COLUMNS, path, count)


def require_parquet(path: Path) -> None:
    """Raise UserError if a Parquet file unpacks to too much, by its footer: a column of one value that recurs takes a
    few bytes for a billion rows. A file that is none passes: reading says why."""
    from pyarrow.parquet import ParquetFile

    try:
        with path.open("rb") as file:
            metadata = ParquetFile(file).metadata
            rows, columns = metadata.num_rows, metadata.num_columns
            unpacked = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
    except Exception:  # pyarrow raises whatever a broken file leads it to
        return
    require_at_most(COLUMNS, path, columns)
    require_at_most(TABLE, path, max(8 * rows * columns, unpacked))

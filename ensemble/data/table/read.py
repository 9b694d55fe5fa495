"""Reading a table: every cell as text, whatever wrote the file, and what was assumed in a line each."""

import bz2
import gzip
import json
import lzma
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ensemble.data.inputs import is_table
from ensemble.data.names import ENDINGS, match_names
from ensemble.data.table.column_names import KNOWN_NAMES, plain
from ensemble.data.table.csv_text import counts, decoded, parsed, shaped
from ensemble.data.unpacked.zips import open_zipped_table
from ensemble.errors import UserError
from ensemble.files.limits import TABLE, allowed, require_parquet, require_text_table

PACKED: dict[str, Callable[[Path], Any]] = {
    ".gz": gzip.GzipFile, ".bz2": bz2.BZ2File, ".xz": lzma.LZMAFile, ".zip": open_zipped_table
}  # fmt: skip
JSON_LINES = (".jsonl", ".jsonl.gz", ".jsonl.zip")
ENCODINGS = {"cp949": "CP949 (Korean)", "cp1252": "Windows-1252"}
NOT_TABLES = (
    (b"PK\x03\x04", "an Excel workbook or another zip; save its sheet as CSV (in Excel: Save As, CSV UTF-8)"),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook; save its sheet as CSV (in Excel: Save As, CSV UTF-8)"),
    (b"%PDF", "a PDF, not a CSV"), (b"<!DOCTYPE", "an HTML page, such as a download that failed gives"),
    (b"<html", "an HTML page, such as a download that failed gives"),
    (b'{"', "JSON, not CSV"), (b"[{", "JSON, not CSV"),
    (b"version https://git-lfs", "a Git LFS pointer: fetch the file itself with git lfs pull"),
    (b"SQLite format 3", "an SQLite database; export the table as CSV"),
)  # fmt: skip
LOOKED_AT = 50  # rows whose files are looked for

Listing = Callable[[Path], Sequence[str]]  # names of the images below a folder


def read_table(source: Path, may_be_empty: bool = False) -> pd.DataFrame:
    """A CSV or Parquet file with every cell as text: "007" stays "007" and a class may be called "NA".

    may_be_empty: take one of no rows too. Raises UserError that names the file.
    """
    return read_noted(source, may_be_empty=may_be_empty)[0]


def read_noted(
    source: Path, is_data: Callable[[list[list[str]]], bool] = lambda rows: False, may_be_empty: bool = False
) -> tuple[pd.DataFrame, list[str]]:
    """A table as `read_table` reads it, and lines on what was assumed. is_data: whether the first of these rows is no
    header; one with the name of an image file never is.

    Raises UserError that names the file.
    """
    if not is_table(source):
        raise UserError(f"{source}: a picture; want a table (CSV, Parquet), or a folder of pictures")
    with naming(source):
        if source.suffix.lower() in (".parquet", ".pq"):
            return _filled(_parquet(source), source, may_be_empty), []
        raw = table_bytes(source)
        if source.name.lower().endswith(JSON_LINES):
            return _filled(_json_lines(raw), source, may_be_empty), []
        if raw.startswith(b"PAR1"):
            return _filled(_parquet(source), source, may_be_empty), []
        text, encoding = decoded(raw)
        notes = [] if encoding is None else [f"{source.name} is not UTF-8 and is read as {ENCODINGS[encoding]}"]
        rows = parsed(text)
        if not rows:
            raise ValueError("it is empty")
        if _holds_image(rows[0]) or is_data(rows):
            notes.append(
                f"{source.name} has no header: its first row, {_first_cells(rows[0])}, is read as data like the others"
            )
            rows = [_header(rows), *rows]
        names, body = shaped(rows)
    return _filled(pd.DataFrame(body, columns=names, dtype=str), source, may_be_empty), notes


def read_image_table(source: Path, folder: Path, listing: Listing) -> tuple[pd.DataFrame, list[str]]:
    """A table that names images, as `read_noted` gives it, without spaces around the columns' names. Its first row is
    data too where it names an image of `folder` without its ending. listing: gives the names of the images below a
    folder."""
    table, notes = read_noted(source, lambda rows: _names_file(rows, folder, listing))
    names = [str(name).strip() for name in table.columns]
    return (table.set_axis(names, axis=1) if len(set(names)) == len(names) else table), notes


def row_numbers(table: pd.DataFrame) -> list[str]:
    """Columns without a name (an index that was saved too) that number the rows from 0 or 1."""
    return [
        str(name)
        for name in table.columns
        if str(name).startswith("Unnamed: ") and counts([str(cell) for cell in table[name]])
    ]


def number(text: str) -> float:
    """A number with a decimal point or comma; NaN where it is none."""
    text = text.strip()
    try:
        return float(text.replace(",", ".") if text.count(",") == 1 and "." not in text else text)
    except ValueError:
        return float("nan")


@contextmanager
def naming(source: Path) -> Iterator[None]:
    """Raise whatever reading a table raises as one UserError that names it."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{source}: no such file or folder") from None
    except (ValueError, OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise UserError(f"{source}: not a readable CSV or Parquet file ({str(error).splitlines()[0]})") from None


def table_bytes(source: Path) -> bytes:
    """What a file holds, unpacked. Raises UserError if it is known to be no table, and as reading does."""
    unpack = PACKED.get(source.suffix.lower())
    if unpack is None:
        require_text_table(source)
        raw = source.read_bytes()
    else:
        most = allowed(TABLE)
        with unpack(source) as file:
            raw = bytes(file.read(most + 1))
        if len(raw) > most:
            raise UserError(
                f"{source}: unpacks to more than the {most:,} bytes that ens reads; to allow it set {TABLE.variable}"
            )
        require_text_table(source, raw)
    for start, kind in NOT_TABLES:
        if raw.startswith(start) and not source.name.lower().endswith(JSON_LINES):
            raise UserError(f"{source}: is {kind}")
    return raw


def _parquet(source: Path) -> pd.DataFrame:
    require_parquet(source)
    try:
        frame = pd.read_parquet(source)
    except (OSError, ValueError):
        raise
    except Exception as error:  # pyarrow raises whatever a broken file leads it to
        raise ValueError(str(error) or type(error).__name__) from None
    return frame.astype(object).where(frame.notna(), "").astype(str)


def _json_lines(raw: bytes) -> pd.DataFrame:
    """An object in each line, as `metadata.jsonl` of Hugging Face has them."""
    rows = []
    for number, line in enumerate(raw.decode("utf-8-sig").splitlines(), 1):
        if line.strip():
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError(f"line {number} is no object of names and values")
            rows.append({name: _cell(value) for name, value in row.items()})
    return pd.DataFrame(rows, dtype=str).fillna("")


def _cell(value: object) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, ensure_ascii=False)


def _filled(table: pd.DataFrame, source: Path, may_be_empty: bool) -> pd.DataFrame:
    if table.empty and not may_be_empty:
        raise UserError(f"{source}: has no rows")
    return table.rename(columns=str)


def _holds_image(row: Sequence[str]) -> bool:
    """A column is not called photo.jpg."""
    return any(Path(cell.strip().strip("\"'")).suffix.lower() in ENDINGS for cell in row)


def _names_file(rows: list[list[str]], folder: Path, listing: Listing) -> bool:
    """True if a cell of the first row names an image, as those below it do. Only asked of a row that looks like the
    rows below it: no cell is a known name of a column, and one recurs in its column or is a number there."""
    first, body = rows[0], rows[1:]
    if not body or any(plain(cell) in KNOWN_NAMES for cell in first):
        return False
    columns = [[row[place] for row in body if place < len(row)] for place in range(len(first))]
    alike = [
        cell in column or (np.isfinite(number(cell)) and all(np.isfinite(number(other)) for other in column))
        for cell, column in zip(first, columns, strict=True)
    ]
    if not any(alike):
        return False
    existing = listing(folder)
    for cell, column in zip(first, columns, strict=True):
        seen = [cell, *dict.fromkeys(column[:: max(1, len(column) // LOOKED_AT)])]
        found = match_names(seen, existing).rows >= 0
        if found[0] and len(seen) > len(body[:LOOKED_AT]) / 2 and found[1:].mean() > 0.5:
            return True
    return False


def _header(rows: Sequence[Sequence[str]]) -> list[str]:
    """Names for the columns of a table without a header: the images' is "path", and the only other one "label"."""
    first = rows[0]
    endings = [place for place, cell in enumerate(first) if _holds_image([cell])]
    distinct = [len({row[place] for row in rows if place < len(row)}) for place in range(len(first))]
    path = endings[0] if endings else int(np.argmax(distinct))
    names = [f"column {place + 1}" for place in range(len(first))]
    names[path] = "path"
    if len(first) == 2:
        names[1 - path] = "label"
    return names


def _first_cells(row: Sequence[str]) -> str:
    text = ", ".join(map(repr, row[:3]))
    return text if len(row) <= 3 else f"{text}, ..."

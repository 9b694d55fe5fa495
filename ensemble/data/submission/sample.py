"""A sample submission: its cells as they are written, and what it asks for."""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from ensemble.data.samples import nfc, read_table
from ensemble.data.table.csv_text import decoded, delimiter_of, parsed
from ensemble.data.table.read import naming, table_bytes
from ensemble.data.unpacked.local import as_local
from ensemble.errors import UserError

# Headers in lower case, letters and digits only.
ID_HEADERS = frozenset({
    "image", "images", "img", "file", "files", "filename", "filepath", "path", "imagename", "imagefile", "imagepath",
    "imgname", "name", "picture", "photo", "key", "sample", "uid", "uuid", "index",
})  # fmt: skip
COUNTER_HEADERS = frozenset({"", "index", "no", "nr", "num", "number", "row", "rowid", "unnamed0"})


@dataclass(frozen=True)
class SampleSubmission:
    """What a submission has to look like: W columns of R rows.

    path: of the sample.
    header: W texts as they stand in the file, with their spaces.
    columns: W arrays of str objects, (R,), likewise.
    delimiter: between cells.
    encoding: of the file.
    headed: whether the file has a header; without one its texts are empty.
    """

    path: Path
    header: tuple[str, ...]
    columns: tuple[np.ndarray, ...]
    delimiter: str = ","
    encoding: str = "utf-8"
    headed: bool = True

    def __len__(self) -> int:
        return len(self.columns[0])

    def texts(self, column: int) -> list[str]:
        """The different cells of a column that hold something, composed and without the spaces around them."""
        return [text for text in dict.fromkeys(nfc(cell.strip()) for cell in pd.unique(self.columns[column])) if text]

    @cached_property
    def id_column(self) -> int:
        """The column of ids as far as headers tell: the first that is named like one and does not merely count the
        rows, else the first that is named so, else the first."""
        named = [place for place, name in enumerate(self.header) if is_id_header(name)]
        unnamed = [place for place in range(len(self.header)) if not self.is_counter(place)]
        return ([place for place in named if not self.is_counter(place)] or named or unnamed or [0])[0]

    def is_counter(self, column: int) -> bool:
        """True of 0, 1, 2, ... under no name or one like "index", and of cells with nothing in them."""
        if _plain(self.header[column]) not in COUNTER_HEADERS:
            return False
        cells = [cell.strip() for cell in self.columns[column]]
        return not any(cells) or any(
            all(cell == str(row) for row, cell in enumerate(cells, start=start)) for start in (0, 1)
        )

    def table(self) -> pd.DataFrame:
        """The cells by their headers, the ids first and row numbers left out."""
        others = [place for place in range(len(self.header)) if place != self.id_column and not self.is_counter(place)]
        order = [self.id_column, *others]
        frame = pd.DataFrame({number: self.columns[place] for number, place in enumerate(order)})
        return frame.set_axis([nfc(self.header[place].strip()) for place in order], axis=1)


@dataclass(frozen=True)
class Asked:
    """What a sample asks for: N images, and for each of its R rows which of them it answers for.

    sample: the sample.
    ids: N, as the sample writes them.
    images: int64 (N,), their rows among the images that there are; empty where these were not given.
    used: the columns that hold ids, and in the long form classes.
    row_image: int64 (R,), the image of each row, if the sample has one row for each image and class; None where each
        image has one row.
    row_class: int64 (R,), likewise the class.
    notes: lines on how ids are written.
    """

    sample: SampleSubmission
    ids: list[str]
    images: np.ndarray
    used: tuple[int, ...]
    row_image: np.ndarray | None = None
    row_class: np.ndarray | None = None
    notes: tuple[str, ...] = ()


def read_sample(path: Path) -> SampleSubmission:
    """Read a sample submission. Raises UserError if it is unreadable, has no rows or one column only."""
    path = as_local(path, with_images=False)
    if path.suffix.lower() in (".parquet", ".pq"):
        table = read_table(path)
        header, delimiter, encoding = tuple(map(str, table.columns)), ",", "utf-8"
        columns = tuple(table.iloc[:, place].to_numpy(dtype=object) for place in range(table.shape[1]))
    else:
        header, columns, delimiter, encoding = _read_text(path)
    if len(header) < 2:
        raise UserError(f"{path}: has one column, {header[0]!r}; a submission needs an id and a label column")
    return SampleSubmission(path, header, columns, delimiter, encoding)


def _read_text(path: Path) -> tuple[tuple[str, ...], tuple[np.ndarray, ...], str, str]:
    with naming(path):
        raw = table_bytes(path)
        text, encoding = decoded(raw)
        rows = parsed(text)
    if len(rows) < 2:
        raise UserError(f"{path}: has no rows")
    width = len(rows[0])
    for number, row in enumerate(rows[1:], start=1):
        if "".join(row[width:]).strip() or len(row) < 2 <= width:
            raise UserError(
                f"{path}: row {number} has {len(row)} cells where the header has {width}: put quotes around a cell "
                "that holds the delimiter"
            )
        row[:] = [*row[:width], *[""] * (width - len(row))]
    columns = tuple(np.array(cells, dtype=object) for cells in zip(*rows[1:], strict=True))
    marked = "utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8"
    return tuple(rows[0]), columns, delimiter_of(text), encoding or marked


def _plain(header: str) -> str:
    return re.sub(r"[\W_]+", "", header).lower()


def is_id_header(header: str) -> bool:
    """Whether a column is named like one of ids."""
    name = _plain(header)
    return name in ID_HEADERS or name.endswith("id")

"""A sample submission: its cells as they are written, which column holds the ids, and which images these mean."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from ensemble.data.classes import is_number, reader
from ensemble.data.inputs import refuse_address
from ensemble.data.names import Matched, match_names, why_not
from ensemble.data.samples import nfc, read_table
from ensemble.data.table.csv_text import decoded, delimiter_of, parsed
from ensemble.data.table.read import naming, table_bytes
from ensemble.errors import UserError

# Headers in lower case, letters and digits only.
ID_HEADERS = frozenset({
    "image", "images", "img", "file", "files", "filename", "filepath", "path", "imagename", "imagefile", "imagepath",
    "imgname", "name", "picture", "photo", "key", "sample", "uid", "uuid", "index",
})  # fmt: skip
COUNTER_HEADERS = frozenset({"", "index", "no", "nr", "num", "number", "row", "rowid", "unnamed0"})
SEPARATORS = ("_", "-", ":", "/", "|", " ", ".", "#", "@")  # between an image and a class in one id
PROBED = 200  # rows by which the column of ids is found
FEW = 20  # columns that are all looked at


@dataclass(frozen=True)
class SampleSubmission:
    """What a submission has to look like. header: W texts and columns: W arrays of R cells, str objects, as they stand
    in the file, with their spaces. headed: whether the file has a header; without one its texts are empty. delimiter,
    encoding: to write it with."""

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
        named = [place for place, name in enumerate(self.header) if _is_id_header(name)]
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

    ids: N, as the sample writes them. images: int64 (N,), their rows among the images that there are; empty where these
    were not given. used: the columns that hold ids, and in the long form classes. row_image, row_class: int64 (R,), of
    a sample with one row an image and class; None where each image has one row. said: lines on how ids are written.
    """

    sample: SampleSubmission
    ids: list[str]
    images: np.ndarray
    used: tuple[int, ...]
    row_image: np.ndarray | None = None
    row_class: np.ndarray | None = None
    said: tuple[str, ...] = ()


def read_sample(path: Path) -> SampleSubmission:
    """Read a sample submission. Raises UserError if it is unreadable, has no rows or one column only."""
    refuse_address(path)
    if path.suffix.lower() in (".parquet", ".pq"):
        table = read_table(path)
        header, delimiter, encoding = tuple(map(str, table.columns)), ",", "utf-8"
        columns = tuple(table.iloc[:, place].to_numpy(dtype=object) for place in range(table.shape[1]))
    else:
        header, columns, delimiter, encoding = _read_text(path)
    if len(header) < 2:
        raise UserError(f"{path}: has one column, {header[0]!r}; a submission needs an id and a label column")
    return SampleSubmission(path, header, columns, delimiter, encoding)


def match(sample: SampleSubmission, images: Sequence[str] | None, classes: Sequence[str]) -> Asked:
    """Find the ids among the sample's columns, and the images that they mean.

    images: relative paths; None if they are not known, and then headers alone tell the column of ids. Raises UserError
    that names an id which is there twice, or that no image or several have, with the nearest name.
    """
    if images is None:
        ids = sample.columns[sample.id_column]
        _refuse_repeats(sample, sample.id_column)
        return Asked(sample, list(ids), np.empty(0, dtype=np.int64), (sample.id_column,))
    column = find_ids(sample, images)
    if not _is_id_header(sample.header[column]) and match_names([sample.header[column]], images).rows[0] >= 0:
        cells = zip(sample.header, sample.columns, strict=True)
        sample = replace(
            sample, header=("",) * len(sample.header), columns=tuple(np.array([a, *b], dtype=object) for a, b in cells),
            headed=False,
        )  # fmt: skip
    cells = sample.columns[column].tolist()
    different = list(dict.fromkeys(cells))
    matched = match_names(different, images)
    if len(different) < len(cells):
        long = _one_row_a_class(sample, column, classes)
        if long is None:
            # Answers of 0 mean an image 0.png: "7_cat" beside them may be the ids.
            joined = _image_and_class(sample, sample.id_column, images, classes)
            if joined is not None:
                return joined
            _refuse_repeats(sample, column)
        assert long is not None
        _refuse_unmatched(sample, different, matched, images)
        place = {text: number for number, text in enumerate(different)}
        row_image = np.array([place[cell] for cell in cells], dtype=np.int64)
        return Asked(sample, different, matched.rows, (column, long[0]), row_image, long[1], matched.said)
    if (matched.rows < 0).any():
        joined = _image_and_class(sample, column, images, classes)
        if joined is not None:
            return joined
        _refuse_unmatched(sample, different, matched, images)
    return Asked(sample, different, matched.rows, (column,), said=matched.said)


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


def find_ids(sample: SampleSubmission, images: Sequence[str]) -> int:
    """The column that means most images; of equal ones that which is named like ids, else the first."""
    places = list(range(len(sample.header)))
    if len(places) > FEW:  # of many columns nearly all are classes
        places = sorted({0, places[-1], *(place for place in places if _is_id_header(sample.header[place]))})
    rows = np.unique(np.linspace(0, len(sample) - 1, PROBED).astype(int))
    found = []
    for place in sorted(places, key=lambda place: place != sample.id_column):
        cells = list(dict.fromkeys(sample.columns[place][rows].tolist()))
        hits = match_names(cells, images).rows
        if place == sample.id_column and len(cells) == len(rows) == len(np.unique(hits[hits >= 0])):
            return place  # no other column can mean more
        found.append((len(np.unique(hits[hits >= 0])), place == sample.id_column, -place))
    most = max(found)
    if most[0] > 0:
        return -most[2]
    return sample.id_column


def _one_row_a_class(sample: SampleSubmission, ids: int, classes: Sequence[str]) -> tuple[int, np.ndarray] | None:
    """The column that names a class in each row, and those classes int64 (R,), of a sample that has each pair of an
    image and a class once at most."""
    for place in range(len(sample.header)):
        if place == ids:
            continue
        cells = [nfc(cell.strip()) for cell in sample.columns[place]]
        known = next((known for known in _class_names(classes) if all(known(cell) is not None for cell in cells)), None)
        if known is None:
            continue
        numbers = np.array([known(cell) for cell in cells], dtype=np.int64)
        if not _all_there(numbers.tolist(), known, classes):
            continue
        if len(set(zip(sample.columns[ids].tolist(), numbers.tolist(), strict=True))) == len(sample):
            return place, numbers
    return None


def _class_names(classes: Sequence[str]) -> list[Callable[[str], int | None]]:
    """Ways to read a class: by its name, or where names are no numbers by its place."""
    places = {str(number): number for number in range(len(classes))}
    return [reader(classes)] if any(map(is_number, classes)) else [reader(classes), places.get]


def _all_there(numbers: Sequence[int], known: Callable[[str], int | None], classes: Sequence[str]) -> bool:
    """False for a number in each row that does not count all classes: 1 and 2 may be ranks."""
    several = len(set(numbers))
    return several > 1 and (several == len(classes) or known(classes[0]) is not None)


def _image_and_class(
    sample: SampleSubmission, column: int, images: Sequence[str], classes: Sequence[str]
) -> Asked | None:
    """A sample whose ids hold an image and a class, as in "img7_cat"; None if there is no such reading."""
    cells = [nfc(cell.strip()) for cell in sample.columns[column]]
    for known in _class_names(classes):
        for separator in SEPARATORS:
            for last in (True, False):
                options = _all_divided(cells, separator, last, known)
                asked = None if options is None else _joined(sample, column, options, images)
                if options is None or asked is None:
                    continue
                if _all_there([number for pairs in options for _, number in pairs], known, classes):
                    return asked
    return None


def _joined(
    sample: SampleSubmission, column: int, options: list[list[tuple[str, int]]], images: Sequence[str]
) -> Asked | None:
    """options: of each row the images and classes that it may mean, of which images that are there leave one."""
    texts = list(dict.fromkeys(image for own in options for image, _ in own))
    matched = match_names(texts, images)
    rows = {text: row for text, row in zip(texts, matched.rows.tolist(), strict=True) if row >= 0}
    pairs = [[pair for pair in own if pair[0] in rows] for own in options]
    if any(len(own) != 1 for own in pairs):
        return None
    flat = [own[0] for own in pairs]
    ids = list(dict.fromkeys(image for image, _ in flat))
    if len(set(flat)) < len(flat):
        return None
    place = {text: number for number, text in enumerate(ids)}
    row_image = np.array([place[image] for image, _ in flat], dtype=np.int64)
    row_class = np.array([number for _, number in flat], dtype=np.int64)
    found = np.array([rows[image] for image in ids], dtype=np.int64)
    return Asked(sample, ids, found, (column,), row_image, row_class)


def _all_divided(
    cells: Sequence[str], separator: str, last: bool, known: Callable[[str], int | None]
) -> list[list[tuple[str, int]]] | None:
    """Of each cell what `_divided` gives; None as soon as one can't be read so: there may be a million."""
    options = []
    for cell in cells:
        if not (divided := _divided(cell, separator, last, known)):
            return None
        options.append(divided)
    return options


def _divided(text: str, separator: str, last: bool, known: Callable[[str], int | None]) -> list[tuple[str, int]]:
    """The ways to read a text as an image and a class, which stands `last` or first in it."""
    options = []
    for cut in re.finditer(re.escape(separator), text):
        before, after = text[: cut.start()], text[cut.end() :]
        image, name = (before, after) if last else (after, before)
        number = known(name) if image else None
        if number is not None:
            options.append((image, number))
    return options


def _refuse_repeats(sample: SampleSubmission, column: int) -> None:
    cells = pd.Series(sample.columns[column])
    repeated = cells[cells.duplicated()]
    if len(repeated):
        raise UserError(
            f"{sample.path}: id {repeated.iloc[0]!r} is there twice; several rows an image need a column that names "
            "the class of each"
        )


def _refuse_unmatched(sample: SampleSubmission, ids: Sequence[str], matched: Matched, images: Sequence[str]) -> None:
    lost = np.flatnonzero(matched.rows < 0)
    if len(lost):
        # A name that could be two images is the clearer fault, and the likelier to be mended by the user.
        row = int(next((row for row in lost if row in matched.several), lost[0]))
        raise UserError(
            f"{sample.path}: id {why_not(ids[row], row, matched, images)} ({len(lost)} of {len(ids)} ids have no image "
            f"of their own; the images are named like {images[0]!r})"
        )


def _plain(header: str) -> str:
    return re.sub(r"[\W_]+", "", header).lower()


def _is_id_header(header: str) -> bool:
    name = _plain(header)
    return name in ID_HEADERS or name.endswith("id")

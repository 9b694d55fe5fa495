"""Sample submissions with one row for each image and class: the class in a column of its own, or in one id with the
image."""

import re
from collections.abc import Callable, Sequence

import numpy as np

from ensemble.data.classes import is_number, reader
from ensemble.data.names import match_names
from ensemble.data.samples import nfc
from ensemble.data.submission.sample import Asked, SampleSubmission

SEPARATORS = ("_", "-", ":", "/", "|", " ", ".", "#", "@")  # between an image and a class in one id


def one_row_per_class(sample: SampleSubmission, ids: int, classes: Sequence[str]) -> tuple[int, np.ndarray] | None:
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


def image_and_class(
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
    texts = list(dict.fromkeys(image for readings in options for image, _ in readings))
    matched = match_names(texts, images)
    rows = {text: row for text, row in zip(texts, matched.rows.tolist(), strict=True) if row >= 0}
    pairs = [[pair for pair in readings if pair[0] in rows] for readings in options]
    if any(len(readings) != 1 for readings in pairs):
        return None
    flat = [readings[0] for readings in pairs]
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

"""Which column of a sample submission holds the ids, and which images these mean."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from ensemble.data.names import Matched, match_names, why_not
from ensemble.data.submission.long_form import image_and_class, one_row_per_class
from ensemble.data.submission.sample import Asked, SampleSubmission, is_id_header
from ensemble.errors import UserError

PROBED = 200  # rows by which the column of ids is found
FEW = 20  # columns that are all looked at


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
    if not is_id_header(sample.header[column]) and match_names([sample.header[column]], images).rows[0] >= 0:
        cells = zip(sample.header, sample.columns, strict=True)
        sample = replace(
            sample, header=("",) * len(sample.header), columns=tuple(np.array([a, *b], dtype=object) for a, b in cells),
            headed=False,
        )  # fmt: skip
    cells = sample.columns[column].tolist()
    different = list(dict.fromkeys(cells))
    matched = match_names(different, images)
    if len(different) < len(cells):
        long = one_row_per_class(sample, column, classes)
        if long is None:
            # Answers of 0 mean an image 0.png: "7_cat" beside them may be the ids.
            joined = image_and_class(sample, sample.id_column, images, classes)
            if joined is not None:
                return joined
            _refuse_repeats(sample, column)
        assert long is not None
        _refuse_unmatched(sample, different, matched, images)
        place = {text: number for number, text in enumerate(different)}
        row_image = np.array([place[cell] for cell in cells], dtype=np.int64)
        return Asked(sample, different, matched.rows, (column, long[0]), row_image, long[1], matched.notes)
    if (matched.rows < 0).any():
        joined = image_and_class(sample, column, images, classes)
        if joined is not None:
            return joined
        _refuse_unmatched(sample, different, matched, images)
    return Asked(sample, different, matched.rows, (column,), notes=matched.notes)


def find_ids(sample: SampleSubmission, images: Sequence[str]) -> int:
    """The column that means most images; of equal ones that which is named like ids, else the first."""
    places = list(range(len(sample.header)))
    if len(places) > FEW:  # of many columns nearly all are classes
        places = sorted({0, places[-1], *(place for place in places if is_id_header(sample.header[place]))})
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


def _refuse_repeats(sample: SampleSubmission, column: int) -> None:
    cells = pd.Series(sample.columns[column])
    repeated = cells[cells.duplicated()]
    if len(repeated):
        raise UserError(
            f"{sample.path}: id {repeated.iloc[0]!r} is there twice; several rows per image need a column that names "
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

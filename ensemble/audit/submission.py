"""The sample submission against the test images."""

from collections import Counter
from pathlib import Path

import numpy as np

from ensemble.audit.findings import Finding, finding
from ensemble.audit.rows import Rows
from ensemble.data.classes import reader
from ensemble.data.names import match_names
from ensemble.data.submission.match import find_ids, match
from ensemble.data.submission.sample import Asked, SampleSubmission, read_sample
from ensemble.data.submission.write import lay_out
from ensemble.errors import UserError

SIDE = "submission"


def check_submission(path: Path, test: Rows | None, classes: list[str]) -> list[Finding]:
    """Raises UserError if the sample is unreadable."""
    sample, found, asked = read_sample(path), list[Finding](), None
    try:
        asked = match(sample, None if test is None else test.ids.tolist(), classes)
        images = asked.images
    except UserError:
        found, images = _ids(sample, test)
    if test is not None:
        not_asked = np.setdiff1d(np.arange(len(test.ids)), images)
        if len(images):  # else nothing fits, and that is said already
            found += finding(
                "image-not-asked", "warning", test.ids[not_asked].tolist(),
                ("test image that the sample does not ask for", "test images that the sample does not ask for"),
                "they get no line in the submission; see that the test set is the sample's", SIDE,
            )  # fmt: skip
        if test.table is not None and asked is not None:  # a folder has no order
            moved = np.flatnonzero(images != np.sort(images))
            found += finding(
                "sample-order", "note", [asked.ids[row] for row in moved],
                ("id of the sample at another place than its image",
                 "ids of the sample at other places than their images"),
                "none needed: ens joins by id; a program that goes by position would answer for other images", SIDE,
            )  # fmt: skip
    return found + _answers(sample, asked, tuple(classes))


def _ids(sample: SampleSubmission, test: Rows | None) -> tuple[list[Finding], np.ndarray]:
    """What is wrong with the ids, and the rows of the test images that some of them name."""
    column = sample.id_column if test is None else find_ids(sample, test.ids.tolist())
    counts = Counter(sample.columns[column].tolist())
    found = finding(
        "repeated-sample-id", "error", [id for id, count in counts.items() if count > 1],
        ("id that the sample has twice", "ids that the sample has twice"), "fetch the sample again", SIDE,
    )  # fmt: skip
    if test is None:
        return found, np.empty(0, dtype=np.int64)
    ids = list(counts)
    matched = match_names(ids, test.ids.tolist())
    double = [row for row in matched.several if len(matched.several[row]) > 1]
    lost = [row for row in np.flatnonzero(matched.rows < 0).tolist() if row not in double]
    found += finding(
        "sample-id-without-image", "error", [ids[row] for row in lost],
        ("id of the sample without a test image", "ids of the sample without test images"),
        f"give the folder or table that it names as --test; images are named like {str(test.ids[0])!r}", SIDE,
    )  # fmt: skip
    found += finding(
        "sample-id-of-two", "error", [ids[row] for row in double],
        ("id of the sample that two test images have", "ids of the sample that two test images have"),
        "two folders hold files of one name: give the one that is meant as --test", SIDE,
    )  # fmt: skip
    named = [row for rows in matched.several.values() for row in rows]
    return found, np.unique([*matched.rows[matched.rows >= 0], *named]).astype(np.int64)


def _answers(sample: SampleSubmission, asked: Asked | None, classes: tuple[str, ...]) -> list[Finding]:
    """Answers in the sample that are no classes, or that ens would not know how to write."""
    if asked is None:
        asked = Asked(sample, [], np.empty(0, dtype=np.int64), (sample.id_column,))
    try:
        layout = lay_out(classes, asked)
    except UserError as error:
        return finding(
            "sample-form", "warning", sample.table().columns[1:].tolist(),
            ("column of the sample that is not understood", "columns of the sample that are not understood"),
            str(error).removeprefix(f"{sample.path}: "), SIDE,
        )  # fmt: skip
    known = reader(classes)
    places = [place for place, column in enumerate(layout.columns) if column.holds == "answer"]
    texts = [text for place in places for text in sample.texts(place)] if layout.form == "label" else []
    odd = [text for text in texts if known(text) is None]
    return finding(
        "sample-answer", "warning", odd if len(odd) < len(texts) and layout.answer.count == 1 else [],
        ("answer in the sample that is no class", "answers in the sample that are no classes"),
        "see that both are spelt alike", SIDE,
    )  # fmt: skip

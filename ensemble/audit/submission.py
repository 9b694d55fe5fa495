"""The sample submission against the test images."""

from collections import Counter
from pathlib import Path

import numpy as np

from ensemble.audit.findings import Finding, finding
from ensemble.audit.read import Rows
from ensemble.data.table import nfc, read_table
from ensemble.errors import UserError
from ensemble.tta.submission import id_forms


def check_submission(path: Path, test: Rows | None, classes: list[str]) -> list[Finding]:
    """Raises UserError if the sample is unreadable."""
    table = read_table(path)
    if table.shape[1] < 2:
        raise UserError(f"{path}: has one column, {table.columns[0]!r}; a submission needs an id and a label column")
    ids = [nfc(str(text)) for text in table.iloc[:, 0]]
    side = "submission"
    counts = Counter(ids)
    found = finding(
        "repeated-sample-id", "error", [id for id, count in counts.items() if count > 1],
        ("id that the sample has twice", "ids that the sample has twice"), "fetch the sample again", side,
    )  # fmt: skip
    if test is None:
        return found
    forms = id_forms(test.ids.tolist())
    asked = set(ids)
    once = {form: {name for name, count in Counter(names).items() if count == 1} for form, names in forms.items()}
    form = max(forms, key=lambda form: len(asked & once[form]))  # the first of equals
    names = forms[form]
    there = set(names)
    lost = [id for id in counts if id not in there]
    double = [id for id in counts if id in there and id not in once[form]]
    unasked = [test.ids[row] for row, name in enumerate(names) if name not in asked]
    found += finding(
        "sample-id-without-image", "error", lost,
        ("id of the sample without a test image", "ids of the sample without test images"),
        f"give the folder or table that it names as --test; images are named like {str(test.ids[0])!r}", side,
    )  # fmt: skip
    found += finding(
        "sample-id-of-two", "error", double,
        ("id of the sample that two test images have", "ids of the sample that two test images have"),
        "two folders hold files of one name: give the one that is meant as --test", side,
    )  # fmt: skip
    if len(lost) < len(counts):  # else nothing fits, and that is said already
        found += finding(
            "image-not-asked", "warning", unasked,
            ("test image that the sample does not ask for", "test images that the sample does not ask for"),
            "they get no line in the submission; see that the test set is the sample's", side,
        )  # fmt: skip
    if test.table is not None and not lost and not double:  # a folder has no order
        place = {name: row for row, name in enumerate(names)}
        order = np.array([place[id] for id in counts])
        moved = np.flatnonzero(order != np.sort(order))
        found += finding(
            "sample-order", "note", [list(counts)[row] for row in moved],
            ("id of the sample at another place than its image", "ids of the sample at other places than their images"),
            "none needed: ens joins by id; a program that goes by position would answer for other images", side,
        )  # fmt: skip
    found += _answers(table.columns[1:].tolist(), table.iloc[:, 1].tolist(), classes, side)
    return found


def _answers(columns: list[str], cells: list[str], classes: list[str], side: str) -> list[Finding]:
    """Names in the sample that are no class, where it is written in names."""
    if len(columns) > 1:
        odd = sorted({nfc(name) for name in columns} ^ set(classes))
        return finding(
            "sample-columns", "warning", odd,
            ("class or column without its like", "classes or columns without their like"),
            "a sample of probabilities needs one column a class, named alike", side,
        )  # fmt: skip
    values = sorted({nfc(cell.strip()) for cell in cells} - {""})
    known = [value for value in values if value in classes]
    odd = [value for value in values if value not in classes]
    return finding(
        "sample-answer", "warning", odd if known else [],
        ("answer in the sample that is no class", "answers in the sample that are no classes"),
        "see that both are spelt alike", side,
    )  # fmt: skip

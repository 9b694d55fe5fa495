"""What a sample submission asks for, as `ens init` says it."""

from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import TypeVar

from ensemble.data.names import match_names
from ensemble.data.samples import nfc
from ensemble.data.submission.match import find_ids, match
from ensemble.data.submission.sample import SampleSubmission
from ensemble.data.submission.write import lay_out
from ensemble.errors import UserError

Made = TypeVar("Made")


def look_at_submission(sample: SampleSubmission, test_ids: Sequence[str] | None, classes: Sequence[str]) -> list[str]:
    """Lines on a sample submission: its columns, which test images its ids are, and what will be written for it."""
    lines = [f"{sample.path} has {len(sample):,} rows and the columns {', '.join(map(repr, sample.header))}"]
    if test_ids is None:
        lines.append("its ids are not compared with the test images, since no --test was given")
    asked = _or_warning(lambda: match(sample, test_ids, classes), lines)
    if asked is not None and test_ids is not None:
        what, rows = repr(sample.header[asked.used[0]]), len(asked.ids)
        form = _form_of_ids(asked.ids, [test_ids[row] for row in asked.images])
        lines += [f"its {what} holds each image's {form}: {rows:,} of {rows:,} are test images", *asked.notes]
        if rows < len(test_ids):
            lines.append(f"{len(test_ids) - rows:,} test images are not asked for in it")
    elif test_ids is not None:
        column = find_ids(sample, test_ids)
        ids = sample.columns[column].tolist()
        matched = int((match_names(ids, test_ids).rows >= 0).sum())
        if matched:
            lines.append(f"{matched:,} of {len(ids):,} in its {sample.header[column]!r} are test images")
        else:
            lines.append(
                f"nothing in its {sample.header[column]!r} is a test image: it has {ids[0]!r}, the images are "
                f"{test_ids[0]!r}, ...; give the folder or table that it names as --test"
            )
    if asked is not None:
        layout = _or_warning(lambda: lay_out(tuple(classes), asked), lines)
        if layout is not None:
            lines += [*layout.answer.notes, f"ens tta-predict will write {layout.description}"]
    return lines


def _form_of_ids(ids: Sequence[str], images: Sequence[str]) -> str:
    """How a sample writes the names of images (relative paths)."""
    paths, written = list(map(PurePosixPath, images)), [nfc(id) for id in ids]
    forms = {
        "path": list(images),
        "file name": [path.name for path in paths],
        "file name without ending": [path.stem for path in paths],
    }
    return next((form for form, names in forms.items() if names == written), "name, written otherwise")


def _or_warning(make: Callable[[], Made], lines: list[str]) -> Made | None:
    """What `make` gives, or None and a line: what is wrong with a sample is no reason not to train."""
    try:
        return make()
    except UserError as error:
        lines.append(f"warning: {error}")
        return None

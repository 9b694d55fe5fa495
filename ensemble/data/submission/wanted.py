"""Which images are predicted, and in what form their submission is written."""

from pathlib import Path

import numpy as np

from ensemble.data.samples import read_images
from ensemble.data.submission.write import Layout, follow
from ensemble.events import Events


def images_wanted(
    images: Path,
    sample_submission: Path | None,
    classes: tuple[str, ...],
    form: str | None,
    costs: np.ndarray | None,
    events: Events,
) -> tuple[Layout, list[str], list[Path]]:
    """The layout of a submission, and the ids and files of its N images, in its order.

    images: a folder, or a table of images.
    sample_submission: whose ids, order and header to follow; None for all images and a plain header.
    classes, form, costs: as in `follow`.
    events: is told what is left out and what was assumed.

    Raises UserError as `read_images` and `follow`, before anything is predicted.
    """
    ids, files, notes = read_images(images, events)
    for line in notes:
        events.message(line)
    layout, wanted, rows = follow(sample_submission, ids, classes, form, costs)
    for line in layout.notes:
        events.message(line)
    return layout, wanted, [files[row] for row in rows]

"""`ens tta-predict RUN photo.jpg ...`: a few pictures, whose classes are printed with their probabilities."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ensemble.data.names import nfc
from ensemble.data.submission.write import follow, write_submission
from ensemble.errors import UserError
from ensemble.run import Run
from ensemble.run.outputs import inputs_of, require_output
from ensemble.tta.images import load, predict_files

SHOWN = 5  # classes of a picture


@dataclass(frozen=True)
class PredictedPictures:
    """N pictures. probabilities: float32 (N, C), NaN in the rows that could not be read. unreadable: why, by row.
    submission: the CSV that was written, or None. notes: a line on it, and on the sample that it follows."""

    ids: tuple[str, ...]
    classes: tuple[str, ...]
    probabilities: np.ndarray
    unreadable: dict[int, str]
    submission: Path | None
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """A line on each picture, the likeliest class first."""
        lines = []
        for row, (name, chances) in enumerate(zip(self.ids, self.probabilities, strict=True)):
            if row in self.unreadable:
                lines.append(self.unreadable[row])
                continue
            best = np.argsort(-chances, kind="stable")[:SHOWN]
            shown = ", ".join(f"{self.classes[number]} {100 * chances[number]:.1f} %" for number in best)
            lines.append(f"{name}: {shown}{', ...' if len(chances) > SHOWN else ''}")
        return [*lines, *self.notes]


def predict_pictures(
    run: Path,
    files: Sequence[Path],
    output: Path | None,
    blend: str | None = None,
    views: Sequence[str] | None = None,
    sample_submission: Path | None = None,
    form: str | None = None,
    on_bad: str = "error",
) -> PredictedPictures:
    """Predict image files by the run's blend, to the bit as `tta_predict` does; nothing is kept in the run.

    output: a CSV to write, None for none. on_bad: "error" raises UserError that names an image which can't be read;
    "skip" leaves its prediction empty. Raises UserError as `ensemble.load` does, and for a sample that does not fit.
    """
    predictor, notes = load(run, blend, views), list[str]()
    classes = predictor.blend.classes
    named = [nfc(file.as_posix()) for file in files]
    layout, ids, rows = follow(sample_submission, named, classes, form, notes.append)
    wanted = [files[row] for row in rows]
    if output is not None:
        require_output(output, [*files, sample_submission, *inputs_of(Run(run))])
    probabilities, unreadable = predict_files(predictor, wanted, on_bad)
    if len(unreadable) == len(wanted):
        raise UserError(next(iter(unreadable.values())))
    if output is not None:
        notes.append(f"wrote {output} ({write_submission(output, layout, ids, [probabilities])})")
    return PredictedPictures(
        tuple(ids), classes, probabilities, unreadable, output, () if output is None else tuple(notes)
    )

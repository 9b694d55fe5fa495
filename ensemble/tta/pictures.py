"""`ens tta-predict RUN photo.jpg ...`: the most likely classes of a few pictures, with their probabilities."""

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
from ensemble.tta.predictor import Predictor

SHOWN = 5  # classes of a picture


@dataclass(frozen=True)
class PredictedPictures:
    """The predictions of N pictures.

    ids: N names
    classes: C names
    probabilities: float32 (N, C), NaN in rows that could not be read
    unreadable: for each such row the reason
    submission: the CSV that was written; None if none was asked for
    notes: lines on that CSV and on the sample that it follows
    decided: the class of each, if the blend knows what mistakes cost
    """

    ids: tuple[str, ...]
    classes: tuple[str, ...]
    probabilities: np.ndarray
    unreadable: dict[int, str]
    submission: Path | None
    notes: tuple[str, ...] = ()
    decided: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """One line per picture with its most likely classes, and the notes."""
        lines = []
        for row, (name, probabilities) in enumerate(zip(self.ids, self.probabilities, strict=True)):
            if row in self.unreadable:
                lines.append(self.unreadable[row])
                continue
            best = np.argsort(-probabilities, kind="stable")[:SHOWN]
            shown = ", ".join(f"{self.classes[number]} {100 * probabilities[number]:.1f} %" for number in best)
            decided = f"; of the least expected cost: {self.decided[row]}" if self.decided else ""
            lines.append(f"{name}: {shown}{', ...' if len(probabilities) > SHOWN else ''}{decided}")
        return [*lines, *self.notes]


def predict_pictures(
    run: Run,
    files: Sequence[Path],
    output: Path | None,
    blend: str | Predictor | None = None,
    views: Sequence[str] | None = None,
    sample_submission: Path | None = None,
    form: str | None = None,
    on_bad: str = "error",
) -> PredictedPictures:
    """Predict image files by the run's blend, to the bit as `tta_predict` does; nothing is stored in the run.

    output: a CSV to write; None for none
    blend: its name, or what `ensemble.load` gave
    views, sample_submission, form, on_bad: as in `PredictionRequest`

    Raises UserError as `ensemble.load` does, and for a sample that does not fit.
    """
    predictor = blend if isinstance(blend, Predictor) else load(run, blend, views)
    classes = predictor.blend.classes
    all_ids = [nfc(file.as_posix()) for file in files]
    layout, ids, rows = follow(sample_submission, all_ids, classes, form, predictor.blend.costs)
    notes = list(layout.notes)
    if output is not None:
        require_output(output, [*files, sample_submission, *inputs_of(run)])
    probabilities, unreadable = predict_files(predictor, [files[row] for row in rows], on_bad)
    if len(unreadable) == len(rows):
        raise UserError(next(iter(unreadable.values())))
    if output is not None:
        notes.append(f"wrote {output} ({write_submission(output, layout, ids, [probabilities])})")
    decided: tuple[str, ...] = ()
    if predictor.blend.costs is not None:
        decided = tuple(classes[number] for number in predictor.blend.decide(np.nan_to_num(probabilities)))
    return PredictedPictures(
        tuple(ids), classes, probabilities, unreadable, output, () if output is None else tuple(notes), decided
    )

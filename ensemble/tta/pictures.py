"""`ens tta-predict RUN photo.jpg ...`: a few pictures, whose classes are printed with their probabilities."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ensemble.data.names import nfc
from ensemble.errors import UserError
from ensemble.outputs import inputs_of, require_output
from ensemble.tta.images import load, predict_files
from ensemble.tta.submission import lay_out, match, read_sample, write_submission

SHOWN = 5  # classes of a picture


@dataclass(frozen=True)
class Shown:
    """N pictures. probabilities: float32 (N, C), NaN in the rows that could not be read. unreadable: why, by row.
    submission: the CSV that was written, or None."""

    ids: tuple[str, ...]
    classes: tuple[str, ...]
    probabilities: np.ndarray
    unreadable: dict[int, str]
    submission: Path | None
    said: str

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
        if self.submission is not None:
            lines.append(f"wrote {self.submission} ({self.said})")
        return lines


def predict_pictures(
    run: Path,
    files: Sequence[Path],
    output: Path | None,
    blend: str | None = None,
    views: Sequence[str] | None = None,
    sample_submission: Path | None = None,
    form: str | None = None,
    on_bad: str = "error",
) -> Shown:
    """Predict image files by the run's blend, to the bit as `tta_predict` does; nothing is kept in the run.

    output: a CSV to write, None for none. on_bad: "error" raises UserError that names an image which can't be read;
    "skip" leaves its prediction empty. Raises UserError as `ensemble.load` does, and for a sample that does not fit.
    """
    ids, wanted = [nfc(file.as_posix()) for file in files], list(files)
    sample = read_sample(sample_submission) if sample_submission else None
    if sample is not None:
        rows = match(sample, ids)
        ids, wanted = sample.ids, [files[row] for row in rows]
    predictor = load(run, blend, views)
    layout = lay_out(predictor.blend.classes, sample, form)
    if output is not None:
        require_output(output, [*files, sample_submission, *inputs_of(run)])
    probabilities, unreadable = predict_files(predictor, wanted, on_bad)
    if len(unreadable) == len(wanted):
        raise UserError(next(iter(unreadable.values())))
    if output is not None:
        write_submission(output, layout.rows(ids, probabilities))
    said = f"{len(ids)} rows of {layout.said}" + (f", {len(unreadable)} of them empty" if unreadable else "")
    return Shown(tuple(ids), predictor.blend.classes, probabilities, unreadable, output, said)

"""The most likely classes of a few pictures, with their probabilities. pandas is loaded only where a CSV is written."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from ensemble.data.names import nfc
from ensemble.errors import UserError
from ensemble.run.outputs import require_output
from ensemble.scoring.row_values import cheapest

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
    decided: the class of each, "" where it could not be read; () unless the blend knows what mistakes cost
    sets: the classes of the prediction set of each; () unless they were asked for
    abstain: whether each is better left unanswered; () unless that was asked for
    unknown: whether each may be none of the classes; () unless that was asked for
    """

    ids: tuple[str, ...]
    classes: tuple[str, ...]
    probabilities: np.ndarray
    unreadable: dict[int, str]
    submission: Path | None
    notes: tuple[str, ...] = ()
    decided: tuple[str, ...] = ()
    sets: tuple[tuple[str, ...], ...] = ()
    abstain: tuple[bool, ...] = ()
    unknown: tuple[bool, ...] = ()

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
            set_of = f"; set: {', '.join(self.sets[row])}" if self.sets else ""
            abstains = "; abstains" if self.abstain and self.abstain[row] else ""
            unknown = "; unknown: perhaps none of the classes" if self.unknown and self.unknown[row] else ""
            shown += ", ..." if len(probabilities) > SHOWN else ""
            lines.append(f"{name}: {shown}{decided}{set_of}{abstains}{unknown}")
        return [*lines, *self.notes]


def require_tables(what: str) -> None:
    """Raise UserError unless tables can be read and written: an installation without torch may lack pandas too."""
    if find_spec("pandas") is None or find_spec("pyarrow") is None:
        raise UserError(f"{what} takes pandas and pyarrow: pip install pandas pyarrow")


def predict_pictures(
    predict: Callable[[Sequence[Path]], tuple[np.ndarray, dict[int, str]]],
    files: Sequence[Path],
    classes: tuple[str, ...],
    costs: np.ndarray | None,
    output: Path | None,
    sample_submission: Path | None = None,
    form: str | None = None,
    inputs: Iterable[Path] = (),
) -> PredictedPictures:
    """Predict image files, and write a CSV if one is asked for.

    predict: gives the probabilities of image files, float32 (n, C), NaN in rows that could not be read, and for each
        such row the reason
    costs: see `Layout`
    output: a CSV to write; None for none
    sample_submission, form: as in `PredictionRequest`
    inputs: files, beside the pictures and the sample, that must not be written over

    Raises UserError for a sample that does not fit, and if no picture can be read.
    """
    ids = [nfc(file.as_posix()) for file in files]
    layout = None
    if output is not None or sample_submission is not None:
        require_tables("a CSV of predictions")
        from ensemble.data.submission.write import follow, write_submission

        layout, ids, rows = follow(sample_submission, ids, classes, form, costs)
        files = [files[row] for row in rows]
    if output is not None:
        require_output(output, [*files, sample_submission, *inputs])
    probabilities, unreadable = predict(files)
    if len(unreadable) == len(files):
        raise UserError(next(iter(unreadable.values())))
    notes: list[str] = []
    if output is not None and layout is not None:
        notes = [*layout.notes, f"wrote {output} ({write_submission(output, layout, ids, [probabilities])})"]
    decided: tuple[str, ...] = ()
    if costs is not None:
        numbers = cheapest(np.nan_to_num(probabilities), costs)
        decided = tuple("" if row in unreadable else classes[number] for row, number in enumerate(numbers))
    return PredictedPictures(tuple(ids), classes, probabilities, unreadable, output, tuple(notes), decided)

"""`ens tta-predict RUN photo.jpg ...`: a few pictures, predicted by a run's networks."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ensemble.predictions.pictures import PredictedPictures
from ensemble.predictions.pictures import predict_pictures as predicted_by
from ensemble.run import Run
from ensemble.run.outputs import inputs_of, require_output
from ensemble.tta.certainty import certainty_path, names_in_set, write_certainty
from ensemble.tta.images import load, predict_files
from ensemble.tta.predictor import Predictor


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
    """Predict image files by the run's blend, as `tta_predict` does, and as near to its bits as `ensemble.predict`;
    nothing is stored in the run.

    output: a CSV to write; None for none
    blend: its name, or what `ensemble.load` gave
    views, sample_submission, form, on_bad: as in `PredictionRequest`

    Raises UserError as `ensemble.load` does, and for a sample that does not fit. What the predictor says beside the
    class is written beside `output`.
    """
    predictor = blend if isinstance(blend, Predictor) else load(run, blend, views)
    columns: dict[str, np.ndarray] = {}

    def predict(chosen: Sequence[Path]) -> tuple[np.ndarray, dict[int, str]]:
        probabilities, unreadable, found = predict_files(predictor, chosen, on_bad)
        columns.update(found)
        return probabilities, unreadable

    fitted, inputs = predictor.blend, [*inputs_of(run)]
    beside = None if output is None or not predictor.certainty else certainty_path(output)
    if beside is not None:
        require_output(beside, [*files, sample_submission, output, *inputs])
    made = predicted_by(predict, files, fitted.classes, fitted.costs, output, sample_submission, form, inputs)
    notes = made.notes
    if beside is not None:
        what = write_certainty(beside, made.ids, fitted, [(made.probabilities, columns)])
        notes = (*notes, f"wrote {beside} ({what})")
    return replace(
        made,
        notes=notes,
        sets=tuple(names_in_set(each, fitted.classes) for each in columns.get("set", ())),
        abstain=tuple(columns.get("abstain", np.empty(0)).tolist()),
        unknown=tuple(columns.get("unknown", np.empty(0)).tolist()),
    )

"""`ens tta-predict RUN photo.jpg ...`: a few pictures, predicted by a run's networks."""

from collections.abc import Sequence
from pathlib import Path

from ensemble.predictions.pictures import PredictedPictures
from ensemble.predictions.pictures import predict_pictures as predicted_by
from ensemble.run import Run
from ensemble.run.outputs import inputs_of
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

    Raises UserError as `ensemble.load` does, and for a sample that does not fit.
    """
    predictor = blend if isinstance(blend, Predictor) else load(run, blend, views)
    return predicted_by(
        lambda chosen: predict_files(predictor, chosen, on_bad),
        files,
        predictor.blend.classes,
        predictor.blend.costs,
        output,
        sample_submission,
        form,
        inputs_of(run),
    )

"""`ens tta-predict`: from a run, a blend and images to saved predictions and a submission.

Networks, and torch, are loaded only for logits that the run has not stored before (ensemble/tta/stored_logits.py).
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ensemble.blend.averaging import Averaged
from ensemble.data.logits import load_logits
from ensemble.errors import UserError
from ensemble.events import Events
from ensemble.files import sealed
from ensemble.files.claims import claimed_when_free
from ensemble.plural import pluralize
from ensemble.predictions import shards, sharing
from ensemble.predictions.sharing import Rest
from ensemble.run.outputs import inputs_of, require_output
from ensemble.run.run import predictions_claim, shards_dir
from ensemble.tta.averaged import averaged_score
from ensemble.tta.certainty import certainty_path
from ensemble.tta.fill import fill
from ensemble.tta.prepare import PredictionRequest, PreparedPrediction, prepare
from ensemble.tta.written import write_once


@dataclass(frozen=True)
class SavedPrediction:
    """What `tta_predict` has written.

    ids: str (N,), in the order of the rows
    classes: C names
    blend: its name
    predictions: the file of probabilities
    checksum: of that file
    submission: the CSV
    said: what the CSV holds, in words
    unreadable: how many of the N images have no prediction
    is_new: whether this process wrote the CSV; False where another one did that shared the work
    certainty: the table beside it of what else was asked for; None for none
    certain: what that table says, in words
    expected: of the networks' average; None where it is not known, see `averaged_score`
    """

    ids: np.ndarray
    classes: tuple[str, ...]
    blend: str
    predictions: Path
    checksum: str | None
    submission: Path
    said: str
    unreadable: int
    is_new: bool = True
    certainty: Path | None = None
    certain: str = ""
    expected: Averaged | None = None

    @property
    def probabilities(self) -> np.ndarray:
        """float32 (N, C), NaN in rows without a prediction, read from the predictions' file. Raises UserError if that
        has been replaced: another prediction of the same images by the same blend writes to the same file."""
        saved = load_logits(self.predictions)
        if sealed.file_checksum(self.predictions) != self.checksum:
            raise UserError(f"{self.predictions}: was replaced by another prediction; start this one again")
        return np.asarray(np.exp(saved.values[0]))


# Predicts what is left, and gives how many images exited at each stage of the blend, int64 (S,).
Filler = Callable[[Rest, PreparedPrediction, Events], np.ndarray]


def fill_here(rest: Rest, prediction: PreparedPrediction, events: Events) -> np.ndarray:
    """A `Filler`: in this process."""
    return fill(rest, prediction.plan, prediction.stored, prediction.may_store, events)


def tta_predict(
    request: PredictionRequest, events: Events, filler: Filler = fill_here, device: str | None = None
) -> SavedPrediction:
    """Predict every image, or those that the sample submission names, by a blend of the run, and write both files.

    The blend is applied to each fold's set of members, which is what it was fitted on, and the K probability vectors
    are averaged; of soups there is one set, of refits one for each. Of a cascade, each stage is such a blend, and these
    averages decide which images the next stage is asked about. Rows are predicted and saved in shards, so that the
    same call resumes after a kill, and ends with the same bytes. Several processes that make the same call share the
    shards; one of them writes the files.

    filler: what predicts the shards. device: the type of the one that it does so on; None for this machine's.

    Raises UserError for anything that doesn't fit, as far as possible before the first image is decoded, and OSError
    that names a file which can't be written.
    """
    request.run.require()
    inputs = [request.images, request.sample_submission, *inputs_of(request.run)]
    require_output(request.output, inputs)
    if request.certainty is not None:
        require_output(certainty_path(request.output), [*inputs, request.output])
    prediction = prepare(request, events, device)
    blend = prediction.plan.blend
    folder, lock = shards_dir(prediction.saved), predictions_claim(prediction.saved)
    with sharing.joined(folder, lock, prediction.digest, prediction.parts, events):
        rest = sharing.rest_of(prediction.parts, len(blend.classes), request.on_bad, events)
        exits = filler(rest, prediction, events)
        rest.require_finished()  # its rows that could not be read are known then, too
        if blend.stages and exits.any():
            counts = ", ".join(map(str, exits.tolist()))
            events.message(f"of {exits.sum()} images, so many exited at each stage of the cascade: {counts}")
        unreadable = rest.unreadable
        shards.report_unreadable(prediction.ids, unreadable, events)
        written = None
        if len(unreadable) < len(prediction.ids):
            with claimed_when_free(lock):
                written = write_once(prediction, request, folder)
    if written is None:
        raise UserError(f"{request.images}: not one of its {len(prediction.ids)} images could be read")
    stale = certainty_path(request.output)
    if written.is_new and not written.certainty and stale.is_file():
        events.message(f"{stale} is of an earlier prediction, not of this one: delete it, or ask for it again")
    said = written.said
    said += f"; {pluralize(len(unreadable), 'image has', 'images have')} empty cells" if unreadable else ""
    return SavedPrediction(
        ids=np.array(prediction.ids),
        classes=blend.classes,
        blend=prediction.blend_name,
        predictions=prediction.saved,
        checksum=written.checksum,
        submission=request.output,
        said=said,
        unreadable=len(unreadable),
        is_new=written.is_new,
        certainty=certainty_path(request.output) if written.certainty else None,
        certain=written.certainty,
        expected=averaged_score(prediction) if written.is_new else None,
    )

"""What is written of a prediction whose shards are all finished, once for all processes that share them. Never imports
torch."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from typing_extensions import TypedDict

from ensemble.data.logits import write_logits
from ensemble.data.submission.write import write_submission
from ensemble.errors import UserError
from ensemble.files import sealed
from ensemble.files.atomic import clear_temporaries_of
from ensemble.files.reading import read_json
from ensemble.predictions import shards
from ensemble.predictions.shards import PredictionShard
from ensemble.tta.prepare import PredictionRequest, PreparedPrediction


class WrittenCsv(TypedDict):
    """A submission: what it holds, in words, and the digest of its bytes."""

    said: str
    digest: str


class WrittenFiles(TypedDict):
    """written-*.json, beside the shards: the checksum of the predictions' file, and the submissions by what determines
    them."""

    predictions: str | None
    submissions: dict[str, WrittenCsv]


@dataclass(frozen=True)
class Written:
    """The files of a prediction.

    checksum: of the predictions' file
    said: what the submission holds, in words
    is_new: whether this process wrote the submission, not another one
    """

    checksum: str | None
    said: str
    is_new: bool


def write_once(prediction: PreparedPrediction, request: PredictionRequest, folder: Path) -> Written:
    """Write the predictions' file and the submission, unless another process that shares the shards has done so since
    they were begun. To be called by one process at a time. folder: of the shards. Raises OSError that names a file."""
    saved, output, ids = prediction.saved, request.output, prediction.ids
    note = folder / f"written-{prediction.key}.json"
    written = _read(note)
    if written is None or not saved.is_file() or sealed.file_checksum(saved) != written["predictions"]:
        clear_temporaries_of(saved)
        meta = {"blend": prediction.blend_name, "images": str(request.images)}
        classes = prediction.plan.blend.classes
        pieces = map(_log_probabilities, prediction.parts)
        write_logits(saved, ids, ("blend",), classes, (1, len(ids), len(classes)), pieces, meta)
        written = {"predictions": sealed.file_checksum(saved), "submissions": {}}
        sealed.write_json(note, written)
    key = _submission_key(request)
    csv = written["submissions"].get(key)
    is_new = csv is None or not output.is_file() or sealed.digest(output) != csv["digest"]
    if csv is None or is_new:
        said = write_submission(output, prediction.layout, ids, map(shards.read, prediction.parts))
        csv = written["submissions"][key] = {"said": said, "digest": sealed.digest(output)}
        sealed.write_json(note, written)
    return Written(written["predictions"], csv["said"], is_new)


def _read(note: Path) -> WrittenFiles | None:
    try:
        return read_json(note, WrittenFiles)
    except UserError:
        return None


def _submission_key(request: PredictionRequest) -> str:
    """A digest of what determines a submission beside the predictions."""
    sample = request.sample_submission
    asked = None if sample is None else hashlib.sha256(sample.read_bytes()).hexdigest()
    text = json.dumps([str(request.output.absolute()), request.form, asked])
    return hashlib.sha256(text.encode()).hexdigest()


def _log_probabilities(part: PredictionShard) -> np.ndarray:
    """float32 (n, C). Logarithms of probabilities are logits like any other, so one file format serves for both."""
    return np.asarray(np.log(np.maximum(shards.read(part), np.finfo(np.float32).tiny)))

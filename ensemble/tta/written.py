"""What is written of a prediction whose shards are all finished, once for all processes that share them. Never imports
torch."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from typing_extensions import TypedDict

from ensemble.data.logits import write_logits
from ensemble.data.submission.write import write_submission
from ensemble.data.unpacked.local import as_local
from ensemble.data.unpacked.source_names import source_name
from ensemble.errors import UserError
from ensemble.files import sealed
from ensemble.files.atomic import clear_temporaries_of
from ensemble.files.reading import read_json
from ensemble.predictions import shards
from ensemble.predictions.shards import PredictionShard
from ensemble.tta.certainty import certainty_path, column_names, write_certainty
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
    certainty: what the table beside it says, in words; "" where there is none
    """

    checksum: str | None
    said: str
    is_new: bool
    certainty: str


def write_once(prediction: PreparedPrediction, request: PredictionRequest, folder: Path) -> Written:
    """Write the predictions' file and the submission, unless another process that shares the shards has done so since
    they were begun. To be called by one process at a time. folder: of the shards. Raises OSError that names a file."""
    saved, output, ids = prediction.saved, request.output, prediction.ids
    note = folder / f"written-{prediction.key}.json"
    written = _read(note)
    if written is None or not saved.is_file() or sealed.file_checksum(saved) != written["predictions"]:
        clear_temporaries_of(saved)
        meta = {"blend": prediction.blend_name, "images": source_name(request.images)}
        if prediction.fitted is not None:
            meta["fitted"] = prediction.fitted
        classes = prediction.plan.blend.classes
        pieces = map(_log_probabilities, prediction.parts)
        write_logits(saved, ids, ("blend",), classes, (1, len(ids), len(classes)), pieces, meta)
        written = {"predictions": sealed.file_checksum(saved), "submissions": {}}
        sealed.write_json(note, written)

    def write_csv(path: Path, write: Callable[[], str]) -> tuple[str, bool]:
        """What the CSV holds, and whether it was written here and now."""
        key = _csv_key(request, path)
        csv = written["submissions"].get(key)
        if csv is not None and path.is_file() and sealed.digest(path) == csv["digest"]:
            return csv["said"], False
        said = write()
        written["submissions"][key] = {"said": said, "digest": sealed.digest(path)}
        sealed.write_json(note, written)
        return said, True

    said, is_new = write_csv(
        output, lambda: write_submission(output, prediction.layout, ids, map(shards.read, prediction.parts))
    )
    beside, certainty = certainty_path(output), ""
    if prediction.plan.certainty:
        names = column_names(prediction.plan.certainty)
        blocks = (shards.read_with_columns(part, names) for part in prediction.parts)
        certainty, _ = write_csv(beside, lambda: write_certainty(beside, ids, prediction.plan.blend, blocks))
    return Written(written["predictions"], said, is_new, certainty)


def _read(note: Path) -> WrittenFiles | None:
    try:
        return read_json(note, WrittenFiles)
    except UserError:
        return None


def _csv_key(request: PredictionRequest, path: Path) -> str:
    """A digest of what determines a CSV beside the predictions."""
    sample = None if request.sample_submission is None else as_local(request.sample_submission, with_images=False)
    asked = None if sample is None else hashlib.sha256(sample.read_bytes()).hexdigest()
    text = json.dumps([str(path.absolute()), request.form, asked])
    return hashlib.sha256(text.encode()).hexdigest()


def _log_probabilities(part: PredictionShard) -> np.ndarray:
    """float32 (n, C). Logarithms of probabilities are logits like any other, so one file format serves for both."""
    return np.asarray(np.log(np.maximum(shards.read(part), np.finfo(np.float32).tiny)))

"""`ens predict-file`: from an exported file and images to a submission, without torch."""

import hashlib
import json
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ensemble.data.submission.wanted import images_wanted
from ensemble.data.submission.write import write_submission
from ensemble.errors import UserError
from ensemble.events import Events
from ensemble.exported.cascade_description import CASCADE_JSON
from ensemble.exported.model import BATCH, ExportedModel
from ensemble.files.atomic import clear_temporaries_of, require_writable
from ensemble.plural import pluralize
from ensemble.predictions import shards, sharing
from ensemble.predictions.shards import PredictionShard
from ensemble.predictions.sharing import PredictedShard
from ensemble.progress import paced
from ensemble.run.outputs import require_output

SHARD_BATCHES = 32  # of BATCH images each: a kill costs half a minute, of an ensemble of 20 networks


@dataclass(frozen=True)
class FileRequest:
    """What to predict by an exported file, and where to write it.

    model: the file, opened
    images: a folder or a table
    output: the CSV to write
    sample_submission, form, on_bad: as in `PredictionRequest`
    """

    model: ExportedModel
    images: Path
    output: Path
    sample_submission: Path | None = None
    form: str | None = None
    on_bad: str = "error"


@dataclass(frozen=True)
class WrittenPrediction:
    """What `predict_file` has written.

    blend: its name
    classes: C names
    submission: the CSV
    said: what the CSV holds, in words
    rows: how many images it is of
    unreadable: how many of them have no prediction
    """

    blend: str
    classes: tuple[str, ...]
    submission: Path
    said: str
    rows: int
    unreadable: int


def predict_file(request: FileRequest, events: Events) -> WrittenPrediction:
    """Predict every image, or those that the sample submission names, and write the submission.

    Rows are predicted and saved in shards beside the output, so that the same call resumes after a kill and ends with
    the same bytes; at the end they are removed. Raises UserError and OSError as `tta_predict` does.
    """
    model, images, output = request.model, request.images, request.output
    layout, ids, files = images_wanted(
        images, request.sample_submission, model.classes, request.form, model.costs, events
    )
    require_output(output, [images, request.sample_submission, model.path, model.path / CASCADE_JSON])
    events.message(f"{pluralize(len(files), 'image')}; {model.summary()}")
    folder, claim_file = (output.with_name(f".{output.name}.{kind}") for kind in ("shards", "claim"))
    require_writable(output)
    with shards.locked(claim_file, output, "ens predict-file"):
        parts = shards.divide(folder, _digest(model), ids, files, SHARD_BATCHES * BATCH)
        clear_temporaries_of(output)
        shards.remove_others(folder, parts, events)
        unreadable = _fill(parts, files, request, events)
        shards.report_unreadable(ids, unreadable, events)
        if len(unreadable) == len(ids):
            shards.remove(folder)
            raise UserError(f"{images}: not one of its {len(ids)} images could be read")
        # The shards are removed last: after a kill before that, the same call finds them and writes the same bytes.
        said = write_submission(output, layout, ids, map(shards.read, parts))
        shards.remove(folder)
    said += f"; {pluralize(len(unreadable), 'image has', 'images have')} empty cells" if unreadable else ""
    return WrittenPrediction(model.description.blend, model.classes, output, said, len(ids), len(unreadable))


def _digest(model: ExportedModel) -> str:
    """SHA-256 of all that determines the numbers of every row."""
    engine = model.engine
    facts = [shards.FORMAT, model.digest, engine.name, engine.version, engine.threads, BATCH]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _fill(
    parts: Sequence[PredictionShard], files: Sequence[Path], request: FileRequest, events: Events
) -> dict[int, str]:
    """Predict the shards that are not finished. Returns for each row that could not be read the reason."""
    model = request.model
    rest = sharing.rest_of(parts, len(model.classes), request.on_bad, events)
    advance = paced(events, "predicting", len(files) - sum(map(len, rest.left)), len(files))

    def predict(taken: Iterator[PredictionShard]) -> Iterator[PredictedShard]:
        waiting: deque[PredictionShard] = deque()  # taken, and not yet given back

        def batches() -> Iterator[Sequence[Path]]:
            for part in taken:
                waiting.append(part)
                yield from (files[at : min(at + BATCH, part.stop)] for at in range(part.start, part.stop, BATCH))

        values: list[np.ndarray] = []
        reasons: dict[int, str] = {}
        with closing(model.stream(batches(), request.on_bad)) as stream:
            for probabilities, bad in stream:
                part, start = waiting[0], sum(map(len, values))
                values.append(probabilities)
                reasons |= {
                    start + row: shards.reason(line, files[part.start + start + row]) for row, line in bad.items()
                }
                advance(len(probabilities))
                if start + len(probabilities) == len(part):
                    yield waiting.popleft(), np.concatenate(values), reasons
                    values, reasons = [], {}

    sharing.fill(rest, predict, events)
    return rest.unreadable

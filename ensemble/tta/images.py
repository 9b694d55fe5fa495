"""Prediction of files and images in memory by a run's networks."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ensemble.blend import check_sources
from ensemble.data.pixels.decode import Source
from ensemble.errors import UserError
from ensemble.events import SILENT, Events
from ensemble.inference.frozen import load_frozen
from ensemble.inference.predict import FEW, Chunk, predict_stream
from ensemble.predictions.certainty import CertaintyRequest
from ensemble.predictions.images import Images, OneImage, Prediction, named_images, source_of
from ensemble.run import Run
from ensemble.run.networks import FROZEN_VIEWS, KINDS
from ensemble.tta.apply import blend_chunk, find_blend
from ensemble.tta.certainty import certainty_columns, compute_columns, feature_count, names_in_set
from ensemble.tta.chunks import chunk_rows
from ensemble.tta.early_exit import ExitStage, MemberAndView, exit_stages, predict_with_exits, scatter_logits
from ensemble.tta.predictor import Predictor, load_predictor

# Probabilities float32 (n, C), NaN in rows that could not be read, for each of these the reason, and columns by name.
Answered = tuple[np.ndarray, dict[int, str], dict[str, np.ndarray]]


def load(
    run: str | Path | Run,
    blend: str | None = None,
    views: Sequence[str] | None = None,
    networks: str = "folds",
    certainty: CertaintyRequest | None = None,
    events: Events = SILENT,
) -> Predictor:
    """See `ensemble.load`, of a run. certainty: what is said of each image beside its class. events: hears what
    `load_predictor` says, and the notes on that."""
    run = run if isinstance(run, Run) else Run(Path(run))
    name, fitted = find_blend(run, blend, views)
    if fitted.external:
        raise UserError(
            f"blend {name!r} holds {fitted.external[0]}, which ens did not train and can't predict new images with; "
            f"choose another blend, or fit one without it: ens blend {run}"
        )
    check_sources(run, name)
    if networks not in KINDS:
        raise UserError(f"networks = {networks!r}: must be one of {', '.join(KINDS)}")
    columns = certainty_columns(run, name, fitted, networks, certainty)
    for line in (line for each in columns for line in each.notes):
        events.message(line)
    predictor = replace(load_predictor(run, fitted, events, networks), certainty=columns)
    return replace(predictor, frozen=load_frozen(run, predictor.device)) if feature_count(columns) else predictor


def predict(predictor: Predictor, images: Images) -> Prediction:
    """See `ensemble.predict`."""
    probabilities, _, columns = _predicted(predictor, named_images(images), "error")
    classes = predictor.blend.classes
    labels = [classes[best] for best in predictor.blend.decide(probabilities)]
    sets = [names_in_set(each, classes) for each in columns["set"]] if "set" in columns else None
    unknown = (columns.get("unknown_score"), columns.get("unknown"))
    return Prediction(probabilities, classes, labels, sets, columns.get("abstain"), *unknown)


def predict_files(predictor: Predictor, files: Sequence[Path], on_bad: str) -> Answered:
    """The answer to N image files. on_bad: "error" raises UserError that names a file that could not be read."""
    return _predicted(predictor, [(str(file), file) for file in files], on_bad)


def _predicted(predictor: Predictor, sources: Sequence[tuple[str, OneImage]], on_bad: str) -> Answered:
    networks = sum(len(member.eval_models) for member in predictor.members)
    preprocesses = [member.preprocess for member in predictor.members]
    size = chunk_rows(preprocesses, networks, predictor.batch_size, predictor.device.type, predictor.views)
    starts = range(0, len(sources), size)
    parts = [sources[start : start + size] for start in starts]
    chunks = ([source_of(image, name) for name, image in part] for part in parts)  # each is made when it is needed
    blended: list[np.ndarray] = []
    said: list[dict[str, np.ndarray]] = []
    unreadable: dict[int, str] = {}
    few = len(sources) < FEW
    if predictor.blend.stages:
        answers = (_with_exits(predictor, chunk, on_bad, few) for chunk in chunks)
    else:
        views, batch, device = predictor.views, predictor.batch_size, predictor.device
        members = predictor.members
        if predictor.frozen is not None:
            members, views = (*members, predictor.frozen), (*views, FROZEN_VIEWS)
        stream = predict_stream(members, chunks, views, batch, device, on_bad, one_by_one=few)
        answers = (_at_once(predictor, chunk) for chunk in stream)
    for start, (probabilities, bad, columns) in zip(starts, answers, strict=True):
        blended.append(probabilities)
        said.append(columns)
        unreadable |= {start + row: reason for row, reason in bad.items()}
    together = {name: np.concatenate([columns[name] for columns in said]) for name in said[0]}
    return np.concatenate(blended), unreadable, together


def _at_once(predictor: Predictor, chunk: Chunk) -> Answered:
    """The answer of a plain blend to a chunk of images."""
    logits, features = chunk.values[: len(predictor.members)], None
    if predictor.frozen is not None:
        features = chunk.values[-1][0, 0]
    probabilities = blend_chunk(predictor.blend, logits, chunk.unreadable, [], logits[0].shape[2])
    columns = compute_columns(predictor.certainty, predictor.blend, probabilities, logits, chunk.unreadable, features)
    return probabilities, chunk.unreadable, columns


def _with_exits(predictor: Predictor, chunk: list[Source], on_bad: str, few: bool) -> Answered:
    """The answer of a cascade to n images. few: whether each image is a batch of its own."""
    blend, unreadable = predictor.blend, dict[int, str]()
    members = dict(zip(blend.trained, predictor.members, strict=True))
    logits: dict[MemberAndView, np.ndarray] = {}

    def compute(stage: ExitStage, rows: np.ndarray) -> None:
        [found] = predict_stream(
            [members[name] for name in stage.views],
            [[chunk[row] for row in rows]],
            list(stage.views.values()),
            predictor.batch_size,
            predictor.device,
            on_bad,
            one_by_one=few,
        )
        unreadable.update({int(rows[at]): reason for at, reason in found.unreadable.items()})
        scatter_logits(logits, stage, found.values, rows, len(chunk))

    probabilities, _ = predict_with_exits(exit_stages(blend), len(chunk), logits, unreadable, compute, ())
    return probabilities, unreadable, compute_columns(predictor.certainty, blend, probabilities, (), unreadable)

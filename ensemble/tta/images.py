"""Prediction of files and images in memory by a run's networks."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ensemble.blend import check_sources
from ensemble.data.pixels.decode import Source
from ensemble.errors import UserError
from ensemble.events import SILENT, Events
from ensemble.inference.predict import FEW, predict_stream
from ensemble.predictions.images import Images, OneImage, Prediction, named_images, source_of
from ensemble.run import Run
from ensemble.run.networks import KINDS
from ensemble.tta.apply import blend_chunk, find_blend
from ensemble.tta.chunks import chunk_rows
from ensemble.tta.early_exit import ExitStage, MemberAndView, exit_stages, predict_with_exits, scatter_logits
from ensemble.tta.predictor import Predictor, load_predictor


def load(
    run: str | Path | Run,
    blend: str | None = None,
    views: Sequence[str] | None = None,
    networks: str = "folds",
    events: Events = SILENT,
) -> Predictor:
    """See `ensemble.load`, of a run. events: hears what `load_predictor` says."""
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
    return load_predictor(run, fitted, events, networks)


def predict(predictor: Predictor, images: Images) -> Prediction:
    """See `ensemble.predict`."""
    probabilities, _ = _predicted(predictor, named_images(images), "error")
    classes = predictor.blend.classes
    return Prediction(probabilities, classes, [classes[best] for best in predictor.blend.decide(probabilities)])


def predict_files(predictor: Predictor, files: Sequence[Path], on_bad: str) -> tuple[np.ndarray, dict[int, str]]:
    """Probabilities of N image files, float32 (N, C), NaN in rows that could not be read, and for each such row the
    reason. on_bad: "error" raises UserError that names the file instead."""
    return _predicted(predictor, [(str(file), file) for file in files], on_bad)


def _predicted(
    predictor: Predictor, sources: Sequence[tuple[str, OneImage]], on_bad: str
) -> tuple[np.ndarray, dict[int, str]]:
    networks = sum(len(member.eval_models) for member in predictor.members)
    preprocesses = [member.preprocess for member in predictor.members]
    size = chunk_rows(preprocesses, networks, predictor.batch_size, predictor.device.type, predictor.views)
    starts = range(0, len(sources), size)
    parts = [sources[start : start + size] for start in starts]
    chunks = ([source_of(image, name) for name, image in part] for part in parts)  # each is made when it is needed
    blended = []
    unreadable: dict[int, str] = {}
    few = len(sources) < FEW
    if predictor.blend.stages:
        answers = (_with_exits(predictor, chunk, on_bad, few) for chunk in chunks)
    else:
        views, batch, device = predictor.views, predictor.batch_size, predictor.device
        stream = predict_stream(predictor.members, chunks, views, batch, device, on_bad, one_by_one=few)
        answers = (
            (blend_chunk(predictor.blend, chunk.values, chunk.unreadable, [], len(part)), chunk.unreadable)
            for part, chunk in zip(parts, stream, strict=True)
        )
    for start, (probabilities, bad) in zip(starts, answers, strict=True):
        blended.append(probabilities)
        unreadable |= {start + row: reason for row, reason in bad.items()}
    return np.concatenate(blended), unreadable


def _with_exits(predictor: Predictor, chunk: list[Source], on_bad: str, few: bool) -> tuple[np.ndarray, dict[int, str]]:
    """A cascade's probabilities of n images, float32 (n, C), and why some could not be read. few: whether each image is
    a batch of its own."""
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

    return predict_with_exits(exit_stages(blend), len(chunk), logits, unreadable, compute, ())[0], unreadable

"""What is served: what `ens export` wrote, or a run, behind one small surface."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ensemble.data.pixels.decode import decode_each, middle_square
from ensemble.errors import UserError
from ensemble.events import SILENT, Events
from ensemble.exported.cascade_description import is_cascade
from ensemble.predictions.certainty import OF_FILES, CertaintyRequest
from ensemble.run import Run

ImageSquares = Mapping[Any, np.ndarray]  # one image: for each input of the model uint8 (side, side, 3)
# Of n images the probabilities float32 (n, C), those of each member by itself (M, n, C), NaN where a cascade did not
# ask it, and perhaps what is said beside the class, (n, ...) by name, see `ensemble.tta.certainty`.
ModelAnswer = tuple[np.ndarray, np.ndarray] | tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]
IMAGE = "upload"  # what an image that came over the network is called in errors


@dataclass(frozen=True)
class ServedModel:
    """A model that predicts images.

    name: of the file or the run
    classes: C names
    members: M names
    decode: from a file's bytes to its squares, in any thread. Raises UserError that begins with `IMAGE`
    predict: n images; in one thread at a time
    decide: from probabilities (n, C) to the numbers of the predicted classes (n,)
    """

    name: str
    classes: tuple[str, ...]
    members: tuple[str, ...]
    decode: Callable[[bytes], ImageSquares]
    predict: Callable[[Sequence[ImageSquares]], ModelAnswer]
    decide: Callable[[np.ndarray], np.ndarray]


def load_model(
    path: Path,
    blend: str | None,
    networks: str | None,
    threads: int,
    engine: str = "auto",
    certainty: CertaintyRequest | None = None,
    events: Events = SILENT,
) -> ServedModel:
    """The model of an exported file or cascade, or of a run. blend, networks, certainty: of a run, as in
    `ensemble.tta.images.load`. engine: of a file. Raises UserError as that and `load_exported` do, if a blend, networks
    or certainty are asked of a file, which has its own or can't say, or an engine of a run, whose networks are computed
    as they were scored."""
    if path.is_dir() and not is_cascade(path):
        if engine != "auto":
            raise UserError(
                f"{path}: --engine is for exported files; a run's networks are computed as they were scored"
            )
        Run(path).require()  # before torch is imported, which takes seconds
        return _of_run(path, blend, networks or "folds", threads, certainty, events)
    if blend is not None or networks is not None:
        raise UserError(f"{path}: --blend and --networks choose within a run; an exported file has its blend inside")
    if certainty is not None:
        raise UserError(f"{path}: {OF_FILES}")
    return _of_file(path, threads, engine)


def _of_file(path: Path, threads: int, engine: str) -> ServedModel:
    from ensemble.exported.model import load_exported

    exported = load_exported(path, threads, engine)

    def predict(images: Sequence[ImageSquares]) -> tuple[np.ndarray, np.ndarray]:
        inputs = exported.description.inputs
        return exported.probabilities({name: np.stack([image[name] for image in images]) for name in inputs})

    def decode(data: bytes) -> ImageSquares:
        return exported.decode(data, IMAGE)

    members = tuple(exported.description.members)
    return ServedModel(path.name, exported.classes, members, decode, predict, exported.decide)


def _of_run(
    path: Path,
    blend_name: str | None,
    networks: str,
    threads: int,
    certainty: CertaintyRequest | None,
    events: Events,
) -> ServedModel:
    import torch

    from ensemble.blend.probabilities import softmax
    from ensemble.inference.decodings import decodings
    from ensemble.inference.predict import FEW, Group, batch_rows, forward_groups
    from ensemble.run.networks import FROZEN_VIEWS
    from ensemble.tta.certainty import compute_columns
    from ensemble.tta.early_exit import (
        ExitStage,
        MemberAndView,
        exit_stages,
        members_of,
        predict_with_exits,
        scatter_logits,
    )
    from ensemble.tta.images import load

    predictor = load(Run(path), blend_name, None, networks, certainty, events)
    blend, device = predictor.blend, predictor.device
    members, stages = dict(zip(blend.trained, predictor.members, strict=True)), exit_stages(blend)
    preprocesses = {name: member.preprocess for name, member in members.items()}
    needed = list(
        dict.fromkeys(each for name, views in blend.trained.items() for each in decodings(preprocesses[name], views))
    )
    frozen = predictor.frozen
    if frozen is not None:
        needed += [each for each in decodings(frozen.preprocess, FROZEN_VIEWS) if each not in needed]

    def decode(data: bytes) -> ImageSquares:
        torch.set_num_threads(1)  # of this thread: several decode side by side
        images = decode_each(Path(IMAGE), data, needed)
        return {decoding: middle_square(image) for decoding, image in zip(needed, images, strict=True)}

    def predict(images: Sequence[ImageSquares]) -> ModelAnswer:
        torch.set_num_threads(threads)
        squares = {each: torch.from_numpy(np.stack([image[each] for image in images])).to(device) for each in needed}
        logits: dict[MemberAndView, np.ndarray] = {}

        def compute(stage: ExitStage, rows: np.ndarray) -> None:
            groups = [
                Group(preprocesses[name], views, members[name].eval_models) for name, views in stage.views.items()
            ]
            is_few = device.type == "cpu" and len(rows) < FEW
            batch = 1 if is_few else batch_rows(predictor.batch_size, device)
            some = (
                squares
                if len(rows) == len(images)
                else {each: pixels[torch.from_numpy(rows)] for each, pixels in squares.items()}
            )
            found = forward_groups(groups, some, batch, device)  # of each network (1 or K, V, n, C)
            scatter_logits(logits, stage, [np.concatenate(values) for values in found], rows, len(images))

        probabilities, _ = predict_with_exits(stages, len(images), logits, {}, compute, ())
        of_members = np.full((len(members), *probabilities.shape), np.nan, dtype=np.float32)
        for number, (name, views) in enumerate(blend.trained.items()):
            answered = [logits[name, view] for view in views if (name, view) in logits]
            if answered:  # a cascade may not have run it, or not under all its views
                of_members[number] = softmax(_mean_of_known(np.stack(answered))).mean(axis=0)
        if not predictor.certainty:
            return probabilities, of_members
        whole, features = () if blend.stages else members_of(blend, logits), None
        if frozen is not None:
            batch = 1 if device.type == "cpu" and len(images) < FEW else batch_rows(predictor.batch_size, device)
            group = Group(frozen.preprocess, FROZEN_VIEWS, frozen.eval_models)
            features = forward_groups([group], squares, batch, device)[0][0][0, 0]
        columns = compute_columns(predictor.certainty, blend, probabilities, whole, (), features)
        return probabilities, of_members, columns

    return ServedModel(path.name, blend.classes, tuple(blend.trained), decode, predict, blend.decide)


def _mean_of_known(values: np.ndarray) -> np.ndarray:
    """The mean over the views, float32 (K, n, C), of float32 (V, K, n, C) that are NaN where a view was not run."""
    known = ~np.isnan(values)
    counts = known.sum(axis=0)
    means = np.where(known, values, 0).sum(axis=0) / np.maximum(counts, 1)
    return np.where(counts > 0, means, np.nan).astype(np.float32)

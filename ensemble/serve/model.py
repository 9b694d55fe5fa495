"""What is served: a file of `ens export`, or a run, behind one small surface."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ensemble.data.pixels.decode import decode_each, middle_square
from ensemble.errors import UserError
from ensemble.run import Run

ImageSquares = Mapping[Any, np.ndarray]  # one image: for each input of the model uint8 (side, side, 3)
IMAGE = "upload"  # what an image that came over the network is called in errors


@dataclass(frozen=True)
class ServedModel:
    """A model that predicts images.

    name: of the file or the run
    classes: C names
    members: M names
    decode: from a file's bytes to its squares, in any thread. Raises UserError that begins with `IMAGE`
    predict: of n images the probabilities float32 (n, C), and those of each member by itself (M, n, C); in one thread
        at a time
    decide: from probabilities (n, C) to the numbers of the predicted classes (n,)
    """

    name: str
    classes: tuple[str, ...]
    members: tuple[str, ...]
    decode: Callable[[bytes], ImageSquares]
    predict: Callable[[Sequence[ImageSquares]], tuple[np.ndarray, np.ndarray]]
    decide: Callable[[np.ndarray], np.ndarray]


def load_model(path: Path, blend: str | None, networks: str | None, threads: int) -> ServedModel:
    """The model of an exported file or of a run. blend, networks: of a run, as in `ensemble.load`. Raises UserError as
    that and `load_exported` do, and if a blend or networks are named for a file, which has its own."""
    if path.is_dir():
        Run(path).require()  # before torch is imported, which takes seconds
        return _of_run(path, blend, networks or "folds", threads)
    if blend is not None or networks is not None:
        raise UserError(f"{path}: --blend and --networks choose within a run; an exported file has its blend inside")
    return _of_file(path, threads)


def _of_file(path: Path, threads: int | None) -> ServedModel:
    from ensemble.exported.model import load_exported

    exported = load_exported(path, threads)

    def predict(images: Sequence[ImageSquares]) -> tuple[np.ndarray, np.ndarray]:
        inputs = exported.description.inputs
        return exported.probabilities({name: np.stack([image[name] for image in images]) for name in inputs})

    def decode(data: bytes) -> ImageSquares:
        return exported.decode(data, IMAGE)

    members = tuple(exported.description.members)
    return ServedModel(path.name, exported.classes, members, decode, predict, exported.decide)


def _of_run(path: Path, blend_name: str | None, networks: str, threads: int) -> ServedModel:
    import torch

    from ensemble.blend.probabilities import softmax
    from ensemble.inference.decodings import decodings
    from ensemble.inference.predict import FEW, Group, batch_rows, forward_groups
    from ensemble.tta.apply import blend_chunk
    from ensemble.tta.images import load

    predictor = load(Run(path), blend_name, None, networks)
    if predictor.blend.stages:
        raise UserError(
            "the blend is a cascade, and a server asks all networks at once; serve the blend it was made of"
        )
    blend, device = predictor.blend, predictor.device
    groups = [
        Group(member.preprocess, views, member.eval_models)
        for member, views in zip(predictor.members, predictor.views, strict=True)
    ]
    needed = list(dict.fromkeys(each for group in groups for each in decodings(group.preprocess, group.views)))

    def decode(data: bytes) -> ImageSquares:
        torch.set_num_threads(1)  # of this thread: several decode side by side
        images = decode_each(Path(IMAGE), data, needed)
        return {decoding: middle_square(image) for decoding, image in zip(needed, images, strict=True)}

    def predict(images: Sequence[ImageSquares]) -> tuple[np.ndarray, np.ndarray]:
        torch.set_num_threads(threads)
        squares = {each: torch.from_numpy(np.stack([image[each] for image in images])).to(device) for each in needed}
        is_few = device.type == "cpu" and len(images) < FEW
        rows = 1 if is_few else batch_rows(predictor.batch_size, device)
        logits = [np.concatenate(values) for values in forward_groups(groups, squares, rows, device)]  # (K, V, n, C)
        of_members = np.stack([softmax(values.mean(axis=1)).mean(axis=0) for values in logits])
        return blend_chunk(blend, logits, [], [], len(images)), of_members

    return ServedModel(path.name, blend.classes, tuple(blend.trained), decode, predict, blend.decide)

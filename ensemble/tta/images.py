"""Prediction from Python: files, PIL images, arrays and tensors are all decoded as the command line decodes files."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Union

import numpy as np
import torch
from PIL import Image

from ensemble.blend import check_sources
from ensemble.data.inputs import refuse_address
from ensemble.data.pixels.decode import what_is_wrong
from ensemble.data.pixels.jpeg import check_whole, read_jpeg
from ensemble.data.pixels.open_image import without_pillow_limit
from ensemble.data.pixels.upright import orientation
from ensemble.errors import UserError
from ensemble.events import SILENT
from ensemble.inference.decode import Source
from ensemble.inference.predict import predict_stream
from ensemble.run import Run
from ensemble.run.networks import KINDS
from ensemble.tta.apply import blend_chunk, find_blend
from ensemble.tta.predictor import Predictor, load_predictor
from ensemble.tta.shards import chunk_rows

OneImage = str | Path | Image.Image | np.ndarray | torch.Tensor
Images = Union[OneImage, Sequence["Images"]]  # noqa: UP007 - it names itself

ARRAY = "uint8 (H, W, 3) or (H, W), or (N, H, W, 3)"
TENSOR = "uint8, or float in [0, 1], (3, H, W) or (N, 3, H, W)"


@dataclass(frozen=True)
class Prediction:
    """A blend's prediction of N images.

    probabilities: float32 (N, C), each row sums to 1
    classes: C names
    labels: for each image the class of the largest probability, or of the least expected cost if the blend knows what
        mistakes cost
    """

    probabilities: np.ndarray
    classes: tuple[str, ...]
    labels: list[str]


def load(
    run: str | Path | Run, blend: str | None = None, views: Sequence[str] | None = None, networks: str = "folds"
) -> Predictor:
    """A run's blend with its networks on the device, for many calls of `predict`.

    run: a run directory
    blend: the name of a blend; None for the run's only one
    views: must be those that the blend was fitted on, as they are for None
    networks: which of its members' networks predict: those of the folds, their "soup" (of `ens soup`) or "refit"

    Raises UserError for a run, blend, views or files that don't fit, and for a blend with a member that ens did not
    train, which can't predict other images.

    >>> predictor = ens.load("runs/art", "mean")
    >>> ens.predict(predictor, "data/art/train/a/0.png").classes
    ('a', 'b')
    """
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
    return load_predictor(run, fitted, SILENT, networks)


def predict(
    run: str | Path | Run | Predictor, images: Images, views: Sequence[str] | None = None, blend: str | None = None
) -> Prediction:
    """The blend's prediction of one image or several, to the bit that of `ens tta-predict` for files of these pixels.

    run: a run directory, or what `load` gives, with which no network is read from disk again
    images: the path of an image file; a PIL image; an array uint8 (H, W, 3), or (H, W) for grey; a tensor uint8
        (3, H, W) or float (3, H, W) in [0, 1]; a batch of such arrays (N, H, W, 3) or tensors (N, 3, H, W); or a list
        of any of these
    views, blend: as in `load`; None for what `load` gives, since it was loaded with them

    Floats are rounded to bytes, as a file would hold them, and must not be normalised by a mean. All images are turned
    upright, scaled and cropped as files are. A JPEG that PIL has opened is scaled down from its full size; one given by
    its path is first decoded at a fraction of its size, as JPEG allows.

    Raises UserError that names an image's place in the list, what it is and what is wanted, or the file that can't be
    read, and as `load` does.

    >>> prediction = ens.predict("runs/art", ["data/art/train/a/0.png", "data/art/train/b/1.png"])
    >>> prediction.probabilities.shape, len(prediction.labels)
    ((2, 2), 2)
    """
    sources = list(_checked(images, "images"))
    if not sources:
        raise UserError("images: there are none; want one or more")
    if not isinstance(run, Predictor):
        run = load(run, blend, views)
    elif views is not None or blend is not None:
        raise UserError("views and blend were chosen when the run was loaded; give them to ensemble.load instead")
    probabilities, _ = _predicted(run, sources, "error")
    classes = run.blend.classes
    return Prediction(probabilities, classes, [classes[best] for best in run.blend.decide(probabilities)])


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
    chunks = ([_source(image, name) for name, image in part] for part in parts)  # each is made when it is needed
    stream = predict_stream(predictor.members, chunks, predictor.views, predictor.batch_size, predictor.device, on_bad)
    blended = []
    unreadable: dict[int, str] = {}
    for start, part, chunk in zip(starts, parts, stream, strict=True):
        blended.append(blend_chunk(predictor.blend, chunk.values, chunk.unreadable, [], len(part)))
        unreadable |= {start + row: reason for row, reason in chunk.unreadable.items()}
    return np.concatenate(blended), unreadable


def _checked(images: Images, name: str) -> Iterator[tuple[str, OneImage]]:
    """Every single image with its name for errors. Raises UserError for one of another type, shape or dtype, before the
    first image is predicted."""
    if isinstance(images, (list, tuple)):
        for row, image in enumerate(images):
            yield from _checked(image, f"{name}[{row}]")
    elif isinstance(images, (np.ndarray, torch.Tensor)):
        if images.ndim == 4:
            for row in range(len(images)):
                yield from _checked(images[row], f"{name}[{row}]")
            return
        if not _is_image(images):
            kind, wanted = ("an array", ARRAY) if isinstance(images, np.ndarray) else ("a tensor", TENSOR)
            found = f"{str(images.dtype).removeprefix('torch.')} {tuple(images.shape)}"
            raise UserError(f"{name}: {kind} {found}; want {wanted}")
        yield name, images
    elif isinstance(images, (str, Path)):
        refuse_address(images)
        if not Path(images).is_file():
            reason = "is a folder; name the files in it" if Path(images).is_dir() else "no such file"
            raise UserError(f"{name}: {images}: {reason}")
        yield name, images
    elif isinstance(images, Image.Image):
        if 0 in images.size:
            raise UserError(f"{name}: a PIL image of {images.width} x {images.height} pixels has none")
        yield name, images
    else:
        raise UserError(f"{name}: a {type(images).__name__}; want a path, a PIL image, an array, a tensor or a list")


def _is_image(image: np.ndarray | torch.Tensor) -> bool:
    if 0 in image.shape:
        return False
    if isinstance(image, np.ndarray):
        return image.dtype == np.uint8 and (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3))
    is_number = image.dtype == torch.uint8 or image.dtype.is_floating_point
    return is_number and image.ndim == 3 and image.shape[0] == 3


def _source(image: OneImage, name: str) -> Source:
    """A single image as a file's path, or as a PIL image with its pixels loaded: threads that decode can't share the
    loading."""
    if isinstance(image, (str, Path)):
        return Path(image)
    if isinstance(image, torch.Tensor):
        pixels = image.detach().cpu()
        if pixels.dtype != torch.uint8:
            pixels = pixels.float()
            if not bool(((pixels >= 0) & (pixels <= 1)).all()):
                least, most = float(pixels.min()), float(pixels.max())
                raise UserError(f"{name}: a tensor with values from {least:.3g} to {most:.3g}; want [0, 1]")
            pixels = (255 * pixels).round().to(torch.uint8)
        image = pixels.permute(1, 2, 0).numpy()
    if isinstance(image, np.ndarray):
        return Image.fromarray(np.ascontiguousarray(image))
    try:
        image = _loaded(image)
        orientation(image)  # read once here: PIL's own lazy reading is not made for threads
    except Exception as error:  # Pillow's plugins raise whatever a broken file leads them to
        if isinstance(error, AssertionError) or "closed" in str(error):  # Pillow before and since 12
            raise UserError(f"{name}: a PIL image that was closed; give it while it is open, or its path") from None
        raise UserError(f"{name}: not a readable image ({what_is_wrong(error)})") from None
    return image


def _loaded(image: Image.Image) -> Image.Image:
    """The image with its pixels read. A JPEG that PIL has opened and not read yet may lack its end marker, but nothing
    else, as a file may."""
    stream = getattr(image, "fp", None)
    if stream is None or image.format not in ("JPEG", "MPO") or not getattr(image, "tile", None):
        image.load()
        return image
    stream.seek(0)
    jpeg = read_jpeg(stream.read())
    if jpeg is not None and not jpeg.closed:
        with without_pillow_limit():
            image = Image.open(io.BytesIO(jpeg.data))
    image.load()
    if jpeg is not None:
        check_whole(jpeg, image)
    return image

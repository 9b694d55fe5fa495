"""Prediction from Python: what may be given as an image, and what comes back. Files, PIL images, arrays and tensors are
all decoded as the command line decodes files."""

import io
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Union

import numpy as np
from PIL import Image
from typing_extensions import TypeIs

from ensemble.data.names import refuse_address
from ensemble.data.pixels.decode import Source, what_is_wrong
from ensemble.data.pixels.jpeg import check_whole, read_jpeg
from ensemble.data.pixels.open_image import without_pillow_limit
from ensemble.data.pixels.upright import orientation
from ensemble.errors import UserError

if TYPE_CHECKING:
    import torch

OneImage = Union[str, Path, Image.Image, np.ndarray, "torch.Tensor"]
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
    sets: for each image the classes of its prediction set; None unless `ensemble.load` was asked for sets
    abstain: bool (N,), whether the image is better left unanswered; None unless that was asked for
    unknown_score: float32 (N,), how unlike the training images each is; None unless `unknown` was asked for
    unknown: bool (N,), whether it is so unlike them that it may be none of the classes; None unless that was asked for
    """

    probabilities: np.ndarray
    classes: tuple[str, ...]
    labels: list[str]
    sets: list[tuple[str, ...]] | None = None
    abstain: np.ndarray | None = None
    unknown_score: np.ndarray | None = None
    unknown: np.ndarray | None = None


def named_images(images: Images, name: str = "images") -> list[tuple[str, OneImage]]:
    """Every single image with its name for errors. Raises UserError for one of another type, shape or dtype, and where
    there are none."""
    named = list(_checked(images, name))
    if not named:
        raise UserError(f"{name}: there are none; want one or more")
    return named


def _checked(images: Images, name: str) -> Iterator[tuple[str, OneImage]]:
    if isinstance(images, (list, tuple)):
        for row, image in enumerate(images):
            yield from _checked(image, f"{name}[{row}]")
    elif isinstance(images, np.ndarray) or _is_tensor(images):
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


def _is_image(image: "np.ndarray | torch.Tensor") -> bool:
    if 0 in image.shape:
        return False
    if isinstance(image, np.ndarray):
        return image.dtype == np.uint8 and (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3))
    is_number = str(image.dtype) == "torch.uint8" or image.dtype.is_floating_point
    return is_number and image.ndim == 3 and image.shape[0] == 3


def source_of(image: OneImage, name: str) -> Source:
    """A single image as a file's path, or as a PIL image with its pixels loaded: threads that decode can't share the
    loading."""
    if isinstance(image, (str, Path)):
        return Path(image)
    if _is_tensor(image):
        pixels = image.detach().cpu()
        if pixels.dtype.is_floating_point:
            pixels = pixels.float()
            if not bool(((pixels >= 0) & (pixels <= 1)).all()):
                least, most = float(pixels.min()), float(pixels.max())
                raise UserError(f"{name}: a tensor with values from {least:.3g} to {most:.3g}; want [0, 1]")
            pixels = (255 * pixels).round().byte()
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


def _is_tensor(image: object) -> "TypeIs[torch.Tensor]":
    """Whoever has a tensor has loaded torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(image, torch.Tensor)


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

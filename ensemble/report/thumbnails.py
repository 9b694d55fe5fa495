"""Small pictures for the page, inside of it: data URIs of JPEGs.

They are made from the files, not from the cache of decoded pixels: that is found by what a file holds, so the file has
to be there anyway, and it holds a picture without what `data.crop` and the longest aspect ratio cut off, which is what
a person wants to see who doubts a label. A page shows at most a few hundred; one takes 1 ms from a file of 256 px, and
about 20 from one of 12 megapixels, of which JPEG decodes an eighth of each side.
"""

import base64
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ensemble.config import Config
from ensemble.data.labelled import read_labelled
from ensemble.data.pixels.decode import read
from ensemble.data.pixels.jpeg import read_jpeg
from ensemble.data.pixels.modes import rgb
from ensemble.data.pixels.open_image import open_image
from ensemble.data.pixels.upright import SWAPPED, orientation, turned
from ensemble.errors import UserError
from ensemble.files.limits import too_many_pixels
from ensemble.machine import cores

SIDE = 256  # px of the longer side
QUALITY = 76
SHEET_QUALITY = 50


@dataclass(frozen=True)
class Thumbnail:
    """A small picture.

    uri: its JPEG as a data URI; "" if there is none
    width, height: px
    problem: why there is no picture; "" if there is one
    """

    uri: str
    width: int
    height: int
    problem: str = ""


def image_files(config: Config | None) -> dict[str, Path]:
    """id -> file of the run's labelled images. Raises UserError where they can't be found."""
    if config is None:
        raise UserError("config.toml can't be read, so the images can't be found")
    try:
        samples = read_labelled(config)
    except UserError as error:
        raise UserError(f"{error}; paths start where ens train-folds was run: run this there too") from None
    return dict(zip(samples.ids.tolist(), samples.paths, strict=True))


def thumbnails(files: Sequence[Path | None], side: int = SIDE) -> list[Thumbnail]:
    """The whole picture of each file, upright, its longer side at most `side`. A file that can't be shown gives the
    reason instead."""
    with ThreadPoolExecutor(cores()) as pool:
        return list(pool.map(lambda file: _thumbnail(file, side), files))


def sheet(files: Sequence[Path | None], side: int, columns: int) -> str:
    """The middle square of each file as one picture, `columns` of them in a row: a data URI. A file that can't be shown
    is a grey square."""
    with ThreadPoolExecutor(cores()) as pool:
        squares = list(pool.map(lambda file: _square(file, side), files))
    whole = Image.new("RGB", (side * columns, side * -(-len(files) // columns)), (128, 128, 128))
    for number, square in enumerate(squares):
        if square is not None:
            whole.paste(square, (number % columns * side, number // columns * side))
    return _data_uri(whole, SHEET_QUALITY)


def from_pixels(pixels: np.ndarray, side: int = SIDE) -> Thumbnail:
    """The picture of an array, uint8 (height, width, 3), its longer side at most `side`."""
    return _encoded(Image.fromarray(pixels), side)


def upright_size(file: Path) -> tuple[int, int]:
    """Width and height of the whole picture, upright, from its header. Raises UserError that names the file."""
    try:
        with open_image(file) as image:
            width, height = image.size
            swapped = image.format != "TIFF" and orientation(image) in SWAPPED
    except Exception:  # Pillow's plugins raise whatever a broken file leads them to
        raise UserError(f"{file}: not a readable image; replace it or remove it") from None
    return (height, width) if swapped else (width, height)


def _thumbnail(file: Path | None, side: int) -> Thumbnail:
    if file is None:
        return Thumbnail("", side, side, "not among the images of the config")
    try:
        return _encoded(_upright(file, side), side)
    except UserError as error:
        return Thumbnail("", side, side, "the file is missing" if not file.exists() else str(error))
    except Exception:  # as above
        return Thumbnail("", side, side, "not a readable image")


def _square(file: Path | None, side: int) -> Image.Image | None:
    if file is None:
        return None
    try:
        return ImageOps.fit(_upright(file, side), (side, side), Image.Resampling.BOX)
    except Exception:  # as above
        return None


def _upright(file: Path, side: int) -> Image.Image:
    """The whole picture, a JPEG at a fraction of its size, which is above `side`. Raises UserError, and whatever
    Pillow's plugins raise."""
    data = read(file)
    jpeg = read_jpeg(data)
    with open_image(io.BytesIO(jpeg.data if jpeg else data)) as image:
        if large := too_many_pixels(image.size):
            raise UserError(f"{file}: {large}")
        image.draft(None, (2 * side, 2 * side))
        image.load()
        return turned(rgb(image, data)[0], orientation(image))


def _encoded(image: Image.Image, side: int) -> Thumbnail:
    image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=None)
    return Thumbnail(_data_uri(image, QUALITY), image.width, image.height)


def _data_uri(image: Image.Image, quality: int) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"

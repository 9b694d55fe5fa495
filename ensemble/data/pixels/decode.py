"""Files to uint8 pixels. One decoder serves training, out-of-fold evaluation and prediction, so all see the same.

An image is turned upright (EXIF), cut to the run's fixed centre crop if it has one, and scaled so that its shorter
side is `decode_size`. Its longer side is kept up to twice that, which random crops need; evaluation takes the middle
square.

`Pixels` lie decoded in memory or in a mapped file (cache.py fills it); `Files` are decoded each time they are asked
for. Both have `shapes`, `image` and `squares`.
"""

import io
import re
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from ensemble.data.pixels.jpeg import Jpeg, check_whole, read_jpeg
from ensemble.data.pixels.modes import rgb
from ensemble.data.pixels.open_image import open_image, without_pillow_limit
from ensemble.data.pixels.preprocess import Decoding
from ensemble.data.pixels.resize import resized
from ensemble.data.pixels.upright import SWAPPED, orientation, turned
from ensemble.errors import UserError
from ensemble.files.limits import too_many_pixels
from ensemble.machine import cores

INTERPOLATION = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
Source = Path | Image.Image
MAX_ASPECT = 2  # of the longer side to the shorter: a panorama's ends are cut rather than stored


@dataclass(frozen=True)
class Pixels:
    """N decoded images of their own shapes, in several flat arrays that may be mapped files. Rows may share pixels.

    parts: uint8, flat.
    part: int32 (N,), which of them holds a row.
    starts: int64 (N,), where in it the row begins.
    shapes: int64 (N, 2), height and width.
    """

    parts: tuple[np.ndarray, ...]
    part: np.ndarray
    starts: np.ndarray
    shapes: np.ndarray

    def image(self, row: int) -> np.ndarray:
        """uint8 (height, width, 3), a view."""
        height, width = self.shapes[row]
        start = self.starts[row]
        part: np.ndarray = self.parts[self.part[row]]
        return part[start : start + height * width * 3].reshape(height, width, 3)

    def squares(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """The middle square of each row, uint8 (len(rows), size, size, 3): what evaluation and prediction see."""
        return np.stack([middle_square(self.image(row)) for row in rows])

    def flat(self) -> tuple[np.ndarray, np.ndarray]:
        """All images in one flat uint8 array, in the order of the rows, and where each begins, int64 (N,).

        A new array, to be copied to a device; rows that share their pixels still do.
        """
        at: dict[tuple[int, int], int] = {}
        rows = []
        end = 0
        for row, place in enumerate(zip(self.part.tolist(), self.starts.tolist(), strict=True)):
            if place not in at:
                at[place] = end
                end += int(self.shapes[row].prod()) * 3
                rows.append(row)
        flat = np.empty(end, dtype=np.uint8)
        end = 0
        for row in rows:
            image = self.image(row).reshape(-1)
            flat[end : end + image.size] = image
            end += image.size
        places = zip(self.part.tolist(), self.starts.tolist(), strict=True)
        return flat, np.array([at[place] for place in places], dtype=np.int64)


class Files:
    """N image files with the surface of `Pixels`, each read and decoded anew whenever it is asked for.

    paths: N files.
    decoding: its size may be None.
    shapes: int64 (N, 2), height and width of what `image` gives.
    """

    def __init__(self, paths: Sequence[Path], decoding: Decoding) -> None:
        """Read all headers, in parallel. Raises UserError that names an unreadable image."""
        self.paths = tuple(paths)
        self.decoding = decoding
        with ThreadPoolExecutor(cores()) as pool:
            shapes = list(pool.map(lambda path: shape(path, decoding), self.paths))
        self.shapes = np.array(shapes, dtype=np.int64).reshape(-1, 2)

    def image(self, row: int) -> np.ndarray:
        """uint8 (height, width, 3). Raises UserError that names the file."""
        return decode(self.paths[row], self.decoding)

    def squares(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """The middle square of each row, uint8 (len(rows), size, size, 3), decoded in parallel. Not for size None,
        where the squares differ in size. Raises UserError that names the file."""
        paths = [self.paths[row] for row in rows]
        return np.stack([middle_square(image) for image in decoded(paths, self.decoding)])


def decode(path: Path, decoding: Decoding) -> np.ndarray:
    """Decode one file to uint8 (height, width, 3) with shorter side `decoding.size`, or at its own scale for None.

    Grey, palette, CMYK and 16-bit images become RGB; transparent ones are laid on white, as viewers show them. Raises
    UserError that names the file.
    """
    return decode_each(path, read(path), [decoding])[0]


def decode_each(path: Path, data: bytes, decodings: Sequence[Decoding]) -> list[np.ndarray]:
    """Decode the bytes of one file in several ways, each to exactly what `decode` gives.

    The file is decoded once for all ways that want the same of JPEG's scales, so once for a file of any other kind.
    Raises UserError that names `path`.
    """
    upright: dict[tuple[int, int], Image.Image] = {}
    images = []
    jpeg = read_jpeg(data)
    for decoding in decodings:
        with _opened(path, io.BytesIO(jpeg.data if jpeg else data), decoding) as file:
            if file.size not in upright:
                upright[file.size] = _upright(file, data, jpeg)
            images.append(_cut_and_scaled(upright[file.size], decoding))
    return images


def decode_image(image: Image.Image, decoding: Decoding) -> np.ndarray:
    """An image that is in memory as `decode` gives it for a file: the same bytes for any format but JPEG, which a file
    may have decoded at a lower scale. Raises UserError for pixels that have no known scale."""
    with _naming(Path(getattr(image, "filename", "") or "image in memory")), without_pillow_limit():
        return _cut_and_scaled(_upright(image), decoding)


def shape(path: Path, decoding: Decoding, upright: bool = True) -> tuple[int, int]:
    """Height and width of what `decode` gives, from the header. Raises UserError that names the file.

    upright: False leaves the EXIF orientation aside, so that the two may be swapped (and a crop is another one). A PNG
    may carry it behind its pixels, which are then decoded too.
    """
    with _naming(path), path.open("rb") as stream, _opened(path, stream, decoding) as file:
        width, height = file.size
        # a TIFF's size is upright from the start
        if upright and file.format != "TIFF" and orientation(file) in SWAPPED:
            width, height = height, width
    if decoding.crop is not None:
        width, height = min(width, decoding.crop[1]), min(height, decoding.crop[0])
    short = min(width, height)
    width, height = min(width, MAX_ASPECT * short), min(height, MAX_ASPECT * short)
    if decoding.size is not None:
        width, height = _scaled((width, height), decoding.size)
    return height, width


def read(path: Path) -> bytes:
    """The bytes of an image file. Raises UserError that names it."""
    with _naming(path):
        return path.read_bytes()


def decoded(paths: Sequence[Path], decoding: Decoding, chunk: int = 256) -> Iterator[np.ndarray]:
    """Decode in order on all cores (PIL lets go of the interpreter lock), at most `chunk` images ahead."""
    from ensemble.device import one_thread_each

    with one_thread_each(cores()) as pool:
        for start in range(0, len(paths), chunk):
            yield from pool.map(lambda path: decode(path, decoding), paths[start : start + chunk])


def middle_square(image: np.ndarray) -> np.ndarray:
    """The square of the shorter side in the middle of (height, width, 3), a view."""
    height, width = image.shape[:2]
    size = min(height, width)
    top, left = (height - size) // 2, (width - size) // 2
    return image[top : top + size, left : left + size]


def middle_squares(source: Source, decodings: Sequence[Decoding]) -> list[np.ndarray]:
    """What evaluation and prediction see of a file or of an image in memory, for each decoding uint8 (side, side, 3). A
    file is read once. Raises UserError that names it."""
    if isinstance(source, Path):
        images = decode_each(source, read(source), decodings)
    else:
        images = [decode_image(source, decoding) for decoding in decodings]
    return [middle_square(image) for image in images]


@contextmanager
def _opened(path: Path, source: BinaryIO, decoding: Decoding) -> Iterator[Image.Image]:
    """The image in `source`, its header read and JPEG's scale set, for what is done with it in the block."""
    with _naming(path), open_image(source) as file:
        if large := too_many_pixels(file.size):
            raise UserError(f"{path}: {large}")
        if decoding.crop is None and decoding.size is not None:
            # JPEG's own scaling by 2, 4 or 8 while it decodes, kept at twice the size wanted: 2.7x faster on
            # 1,024 px photos, nothing to tell on those of 256 px.
            file.draft(None, (2 * decoding.size, 2 * decoding.size))
        yield file


def what_is_wrong(error: Exception) -> str:
    """One line for what a decoder raised: its text, or its kind where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Raise whatever PIL or the file system says of an image as one UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # Pillow's plugins raise whatever a broken file leads them to
        empty = path.is_file() and path.stat().st_size == 0
        reason = (
            "empty file" if empty else re.sub(r"<_io\.[^>]*>", "'it'", what_is_wrong(error).replace(str(path), "it"))
        )
        raise UserError(f"{path}: not a readable image ({reason}); replace it or remove it") from None


def _upright(image: Image.Image, data: bytes | None = None, jpeg: Jpeg | None = None) -> Image.Image:
    image.load()
    if jpeg is not None:
        check_whole(jpeg, image)
    return turned(rgb(image, data)[0], orientation(image))


def _cut_and_scaled(image: Image.Image, decoding: Decoding) -> np.ndarray:
    if decoding.crop is not None:
        image = _middle(image, decoding.crop[1], decoding.crop[0])
    short = min(image.size)
    image = _middle(image, MAX_ASPECT * short, MAX_ASPECT * short)
    return (
        np.asarray(image)
        if decoding.size is None
        else _resized(image, _scaled(image.size, decoding.size), decoding.interpolation)
    )


def _resized(image: Image.Image, size: tuple[int, int], interpolation: str) -> np.ndarray:
    """`image.resize(size)`, uint8 (height, width, 3). Torch's vectorised copy of PIL's filters takes 0.84 ms from 227
    to 256 px where PIL takes 2.15; their values differ by at most 2 of 255, in 0.3 % of the places. An exported file
    predicts without torch, and then NumPy computes the same bytes."""
    if size == image.size:
        return np.asarray(image)
    if interpolation not in ("bilinear", "bicubic"):
        return np.asarray(image.resize(size, INTERPOLATION[interpolation]))
    if sys.modules.get("torch") is None:
        return resized(np.asarray(image), size, interpolation)
    from torch import from_numpy
    from torch.nn.functional import interpolate

    pixels = from_numpy(np.array(image)).permute(2, 0, 1)[None]
    scaled = interpolate(pixels, size=size[::-1], mode=interpolation, antialias=True)
    return np.ascontiguousarray(scaled[0].permute(1, 2, 0).numpy())


def _scaled(size: tuple[int, int], short: int) -> tuple[int, int]:
    """`size` scaled so that its shorter side is `short`."""
    width, height = (max(short, round(side * short / min(size))) for side in size)
    return width, height


def _middle(image: Image.Image, width: int, height: int) -> Image.Image:
    """The middle of an image, at most `width` x `height`."""
    width, height = min(width, image.width), min(height, image.height)
    if (width, height) == image.size:
        return image
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))

"""Files to uint8 pixels. One decoder serves training, out-of-fold evaluation and prediction, so all see the same.

An image is turned upright (EXIF), cut to the run's fixed centre crop if it has one, and scaled so that its shorter
side is `decode_size`. Its longer side is kept up to twice that, which random crops need; evaluation takes the middle
square.
"""

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ensemble import rundir
from ensemble.errors import UserError

INTERPOLATION = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
MAX_ASPECT = 2  # of the longer side to the shorter: a panorama's ends are cut rather than stored


@dataclass(frozen=True)
class Preprocess:
    """All that stands between a file and a member's input, stored beside its weights.

    image_size: side of the network's input, pixels. decode_size: side that is decoded to; evaluation cuts the middle
    image_size square out of it. crop: (height, width) in pixels of the upright file, or None. mean, std: per channel,
    of values in [0, 1].
    """

    image_size: int
    decode_size: int
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    crop: tuple[int, int] | None = None

    @property
    def decoding(self) -> "Decoding":
        """The part that settles the decoded pixels: members that agree in it share them."""
        return Decoding(self.decode_size, self.interpolation, self.crop)

    def save(self, path: Path) -> None:
        rundir.write_json(path, asdict(self))


def load_preprocess(path: Path) -> Preprocess:
    """Read what `Preprocess.save` wrote. Raises UserError that names the file."""
    values = rundir.read_json(path)
    lists = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
    try:
        return Preprocess(**{**values, **lists})
    except TypeError as error:
        raise UserError(f"{path}: not a stored preprocessing ({error})") from None


@dataclass(frozen=True)
class Decoding:
    size: int
    interpolation: str
    crop: tuple[int, int] | None


@dataclass(frozen=True)
class Pixels:
    """N decoded images of their own shapes, in one flat uint8 array that may lie on disk.

    flat: uint8. starts: int64 (N,). shapes: int64 (N, 2), height and width.
    """

    flat: np.ndarray
    starts: np.ndarray
    shapes: np.ndarray

    def image(self, row: int) -> np.ndarray:
        """uint8 (height, width, 3), a view."""
        height, width = self.shapes[row]
        start = self.starts[row]
        return self.flat[start : start + height * width * 3].reshape(height, width, 3)

    def squares(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """The middle square of each row, uint8 (len(rows), size, size, 3): what evaluation and prediction see."""
        return np.stack([middle_square(self.image(row)) for row in rows])


def decode(path: Path, how: Decoding) -> np.ndarray:
    """Decode one file to uint8 (height, width, 3) with shorter side `how.size`.

    Grey, palette, CMYK and 16-bit images become RGB; transparent ones are laid on white, as viewers show them. Raises
    UserError that names the file.
    """
    try:
        with Image.open(path) as file:
            if how.crop is None:
                # JPEG's own scaling by 2, 4 or 8 while it decodes, kept at twice the size wanted: 2.7x faster on
                # 1,024 px photos, nothing to tell on those of 256 px.
                file.draft(None, (2 * how.size, 2 * how.size))
            image = _rgb(ImageOps.exif_transpose(file))
    except (OSError, ValueError, SyntaxError, RuntimeError, Image.DecompressionBombError) as error:
        reason = "empty file" if path.is_file() and path.stat().st_size == 0 else str(error).replace(str(path), "it")
        raise UserError(f"{path}: not a readable image ({reason}); replace it or remove it") from None
    if how.crop is not None:
        image = _middle(image, how.crop[1], how.crop[0])
    short = min(image.size)
    image = _middle(image, MAX_ASPECT * short, MAX_ASPECT * short)
    width, height = (max(how.size, round(side * how.size / short)) for side in image.size)
    return np.asarray(image.resize((width, height), INTERPOLATION[how.interpolation]))


def decode_all(paths: Sequence[Path], how: Decoding, folder: Path, show: Callable[[str, float, float], None]) -> Pixels:
    """Decode every file once, in parallel, into a file without a name in `folder`: it is gone when the process is,
    however that ends, and the page cache keeps it in memory as far as there is room."""
    starts, shapes = [], []
    end = 0
    with tempfile.TemporaryFile(dir=folder) as file:
        for row, image in enumerate(decoded(paths, how)):
            file.write(image.data)
            starts.append(end)
            shapes.append(image.shape[:2])
            end += image.nbytes
            show(f"decoding to {how.size} px", row + 1, len(paths))
        file.flush()
        flat = np.memmap(file, dtype=np.uint8, mode="r", shape=(end,))
    return Pixels(flat, np.array(starts, dtype=np.int64), np.array(shapes, dtype=np.int64))


def decoded(paths: Sequence[Path], how: Decoding, chunk: int = 256) -> Iterator[np.ndarray]:
    """Decode in order on all cores (PIL lets go of the interpreter lock), at most `chunk` images ahead."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(paths), chunk):
            yield from pool.map(lambda path: decode(path, how), paths[start : start + chunk])


def middle_square(image: np.ndarray) -> np.ndarray:
    """The square of the shorter side in the middle of (height, width, 3), a view."""
    height, width = image.shape[:2]
    size = min(height, width)
    top, left = (height - size) // 2, (width - size) // 2
    return image[top : top + size, left : left + size]


def _middle(image: Image.Image, width: int, height: int) -> Image.Image:
    """The middle of an image, at most `width` x `height`."""
    width, height = min(width, image.width), min(height, image.height)
    if (width, height) == image.size:
        return image
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("32-bit float pixels have no known scale: save it with 8 or 16 bits a channel")
    if image.mode.startswith("I"):  # 16 bits a pixel; PIL's own conversion clips at 255 instead of scaling
        grey = np.asarray(image).astype(np.float64) / 257
        return Image.fromarray(grey.round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")

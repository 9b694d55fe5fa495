"""One pass over image files: header facts, cheap statistics of the pixels, and a small grey thumbnail.

What a file gave is remembered by the digest of its bytes (`ensemble.data.scan_pieces`): an image that moves is not
decoded again, one that changes is.
"""

import hashlib
import io
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

from ensemble.data.digests import digests
from ensemble.data.pixels.decode import what_is_wrong
from ensemble.data.pixels.jpeg import check_whole, read_jpeg
from ensemble.data.pixels.modes import rgb
from ensemble.data.pixels.open_image import open_image
from ensemble.data.pixels.upright import orientation, turned
from ensemble.data.scan_pieces import RECORD, SIDE, pieces_folder, recall, remember
from ensemble.events import Events
from ensemble.files.limits import too_many_pixels
from ensemble.machine import cores
from ensemble.progress import paced

WORKING = 256  # px: what statistics are taken of. JPEG's own scaling then makes 4,000 px photos 4x cheaper
PIECE = 8192  # images kept in memory before they are written: 37 MB, and what a kill loses
CHUNK = 16  # images per task


@dataclass(frozen=True)
class Scan:
    """What N files hold, in the order given.

    digests: str (N,), SHA-256 of the bytes in hex; "" where a file can't be read.
    errors: N texts, why an image can't be decoded whole, else None.
    formats: str (N,), Pillow's names; "" where unknown.
    modes: likewise.
    rules: str (N,), comma between them: the rules of `ensemble.data.pixels.modes` by which the pixels were read,
        "no-end-marker" for a JPEG that lacks it alone, "odd-exif" where EXIF states no orientation that there is.
    widths: int64 (N,), pixels as stored, before EXIF rotation (a TIFF's after it, as Pillow has them); 0 where unknown.
    heights: likewise.
    orientations: int64 (N,), EXIF's 1..8.
    frames: int64 (N,), above 1 for animations and pages.
    bytes: int64 (N,), size of the file.
    means: float32 (N, 3), of RGB in 0..1.
    stds: likewise.
    sharpness: float32 (N,), standard deviation of the Laplacian of the grey image in 0..1 at 256 px or less: sharp
        photos have 0.05 and more, blurred ones 0.01.
    thumbnails: uint8 (N, 64, 64), grey, upright, squeezed to a square, perhaps in a mapped file; 0 where there is no
        image.
    """

    digests: np.ndarray
    errors: tuple[str | None, ...]
    formats: np.ndarray
    modes: np.ndarray
    rules: np.ndarray
    widths: np.ndarray
    heights: np.ndarray
    orientations: np.ndarray
    frames: np.ndarray
    bytes: np.ndarray
    means: np.ndarray
    stds: np.ndarray
    sharpness: np.ndarray
    thumbnails: np.ndarray


def scan(paths: Sequence[Path], folder: Path, events: Events, known: Sequence[str] | None = None) -> Scan:
    """Look at each file once. folder: of ens's cache; what can't be written there is done without. known: the files'
    digests, where they were worked out before.

    Never raises for an image: `errors` says what is wrong with it.
    """
    with ThreadPoolExecutor(cores()) as pool:
        looked = list(pool.map(_access, paths))
    readable = [row for row, (error, _) in enumerate(looked) if error is None]
    names = np.zeros(len(paths), dtype="U64")
    if readable:
        if known is None:
            names[readable] = digests([paths[row] for row in readable], folder / "digests", events)
        else:
            names[readable] = [known[row] for row in readable]
    table = np.zeros(len(paths), dtype=RECORD)
    table["orientation"] = table["frames"] = 1
    thumbnails = _blank(len(paths), folder)
    rows: dict[str, list[int]] = {}
    for row in readable:
        rows.setdefault(str(names[row]), []).append(row)
    place = pieces_folder(folder)
    for digest in recall(place, rows, table, thumbnails):
        del rows[digest]
    _measure(place, paths, rows, table, thumbnails, len(readable), events)
    errors = tuple(
        error or table["error"][row].decode("utf-8", "ignore") or None for row, (error, _) in enumerate(looked)
    )
    return Scan(
        digests=names,
        errors=errors,
        formats=np.char.decode(table["format"], "ascii"),
        modes=np.char.decode(table["mode"], "ascii"),
        rules=np.char.decode(table["rules"], "ascii"),
        widths=table["width"].copy(),
        heights=table["height"].copy(),
        orientations=table["orientation"].copy(),
        frames=table["frames"].copy(),
        bytes=np.array([size for _, size in looked], dtype=np.int64),
        means=table["mean"].copy(),
        stds=table["std"].copy(),
        sharpness=table["sharpness"].copy(),
        thumbnails=thumbnails,
    )


def _access(path: Path) -> tuple[str | None, int]:
    """Why a file can't be read, and its size."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.read(1)
    except OSError as error:
        return (error.strerror or str(error)).lower(), 0
    return None, size


def _blank(count: int, folder: Path) -> np.ndarray:
    """uint8 (count, SIDE, SIDE) of zeros in a mapped file without a name, so that memory stays flat; in memory where
    the disk has no room for it. The room is taken at once: a mapped write that finds none is a bus error."""
    if not count:
        return np.zeros((0, SIDE, SIDE), dtype=np.uint8)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, count * SIDE * SIDE)
            else:
                for _ in range(count):
                    file.write(bytes(SIDE * SIDE))
                file.flush()
            return np.memmap(file, dtype=np.uint8, mode="w+", shape=(count, SIDE, SIDE))
    except OSError:
        return np.zeros((count, SIDE, SIDE), dtype=np.uint8)


def _measure(
    place: Path,
    paths: Sequence[Path],
    rows: dict[str, list[int]],
    table: np.ndarray,
    thumbnails: np.ndarray,
    total: int,
    events: Events,
) -> None:
    """Decode one file of each digest, fill the rows of all, and remember it."""
    wanted = list(rows)
    advance = paced(events, "looking at the images", total - sum(map(len, rows.values())), total)

    def task(chunk: list[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        return [look(paths[rows[digest][0]]) for digest in chunk]

    with ThreadPoolExecutor(cores()) as pool:
        for start in range(0, len(wanted), PIECE):
            piece = wanted[start : start + PIECE]
            records, small = np.zeros(len(piece), dtype=RECORD), np.zeros((len(piece), SIDE, SIDE), dtype=np.uint8)
            chunks = [piece[at : at + CHUNK] for at in range(0, len(piece), CHUNK)]
            at = 0
            for results in pool.map(task, chunks):
                looked = 0
                for record, thumbnail in results:
                    records[at], small[at] = record, thumbnail
                    copies = rows[piece[at]]
                    table[copies], thumbnails[copies] = record, thumbnail
                    at, looked = at + 1, looked + len(copies)
                advance(looked)
            remember(place, records, small)


def look(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """One file's record, RECORD (), and thumbnail, uint8 (SIDE, SIDE). Whatever is wrong with it is its "error"."""
    record, thumbnail = np.zeros((), dtype=RECORD), np.zeros((SIDE, SIDE), dtype=np.uint8)
    record["orientation"] = record["frames"] = 1
    try:
        data = path.read_bytes()
        # of what is decoded here: a file that changed or went since it was first read is not remembered by what it was
        record["digest"] = hashlib.sha256(data).hexdigest().encode()
        if not data:
            raise ValueError("empty file")
        jpeg = read_jpeg(data)
        with open_image(io.BytesIO(jpeg.data if jpeg else data)) as file:
            record["width"], record["height"] = file.size
            if large := too_many_pixels(file.size):
                record["error"], record["digest"] = large.encode()[:160], b""  # not remembered: the limit may change
                return record, thumbnail
            record["format"], record["mode"] = (file.format or "").encode(), file.mode.encode()
            file.draft(None, (WORKING, WORKING))
            file.load()
            if jpeg is not None:
                check_whole(jpeg, file)
            turn = orientation(file)
            record["orientation"] = turn or 1
            image, rules = rgb(file, data)
            if jpeg is not None and not jpeg.closed:
                rules += ("no-end-marker",)
            if turn is None:
                rules += ("odd-exif",)
            record["rules"] = ",".join(rules).encode()
            if file.format != "MPO":  # the pictures within a phone's MPO are the same photo
                with suppress(Exception):  # what comes behind the first picture may be broken: nothing else is read
                    record["frames"] = getattr(file, "n_frames", 1)
        size = (min(WORKING, image.width), min(WORKING, image.height))
        if size != image.size:
            image = image.resize(size, Image.Resampling.BOX, reducing_gap=2.0)
        record["mean"], record["std"] = _spread(image)
        grey = image.convert("L")
        record["sharpness"] = _laplacian(np.asarray(grey, dtype=np.float32) / 255)
        thumbnail = np.asarray(turned(grey.resize((SIDE, SIDE), Image.Resampling.BICUBIC), turn))
    except Exception as error:  # Pillow's plugins raise whatever a broken file leads them to
        text = "not an image" if isinstance(error, PIL.UnidentifiedImageError) else what_is_wrong(error)
        record["error"] = text.encode()[:160]
        if isinstance(error, MemoryError) or getattr(error, "errno", None):  # the machine's, not the file's: forgotten
            record["digest"] = b""
    return record, thumbnail


def _spread(image: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel in 0..1, from their histograms: 0.2 ms, NumPy takes 5."""
    counts = np.array(image.histogram(), dtype=np.float64).reshape(3, 256) / (image.width * image.height)
    values = np.arange(256) / 255
    mean = counts @ values
    return mean, np.sqrt(np.maximum(counts @ values**2 - mean**2, 0))


def _laplacian(grey: np.ndarray) -> float:
    """Standard deviation of the four-neighbour Laplacian; 0 for images under 3 px."""
    if min(grey.shape) < 3:
        return 0.0
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    edges = (around - 4 * grey[1:-1, 1:-1]).reshape(-1)
    return float(np.sqrt(max(edges @ edges / edges.size - edges.mean() ** 2, 0)))

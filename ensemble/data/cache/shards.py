"""Decoded images on disk: `<name>.u8` holds the pixels of many, flat, and `<name>.json`, written last, says where each
lies. A shard without its json does not count."""

import errno
import mmap
import os
import time
import uuid
import zlib
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import BinaryIO

import numpy as np
import PIL
from PIL import features
from typing_extensions import TypedDict

from ensemble.data.pixels.decode import MAX_ASPECT
from ensemble.data.pixels.preprocess import Decoding
from ensemble.errors import UserError
from ensemble.files.reading import Count, read_json
from ensemble.files.sealed import write_json

FORMAT = 3  # of the files, and of what `decode` does with a file: raise it when either changes
# A shard is closed at this size or age, and a kill loses no more than that. Each one mapped holds a file descriptor,
# and a process may have 1,024 of them: 400 shards hold 200 GB.
SHARD_BYTES = 512 * 2**20
SHARD_SECONDS = 60.0

NAME = "[0-9a-f]" * 16  # of a shard's files, as a glob: nothing else in a folder is ours to read or to remove

Place = tuple[int, int, int, int]  # start, height, width, crc32


class Places(TypedDict):
    """The JSON of a shard.

    images: of each digest the byte at which its pixels start, their height, width and crc32.
    """

    images: dict[str, tuple[Count, Count, Count, Count]]


@dataclass(frozen=True)
class Shard:
    """A mapped shard.

    path: of its JSON.
    data: uint8, flat.
    places: of the images asked for, by the digest of the file.
    """

    path: Path
    data: np.ndarray
    places: dict[str, Place]

    def nbytes(self, digest: str) -> int:
        _, height, width, _ = self.places[digest]
        return height * width * 3

    def damaged(self, digests: Iterable[str], verify: bool) -> set[str]:
        """Those images whose bytes are not all there or, to `verify`, are not those that were written."""
        bad = set()
        for digest in digests:
            start, *_, crc = self.places[digest]
            end = start + self.nbytes(digest)
            is_whole = 0 <= start < end <= self.data.size
            if not is_whole or (verify and zlib.crc32(self.data[start:end].data) != crc):
                bad.add(digest)
        return bad


def key(decoding: Decoding) -> str:
    """Folder name of all that decoded pixels depend on, the decoders' versions included."""
    crop = "x".join(map(str, decoding.crop)) if decoding.crop else "full"
    jpeg = features.version("libjpeg_turbo") or features.version("jpg")
    by = f"pillow{PIL.__version__}-jpeg{jpeg}-torch{metadata.version('torch')}"
    return f"{decoding.size}-{decoding.interpolation}-{crop}-a{MAX_ASPECT}-v{FORMAT}-{by}"


def open_shards(folder: Path, digests: Collection[str]) -> list[Shard]:
    """The shards that hold any of the images of these digests, mapped. What is broken or just being removed by another
    process is left out."""
    return open_shards_at(lists(folder), digests)


def open_shards_at(paths: Iterable[Path], digests: Collection[str]) -> list[Shard]:
    """As `open_shards`, of the shards with these jsons."""
    shards = []
    for path in paths:
        places = {digest: place for digest, place in (read_places(path) or {}).items() if digest in digests}
        if not places:
            continue
        with suppress(OSError), data_file(path).open("rb") as file:
            data = np.empty(0, dtype=np.uint8)
            if os.fstat(file.fileno()).st_size:  # an empty file, one that was cut short, can't be mapped
                # not np.memmap, which takes 5 times as long to slice: 9 us against 1.7 us
                data = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), dtype=np.uint8)
            shards.append(Shard(path, data, places))
    return shards


def read_places(path: Path) -> dict[str, Place] | None:
    """What a shard's json names; None where it is not whole."""
    try:
        return {
            digest: (at, high, wide, crc) for digest, (at, high, wide, crc) in read_json(path, Places)["images"].items()
        }
    except (OSError, UserError):
        return None


def decodings(folder: Path) -> list[Path]:
    """The folders of shards in a cache, one for each decoding."""
    return [path for path in (folder / "pixels").glob("*") if path.is_dir()]


def lists(folder: Path) -> list[Path]:
    """The json of each shard in a decoding's folder."""
    return sorted(folder.glob(f"{NAME}.json"))


def size(count: float) -> str:
    """1.23 GB, of 10^9 bytes; smaller ones in MB or kB."""
    unit, name = next(((unit, name) for unit, name in ((1e9, "GB"), (1e6, "MB")) if count >= unit), (1e3, "kB"))
    return f"{count / unit:.3g} {name}" if count < 999.5 * unit else f"{count / unit:,.0f} {name}"


def data_file(path: Path) -> Path:
    """The pixels that belong to a shard's json."""
    return path.with_suffix(".u8")


def nbytes(path: Path) -> int:
    """Bytes of a shard's pixels on disk; 0 where there are none."""
    try:
        return data_file(path).stat().st_size
    except OSError:
        return 0


def touch(path: Path) -> None:
    """Note that a shard was used, by the time of its json; a shared cache may be read-only."""
    with suppress(OSError):
        os.utime(path)


def used(path: Path) -> float:
    """When a shard was last used, seconds since the epoch; 0 where it is gone."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def remove(path: Path) -> None:
    """Remove a shard. Whoever has it mapped keeps it until he lets go (on Windows it can't be removed until then)."""
    for file in (path, data_file(path)):
        with suppress(OSError):
            file.unlink()


def drop(path: Path, damaged: Iterable[str]) -> None:
    """Forget these images of a shard; the last one takes it with it."""
    gone = set(damaged)
    places = {digest: place for digest, place in (read_places(path) or {}).items() if digest not in gone}
    if places:
        write_json(path, {"images": places})
    else:
        remove(path)


def tidy(folder: Path) -> None:
    """Remove what killed writers left behind; only while nobody writes."""
    for file in folder.glob(f".{NAME}.json.*.tmp"):
        file.unlink(missing_ok=True)
    for path in lists(folder):
        if not data_file(path).is_file() or read_places(path) is None:
            remove(path)
    for file in folder.glob(f"{NAME}.u8"):
        if not file.with_suffix(".json").is_file():
            file.unlink(missing_ok=True)


class Writer:
    """Appends images to a shard in `folder`, and begins another one when that is full. Ends with `close`.

    Raises OSError that names a file which can't be written: that shard is then gone, those before it are whole.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file: BinaryIO | None = None  # of the open shard, as are the next four
        self.path = folder
        self.places: dict[str, Place] = {}
        self.end = 0
        self.begun = 0.0
        self.whole: list[tuple[Path, str]] = []  # json and digest of all images in closed shards

    def add(self, digest: str, image: np.ndarray, crc: int) -> None:
        """image: uint8 (height, width, 3)."""
        if self.file is None:
            self.path = self.folder / f"{uuid.uuid4().hex[:16]}.json"
            self.places, self.end, self.begun = {}, 0, time.monotonic()
        with self._whole_or_gone():
            if self.file is None:
                self.folder.mkdir(parents=True, exist_ok=True)
                self.file = data_file(self.path).open("xb")
            self.file.write(image.data)
        height, width = image.shape[:2]
        self.places[digest] = (self.end, height, width, crc)
        self.end += image.nbytes
        if self.end >= SHARD_BYTES or time.monotonic() - self.begun >= SHARD_SECONDS:
            self.close()

    def close(self) -> None:
        """Make the open shard, if there is one, whole."""
        if self.file is None:
            return
        with self._whole_or_gone():
            self.file.flush()
            os.fsync(self.file.fileno())
            self.file.close()
            write_json(self.path, {"images": self.places})
        self.file = None
        self.whole += [(self.path, digest) for digest in self.places]

    @contextmanager
    def _whole_or_gone(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if self.file is not None:
                with suppress(OSError):  # what is left in the buffer has no room either
                    self.file.close()
                self.file = None
            remove(self.path)
            text = f"could not be written ({os.strerror(error.errno or errno.EIO)}); what was there before is whole"
            raise OSError(error.errno or errno.EIO, text, str(data_file(self.path))) from error

"""Decoded pixels on disk, made once and shared by all folds, backbones, epochs, runs and processes.

    ~/.cache/ens/
      .lock                          held by the one process that fills or clears
      digests/<root>.json            what each image file held when it was last read
      scans/<version>/<name>.safetensors   facts and thumbnails of the images (ensemble/data/scan_pieces.py)
      copies/<key>.json              which images are near copies (ensemble/data/copies/remembered.py)
      numerics/<key>.json  speeds/<key>.json   what was the fastest on this machine (ensemble/train/prepare.py)
      packing/<key>.json             how many jobs train best side by side on a GPU (ensemble/train/packing.py)
      graphs/<key>.safetensors       networks without their weights, as other engines read them
      compiled/<key>.safetensors     exported files as OpenVINO has compiled them
      unpacked/  fetched/            images of zips and of object stores (ensemble/data/unpacked)
      pixels/<decoding>/<name>.u8    shards of decoded images
      pixels/<decoding>/<name>.json  what each holds; its time is when it was last used

An image is found by what its file holds and by its decoding: a file that moves is not decoded again, one that changes
is, and copies share their pixels.
"""

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from ensemble.data.cache import fill, shards
from ensemble.data.cache.shards import Shard
from ensemble.data.digests import digests as digests_of
from ensemble.data.pixels.decode import Pixels
from ensemble.data.pixels.preprocess import Decoding
from ensemble.errors import UserError
from ensemble.events import Events

_HEX = "[0-9a-f]"
REMEMBERED = (  # folders of a cache and names in them, as globs: what a person puts beside them is not ours to remove
    ("digests", f"{_HEX * 16}.json"),
    ("scans/v*", f"{_HEX * 16}.safetensors"),
    ("scans/v*", f"{_HEX * 16}*.npy"),  # of an older ens
    ("copies", f"{_HEX * 64}.json"),
    ("numerics", f"{_HEX * 24}.json"),
    ("speeds", f"{_HEX * 24}.json"),
    ("packing", f"{_HEX * 24}.json"),
    ("graphs", f"{_HEX * 24}.safetensors"),
    ("compiled", f"{_HEX * 24}.safetensors"),
    ("probes", f"{_HEX * 24}.safetensors"),
)
WAIT_SECONDS = 1.0
WRONG_PLACE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)


@dataclass(frozen=True)
class Usage:
    """What a cache holds of one decoding.

    decoding: name of its folder.
    images: how many.
    bytes: of their pixels.
    used: when one was last used, seconds since the epoch.
    """

    decoding: str
    images: int
    bytes: int
    used: float


def open_pixels(
    paths: Sequence[Path],
    decodings: Sequence[Decoding],
    folder: Path,
    limit: int,
    events: Events,
    verify: bool = True,
    known: Sequence[str] | None = None,
) -> dict[Decoding, Pixels]:
    """The decoded pixels of N files, mapped: a `Pixels` of N rows for each decoding. What is missing is decoded first,
    on all cores; each file is read once for all its decodings.

    decodings: all with a size. limit: bytes of pixels that `folder` may hold; those least recently used go first, and
    never those of this call. events: hears of progress, and of damage. verify: compare every image with its checksum.
    known: the files' digests, where they were worked out before.
    Raises UserError that names an unreadable image, or the folder if it can't be written, or both sizes if the pixels
    need more than the limit (before any is decoded); OSError that names the cache's file on a full disk. What was
    decoded until then is kept.
    """
    digests = digests_of(paths, folder / "digests", events) if known is None else known
    request = fill.Request(folder, tuple(dict.fromkeys(decodings)), dict(zip(digests, paths, strict=True)))
    sound: set[fill.Image] = set()  # so that no image is read and compared twice
    held, _ = fill.look(request, sound, verify, events)
    if request.missing(held):
        with _filling(folder, events):
            for place in shards.decodings(folder):
                shards.tidy(place)
            # again: another process may have filled it while we waited
            held, damaged = fill.look(request, sound, verify, events)
            fill.forget(damaged, events)
            held = fill.make_room(request, held, limit, events)
            sound.update(fill.fill(request, request.missing(held), events))
            held, _ = fill.look(request, sound, verify, events)
    for path in {shard.path for found in held.values() for shard in found.values()}:
        shards.touch(path)
    return {decoding: _pixels(digests, held[decoding]) for decoding in request.decodings}


def summary(folder: Path) -> list[Usage]:
    """What the cache holds, a line for each decoding, the last used one first."""
    rows = []
    for place in shards.decodings(folder):
        paths = [path for path in shards.lists(place) if shards.nbytes(path)]
        if paths:
            images = set[str]().union(*(shards.read_places(path) or {} for path in paths))
            size = sum(map(shards.nbytes, paths))
            rows.append(Usage(place.name, len(images), size, max(map(shards.used, paths))))
    return sorted(rows, key=lambda row: -row.used)


def clear(folder: Path) -> int:
    """Remove all that ens keeps in a cache, and nothing else that may be in `folder`. Returns the bytes removed.
    Processes that have some mapped keep it until they end. Raises UserError while another process fills it."""
    if not (folder / "pixels").is_dir() and not _remembered(folder):
        return 0
    try:
        with FileLock(folder / ".lock", timeout=0):
            freed = sum(row.bytes for row in summary(folder))
            for place in shards.decodings(folder):
                for path in shards.lists(place):
                    shards.remove(path)
                shards.tidy(place)
                _remove_if_empty(place)
            for path in _remembered(folder):
                with suppress(OSError):
                    freed += path.stat().st_size
                    path.unlink()
                _remove_if_empty(path.parent)
            return freed
    except Timeout:
        raise UserError(f"{folder}: another process is filling it; clear it when that is done") from None


def _remembered(folder: Path) -> list[Path]:
    """The files of a cache beside its pixels, with what killed writers left of them."""
    patterns = []
    for place, name in REMEMBERED:
        patterns += [f"{place}/{name}", f"{place}/.{name}.*.tmp"]
    return [path for pattern in patterns for path in folder.glob(pattern)]


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


@contextmanager
def _filling(folder: Path, events: Events) -> Iterator[None]:
    """Hold the cache's lock, which ends with the process. Raises UserError if the folder can't be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        while not lock.is_locked:
            try:
                lock.acquire(timeout=WAIT_SECONDS)
            except Timeout:
                events.progress("waiting for another process, which fills the cache", 0, 1)
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in WRONG_PLACE:
            raise
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UserError(
            f"{folder}: decoded pixels can't be kept there ({reason}); set data.cache to a folder that can be written, "
            'or to "off"'
        ) from None
    try:
        yield
    finally:
        lock.release()


def _pixels(digests: Sequence[str], found: dict[str, Shard]) -> Pixels:
    parts = {shard.path: shard for shard in found.values()}
    index = {path: position for position, path in enumerate(parts)}
    places = [found[digest].places[digest] for digest in digests]
    return Pixels(
        tuple(shard.data for shard in parts.values()),
        np.array([index[found[digest].path] for digest in digests], dtype=np.int32),
        np.array([start for start, *_ in places], dtype=np.int64),
        np.array([shape for _, *shape, _ in places], dtype=np.int64).reshape(-1, 2),
    )

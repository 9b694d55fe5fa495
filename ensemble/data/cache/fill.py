"""What a request lacks of the cache, room for it, and decoding it into new shards."""

import errno
import hashlib
import math
import shutil
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from ensemble.data.cache import shards
from ensemble.data.cache.shards import Shard, size
from ensemble.data.pixels.decode import MAX_ASPECT, decode_each, read, shape
from ensemble.data.pixels.preprocess import Decoding
from ensemble.errors import UserError
from ensemble.events import Events
from ensemble.machine import cores
from ensemble.plural import pluralize
from ensemble.progress import paced

Held = dict[Decoding, dict[str, Shard]]  # the shard that holds an image, by the digest of its file
Image = tuple[Path, str]  # a shard's json, and the digest of an image in it
Item = TypeVar("Item")
Result = TypeVar("Result")

CHUNK = 64  # images compared per task; one per task took 35 us of each image's time, this 12
AHEAD = 8  # images decoded ahead of the writing, a core


@dataclass(frozen=True)
class Request:
    """What one call wants.

    folder: of the cache.
    decodings: all with a size.
    files: one file for each digest, in the order of the rows.
    """

    folder: Path
    decodings: tuple[Decoding, ...]
    files: dict[str, Path]

    def of(self, decoding: Decoding) -> Path:
        return self.folder / "pixels" / shards.key(decoding)

    def missing(self, held: Held) -> dict[str, list[Decoding]]:
        """The decodings that are not held, by digest; those that lack none are left out."""
        lacking = {
            digest: [decoding for decoding in self.decodings if digest not in held[decoding]] for digest in self.files
        }
        return {digest: decodings for digest, decodings in lacking.items() if decodings}


def look(request: Request, sound: set[Image], verify: bool, events: Events) -> tuple[Held, set[Image]]:
    """What is there and sound, and what is there and damaged.

    sound: images known to be so; those that are compared now are added.
    """
    held: Held = {}
    damaged: set[Image] = set()
    with ThreadPoolExecutor(cores()) as pool:
        for decoding in request.decodings:
            found: dict[str, Shard] = {}
            for shard in shards.open_shards(request.of(decoding), request.files.keys()):
                new = sorted(shard.places.keys() - found.keys(), key=lambda digest: shard.places[digest][0])
                unknown = [digest for digest in new if (shard.path, digest) not in sound]
                chunks = [unknown[start : start + CHUNK] for start in range(0, len(unknown), CHUNK)]
                bad = set[str]().union(*pool.map(partial(shard.damaged, verify=verify), chunks))
                damaged |= {(shard.path, digest) for digest in bad}
                found |= {digest: shard for digest in new if digest not in bad}
                if verify:
                    sound |= {(shard.path, digest) for digest in unknown if digest not in bad}
                events.progress("checking the cached pixels", len(found), len(request.files))
            held[decoding] = found
    return held, damaged


def forget(damaged: set[Image], events: Events) -> None:
    """Take damaged images out of their shards."""
    if damaged:
        count = len({digest for _, digest in damaged})
        images = pluralize(count, "image was", "images were")
        events.message(f"cache: {images} damaged on disk; decoding again")
    for path in {path for path, _ in damaged}:
        shards.drop(path, {digest for shard, digest in damaged if shard == path})


def make_room(request: Request, held: Held, limit: int, events: Events) -> Held:
    """Remove shards, the least recently used ones first, until what is missing fits. Returns what is held after that:
    shards that hold images of other calls too may have had to go.

    Raises UserError if the request does not fit alone, OSError if the disk has no room.
    """
    sizes = {path: shards.nbytes(path) for place in shards.decodings(request.folder) for path in shards.lists(place)}
    used: Counter[Path] = Counter()  # bytes of this request in each shard
    for found in held.values():
        for digest, shard in found.items():
            used[shard.path] += shard.nbytes(digest)
    missing = request.missing(held)
    need = sum(
        3 * (decoding.size or 0) ** 2 for decodings in missing.values() for decoding in decodings
    )  # if all of them are square
    if sum(sizes.values()) + MAX_ASPECT * need > limit:
        at_least = "at least "
        if used.total() + need <= limit:
            at_least = ""
            need = _measured(request, missing, events)
        if used.total() + need > limit:
            raise UserError(
                f"the decoded pixels of this run need {at_least}{size(used.total() + need)}, and the cache in "
                f'{request.folder} may hold {size(limit)}: raise data.cache_limit_gb, or set data.cache = "off"'
            )
        if sum(sizes[path] for path in used) + need > limit:
            mixed = {path for path in used if sizes[path] > used[path]}
            need += sum(used.pop(path) for path in mixed)
            held = {
                decoding: {digest: shard for digest, shard in found.items() if shard.path not in mixed}
                for decoding, found in held.items()
            }
        for path in sorted(sizes.keys() - used.keys(), key=shards.used):
            if sum(sizes.values()) + need > limit:
                shards.remove(path)
                del sizes[path]
    free = shutil.disk_usage(request.folder).free
    if need > free:
        text = f"the decoded pixels of this run need {size(need)} more, and its disk has {size(free)} free"
        raise OSError(errno.ENOSPC, text, str(request.folder))
    return held


def _measured(request: Request, missing: dict[str, list[Decoding]], events: Events) -> int:
    """Bytes of what is missing, from the files' headers."""

    def measure(item: tuple[str, list[Decoding]]) -> int:
        path = request.files[item[0]]
        # turning an image leaves its area as it is, unless a crop comes after
        return sum(3 * math.prod(shape(path, decoding, upright=decoding.crop is not None)) for decoding in item[1])

    total = 0
    advance = paced(events, "measuring the images", 0, len(missing))
    for count in _ahead(measure, missing.items()):
        total += count
        advance(1)
    return total


def fill(request: Request, missing: dict[str, list[Decoding]], events: Events) -> list[Image]:
    """Decode what is missing into new shards. Returns what they hold."""
    if not missing:
        return []

    def decode(item: tuple[str, list[Decoding]]) -> tuple[str, list[tuple[Decoding, np.ndarray, int]]]:
        digest, decodings = item
        path = request.files[digest]
        data = read(path)
        if hashlib.sha256(data).hexdigest() != digest:
            raise UserError(f"{path}: changed while it was read; start again when nothing writes to it")
        images = decode_each(path, data, decodings)
        return digest, [
            (decoding, image, zlib.crc32(image.data)) for decoding, image in zip(decodings, images, strict=True)
        ]

    text = f"decoding to {' and '.join(str(decoding.size) for decoding in request.decodings)} px"
    advance = paced(events, text, 0, len(missing))
    writers = {decoding: shards.Writer(request.of(decoding)) for decoding in request.decodings}
    with ExitStack() as stack:  # whatever ends it, what is decoded is kept
        for writer in writers.values():
            stack.enter_context(closing(writer))
        for digest, images in _ahead(decode, missing.items()):
            for decoding, image, crc in images:
                writers[decoding].add(digest, image, crc)
            advance(1)
    return [image for writer in writers.values() for image in writer.whole]


def _ahead(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Results in order, worked out on all cores (PIL lets go of the interpreter lock), a few ahead of the reader."""
    from ensemble.device import one_thread_each  # loads torch, which listing and clearing the cache do without

    threads = cores()
    waiting: deque[Future[Result]] = deque()
    with one_thread_each(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= AHEAD * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

"""What a file holds: the SHA-256 of its bytes, remembered as git does, by its path, size and times.

The index is worth its file: 1,698 paintings of 27 kB take 24 ms of a core with it and 0.12 s without, when they lie in
memory. Larger ones, or a disk that must read them, only add to the second: 300 kB take 0.3 ms more each.
"""

import hashlib
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from ensemble.data.pixels.decode import read
from ensemble.errors import UserError
from ensemble.events import Events
from ensemble.files.reading import read_json
from ensemble.files.sealed import write_json
from ensemble.machine import cores
from ensemble.progress import paced

# A file that changed this shortly before it was read may change once more within one tick of the file system's clock
# (2 s on FAT) and keep its times: such an answer is not remembered. git calls it the racy case.
RACY_SECONDS = 2.0
CHUNK = 256  # files per task: one per task took 0.22 s for the paintings, 64 took 0.14 s

Stamp = tuple[int, int, int]  # size, mtime and ctime in ns; ctime also tells of a copy that kept its mtime


def digests(paths: Sequence[Path], folder: Path, events: Events) -> list[str]:
    """SHA-256 of each file in hex. Keeps an index in `folder`, one for each root that the paths share.

    Raises UserError that names a file that can't be read. An index that can't be written is done without.
    """
    if not paths:
        return []
    absolute = [os.path.abspath(path) for path in paths]  # noqa: PTH100 (Path.absolute is 4x slower, and keeps "..")
    root = os.path.commonpath([os.path.dirname(path) for path in absolute])  # noqa: PTH120
    index = folder / f"{hashlib.sha256(os.fsencode(root)).hexdigest()[:16]}.json"
    known = _load(index)
    names = [path[len(root) :] for path in absolute]
    started = time.time_ns()

    def answer(rows: range) -> list[tuple[str, Stamp | None]]:
        return [_answer(paths[row], known.get(names[row]), started) for row in rows]

    found: list[tuple[str, Stamp | None]] = []
    advance = paced(events, "looking for changed images", 0, len(paths))
    with ThreadPoolExecutor(cores()) as pool:
        chunks = [range(start, min(start + CHUNK, len(paths))) for start in range(0, len(paths), CHUNK)]
        for part in pool.map(answer, chunks):
            found += part
            advance(len(part))
    now = {name: (*stamp, digest) for name, (digest, stamp) in zip(names, found, strict=True) if stamp is not None}
    if any(known.get(name) != value for name, value in now.items()):
        gone = {name for name in known.keys() - now.keys() if not os.path.exists(root + name)}  # noqa: PTH110
        kept = {name: value for name, value in known.items() if name not in gone}
        with suppress(OSError):
            write_json(index, kept | now, indent=None)
    return [digest for digest, _ in found]


def digest_of(path: Path) -> str:
    """SHA-256 of a file's bytes in hex. Raises UserError that names a file which can't be read."""
    return hashlib.sha256(read(path)).hexdigest()


def _answer(path: Path, known: tuple[int, int, int, str] | None, started: int) -> tuple[str, Stamp | None]:
    """The digest, and the stamp to remember it by; None where it is too young for that. A stamp from before the
    reading: a file that changes meanwhile then has another one."""
    try:
        status = path.stat()
    except OSError:
        read(path)  # says what is wrong
        raise
    stamp = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    if known is not None and known[:3] == stamp:
        return known[3], stamp
    old = max(stamp[1:]) < started - RACY_SECONDS * 1e9
    return digest_of(path), stamp if old else None


def _load(index: Path) -> dict[str, tuple[int, int, int, str]]:
    """The index; empty where it is missing or broken, since it only saves time."""
    try:
        return read_json(index, dict[str, tuple[int, int, int, str]])
    except (OSError, UserError):
        return {}

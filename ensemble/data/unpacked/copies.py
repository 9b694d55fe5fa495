"""Unpacked copies of packed images in the cache: made once, whole or not there, and noticed where they are damaged.

    ~/.cache/ens/unpacked/
      .lock                    held by the one process that unpacks
      sources/<path>.json      which copy a packed file has, as long as its size and times are these
      <key>/art.zip/...        what it holds
      <key>/copy.json          what was unpacked, and a digest of its files' names, sizes and times

The key is a digest of the packed bytes: a zip that moves is not unpacked again, one that changes is.
"""

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import xxhash
from typing_extensions import TypedDict

from ensemble.data.cache.shards import size
from ensemble.data.folders.listing import is_hidden
from ensemble.data.unpacked.lock import held
from ensemble.data.unpacked.member import Packed, inside, require_allowed, unpacking
from ensemble.data.unpacked.packing import Packing
from ensemble.data.unpacked.source_names import remember_source, source_name
from ensemble.errors import UserError
from ensemble.events import Events
from ensemble.files.atomic import replacing_folder
from ensemble.files.reading import read_json
from ensemble.files.sealed import write_json
from ensemble.machine import user_cache
from ensemble.plural import pluralize

FORMAT = 1  # of what is written; another one is another key
CHUNK = 2**20
WORK = "unpacks images"
RACY_SECONDS = 2.0  # as in ensemble/data/digests.py

Stamp = tuple[int, int, int]  # size, mtime and ctime in ns


class About(TypedDict):
    """The content of copy.json.

    tables: the tables that ens has made in the copy, as paths from its root.
    notes: lines on what was left out.
    files: a digest of all files' names, sizes and times.
    bytes: the sum of their sizes.
    """

    tables: list[str]
    notes: list[str]
    files: str
    bytes: int


class _Known(TypedDict):
    stamps: list[Stamp]
    key: str


@dataclass(frozen=True)
class Copy:
    """An unpacked copy.

    root: its folder.
    tables: those of images that ens has made in it.
    """

    root: Path
    tables: tuple[Path, ...]

    @property
    def top(self) -> Path:
        """The root, or the one folder that it holds: art.zip that holds art/ and nothing else stands for art."""
        inner = [path for path in self.root.iterdir() if not is_hidden(path.name)]
        return inner[0] if len(inner) == 1 and inner[0].is_dir() else self.root

    def table_in(self, place: Path) -> Path | None:
        """The table that was made of a folder."""
        return next((table for table in self.tables if table.parent == place), None)


_opened: dict[Path, tuple[list[Stamp], Copy]] = {}  # what this process has found to be sound


def copies_folder() -> Path:
    return user_cache().absolute() / "unpacked"


def copy_of(packing: Packing, events: Events) -> Copy:
    """The copy of packed images, made if it isn't there. Raises UserError if they can't be unpacked, or if the cache
    can't be written; OSError if its disk is full."""
    source = packing.source.absolute()
    stamps = [_stamp(file) for file in packing.files]
    if source in _opened and _opened[source][0] == stamps and _opened[source][1].root.is_dir():
        return _opened[source][1]
    folder = copies_folder()
    key = _key(packing, stamps, folder, events)
    root = folder / key / source.name
    about, why = _sound(root)
    if about is None:
        with held(folder, WORK, events):
            about, why = _sound(root)  # another process may have made it meanwhile
            if about is None:
                if why:
                    events.message(f"{source_name(packing.source)}: {why}; it is unpacked again")
                about = _make(packing, stamps, root, events)
    remember_source(root, source_name(packing.source))
    copy = Copy(root, tuple(root / name for name in about["tables"]))
    if copy.top != root:
        remember_source(copy.top, source_name(packing.source))
    for table in copy.tables:
        remember_source(table, source_name(table.parent))  # `source/train` is what its table is called
    for note in about["notes"]:
        events.message(note)
    _opened[source] = stamps, copy
    return copy


def summary() -> int:
    """Bytes of the files of all copies."""
    return sum(about["bytes"] for folder in _all_copies() if (about := _read_about(folder)) is not None)


def clear() -> int:
    """Remove all copies. Returns the bytes removed. Raises UserError while another process unpacks."""
    if not copies_folder().is_dir():
        return 0
    with held(copies_folder(), WORK, None):
        removed = summary()
        for folder in (*_all_copies(), copies_folder() / "sources"):
            shutil.rmtree(folder, ignore_errors=True)
    return removed


def _all_copies() -> list[Path]:
    return [path.parent for path in copies_folder().glob("[0-9a-f]*/copy.json")]


def _stamp(file: Path) -> Stamp:
    status = file.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _key(packing: Packing, stamps: Sequence[Stamp], folder: Path, events: Events) -> str:
    """A digest of the packed files' names and bytes, remembered by their sizes and times."""
    source = packing.source.absolute()
    index = folder / "sources" / f"{hashlib.sha256(os.fsencode(source)).hexdigest()[:16]}.json"
    with suppress(OSError, UserError):
        known = read_json(index, _Known)
        if [tuple(stamp) for stamp in known["stamps"]] == list(stamps):
            return known["key"]
    begun, digest = time.time_ns(), xxhash.xxh3_128(f"{FORMAT} {source.name}".encode())
    total, done = sum(stamp[0] for stamp in stamps), 0
    for file in packing.files:
        digest.update(f"\0{file.relative_to(packing.source).as_posix()}\0".encode())
        with file.open("rb") as stream:
            while chunk := stream.read(CHUNK):
                digest.update(chunk)
                done += len(chunk)
                events.progress(f"reading {source_name(packing.source)}", done, max(total, done))
    key = digest.hexdigest()
    if max(max(stamp[1:]) for stamp in stamps) < begun - RACY_SECONDS * 1e9:
        with suppress(OSError):
            write_json(index, {"stamps": [list(stamp) for stamp in stamps], "key": key})
    return key


def _sound(root: Path) -> tuple[About | None, str]:
    """What is known of a copy that is whole; None, and what is wrong if there is one."""
    if not root.parent.is_dir():
        return None, ""
    about = _read_about(root.parent)
    if about is None or _digest_of(root)[0] != about["files"]:
        return None, "its unpacked copy was changed or damaged"
    return about, ""


def _read_about(folder: Path) -> About | None:
    try:
        return read_json(folder / "copy.json", About)
    except (OSError, UserError):
        return None


def _digest_of(root: Path) -> tuple[str, int]:
    """Of all files' names, sizes and times below a folder; and their bytes."""
    lines, nbytes = [], 0
    for place, _, names in os.walk(root):
        for name in names:
            status = os.lstat(os.path.join(place, name))  # noqa: PTH118 (there may be a million)
            lines.append(f"{place[len(str(root)) :]}/{name}\0{status.st_size}\0{status.st_mtime_ns}")
            nbytes += status.st_size
    text = "\n".join(sorted(lines))
    return xxhash.xxh3_128(text.encode(errors="surrogateescape")).hexdigest(), nbytes


def _make(packing: Packing, stamps: Sequence[Stamp], root: Path, events: Events) -> About:
    name, begun = source_name(packing.source), time.monotonic()
    packed = packing.read()
    require_allowed(packing.source, packed.disk)
    free = shutil.disk_usage(root.parent.parent).free
    if packed.disk > free:
        text = f"{name} unpacks to {size(packed.disk)}, and the disk of the cache has {size(free)} free"
        raise OSError(
            errno.ENOSPC, f"{text}: free some, or set ENS_CACHE to a folder on a larger one", str(root.parent)
        )
    for left in root.parent.parent.glob(f".{root.parent.name}.*"):  # of a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    with replacing_folder(root.parent) as temporary:
        copy = temporary / root.name
        copy.mkdir()
        count = _write(packed, copy, packing.source, events)
        if [_stamp(file) for file in packing.files] != stamps:
            raise UserError(f"{name}: changed while it was unpacked; start again when nothing writes to it")
        if hasattr(os, "sync"):
            os.sync()  # before copy.json says that all is there
        digest, nbytes = _digest_of(copy)
        about: About = {"tables": list(packed.tables), "notes": list(packed.notes), "files": digest, "bytes": nbytes}
        write_json(temporary / "copy.json", about)
    files, seconds = pluralize(count, "file"), time.monotonic() - begun
    events.message(
        f"{name}: {files} ({size(nbytes)}) unpacked into the cache in {seconds:.0f} s; ens cache --clear removes them"
    )
    return about


def _write(packed: Packed, copy: Path, source: Path, events: Events) -> int:
    """How many files were written."""
    done, written, made = 0, 0, {copy}
    text = f"unpacking {source_name(source)}"
    with unpacking(source):
        for done, member in enumerate(packed.members(), 1):
            name = inside(member.name, source)
            path = copy / name
            try:
                if path.parent not in made:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    made.add(path.parent)
                with path.open("xb") as file:
                    for chunk in _chunks(member.data):
                        written += len(chunk)
                        require_allowed(source, written)
                        file.write(chunk)
            except (FileExistsError, NotADirectoryError, IsADirectoryError):
                raise UserError(
                    f"{source}: holds {name!r} twice, as this disk has it (possibly in another case): rename one"
                ) from None
            except OSError as error:
                if error.errno is None or error.filename is not None:
                    raise
                raise OSError(error.errno, error.strerror, str(path)) from error  # a full disk names no file
            events.progress(text, done, max(done, packed.count))
    return done


def _chunks(data: bytes | IO[bytes]) -> Iterator[bytes]:
    if isinstance(data, bytes):
        yield data
        return
    while chunk := data.read(CHUNK):
        yield chunk

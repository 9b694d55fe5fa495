"""Runs on object stores: each has a mirror on this machine, which is what all else reads and writes.

    ~/.cache/ens/mirrors/s3/bucket/runs/art/     the mirror of s3://bucket/runs/art
    ~/.cache/ens/mirrors/.versions/s3/...        for each file, which version of its object it holds

A file that gets its name in a mirror is written to the store first, a removed one is removed there first, so the order
in which things are done holds there too. What could not be written there stays in the mirror and is marked: it is
written when the mirror is next brought up to date, unless another machine has written the object meanwhile. Claims live
on the store alone.

Several processes of a machine share a mirror: under a lock, which is held for a moment, a download takes the place of a
file only if that is still the one that was found out of date.
"""

import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from ensemble.errors import UserError
from ensemble.files import stores
from ensemble.files.process import Process, is_known_dead, parse_process, this_process
from ensemble.machine import user_cache

if TYPE_CHECKING:
    from filelock import FileLock

AT_ONCE = 8  # downloads
_URL = re.compile(r"([a-z][a-z0-9+.-]+):/+(.+)")  # as Path has it too, which takes two slashes for one
_PASSING = re.compile(r"\..*claim-\d+(\.\w+)?|\.(ens|ray|stop)-\w+")  # objects that are no files of a run

_opened: set[Path] = set()  # mirrors that this process has brought up to date
_writable: set[Path] = set()  # and those that it has found to be writable


@dataclass(frozen=True)
class _Version:
    """What is known of a file.

    version: of its object, when both were last the same; None if there was no object
    writer: the process that writes it to the store, or could not; None if both are the same
    """

    version: str | None = None
    writer: Process | None = None


def as_url(place: str | Path) -> str | None:
    """The URL that a text or a path (Path("s3://bucket/art") has lost a slash) means; None where it means a folder."""
    found = _URL.fullmatch(str(place))
    return f"{found[1]}://{found[2].rstrip('/')}" if found else None


def local(place: str | Path) -> Path:
    """The folder of a run: the mirror of a URL, which is brought up to date when this process first asks for it, or the
    folder itself. Raises UserError if the store can't be read."""
    url, folder = as_url(place), folder_of(place)
    if url is not None and not any(folder.is_relative_to(opened) for opened in _opened):
        stores.require_readable(url)
        folder.mkdir(parents=True, exist_ok=True)
        refresh(folder)
        _opened.add(folder)
    return folder


def folder_of(place: str | Path) -> Path:
    """As `local`, without asking the store for anything."""
    url = as_url(place)
    if url is None:
        return Path(place)
    protocol, _, key = url.partition("://")
    if ".." in PurePosixPath(key).parts:
        raise UserError(f"{url}: write the address without '..'")
    return _mirrors() / protocol / key


def url_of(path: Path) -> str | None:
    """The URL that a path in a mirror stands for; None for all other paths."""
    mirrors = _mirrors()
    if not path.is_relative_to(mirrors):
        return None
    protocol, *key = path.relative_to(mirrors).parts
    return f"{protocol}://{'/'.join(key)}" if key else None


def display_name(path: Path) -> str:
    """What people call a folder."""
    return url_of(path) or str(path)


def require_writable(path: Path) -> None:
    """Raise UserError if `path` is in a mirror whose store can't be written, which is tried once."""
    root = next((opened for opened in _opened if path.is_relative_to(opened)), None)
    if root is not None and root not in _writable:
        stores.require_writable(url_of(root) or "")
        _writable.add(root)


def refresh(folder: Path, held: str = "") -> None:
    """Bring a folder of a mirror up to date with the store, and the store with what could not be written before. Does
    nothing for folders that mirror no store.

    held: what this process has claimed in the folder. Where others hold a claim, the store is not written. What an
    unfinished fold goes on from is read with the fold's own folder only.
    """
    url = url_of(folder)
    if url is None:
        return
    from concurrent.futures import ThreadPoolExecutor

    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    files = {name for name in files if not name.endswith(".tmp")}
    known = {name: _read_version(folder / name) for name in files}  # before the store is asked: these may be older
    objects = stores.listed(url)
    claims = [PurePosixPath(name) for name in objects if "claim-" in PurePosixPath(name).name]
    claimed = {claim.parent for claim in claims if not (held and claim.as_posix().startswith(f"{held}-"))}
    objects = {name: version for name, version in objects.items() if not _is_passing(name)}
    for name in objects:
        if not {"..", ""}.isdisjoint(PurePosixPath(name).parts) or "\\" in name:
            raise UserError(f"{url}/{name}: not the name of a file of a run; remove it")
    known |= {name: _read_version(folder / name) for name in objects.keys() - files}
    gone = {name for name in files - objects.keys() if known[name].version is not None}
    behind = {name for name in objects if name not in files or known[name].version != objects[name]}
    behind = {name for name in behind if "state" not in PurePosixPath(name).parts[1:-1]}
    ahead = {name for name in files - gone if objects.get(name) == known[name].version and _is_ahead(known[name])}
    ahead = {name for name in ahead if claimed.isdisjoint(PurePosixPath(name).parents)}
    for name in reversed(_marker_last(gone)):
        _forget(folder / name, known[name])
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for is_marker in (False, True):
            names = [name for name in behind if _is_marker(name) is is_marker]
            list(pool.map(lambda name: _fetch(folder / name, known[name], objects[name]), names))
    for name in _marker_last(ahead):
        upload(folder / name, folder / name)


def refresh_file(path: Path) -> None:
    """Bring one file of a mirror up to date with the store, if another machine has written or removed it."""
    url = url_of(path)
    if url is None:
        return
    known, is_here = _read_version(path), path.is_file()
    version = stores.version(url)
    if version is None:
        if is_here and known.version is not None:
            _forget(path, known)
    elif not is_here or known.version != version:
        _fetch(path, known, version)


def upload(
    temporary: Path, path: Path, check: Callable[[], object] = bool, pauses: Sequence[float] | None = None
) -> None:
    """Let a file of a mirror have its name, `path`, when the store has it. check: is called first; may raise what ends
    the writing. Raises OSError that names the object if the store can't be written; the file then has its name all the
    same, and is written there when the mirror is next brought up to date."""
    require_writable(path)
    before = _read_version(path).version
    _write_version(path, _Version(before, this_process()))
    try:
        check()
        version = stores.upload(temporary, url_of(path) or "", pauses)
    except OSError as error:
        with _lock():
            temporary.replace(path)
        text = f"could not be written ({error.strerror}); it is kept in {path}, and the same command goes on from there"
        raise OSError(error.errno, text, url_of(path)) from error
    with _lock():
        temporary.replace(path)
        _write_version(path, _Version(version))


def remove(path: Path) -> None:
    """Remove a file of a mirror, from the store first. Raises OSError that names the object."""
    stores.delete(url_of(path) or "")
    with _lock():
        path.unlink(missing_ok=True)
        _version_file(path).unlink(missing_ok=True)


def remove_folder(folder: Path) -> None:
    """Remove a folder of a mirror, from the store too, as far as that can be done."""
    with suppress(OSError):
        for name in stores.listed(url_of(folder) or ""):
            stores.delete(f"{url_of(folder)}/{name}")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(_version_file(folder), ignore_errors=True)


def _mirrors() -> Path:
    return user_cache().absolute() / "mirrors"


def _lock() -> "FileLock":
    from filelock import FileLock

    return FileLock(_mirrors() / ".lock")


def _is_passing(name: str) -> bool:
    return _PASSING.fullmatch(PurePosixPath(name).name) is not None


def _is_ahead(known: _Version) -> bool:
    """Whether a file holds what the store lacks, and no other process is at it."""
    if known.version is None and known.writer is None:
        return True
    return known.writer is not None and (known.writer == this_process() or is_known_dead(known.writer))


def _is_marker(name: str) -> bool:
    """Whether a file vouches for the others of its folder."""
    return PurePosixPath(name).name == "done.json"


def _marker_last(names: Iterable[str]) -> list[str]:
    return sorted(names, key=lambda name: (_is_marker(name), name))


def _fetch(path: Path, known: _Version, version: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        if stores.download(url_of(path) or "", temporary):
            with _lock():
                if _read_version(path) == known:
                    temporary.replace(path)
                    _write_version(path, _Version(version))
    finally:
        temporary.unlink(missing_ok=True)


def _forget(path: Path, known: _Version) -> None:
    with _lock():
        if _read_version(path) == known:
            path.unlink(missing_ok=True)
            _version_file(path).unlink(missing_ok=True)


def _version_file(path: Path) -> Path:
    mirrors = _mirrors()
    return mirrors / ".versions" / path.relative_to(mirrors)


def _read_version(path: Path) -> _Version:
    try:
        about = json.loads(_version_file(path).read_text())
        writer = about["writer"]
        return _Version(about["version"], None if writer is None else parse_process(writer))
    except (OSError, ValueError, KeyError, TypeError):
        return _Version()


def _write_version(path: Path, known: _Version) -> None:
    file = _version_file(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    temporary.write_text(json.dumps(asdict(known)))
    temporary.replace(file)

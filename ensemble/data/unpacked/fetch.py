"""Images and tables on object stores, fetched into the cache; what hasn't changed there is not fetched again.

    ~/.cache/ens/fetched/
      .lock                     held by the one process that fetches
      s3/bucket/art/...         the objects below s3://bucket/art
      .versions/s3/bucket/art/versions.json   of the files of one folder

That says of which version of its object each file is, with the file's size and time.
"""

import errno
import os
import shutil
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path, PurePosixPath

from ensemble.data.cache.shards import size
from ensemble.data.unpacked.lock import held
from ensemble.data.unpacked.packing import FILES, TARS, packing_of
from ensemble.data.unpacked.source_names import remember_source
from ensemble.errors import UserError
from ensemble.events import Events
from ensemble.files import stores
from ensemble.files.reading import read_json
from ensemble.files.sealed import write_json
from ensemble.files.stores import Object
from ensemble.machine import user_cache
from ensemble.plural import pluralize

AT_ONCE = 16  # downloads
WORK = "fetches images"
PAUSES = (0.5, 2.0)  # seconds before the store is asked again
INDEX = "versions.json"
TABLES = (".csv", ".tsv", ".txt", ".jsonl", ".parquet", ".pq", ".gz", ".bz2", ".xz", ".zip")

Version = tuple[str, int, int]  # of the object, and the file's size and mtime in ns

_fetched: dict[tuple[str, bool], tuple[Path, str]] = {}  # by this process


def fetched_folder() -> Path:
    return user_cache().absolute() / "fetched"


def fetch(url: str, events: Events, with_images: bool = True) -> Path:
    """The file or folder of a URL, on this disk. What follows a packed file in the URL (s3://bucket/art.zip/test)
    follows it on the disk.

    url: as in s3://bucket/art.
    events: hears of the wait and of the progress.
    with_images: whether the folder of a table is fetched too, since its images lie beside it.

    Raises UserError if there is nothing, or if the store can't be read.
    """
    known = _fetched.get((url, with_images))
    if known is None or not known[0].exists():
        protocol, _, key = url.partition("://")
        if ".." in PurePosixPath(key).parts:
            raise UserError(f"{url}: write the address without '..'")
        remember_source(fetched_folder() / protocol, f"{protocol}:/")
        _fetched[url, with_images] = _fetch(url, events, with_images)
    place, inner = _fetched[url, with_images]
    return place / inner


def _fetch(url: str, events: Events, with_images: bool) -> tuple[Path, str]:
    """The file or folder, and what follows it in the URL."""
    base, inner = _packed_part(url)
    found = _objects(base)
    above, _, last = base.rpartition("/")
    if not found and not inner and not above.endswith("/"):
        # s3://bucket/food101/train may be a part of what is packed in food101
        found = {name: one for name, one in _objects(above).items() if name.lower().endswith(FILES)}
        if found:
            return _bring(above, found, events, is_all=False), last
    if not found:
        raise UserError(f"{base}: nothing is there; {stores.CHECK}")
    place = _bring(base, found, events)
    if "" in found and with_images and base.lower().endswith(TABLES) and packing_of(place) is None:
        _bring(above, _objects(above), events)
    return place, inner


def summary() -> int:
    """How many bytes the fetched files take."""
    return sum(path.stat().st_size for path in fetched_folder().rglob("*") if path.is_file())


def clear() -> int:
    """Remove all that was fetched. Returns the bytes removed. Raises UserError while another process fetches."""
    if not fetched_folder().is_dir():
        return 0
    with held(fetched_folder(), WORK, None):
        removed = summary()
        for path in fetched_folder().iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
    return removed


def _packed_part(url: str) -> tuple[str, str]:
    """A URL up to its packed file, and what follows; all of it and "" where no part but the last is one."""
    parts = url.split("/")
    for place, part in enumerate(parts[3:-1], 4):
        if part.lower().endswith((".zip", *TARS)):
            return "/".join(parts[:place]), "/".join(parts[place:])
    return url, ""


def _objects(url: str) -> dict[str, Object]:
    """What is below a URL, by the names from there on; an object of this very URL is named ""."""
    try:
        found = stores.objects(url, PAUSES)
    except OSError as error:
        raise UserError(f"{url}: can't be read ({error.strerror}); {stores.CHECK}") from None
    found = {name: one for name, one in found.items() if not name.endswith("/")}  # a console's mark of an empty folder
    for name in found:
        if name and (not {"..", "."}.isdisjoint(name.split("/")) or "\\" in name or "//" in name):
            raise UserError(f"{url}/{name}: not a name that a file can have; rename the object")
    return found


def _bring(url: str, found: Mapping[str, Object], events: Events, is_all: bool = True) -> Path:
    """Have these objects on the disk and, where they are all of a folder, nothing else there. Returns the file or
    folder."""
    protocol, _, key = url.partition("://")
    place = fetched_folder() / protocol / key
    with held(fetched_folder(), WORK, events):
        wanted = {place / name if name else place: one for name, one in found.items()}
        if is_all and "" not in found:
            for path in place.rglob("*"):
                if path.is_file() and path not in wanted:
                    path.unlink()  # its object is gone
        known = {folder: _read_versions(folder) for folder in {path.parent for path in wanted}}
        missing = {path: one for path, one in wanted.items() if not _is_here(path, one, known[path.parent])}
        if missing:
            _download(place, url, missing, known, events)
    return place


def _download(
    place: Path, url: str, missing: Mapping[Path, Object], known: dict[Path, dict[str, Version]], events: Events
) -> None:
    need = sum(one.size for one in missing.values())
    free = shutil.disk_usage(fetched_folder()).free
    if need > free:
        text = f"{size(need)} are to be fetched from {url}, and the disk of the cache has {size(free)} free"
        raise OSError(errno.ENOSPC, text, str(fetched_folder()))
    files = pluralize(len(missing), "file")
    events.message(f"{url}: {files} ({size(need)}) fetched into the cache; ens cache --clear removes them")
    done, lock, text = 0, threading.Lock(), f"fetching {url}"

    def bring(item: tuple[Path, Object]) -> None:
        nonlocal done
        path, one = item
        address = url if path == place else f"{url}/{path.relative_to(place).as_posix()}"
        temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            is_there = stores.download(address, temporary)
            got = temporary.stat().st_size if is_there else 0
            if not is_there or got != one.size:
                raise UserError(f"{address}: changed while it was fetched ({got:,} of {one.size:,} bytes); start again")
            temporary.replace(path)
            version = one.version, got, path.stat().st_mtime_ns
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            raise UserError(f"{address}: is a file and a folder at once, which no disk can hold; rename one") from None
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        with lock:
            known[path.parent][path.name] = version
            done += one.size
            events.progress(text, done, need)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            for _ in pool.map(bring, missing.items()):
                pass
        except OSError as error:
            raise UserError(f"{url}: can't be read ({error.strerror}); the same command goes on from there") from None
        finally:  # what is here needs no second fetching
            pool.shutdown(cancel_futures=True)
            for folder, versions in known.items():
                _write_versions(folder, versions)


def _is_here(path: Path, one: Object, known: Mapping[str, Version]) -> bool:
    if path.name not in known:
        return False
    version, nbytes, mtime = known[path.name]
    try:
        status = path.stat()
    except OSError:
        return False
    return version == one.version and (status.st_size, status.st_mtime_ns) == (nbytes, mtime)


def _versions_file(folder: Path) -> Path:
    return fetched_folder() / ".versions" / folder.relative_to(fetched_folder()) / INDEX


def _read_versions(folder: Path) -> dict[str, Version]:
    try:
        return read_json(_versions_file(folder), dict[str, dict[str, Version]])["versions"]
    except (OSError, UserError, KeyError):
        return {}


def _write_versions(folder: Path, versions: Mapping[str, Version]) -> None:
    write_json(_versions_file(folder), {"versions": versions}, indent=None)

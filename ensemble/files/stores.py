"""Object stores (S3, Google Cloud Storage and more) through fsspec, which is imported only where a URL is used.

All functions take URLs such as s3://bucket/runs/art. What fails is tried again after each of `pauses`, in seconds
(None: for about a minute in all), unless it can't go well; then it is an OSError that names the URL.
"""

import errno
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from ensemble.errors import UserError

PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)  # seconds before each further attempt
FINAL = ("NoCredentialsError", "PartialCredentialsError", "NoAuthTokenError")  # of botocore, that no wait mends
CHECK = "check the address, and that this machine has the store's credentials"

T = TypeVar("T")


@dataclass(frozen=True)
class Object:
    """An object of a store.

    version: what changes when it does.
    size: bytes.
    """

    version: str
    size: int


def require_readable(url: str) -> None:
    """Raise UserError, at once, unless the packages are installed, the store answers and its bucket may be read."""
    try:
        listed(url, ())
    except OSError as error:
        raise UserError(f"{url}: can't be read ({error.strerror}); {CHECK}") from None


def require_writable(url: str) -> None:
    """Raise UserError unless objects can be written at the URL, and one that is there is not created again (by which
    claims are told apart): two small ones are tried."""
    probe = f"{url}/.ens-{time.time_ns()}"
    try:
        is_new, is_again = create(probe, b"1", ()), create(probe, b"2", ())
        delete(probe)
    except OSError as error:
        raise UserError(f"{url}: can't be written ({error.strerror}); {CHECK}, with leave to write") from None
    if not is_new or is_again:
        raise UserError(
            f"{url}: this store creates an object that is there already, without an error (it ignores If-None-Match); "
            "ens can't tell there which process works on what: take another store, or a folder"
        )


def listed(url: str, pauses: Sequence[float] | None = None) -> dict[str, str]:
    """The objects below a URL, by their names from there on, with what changes when an object does."""

    def work(store: Any, key: str) -> dict[str, str]:
        found = store.find(key, detail=True)
        return {_below(key, name): _version(about) for name, about in found.items() if about["type"] == "file"}

    return _tried(url, work, pauses)


def objects(url: str, pauses: Sequence[float] | None = None) -> dict[str, Object]:
    """The objects below a URL, by their names from there on; of the URL of an object that one, named ""."""

    def work(store: Any, key: str) -> dict[str, Object]:
        found = store.find(key, detail=True)
        found = {name: about or store.info(name) for name, about in found.items()}  # {} of an object, by some stores
        files = {_below(key, name): about for name, about in found.items() if about["type"] == "file"}
        return {name: Object(_version(about), int(about["size"])) for name, about in files.items()}

    return _tried(url, work, pauses)


def contents(url: str, is_wanted: Callable[[str], bool], pauses: Sequence[float] | None = None) -> dict[str, bytes]:
    """The bytes of those objects right below a URL whose names are wanted."""

    def work(store: Any, key: str) -> dict[str, bytes]:
        try:
            names = [each["name"] for each in store.ls(key, detail=True) if each["type"] == "file"]
        except FileNotFoundError:
            return {}
        found = {}
        for name in filter(lambda name: is_wanted(_below(key, name)), names):
            try:
                found[_below(key, name)] = store.cat_file(name)
            except FileNotFoundError:  # it was removed meanwhile
                continue
        return found

    return _tried(url, work, pauses)


def read(url: str, pauses: Sequence[float] | None = None) -> bytes | None:
    """The bytes of a small object; None if there is no such object."""

    def work(store: Any, key: str) -> bytes | None:
        try:
            return bytes(store.cat_file(key))
        except FileNotFoundError:
            return None

    return _tried(url, work, pauses)


def version(url: str, pauses: Sequence[float] | None = None) -> str | None:
    """What changes when the object does; None if there is no such object."""

    def work(store: Any, key: str) -> str | None:
        try:
            return _version(store.info(key))
        except FileNotFoundError:
            return None

    return _tried(url, work, pauses)


def create(url: str, data: bytes, pauses: Sequence[float] | None = None) -> bool:
    """Write a small object unless there is one, which two can't do at once. False if there was one of other bytes."""

    def work(store: Any, key: str) -> bool:
        try:
            store.pipe_file(key, data, mode="create")
        except FileExistsError:  # by an attempt whose answer was lost, possibly
            return bool(store.cat_file(key) == data)
        return True

    return _tried(url, work, pauses)


def write(url: str, data: bytes, pauses: Sequence[float] | None = None) -> None:
    """Write a small object, over one that is there."""
    _tried(url, lambda store, key: store.pipe_file(key, data), pauses)


def upload(file: Path, url: str, pauses: Sequence[float] | None = None) -> str:
    """Write a file as an object; returns what changes when the object does."""

    def work(store: Any, key: str) -> str:
        store.put_file(str(file), key)
        return _version(store.info(key))

    return _tried(url, work, pauses)


def download(url: str, file: Path) -> bool:
    """Write an object as a file. False if there is no such object."""

    def work(store: Any, key: str) -> bool:
        try:
            store.get_file(key, str(file))
        except FileNotFoundError:
            return False
        return True

    return _tried(url, work)


def delete(url: str, pauses: Sequence[float] | None = None) -> None:
    """Remove an object, if it is there."""

    def work(store: Any, key: str) -> None:
        try:
            store.rm_file(key)
        except FileNotFoundError:
            return

    _tried(url, work, pauses)


def _tried(url: str, work: Callable[[Any, str], T], pauses: Sequence[float] | None = None) -> T:
    protocol, _, key = url.partition("://")
    try:
        store = _store(protocol)
    except ImportError as error:
        raise UserError(f"{url}: {_how_to_install(protocol, str(error))}") from None
    except ValueError as error:
        raise UserError(f"{url}: {error}; stores are, for example, s3:// and gs://") from None
    for pause in (*(PAUSES if pauses is None else pauses), None):
        try:
            store.invalidate_cache()
            return work(store, key.rstrip("/"))
        except Exception as error:  # of as many kinds as there are stores
            is_final = isinstance(error, FileNotFoundError | PermissionError) or type(error).__name__ in FINAL
            if pause is None or is_final:
                number = error.errno if isinstance(error, OSError) else None
                reason = " ".join(str(error).split()) or type(error).__name__
                raise OSError(number or errno.EIO, reason, url) from error
            time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")


@cache
def _store(protocol: str) -> Any:
    import fsspec

    return fsspec.filesystem(protocol, skip_instance_cache=True, use_listings_cache=False)


def _how_to_install(protocol: str, error: str) -> str:
    """error: that of the import; fsspec's names the package of each store."""
    if protocol in ("s3", "s3a") or "fsspec" in error:
        return 'object stores need packages that are not installed: pip install "ens-vision[cloud]"'
    return error


def _below(key: str, name: str) -> str:
    return name.lstrip("/").removeprefix(key.lstrip("/")).lstrip("/")


def _version(about: Mapping[str, Any]) -> str:
    for name in ("ETag", "etag", "md5Hash", "generation"):
        if about.get(name):
            return str(about[name])
    return " ".join(str(about.get(name)) for name in ("size", "mtime", "created", "updated", "LastModified"))

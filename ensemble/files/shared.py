"""Small files that all machines see at once: in a folder that they share, or, for the mirror of an object store, there.

Those of a store are never on disk. pauses: as there (`ensemble.files.stores`).
"""

import errno
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from ensemble.files import mirror, stores


def contents(folder: Path, is_wanted: Callable[[str], bool], pauses: Sequence[float] | None = None) -> dict[str, bytes]:
    """The bytes of those files of a folder whose names are wanted, by name."""
    url = mirror.url_of(folder)
    if url is not None:
        return stores.contents(url, is_wanted, pauses)
    found = {}
    with suppress(FileNotFoundError, NotADirectoryError):
        for name in filter(is_wanted, os.listdir(folder)):  # noqa: PTH208 (there may be thousands)
            try:
                found[name] = (folder / name).read_bytes()
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ESTALE):  # removed meanwhile, by this machine or another
                    raise
    return found


def read(file: Path) -> bytes | None:
    """The bytes of a file; None if it is not there."""
    url = mirror.url_of(file)
    if url is not None:
        return stores.read(url)
    with suppress(FileNotFoundError, NotADirectoryError):
        return file.read_bytes()
    return None


def create(file: Path, data: bytes) -> bool:
    """Create a file. False if it is there already; of several that try at once, one succeeds."""
    url = mirror.url_of(file)
    if url is not None:
        mirror.require_writable(file)
        return stores.create(url, data)
    try:
        created = file.open("xb")
    except FileExistsError:
        return False
    try:
        with created:
            created.write(data)
    except OSError as error:  # a full disk: an empty claim would be taken for another process's
        file.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(file)) from None
    return True


def write(file: Path, data: bytes, pauses: Sequence[float] | None = None) -> None:
    """Write a file, over one that is there."""
    url = mirror.url_of(file)
    if url is not None:
        stores.write(url, data, pauses)
    else:
        file.write_bytes(data)


def delete(file: Path, pauses: Sequence[float] | None = None) -> None:
    """Remove a file, if it is there."""
    url = mirror.url_of(file)
    if url is not None:
        stores.delete(url, pauses)
    else:
        file.unlink(missing_ok=True)

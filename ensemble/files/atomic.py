"""Files that are whole or not there: written to a temporary name in their own folder, flushed to the disk and renamed,
so that a reader sees the old file or the new one, never half of one. In the mirror of an object store
(`ensemble.files.mirror`) the object is written before."""

import errno
import glob
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from safetensors import SafetensorError

from ensemble.errors import UserError
from ensemble.files import mirror
from ensemble.files.claims import require_held_at


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; on success it is flushed and renamed to `path`, else removed.

    A full disk or a kill leaves the old `path` whole. Raises OSError, which names `path`, if it can't be written;
    ClaimLost if another process has taken over what this one had claimed (`ensemble.files.claims`).
    """
    _require_no_address(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    is_mirrored = mirror.url_of(path) is not None
    try:
        try:
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            if not is_mirrored:
                require_held_at(path)
                temporary.replace(path)
        except (OSError, SafetensorError) as error:
            with suppress(OSError):
                require_held_at(path)  # who has taken the claim over removes unfinished files
            number, reason = (error.errno, error.strerror) if isinstance(error, OSError) else (None, str(error))
            text = f"could not be written ({reason}); what was there before is whole"
            raise OSError(number or errno.EIO, text, str(path)) from error
        if is_mirrored:
            mirror.upload(temporary, path, partial(require_held_at, path))
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)  # another thread may ask at this moment


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder beside `path`; on success it takes the place of `path`, with all that may be there, else it is
    removed. Raises OSError if it can't be written."""
    _require_no_address(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        old = temporary.with_suffix(".old")
        if path.exists():
            path.rename(old)
        try:
            temporary.rename(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def require_writable(path: Path) -> None:
    """Raise UserError unless a file can be written at `path`: to be asked before hours of work, not after them."""
    _require_no_address(path)
    if path.is_dir():
        raise UserError(f"{path}: is a folder; name a file in it")
    temporary = _temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        temporary.unlink()
    except OSError as error:
        raise UserError(f"{path}: can't be written ({error.strerror}); free its place or name another") from None
    mirror.require_writable(path)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def remove(path: Path) -> None:
    """Remove a file, if it is there. Raises ClaimLost as `replacing` does, OSError."""
    require_held_at(path)
    if mirror.url_of(path) is None:
        path.unlink(missing_ok=True)
    else:
        mirror.remove(path)


def remove_folder(folder: Path) -> None:
    """Remove a folder with all that is in it, if it can be. Raises ClaimLost as `replacing` does."""
    require_held_at(folder / "any")
    if mirror.url_of(folder) is None:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        mirror.remove_folder(folder)


def clear_temporaries_of(path: Path) -> None:
    """Remove what writers of this one file that were killed left behind; only while nobody else writes it."""
    for temporary in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        temporary.unlink(missing_ok=True)


def clear_temporaries(fold: Path) -> None:
    """Remove what writers that were killed left behind in this fold."""
    for temporary in fold.rglob(".*.tmp"):
        temporary.unlink(missing_ok=True)


def _require_no_address(path: Path) -> None:
    url = mirror.as_url(path)
    if url is not None:
        raise UserError(f"{url}: only a run may lie on an object store; name a file on this machine, and copy it there")


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}.tmp")  # pids of two machines may be equal

"""One process at a time writes a folder of the cache; the others wait, and say so."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ensemble.errors import UserError
from ensemble.events import Events

WAIT_SECONDS = 1.0


@contextmanager
def held(folder: Path, work: str, events: Events | None) -> Iterator[None]:
    """Hold the folder's lock, which ends with the process.

    folder: in the cache; it is made if it isn't there.
    work: what is done there, for the message to those who wait, as in "unpacks images".
    events: is told of the wait; None: don't wait.

    Raises UserError if the folder can't be written, or instead of waiting.
    """
    from filelock import FileLock, Timeout  # predicting pictures by an exported file does without

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        while not lock.is_locked:
            try:
                lock.acquire(timeout=0 if events is None else WAIT_SECONDS)
            except Timeout:
                if events is None:
                    raise UserError(f"{folder}: another process {work}; clear it when that is done") from None
                events.progress(f"waiting for another process, which {work}", 0, 1)
    except (OSError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{folder}: can't be written ({reason}); set ENS_CACHE to a folder that can be") from None
    try:
        yield
    finally:
        lock.release()

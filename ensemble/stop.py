"""Ctrl-C, and SIGTERM, which is how clusters and notebooks end a session: the first one ends the work at its next safe
point, the second one at once.

Work that has no safe points is ended at once by the first one already, by a KeyboardInterrupt: every file is written
whole or not at all, so there is nothing that it could spoil.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType

from ensemble.escape import escaped

BOUNCE_SECONDS = 0.3  # what sends a signal to a process and then to its group (timeout does) means it once


class Stopped(KeyboardInterrupt):
    """The work was ended by the user. Its text says what is kept of it."""


@dataclass
class _Place:
    """Work that has safe points. step: what is finished before the next one; asked: whether it is to end there."""

    step: Callable[[], str | None]
    asked: bool = False


_places: list[_Place] = []  # the innermost last


@contextmanager
def safe_points(step: Callable[[], str | None], kept: Callable[[], str]) -> Iterator[Callable[[], bool]]:
    """Yield `asked()`, which says whether the work inside was asked to end: at a safe point it then raises
    KeyboardInterrupt, which leaves here as a `Stopped`.

    step(): in words, what will be finished first ("shard 3 of 9"), asked when the signal comes; None where that would
    take long, and the work is ended at once. kept(): what is kept, in words.
    """
    place = _Place(step)
    _places.append(place)
    try:
        yield lambda: place.asked
    except Stopped:  # work inside of this says it more exactly
        raise
    except KeyboardInterrupt:
        raise Stopped(kept()) from None
    finally:
        _places.remove(place)


@contextmanager
def listening(command: str, note: Callable[[str], object]) -> Iterator[None]:
    """Meanwhile the two signals end what is done, as said above. command: the words that go on with it. note: called
    with each line that is said here, for a log."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[float] = []

    def say(line: str) -> None:
        # Not print: the signal may have come in the middle of one. On a terminal it follows "^C", or a live bar.
        with suppress(OSError):
            os.write(
                2, (("\r\033[2K" if sys.stderr.isatty() else "") + f"ens: {escaped(line)}\n").encode(errors="replace")
            )
        note(line)

    def hear(number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if heard and now - heard[0] < BOUNCE_SECONDS:
            return
        heard.append(now)
        if len(heard) > 1:
            say(f"stopped at once; go on with: {command}")
            os._exit(130)
        place = _places[-1] if _places else None
        step = place.step() if place else None
        say(f"stopping{f' after {step}' if step else ''} ... (again to stop at once)")
        if place is None or step is None:
            raise KeyboardInterrupt
        place.asked = True

    before = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        if not heard:  # else it stays, for those who are impatient while threads end
            for number, handler in before.items():
                signal.signal(number, handler)

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
from types import FrameType

from ensemble.escape import escaped
from ensemble.stop import ask_to_stop

BOUNCE_SECONDS = 0.3  # what sends a signal to a process and then to its group (timeout does) means it once


@contextmanager
def listening(command: str, note: Callable[[str], object]) -> Iterator[None]:
    """Until the end of the `with` the two signals end the work, as described above. command: the command line that
    resumes it. note: called with each line that is printed here, for a log."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[float] = []  # when, in seconds of the clock

    def say(line: str) -> None:
        # Not print: the signal may have come in the middle of one. On a terminal it follows "^C", or a live bar.
        with suppress(OSError):
            os.write(
                2, (("\r\033[2K" if sys.stderr.isatty() else "") + f"ens: {escaped(line)}\n").encode(errors="replace")
            )
        note(line)

    def handle(number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if received and now - received[0] < BOUNCE_SECONDS:
            return
        received.append(now)
        if len(received) > 1:
            say(f"stopped at once; go on with: {command}")
            os._exit(130)
        step = ask_to_stop()
        say(f"stopping{f' after {step}' if step else ''} ... (again to stop at once)")
        if step is None:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        if not received:  # else it stays, for those who are impatient while threads end
            for number, handler in before.items():
                signal.signal(number, handler)

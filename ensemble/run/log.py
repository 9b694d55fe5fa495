"""RUN/ens.log: what each command on a run printed and when, its warnings and errors, and how it ended. Plain text. Each
line is appended by one write, so that two processes may share the file."""

import os
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from ensemble.errors import UserError
from ensemble.escape import escaped
from ensemble.files import mirror
from ensemble.run.run import Run

Log = Callable[[str], bool]  # takes one or more lines; returns whether they are in the file


def open_log(run: Run) -> Log:
    """`log(text)`, which appends to the run's log, with the time (UTC) and the number of the process.

    Lines that are logged before the run's directory exists are kept until it does; if it never does, nothing is
    written. A log that can't be written (a read-only run, a full disk) does not stop the command.
    """
    waiting: list[str] = []

    def log(text: str) -> bool:
        stamp = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {os.getpid()} "
        waiting.append(stamp + escaped(text.rstrip("\n"), lines=True).replace("\n", "\n    ") + "\n")
        if not run.folds_csv.is_file():
            return False
        lines = "".join(waiting).encode(errors="replace")
        waiting.clear()
        with suppress(OSError):
            _append(run.ens_log, lines)
            return True
        return False

    return log


def upload_log(run: Run) -> None:
    """Write this machine's log to the object store that the run lies on, if it does."""
    if mirror.url_of(run.ens_log) is not None and run.ens_log.is_file():
        with suppress(OSError, UserError):
            mirror.upload(run.ens_log, run.ens_log, pauses=())


def _append(path: Path, lines: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
    file = os.open(path, flags, 0o666)
    try:
        os.write(file, lines)
    finally:
        os.close(file)

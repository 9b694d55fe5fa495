"""The progress of each fold, from the files of a run: how far it is, its log, and whether a process works on it."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ensemble.errors import UserError
from ensemble.files.claim_files import FoundClaim, read_claims
from ensemble.files.claims import STALE
from ensemble.files.process import is_known_dead
from ensemble.run import Fold
from ensemble.run.shapes import Epoch

State = Literal["waiting", "training", "stopped", "failed", "done", "damaged"]


@dataclass(frozen=True)
class FoldProgress:
    """How far a fold is.

    fold: its number.
    state: "stopped" if it was begun and no process works on it.
    log: an entry for each finished epoch.
    """

    fold: int
    state: State
    log: tuple[Epoch, ...]


@dataclass
class FoldWatcher:
    """Reads the progress of folds, again and again; what has not changed is not read anew.

    clock: a monotonic time in seconds.
    """

    clock: Callable[[], float] = time.monotonic
    _claims: dict[Path, tuple[FoundClaim, float]] = field(default_factory=dict)  # and since when they are as they are
    _logs: dict[Path, tuple[tuple[int, int], tuple[Epoch, ...]]] = field(default_factory=dict)  # with time and size

    def look(self, fold: Fold) -> FoldProgress:
        """The fold as it is now."""
        log = self._log(fold)
        try:
            if fold.is_done():
                return FoldProgress(fold.number, "done", log)
        except UserError:
            return FoldProgress(fold.number, "damaged", log)
        if self.is_worked_on(fold.claim_file):
            return FoldProgress(fold.number, "training", log)
        if fold.failure_json.is_file():
            return FoldProgress(fold.number, "failed", log)
        return FoldProgress(fold.number, "stopped" if fold.log_file.is_file() else "waiting", log)

    def is_worked_on(self, claim: Path) -> bool:
        """Whether somebody holds a claim and lives, as `ensemble.files.claims` counts it. The claim stays as it is."""
        found = read_claims(claim, ())
        if not found or (found[-1].process is not None and is_known_dead(found[-1].process)):
            return False
        before, since = self._claims.get(claim, (None, 0.0))
        if before != found[-1]:
            self._claims[claim] = found[-1], self.clock()
            return True
        return self.clock() - since < STALE

    def _log(self, fold: Fold) -> tuple[Epoch, ...]:
        """The lines of the log; those of before, where it can't be read (it is written at this moment)."""
        stamp, lines = self._logs.get(fold.log_file, ((0, 0), ()))
        try:
            about = fold.log_file.stat()
            if stamp != (about.st_mtime_ns, about.st_size):
                stamp, lines = (about.st_mtime_ns, about.st_size), tuple(fold.read_log())
        except FileNotFoundError:
            lines = ()
        except (OSError, UserError):
            return lines
        self._logs[fold.log_file] = stamp, lines
        return lines

"""What a job of SLURM runs: a command of ens, which joins the run, and its end before the time limit.

submitit pickles a `Worker` and calls it on the node; `checkpoint` it calls at the signal before the time limit and at
preemption, and queues again what that returns. SLURM signals all processes of a job, the command's as well.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

MOST_FRUITLESS = 2  # times in a row that a worker is queued again although it ended no epoch
TO_KILL_SECONDS = 10.0  # of the time after the signal, for killing what has not ended, and for being queued again
POLL_SECONDS = 0.2
STOPPED = 130  # the status of a command that was asked to end


class Fruitless(Exception):
    """A worker is not queued again; its text says why."""


@dataclass
class Worker:
    """One worker of a run, which is pickled.

    command: the words after `ens`; with --json
    folder: where it runs
    run: the run directory, whose epochs tell whether it gets on
    seconds: between the signal and the time limit
    fruitless: how often in a row it came to the signal without an epoch
    """

    command: tuple[str, ...]
    folder: str
    run: str
    seconds: float
    fruitless: int = 0
    _pieces: int = field(default=0, init=False)  # of the run, when it began
    _asked: int | None = field(default=None, init=False)  # the signal by which it was asked to end
    _process: "subprocess.Popen[bytes] | None" = field(default=None, init=False)

    def __call__(self) -> dict[str, Any]:
        """Run the command to its end. Returns its `status` and its `error`, None if it ended well."""
        self._pieces = count_pieces(Path(self.run))
        try:
            with self._passing_on():
                status, error = self._run_command()
                if status < 0 and self._asked is None:  # once more, as where workers run on one machine
                    status, error = self._run_command()
                if status < 0 and self._asked is None:
                    error = f"it was killed twice (status {status}), possibly out of memory"
                if self._asked == signal.SIGTERM:  # whoever sends it kills soon, or sends the signal before a requeue
                    time.sleep(self.seconds)
        except Fruitless as ended:
            status, error = 1, str(ended)
        return {"status": status, "error": error}

    def checkpoint(self) -> "DelayedSubmission":
        """End the command at a safe point, or kill it shortly before the time limit. Returns what is queued again.
        Raises Fruitless, in `__call__`, if that would go on for ever."""
        from submitit.helpers import DelayedSubmission

        self._asked = signal.SIGTERM
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + self.seconds - TO_KILL_SECONDS
        while self._is_alive():
            if time.monotonic() > deadline:
                self._signal(signal.SIGKILL)
            time.sleep(POLL_SECONDS)
        fruitless = 0 if count_pieces(Path(self.run)) > self._pieces else self.fruitless + 1
        if fruitless == MOST_FRUITLESS:
            raise Fruitless(
                f"it came to its time limit {MOST_FRUITLESS} times without an epoch; give it more: --slurm time=..."
            )
        return DelayedSubmission(replace(self, fruitless=fruitless))

    def _run_command(self) -> tuple[int, str | None]:
        environment = {"ENS_STOP_SECONDS": f"{self.seconds / 2:.0f}"} | os.environ
        with tempfile.TemporaryFile() as output:
            process = self._process = subprocess.Popen(
                [sys.executable, "-m", "ensemble.cli", *self.command], stdin=subprocess.DEVNULL, stdout=output,
                cwd=self.folder, env=environment, preexec_fn=_ignore_user_signals,
            )  # fmt: skip
            if self._asked is not None:  # meanwhile
                self._signal(self._asked)
            # Not process.wait(): `checkpoint` interrupts it, and would wait for the lock that it holds.
            while process.poll() is None:
                time.sleep(POLL_SECONDS)
            output.seek(0)
            error = None
            with suppress(ValueError):
                error = json.loads(output.read()).get("error")
        return process.returncode, error

    def _signal(self, number: int) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, number)

    def _is_alive(self) -> bool:
        if self._process is None:
            return False
        try:
            return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        except ChildProcessError:
            return False

    @contextmanager
    def _passing_on(self) -> Iterator[None]:
        """SIGINT asks the worker to end: `ens` sends it at Ctrl-C. SIGTERM comes before SIGKILL. Either may have
        reached the command already, which takes two in quick succession for one."""

        def pass_on(number: int, frame: FrameType | None) -> None:
            self._asked = number
            self._signal(number)

        before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def count_pieces(run: Path) -> int:
    """How much of the run is finished: epochs, folds, added views of folds and shards of predictions."""
    logged = sum(log.read_bytes().count(b"\n") for log in run.glob("*/fold*/log.jsonl"))
    whole = ("*/fold*/done.json", "*/fold*/views.safetensors", "predictions/.*/*.safetensors")
    return logged + sum(1 for pattern in whole for _ in run.glob(pattern))


def _ignore_user_signals() -> None:
    """The signal before the time limit is for the worker, which ends the command; that would die of it."""
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)

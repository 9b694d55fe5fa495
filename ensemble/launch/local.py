"""Jobs side by side in processes of their own, each on its device and with its share of the cores.

On a CPU two one-thread processes train small nets faster than one process of two threads (benchmarks/RESULTS.md):
their layers are too small to be worth dividing. Every worker has a pipe of its own to the parent, so that one that is
killed leaves nothing locked: the parent sees its end and gives its job, which goes on from its last whole epoch, to
another once more.
"""

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

import torch

from ensemble.errors import RunFailure, UserError
from ensemble.launch.jobs import End, Listen, Outcome, Work
from ensemble.launch.slots import Slot
from ensemble.run import Fold
from ensemble.run.shapes import Epoch

ENDED, RAISED = "ended", "raised"


@dataclass(frozen=True)
class PipeEvents:
    """Sends what happens in a worker to its parent, which passes it on to the listener of the job."""

    pipe: Connection
    lock: threading.Lock = field(default_factory=threading.Lock)  # a pipe takes one message at a time

    def message(self, line: str) -> None:
        self._send("message", line)

    def progress(self, text: str, done: float, total: float) -> None:
        self._send("progress", text, done, total)

    def epoch_finished(self, member: str, fold: int, epoch: Epoch) -> None:
        self._send("epoch_finished", member, fold, epoch)

    def job_finished(self, member: str, fold: int, seconds: float, error: str | None) -> None:
        self._send("job_finished", member, fold, seconds, error)

    def _send(self, *message: Any) -> None:
        with self.lock:
            self.pipe.send(message)


def run_here(jobs: Sequence[Fold], slot: Slot, work: Work, listen: Listen, end: End) -> None:
    """Run `work(job, slot, events)` for one job after the other, in this process, with no more threads than the slot
    has (torch takes one for each core that it sees, also where a container may use two of 64)."""
    usual = torch.get_num_threads()
    torch.set_num_threads(min(usual, slot.threads))
    try:
        for job in jobs:
            end(job, work(job, slot, listen(job)))
    finally:
        torch.set_num_threads(usual)


def run_side_by_side(jobs: Sequence[Fold], slots: Sequence[Slot], work: Work, listen: Listen, end: End) -> None:
    """Run `work(job, slot, events)` for every job, in a process for each slot.

    `work` is pickled and sent to processes that start afresh; what happens there is passed on here to listen(job). A
    job whose process was killed twice ends with an error. What `work` raises is raised here, and ends the others.
    """
    if any(slot.processes > 1 for slot in slots):
        expect_leaked_semaphores()
    context = multiprocessing.get_context("spawn")
    waiting = list(jobs)
    retried: set[Fold] = set()
    workers: dict[Connection, tuple[SpawnProcess, Slot, Fold]] = {}

    def start(slot: Slot) -> Connection:
        ours, theirs = context.Pipe()
        is_daemon = slot.processes == 1  # else it starts processes, which no daemon may
        process = context.Process(target=_serve, args=(theirs, slot), daemon=is_daemon)
        with blocked_signals():
            process.start()
            workers[ours] = (process, slot, waiting.pop(0))
        theirs.close()
        return ours

    def give(pipe: Connection, *first: Work) -> None:
        with suppress(OSError):  # it has died meanwhile: the end of its pipe is read next
            for message in (*first, workers[pipe][2]):
                pipe.send(message)

    def retire(pipe: Connection) -> None:
        process = workers.pop(pipe)[0]
        pipe.close()
        process.join()

    try:
        # `work` holds all rows, more than a pipe takes before a process reads, which is after its imports: it is sent
        # when all are starting, so that they start side by side and Ctrl-C is not put off for so long.
        for ours in [start(slot) for slot in slots[: len(waiting)]]:
            give(ours, work)
        while workers:
            for pipe in wait(list(workers)):
                assert isinstance(pipe, Connection)
                process, slot, job = workers[pipe]
                try:
                    kind, *words = pipe.recv()
                except (EOFError, OSError):
                    retire(pipe)
                    if job in retried:
                        end(job, Outcome(error=_killed(job, process.exitcode)))
                    else:
                        retried.add(job)
                        waiting.insert(0, job)
                    if waiting:
                        give(start(slot), work)
                    continue
                if kind == RAISED:
                    raise words[0]
                if kind != ENDED:
                    getattr(listen(job), kind)(*words)
                    continue
                end(job, words[0])
                if waiting:
                    workers[pipe] = (process, slot, waiting.pop(0))
                    give(pipe)
                else:
                    retire(pipe)
    finally:
        for pipe, (process, _, _) in workers.items():
            process.kill()  # it hears nothing else, and what it wrote is whole
            process.join()
            pipe.close()


def _killed(job: Fold, status: int | None) -> str:
    return (
        f"{job}: its process was killed twice (status {status}), possibly out of memory; lower its batch_size, or set "
        "workers = 1"
    )


def expect_leaked_semaphores() -> None:
    """Those that an agent of several processes leaves when it is killed are removed by multiprocessing's own tracker,
    which would warn of them on the terminal. To be called before it starts."""
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker:UserWarning")


@contextmanager
def blocked_signals() -> Iterator[None]:
    """Processes that are started meanwhile never hear Ctrl-C and SIGTERM, from their first import on: only their parent
    does."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(pipe: Connection, slot: Slot) -> None:
    """A worker: take what to do, and jobs until the pipe is closed; end at once when the parent does."""
    for number in (signal.SIGINT, signal.SIGTERM):  # they reach the whole group: the parent sees to its workers
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch(sentinel: int) -> None:
        wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, args=(parent.sentinel,), daemon=True).start()
    torch.set_num_threads(slot.threads)
    work: Work | None = None
    while True:
        try:
            work = work or pipe.recv()
            job = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((ENDED, work(job, slot, PipeEvents(pipe))))
        except BrokenPipeError:
            return
        except Exception as error:
            pipe.send((RAISED, portable(error, str(job))))


def portable(error: Exception, job: str) -> Exception:
    """The error that is being handled, as another process is to raise it."""
    if isinstance(error, UserError | RunFailure | OSError):
        return error
    return RuntimeError(f"{job}:\n{traceback.format_exc()}")  # a bug: the parent's trace would not show it

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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

import torch

from ensemble.errors import RunFailure, UserError
from ensemble.machine import cores, threads_allowed

Job = tuple[str, int]  # member and fold
Tell = Callable[..., None]  # tell(kind, ...): a message to the parent
ENDED = "ended"


@dataclass(frozen=True)
class Slot:
    """Where one process works. threads: of the CPU, for one process."""

    device: str
    threads: int


Work = Callable[[Job, Slot, Tell], None]
Heard = Callable[..., None]  # heard(job, kind, ...)


def slots(workers: int | str, device: torch.device, jobs: int) -> list[Slot]:
    """One slot for each GPU; on a CPU two, which share the cores. `workers`: "auto" or a number set by hand.
    OMP_NUM_THREADS limits the threads of each, not how many there are."""
    there = cores()
    gpus = torch.cuda.device_count() if device.type == "cuda" else 0
    usual = gpus or (min(2, there) if device.type == "cpu" else 1)
    count = max(1, min(usual if workers == "auto" else int(workers), jobs))
    names = [f"cuda:{index % gpus}" if gpus else str(device) for index in range(count)]
    threads = min(max(1, there // count), threads_allowed() or there)
    return [Slot(name, threads) for name in names]


def describe_slots(places: Sequence[Slot]) -> str:
    """How many jobs there are at a time, with how many threads, and what limits those."""
    threads, there = places[0].threads, cores()
    limited = threads_allowed() == threads and threads < max(1, there // len(places))
    each = f"{threads} thread{'s' * (threads > 1)}{' each' * (len(places) > 1)}"
    return (
        f"{len(places)} at a time with {each} ({there} core{'s' * (there > 1)}"
        f"{f', OMP_NUM_THREADS={threads}' * limited})"
    )


def run_here(jobs: Sequence[Job], slot: Slot, work: Work, heard: Heard) -> None:
    """Run `work(job, slot, tell)` for one job after the other, in this process, with no more threads than the slot has
    (torch takes one for each core that it sees, also where a container may use two of 64)."""
    usual = torch.get_num_threads()
    torch.set_num_threads(min(usual, slot.threads))
    try:
        for job in jobs:
            work(job, slot, partial(heard, job))
    finally:
        torch.set_num_threads(usual)


def run_side_by_side(jobs: Sequence[Job], places: Sequence[Slot], work: Work, heard: Heard) -> None:
    """Run `work(job, slot, tell)` for every job, in a process for each place, and pass on what they tell.

    `work` is pickled and sent to processes that start afresh. heard(job, kind, ...): called here with what `tell` was
    given there, and with "killed" and the exit status for a job whose process was killed twice. What `work` raises is
    raised here, and ends the others.
    """
    context = multiprocessing.get_context("spawn")
    waiting = list(jobs)
    retried: set[Job] = set()
    workers: dict[Connection, tuple[SpawnProcess, Slot, Job]] = {}

    def start(slot: Slot) -> Connection:
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, slot), daemon=True)
        with _signals_put_off():
            process.start()
            workers[ours] = (process, slot, waiting.pop(0))
        theirs.close()
        return ours

    def give(pipe: Connection, *first: Work) -> None:
        with suppress(OSError):  # it has died meanwhile: the end of its pipe is read next
            for message in (*first, workers[pipe][2]):
                pipe.send(message)

    try:
        # `work` holds all rows, more than a pipe takes before a process reads, which is after its imports: it is sent
        # when all are starting, so that they start side by side and Ctrl-C is not put off for so long.
        for ours in [start(slot) for slot in places[: len(waiting)]]:
            give(ours, work)
        while workers:
            for pipe in wait(list(workers)):
                assert isinstance(pipe, Connection)
                process, slot, job = workers[pipe]
                try:
                    message = pipe.recv()
                except (EOFError, OSError):
                    del workers[pipe]
                    pipe.close()
                    process.join()
                    if job in retried:
                        heard(job, "killed", process.exitcode)
                    else:
                        retried.add(job)
                        waiting.insert(0, job)
                    if waiting:
                        give(start(slot), work)
                    continue
                if message[0] == "raised":
                    raise message[1]
                if message[0] != ENDED:
                    heard(job, *message)
                else:
                    if waiting:
                        workers[pipe] = (process, slot, waiting.pop(0))
                        give(pipe)
                    else:
                        del workers[pipe]
                        pipe.close()
                        process.join()
    finally:
        for pipe, (process, _, _) in workers.items():
            process.kill()  # it hears nothing else, and what it wrote is whole
            process.join()
            pipe.close()


@contextmanager
def _signals_put_off() -> Iterator[None]:
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
            work(job, slot, lambda *message: pipe.send(message))
            pipe.send((ENDED,))
        except BrokenPipeError:
            return
        except Exception as error:
            if not isinstance(error, UserError | RunFailure | OSError):  # a bug: the parent's trace would not show it
                error = RuntimeError(f"{job[0]} fold {job[1]}:\n{traceback.format_exc()}")
            pipe.send(("raised", error))

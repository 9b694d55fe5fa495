"""One job by several processes of this machine: torchrun's elastic agent starts them, and ends all where one ends.

Each process has a pipe to the one that started them. It is given its work there, and the first one tells there what
happens; where the pipe is closed, since the job is stopped or its parent was killed, the process ends at once.
"""

import logging
import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from functools import cache
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import TypeVar
from uuid import uuid4

import torch.distributed as dist

from ensemble.errors import RunFailure
from ensemble.events import SILENT, Events
from ensemble.launch.local import ENDED, RAISED, PipeEvents, blocked_signals, expect_leaked_semaphores, portable
from ensemble.launch.ranks import PeerLost, Ranks

Result = TypeVar("Result")
PATIENCE = timedelta(days=7)  # where a process waits for the others; the agent sees to those that have ended
GRACE = 30.0  # seconds for the agent to end a process that has lost another one


class _Killed(Exception):
    """A process was killed. Its text says how."""


def run_in_ranks(work: Callable[[Ranks, Events], Result], name: str, count: int, device: str, events: Events) -> Result:
    """Run `work(ranks, events)` in `count` processes side by side, and return what the first one returns. `work` is
    pickled. What any of them raises is raised here and ends the others; where one is killed, all start once more.

    name: of the job. device: its type, cpu or cuda. Raises RunFailure if processes were killed twice.
    """
    try:
        return _run(work, name, count, device, events)
    except _Killed as error:
        events.message(f"{name}: one of its {count} processes was killed ({error}); all of them start once more")
    try:
        return _run(work, name, count, device, events)
    except _Killed as error:
        raise RunFailure(
            f"{name}: one of its {count} processes was killed twice ({error}), possibly out of memory; lower its "
            "batch_size"
        ) from None


def _run(work: Callable[[Ranks, Events], Result], name: str, count: int, device: str, events: Events) -> Result:
    pairs = [multiprocessing.Pipe() for _ in range(count)]
    ours, theirs = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    results: list[Result] = []
    with ThreadPoolExecutor(1) as pool:  # signals are for the main thread, which listens to the pipes
        agent = pool.submit(_launch, theirs, name, device)
        agent.add_done_callback(lambda _: _close(theirs))
        try:
            with suppress(OSError):  # one has died meanwhile, and the agent ends the others
                for pipe in ours:
                    pipe.send(work)
            listened_to = list(ours)
            while listened_to:
                for ready in wait(listened_to):
                    assert isinstance(ready, Connection)
                    try:
                        kind, *words = ready.recv()
                    except (EOFError, OSError):
                        listened_to.remove(ready)
                        continue
                    if kind == RAISED:
                        raise words[0]
                    if kind == ENDED:
                        results.append(words[0])
                    else:
                        getattr(events, kind)(*words)
        finally:
            _close(ours)
    how = agent.result()
    if not results:
        raise _Killed(how)
    return results[0]


def _launch(pipes: Sequence[Connection], name: str, device: str) -> str:
    """Start a process for each pipe, and return when all have ended: how one was killed, "" if none was."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    _quieten("torch.distributed.elastic", "torch.multiprocessing.spawn")
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=len(pipes),
        run_id=uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",  # a free port
        local_addr="127.0.0.1",
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(os.devnull),
    )
    expect_leaked_semaphores()
    resource_tracker.ensure_running()  # it would unblock the signals when it starts
    try:
        with blocked_signals():  # the processes never hear Ctrl-C and SIGTERM: only their parent does
            elastic_launch(config, _serve)(list(pipes), name, device)
    except ChildFailedError as error:
        return ", ".join(f"status {failure.exitcode}" for failure in error.failures.values())
    return ""


def _close(pipes: Sequence[Connection]) -> None:
    for pipe in pipes:
        pipe.close()


@cache
def _quieten(*names: str) -> None:
    """Keep loggers that tell of every process and signal from writing between the lines of the bar."""
    for logger in map(logging.getLogger, names):
        logger.addHandler(logging.NullHandler())
        logger.propagate = False


def _serve(pipes: Sequence[Connection], name: str, device: str) -> None:
    """One of the processes."""
    ranks = Ranks(int(os.environ["RANK"]), len(pipes))
    pipe = pipes[ranks.rank]
    _close([other for other in pipes if other is not pipe])
    threading.Thread(target=_end_with_the_agent, daemon=True).start()
    try:
        work = pipe.recv()
    except (EOFError, OSError):
        os._exit(1)

    def watch() -> None:
        wait([pipe])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    try:
        _join(device)
        result = work(ranks, PipeEvents(pipe) if ranks.is_first else SILENT)
    except Exception as error:
        if isinstance(error, PeerLost):
            threading.Event().wait(GRACE)  # if one was killed, the agent knows it, and ends this one
            error = RunFailure(f"{name}: its processes can't reach each other: {error}")
        pipe.send((RAISED, portable(error, name)))
        threading.Event().wait()  # until the other end of the pipe is closed
        raise
    if ranks.is_first:
        pipe.send((ENDED, result))
    dist.destroy_process_group()


def _join(device: str) -> None:
    """Find the other processes, by the addresses that the agent left in the environment."""
    loopback = [name for _, name in socket.if_nameindex() if name in ("lo", "lo0")] if os.name == "posix" else []
    for name in loopback:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo", timeout=PATIENCE)
    except RuntimeError as error:
        raise PeerLost(str(error)) from None


def _end_with_the_agent() -> None:
    """End at the SIGTERM of the agent; one of a cluster, for the whole job, is for the parent alone to see to."""
    if hasattr(signal, "sigwaitinfo"):
        while signal.sigwaitinfo([signal.SIGTERM]).si_pid != os.getppid():
            pass
        os._exit(1)

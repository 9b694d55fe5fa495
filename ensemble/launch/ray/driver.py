"""Ray's driver: it connects, submits tasks, and reports what becomes of them. It decides nothing."""

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from ensemble.launch.ray.mailbox import Mailbox
from ensemble.launch.ray.worker import run_task
from ensemble.machine import cores

# What is sent to the process that the user started. READY: a list of `Node`s. CALLED: for each node its name, and what
# a function returned there or why it failed. HEARD: an `Event`. DONE: the number of a task, and what `run_task` gave.
# LOST: the number of a task, and why its worker was. FAILED: a line, why it goes on no longer.
READY, CALLED, HEARD, DONE, LOST, FAILED = "ready", "called", "heard", "done", "lost", "failed"
# What it sends: CALL: a function, to be called on each node. SHARE: bytes, what all tasks share. SUBMIT: a `Task`, and
# what it needs, as Ray's options.
CALL, SHARE, SUBMIT = "call", "share", "submit"
POLL_SECONDS = 0.2
CALL_SECONDS = 60.0
TOKENS = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")  # where Ray finds the one of the user
OBJECT_STORE = 2**30  # bytes, of a cluster of our own: it holds the rows, never pixels


@dataclass(frozen=True)
class Node:
    """A machine of the cluster.

    id: Ray's.
    name: for people.
    cpus, gpus: how many.
    memory: bytes that tasks may ask for.
    """

    id: str
    name: str
    cpus: float
    gpus: float
    memory: float


def drive(pipe: Connection, address: str | None) -> None:
    """The whole life of the driver, which ends when the pipe is closed, or the process at its other end dies.

    address: as `ray.init` takes it; None: that of RAY_ADDRESS, or a new cluster of this machine's cores and GPUs.
    """
    _by_ourselves()
    try:
        ray = _connect(address)
        box = _mailbox(ray)
        pipe.send((READY, nodes(ray)))
        _serve(ray, box, pipe)
    except (EOFError, BrokenPipeError):  # nobody listens any more
        pass
    except BaseException as error:
        pipe.send((FAILED, " ".join(f"{type(error).__name__}: {error}".split())[:400]))
        os._exit(1)
    ray.shutdown()


def _by_ourselves() -> None:
    """In a group of its own, which Ctrl-C and a terminal's end don't reach; what Ray writes goes nowhere; and it ends
    when its parent does."""
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM):  # those that came meanwhile are forgotten
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT, signal.SIGTERM])
    for number in (signal.SIGINT, signal.SIGTERM):  # as Ray's processes expect to inherit it
        signal.signal(number, signal.SIG_DFL)
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    parent = parent_process()
    assert parent is not None

    def watch(sentinel: int) -> None:
        wait([sentinel])
        os._exit(1)  # Ray ends the tasks of a driver that is gone, and the processes that it started for it

    threading.Thread(target=watch, args=(parent.sentinel,), daemon=True).start()


def _connect(address: str | None) -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if "RAY_AUTH_MODE" not in os.environ and any(map(_is_there, TOKENS)):
        os.environ["RAY_AUTH_MODE"] = "token"  # as `ray start` decides, but not `ray.init`
    import ray

    place = address or os.environ.get("RAY_ADDRESS")
    if place:
        ray.init(address=place, log_to_driver=False)
    else:
        ray.init(
            address="local", num_cpus=cores(), include_dashboard=False, object_store_memory=OBJECT_STORE,
            log_to_driver=False,
        )  # fmt: skip
    return ray


def _is_there(token: str) -> bool:
    return token in os.environ if token.isupper() else Path(token).expanduser().is_file()


def nodes(ray: Any) -> list[Node]:
    """The machines that are there."""
    found = []
    for node in ray.nodes():
        if node["Alive"]:
            has = node["Resources"]
            name = node["NodeManagerHostname"]
            if sum(other["NodeManagerHostname"] == name for other in ray.nodes()) > 1:
                name = f"{name} ({node['NodeManagerAddress']})"
            found.append(Node(node["NodeID"], name, has.get("CPU", 0), has.get("GPU", 0), has.get("memory", 0)))
    return found


def _mailbox(ray: Any) -> Any:
    """Beside the driver where that is known; it starts again where it was lost."""
    options: dict[str, Any] = {"num_cpus": 0, "max_restarts": -1}
    if not ray.util.client.ray.is_connected():
        options["scheduling_strategy"] = _on(ray.get_runtime_context().get_node_id(), soft=True)
    return ray.remote(Mailbox).options(**options).remote()


def _on(node: str, soft: bool) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node, soft=soft)


def _call(ray: Any, function: Callable[[], Any]) -> list[tuple[str, Any, str | None]]:
    """Call a function on each node: its name, what was returned, and why that failed."""
    remote, there = ray.remote(_called), nodes(ray)
    results: list[tuple[str, Any, str | None]] = []
    options = [{"num_cpus": 0, "scheduling_strategy": _on(node.id, soft=False)} for node in there]
    calls = [remote.options(**each).remote(function) for each in options]
    ray.wait(calls, num_returns=len(calls), timeout=CALL_SECONDS)
    for node, call in zip(there, calls, strict=True):
        try:
            results.append((node.name, ray.get(call, timeout=0), None))
        except ray.exceptions.GetTimeoutError:
            results.append((node.name, None, f"did not answer within {CALL_SECONDS:.0f} s"))
        except Exception as error:
            reason = str(getattr(error, "cause", None) or error).strip().splitlines()[-1]
            results.append((node.name, None, reason))
    return results


def _called(function: Callable[[], Any]) -> Any:
    return function()


def _serve(ray: Any, box: Any, pipe: Connection) -> None:
    remote = ray.remote(run_task)
    tasks: dict[Any, int] = {}
    shared: list[Any] = []
    while True:
        while pipe.poll(0 if tasks else None):
            command, *words = pipe.recv()
            if command == CALL:
                pipe.send((CALLED, _call(ray, words[0])))
            elif command == SHARE:
                shared = [ray.put(words[0])]
            else:
                task, options = words
                tasks[remote.options(max_retries=0, **options).remote(task, shared, box)] = task.number
            if not tasks:
                continue
        ready, _ = ray.wait(list(tasks), timeout=POLL_SECONDS)
        for event in _events(ray, box):
            pipe.send((HEARD, event))
        for ref in ready:
            pipe.send(_ended(ray, tasks.pop(ref), ref))


def _events(ray: Any, box: Any) -> list[Any]:
    try:
        return list(ray.get(box.take.remote(), timeout=POLL_SECONDS * 10))
    except ray.exceptions.RayError:  # it is started again
        return []


def _ended(ray: Any, number: int, ref: Any) -> tuple[Any, ...]:
    errors = ray.exceptions
    try:
        return DONE, number, ray.get(ref)
    except errors.OutOfMemoryError:
        return LOST, number, "its machine was out of memory"
    except errors.WorkerCrashedError:
        return LOST, number, "its process has ended"
    except (errors.NodeDiedError, errors.LocalRayletDiedError):
        return LOST, number, "its machine is gone"
    except errors.ObjectLostError as error:
        return LOST, number, type(error).__name__

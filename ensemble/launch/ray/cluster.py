"""The cluster as the process sees it that the user started: connected, looked at, and left."""

import multiprocessing
import os
import secrets
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from ensemble.errors import RunFailure, UserError
from ensemble.files import mirror, shared
from ensemble.launch.local import blocked_signals
from ensemble.launch.ray.driver import CALL, CALLED, FAILED, READY, Node, drive
from ensemble.launch.ray.worker import Expected, differences, digest, versions
from ensemble.plural import pluralize

ANSWER_SECONDS = 5.0  # for a port to be open
CONNECT_SECONDS = 120.0  # for Ray to be there, which it starts for itself where no address is given
END_SECONDS = 20.0
SAMPLE = 8  # images that are compared on every machine
MARKER = ".ray-"  # begins the name of a file by which machines find out that they see the same run


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster that a child of this process is connected to.

    pipe: to that child.
    nodes: the machines that were there when it connected.
    """

    pipe: Connection
    nodes: list[Node]

    def send(self, *words: Any) -> None:
        with suppress(OSError):  # the driver has ended: `receive` says so
            self.pipe.send(words)

    def receive(self) -> tuple[Any, ...]:
        """What the driver says next. Raises RunFailure if it has ended."""
        try:
            words: tuple[Any, ...] = self.pipe.recv()
        except (EOFError, OSError):
            words = (FAILED, "its head does not answer any more")
        if words[0] == FAILED:
            raise RunFailure(
                f"the Ray cluster is lost ({words[1]}); what is finished is kept: start the same command again"
            )
        return words

    def call(self, function: Callable[[], Any]) -> list[tuple[str, Any, str | None]]:
        """Call a function on each machine: its name, what was returned, and why that failed, or None."""
        self.send(CALL, function)
        kind, results = self.receive()
        assert kind == CALLED
        return list(results)

    def require(self, expected: Expected) -> None:
        """Raise UserError that names the first machine on which something differs."""
        for name, difference, failure in self.call(partial(differences, expected)):
            if failure is not None:
                raise UserError(f"the machine {name} of the Ray cluster can't work for ens: {failure}")
            if difference is not None:
                raise UserError(f"the machine {name} of the Ray cluster {difference}")


@contextmanager
def open_cluster(address: str | None) -> Iterator[Cluster]:
    """Connect to the Ray cluster at this address (None: that of RAY_ADDRESS, else a new one on this machine), and leave
    it at the end, when its tasks are ended. Raises UserError if it can't be reached."""
    place = address or os.environ.get("RAY_ADDRESS")
    _require_answer(place)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=drive, args=(theirs, address), daemon=True)
    with blocked_signals():
        process.start()
    theirs.close()
    try:
        yield Cluster(ours, _connected(ours, place))
    finally:
        ours.close()
        process.join(END_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()


@contextmanager
def seen_everywhere(run: Path, images: Sequence[Path]) -> Iterator[Expected]:
    """What all machines have to have alike, while the run directory holds a file that they have to see.

    images: those of which a few are compared
    """
    marker = mirror.folder_of(run).absolute() / f"{MARKER}{secrets.token_hex(8)}"
    shared.write(marker, marker.name.encode())
    paths = [str(images[row]) for row in range(0, len(images), max(1, len(images) // SAMPLE))][:SAMPLE]
    digests = {path: digest(path) for path in paths if Path(path).is_file()}
    try:
        yield Expected(versions(), str(Path.cwd()), mirror.display_name(marker), marker.name, digests)
    finally:
        shared.delete(marker)


def _require_answer(place: str | None) -> None:
    """Raise UserError if nothing listens at HOST:PORT; Ray itself would try for minutes."""
    host, _, port = (place or "").rpartition("://")[2].rpartition(":")
    if not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"no Ray cluster answers at {place} ({error}): start one with ray start --head, and give its address"
        ) from None


def _connected(pipe: Connection, place: str | None) -> list[Node]:
    where = f"the Ray cluster at {place}" if place else "Ray on this machine"
    kind: str
    answer: Any
    try:
        kind, answer = pipe.recv() if pipe.poll(CONNECT_SECONDS) else (FAILED, f"no answer in {CONNECT_SECONDS:.0f} s")
    except (EOFError, OSError):
        kind, answer = FAILED, "its driver ended"
    if kind != READY:
        advice = "; all machines need one version of Ray, and the same RAY_AUTH_MODE and token" if place else ""
        raise UserError(f"{where} can't be used: {answer}{advice}")
    nodes: list[Node] = answer
    return nodes


@dataclass(frozen=True)
class Needs:
    """What one job asks Ray for.

    cpus, gpus: how many; of a GPU possibly a part.
    threads: of the CPU, for all its processes, of which each GPU has one.
    together: how many such jobs the cluster can run at a time.
    most_memory: bytes, the most that a task may ask for and still find a machine.
    """

    cpus: float
    gpus: float
    threads: int
    together: int
    most_memory: float

    @property
    def processes(self) -> int:
        """How many train one job together."""
        return max(1, int(self.gpus))

    @property
    def jobs_on_a_gpu(self) -> int:
        return round(1 / self.gpus) if 0 < self.gpus < 1 else 1

    def options(self, memory: float = 0.0) -> dict[str, float]:
        """As Ray takes them. memory: bytes, 0 where none was measured."""
        return {"num_cpus": self.cpus, "num_gpus": self.gpus, "memory": int(min(memory, self.most_memory))}

    def describe(self) -> str:
        threads = pluralize(self.threads, "thread")
        gpus = f"{self._gpus()} and " if self.gpus else ""
        return f"{self.together} at a time with {gpus}{threads} each"

    def describe_one(self) -> str:
        """What Ray waits for to start one."""
        cpus = f"{self.cpus:g} CPU{'s' * (self.cpus > 1)}"
        return f"{self._gpus()} and {cpus}" if self.gpus else cpus

    def _gpus(self) -> str:
        return pluralize(int(self.gpus), "GPU") if self.gpus >= 1 else f"1/{self.jobs_on_a_gpu} GPU"


def job_needs(nodes: list[Node], gpus_per_job: int | str, workers: int | str, most_threads: int | None) -> Needs:
    """What each job of a run gets: its GPUs, and its share of the cores of the smallest machine that has them. Without
    GPUs there are `workers` jobs on each machine at a time, by default two, as on one machine.

    gpus_per_job: 1, more, "1/k", or "auto", which is one, or none where no machine has a GPU. most_threads: of each
    process, as OMP_NUM_THREADS says.
    Raises UserError if no machine has them.
    """
    whole_or_share = 1 if gpus_per_job == "auto" else gpus_per_job
    gpus = float(whole_or_share) if isinstance(whole_or_share, int) else 1 / int(whole_or_share.removeprefix("1/"))
    most = max(node.gpus for node in nodes)
    if most < gpus and (most or gpus_per_job != "auto"):
        has = f"none has more than {pluralize(int(most), 'GPU')}" if most else "none has a GPU"
        raise UserError(
            f"gpus_per_job = {gpus_per_job}: of the {pluralize(len(nodes), 'machine')} of the Ray cluster {has}"
        )
    fit = [node for node in nodes if node.gpus >= max(1.0, gpus)] if most else [node for node in nodes if node.cpus]
    if not fit:
        raise UserError("no machine of the Ray cluster has a CPU for tasks")
    if most:
        sides = [int(node.gpus / gpus + 1e-6) for node in fit]
    else:
        gpus, sides = 0.0, [max(1, min(2, int(node.cpus))) if workers == "auto" else int(workers) for node in fit]
    share = min(node.cpus / side for node, side in zip(fit, sides, strict=True))
    cpus = float(int(share)) if share >= 1 else share  # Ray takes parts of the first one alone
    if cpus:  # a larger machine has room for more
        by_cpus = [int(node.cpus / cpus + 1e-6) for node in fit]
        sides = [min(pair) for pair in zip(sides, by_cpus, strict=True)] if gpus else by_cpus
    processes = max(1, int(gpus))
    threads = max(1, int(cpus / processes))
    threads = min(threads, most_threads or threads) * processes
    return Needs(cpus, gpus, threads, sum(sides), max(node.memory for node in fit))

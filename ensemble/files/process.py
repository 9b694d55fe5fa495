"""Processes by all that tells one from another, on whatever machine: whether one that left its mark in a file lives."""

import os
import socket
import uuid
from dataclasses import dataclass
from pathlib import Path

ENDED = ("Z", "X")  # states of a process that was killed, and whose parent hasn't asked for its status yet


@dataclass(frozen=True)
class Process:
    """A process.

    host: the name of its machine, for people
    machine: what no other machine has, and this one not any more when it starts again
    namespace: in which process ids are counted; every container has its own
    pid: its process id
    started: when, in ticks since the machine started, which tells it from an earlier process of this id; 0 where that
        isn't known
    """

    host: str
    machine: str
    namespace: str
    pid: int
    started: int

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def parse_process(about: dict[str, object]) -> Process:
    """What `vars` of a process gave, read from a file. Raises TypeError for anything else."""
    process = Process(**about)  # type: ignore[arg-type]
    for name, kind in (("host", str), ("machine", str), ("namespace", str), ("pid", int), ("started", int)):
        if not isinstance(getattr(process, name), kind):
            raise TypeError(f"{name}: want {kind.__name__}")
    return process


def this_process() -> Process:
    return Process(*_place(), os.getpid(), _started(os.getpid()) or 0)


def is_here(process: Process) -> bool:
    """Whether it is one of this machine and container, whose processes can be asked for. On Windows none can."""
    return os.name != "nt" and (process.host, process.machine, process.namespace) == _place()


def is_known_dead(process: Process) -> bool:
    """True if it is one of this machine and container that has ended; False if it lives, or that can't be known."""
    if not is_here(process):
        return False
    try:
        os.kill(process.pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # another user's
        pass
    started = _started(process.pid)
    return started is None or (0 not in (started, process.started) and started != process.started)


def _place() -> tuple[str, str, str]:
    """Host, machine and namespace. Copies of one virtual machine may have all but the first in common."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    try:
        return socket.gethostname(), boot.read_text().strip(), str(Path("/proc/self/ns/pid").readlink())
    except OSError:  # not Linux
        return socket.gethostname(), f"{uuid.getnode():x}", ""


def _started(pid: int) -> int | None:
    """When a process started, in ticks; 0 where the system doesn't say, None if it was killed and is but a name."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if after_name[0] in ENDED else int(after_name[19])
    except (OSError, ValueError, IndexError):
        return 0

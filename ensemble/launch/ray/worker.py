"""A worker's side: one task of Ray, and what is looked at before a machine gets any."""

import hashlib
import os
import pickle
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from platform import python_version
from typing import Any

import ensemble
from ensemble.errors import UserError
from ensemble.files import mirror, shared

RETRY_SECONDS = 2.0


@dataclass(frozen=True)
class Expected:
    """What every machine has to have alike.

    versions: as `versions` gives them on the machine of the driver.
    folder: the folder that relative paths start from.
    marker, text: a file of the run, and what it holds.
    digests: of the bytes of some image files, by their paths.
    """

    versions: Mapping[str, str]
    folder: str
    marker: str = ""
    text: str = ""
    digests: Mapping[str, str] | None = None


def versions() -> dict[str, str]:
    """Of what the bits of a run depend on. Of ens it is a digest of the code too: a checkout has no other version."""
    root, code = Path(ensemble.__file__).parent, hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        code.update(path.read_bytes())
    ens = f"{ensemble.__version__} ({code.hexdigest()[:8]})"
    return {"ens": ens, "Python": python_version(), **{name: metadata.version(name) for name in ("torch", "timm")}}


def digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def differences(expected: Expected) -> str | None:
    """What this machine has otherwise, in words that follow its name; None if all is alike."""
    for name, here in versions().items():
        if here != expected.versions[name]:
            return f"has {name} {here}, this machine has {expected.versions[name]}: install the same on both"
    with suppress(OSError):
        os.chdir(expected.folder)
    if expected.marker:
        marker = mirror.folder_of(expected.marker)
        place = mirror.display_name(marker.parent)
        try:
            is_there = shared.read(marker) == expected.text.encode()
        except (OSError, UserError) as error:
            return f"can't read the run {place} ({error})"
        if not is_there:
            return f"does not see the run directory {place}: put it where all machines have it under the same path"
    for path, wanted in (expected.digests or {}).items():
        try:
            if digest(path) != wanted:
                return f"holds other bytes in the image {path}: give all machines the same images"
        except OSError as error:
            return (
                f"can't read the image {path} ({error.strerror}): give all machines the same images, at the same paths"
            )
    return None


@dataclass(frozen=True)
class Task:
    """What a worker is told of its task.

    number: which it is.
    name: of the function that does it.
    job: its first argument, pickled.
    threads: of the CPU, for all its processes.
    processes: how many train together, each on a GPU.
    memory: share of its GPU's memory that it may take.
    patience: seconds for which a job is tried again and again that another process has.
    """

    number: int
    name: str
    job: bytes
    threads: int
    processes: int = 1
    memory: float = 1.0
    patience: float = 0.0


_shared: dict[str, Any] = {}  # of this process: read once, for all its tasks


def run_task(task: Task, refs: Sequence[Any], box: Any) -> tuple[str, bytes, int]:
    """Do a task: (ENDED, what came of it, bytes of memory that it took) or (RAISED, the error, 0), pickled.

    refs: what all tasks share, as Ray knows it: a list of one, which Ray doesn't fetch for every task.
    """
    from ensemble.launch.local import ENDED, RAISED, portable  # torch, which the driver does without
    from ensemble.launch.ray.mailbox import sending

    job: Any = None
    shared: Any = None
    if not _shared:
        # What Ray raises here is a loss, no mistake of the work. A task that waits by ray.get or ray.wait gives its CPU
        # back meanwhile, and Ray starts another process for the next one; one that waits for a future doesn't.
        shared = refs[0].future().result()
    try:
        if shared is not None:
            _shared.update(pickle.loads(shared))
            difference = differences(_shared["expected"])
            if difference is not None:
                _shared.clear()
                raise UserError(f"{socket.gethostname()} {difference}")
        job = pickle.loads(task.job)
        with sending(box, task.number) as events:
            events.began(socket.gethostname())
            outcome = _patiently(partial(_shared[task.name], job, _slot(task), events), job, task.patience)
        return ENDED, pickle.dumps(outcome), events.peak
    except Exception as error:
        return RAISED, pickle.dumps(portable(error, str(job))), 0


def _slot(task: Task) -> Any:
    import torch

    from ensemble.device import choose_device
    from ensemble.launch.slots import Slot

    device = choose_device()  # of GPUs Ray shows the task its own, from 0 on
    slot = Slot("cuda:0" if device.type == "cuda" else str(device), task.threads, task.processes, task.memory)
    torch.set_num_threads(slot.threads_each)
    return slot


def _patiently(work: Callable[[], Any], job: Any, seconds: float) -> Any:
    """What comes of a job. A worker that was lost with its machine may live on for a while and keep the job from
    others."""
    until = time.monotonic() + seconds
    while True:
        outcome = work()
        is_held = getattr(outcome, "is_locked", False) and not job.is_done()
        if not is_held or time.monotonic() > until:
            return outcome
        time.sleep(RETRY_SECONDS)

"""The slots of this machine: how many jobs run side by side, on which devices and with how many threads."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ensemble.machine import cores, threads_allowed
from ensemble.plural import pluralize


@dataclass(frozen=True)
class Slot:
    """Where one process works.

    device: PyTorch's name of it, such as cpu or cuda:1
    threads: of the CPU, for this process
    """

    device: str
    threads: int


def choose_slots(workers: int | str, device: torch.device, jobs: int) -> list[Slot]:
    """One slot for each GPU; on a CPU two, which share the cores. `workers`: "auto" or a number set by hand.
    OMP_NUM_THREADS limits the threads of each, not how many there are."""
    available = cores()
    gpus = torch.cuda.device_count() if device.type == "cuda" else 0
    usual = gpus or (min(2, available) if device.type == "cpu" else 1)
    number = max(1, min(usual if workers == "auto" else int(workers), jobs))
    names = [f"cuda:{index % gpus}" if gpus else str(device) for index in range(number)]
    threads = min(max(1, available // number), threads_allowed() or available)
    return [Slot(name, threads) for name in names]


def describe_slots(slots: Sequence[Slot]) -> str:
    """How many jobs there are at a time, with how many threads, and what limits those."""
    threads, available = slots[0].threads, cores()
    is_limited = threads_allowed() == threads and threads < max(1, available // len(slots))
    each = f"{pluralize(threads, 'thread')}{' each' * (len(slots) > 1)}"
    limit = f", OMP_NUM_THREADS={threads}" if is_limited else ""
    return f"{len(slots)} at a time with {each} ({pluralize(available, 'core')}{limit})"

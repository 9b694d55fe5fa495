"""The slots of this machine: how many jobs run side by side, on which devices and with how many threads."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ensemble.errors import UserError
from ensemble.machine import cores, threads_allowed
from ensemble.plural import pluralize


@dataclass(frozen=True)
class Slot:
    """Where one job is trained.

    device: PyTorch's name of it, such as cpu or cuda:1
    threads: of the CPU, for all processes of the job
    processes: how many train the job together: on `device` and the GPUs after it, or all on the CPU
    memory: share of the GPU's memory that it may take
    """

    device: str
    threads: int
    processes: int = 1
    memory: float = 1.0

    @property
    def threads_each(self) -> int:
        """Of one process."""
        return max(1, self.threads // self.processes)


def choose_slots(workers: int | str, device: torch.device, jobs: int, gpus_per_job: int | str = 1) -> list[Slot]:
    """One slot for each GPU, or each `gpus_per_job` of them; for "1/k" k slots on each; on a CPU two, which share the
    cores. `workers`: "auto" or a number set by hand. gpus_per_job: "auto" is 1 here (see ensemble/train/packing.py).
    OMP_NUM_THREADS limits the threads of each process, not how many there are. Raises UserError where the machine lacks
    the GPUs."""
    processes, jobs_per_gpu = _processes_and_share(gpus_per_job)
    available, gpus = cores(), _count_gpus(device)
    if jobs_per_gpu > 1 and not gpus:
        raise UserError(
            f'gpus_per_job = "{gpus_per_job}": this machine has no GPU that jobs could share; remove it '
            "(workers = N sets how many jobs run side by side on a CPU)"
        )
    if gpus and processes > gpus:
        raise UserError(f"gpus_per_job = {processes}: this machine has {pluralize(gpus, 'GPU')}; lower it")
    places = gpus // processes if gpus else max(1, min(2, available // processes))
    number = max(1, min(places * jobs_per_gpu if workers == "auto" else int(workers), jobs))
    is_cuda = device.type == "cuda"
    names = [f"cuda:{index % places * processes}" if is_cuda else str(device) for index in range(number)]
    threads = min(max(1, available // number), (threads_allowed() or available) * processes)
    shares = [memory_share(names.count(name)) if jobs_per_gpu > 1 else 1.0 for name in names]
    return [Slot(name, threads, processes, share) for name, share in zip(names, shares, strict=True)]


def memory_share(jobs: int) -> float:
    """The share of a GPU's memory that each of so many jobs on it may take, so that none of them takes the others'. A
    tenth is left for what each process keeps there beside its tensors, about half a GB."""
    return 1.0 if jobs == 1 else 0.9 / jobs


def _processes_and_share(gpus_per_job: int | str) -> tuple[int, int]:
    """How many processes train one job together, and how many jobs share a GPU."""
    if gpus_per_job == "auto":
        return 1, 1
    if isinstance(gpus_per_job, str):
        return 1, int(gpus_per_job.removeprefix("1/"))
    return gpus_per_job, 1


def _count_gpus(device: torch.device) -> int:
    return torch.cuda.device_count() if device.type == "cuda" else 0 if device.type == "cpu" else 1


def describe_slots(slots: Sequence[Slot]) -> str:
    """How many jobs there are at a time, by how many processes and with how many threads, and what limits those."""
    threads, available, processes = slots[0].threads_each, cores(), slots[0].processes
    together = len(slots) * processes
    is_limited = threads_allowed() == threads and threads < max(1, available // together)
    each = f"{pluralize(threads, 'thread')}{' each' * (together > 1)}"
    limit = f", OMP_NUM_THREADS={threads}" if is_limited else ""
    by = f", each by {processes} processes" if processes > 1 else ""
    gpus = torch.cuda.device_count() if slots[0].device.startswith("cuda") else 0
    left_over = f"; {gpus % processes} of {gpus} GPUs left over" if gpus % processes else ""
    return f"{len(slots)} at a time{by} with {each} ({pluralize(available, 'core')}{limit}){left_over}"

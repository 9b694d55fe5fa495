"""What there is to train on: a GPU, or a CPU with how many cores."""

import os
import platform
from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """kind: "gpu" or "cpu". said: what was found or asked for, in words."""

    kind: str
    said: str


def look_at_machine(asked: str | None = None) -> Machine:
    """This machine, or the kind that is asked for: "gpu" or "cpu"."""
    if asked is not None:
        return Machine(asked, f"chosen for a {asked.upper()}, as --for says")
    import torch  # seconds, that only a look at this machine needs

    from ensemble.device import choose_device

    device = choose_device()
    if device.type == "cuda":
        count = torch.cuda.device_count()
        more = f" ({count} of them)" if count > 1 else ""
        return Machine("gpu", f"chosen for this machine's GPU, {torch.cuda.get_device_name(device)}{more}")
    if device.type == "mps":
        return Machine("gpu", f"chosen for this machine's GPU, {platform.processor() or 'Apple'} (MPS)")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Machine("cpu", f"chosen for this machine: no GPU, and {cores} CPU core{'' if cores == 1 else 's'}")

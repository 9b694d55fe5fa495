"""What there is to train on: a GPU, or a CPU with how many cores."""

import platform
from dataclasses import dataclass

from ensemble.machine import cores, device_type
from ensemble.plural import pluralize


@dataclass(frozen=True)
class Machine:
    """What ens init plans for.

    kind: "gpu" or "cpu".
    description: what was found or asked for, in words.
    """

    kind: str
    description: str


def look_at_machine(asked: str | None = None) -> Machine:
    """This machine, or the kind that is asked for: "gpu" or "cpu"."""
    if asked is not None:
        return Machine(asked, f"chosen for a {asked.upper()}, as --for says")
    kind = device_type()
    if kind == "cuda":
        import torch

        count = torch.cuda.device_count()
        more = f" ({count} of them)" if count > 1 else ""
        return Machine("gpu", f"chosen for this machine's GPU, {torch.cuda.get_device_name()}{more}")
    if kind == "mps":
        return Machine("gpu", f"chosen for this machine's GPU, {platform.processor() or 'Apple'} (MPS)")
    count = cores()
    return Machine("cpu", f"chosen for this machine: no GPU, and {pluralize(count, 'CPU core')}")

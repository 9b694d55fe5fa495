"""The processes that train one job together, as each of them sees them: torch.distributed's ranks."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist


class PeerLost(Exception):
    """Nothing can be exchanged: another process of the job has ended, most likely."""


@dataclass(frozen=True)
class Ranks:
    """One of the processes that train a job together. All of them call `add` and `any` in the same order.

    rank: its number, from 0. The first one writes the files, and tells what happens.
    count: how many there are.
    """

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def part(self, items: int) -> np.ndarray:
        """The numbers of this process's part of so many items, int64: one after the other, as equal as can be."""
        low, high = (items * rank // self.count for rank in (self.rank, self.rank + 1))
        return np.arange(low, high)

    def largest_part(self, items: int) -> int:
        """How many items a process has at most."""
        return -(-items // self.count)

    def add(self, values: torch.Tensor) -> None:
        """Replace the values, float32 on any device, by their sums over all processes, which have the same bits in each
        of them. Raises PeerLost."""
        if self.count > 1:
            _exchange(values, dist.ReduceOp.SUM)

    def any(self, flag: bool) -> bool:
        """Whether it is true in any of the processes. Exchanged on the CPU: no GPU is waited for. Raises PeerLost."""
        if self.count == 1:
            return flag
        flags = torch.tensor([float(flag)])
        _exchange(flags, dist.ReduceOp.MAX)
        return bool(flags.item())


ALONE = Ranks()


def _exchange(values: torch.Tensor, operation: "dist.ReduceOp.RedOpType") -> None:
    try:
        dist.all_reduce(values, operation)
    except RuntimeError as error:
        raise PeerLost(str(error)) from None

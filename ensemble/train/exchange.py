"""What processes that train one network tell each other in every step, so that all of them hold the same network.

DistributedDataParallel would exchange gradients while the others are still computed; but where memory runs out in one
process, the others have then begun to add up what it will never send. So all finish their shares first.
"""

from dataclasses import dataclass

import torch

from ensemble.launch.ranks import Ranks
from ensemble.train.batch_norms import batch_norm, measuring


@dataclass(frozen=True)
class Shared:
    """What a process has to tell of its share of a batch.

    sums: the loss and the gradients, which add up to those of the batch.
    means: running statistics of batch norms, each process's of its own images, whose mean is taken.
    flat: all these numbers, float32, as one: a network has hundreds of small tensors.
    """

    sums: list[torch.Tensor]
    means: list[torch.Tensor]
    flat: torch.Tensor


def collect(loss: torch.Tensor, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Shared:
    """What is to be exchanged after a backward pass. Takes as much memory as the gradients do."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    sums = [loss, *(parameter.grad for parameter in parameters if parameter.grad is not None)]
    norms = [batch_norm(model, name) for name in measuring(model)]
    means = [values for norm in norms for values in (norm.running_mean, norm.running_var) if values is not None]
    return Shared(sums, means, torch.cat([tensor.reshape(-1) for tensor in (*sums, *means)]))


@torch.no_grad()
def exchange(shared: Shared, ranks: Ranks) -> None:
    """Put the sums and means over all processes into the tensors. Raises PeerLost."""
    ranks.add(shared.flat)
    tensors = [*shared.sums, *shared.means]
    for tensor, total in zip(tensors, torch.split(shared.flat, [tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(total.view(tensor.shape))
    for values in shared.means:
        values /= ranks.count

"""Batch norms of averaged networks, whose statistics are those of no network: estimated anew on training images, as
Izmailov et al. do (Averaging weights leads to wider optima and better generalization, UAI 2018)."""

from collections.abc import Iterable, Sequence

import torch
from timm.layers import convert_sync_batchnorm
from torch.nn.modules.batchnorm import _BatchNorm

MOST_ROWS = 2048  # a channel's mean is then known to 1/45 of its deviation, and its neighbours' places add to that


def measuring(model: torch.nn.Module) -> list[str]:
    """Names of the batch norms of a network in training that measure their input: frozen ones don't."""
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.training and module.track_running_stats
    ]


def batch_norm(model: torch.nn.Module, name: str) -> _BatchNorm:
    module = model.get_submodule(name)
    assert isinstance(module, _BatchNorm)
    return module


def synchronized(model: torch.nn.Module) -> torch.nn.Module:
    """The network with batch norms that measure the shares of all processes as one batch (torch has them for GPUs
    only). Names and values stay as they are."""
    converted: torch.nn.Module = convert_sync_batchnorm(model)
    return converted


@torch.no_grad()
def estimate(model: torch.nn.Module, norms: Sequence[_BatchNorm], images: Iterable[torch.Tensor]) -> None:
    """Replace the statistics of these batch norms by their means over batches of normalised images, float32 (B, 3, S,
    S), B > 1. The rest of the network is in evaluation meanwhile, as all of it is afterwards."""
    model.eval()
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over all batches
        norm.train()
    if norms:
        for batch in images:
            model(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()

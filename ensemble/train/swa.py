"""Stochastic weight averaging: the mean of the weights after each of the last epochs (Izmailov et al., Averaging
weights leads to wider optima and better generalization, UAI 2018)."""

from collections.abc import Iterable

import torch

from ensemble.backbones.fine_tuning import train_mode
from ensemble.train.batch_norms import batch_norm, estimate, measuring
from ensemble.train.state import TrainState


@torch.no_grad()
def add_to_average(average: torch.nn.Module, model: torch.nn.Module, count: int) -> None:
    """Take a network into the average of `count` others, which becomes that of count + 1; of none, it becomes this."""
    new = model.state_dict()
    for name, mean in average.state_dict().items():
        if mean.is_floating_point() and count:
            mean.lerp_(new[name], 1 / (count + 1))
        else:
            mean.copy_(new[name])


def finish_average(state: TrainState, freeze_bn: bool, images: Iterable[torch.Tensor]) -> None:
    """Estimate those batch norms of the average anew that were not frozen in training. images: batches of what the
    network was trained on, float32 (B, 3, S, S)."""
    train_mode(state.model, freeze_bn)
    norms = [batch_norm(state.average.module, name) for name in measuring(state.model)]
    estimate(state.average.module, norms, images)

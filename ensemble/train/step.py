"""One step of training: a batch's gradients, in as many parts as memory asks for, and the optimizer's step."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from ensemble.device import array_on, free_cached_memory, is_out_of_memory
from ensemble.errors import RunFailure
from ensemble.launch.ranks import ALONE, Ranks
from ensemble.plural import pluralize
from ensemble.train.exchange import collect, exchange
from ensemble.train.losses import RowLosses
from ensemble.train.numerics import Numerics, autocast_as, in_memory_format


class Target(NamedTuple):
    """What a batch of images is to be answered with.

    answers: labels int64 (B,), or probabilities float32 (B, C).
    weights: float32 (B,), what each row's loss is multiplied with.
    row_losses: how the network's logits are compared with the answers.
    """

    answers: torch.Tensor
    weights: torch.Tensor
    row_losses: RowLosses


class Stepper:
    """Takes the steps of one network. micro_batch: images at a time, halved whenever memory runs out, in any of the
    processes that train it."""

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        numerics: Numerics,
        micro_batch: int,
        on_halved: Callable[[int], None],
        ranks: Ranks = ALONE,
    ) -> None:
        """on_halved: is told of the new micro_batch. ranks: the processes."""
        self.model = model
        self.optimizer = optimizer
        self.numerics = numerics
        self.micro_batch = micro_batch
        self.on_halved = on_halved
        self.ranks = ranks
        self.is_synchronized = any(isinstance(module, torch.nn.SyncBatchNorm) for module in model.modules())

    def step(self, images: torch.Tensor, targets: Sequence[Target], batch_size: int) -> torch.Tensor:
        """Learn from a batch, of which this process is given its share, float32 (n, 3, H, W). Returns the batch's mean
        loss. Raises RunFailure where not even two images fit into memory."""
        while True:
            is_out = False
            largest = self.ranks.largest_part(batch_size)
            # As many in all processes: in each part their batch norms wait for each other.
            parts = math.ceil(largest / self.micro_batch) if self.is_synchronized else None
            try:
                images = in_memory_format(images, self.numerics)
                loss = gradients(self.model, images, targets, self.micro_batch, self.numerics, batch_size, parts)
                shared = collect(loss, self.model, self.optimizer) if self.ranks.count > 1 else None
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                is_out = True
            # Outside of the except block, whose error holds the frames and with them the activations
            if is_out and self.is_synchronized:  # the others wait within a batch norm, and would never be heard
                raise RunFailure(
                    f"out of memory in one of {self.ranks.count} processes, whose batch norms measure their images "
                    f"together; set micro_batch = {max(2, min(self.micro_batch, largest) // 2)}"
                )
            if not self.ranks.any(is_out):
                break
            self.optimizer.zero_grad(set_to_none=True)
            free_cached_memory(images.device)
            if self.micro_batch < 4:
                raise RunFailure(f"out of memory at {pluralize(self.micro_batch, 'image')}; lower image_size")
            self.micro_batch = min(self.micro_batch, largest) // 2
            self.on_halved(self.micro_batch)
        if shared is not None:
            exchange(shared, self.ranks)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss


def gradients(
    model: torch.nn.Module,
    images: torch.Tensor,
    targets: Sequence[Target],
    micro_batch: int,
    numerics: Numerics,
    batch_size: int | None = None,
    parts: int | None = None,
) -> torch.Tensor:
    """Add the gradients of a batch's mean loss, at most `micro_batch` images at a time; returns the loss.

    images: float32 (B, 3, H, W). batch_size: of the batch that they are a share of; None: they are all of it. parts:
    into how many they are divided; None: into as few as can be. These are as equal as can be: a batch norm has no
    variance over one image that is left over.
    """
    total = torch.zeros((), device=images.device)
    parts = math.ceil(len(images) / micro_batch) if parts is None else parts
    ends = [-(-len(images) * index // parts) for index in range(parts + 1)]
    for start, end in itertools.pairwise(ends):
        part = slice(start, end)
        with autocast_as(images.device, numerics):
            logits = model(images[part])
        loss = torch.stack(
            [(each.row_losses(logits, each.answers[part]) * each.weights[part]).sum() for each in targets]
        ).sum()
        loss = loss / (batch_size or len(images))
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
    return total


def learning_rate(step: float, steps: int, warmup: float, peak: float, constant_from: float = math.inf) -> float:
    """Linear warm-up over `warmup` steps, then half a cosine down to 0 at `steps` (Loshchilov and Hutter 2017).
    constant_from: a step after which the rate stays as it was there, though not within the warm-up."""
    step = min(step, max(constant_from, warmup))
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1.0, steps - warmup)))


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The rate of each group of parameters, its own share of `rate`."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)


def targets_of(
    labels: np.ndarray,
    weights: np.ndarray,
    row_losses: RowLosses,
    mixed: tuple[torch.Tensor, torch.Tensor] | None,
    device: torch.device,
) -> list[Target]:
    """What a batch is to be answered with: its own labels and, where its images were mixed, those of their partners.

    labels: int64 (M,), or probabilities float32 (M, C). weights: float32 (M,). mixed: partner and share, as `mixed`
    gives them, of the first N, or None.
    """
    own_labels, own_weights = array_on(labels, device), array_on(weights, device)
    if mixed is None:
        return [Target(own_labels, own_weights, row_losses)]
    partner, share = mixed
    count = len(share)
    return [
        Target(own_labels[:count], own_weights[:count] * share, row_losses),
        Target(own_labels[partner], own_weights[partner] * (1 - share), row_losses),
    ]

"""The average of networks: of their weights, name by name (Izmailov et al., UAI 2018; Wortsman et al., Model soups,
ICML 2022)."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from ensemble.device import to_device
from ensemble.inference.eval_model import prepared
from ensemble.inference.formats import Inference
from ensemble.inference.member import LoadedMember
from ensemble.soup.closeness import closeness
from ensemble.soup.images import MOST_IMAGES, logits_of_files, normalised
from ensemble.train.batch_norms import estimate

State = Mapping[str, torch.Tensor]


def averaged_network(
    create: Callable[[], torch.nn.Module],
    states: Sequence[State],
    networks: LoadedMember,
    training_files: Sequence[Path],
    batch_size: int,
    device: torch.device,
) -> tuple[torch.nn.Module, int]:
    """The average of networks of one architecture, in evaluation on the device, and how many of its batch norms were
    estimated anew on training images.

    Where batch norms were not frozen, their statistics are averaged like weights, or estimated anew: whichever brings
    the network nearer to the ensemble of `networks` on training images. Networks that are near each other keep what
    they measured on augmented images by averaging (divergence 0.0002 nats, anew 0.1: test_resnet after 24 steps); for
    those that are not, it is a measurement of no network.

    create: makes a network of the architecture
    states, networks: the weights of K networks, and the same ones ready to predict
    """
    mean = average(states)
    candidates = []
    for is_anew in (False, True):
        model = create()
        model.load_state_dict(mean)
        norms = moved_norms(model, states) if is_anew else []
        model = to_device(model, device).eval()
        if norms:
            estimate(model, norms, normalised(training_files, networks.preprocess, device))
        if norms or not is_anew:
            candidates.append((model, len(norms)))
    if len(candidates) == 1:
        return candidates[0]
    compared = [
        prepared(model, Inference(device.type), networks.preprocess.image_size, device) for model, _ in candidates
    ]
    files = training_files[:MOST_IMAGES]
    every = (*networks.eval_models, *compared)
    logits = logits_of_files(every, files, networks.preprocess, ("identity",), batch_size, device)[:, 0]
    divergences = [closeness(logits[:-2], each).divergence for each in logits[-2:]]
    return candidates[int(np.argmin(divergences))]


def average(states: Sequence[State]) -> dict[str, torch.Tensor]:
    """The mean of networks of one architecture, summed in float64; whole numbers (counts of batches) are the first
    one's."""
    mean = {}
    for name, first in states[0].items():
        if first.is_floating_point():
            total = first.double()
            for state in states[1:]:
                total = total + state[name].double()
            mean[name] = (total / len(states)).to(first.dtype)
        else:
            mean[name] = first.clone()
    return mean


def moved_norms(model: torch.nn.Module, states: Sequence[State]) -> list[_BatchNorm]:
    """The batch norms of `model` whose statistics differ between networks of its architecture: they were not frozen."""
    moved = []
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and module.track_running_stats:
            keys = [f"{name}.{kind}" for kind in ("running_mean", "running_var")]
            if any(not torch.equal(states[0][key], state[key]) for key in keys for state in states[1:]):
                moved.append(module)
    return moved

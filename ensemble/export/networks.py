"""The networks of a blend's members in float32 on the CPU, each as a module from normalised images float32
(B, 3, S, S) to the logits of K folds, float32 (K, B, C)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ensemble.backbones import timm_model
from ensemble.backbones.heads import NeighboursHead, nearest_rows, standardised, vote
from ensemble.events import Events
from ensemble.inference.eval_model import EvalModel
from ensemble.inference.formats import Inference
from ensemble.inference.member import LoadedMember, load_networks
from ensemble.run import Fold


def load_exact(networks: Mapping[str, Sequence[Fold]], classes: int, events: Events) -> list[LoadedMember]:
    """Members by the names that the blend has for them, with these networks of each, in float32. Raises UserError that
    names a network that is missing or not whole."""
    device, loaded = torch.device("cpu"), []
    for number, (name, folds) in enumerate(networks.items()):
        events.progress("loading the networks", number, len(networks))
        member = load_networks(folds[0].member, folds, classes, device)
        exact = (EvalModel(Inference(device.type), each.exact, None, each.heads) for each in member.eval_models)
        loaded.append(replace(member, name=name, eval_models=tuple(exact)))
    events.progress("loading the networks", len(networks), len(networks))
    return loaded


def as_module(eval_model: EvalModel) -> torch.nn.Module:
    """The module that is exported: the network itself, whose logits are float32 (B, C), or `Heads`."""
    return eval_model.exact if eval_model.heads is None else Heads(eval_model)


class Heads(torch.nn.Module):
    """A network that K folds share, with their classifiers: logits float32 (K, B, C)."""

    def __init__(self, eval_model: EvalModel) -> None:
        super().__init__()
        assert eval_model.heads is not None
        self.network = eval_model.exact
        self.heads = torch.nn.ModuleList(
            FixedNeighbours(head) if isinstance(head, NeighboursHead) else head for head in eval_model.heads
        )

    def forward(self, images: Tensor) -> Tensor:
        features = timm_model.embed(self.network, images)
        return torch.stack([head(features) for head in self.heads])


class FixedNeighbours(torch.nn.Module):
    """A `NeighboursHead` whose k and temperature are numbers, as a graph needs them."""

    def __init__(self, head: NeighboursHead) -> None:
        super().__init__()
        k, self.temperature, self.sharpness = head.chosen.tolist()
        self.k = int(k)
        self.head = head

    def forward(self, features: Tensor) -> Tensor:
        head = self.head
        cosines, nearest = nearest_rows(standardised(features, head.mean, head.scale), head.neighbours, self.k)
        votes = vote(cosines, head.labels[nearest], head.weights[nearest], head.prior, self.temperature)
        return votes.mul(self.sharpness)

"""A blend with all its networks as one module: from squares to probabilities. Its parts are exported one by one for an
ONNX file, and the whole for PyTorch's own format."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ensemble.blend import Blend
from ensemble.data.pixels.preprocess import Decoding, Preprocess
from ensemble.export.blending import Blending
from ensemble.export.front import Front
from ensemble.export.networks import as_module
from ensemble.inference.decodings import geometry
from ensemble.inference.member import LoadedMember
from ensemble.inference.view_names import sides_of


@dataclass(frozen=True)
class MemberParts:
    """How a member's logits are made.

    name: of the member
    fronts: for each size of its views the number of the front that makes them
    order: for each of its V views, where it stands among those of all its fronts
    networks: the numbers of its networks
    folds: of how many folds each network gives the logits
    """

    name: str
    fronts: tuple[int, ...]
    order: tuple[int, ...]
    networks: tuple[int, ...]
    folds: int


class EnsembleModule(torch.nn.Module):
    """From squares, uint8 (B, side, side, 3), one for each of `inputs`, to probabilities float32 (B, C) and those of
    each member by itself, float32 (M, B, C).

    inputs: the name of each input, and how an image is decoded to it
    front_list: each from the squares of its decodings to the images of V views of one size; shared by members that
        prepare their images alike
    networks: those of all members, each from images to logits (B, C), or (K, B, C) where folds share a network
    members: how these go together
    blending: from the members' logits to probabilities
    """

    def __init__(self, blend: Blend, loaded: Sequence[LoadedMember]) -> None:
        super().__init__()
        fronts: dict[tuple[Preprocess, tuple[str, ...]], int] = {}
        modules: list[Front] = []
        networks: list[torch.nn.Module] = []
        self.members: list[MemberParts] = []
        for member, views in zip(loaded, blend.views, strict=True):
            sides = geometry(member.preprocess)
            sizes = [sides_of(view, sides).image_size for view in views]
            of_member, placed = [], []
            for size in dict.fromkeys(sizes):
                places = [place for place, each in enumerate(sizes) if each == size]
                key = (member.preprocess, tuple(views[place] for place in places))
                if key not in fronts:
                    fronts[key] = len(modules)
                    modules.append(Front(*key))
                of_member.append(fronts[key])
                placed += places
            numbers = range(len(networks), len(networks) + len(member.eval_models))
            networks += [as_module(eval_model) for eval_model in member.eval_models]
            order = tuple(placed.index(place) for place in range(len(views)))
            folds = member.eval_models[0].outputs
            self.members.append(MemberParts(member.name, tuple(of_member), order, tuple(numbers), folds))
        self.front_list = modules
        self.fronts = torch.nn.ModuleList(modules)  # the same ones, for torch
        self.networks = torch.nn.ModuleList(networks)
        self.blending = Blending(blend, list(map(outputs_of, loaded)))
        self.inputs = input_names(modules)
        self.eval().requires_grad_(False)

    def forward(self, *squares: Tensor) -> tuple[Tensor, Tensor]:
        given = dict(zip(self.inputs.values(), squares, strict=True))
        images = [front(*(given[decoding] for decoding in front.decodings)) for front in self.front_list]
        logits = []
        for parts in self.members:
            of_networks = []
            for number in parts.networks:
                views = [self._views(number, front, parts, images) for front in parts.fronts]
                of_networks.append(torch.cat(views, dim=1)[:, list(parts.order)])
            logits.append(torch.cat(of_networks))
        found: tuple[Tensor, Tensor] = self.blending(*logits)
        return found

    def _views(self, network: int, front: int, parts: MemberParts, images: list[Tensor]) -> Tensor:
        """The logits of the views of a front, (K, V, B, C)."""
        logits: Tensor = self.networks[network](images[front])
        count = len(self.front_list[front].views)
        return logits.reshape(parts.folds, count, -1, logits.shape[-1])


def outputs_of(member: LoadedMember) -> int:
    """K, of how many networks or classifiers a member gives logits."""
    return sum(each.outputs for each in member.eval_models)


def example_of(decoding: Decoding) -> Tensor:
    """Squares of two images, all black, for PyTorch's exporter."""
    side = decoding.size or 0
    return torch.zeros(2, side, side, 3, dtype=torch.uint8)


def input_names(fronts: Sequence[Front]) -> dict[str, Decoding]:
    """A name for each decoding that the fronts need: squares_192, and squares_192_1 for another one of that side."""
    names: dict[str, Decoding] = {}
    for decoding in dict.fromkeys(each for front in fronts for each in front.decodings):
        name = plain = f"squares_{decoding.size}"
        while name in names:
            name = f"{plain}_{sum(other.startswith(plain) for other in names)}"
        names[name] = decoding
    return names

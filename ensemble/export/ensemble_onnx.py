"""A blend with all its networks as one ONNX graph, joined from its parts: PyTorch's exporter takes minutes for the
whole and seconds for each architecture."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from ensemble.errors import UserError
from ensemble.events import Events
from ensemble.export.blending import Blending
from ensemble.export.ensemble_module import EnsembleModule, MemberParts, example_of
from ensemble.export.join import Joined
from ensemble.exported.seal import LIMIT
from ensemble.inference.to_onnx import Graphs, graph_of, network_with, with_weights

if TYPE_CHECKING:
    import onnx

SPARE = 10_000_000  # bytes that the nodes of a graph and its metadata may take beside its tensors


def ensemble_to_onnx(ensemble: EnsembleModule, classes: int, graphs: Graphs, events: Events) -> bytes:
    """The serialised model. Inputs: `ensemble.inputs`, uint8 (batch, side, side, 3); outputs: `probabilities` float32
    (batch, C) and `member_probabilities` float32 (M, batch, C).

    graphs: of the architectures that were exported before, to which new ones are added.

    Raises UserError that names a member that PyTorch's exporter can't write, and for networks that are too large for
    one file.
    """
    require_size(ensemble)
    joined = Joined()
    for name, decoding in ensemble.inputs.items():
        joined.add_input(name, ["batch", decoding.size or 0, decoding.size or 0, 3], np.uint8)
    images = _add_fronts(joined, ensemble)
    done, total = 0, len(ensemble.networks)
    logits = []
    for parts in ensemble.members:
        events.progress("exporting the networks", done, total)
        logits.append(_add_member(joined, ensemble, parts, images, graphs, classes))
        done += len(parts.networks)
    events.progress("exporting the networks", done, total)
    shapes = [(len(parts.networks) * parts.folds, len(parts.order)) for parts in ensemble.members]
    add_blending(joined, ensemble.blending, shapes, logits, classes)
    return joined.to_bytes("ens")


def require_size(module: torch.nn.Module) -> None:
    """Raise UserError for networks that are too large for one file."""
    tensors = {tensor.data_ptr(): tensor.nbytes for tensor in (*module.parameters(), *module.buffers())}
    size = sum(tensors.values())
    if size > LIMIT - SPARE:
        raise UserError(
            f"the networks have {size / 1e9:.2f} GB, and an ONNX file holds at most 2.1 GB: export one network of each "
            "member (--networks soup), a blend of fewer members (ens blend --members), or with --format pt2"
        )


def _add_fronts(joined: Joined, ensemble: EnsembleModule) -> list[str]:
    """The names of the images that each front makes."""
    names = {decoding: name for name, decoding in ensemble.inputs.items()}
    images = []
    for number, front in enumerate(ensemble.front_list):
        examples = {names[decoding]: example_of(decoding) for decoding in front.decodings}
        part = with_weights(graph_of(front, examples, "images"), front)
        images += joined.add_part(part, f"front{number}/", {name: name for name in examples})
    return images


def _add_member(
    joined: Joined, ensemble: EnsembleModule, parts: MemberParts, images: list[str], graphs: Graphs, classes: int
) -> str:
    """The name of the member's logits, float32 (K, V, batch, C)."""
    of_fronts: list[list[str]] = [[] for _ in parts.networks]
    for front in parts.fronts:
        views, size = len(ensemble.front_list[front].views), ensemble.front_list[front].size
        for number, network in enumerate(parts.networks):
            prefix = f"{parts.name}/{number}/{size}/"
            part = network_of(parts.name, ensemble.networks[network], size, graphs)
            (logits,) = joined.add_part(part, prefix, {"images": images[front]})
            shape = joined.add_constant([parts.folds, views, -1, classes], f"{prefix}shape")
            of_fronts[number].append(joined.add_node("Reshape", [logits, shape], f"{prefix}views"))
    networks = []
    for number, of_network in enumerate(of_fronts):
        prefix = f"{parts.name}/{number}/"
        logits = concatenated(joined, of_network, f"{prefix}views", axis=1)
        if parts.order != tuple(range(len(parts.order))):
            order = joined.add_constant(parts.order, f"{prefix}order")
            logits = joined.add_node("Gather", [logits, order], f"{prefix}ordered", axis=1)
        networks.append(logits)
    return concatenated(joined, networks, f"{parts.name}/logits", axis=0)


def network_of(member: str, network: torch.nn.Module, size: int, graphs: Graphs) -> "onnx.ModelProto":
    """As `network_with`. Raises UserError that names the member if PyTorch's exporter can't write it."""
    try:
        return network_with(graphs, network, size)
    except UserError as error:
        raise UserError(f"{member}: {error}; leave it out: ens blend RUN --members ...") from None


def concatenated(joined: Joined, names: list[str], output: str, axis: int) -> str:
    return names[0] if len(names) == 1 else joined.add_node("Concat", names, output, axis=axis)


def add_blending(
    joined: Joined, blending: Blending, shapes: Sequence[tuple[int, int]], logits: Sequence[str], classes: int
) -> None:
    """Add the blend, and its `probabilities` and `member_probabilities` as outputs.

    shapes: K and V of each member
    logits: the names of each member's, float32 (K, V, batch, C)
    """
    examples = {f"logits_{number}": torch.zeros(*shape, 2, classes) for number, shape in enumerate(shapes)}
    graph = graph_of(blending, examples, "probabilities", "member_probabilities", batch_dim=2)
    part = with_weights(graph, blending)
    probabilities, members = joined.add_part(part, "blend/", dict(zip(examples, logits, strict=True)))
    joined.add_output("probabilities", ["batch", classes], probabilities)
    joined.add_output("member_probabilities", [len(shapes), "batch", classes], members)

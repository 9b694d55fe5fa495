"""Frozen features of the run's images: of a probe's network, or of the weights that a member's training started from.

They have learned nothing from the run's labels, so that clusters of them say nothing about what was predicted, and all
folds share them. They are kept in the member's directory: torch is imported only where they are computed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ensemble.config import Backbone, Config
from ensemble.data.features import Features, load_features
from ensemble.data.samples import Samples
from ensemble.errors import Damaged, UserError
from ensemble.events import Events
from ensemble.run import Member, Run

if TYPE_CHECKING:
    import torch

    from ensemble.data.pixels.preprocess import Preprocess
    from ensemble.inference.eval_model import EvalModel

BATCHES = 32  # whose pixels are in memory at once


@dataclass(frozen=True)
class FrozenNetwork:
    """A network that learned nothing from the run's labels.

    member: whose start it is, or whose probe's network.
    backbone: the table of the experiment that says what training started from; None for a probe's network, which lies
        in the run.
    """

    member: Member
    backbone: Backbone | None = None


def frozen_networks(run: Run, config: Config) -> list[FrozenNetwork]:
    """Those that the run knows, the smallest first; of the starts only those that all folds share."""
    backbones = {backbone.name: backbone for backbone in config.backbone}
    found = []
    for name in run.member_names():
        member = run.member(name)
        if not member.fold(0).model_file.is_file():
            continue
        if member.read_settings().get("strategy") == "probe":
            found.append(FrozenNetwork(member))
        elif (
            name in backbones
            and _is_pretrained(backbones[name])
            and member.read_settings().get("strategy") != "scratch"
        ):
            found.append(FrozenNetwork(member, backbones[name]))
    return sorted(found, key=lambda each: each.member.fold(0).model_file.stat().st_size)


def kept_features(run: Run, ids: np.ndarray, events: Events) -> tuple[str, np.ndarray] | None:
    """The features that a member's directory holds of these images, float32 (N, D), with its name; None if there are
    none."""
    for name in run.member_names():
        path = run.member(name).features_file
        if path.is_file():
            try:
                found = load_features(path).of(ids)
            except Damaged as error:
                events.message(f"warning: {error}")
                continue
            if found is not None:
                return name, found
    return None


def compute_features(run: Run, config: Config, samples: Samples, events: Events) -> tuple[str, np.ndarray] | None:
    """Features of all samples by the smallest frozen network whose weights are there, float32 (N, D), with its member's
    name. They are written into its directory. None if no network's are there."""
    for network in frozen_networks(run, config):
        try:
            parts = network_features(network, config, samples.paths, len(samples.classes), events, samples)
            values = np.concatenate(list(parts))
        except UserError as error:
            events.message(f"{network.member.name}: no frozen features ({error})")
            continue
        meta = {"member": network.member.name, "network": "probe" if network.backbone is None else "start"}
        Features(samples.ids, values, meta).save(network.member.features_file)
        return network.member.name, values
    return None


def network_features(
    network: FrozenNetwork, config: Config, paths: Sequence[Path], classes: int, events: Events,
    samples: Samples | None = None,
) -> Iterator[np.ndarray]:  # fmt: skip
    """Features of these images under the view `identity`, float32 (n, D) of some at a time. samples: the run's own,
    whose pixels are taken from the cache. Raises UserError if the weights are not there, or the network gives no
    features."""
    import torch

    from ensemble.backbones import timm_model
    from ensemble.data.pixels.decode import Files, Pixels
    from ensemble.data.pixels.preprocess import Decoding
    from ensemble.device import choose_device
    from ensemble.inference.decodings import decodings
    from ensemble.inference.predict import Group, batch_rows, forward_views
    from ensemble.tta.oof import run_pixels

    device = choose_device()
    preprocess, eval_model = _load(network, classes, device)
    needed = decodings(preprocess, ["identity"])
    pixels: dict[Decoding, Pixels | Files]
    if samples is None:
        pixels = {decoding: Files(list(paths), decoding) for decoding in needed}
    else:
        pixels = run_pixels(config, samples, needed, events)
    group = Group(preprocess, ("identity",), (eval_model,))
    batch = batch_rows(config.tta.batch_size, device)

    def embedded(model: "EvalModel", images: torch.Tensor) -> torch.Tensor:
        return timm_model.embed(model.exact, images)[None]

    for start in range(0, len(paths), BATCHES * batch):
        rows = np.arange(start, min(start + BATCHES * batch, len(paths)))
        squares = {decoding: torch.from_numpy(pixels[decoding].squares(rows)).to(device) for decoding in needed}
        yield forward_views(group, squares, batch, device, embedded)[0][0][0]
        events.progress(f"frozen features of {network.member.name}", start + len(rows), len(paths))


def _load(network: FrozenNetwork, classes: int, device: "torch.device") -> tuple["Preprocess", "EvalModel"]:
    from ensemble.backbones import timm_model
    from ensemble.backbones.weights import source_of
    from ensemble.data.pixels.preprocess import load_preprocess
    from ensemble.inference.eval_model import prepared
    from ensemble.inference.formats import Inference
    from ensemble.inference.member import load_fold

    member, backbone = network.member, network.backbone
    if backbone is None:
        return load_fold(member.fold(0), classes, "float32", device)
    preprocess = load_preprocess(member.preprocess_json)
    size = preprocess.image_size
    if backbone.weights is not None and source_of(backbone.weights) != dict(member.read_settings()).get("start"):
        raise UserError(f"{backbone.weights}: not the weights that its training started from")
    model = timm_model.create(backbone.timm, classes, size, backbone.pretrained, backbone.weights)
    timm_model.check_embedding(model, size)
    return preprocess, prepared(model, Inference(device.type), size, device)


def _is_pretrained(backbone: Backbone) -> bool:
    return backbone.weights.is_file() if backbone.weights is not None else backbone.pretrained

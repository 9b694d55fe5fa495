"""A blend with its networks on the device, and their logits where none are stored."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import torch

from ensemble.blend import Blend
from ensemble.config import load_run_config
from ensemble.data.folds import fold_count
from ensemble.device import choose_device
from ensemble.events import Events
from ensemble.inference.member import LoadedMember, load_networks, missing_engines
from ensemble.inference.predict import predict_stream
from ensemble.run import Fold, Run
from ensemble.run.networks import networks_of
from ensemble.tta.apply import blend_networks
from ensemble.tta.certainty import CertaintyColumns
from ensemble.tta.member_views import MemberView


@dataclass(frozen=True)
class Predictor:
    """A blend of a run with its networks.

    blend: the blend
    members: those that ens trained, on the device
    views: for each of these members the names of its views
    folds: K, networks per member of the run itself
    batch_size: images per forward pass, as far as `batch_rows` takes it
    device: that of the networks
    certainty: what is said of each image beside its class
    frozen: the network whose features that takes; None where it takes none
    """

    blend: Blend
    members: tuple[LoadedMember, ...]
    views: tuple[tuple[str, ...], ...]
    folds: int
    batch_size: int
    device: torch.device
    certainty: tuple[CertaintyColumns, ...] = ()
    frozen: LoadedMember | None = None


def load_predictor(run: Run, blend: Blend, events: Events, networks: str = "folds") -> Predictor:
    """Those members of the blend that ens trained, on the device. networks: "folds", "soup" or "refit". Raises
    UserError that names a network that is missing or not whole."""
    folds = fold_count(run)
    of_members = blend_networks(run, blend, blend.trained, networks, folds)
    if networks != "folds":
        folds = max(map(len, of_members.values()), default=1)
    members = load_networks_of(of_members, len(blend.classes), events)
    batch_size = load_run_config(run.config_toml).tta.batch_size
    return Predictor(blend, tuple(members.values()), tuple(blend.trained.values()), folds, batch_size, choose_device())


def load_members(run: Run, names: Sequence[str], classes: int, folds: int, events: Events) -> dict[str, LoadedMember]:
    """These members by name, on the device. Raises UserError that names a fold that is missing or not whole."""
    return load_networks_of(networks_of(run, names, "folds", folds), classes, events)


def load_networks_of(networks: Mapping[str, Sequence[Fold]], classes: int, events: Events) -> dict[str, LoadedMember]:
    """Members by name, with these networks of each, wherever they lie; as `load_members`."""
    device = choose_device()
    loaded = {}
    for number, (name, each) in enumerate(networks.items()):
        events.progress("loading the networks", number, len(networks))
        line = missing_engines(each, device)
        if line is not None:
            events.message(line)
        loaded[name] = load_networks(each[0].member, each, classes, device)
    return loaded


def compute_logits(
    members: Mapping[str, LoadedMember],
    chunks: Iterable[tuple[Sequence[Path], tuple[MemberView, ...]]],
    batch_size: int,
    on_bad: str,
    advance: Callable[[float], None],
) -> Iterator[tuple[list[np.ndarray], dict[int, str]]]:
    """The logits of chunks of images, each chunk under its member views.

    chunks: n image files each, and their member views
    on_bad, advance: as in `predict_stream`

    Yields for each chunk the logits of each member view, float32 (K, n, C), NaN in rows that could not be read; and for
    each such row the reason.
    """
    for member_views, group in groupby(chunks, key=lambda chunk: chunk[1]):
        views: dict[str, list[str]] = {}
        for each in member_views:
            views.setdefault(each.member, []).append(each.view)
        needed = [members[name] for name in views]
        files = (paths for paths, _ in group)
        device = choose_device()
        for chunk in predict_stream(needed, files, list(views.values()), batch_size, device, on_bad, advance):
            yield [logits for member in chunk.values for logits in member.swapaxes(0, 1)], chunk.unreadable

"""A blend with its networks on the device, and their logits where they are not kept."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import torch

from ensemble import rundir
from ensemble.blend import GIVEN, Blend
from ensemble.config import load_run_config
from ensemble.data.folds import fold_count
from ensemble.device import choose_device
from ensemble.inference.member import LoadedMember, load_member
from ensemble.inference.predict import predict_stream
from ensemble.progress import Show
from ensemble.run import Run
from ensemble.tta.kept import Column


@dataclass(frozen=True)
class Predictor:
    """A blend of a run, loaded. members: those that ens trained, on the device. views: those of each of them."""

    blend: Blend
    members: tuple[LoadedMember, ...]
    views: tuple[tuple[str, ...], ...]
    folds: int
    batch_size: int
    device: torch.device


def load_predictor(run: Path, blend: Blend, show: Show = lambda text, done, total: None) -> Predictor:
    """The blend's own members, on the device. Raises UserError that names a fold that is missing or not whole."""
    own = [(member, used) for member, used in zip(blend.members, blend.views, strict=True) if used != GIVEN]
    folds = fold_count(Run(run))
    members = load_members(run, [member for member, _ in own], len(blend.classes), folds, show)
    batch_size = load_run_config(rundir.config_toml(run)).tta.batch_size
    views = tuple(used for _, used in own)
    return Predictor(blend, tuple(members.values()), views, folds, batch_size, choose_device())


def load_members(run: Path, names: Sequence[str], classes: int, folds: int, show: Show) -> dict[str, LoadedMember]:
    """These members by name, on the device. Raises UserError that names a fold that is missing or not whole."""
    device = choose_device()
    members = {}
    for number, name in enumerate(names):
        show("loading the networks", number, len(names))
        members[name] = load_member(Run(run).member(name), classes, folds, device)
    return members


def column_logits(
    members: Mapping[str, LoadedMember],
    chunks: Iterable[tuple[Sequence[Path], tuple[Column, ...]]],
    batch_size: int,
    on_bad: str,
    show: Callable[[float], None],
) -> Iterator[tuple[list[np.ndarray], dict[int, str]]]:
    """For each chunk, n image files and the columns that it lacks: of each column the logits, float32 (K, n, C), NaN in
    rows that could not be read, and why they could not be. on_bad, show: as in `predict_stream`."""
    for columns, group in groupby(chunks, key=lambda chunk: chunk[1]):
        views: dict[str, list[str]] = {}
        for column in columns:
            views.setdefault(column.member, []).append(column.view)
        shown = [members[name] for name in views]
        files = (own for own, _ in group)
        for chunk in predict_stream(shown, files, list(views.values()), batch_size, choose_device(), on_bad, show):
            yield [values for member in chunk.values for values in member.swapaxes(0, 1)], chunk.unreadable

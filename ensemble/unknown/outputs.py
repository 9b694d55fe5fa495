"""What a detector is given of images: the members' logits, and the features of the frozen network."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from ensemble.data.pixels.decode import Source
from ensemble.inference.member import LoadedMember, fold_eval_models
from ensemble.inference.predict import predict_stream
from ensemble.ood.choose import FoldOutputs
from ensemble.run.networks import FROZEN_VIEWS

CHUNK = 128  # images whose pixels are in memory at once


def fold_outputs(
    members: Sequence[LoadedMember],
    views: Sequence[Sequence[str]],
    frozen: LoadedMember | None,
    sources: Sequence[Source],
    folds: int,
    batch_size: int,
    device: torch.device,
    advance: Callable[[float], None],
) -> FoldOutputs:
    """The outputs for N images that no network has seen, each image by the networks of one fold, the folds in turn:
    out-of-fold rows have one network of each member, too.

    members: with the networks of all folds.
    views: of each member, those to average.
    frozen: the network whose features are taken; None for no features.
    sources: the N images.
    folds: K, how many there are.
    advance: is told how many images more are done.

    Raises UserError that names an image that can't be read.
    """
    fold_of = np.arange(len(sources)) % folds
    z = np.zeros(0)
    features: np.ndarray | None = None
    for fold in range(folds):
        rows = np.flatnonzero(fold_of == fold)
        of_fold = [
            LoadedMember(member.name, member.preprocess, (fold_eval_models(member)[fold],)) for member in members
        ]
        extra = [] if frozen is None else [frozen]
        chunks = [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]
        given = ([sources[row] for row in chunk] for chunk in chunks)
        names = [*views, *[FROZEN_VIEWS] * len(extra)]
        stream = predict_stream([*of_fold, *extra], given, names, batch_size, device, advance=advance)
        for chunk, found in zip(chunks, stream, strict=True):
            of_members = np.stack([values[0].mean(axis=0) for values in found.values[: len(members)]])
            if not z.size:
                z = np.zeros((len(members), len(sources), of_members.shape[-1]), dtype=np.float32)
            z[:, chunk] = of_members
            if frozen is not None:
                of_frozen = found.values[-1][0, 0]
                if features is None:
                    features = np.zeros((len(sources), of_frozen.shape[-1]), dtype=np.float32)
                features[chunk] = of_frozen
    return FoldOutputs(z, fold_of, features)

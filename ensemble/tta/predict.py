"""Views x models over decoded squares. Out-of-fold evaluation and prediction both come through `forward_views`."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ensemble import backbones, rundir
from ensemble.data.pixels import Preprocess, decoded, load_preprocess, middle_square
from ensemble.device import in_layout, to_device
from ensemble.errors import UserError
from ensemble.tta.views import VIEWS

Output = Callable[[torch.nn.Module, torch.Tensor], torch.Tensor]  # of normalised images (B, 3, H, W): float32 (B, ...)


def normalise(batch: torch.Tensor, preprocess: Preprocess) -> torch.Tensor:
    """uint8 or float in [0, 255] (B, 3, H, W) to float32 with the member's mean and std."""
    mean = torch.tensor(preprocess.mean, device=batch.device).view(1, 3, 1, 1) * 255
    std = torch.tensor(preprocess.std, device=batch.device).view(1, 3, 1, 1) * 255
    return (batch.float() - mean) / std


def middle(batch: torch.Tensor, size: int) -> torch.Tensor:
    """The middle (B, C, size, size) of a batch that is at least so large."""
    top, left = (batch.shape[-2] - size) // 2, (batch.shape[-1] - size) // 2
    return batch[..., top : top + size, left : left + size]


@torch.inference_mode()
def forward_views(
    model: torch.nn.Module,
    squares: np.ndarray,
    preprocess: Preprocess,
    views: Sequence[str],
    batch_size: int,
    device: torch.device,
    output: Output = backbones.logits,
) -> np.ndarray:
    """Logits of each square under each view: float32 (V, N, C), or what else `output` makes of a batch.

    squares: uint8 (N, D, D, 3) with D = preprocess.decode_size. model: in evaluation, on `device`. Every batch is
    filled up to `batch_size`: kernels may sum in another order for another size, and the same image has to give the
    same logits whichever batch it comes in.
    """
    # A product of fewer than 16 rows and a 2-class head differs in its last bit by the place of the row (MKL, seen
    # with 7, 8 and 12 rows and not with 16, 32 or 64).
    batch_size = max(batch_size, 16)
    parts = []
    for start in range(0, len(squares), batch_size):
        part = squares[start : start + batch_size]
        batch = np.zeros((batch_size, *part.shape[1:]), dtype=np.uint8)
        batch[: len(part)] = part
        pixels = middle(torch.from_numpy(batch).to(device).permute(0, 3, 1, 2), preprocess.image_size)
        images = in_layout(normalise(pixels, preprocess))
        logits = torch.stack([output(model, VIEWS[view](images)) for view in views])
        parts.append(logits[:, : len(part)].cpu().numpy())
    return np.concatenate(parts, axis=1)


@dataclass(frozen=True)
class Member:
    """One backbone of a run, ready to predict: its K fold models, in evaluation on the device."""

    name: str
    preprocess: Preprocess
    models: tuple[torch.nn.Module, ...]


def load_member(run: Path, name: str, classes: int, folds: int, device: torch.device) -> Member:
    """All fold models of a finished member. Raises UserError that names the fold that is missing or not whole."""
    preprocess = load_preprocess(rundir.preprocess_json(run, name))
    timm_name = rundir.read_json(rundir.settings_json(run, name))["timm"]
    models = []
    for fold in range(folds):
        directory = rundir.fold_dir(run, name, fold)
        if not rundir.is_done(directory):
            raise UserError(f"{directory}: is not finished, or its files are cut short; run ens train-folds again")
        model = backbones.create(timm_name, classes, preprocess.image_size)
        backbones.fill(model, rundir.model_file(directory))
        models.append(to_device(model, device).eval())
    return Member(name, preprocess, tuple(models))


def predict_stream(
    members: Sequence[Member],
    paths: Sequence[Path],
    views: Sequence[Sequence[str]],
    batch_size: int,
    device: torch.device,
) -> Iterator[list[np.ndarray]]:
    """Logits of the images under each member's own views, a batch at a time: per member float32 (K, V, n, C).

    Each image is decoded once for all members that agree in their decoding, and all views are made from those
    pixels. Memory holds the models and one batch, however many images there are. Raises UserError that names an
    unreadable image.
    """
    for start in range(0, len(paths), batch_size):
        part = paths[start : start + batch_size]
        hows = {member.preprocess.decoding for member in members}
        squares = {how: np.stack([middle_square(image) for image in decoded(part, how)]) for how in hows}
        yield [
            np.stack(
                [
                    forward_views(
                        model, squares[member.preprocess.decoding], member.preprocess, own, batch_size, device
                    )
                    for model in member.models
                ]
            )
            for member, own in zip(members, views, strict=True)
        ]

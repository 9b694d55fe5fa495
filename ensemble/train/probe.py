"""Linear probes of a member: its frozen features computed once, its classifiers for all folds fitted on them."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from ensemble import rundir
from ensemble.backbones import timm_model
from ensemble.backbones.weights import read_tensors, write_state
from ensemble.config import Train
from ensemble.data.pixels.preprocess import Preprocess
from ensemble.device import side_by_side, to_device
from ensemble.errors import UserError
from ensemble.files.atomic import write_text
from ensemble.files.damage import damaged
from ensemble.files.reading import Finite, parse_json
from ensemble.inference.eval_model import Forward, Inference, prepared
from ensemble.inference.predict import Group, batch_rows, forward_views
from ensemble.progress import Show
from ensemble.train.fit import Labelled, finish_fold, scores
from ensemble.train.heads import Heads, fit_heads

CHUNK = 32  # batches whose pixels are in memory at once


def member_features(
    model: torch.nn.Module,
    data: Labelled,
    preprocess: Preprocess,
    views: tuple[str, ...],
    batch_size: int,
    device: torch.device,
    show: Callable[[int], None],
) -> torch.Tensor:
    """What the classifier is given for each row and view, float32 (V, N, D) on the CPU. show: told of rows done."""
    exact = prepared(model, Inference(device.type), preprocess.image_size, device)
    group = Group(preprocess, views, (exact,))
    batch = batch_rows(batch_size, device)
    parts = []
    for start in range(0, len(data.ids), CHUNK * batch):
        rows = np.arange(start, min(start + CHUNK * batch, len(data.ids)))
        squares = {how: own.to(device) for how, own in data.squares(preprocess, views, rows).items()}
        parts.append(forward_views(group, squares, batch, device, _embedded)[0][0])
        show(start + len(rows))
    return torch.from_numpy(np.concatenate(parts, axis=1))


def _embedded(forward: Forward, images: torch.Tensor) -> torch.Tensor:
    return timm_model.embed(forward.exact, images)[None]


def probe_member(
    run: Path,
    member: str,
    create: Callable[[], torch.nn.Module],
    preprocess: Preprocess,
    data: Labelled,
    settings: Train,
    views: tuple[str, ...],
    batch_size: int,
    device: torch.device,
    show: Show,
    say: Callable[[str], None],
) -> None:
    """Fit the classifiers of all folds and write them to the member's directory; for the strategy "probe" also each
    fold's model, logits and done marker."""
    started = time.monotonic()
    model = to_device(create(), device).eval()
    features = member_features(
        model, data, preprocess, views, batch_size, device,
        lambda rows: show(f"{member}: features", rows, len(data.ids)),
    )  # fmt: skip
    embedded = time.monotonic() - started
    heads = fit_heads(features.to(device), data.labels, data.folds, len(data.classes), data.weights)
    seconds = time.monotonic() - started
    strengths = ", ".join(f"{strength:.2g}" for strength in heads.strengths)
    say(f"{member}: features in {embedded:.1f} s, {len(heads.biases)} probes in {seconds - embedded:.1f} s; "
        f"L2 strengths chosen: {strengths}")  # fmt: skip
    if settings.strategy == "probe":
        _write_folds(run, member, model, heads, features, data, views, batch_size, device, seconds)
    tensors = {"weights": heads.weights, "biases": heads.biases}
    facts = {"member": member, "strengths": json.dumps(heads.strengths)}
    write_state(rundir.probe_file(run, member), tensors, facts)


def load_heads(path: Path) -> Heads:
    """Read what `probe_member` wrote. Raises Damaged if it is not that, or another member's."""
    tensors, metadata = read_tensors(path)
    try:
        strengths = parse_json(metadata["strengths"], list[Finite], "strengths")
        weights, biases = tensors["weights"], tensors["biases"]
        if weights.ndim != 3 or biases.shape != weights.shape[:2] or len(strengths) != len(weights):
            raise UserError(f"{tuple(weights.shape)}, {tuple(biases.shape)} and {len(strengths)} don't go together")
    except (KeyError, UserError) as error:
        raise damaged(path, f"holds no probes ({error})") from None
    if metadata.get("member", path.parent.name) != path.parent.name:
        raise damaged(path, f"holds the probes of {metadata['member']}: files were exchanged")
    return Heads(tensors["weights"], tensors["biases"], tuple(strengths))


@torch.inference_mode()
def _write_folds(
    run: Path,
    member: str,
    model: torch.nn.Module,
    heads: Heads,
    features: torch.Tensor,
    data: Labelled,
    views: tuple[str, ...],
    batch_size: int,
    device: torch.device,
    seconds: float,
) -> None:
    layer = timm_model.classifier(model)
    size = batch_rows(batch_size, device)  # the same bits as prediction's
    for fold, (weight, bias) in enumerate(zip(heads.weights, heads.biases, strict=True)):
        directory = rundir.fold_dir(run, member, fold)
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
        rows = np.flatnonzero(data.folds == fold)
        values = _head_logits(layer, features[:, rows], size, device)
        line = {"strategy": "probe", "strength": heads.strengths[fold]}
        line |= scores(values.mean(0), data.labels[rows])
        write_text(rundir.log_file(directory), json.dumps(line) + "\n")
        own = seconds / len(heads.biases)
        finish_fold(
            directory, member, fold, model, Inference(device.type), data.ids[rows], data.classes, views, values, own
        )


def _head_logits(layer: torch.nn.Linear, features: torch.Tensor, size: int, device: torch.device) -> np.ndarray:
    """float32 (V, n, C) of features (V, n, D), in batches of `size` by a thread each, as prediction computes them."""

    @torch.inference_mode()
    def work(start: int) -> np.ndarray:
        part = features[:, start : start + size]
        batch = torch.zeros(part.shape[0], size, part.shape[2])
        batch[:, : part.shape[1]] = part
        logits = torch.stack([layer(view) for view in batch.to(device)])
        return logits[:, : part.shape[1]].cpu().numpy()

    return np.concatenate(side_by_side(work, range(0, features.shape[1], size), device), axis=1)

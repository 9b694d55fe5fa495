"""Linear probes of a member: its frozen features computed once, its classifiers for all folds fitted on them."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from ensemble.backbones import timm_model
from ensemble.backbones.heads import linear_head
from ensemble.backbones.weights import read_tensors, write_state
from ensemble.data.pixels.preprocess import load_preprocess
from ensemble.device import side_by_side, to_device
from ensemble.errors import UserError
from ensemble.events import Events
from ensemble.files.damage import damaged
from ensemble.files.reading import Finite, parse_json
from ensemble.inference.eval_model import EvalModel
from ensemble.inference.formats import Inference
from ensemble.inference.predict import Group, batch_rows, forward_views
from ensemble.progress import paced
from ensemble.run import Fold, Member
from ensemble.run.shapes import Epoch
from ensemble.train.evaluate import CHUNK, Evaluation, exact, scores
from ensemble.train.finish import finish_fold, fold_logits, write_log
from ensemble.train.heads import Heads, fit_heads
from ensemble.train.other_heads import fit_other_heads
from ensemble.train.rows import TrainingData

LastFeatures = dict[str, torch.Tensor]  # of one member: what they depend on -> float32 (V, N, D)


def member_features(
    model: torch.nn.Module, data: TrainingData, evaluation: Evaluation, advance: Callable[[float], None]
) -> torch.Tensor:
    """What the classifier is given for each row and view, float32 (V, N, D) on the CPU. advance: is told how many
    more rows are done."""
    group = Group(evaluation.preprocess, evaluation.views, (exact(model, evaluation),))
    batch = batch_rows(evaluation.batch_size, evaluation.device)
    count = len(data.rows.ids)
    parts = []
    for start in range(0, count, CHUNK * batch):
        rows = np.arange(start, min(start + CHUNK * batch, count))
        squares = data.squares(evaluation.preprocess, evaluation.views, rows)
        on_device = {decoding: each.to(evaluation.device) for decoding, each in squares.items()}
        parts.append(forward_views(group, on_device, batch, evaluation.device, _embedded)[0][0])
        advance(len(rows))
    return torch.from_numpy(np.concatenate(parts, axis=1))


def _embedded(eval_model: EvalModel, images: torch.Tensor) -> torch.Tensor:
    return timm_model.embed(eval_model.exact, images)[None]


def probe_member(
    member: Member,
    model: torch.nn.Module,
    data: TrainingData,
    evaluation: Evaluation,
    alone: bool,
    events: Events,
    head: str = "linear",
    last_features: LastFeatures | None = None,
) -> None:
    """Fit the classifiers of all folds and write them to the member's directory.

    model: the network, frozen, on any device. alone: nothing else is trained, so that each fold's model, logits and
    done marker are written too. head: which classifier; all but "linear" only alone. last_features: those of the member
    before this one, which are taken if they are this one's too; they are replaced by this one's.
    """
    device, rows = evaluation.device, data.rows
    started = time.monotonic()
    model = to_device(model, device).eval()

    def compute() -> torch.Tensor:
        return member_features(model, data, evaluation, paced(events, f"{member.name}: features", 0, len(rows.ids)))

    features = compute() if last_features is None else _shared_features(member, last_features, compute)
    embedded = time.monotonic() - started
    if head != "linear":
        others = fit_other_heads(head, features.to(device), rows.labels, rows.folds, len(rows.classes), rows.weights)
        seconds = time.monotonic() - started
        events.message(
            f"{member.name}: features in {embedded:.1f} s, {len(others.heads)} {head} heads in "
            f"{seconds - embedded:.1f} s; chosen: {'; '.join(others.chosen)}"
        )
        for number, (classifier, chosen) in enumerate(zip(others.heads, others.chosen, strict=True)):
            line: Epoch = {"strategy": "probe", "chosen": chosen}
            _write_fold(
                member.fold(number), model, classifier, line, features, data, evaluation, seconds / len(others.heads)
            )
            events.epoch_finished(member.name, number, line)
            events.job_finished(member.name, number, seconds / len(others.heads), None)
        return
    heads = fit_heads(features.to(device), rows.labels, rows.folds, len(rows.classes), rows.weights)
    seconds = time.monotonic() - started
    strengths = ", ".join(f"{strength:.2g}" for strength in heads.strengths)
    events.message(
        f"{member.name}: features in {embedded:.1f} s, {len(heads.biases)} probes in {seconds - embedded:.1f} s; "
        f"L2 strengths chosen: {strengths}"
    )
    if alone:
        for fold in range(len(heads.biases)):
            line = {"strategy": "probe", "strength": heads.strengths[fold]}
            layer = linear_head(heads.weights[fold].clone(), heads.biases[fold].clone())
            _write_fold(member.fold(fold), model, layer, line, features, data, evaluation, seconds / len(heads.biases))
            events.epoch_finished(member.name, fold, line)
            events.job_finished(member.name, fold, seconds / len(heads.biases), None)
    save_heads(member.probe_file, heads)


def save_heads(path: Path, heads: Heads) -> None:
    """Write classifiers into a member's directory."""
    tensors = {"weights": heads.weights, "biases": heads.biases}
    facts = {"member": path.parent.name, "strengths": json.dumps(heads.strengths)}
    write_state(path, tensors, facts)


def _shared_features(member: Member, last_features: LastFeatures, compute: Callable[[], torch.Tensor]) -> torch.Tensor:
    """The last member's features, if this one has the same network, preprocessing and views; else computed."""
    settings = dict(member.read_settings())
    network = {key: settings.get(key) for key in ("timm", "start", "views")}
    key = json.dumps([network, asdict(load_preprocess(member.preprocess_json))])
    if key not in last_features:
        last_features.clear()
        last_features[key] = compute()
    return last_features[key]


def load_heads(path: Path) -> Heads:
    """Read what `save_heads` wrote. Raises Damaged if it is not that, or another member's."""
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
def _write_fold(
    fold: Fold,
    model: torch.nn.Module,
    head: torch.nn.Module,
    line: Epoch,
    features: torch.Tensor,
    data: TrainingData,
    evaluation: Evaluation,
    seconds: float,
) -> None:
    """Write the network with the fold's own classifier, and its logits. line: of its log, which the scores join."""
    timm_model.set_classifier(model, head)
    held_out = data.rows.held_out_rows(fold.number)
    size = batch_rows(evaluation.batch_size, evaluation.device)  # the same bits as prediction's
    values = _head_logits(head, features[:, held_out], size, evaluation.device)
    line |= scores(values.mean(0), data.rows.labels[held_out])
    write_log(fold, [line])
    logits = fold_logits(fold, data.rows, evaluation.views, values)
    finish_fold(fold, model, Inference(evaluation.device.type), logits, seconds)


def _head_logits(head: torch.nn.Module, features: torch.Tensor, size: int, device: torch.device) -> np.ndarray:
    """float32 (V, n, C) of features (V, n, D), in batches of `size` by a thread each, as prediction computes them."""

    @torch.inference_mode()
    def work(start: int) -> np.ndarray:
        part = features[:, start : start + size]
        batch = torch.zeros(part.shape[0], size, part.shape[2])
        batch[:, : part.shape[1]] = part
        logits = torch.stack([head(view) for view in batch.to(device)])
        return logits[:, : part.shape[1]].cpu().numpy()

    return np.concatenate(side_by_side(work, range(0, features.shape[1], size), device), axis=1)

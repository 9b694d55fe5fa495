"""The rows that a fold holds out, as its network answers them: by the function that prediction uses."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from ensemble.data.pixels.preprocess import Preprocess
from ensemble.inference.choose_format import Speeds, choose_inference
from ensemble.inference.eval_model import EvalModel, fast_network, prepared
from ensemble.inference.formats import Inference, inference_in
from ensemble.inference.predict import Group, batch_rows, forward_views
from ensemble.launch.ranks import ALONE, Ranks
from ensemble.run.shapes import Epoch
from ensemble.train.rows import TrainingData

CHUNK = 32  # batches whose pixels are in memory at once


@dataclass(frozen=True)
class Evaluation:
    """How rows are evaluated.

    preprocess: of the network.
    views: their names.
    batch_size: images per pass on a GPU.
    device: where it is computed.
    """

    preprocess: Preprocess
    views: tuple[str, ...]
    batch_size: int
    device: torch.device


def exact(model: torch.nn.Module, evaluation: Evaluation) -> EvalModel:
    """A network in training (it is left as it is) ready to be evaluated in float32."""
    return prepared(model, Inference(evaluation.device.type), evaluation.preprocess.image_size, evaluation.device)


def held_out_logits(
    eval_model: EvalModel,
    data: TrainingData,
    rows: np.ndarray,
    evaluation: Evaluation,
    ranks: Ranks = ALONE,
    advance: Callable[[float], None] = lambda images: None,
) -> np.ndarray:
    """float32 (V, len(rows), C), by the function that prediction uses. ranks: the processes that share the work; each
    returns all of it. advance: is told of the images that were done since it was last called, from several threads."""
    if ranks.count > 1:
        logits = torch.zeros(len(evaluation.views), len(rows), len(data.rows.classes))
        mine = ranks.part(len(rows))
        if len(mine):
            of_all = len(rows) / len(mine)  # the first process reports for all
            logits[:, mine] = torch.from_numpy(
                held_out_logits(eval_model, data, rows[mine], evaluation, advance=lambda some: advance(some * of_all))
            )
        ranks.add(logits)  # each row is 0 in all processes but one
        return logits.numpy()
    group = Group(evaluation.preprocess, evaluation.views, (eval_model,))
    batch = batch_rows(evaluation.batch_size, evaluation.device)
    values = []
    for part in np.array_split(rows, math.ceil(len(rows) / (CHUNK * batch))):
        squares = data.squares(evaluation.preprocess, evaluation.views, part)
        on_device = {decoding: each.to(evaluation.device) for decoding, each in squares.items()}
        values.append(forward_views(group, on_device, batch, evaluation.device, advance=advance)[0][0])
    return np.concatenate(values, axis=1)


def final_logits(
    model: torch.nn.Module,
    data: TrainingData,
    rows: np.ndarray,
    evaluation: Evaluation,
    speeds: Speeds,
    ranks: Ranks = ALONE,
    advance: Callable[[float], None] = lambda images: None,
) -> tuple[Inference, np.ndarray]:
    """The fastest number format in which a finished network keeps its answers on rows that it never saw, and its logits
    of them computed so, float32 (V, len(rows), C). ranks, advance: as for `held_out_logits`; the
    latter hears of the images in float32 alone."""
    eval_model = exact(model, evaluation)

    def compute(name: str) -> np.ndarray:
        inference = inference_in(name, evaluation.device)
        fast = fast_network(eval_model.exact, inference, evaluation.preprocess.image_size)
        return held_out_logits(EvalModel(inference, eval_model.exact, fast), data, rows, evaluation, ranks)

    values = held_out_logits(eval_model, data, rows, evaluation, ranks, advance)
    return choose_inference(speeds, values, compute, data.rows.labels[rows], evaluation.device)


def scores(logits: np.ndarray, labels: np.ndarray) -> Epoch:
    """Log loss and accuracy of logits float32 (n, C), for the log."""
    values = torch.from_numpy(logits).double()
    target = torch.from_numpy(labels)
    return {
        "held_out_log_loss": round(torch.nn.functional.cross_entropy(values, target).item(), 5),
        "held_out_accuracy": round((values.argmax(1) == target).double().mean().item(), 5),
    }

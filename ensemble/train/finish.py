"""What a finished fold leaves: its weights, its logits, its log and, last, its done marker."""

import json
from collections.abc import Sequence

import numpy as np
import torch

from ensemble.backbones.weights import write_state
from ensemble.data.logits import Logits
from ensemble.files.atomic import remove, remove_folder
from ensemble.inference.formats import Inference, save_inference
from ensemble.run import Fold
from ensemble.run.shapes import Epoch
from ensemble.train.rows import Rows


def fold_logits(fold: Fold, rows: Rows, views: tuple[str, ...], values: np.ndarray) -> Logits:
    """The logits float32 (V, n, C) of the rows that a fold holds out, with their ids."""
    ids = rows.ids[rows.held_out_rows(fold.number)]
    return Logits(ids, views, rows.classes, values, {"member": fold.member.name, "fold": str(fold.number)})


def finish_fold(
    fold: Fold, model: torch.nn.Module, inference: Inference, held_out: Logits | None, seconds: float
) -> None:
    """Write a fold's weights, how they are computed in evaluation, its logits and, last, its done marker. Its log is
    there. held_out: None for a refit, which has none. seconds: of training."""
    remove(fold.done_json)  # of the network that was here before
    remove(fold.added_views_file)
    write_state(fold.model_file, model.state_dict(), {"member": fold.member.name, "fold": fold.label})
    save_inference(fold.inference_json, inference)
    if held_out is not None:
        held_out.save(fold.oof_file)
    remove(fold.failure_json)  # of an earlier attempt
    fold.finish(seconds)
    remove_folder(fold.state_file.parent)


def write_log(fold: Fold, log: Sequence[Epoch]) -> None:
    fold.write_log("".join(json.dumps(line) + "\n" for line in log))

"""The linear probe that refits start from, or are: fitted on all rows, of the strength that the folds chose."""

import time
from collections.abc import Sequence

import numpy as np
import torch

from ensemble.backbones import timm_model
from ensemble.config import Backbone, Config, train_settings
from ensemble.device import choose_device, to_device
from ensemble.events import Events
from ensemble.inference.formats import Inference
from ensemble.progress import paced
from ensemble.run import Fold, Run
from ensemble.train.finish import finish_fold, write_log
from ensemble.train.heads import fit_head
from ensemble.train.members import make_model
from ensemble.train.mend import is_readable
from ensemble.train.pixels import training_data
from ensemble.train.prepare import evaluation_of
from ensemble.train.probe import load_heads, member_features, save_heads
from ensemble.train.rows import Rows


def probe_on_all_rows(config: Config, backbone: Backbone, rows: Rows, refits: Sequence[Fold], events: Events) -> None:
    """Fit a member's classifier on the features of all rows, and write it to the member's directory unless it is there.

    Its L2 strength is the median of those that the folds chose. Where the strategy is the probe alone, the refits that
    are lacking are written too: all seeds give the same one.
    """
    member = Run(config.run).member(backbone.name)
    is_alone = train_settings(config, backbone).strategy == "probe"
    if not refits or (not is_alone and is_readable(member.refit_probe_file, load_heads, events)):
        return
    device, started = choose_device(), time.monotonic()
    evaluation = evaluation_of(config, backbone, device)
    data = training_data(config.data, rows, evaluation, {}, events)
    model = to_device(make_model(config, backbone, len(rows.classes), 0), device).eval()
    advance = paced(events, f"{member.name}: features", 0, len(rows.ids))
    features = member_features(model, data, evaluation, advance)
    strength = float(np.median(load_heads(member.probe_file).strengths))
    heads = fit_head(features.to(device), rows.labels, len(rows.classes), strength, rows.weights)
    save_heads(member.refit_probe_file, heads)
    if is_alone:
        layer = timm_model.classifier(model)
        with torch.inference_mode():
            layer.weight.copy_(heads.weights[0])
            layer.bias.copy_(heads.biases[0])
        for refit in refits:
            write_log(refit, [{"strategy": "probe", "strength": strength}])
            finish_fold(refit, model, Inference(device.type), None, time.monotonic() - started)

"""What a faster number format changes in a run's networks: python benchmarks/formats.py RUN

Every fold's network computes its own out-of-fold rows (identity and hflip) in float32 and in the processor's half
format; `choose_inference` then decides by the speeds seen here. For each member: the format's speed against float32's;
of how many folds it is taken; what it would change as it is, and what the choice changes (rows that are too near to
tell are computed again): share of the predicted classes, and log loss, over all folds and both views.
"""

import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ensemble.backbones import timm_model
from ensemble.blend.oof import finished, read_rows
from ensemble.blend.probabilities import softmax
from ensemble.config import load_config
from ensemble.device import choose_device, keep_freed_memory, side_by_side
from ensemble.events import SILENT
from ensemble.inference.choose_format import choose_inference, find_speeds
from ensemble.inference.decodings import decodings
from ensemble.inference.eval_model import EvalModel, half_precision_copy
from ensemble.inference.formats import Inference, formats
from ensemble.inference.member import fold_eval_models, load_member
from ensemble.inference.predict import Group, batch_rows, forward_views
from ensemble.run import Run
from ensemble.scoring.row_values import row_losses
from ensemble.tta.oof import run_pixels, run_samples

VIEWS = ("identity", "hflip")


def main() -> None:
    run = Run(Path(sys.argv[1]))
    keep_freed_memory()
    device = choose_device()
    rows, config = read_rows(Run(run)), load_config(run.config_toml)
    samples = run_samples(config, run)
    row_of = {name: row for row, name in enumerate(samples.ids.tolist())}
    where = np.array([row_of[name] for name in rows.ids.tolist()])
    folds = np.unique(rows.folds).tolist()
    batch = batch_rows(config.tta.batch_size, device)
    print("| member | speed | folds in it | as it is: classes | log loss | again | as chosen: classes | log loss |")
    print("|---|---|---|---|---|---|---|---|")
    for name in [name for name in run.member_names() if finished(Run(run), name, rows) == folds]:
        member = load_member(run.member(name), len(rows.classes), len(folds), device)
        size = member.preprocess.image_size
        hows = decodings(member.preprocess, VIEWS)
        pixels = run_pixels(config, samples, hows, SILENT)
        timm_name = run.member(name).timm_name()
        create = partial(timm_model.create, timm_name, len(rows.classes), size)
        speeds, _ = side_by_side(partial(find_speeds, create, size, batch, formats(device)), [device], device)[0]
        half = next(dtype for dtype in speeds if dtype != "float32")
        found = {"exact": [], "raw": [], "chosen": []}
        taken, again, labels = 0, [], []
        for fold, eval_model in zip(folds, fold_eval_models(member), strict=True):
            own = np.flatnonzero(rows.folds == fold)
            squares = {how: torch.from_numpy(pixels[how].squares(where[own])).to(device) for how in hows}

            fast = EvalModel(
                Inference(device.type, half), eval_model.exact, half_precision_copy(eval_model.exact, half)
            )
            slow = EvalModel(Inference(device.type), eval_model.exact)
            groups = [Group(member.preprocess, VIEWS, (form,)) for form in (slow, fast)]
            both = [forward_views(group, squares, batch, device) for group in groups]
            exact, raw = (values[0][0] for values in both)
            how, chosen = choose_inference(speeds, exact, lambda _, raw=raw: raw, rows.labels[own], device)
            taken += how.dtype == half
            again.append(how.again)
            for key, each in (("exact", exact), ("raw", raw), ("chosen", chosen)):
                found[key].append(each)
            labels.append(rows.labels[own])
        every = {key: np.concatenate(parts, axis=1) for key, parts in found.items()}
        truth = np.concatenate(labels)
        loss = {key: np.mean([row_losses(truth, softmax(view)).mean() for view in own]) for key, own in every.items()}
        changed = {key: (own.argmax(-1) != every["exact"].argmax(-1)).mean() for key, own in every.items()}
        speed = speeds[half] / speeds["float32"]
        cells = [
            name,
            f"{speed:.2f}",
            f"{taken} of {len(folds)}",
            f"{100 * changed['raw']:.2f} %",
            f"{loss['raw'] - loss['exact']:+.4f}",
            f"{100 * np.mean(again):.1f} %",
            f"{100 * changed['chosen']:.2f} %",
            f"{loss['chosen'] - loss['exact']:+.4f}",
        ]
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()

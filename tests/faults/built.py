"""A small run that holds every kind of file, for the harnesses of damage and kills. It trains in seconds."""

import contextlib
import shutil
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ensemble.backbones import timm_model
from ensemble.backbones.weights import write_state
from ensemble.blend import BlendOptions, blend_run
from ensemble.config import load_config
from ensemble.events import SILENT
from ensemble.run import Run
from ensemble.train import fit
from ensemble.train.jobs import train_folds
from ensemble.tta import predict as predicting
from ensemble.tta import written
from ensemble.tta.oof import add_views

EXPERIMENT = """run = "{folder}/run"
[data]
train = "{folder}/train"
image_size = 32
cache = "{folder}/cache"
[folds]
k = 2
[train]
epochs = 2
batch_size = 8
[[backbone]]
name = "resnet"
timm = "test_resnet"
pretrained = false
[[backbone]]
name = "probed"
timm = "test_resnet"
weights = "{folder}/weights.safetensors"
train = {{ strategy = "probe" }}
"""


def paint(path, side=40):
    """Noise that depends on the file's name alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(zlib.crc32(path.name.encode())).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)


def begin(folder):
    """Images, weights to start from and the experiment, in `folder`. Returns the experiment file."""
    for index in range(20):
        paint(folder / "train" / "ab"[index % 2] / f"{index:02}.png")
    for index in range(6):
        paint(folder / "test" / f"t{index}.png")
    torch.manual_seed(0)
    write_state(folder / "weights.safetensors", timm_model.create("test_resnet", 3, 32).state_dict(), {})
    (folder / "e.toml").write_text(EXPERIMENT.format(folder=folder))
    return folder / "e.toml"


def build(folder):
    """A run of two members and two folds with added views, a blend, predictions, shards, an audit, a search of views,
    and a second run that was stopped in its last fold. Returns both."""
    from ensemble.audit.check import check
    from ensemble.tta.search import tta_search

    experiment = begin(folder)
    assert train_folds(load_config(experiment), SILENT) == []
    run = folder / "run"
    check(experiment, None, None, None, None, (), SILENT)
    add_views(Run(run), ["vflip"], SILENT)
    blend_run(Run(run), BlendOptions("stack"), events=SILENT)
    tta_search(Run(run), None, "log_loss", SILENT)
    predict(run, folder / "test", folder / "s.csv")
    paint(folder / "more" / "m0.png")
    stop_before_submission(run, folder / "more", folder / "m.csv")
    stopped = folder / "stopped"
    stop_in_last_fold(experiment, stopped)
    return run, stopped


def predict(run, images, output):
    """The bytes of the submission and of the kept predictions."""
    made = predicting.tta_predict(predicting.PredictionRequest(Run(run), images, output), SILENT)
    return output.read_bytes() + made.predictions.read_bytes()


def stop_before_submission(run, images, output):
    """Predict, and leave the pieces."""
    write = written.write_submission

    def stop(*_):
        raise KeyboardInterrupt

    written.write_submission = stop
    try:
        with contextlib.suppress(KeyboardInterrupt):
            predict(run, images, output)
    finally:
        written.write_submission = write


def stop_in_last_fold(experiment, run):
    """Train into `run` until the state of the last fold is written."""
    save = fit.save_state

    def stop(path, *rest):
        save(path, *rest)
        if path.parts[-3] == "fold1":
            raise KeyboardInterrupt

    fit.save_state = stop
    try:
        with contextlib.suppress(KeyboardInterrupt):
            train_folds(load_config(experiment, (f"run={run}", "workers=1")), SILENT)
    finally:
        fit.save_state = save
    assert (run / "resnet" / "fold1" / "state" / "last.safetensors").is_file()


def copied(run, folder):
    """A copy of the run, in a folder of its own."""
    return Path(shutil.copytree(run, folder / run.name))

"""Tiny runs whose classes are colours, and images without a label beside them."""

import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ensemble.config import load_config
from ensemble.events import SILENT
from ensemble.train.jobs import train_folds

EXPERIMENT = """\
run = "{folder}/run"
workers = 1
[data]
train = "{folder}/train.csv"
image_size = 32
cache = "{cache}"
[folds]
fold = "fold"
near_copies = false
[train]
epochs = 1
batch_size = 8
lr = 1e-4
ema = 0
color_jitter = 0
dtype = "float32"
memory_format = "channels_last"
[tta]
views = ["identity"]
dtype = "float32"
[[backbone]]
name = "resnet"
timm = "test_resnet"
pretrained = false
"""


def draw(path, reddish, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 200, (40, 40, 3), dtype=np.uint8)
    noise[..., 0 if reddish else 2] += 55
    Image.fromarray(noise).save(path)


@pytest.fixture(scope="session")
def colour_run(tmp_path_factory, cache_of_the_tests):
    """colour_run(change): a folder with a finished run of one member on 24 labelled images in two folds, in run/, its
    experiment e.toml, and 24 images without a label in unlabelled/. change: called with the table of labels, which it
    may alter. The images are the same in all."""

    def make(change=None):
        folder = tmp_path_factory.mktemp("colours")
        for row in range(24):
            draw(folder / "train" / f"{row:02}.png", row % 2 == 0, row)
            draw(folder / "unlabelled" / f"u{row:02}.png", row % 2 == 0, 100 + row)
        table = pd.DataFrame({"path": [f"train/{row:02}.png" for row in range(24)]})
        table["label"] = ["red", "blue"] * 12
        table["fold"] = [row // 2 % 2 for row in range(24)]
        if change:
            change(table)
        table.to_csv(folder / "train.csv", index=False)
        (folder / "e.toml").write_text(EXPERIMENT.format(folder=folder, cache=cache_of_the_tests))
        assert train_folds(load_config(folder / "e.toml"), SILENT) == []
        return folder

    return make


@pytest.fixture(scope="session")
def finished_colours(colour_run):
    return colour_run()


@pytest.fixture
def colours(finished_colours, tmp_path):
    """A copy of such a run, with the images where they were."""
    shutil.copytree(finished_colours / "run", tmp_path / "run")
    return finished_colours, tmp_path / "run"

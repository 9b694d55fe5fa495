"""`ens demo`: the whole way on scikit-learn's digits, which come with it, so nothing is downloaded."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from ensemble import blend
from ensemble.blend.methods import names as methods
from ensemble.config import load_config
from ensemble.errors import RunFailure, UserError
from ensemble.events import Events
from ensemble.files.atomic import write_text
from ensemble.plural import pluralize
from ensemble.run import Run
from ensemble.scoring.metrics import columns
from ensemble.scoring.outcomes import evaluate
from ensemble.tables.blend import show_blend
from ensemble.tables.members import show_held_out, show_members
from ensemble.toml import toml_value
from ensemble.train.jobs import train_folds
from ensemble.tta.predict import tta_predict
from ensemble.tta.prepare import PredictionRequest

EXPERIMENT = """\
run = {run}
seed = 0

[data]
train = {train}
image_size = 32

[folds]
k = 5

[train]
epochs = 6
batch_size = 64
lr = 6e-3
crop_area = [0.7, 1.0]   # strokes at the border matter: cut little
hflip = false            # a mirrored digit is another sign
color_jitter = 0.2

[tta]
views = ["identity"]     # for the same reason no flips here

[[backbone]]
name = "resnet"
timm = "test_resnet"
pretrained = false

[[backbone]]
name = "efficientnet"
timm = "test_efficientnet"
pretrained = false

[[backbone]]
name = "byobnet"
timm = "test_byobnet"
pretrained = false
"""


def run_demo(folder: Path, events: Events) -> dict[str, dict[str, float]]:
    """Write the digits, train, blend by every method, predict the held-out part, and print what came of it.

    Returns method -> metric -> value on the held-out images. Going on after a stop is part of it: run it again.
    Raises UserError if `folder` holds something else, RunFailure as training does.
    """
    data, run = folder / "digits", folder / "run"
    experiment = folder / "digits.toml"
    text = EXPERIMENT.format(run=toml_value(str(run)), train=toml_value(str(data / "train")))
    is_demo = experiment.is_file() and experiment.read_bytes() == text.encode()
    if folder.exists() and not is_demo and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: is there already and is no demo; name another folder: ens demo DIR")
    # The experiment first: it marks the folder as a demo, which a demo that was stopped may go on with.
    write_text(experiment, text)
    answers = write_digits(data)
    events.message(f"1. ens train-folds {experiment}")
    failures = train_folds(load_config(experiment), events)
    show_members(blend.members_table(Run(run)))

    held_out: dict[str, dict[str, float]] = {}
    best = ""
    least = np.inf
    for method in methods():
        events.message(f"2. ens blend {run} --method {method}")
        result = blend.blend_run(Run(run), blend.BlendOptions(method), events)
        show_blend(result)
        if result.blend["log_loss"].value < least:  # chosen by out-of-fold rows alone
            best, least = method, result.blend["log_loss"].value
    for method in methods():
        output = folder / f"submission-{method}.csv"
        sample = data / "sample_submission.csv"
        events.message(
            f"3. ens tta-predict {run} {data / 'test'} --blend {method} --sample-submission {sample} -o {output}"
        )
        request = PredictionRequest(
            run=Run(run), images=data / "test", output=output, blend_name=method, sample_submission=sample
        )
        made = tta_predict(request, events)
        labels = np.array([answers[name] for name in made.ids])
        held_out[method] = {metric: evaluate(metric, labels, made.probabilities) for metric in columns()}
    show_held_out(held_out, len(answers), best)
    if failures:
        raise RunFailure(f"{pluralize(len(failures), 'job')} failed: " + "; ".join(failures))
    events.message(f"images and answers in {data}, the run in {run}, submissions in {folder / 'submission-*.csv'}")
    return held_out


def write_digits(folder: Path) -> dict[str, int]:
    """Write the 1,797 digits (8 x 8 grey PNGs): 1,437 in train/<digit>/, 360 in test/, with sample_submission.csv (all
    "0") and answers.csv. Returns test id -> digit. (Alpaydin and Kaynak 1998, as scikit-learn ships them.)"""
    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    rows = np.arange(len(images))
    train, test = train_test_split(rows, test_size=360, random_state=0, stratify=digits.target)
    for row in train:
        _save(images[row], folder / "train" / str(digits.target[row]) / f"{row:04}.png")
    for row in test:
        _save(images[row], folder / "test" / f"{row:04}.png")
    answers = {f"{row:04}": int(digits.target[row]) for row in np.sort(test)}
    for name, labels in {"sample_submission.csv": ["0"] * len(answers), "answers.csv": list(answers.values())}.items():
        write_text(folder / name, pd.DataFrame({"id": list(answers), "label": labels}).to_csv(index=False))
    return answers


def _save(image: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)

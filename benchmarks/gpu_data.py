"""Small inputs for gpu.py: pictures that a network can tell apart, a fold to train, an experiment."""

import importlib.util
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from gpu import Bench
from PIL import Image

from ensemble.backbones import timm_model
from ensemble.config import Train
from ensemble.data.cache.store import open_pixels
from ensemble.data.pixels.preprocess import Preprocess
from ensemble.events import SILENT
from ensemble.machine import cores
from ensemble.run import Run
from ensemble.train.evaluate import Evaluation
from ensemble.train.job import Job
from ensemble.train.numerics import Numerics
from ensemble.train.rows import Rows, TrainingData

CLASSES = tuple("abc")
NETWORKS = ("test_resnet", "test_vit")  # timm's smallest
SIZE = 32


@dataclass
class Recorder:
    """Events of which the messages are kept, and whose epochs are told to `on_epoch`."""

    messages: list[str] = field(default_factory=list)
    on_epoch: Callable[[int], None] = lambda epoch: None

    def message(self, line: str) -> None:
        self.messages.append(line)

    def progress(self, text: str, done: float, total: float) -> None:
        pass

    def epoch_finished(self, member: str, fold: int, epoch: dict) -> None:
        self.on_epoch(epoch["epoch"])

    def job_finished(self, member: str, fold: int, seconds: float, error: str | None) -> None:
        pass


def pictures(folder: Path, count: int, width: int = 44, height: int = 40, ending: str = "png") -> list[Path]:
    """Soft blobs with fine noise on them, of three classes by their tint, in folders of the classes."""

    def write(index: int) -> Path:
        draw = np.random.default_rng(index)
        label = index % len(CLASSES)
        blobs = draw.integers(60, 200, (max(height // 40, 4), max(width // 40, 4), 3), dtype=np.uint8)
        image = np.asarray(Image.fromarray(blobs).resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
        image = image + draw.integers(-12, 13, image.shape, dtype=np.int16)
        image[..., label] += 40
        path = folder / CLASSES[label] / f"{index:05}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(path, quality=90)
        return path

    if (folder / CLASSES[0]).is_dir():
        return sorted(folder.glob(f"*/*.{ending}"), key=lambda path: path.name)
    with ThreadPoolExecutor(cores()) as pool:
        return list(pool.map(write, range(count)))


def uncompiled(bench: Bench) -> str:
    """Why no network can be compiled here; "" if it can."""
    if bench.device.type != "cuda":
        return "only a GPU's networks are compiled"
    if not any(map(shutil.which, ("gcc", "cc", "clang"))):
        return "there is no C compiler"
    return "" if importlib.util.find_spec("triton") else "triton is not installed"


def tiny_data(folder: Path, name: str) -> TrainingData:
    """60 pictures in two folds, decoded for a tiny network."""
    return data_of(pictures(folder / "pictures", 60), timm_model.preprocess_for(name, SIZE, None), folder)


def data_of(paths: list[Path], preprocess: Preprocess, folder: Path, held_out: int | None = None) -> TrainingData:
    """Decoded pictures: half of them held out, or the first so many."""
    pixels = open_pixels(paths, [preprocess.cropping, preprocess.decoding], folder / "cache", 10**11, SILENT)
    rows = np.arange(len(paths))
    folds = rows % 2 if held_out is None else np.where(rows < held_out, 0, -1)
    ids = np.array([path.name for path in paths])
    labels = np.array([CLASSES.index(path.parent.name) for path in paths])
    return TrainingData(
        Rows(ids, tuple(paths), labels, folds.astype(np.int8), CLASSES), pixels[preprocess.cropping], pixels
    )


def tiny_job(folder: Path, name: str, numerics: Numerics, device: torch.device, seed: int = 0) -> Job:
    """One fold of a tiny network, in a directory of its own."""
    number = len(list(folder.glob("run*")))
    fold = Run(folder / f"run{number}").member("tiny").fold(0)
    settings = Train(strategy="scratch", epochs=2, batch_size=10, lr=2e-3, mixup=0.2, trivial_augment=True, erase=0.3)
    evaluation = Evaluation(timm_model.preprocess_for(name, SIZE, None), ("identity", "hflip"), 16, device)

    def create() -> torch.nn.Module:
        return timm_model.create(name, len(CLASSES), SIZE)

    return Job(fold, create, settings, numerics, None, evaluation, {"float32": 1.0}, seed)


EXPERIMENT = """\
run = "{run}"
seed = 0
workers = {workers}
[data]
train = "{train}"
image_size = 32
[folds]
k = 2
near_copies = false
[train]
epochs = 3
batch_size = 10
lr = 2e-3
compile = false
[tta]
batch_size = 16
[[backbone]]
name = "net"
timm = "{name}"
pretrained = false
"""


def experiment(folder: Path, name: str, workers: int | str = 1, extra: str = "") -> Path:
    """An experiment file on 60 pictures, whose run lies beside it. extra: keys before the tables."""
    pictures(folder.parent / "pictures", 60)
    file = folder / f"{name}.toml"
    workers = f'"{workers}"' if isinstance(workers, str) else workers
    train = folder.parent / "pictures"
    file.write_text(extra + EXPERIMENT.format(run=folder / name, workers=workers, train=train, name=NETWORKS[0]))
    return file

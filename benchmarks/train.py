"""Training speed against the network's own: python benchmarks/train.py FOLDER [--part loader|folds|processes|probe]

FOLDER holds JPEGs in class folders. Images per second of whole training epochs from the second on, all sides in one
run, alternating, medians of the rounds, each beside the limit: the same steps on one random batch that lies ready.

- loader: ens (its defaults: random resized crop, mirror, colour jitter, averaged weights), timm's loader with its
  defaults (float32, contiguous), and timm's loader with the numeric settings that ens found. Once with the files as
  they are, once scaled to 1,024 px. Cold: the first epoch, for ens with filling the cache, for timm with its start.
- folds: two folds side by side, a thread each, against one after the other with two.
- processes: one fold by two processes (gpus_per_job = 2), on two GPUs or with half of the cores each, against one; and
  the seconds that a fold takes to start them.
- probe: the features' share of the time that five probes take, features included.
"""

import argparse
import os
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image

from ensemble.backbones.fine_tuning import parameter_groups, train_mode
from ensemble.backbones.timm_model import preprocess_for
from ensemble.config import Train, load_config
from ensemble.data.cache.store import clear, open_pixels
from ensemble.data.pixels.preprocess import Preprocess
from ensemble.device import choose_device, keep_freed_memory, synchronize, to_device
from ensemble.events import SILENT
from ensemble.run import Run
from ensemble.train.evaluate import Evaluation
from ensemble.train.fit import fit
from ensemble.train.job import Job
from ensemble.train.jobs import train_folds
from ensemble.train.losses import make_loss
from ensemble.train.numerics import Numerics, autocast_as, candidates, describe, find_numerics
from ensemble.train.rows import Rows, TrainingData
from ensemble.train.step import Target, gradients

CPU = ("resnet18", "mobilenetv3_small_100", "convnext_atto")
GPU = ("resnet50", "convnext_tiny", "vit_small_patch16_224")
PLAIN = Numerics("float32", "contiguous", False, 2**30, 0.0)


def limit(name: str, size: int, batch: int, steps: int, how: Numerics, device: torch.device) -> float:
    model = to_device(timm.create_model(name, num_classes=7), device, how.memory_format)
    if how.compile:
        model.compile()
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.05), fused=True)
    layout = torch.channels_last if how.memory_format == "channels_last" else torch.contiguous_format
    images = torch.randn(batch, 3, size, size, device=device).contiguous(memory_format=layout)
    labels = torch.arange(batch, device=device) % 7
    train_mode(model)
    for step in range(steps + 2):
        if step == 2:
            synchronize(device)
            start = time.perf_counter()
        with autocast_as(device, how):
            logits = model(images)
        torch.nn.functional.cross_entropy(logits.float(), labels, label_smoothing=0.1).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    synchronize(device)
    return steps * batch / (time.perf_counter() - start)


def ens(
    name: str, paths: list[Path], preprocess: Preprocess, settings: Train, how: Numerics, folder: Path, cold: bool
) -> tuple[float, float]:
    """Images/s of the second epoch, and seconds from the start to the end of the first one."""
    if cold:
        clear(folder / "cache")
    start = time.perf_counter()
    hows = [preprocess.cropping, preprocess.decoding]
    pixels = open_pixels(paths, hows, folder / "cache", 10**11, SILENT)
    filled = time.perf_counter() - start
    labels = np.arange(len(paths)) % 7
    folds = np.where(np.arange(len(paths)) < 8, 0, -1).astype(np.int8)
    rows = Rows(np.array([str(path) for path in paths]), tuple(paths), labels, folds, tuple("abcdefg"))
    data = TrainingData(rows, pixels[preprocess.cropping], pixels)
    with tempfile.TemporaryDirectory(dir=folder) as run:
        fold = Run(Path(run)).member("bench").fold(0)
        evaluation = Evaluation(preprocess, ("identity",), 64, choose_device())

        def create() -> torch.nn.Module:
            return timm.create_model(name, num_classes=7)

        fit(Job(fold, create, settings, how, None, evaluation, {"float32": 1.0}, seed=0), data, SILENT)
        log = fold.read_log()
    return log[1]["images_per_second"], filled + log[0]["seconds"]


def timms(name: str, root: Path, size: int, batch: int, how: Numerics, device: torch.device) -> tuple[float, float]:
    """Images/s of the second epoch, and seconds of the first one, for training as timm's script does it."""
    data_config = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    dataset = timm.data.create_dataset("", root=str(root), is_training=True)
    loader = timm.data.create_loader(
        dataset, (3, size, size), batch, is_training=True, color_jitter=0.4, hflip=0.5, mean=data_config["mean"],
        std=data_config["std"], interpolation="random", num_workers=min(4, os.cpu_count() or 1),
        use_prefetcher=device.type == "cuda", device=device, persistent_workers=True,
    )  # fmt: skip
    model = to_device(timm.create_model(name, num_classes=7), device, how.memory_format).train()
    if how.compile:
        model.compile()
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.05))
    loss_of = make_loss("cross_entropy", np.ones(7), device, 0.1)
    layout = torch.channels_last if how.memory_format == "channels_last" else torch.contiguous_format
    rates, seconds = [], []
    for _ in range(2):
        start = time.perf_counter()
        seen = 0
        for images, labels in loader:
            images = images.to(device).contiguous(memory_format=layout)
            labels = labels.to(device) % 7
            gradients(model, images, [Target(labels, torch.ones(len(labels), device=device), loss_of)], 2**30, how)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            seen += len(images)
        synchronize(device)
        seconds.append(time.perf_counter() - start)
        rates.append(seen / seconds[-1])
    return rates[1], seconds[0]


def scaled(paths: list[Path], source: Path, folder: Path) -> list[Path]:
    """Copies whose shorter side is 1,024 px, JPEG quality 90."""

    def copy(path: Path) -> Path:
        target = folder / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        image = Image.open(path).convert("RGB")
        factor = 1024 / min(image.size)
        image.resize([round(side * factor) for side in image.size], Image.Resampling.BICUBIC).save(target, quality=90)
        return target

    with ThreadPoolExecutor() as pool:
        return list(pool.map(copy, paths))


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} [{min(values):.2f}, {max(values):.2f}]"


def loader(source: Path, models: list[str], images: int, rounds: int, folder: Path) -> None:
    device = choose_device()
    gpu = device.type == "cuda"
    size, batch = (224, 128) if gpu else (128, 32)
    every = sorted(source.rglob("*.jpg"))
    rng = np.random.default_rng(0)
    paths = [every[index] for index in rng.permutation(len(every))[:images] % len(every)]
    small = folder / "files"
    for path in paths:
        target = small / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    sets = {"as they are": (small, [small / path.relative_to(source) for path in paths])}
    sets["1,024 px"] = (folder / "large", scaled(sets["as they are"][1], small, folder / "large"))
    steps = len(paths) // batch
    head = "| network | files | settings | limit, images/s | ens / limit | timm / limit | timm with those settings "
    print(head + "| ens / timm | cold: ens, timm, s |\n|" + "---|" * 9)
    for name in models:
        settings = Train(epochs=2, batch_size=batch)
        plan = candidates(device, "auto", "auto", "auto")
        how, _ = find_numerics(lambda name=name: timm.create_model(name, num_classes=7), size, 7, batch, device, plan)
        for kind, (root, files) in sets.items():
            seen: dict[str, list[float]] = {key: [] for key in ("limit", "ens", "timm", "like", "cold", "first")}
            for turn in range(rounds):
                seen["limit"].append(limit(name, size, batch, steps, how, device))
                rate, cold = ens(name, files, preprocess_for(name, size, None), settings, how, folder, turn == 0)
                seen["ens"].append(rate)
                seen["limit"][-1] = (seen["limit"][-1] + limit(name, size, batch, steps, how, device)) / 2
                rate, first = timms(name, root, size, batch, PLAIN, device)
                seen["timm"].append(rate)
                seen["like"].append(timms(name, root, size, batch, how, device)[0])
                if turn == 0:
                    seen["cold"].append(cold)
                    seen["first"].append(first)
            shares = {
                key: [a / b for a, b in zip(seen[key], seen["limit"], strict=True)] for key in ("ens", "timm", "like")
            }
            ratio = [a / b for a, b in zip(seen["ens"], seen["timm"], strict=True)]
            print(f"| {name} | {kind} | {describe(how).split(', at')[0].rsplit(',', 1)[0]} "
                  f"| {statistics.median(seen['limit']):.1f} | {spread(shares['ens'])} | {spread(shares['timm'])} "
                  f"| {spread(shares['like'])} | {spread(ratio)} "
                  f"| {seen['cold'][0]:.1f}, {seen['first'][0]:.1f} |", flush=True)  # fmt: skip


EXPERIMENT = """
run = "{run}"
workers = {workers}
[data]
train = "{train}"
image_size = 128
cache = "{cache}"
[folds]
k = 2
[train]
epochs = 3
batch_size = 32
[[backbone]]
name = "net"
timm = "{name}"
pretrained = false
"""


def folds(source: Path, models: list[str], rounds: int, folder: Path) -> None:
    """Rates of the last epoch, during which both folds are at work, summed over the folds that run side by side."""
    print("| network | one process, images/s | two side by side, images/s | ratio |\n|---|---|---|---|")
    for name in models:
        seen: dict[int, list[float]] = {1: [], 2: []}
        for turn in range(rounds):
            for workers, rates in seen.items():
                run = folder / f"{name}-{workers}-{turn}"
                file = folder / "experiment.toml"
                file.write_text(
                    EXPERIMENT.format(run=run, workers=workers, train=source, cache=folder / "c", name=name)
                )
                train_folds(load_config(file), SILENT)
                each = [fold.read_log()[1]["images_per_second"] for fold in Run(run).member("net").folds()]
                rates.append(sum(each) if workers == 2 else statistics.harmonic_mean(each))
        ratio = [b / a for a, b in zip(seen[1], seen[2], strict=True)]
        print(f"| {name} | {spread(seen[1])} | {spread(seen[2])} | {spread(ratio)} |", flush=True)


def processes(source: Path, models: list[str], rounds: int, folder: Path) -> None:
    """Rates of the last epochs; the start is the time of the whole run that no epoch of either side took."""
    print("| network | one process, images/s | two, images/s | ratio | start of two, s a fold |\n|---|---|---|---|---|")
    for name in models:
        seen: dict[int, list[float]] = {1: [], 2: []}
        others: dict[int, list[float]] = {1: [], 2: []}
        for turn in range(rounds):
            for count, rates in seen.items():
                run, file = folder / f"{name}-by-{count}-{turn}", folder / "experiment.toml"
                file.write_text(EXPERIMENT.format(run=run, workers=1, train=source, cache=folder / "c", name=name))
                begun = time.perf_counter()
                train_folds(load_config(file, (f"gpus_per_job={count}",)), SILENT)
                logs = [fold.read_log() for fold in Run(run).member("net").folds()]
                rates.append(statistics.harmonic_mean([log[-1]["images_per_second"] for log in logs]))
                epochs = sum(line["seconds"] for log in logs for line in log)
                others[count].append((time.perf_counter() - begun - epochs) / len(logs))
        ratio = [b / a for a, b in zip(seen[1], seen[2], strict=True)]
        starts = [b - a for a, b in zip(others[1], others[2], strict=True)]
        print(f"| {name} | {spread(seen[1])} | {spread(seen[2])} | {spread(ratio)} | {spread(starts)} |", flush=True)


@dataclass
class Messages:
    """Events of which the messages are kept."""

    lines: list[str] = field(default_factory=list)

    def message(self, line: str) -> None:
        self.lines.append(line)

    def progress(self, *_: object) -> None:
        pass

    epoch_finished = job_finished = progress


PROBE = (
    EXPERIMENT.replace("k = 2", "k = 5")
    .replace("pretrained = false", 'weights = "{weights}"')
    .replace("epochs = 3", 'strategy = "probe"')
)


def probe(source: Path, models: list[str], rounds: int, folder: Path) -> None:
    print("| network | features, s | with five probes, s | features' share |\n|---|---|---|---|")
    for name in models:
        architecture, _, weights = name.partition("=")
        seen: list[tuple[float, float]] = []
        for turn in range(rounds):
            file = folder / "experiment.toml"
            run = folder / f"probe-{architecture}-{turn}"
            file.write_text(PROBE.format(run=run, workers=1, train=source, cache=folder / "c", name=architecture,
                                         weights=weights))  # fmt: skip
            messages = Messages()
            train_folds(load_config(file), messages)
            words = next(line for line in messages.lines if "features in" in line).split()
            seen.append((float(words[3]), float(words[3]) + float(words[8])))
        share = [features / total for features, total in seen]
        print(f"| {architecture} | {spread([a for a, _ in seen])} | {spread([b for _, b in seen])} | {spread(share)} |",
              flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--part", choices=["loader", "folds", "processes", "probe"], default="loader")
    parser.add_argument("--models", nargs="+", help="timm names; for the probe NAME=WEIGHTS.safetensors")
    parser.add_argument("--images", type=int, default=256, help="images per epoch")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    keep_freed_memory()
    models = given.models or list(GPU if torch.cuda.is_available() else CPU)
    with tempfile.TemporaryDirectory() as folder:
        if given.part == "loader":
            loader(given.folder.resolve(), models, given.images, given.rounds, Path(folder))
        elif given.part in ("folds", "processes"):
            part = folds if given.part == "folds" else processes
            part(given.folder.resolve(), models, given.rounds, Path(folder))
        else:
            probe(given.folder.resolve(), models, given.rounds, Path(folder))


if __name__ == "__main__":
    main()

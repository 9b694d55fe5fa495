"""`ens doctor`: what this machine has, and what will be slow on it, and why."""

import os
import platform
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import ensemble
from ensemble.data.cache.shards import size
from ensemble.machine import cores, device_type, threads_allowed, user_cache
from ensemble.plural import pluralize

PACKAGES = ("torch", "torchvision", "timm", "scikit-learn", "numpy", "pandas", "pillow")
# Of each extra a package that it brings; and OpenVINO, which goes beside `export`.
EXTRAS = {
    "export": "onnxruntime", "openvino": "openvino", "serve": "fastapi", "attention": "captum", "ray": "ray",
    "slurm": "submitit", "cloud": "s3fs", "tensorboard": "tensorboard", "mlflow": "mlflow", "wandb": "wandb",
    "trackio": "trackio",
}  # fmt: skip
SAMPLE = 64 * 2**20  # bytes, written and read to time a disk
LEAST_SPEED = 100e6  # bytes a second of a cache's disk: pixels of 224 px for a thousand images a second take 150e6
LEAST_MEMORY, LEAST_FREE = 4 * 2**30, 10 * 2**30  # bytes
MEMINFO = Path("/proc/meminfo")


@dataclass(frozen=True)
class Item:
    """One thing that was looked at.

    name: what.
    found: in words.
    advice: what will be slow or fail because of it, and what to do; None if nothing.
    """

    name: str
    found: str
    advice: str | None = None


def examine() -> list[Item]:
    """All that is looked at, in the order in which it is printed. Writes 64 MB to the cache's disk, and removes it."""
    return [
        Item("ens", version()),
        Item("Python", f"{platform.python_version()} on {platform.platform(terse=True)}"),
        Item("packages", ", ".join(f"{name} {_version(name)}" for name in PACKAGES)),
        _extras(),
        *_device(),
        _cores(),
        _memory(),
        _load(),
        *_cache(user_cache()),
    ]


def version() -> str:
    """The version, and of a checkout its commit: "0.1.0 (a06a480)", or "0.1.0 (a06a480, changed)"."""
    root = Path(ensemble.__file__).parents[1]
    if not (root / ".git").exists():
        return ensemble.__version__
    git = ["git", "-C", str(root)]
    try:
        commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "ensemble"], capture_output=True, check=False)
    except (OSError, subprocess.CalledProcessError):
        return ensemble.__version__
    return f"{ensemble.__version__} ({commit.stdout.strip()}{', changed' if changed.returncode == 1 else ''})"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "missing"


def _extras() -> Item:
    there = [name for name, package in EXTRAS.items() if _version(package) != "missing"]
    lacking = [name for name in EXTRAS if name not in there]
    return Item("extras", ", ".join(there or ["none"]) + (f"; not installed: {', '.join(lacking)}" if lacking else ""))


def _device() -> list[Item]:
    if device_type() == "cpu":
        advice = "training takes hours where a GPU takes minutes: ens init --fast, or a smaller image_size"
        return [Item("device", "no GPU", advice), _number_formats()]
    import torch

    if not torch.cuda.is_available():
        return [Item("device", "Apple's GPU (MPS)")]
    items = []
    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        free, total = torch.cuda.mem_get_info(number)
        taken = "another program holds most of its memory: end it first" if free < total / 2 else None
        items.append(Item(f"GPU {number}", f"{about.name}, {size(free)} of {size(total)} free", taken))
    return items


def _number_formats() -> Item:
    import torch

    from ensemble.inference.formats import formats

    if "bfloat16" in formats(torch.device("cpu")):
        return Item("number formats", "float32, bfloat16 with units for it")
    return Item("number formats", "float32; no units for bfloat16")


def _cores() -> Item:
    count, threads = cores(), threads_allowed()
    found = f"{pluralize(count, 'core')} for this process"
    if threads is not None and 2 * threads < count:  # two jobs side by side share the cores
        return Item("cores", found, f"OMP_NUM_THREADS = {threads} allows each process fewer threads than it could have")
    return Item("cores", found)


def _memory() -> Item:
    try:
        lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
        free, total = (int(lines[key].split()[0]) * 1024 for key in ("MemAvailable", "MemTotal"))
    except (OSError, KeyError, ValueError):
        return Item("memory", "not known")
    advice = "processes may be killed while they train: set workers = 1, or lower batch_size"
    return Item("memory", f"{size(free)} of {size(total)} free", advice if free < LEAST_MEMORY else None)


def _load() -> Item:
    try:
        load = os.getloadavg()[0]
    except (AttributeError, OSError):  # Windows counts none
        return Item("load", "not known")
    advice = "other programs take the processor: all is slower, and settings that are timed now may be wrong"
    return Item("load", f"{load:.1f} in the last minute", advice if load > cores() else None)


def _cache(folder: Path) -> list[Item]:
    lost = "nothing can be kept between runs: set ENS_CACHE to a folder that can be written"
    there = next((place for place in (folder, *folder.parents) if place.is_dir()), None)
    if there is None:  # a drive of Windows that is not connected
        return [Item("cache", f"{folder}, whose disk is not there", lost)]
    disk = shutil.disk_usage(there)
    advice = "decoded pixels may not fit: set ENS_CACHE to another disk, or ens cache --clear"
    items = [Item("cache", f"{folder}, {size(disk.free)} free on its disk", advice if disk.free < LEAST_FREE else None)]
    try:
        written = _writing_speed(there)
    except OSError as error:
        return [*items, Item("cache's disk", f"can't be written ({error.strerror})", lost)]
    slow = "images may be read more slowly than networks compute: set ENS_CACHE to a local disk"
    return [*items, Item("cache's disk", f"writes {size(written)}/s", slow if written < LEAST_SPEED else None)]


def _writing_speed(folder: Path) -> int:
    """Bytes a second."""
    noise = os.urandom(SAMPLE)
    with tempfile.TemporaryFile(dir=folder) as file:
        begun = time.monotonic()
        file.write(noise)
        file.flush()
        os.fsync(file.fileno())
        return round(SAMPLE / (time.monotonic() - begun))

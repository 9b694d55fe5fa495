"""Settings found, not guessed: a few timed steps choose the number format, the memory layout and the batch that fits.

Which is fastest differs by network and by processor. At 128 px on a CPU with bfloat16 units, one thread, images/s:
resnet18 16 in float32 contiguous, 30 in bfloat16 channels_last; mobilenetv3_small_100 97 in float32 channels_last, 37
in bfloat16; convnext_atto 33 in float32 whatever the layout.
"""

import hashlib
import itertools
import json
import math
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from ensemble.backbones.fine_tuning import parameter_groups, train_mode
from ensemble.device import free_cached_memory, is_out_of_memory, synchronize, to_device
from ensemble.errors import RunFailure
from ensemble.files.reading import read_json
from ensemble.files.sealed import write_json
from ensemble.machine import waited, was_busy
from ensemble.plural import pluralize

# Candidates take turns, so that a moment in which the machine is busy hits all alike. Per candidate and round: untimed
# steps, timed ones at most, and when to stop.
ROUNDS, WARMUP, STEPS, SECONDS = 3, 1, 2, 0.7
MARGIN = 1.1  # in every round a candidate has to be so many times faster than the plainest: less would flip
LONG = 600.0  # seconds of a job, from which on compiling its network may pay
SHORT = 0.5  # of the trial's speed: with less in the steps of training the trial was wrong, or the machine is busy now


@dataclass(frozen=True)
class Numerics:
    """How a backbone's training steps are computed.

    dtype: "float32", or "bfloat16" (autocast: weights and optimizer stay float32)
    memory_format: "contiguous" or "channels_last"
    compile: whether by torch.compile
    micro_batch: images at a time
    images_per_second: of one process, seen while choosing
    """

    dtype: str
    memory_format: str
    compile: bool
    micro_batch: int
    images_per_second: float


def load_numerics(path: Path) -> Numerics:
    """Read what `save_numerics` wrote. Raises UserError that names the file."""
    return read_json(path, Numerics, "delete it, and the numeric settings are found again")


def save_numerics(path: Path, numerics: Numerics) -> None:
    write_json(path, asdict(numerics))


def describe(numerics: Numerics) -> str:
    """One line for people."""
    settings = f"{numerics.dtype}, {numerics.memory_format}{', compiled' if numerics.compile else ''}"
    at_a_time = pluralize(numerics.micro_batch, "image")
    return f"{settings}, {at_a_time} at a time: {numerics.images_per_second:.0f} images/s in the trial"


def known_file(folder: Path, **key: Any) -> Path:
    """Where in a folder the choice for this key (network, sizes, device) is kept between runs. One machine makes one
    choice: timings that are near each other would otherwise give two runs of one seed other bits."""
    key |= {"torch": torch.__version__, "machine": platform.processor() or platform.machine()}
    key |= {"capability": torch.backends.cpu.get_cpu_capability()}
    name = hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()[:24]
    return folder / f"{name}.json"


def candidates(device: torch.device, dtype: str, memory_format: str, compiled: bool | str) -> list[Numerics]:
    """What is to be timed, the plainest first. What is set by hand is not varied."""
    gpu = device.type == "cuda"
    half = gpu and torch.cuda.is_bf16_supported(including_emulation=False)
    dtypes = ["bfloat16", "float32"] if half else ["float32"] if device.type != "cpu" else ["float32", "bfloat16"]
    formats = ["contiguous"] if device.type == "mps" else ["channels_last", "contiguous"]
    # On a CPU compiling takes a minute, and a C++ compiler: only by hand.
    compiles = [False, True] if gpu else [False]
    choices = itertools.product(
        compiles if compiled == "auto" else [bool(compiled)],
        dtypes if dtype == "auto" else [dtype],
        formats if memory_format == "auto" else [memory_format],
    )
    return [Numerics(dtype=kind, memory_format=layout, compile=way, micro_batch=0, images_per_second=0.0)
            for way, kind, layout in choices]  # fmt: skip


def find_numerics(
    create: Callable[[], torch.nn.Module],
    image_size: int,
    classes: int,
    batch_size: int,
    device: torch.device,
    plan: list[Numerics],
    images: float = math.inf,
) -> tuple[Numerics, str]:
    """Time a few steps of each candidate on random images, at the largest batch up to `batch_size` that fits. They take
    turns, and the plainest is taken but for one that is faster in every round. Compiling takes a minute, in every job
    again, so it is tried last, once, and with the best of the other settings alone, unless it is set by hand; and only
    where a job of so many images takes long enough.

    Returns the choice, and why it is doubtful: "" if it isn't. Raises RunFailure where not even two images fit.
    """
    begun = waited()
    rounds = ROUNDS if len(plan) > 1 else 1
    timed: dict[Numerics, list[float]] = {}
    micro = batch_size
    by_hand = all(candidate.compile for candidate in plan)
    for candidate in plan:
        if candidate.compile and not by_hand:
            continue
        try:
            micro, speed = _largest(create, image_size, classes, micro, device, candidate)
        except RunFailure:
            if not timed:
                raise
            continue  # what needs more memory than a candidate that fits
        except Exception:
            if not candidate.compile:
                raise
            continue  # a compiler that is missing or fails: the network runs uncompiled as well
        timed[replace(candidate, micro_batch=micro)] = [speed]
    if not timed:
        raise RunFailure("torch.compile failed; set compile = false")
    for _ in range(1, rounds if not by_hand else 1):
        for candidate, speeds in timed.items():
            speeds.append(_speed(create, image_size, classes, candidate.micro_batch, device, candidate))
    best, agree = next(iter(timed)), True
    for candidate, speeds in timed.items():
        faster = [speed > MARGIN * other for speed, other in zip(speeds, timed[best], strict=True)]
        agree &= all(faster) or not any(faster)
        best = candidate if all(faster) else best
    speed = max(timed[best])
    for candidate in plan:
        if candidate.compile and not by_hand and _alike(candidate, best) and images / speed > LONG:
            with suppress(Exception):
                micro, compiled = _largest(create, image_size, classes, best.micro_batch, device, candidate)
                if compiled > MARGIN * speed:
                    best, speed = replace(candidate, micro_batch=micro), compiled
    doubt = "the machine was busy" if was_busy(begun) else "" if agree else "the trials did not agree"
    return replace(best, images_per_second=float(f"{speed:.4g}")), doubt


def _alike(one: Numerics, other: Numerics) -> bool:
    return (one.dtype, one.memory_format) == (other.dtype, other.memory_format)


def _largest(
    create: Callable[[], torch.nn.Module],
    size: int,
    classes: int,
    batch: int,
    device: torch.device,
    candidate: Numerics,
) -> tuple[int, float]:
    while True:
        try:
            return batch, _speed(create, size, classes, batch, device, candidate)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        free_cached_memory(device)
        if batch < 4:
            raise RunFailure(f"not even {batch} images of {size} px fit into memory; lower the image_size")
        batch //= 2


def _speed(
    create: Callable[[], torch.nn.Module], size: int, classes: int, batch: int, device: torch.device, numerics: Numerics
) -> float:
    """Images per second of whole training steps on random images."""
    step = training_step(create, size, classes, batch, numerics, device)
    seconds: list[float] = []
    while len(seconds) < WARMUP + STEPS and sum(seconds[WARMUP:]) < SECONDS:
        start = time.perf_counter()
        step()
        synchronize(device)
        seconds.append(time.perf_counter() - start)
    return batch / min(seconds[WARMUP:])  # the least disturbed step


def training_step(
    create: Callable[[], torch.nn.Module], size: int, classes: int, batch: int, numerics: Numerics, device: torch.device
) -> Callable[[], None]:
    """A function that takes a whole step of training (forward, backward, optimizer) on random images, and changes no
    weight. It doesn't wait for a GPU."""
    model = to_device(create(), device, numerics.memory_format)
    if numerics.compile:
        compile_anew(model)
    # On a GPU fused, as in training
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.0), lr=0.0, fused=True if device.type == "cuda" else None)
    images = in_memory_format(torch.randn(batch, 3, size, size, device=device), numerics)
    labels = torch.arange(batch, device=device) % classes
    train_mode(model)

    def step() -> None:
        with autocast_as(device, numerics):
            loss = F.cross_entropy(model(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def compile_anew(model: torch.nn.Module) -> None:
    """Compile a network by torch.compile, which forgets those before it: a process that trains many of one architecture
    would else have the ninth computed uncompiled (torch._dynamo.config.recompile_limit)."""
    torch.compiler.reset()
    model.compile()


def in_memory_format(images: torch.Tensor, numerics: Numerics) -> torch.Tensor:
    channels_last = numerics.memory_format == "channels_last"
    return images.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def autocast_as(device: torch.device, numerics: Numerics) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=numerics.dtype == "bfloat16")

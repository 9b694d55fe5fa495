"""Sections of gpu.py: images per second of training and of packed jobs, beside their physical limits.

Sides take turns; medians of the rounds [least, greatest]. Networks have random weights, pictures are generated.
"""

import functools
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import numpy as np
import timm
import torch
from gpu import Bench, Row, skipped
from gpu_data import CLASSES, Recorder, data_of, uncompiled
from gpu_rates import photos_of, rates_row, sizes
from torch.utils.flop_counter import FlopCounterMode

from ensemble.backbones import timm_model
from ensemble.config import Train
from ensemble.data.pixels.decode import Files
from ensemble.data.pixels.preprocess import Decoding, Preprocess
from ensemble.device import in_layout, synchronize, to_device
from ensemble.errors import RunFailure
from ensemble.machine import cores
from ensemble.run import Run
from ensemble.train import fit as fit_module
from ensemble.train.evaluate import Evaluation
from ensemble.train.job import Job
from ensemble.train.losses import make_loss
from ensemble.train.numerics import Numerics, compile_anew, training_step
from ensemble.train.packing import Build, counts_to_try, find_packing, timed_processes
from ensemble.train.rows import TrainingData
from ensemble.train.step import Target, gradients

# Dense products in bfloat16 with sums in float32, TFLOP/s by the data sheets; the first that a GPU's name holds.
PEAKS = {"H200": 989, "H100 PCIe": 756, "H100": 989, "A100": 312, "L40S": 362, "L40": 181, "L4": 121, "RTX 4090": 165,
         "RTX 3090": 71}  # fmt: skip


def _numerics(device: torch.device, is_compiled: bool = False) -> Numerics:
    half = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return Numerics("bfloat16" if half else "float32", "channels_last", is_compiled, 2**30, 1.0)


# ---- training ------------------------------------------------------------------------------------------------------


def training_speed(bench: Bench) -> Iterator[Row]:
    """The whole loop of ens (crops, light, mirror, network, averaged weights), from the cache and from files, beside
    timm's loader with the same network, number format and optimizer, and beside the network alone."""
    names, size, count, batch, rounds = sizes(bench)
    began, photos = time.perf_counter(), photos_of(bench, count)
    numerics, device = _numerics(bench.device), bench.device
    yield Row("pictures", f"{count} JPEGs made in {time.perf_counter() - began:.0f} s; batches of {batch}, {size} px, "
              f"{numerics.dtype}")  # fmt: skip
    side = 256 if bench.is_dry else 8192
    peak = _matmul_peak(device, side)
    sheet = next((tera for name, tera in PEAKS.items() if name in _name(device)), None)
    yield Row(
        f"products of two {side:,}² matrices", f"{peak / 1e12:.0f} TFLOP/s, by the data sheet {sheet or 'unknown'}"
    )
    for name in names:
        preprocess = timm_model.preprocess_for(name, size, None)
        began = time.perf_counter()
        cached = data_of(photos, preprocess, bench.folder, held_out=16)
        decoding = count / (time.perf_counter() - began)
        files = TrainingData(cached.rows, Files(photos, Decoding(None, preprocess.interpolation, None)),
                             cached.eval_pixels)  # fmt: skip
        epoch, bare = _loops(name, bench.folder.parent / "photos", size, batch, numerics, device)
        epoch()  # starts the loader's processes
        bare()
        seen: dict[str, list[float]] = {"timm": [], "bare": []}

        def others(seen=seen, epoch=epoch, bare=bare) -> None:
            seen["timm"].append(epoch())
            seen["bare"].append(bare())

        seen["cached"] = _ens_epochs(bench, name, cached, preprocess, batch, rounds, numerics, others)
        seen["files"] = _ens_epochs(bench, name, files, preprocess, batch, rounds, numerics, lambda: None)
        flops = 3 * _flops(name, size)
        share = statistics.median(seen["bare"]) * flops
        of_sheet = f", {share / sheet / 1e12:.0%} of the data sheet's" if sheet else ""
        yield rates_row(f"{name}, ens, cached pixels", seen["cached"], bare=seen["bare"], timm=seen["timm"])
        yield rates_row(f"{name}, ens, decoding files", seen["files"], bare=seen["bare"], timm=seen["timm"])
        yield rates_row(f"{name}, timm's loader, {min(16, cores())} processes", seen["timm"], bare=seen["bare"])
        row = rates_row(f"{name}, forward and backward on a batch that lies there", seen["bare"])
        text = f"{row.result}; {share / 1e12:.0f} TFLOP/s, {share / peak:.0%} of what products reach{of_sheet}"
        yield Row(row.what, text, numbers={**row.numbers, "flops": flops})
        yield Row(f"{name}, filling the cache", f"{decoding:.0f} images/s" if name == names[0] else "was filled")


def _ens_epochs(
    bench: Bench, name: str, data: TrainingData, preprocess: Preprocess, batch: int, rounds: int, numerics: Numerics,
    between: Callable[[], None],
) -> list[float]:  # fmt: skip
    """Images/s of the epochs after the first of one fold, each followed by what goes `between`. The states that a fold
    resumes from, of a GB and more, are not written: they are no part of these rates."""
    number = len(list(bench.folder.glob("run*")))
    fold = Run(bench.folder / f"run{number}").member("net").fold(0)
    settings = Train(strategy="scratch", epochs=1 + rounds, batch_size=batch, lr=1e-5)  # diverges nowhere
    evaluation = Evaluation(preprocess, ("identity",), 64, bench.device)

    def create() -> torch.nn.Module:
        return timm.create_model(name, num_classes=len(CLASSES))

    def on_epoch(epoch: int) -> None:
        if epoch > 1:
            between()

    job = Job(fold, create, settings, numerics, None, evaluation, {"float32": 1.0}, 0)
    with patch.object(fit_module, "save_state", lambda path, state: None):
        fit_module.fit(job, data, Recorder(on_epoch=on_epoch))
    return [line["images_per_second"] for line in fold.read_log()[1:]]


def _loops(
    name: str, root: Path, size: int, batch: int, numerics: Numerics, device: torch.device
) -> tuple[Callable[[], float], Callable[[], float]]:
    """A function that trains for an epoch as timm's script does, and one that takes the network forward and backward on
    one batch again and again; both return images/s."""
    config = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    is_gpu = device.type == "cuda"
    loader = timm.data.create_loader(
        timm.data.create_dataset("", root=str(root), is_training=True), (3, size, size), batch, is_training=True,
        color_jitter=0.4, mean=config["mean"], std=config["std"], interpolation="random", device=device,
        use_prefetcher=is_gpu, pin_memory=is_gpu, num_workers=min(16, cores()) if is_gpu else 0,
        persistent_workers=is_gpu,
    )  # fmt: skip
    model = to_device(timm.create_model(name, num_classes=len(CLASSES)), device, numerics.memory_format).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.05, fused=True)
    loss_of = make_loss("cross_entropy", np.ones(len(CLASSES)), device, 0.1)
    weights = torch.ones(batch, device=device)

    def epoch() -> float:
        start, seen = time.perf_counter(), 0
        for images, labels in loader:
            images, labels = in_layout(images.to(device)), labels.to(device)
            gradients(model, images, [Target(labels, weights, loss_of)], 2**30, numerics)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            seen += len(images)
        synchronize(device)
        return seen / (time.perf_counter() - start)

    held = in_layout(torch.randn(batch, 3, size, size, device=device))
    target = Target(torch.arange(batch, device=device) % len(CLASSES), weights, loss_of)

    def bare() -> float:
        start, count = time.perf_counter(), 3 if device.type == "cpu" else 20
        for _ in range(count):
            gradients(model, held, [target], 2**30, numerics)
            optimizer.zero_grad(set_to_none=True)
        synchronize(device)
        return count * batch / (time.perf_counter() - start)

    return epoch, bare


def compiled(bench: Bench) -> Iterator[Row]:
    """What compiling gains in training, and how long it takes."""
    (name, *_), size, _, batch, _ = sizes(bench)
    plain = 0.0
    for is_compiled in (False, True):
        why = uncompiled(bench) if is_compiled else ""
        if why:
            yield skipped(f"{name}, compiled", why)
            return
        numerics = _numerics(bench.device, is_compiled)
        model = to_device(timm.create_model(name, num_classes=len(CLASSES)), bench.device, numerics.memory_format)
        if is_compiled:
            compile_anew(model)
        rate, first = _step_rate(model.train(), size, batch, numerics, bench.device)
        plain = plain or rate
        text = f"{rate:.0f} images/s, {rate / plain:.2f} times those uncompiled; the first step {first:.1f} s"
        yield Row(
            f"{name}, {'compiled' if is_compiled else 'uncompiled'}", text, numbers={"rate": rate, "first": first}
        )


def _step_rate(
    model: torch.nn.Module, size: int, batch: int, numerics: Numerics, device: torch.device
) -> tuple[float, float]:
    """Images/s of steps, and the seconds of the first one."""
    images = in_layout(torch.randn(batch, 3, size, size, device=device))
    loss_of = make_loss("cross_entropy", np.ones(len(CLASSES)), device, 0.1)
    target = Target(torch.arange(batch, device=device) % len(CLASSES), torch.ones(batch, device=device), loss_of)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    seconds = []
    for _ in range(12):
        start = time.perf_counter()
        gradients(model, images, [target], 2**30, numerics)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        synchronize(device)
        seconds.append(time.perf_counter() - start)
    return batch / statistics.median(seconds[2:]), seconds[0]


def _flops(name: str, size: int) -> float:
    """Of a forward pass of one image; a product and its sum are two."""
    timm.layers.set_fused_attn(False)  # products that are counted
    try:
        with torch.device("meta"):
            model = timm.create_model(name, num_classes=len(CLASSES)).eval()
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                model(torch.zeros(1, 3, size, size))
    finally:
        timm.layers.set_fused_attn(True)
    return float(counter.get_total_flops())


def _matmul_peak(device: torch.device, side: int) -> float:
    dtype = torch.bfloat16 if _numerics(device).dtype == "bfloat16" else torch.float32
    one, other = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    seconds = []
    for _ in range(10):
        start = time.perf_counter()
        one @ other
        synchronize(device)
        seconds.append(time.perf_counter() - start)
    return 2 * side**3 / min(seconds)


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


# ---- several jobs --------------------------------------------------------------------------------------------------


def packing(bench: Bench) -> Iterator[Row]:
    """Training steps of so many processes side by side on the GPU, images/s of all of them; and what ens takes."""
    cases = [("test_resnet", 32, 4)] if bench.is_dry else [("mobilenetv3_small_100", 128, 64), ("resnet50", 224, 64)]
    for name, size, batch in cases:
        create = functools.partial(timm_model.create, name, len(CLASSES), size)
        build = functools.partial(training_step, create, size, len(CLASSES), batch, _numerics(bench.device))
        counts = counts_to_try(2 if bench.is_dry else 8, cores())
        seen: dict[int, list[float]] = {}
        while not seen:
            try:
                seen = _together(build, batch, bench.device, counts, 1 if bench.is_dry else 3)
            except RunFailure as error:
                yield Row(f"{name}, {size} px, {counts[-1]} at once", str(error))
                if not counts[:-1]:
                    raise
                counts.pop()
        for count, rates in seen.items():
            yield rates_row(f"{name}, {size} px, {count} at once", rates, one=seen[1])

        def median(count: int, seen=seen) -> float:
            return statistics.median(seen[count])

        found, _ = find_packing(median, counts)
        yield Row(f"{name}, {size} px, taken", f"{found.jobs} at once")


def _together(build: Build, batch: int, device: torch.device, counts: list[int], rounds: int) -> dict[int, list[float]]:
    """Images/s of so many processes, by their number. Raises RunFailure where they don't fit into the memory."""
    seen: dict[int, list[float]] = {count: [] for count in counts}
    with timed_processes(build, batch, device) as together:
        together(counts[-1])  # starts them all
        for _ in range(rounds):
            for count, rates in seen.items():
                rates.append(together(count))
    return seen

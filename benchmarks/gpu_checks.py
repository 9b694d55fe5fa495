"""Sections of gpu.py: what ens computes on a GPU, against the same on the CPU. Inputs are small."""

import copy
import platform
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import torch
from gpu import Bench, Row, check, skipped
from gpu_data import CLASSES, NETWORKS, Recorder, tiny_data, tiny_job, uncompiled

from ensemble.backbones import timm_model
from ensemble.data.logits import load_logits
from ensemble.data.pixels.decode import Files
from ensemble.data.pixels.preprocess import Decoding
from ensemble.device import synchronize, to_device, without_tf32
from ensemble.inference.choose_format import choose_inference, find_speeds
from ensemble.inference.eval_model import EvalModel, fast_network, prepared
from ensemble.inference.formats import Inference, formats, inference_in
from ensemble.inference.geometry import Geometry
from ensemble.inference.predict import Group, batch_rows, forward_views
from ensemble.inference.views import cut, expand, is_wide
from ensemble.machine import cores
from ensemble.train import batches
from ensemble.train.augment.crops import crops as crops_on_cpu
from ensemble.train.augment.crops import gather
from ensemble.train.augment.mix import mix
from ensemble.train.augment.policy import Augmentation, draw, finish
from ensemble.train.fit import fit
from ensemble.train.heads import fit_heads
from ensemble.train.losses import make_loss
from ensemble.train.numerics import Numerics, in_memory_format
from ensemble.train.other_heads import CANDIDATES, fit_other_heads
from ensemble.train.rows import TrainingData
from ensemble.train.step import gradients, targets_of

CPU = torch.device("cpu")
EVERYTHING = Augmentation((0.2, 0.8), True, True, 25.0, 0.3, True, 0.5)
PLAIN = Numerics("float32", "contiguous", False, 2**30, 1.0)


def machine(bench: Bench) -> Iterator[Row]:
    versions = []
    for name in ("torch", "torchvision", "timm", "triton", "numpy"):
        try:
            versions.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            versions.append(f"no {name}")
    compiler = shutil.which("gcc") or shutil.which("cc") or shutil.which("clang")
    yield Row("versions", ", ".join([f"Python {platform.python_version()}", *versions]))
    yield Row("host", f"{cores()} cores, C compiler: {compiler or 'none, so that nothing is compiled'}")
    if bench.device.type == "cuda":
        found = torch.cuda.get_device_properties(bench.device)
        free, total = torch.cuda.mem_get_info(bench.device)
        text = (
            f"{torch.cuda.device_count()} x {found.name}, {total / 1e9:.0f} GB ({free / 1e9:.0f} free), "
            f"capability {found.major}.{found.minor}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
        )
        yield Row("GPU", text, numbers={"name": found.name, "bytes": total, "free": free})
    else:
        yield skipped("GPU", "this is a dry run on the CPU")


def steps(bench: Bench) -> Iterator[Row]:
    """Gradients of one batch, in training mode, beside those of the CPU in float32."""
    for name in NETWORKS:
        torch.manual_seed(0)
        model = timm_model.create(name, len(CLASSES), 32)
        images = torch.randn(8, 3, 32, 32)
        want, want_loss = _gradients(model, images, PLAIN, CPU)
        for numerics in _formats(bench):
            got, loss = _gradients(model, images, numerics, bench.device)
            off = float((got - want).norm() / want.norm())
            limit = 2e-3 if numerics.dtype == "float32" else 0.4
            text = f"gradients {off:.1e} off, of their norm; loss {loss:.4f}, on the CPU {want_loss:.4f}"
            yield check(f"{name}, {_words(numerics)}", text, off < limit, off=off, loss=loss)


def crops(bench: Bench) -> Iterator[Row]:
    """Crops gathered on the GPU, copied out of pinned memory, and all that follows them there."""
    data = tiny_data(bench.folder.parent, NETWORKS[0])
    pixels, size = data.train_pixels, 32
    rows = np.arange(24)
    draws = draw(np.random.default_rng(0), pixels.shapes[rows], size, EVERYTHING)
    want = crops_on_cpu(pixels, rows, draws, size)
    flat, starts = pixels.flat()
    held = [torch.from_numpy(array).to(bench.device) for array in (flat, starts[rows], pixels.shapes[rows])]
    got = gather(*held, draws, size)
    apart = (got.cpu().float() - want.float()).abs()
    text = f"mean {apart.mean():.2f} of 255, most {apart.max():.0f}"
    yield check("gathered there against cut on the CPU", text, bool(apart.mean() < 2), mean=float(apart.mean()))
    same = torch.equal(got.cpu(), gather(*(each.cpu() for each in held), draws, size))
    yield Row("gathered there against gathered on the CPU", "the same bytes" if same else "other bytes")
    if bench.device.type == "cuda":
        same = torch.equal(batches.cutter(pixels, bench.device, 2)(rows, draws, size), got)
        yield check("by the loop", "the same bytes" if same else "OTHER bytes", same)
    files = Files(data.rows.paths, Decoding(None, "bicubic", None))
    copied = batches.cutter(files, bench.device, 2)(rows, draws, size)
    same = torch.equal(copied.cpu(), batches.cutter(files, CPU, 2)(rows, draws, size))
    layout = copied.is_contiguous(memory_format=torch.channels_last)
    yield check("copied there out of pinned memory", "the same bytes" if same else "OTHER bytes", same and layout)

    def whole(batch: torch.Tensor) -> torch.Tensor:
        finished = finish(batch.clone(memory_format=torch.preserve_format), draws, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
        mixed, partner, share = mix(np.random.default_rng(1), finished, 0.2, 1.0)
        return torch.cat([mixed.flatten(), partner.float(), share]).cpu()

    off = float((whole(want.to(bench.device)) - whole(want)).abs().max())
    yield check("augmented, normalised and mixed", f"at most {off:.1e} off", off < 0.1, off=off)


def views(bench: Bench) -> Iterator[Row]:
    """All views, of bytes and of floats."""
    geometry = Geometry(24, 30, 32)
    names = [*expand(["d4", "ten-crop", "multi-scale"]), "rotate20", "scale0.8*rotate-20", "size40", "hflip*size40"]
    worst: dict[str, float] = {}
    for name in dict.fromkeys(names):
        side = geometry.at(40) if "size40" in name else geometry
        squares = torch.randint(0, 256, (3, 3, *[side.wide_size if is_wide(name) else side.decode_size] * 2))
        squares = squares.to(torch.uint8)
        for given in (squares, squares.float()):
            off = (cut(given.to(bench.device), name, geometry).cpu().float() - cut(given, name, geometry).float()).abs()
            worst[name] = max(worst.get(name, 0.0), float(off.max()))
    name = max(worst, key=worst.__getitem__)
    text = f"{len(worst)} views, at most {worst[name]:.2f} of 255 off ({name})"
    yield check("against the CPU", text, worst[name] < 1.5, **worst)


def networks(bench: Bench) -> Iterator[Row]:
    """Evaluation: in float32, in half precision, and whether an image's bits depend on its place in a batch."""
    device, count = bench.device, 320
    for name in _networks(bench):
        torch.manual_seed(0)
        model = timm_model.create(name, len(CLASSES), 32)
        for layer in timm_model.classifiers(model):
            torch.nn.init.normal_(layer.weight, std=0.5)
        pre = timm_model.preprocess_for(name, 32, None)
        noise = np.random.default_rng(0).integers(0, 256, (count, pre.decode_size, pre.decode_size, 3), dtype=np.uint8)
        squares, batch = torch.from_numpy(noise), batch_rows(64, device)

        def logits(eval_model: EvalModel, order: np.ndarray, pre=pre, squares=squares, batch=batch) -> np.ndarray:
            place = next(eval_model.exact.parameters()).device
            group = Group(pre, ("identity", "hflip"), (eval_model,))
            return forward_views(group, {pre.decoding: squares[order].to(place)}, batch, place)[0][0]

        every = np.arange(count)
        exact = prepared(model, Inference(device.type), 32, device)
        want = logits(prepared(model, Inference("cpu"), 32, CPU), every)
        got = logits(exact, every)
        off = float(np.abs(got - want).max() / np.abs(want).max())
        yield check(f"{name}, float32", f"logits {off:.1e} off the CPU's, of the largest", off < 1e-4, off=off)
        other = np.random.default_rng(1).permutation(count)
        moved = np.abs(logits(exact, other) - got[:, other]).max()
        text = "the same bits" if moved == 0 else f"{moved:.1e} off"
        yield check(f"{name}, other neighbours in the batch", text, bool(moved == 0), moved=float(moved))

        def create(name=name) -> torch.nn.Module:
            return timm_model.create(name, len(CLASSES), 32)

        speeds, _ = find_speeds(create, 32, batch, formats(device), device)
        labels = got[0].argmax(axis=1)
        for kind in formats(device)[1:]:
            inference = inference_in(kind, device)
            half = EvalModel(inference, exact.exact, fast_network(exact.exact, inference, 32))
            fast = logits(half, every)
            wanted = {kind: 2.0, "float32": 1.0}  # as if it were worth it
            chosen, _ = choose_inference(wanted, got, lambda _, fast=fast: fast, labels, device)
            changed = float((fast.argmax(-1) != got.argmax(-1)).mean())
            text = (
                f"{speeds.get(kind, 0) / speeds['float32']:.2f} times as fast; {changed:.2%} of the classes change; "
                f"taken: {chosen.format}, with {chosen.again:.1%} of the rows computed again"
            )
            is_near = float(np.abs(fast - got).max() / np.abs(got).max()) < 0.1
            yield check(f"{name}, {kind}", text, is_near and kind in speeds, changed=changed, speed=speeds.get(kind))


def probes(bench: Bench) -> Iterator[Row]:
    """Classifiers fitted on the same features on either side."""
    draw = np.random.default_rng(0)
    labels = np.arange(240) % 3
    values = draw.normal(size=(2, 240, 40)).astype(np.float32)
    values[:, :, :3] += 1.5 * np.eye(3, dtype=np.float32)[labels]
    folds, features = (np.arange(240) // 3 % 4).astype(np.int8), torch.from_numpy(values)
    one, other = (fit_heads(features.to(place), labels, folds, 3) for place in (CPU, bench.device))
    off = float((other.weights.cpu() - one.weights).abs().max() / one.weights.abs().max())
    same = one.strengths == other.strengths
    text = f"weights {off:.1e} off, of the largest; {'the same' if same else 'OTHER'} strengths chosen"
    yield check("linear", text, same and off < 0.02, off=off)
    for kind in CANDIDATES:
        here, there = (fit_other_heads(kind, features.to(place), labels, folds, 3) for place in (CPU, bench.device))
        with torch.inference_mode():
            want, got = here.heads[0](features[0]), there.heads[0](features[0].to(bench.device)).cpu()
        classes = float((want.argmax(1) != got.argmax(1)).float().mean())
        chosen = here.chosen == there.chosen
        text = f"{classes:.2%} of the classes differ; {'the same' if chosen else 'other'} settings chosen"
        yield check(kind, text, classes <= 0.02, classes=classes)


def training(bench: Bench) -> Iterator[Row]:
    """One fold by the whole loop, by its losses; and twice with one seed."""
    data = {name: tiny_data(bench.folder.parent, name) for name in _networks(bench)}
    for name in _networks(bench):
        want, _ = _fit(bench, name, data[name], PLAIN, CPU)
        for numerics in _formats(bench):
            losses, _ = _fit(bench, name, data[name], numerics, bench.device)
            off = max(abs(a / b - 1) for a, b in zip(losses, want, strict=True))
            text = f"losses {_list(losses)}; on the CPU {_list(want)}"
            yield check(f"{name}, {_words(numerics)}", text, off < 0.05, off=off)
    name, half = NETWORKS[0], _formats(bench)[-1]
    halved = replace(half, micro_batch=5)
    losses, _ = _fit(bench, name, data[name], halved, bench.device)
    off = max(abs(a / b - 1) for a, b in zip(losses, _fit(bench, name, data[name], half, bench.device)[0], strict=True))
    yield check("in parts of 5 images, whose gradients add up", f"losses at most {off:.1%} off", off < 0.05, off=off)
    for name in _networks(bench):
        one, other = (_fit(bench, name, data[name], half, bench.device)[1] for _ in range(2))
        off = float(np.abs(one - other).max())
        text = "the same bits" if off == 0 else f"logits at most {off:.1e} apart, of {np.abs(one).max():.1f}"
        yield Row(f"{name}, {_words(half)}, the same seed twice", text, numbers={"off": off})
    why = uncompiled(bench)
    if why:
        yield skipped("compiled", why)
        return
    compiled, began = replace(half, compile=True), time.monotonic()
    losses, _ = _fit(bench, NETWORKS[0], data[NETWORKS[0]], compiled, bench.device)
    seconds = time.monotonic() - began
    want, _ = _fit(bench, NETWORKS[0], data[NETWORKS[0]], half, bench.device)
    off = max(abs(a / b - 1) for a, b in zip(losses, want, strict=True))
    text = f"losses {_list(losses)}, uncompiled {_list(want)}; with compiling {seconds:.0f} s"
    yield check(f"{NETWORKS[0]}, compiled", text, off < 0.05, off=off, seconds=seconds)


def _fit(
    bench: Bench, name: str, data: TrainingData, numerics: Numerics, device: torch.device
) -> tuple[list[float], np.ndarray]:
    """The losses of the epochs, and the logits of the held-out rows (V, n, C)."""
    job = tiny_job(bench.folder, name, numerics, device)
    events = Recorder()
    fit(job, data, events)
    return [line["loss"] for line in job.fold.read_log()], load_logits(job.fold.oof_file).values


def _gradients(
    model: torch.nn.Module, images: torch.Tensor, numerics: Numerics, device: torch.device
) -> tuple[torch.Tensor, float]:
    placed = to_device(copy.deepcopy(model), device, numerics.memory_format).train()
    labels, weights = np.arange(len(images)) % len(CLASSES), np.ones(len(images), dtype=np.float32)
    row_losses = make_loss("cross_entropy", np.ones(len(CLASSES)), device, 0.1)
    targets = targets_of(labels, weights, row_losses, None, device)
    with without_tf32(device):
        loss = gradients(placed, in_memory_format(images.to(device), numerics), targets, 2**30, numerics)
    synchronize(device)
    return torch.cat([each.grad.cpu().flatten() for each in placed.parameters()]), float(loss)


def _networks(bench: Bench) -> tuple[str, ...]:
    return NETWORKS[:1] if bench.is_dry else NETWORKS


def _formats(bench: Bench) -> list[Numerics]:
    """Float32 in both layouts, and bfloat16 where the GPU has it."""
    plans = [replace(PLAIN, memory_format=layout) for layout in ("contiguous", "channels_last")]
    if bench.device.type == "cpu" or torch.cuda.is_bf16_supported(including_emulation=False):
        plans.append(replace(plans[1], dtype="bfloat16"))
    return plans


def _words(numerics: Numerics) -> str:
    return f"{numerics.dtype} {numerics.memory_format}"


def _list(values: list[float]) -> str:
    return ", ".join(f"{value:.3f}" for value in values)

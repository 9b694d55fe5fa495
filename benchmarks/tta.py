"""Prediction against the networks' own speed: python benchmarks/tta.py FOLDER [--part members|where|vmap|memory]

FOLDER holds JPEGs, at any depth. Networks have random weights, or with --models NAME=FILE those of a trained fold with
7 classes: random ones tell images apart worse, so that half precision computes more rows again. The limit is the
forward pass alone of batches that lie ready on the device, with the settings that ens found to be the fastest, as one
stream with all threads and as ens lays its batches side by side: the better of both. All sides in one run, alternating,
medians of the rounds [least, greatest], each round's ratio of its own. Processor-ms beside them, since wall clocks
stretch on a machine that is shared.

- speed: ens from files, exact and in half precision (with the rows that it computes again); ttach with a timm loader
  as its users write it; a plain loop over the same loader with the network as ens has it. With the start of the
  loader's workers: take enough images for that not to count.
- members: 3 members x 5 folds x 2 views against the sum of their limits.
- where: the steps of one prediction, each alone on one core, and the whole; in half precision nothing is done again.
- vmap: the 5 folds of a network one after the other against all at once (torch.func).
- memory: peak of a prediction of 10,000 and of 200,000 images (FOLDER's, over and over), each in its own process.
"""

import argparse
import contextlib
import copy
import functools
import importlib.util
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import timm
import torch
import torchvision
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from train import spread

from ensemble.backbones import timm_model
from ensemble.blend import Blend
from ensemble.blend.methods import Chain
from ensemble.blend.methods.mean import Mean
from ensemble.data.logits import write_logits
from ensemble.data.pixels.preprocess import Preprocess
from ensemble.data.submission.write import lay_out, write_submission
from ensemble.device import (
    choose_device,
    in_layout,
    keep_freed_memory,
    side_by_side,
    streams,
    synchronize,
    without_tf32,
)
from ensemble.inference.choose_format import REACH, _margin_error, margins
from ensemble.inference.decode import decoded_squares
from ensemble.inference.decodings import decodings
from ensemble.inference.eval_model import EvalModel, half_precision_copy, logits_of, prepared
from ensemble.inference.formats import DTYPES, Inference, formats
from ensemble.inference.member import LoadedMember
from ensemble.inference.network_input import view_of
from ensemble.inference.predict import Group, batch_rows, forward_views, predict_stream
from ensemble.inference.views import expand
from ensemble.predictions import shards
from ensemble.run.run import shards_dir
from ensemble.tta import chunks
from ensemble.tta.apply import blend_chunk
from ensemble.tta.predictor import Predictor

CPU = ("mobilenetv3_small_100", "resnet18")
CPU_MEMBERS = (*CPU, "mobilenetv2_050")
GPU = ("resnet50", "convnext_base", "vit_base_patch16_224")
TINY = "test_efficientnet"  # of timm's smallest, for what does not depend on the network
CLASSES = tuple("abcdefg")
FOLDS = 5
BATCH = 64  # what the config's default asks of a GPU, and the loader's
SAMPLE = 64  # images that a margin is measured on
READY = 4  # batches that are used over and over
TURNS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda images: images,
    "hflip": lambda images: images.flip(3),
    "vflip": lambda images: images.flip(2),
    "rot90": lambda images: torch.rot90(images, 1, (2, 3)),
    "rot180": lambda images: torch.rot90(images, 2, (2, 3)),
    "rot270": lambda images: torch.rot90(images, 3, (2, 3)),
    "transpose": lambda images: images.transpose(2, 3),
    "transverse": lambda images: torch.rot90(images, 2, (2, 3)).transpose(2, 3),
}
Clock = tuple[float, float]  # seconds on the wall, seconds of processors


def preprocess(name: str, size: int) -> Preprocess:
    return timm_model.preprocess_for(name.partition("=")[0], size, None)


def network(name: str, size: int, paths: Sequence[Path], seed: int = 0) -> torch.nn.Module:
    """name: NAME=FILE for weights that ens trained. Else random ones, and batch norms that do something: no scale is 0
    or 1, and their statistics are those of the first images, so that activations neither vanish nor burst on their way
    (denormal numbers would cost time). The classifier is scaled to logits of mean 0 and deviation 2 a class, or no
    format could tell the images apart."""
    torch.manual_seed(seed)
    name, _, weights = name.partition("=")
    model = timm_model.create(name, len(CLASSES), size)
    if weights:
        timm_model.fill(model, Path(weights))
        return model.eval()
    pre, cpu = preprocess(name, size), torch.device("cpu")
    squares = decoded_squares(paths[:16], [pre.decoding], cpu)[0]
    images = view_of(squares, pre, "identity", slice(None), 16)
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    for norm in norms:
        norm.momentum = 1.0
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
        torch.nn.init.normal_(norm.bias, std=0.1)
    with torch.no_grad():
        model.train(bool(norms))(images)
        logits = model.eval()(images)
        scale = 2 / logits.std(dim=0).clamp(min=1e-6)
        for layer in timm_model.classifiers(model):
            layer.weight.mul_(scale[:, None])
            layer.bias.sub_(logits.mean(dim=0)).mul_(scale)
    return model


def clock(work: Callable[[], object], device: torch.device) -> Clock:
    """Loader workers count once they have ended, so `work` has to end them."""
    start, before = time.perf_counter(), time.process_time() + sum(os.times()[2:4])
    work()
    synchronize(device)
    return time.perf_counter() - start, time.process_time() + sum(os.times()[2:4]) - before


def ready(dtype: str, size: int, device: torch.device) -> list[Tensor]:
    rows = batch_rows(BATCH, device)
    noise = (torch.randn(rows, 3, size, size, device=device) for _ in range(READY))
    return [in_layout(images).to(DTYPES[dtype]) for images in noise]


def arrangements(device: torch.device) -> list[str]:
    count = streams(device)
    return [f"{count} x 1 threads", f"1 x {torch.get_num_threads()} threads"][0 if count > 1 else 1 :]


def limit(eval_model: EvalModel, batches: Sequence[Tensor], images: int, device: torch.device) -> dict[str, float]:
    """Images/s of the forward pass alone in each arrangement, over `images` of them in all."""

    @torch.inference_mode()
    def work(index: int) -> None:
        logits_of(eval_model, batches[index % READY])

    def one_stream(count: int) -> None:
        for index in range(count):
            work(index)

    names = arrangements(device)
    count = max(2 * streams(device), images // len(names) // len(batches[0]))
    rates = {}
    for name in names:
        run = one_stream if name == names[-1] else lambda count: side_by_side(work, range(count), device)
        run(streams(device))
        rates[name] = count * len(batches[0]) / clock(functools.partial(run, count), device)[0]
    return rates


def best_limit(rounds: Sequence[Mapping[str, float]]) -> tuple[str, list[float]]:
    """The arrangement that is faster over all rounds, and its rate in each."""
    name = max(rounds[0], key=lambda own: statistics.median(rates[own] for rates in rounds))
    return name, [rates[name] for rates in rounds]


def mean_of(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    return {name: (before[name] + after[name]) / 2 for name in before}


def halved(
    eval_model: EvalModel,
    dtype: str,
    pre: Preprocess,
    views: Sequence[str],
    paths: Sequence[Path],
    device: torch.device,
) -> tuple[EvalModel, str]:
    """The network in half precision, with the margin under which ens would compute its rows again; and what that is."""
    fast = EvalModel(Inference(device.type, dtype), eval_model.exact, half_precision_copy(eval_model.exact, dtype))
    squares = decoded_squares(paths[:SAMPLE], decodings(pre, views), device)[0]
    placed = {how: own.to(device) for how, own in squares.items()}
    exact, own = forward_views(Group(pre, tuple(views), (eval_model, fast)), placed, batch_rows(BATCH, device), device)
    settle = REACH * _margin_error(own, exact)
    again = margins(own) < settle
    changed = (np.where(again[..., None], exact, own).argmax(-1) != exact.argmax(-1)).mean()
    said = f"margin {settle:.2g}, {again.mean():.1%} of {again.size} rows again, {changed:.2%} change their class"
    return EvalModel(Inference(device.type, dtype, settle), fast.exact, fast.fast), said


def chunk_rows(members: Sequence[LoadedMember], batch: int, device: torch.device) -> int:
    networks = sum(len(member.eval_models) for member in members)
    return chunks.chunk_rows([member.preprocess for member in members], networks, batch, device.type)


def ens(
    members: Sequence[LoadedMember], paths: Sequence[Path], views: Sequence[str], device: torch.device
) -> np.ndarray:
    """Mean logits float32 (N, C) over members, folds and views."""
    rows = chunk_rows(members, BATCH, device)
    chunks = [paths[start : start + rows] for start in range(0, len(paths), rows)]
    stream = predict_stream(members, chunks, [views] * len(members), BATCH, device)
    return np.concatenate([np.mean([own.mean(axis=(0, 1)) for own in chunk.values], axis=0) for chunk in stream])


@torch.inference_mode()
def loop(name: str, root: Path, size: int, merged: Callable[[Tensor], Tensor], device: torch.device) -> np.ndarray:
    """What `merged` makes of each batch of timm's loader, as timm's validation script makes it."""
    config = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name.partition("=")[0]).to_dict())
    gpu = device.type == "cuda"
    loader = timm.data.create_loader(
        timm.data.create_dataset("", root=str(root)), (3, size, size), BATCH, mean=config["mean"], std=config["std"],
        interpolation=config["interpolation"], crop_pct=config["crop_pct"], device=device, use_prefetcher=gpu,
        num_workers=min(8, os.cpu_count() or 1) if gpu else 2, persistent_workers=False,
    )  # fmt: skip
    return np.concatenate([merged(images.to(device)).cpu().numpy() for images, _ in loader])


def ttach_of(model: torch.nn.Module, kind: str) -> tuple[str, Callable[[Tensor], Tensor]]:
    """The views of the set `kind`, merged by ttach if it is installed, else by the loop that it runs."""
    if importlib.util.find_spec("ttach"):
        import ttach

        second = ttach.Rotate90([0, 90, 180, 270]) if kind == "d4" else ttach.VerticalFlip()
        both = ttach.Compose([ttach.HorizontalFlip(), second])
        return "ttach, timm loader", ttach.ClassificationTTAWrapper(model, both)
    return "as ttach does it, timm loader", functools.partial(plain, model, expand([kind]))


def plain(model: Callable[[Tensor], Tensor], views: Sequence[str], images: Tensor) -> Tensor:
    return sum(model(TURNS[view](images)) for view in views) / len(views)  # type: ignore[return-value]


def speed(paths: Sequence[Path], root: Path, models: Sequence[str], size: int, kind: str, rounds: int) -> None:
    device = choose_device()
    views = expand([kind])
    passes = len(views) * len(paths)
    print(f"{len(paths)} images, {len(views)} views, {size} px\n")
    for name in models:
        model = network(name, size, paths)
        pre = preprocess(name, size)
        eval_models = {"float32": prepared(model, Inference(device.type), size, device)}
        half, said = formats(device)[-1], "no units for half precision"
        if half != "float32":
            eval_models[half], said = halved(eval_models["float32"], half, pre, views, paths, device)
        batches = {dtype: ready(dtype, size, device) for dtype in eval_models}
        eager = copy.deepcopy(model).to(device)
        users, wrapper = ttach_of(eager, kind)
        exact = eval_models["float32"]
        merged = functools.partial(plain, lambda images, own=exact: logits_of(own, in_layout(images))[0], views)
        sides = {f"ens, {dtype}": (dtype, own) for dtype, own in eval_models.items()}
        if half != "float32":
            sides[f"ens, {half}, none again"] = (
                half,
                replace(eval_models[half], inference=Inference(device.type, half)),
            )
        work: dict[str, Callable[[], object]] = {
            side: functools.partial(ens, [LoadedMember(name, pre, (own,))], paths, views, device)
            for side, (_, own) in sides.items()
        }
        work[users] = functools.partial(loop, name, root, size, wrapper, device)
        work["plain loop, ens's network"] = functools.partial(loop, name, root, size, merged, device)
        with torch.inference_mode():
            wrapper(torch.randn(BATCH, 3, size, size, device=device))
            merged(torch.randn(BATCH, 3, size, size, device=device))
        for own in eval_models.values():
            ens([LoadedMember(name, pre, (own,))], paths[:BATCH], views, device)

        clocks: dict[str, list[Clock]] = {side: [] for side in work}
        limits: dict[str, list[dict[str, float]]] = {dtype: [] for dtype in eval_models}
        decoding: list[Clock] = []
        for _ in range(rounds):
            for dtype, own in eval_models.items():
                before = limit(own, batches[dtype], passes // 2, device)
                for side in (side for side, (format_, _) in sides.items() if format_ == dtype):
                    clocks[side].append(clock(work[side], device))
                limits[dtype].append(mean_of(before, limit(own, batches[dtype], passes // 2, device)))
            for side in list(work)[len(sides) :]:
                clocks[side].append(clock(work[side], device))
            decoding.append(clock(functools.partial(decoded_squares, paths, decodings(pre, views), device), device))

        best = {dtype: best_limit(rates) for dtype, rates in limits.items()}
        print(f"| {name} | images/s | of its limit | {users} = 1 | processor-ms an image |\n|---|---|---|---|---|")
        for dtype, (_, fastest) in best.items():
            for how in arrangements(device):
                rates = [turn[how] for turn in limits[dtype]]
                share = [a / b for a, b in zip(rates, fastest, strict=True)]
                print(f"| forward alone, {dtype}, {how} | {spread([rate / len(views) for rate in rates])} "
                      f"| {spread(share)} | | |")  # fmt: skip
        for side, seen in clocks.items():
            rates = best[sides[side][0] if side in sides else "float32"][1]
            share = [passes / wall / rate for (wall, _), rate in zip(seen, rates, strict=True)]
            gain = [other / wall for (wall, _), (other, _) in zip(seen, clocks[users], strict=True)]
            print(f"| {side} | {spread([len(paths) / wall for wall, _ in seen])} | {spread(share)} | {spread(gain)} "
                  f"| {spread([1000 * cpu / len(paths) for _, cpu in seen])} |", flush=True)  # fmt: skip
        print(f"\n{half}: {said}")
        decode = 1000 * statistics.median(wall for wall, _ in decoding) / len(paths)
        for dtype, (_, rates) in best.items():
            print(f"On paper, {dtype}: {on_paper(decode, 1000 * len(views) / statistics.median(rates), pre, device)}")
        print(flush=True)


def on_paper(decode: float, forward: float, pre: Preprocess, device: torch.device) -> str:
    """What bounds the speed. decode: ms an image on all cores. forward: ms an image of the limit."""
    said = f"decode {decode:.2f} ms, forward {forward:.2f} ms an image"
    if device.type == "cpu":
        bound = "model" if forward > decode else "decoder"
        return f"{said}, on the same cores: {forward / (forward + decode):.3f} of the limit; bound by the {bound}"
    squares = torch.zeros(64, pre.decode_size, pre.decode_size, 3, dtype=torch.uint8, pin_memory=device.type == "cuda")
    squares.to(device)
    bus = 1000 * min(clock(lambda: squares.to(device), device)[0] for _ in range(5)) / len(squares)
    times = {"model": forward, "decoder": decode, "bus": bus}
    bound = max(times, key=times.__getitem__)
    return f"{said}, bus {bus:.3f} ms, side by side: {forward / times[bound]:.3f} of the limit; bound by the {bound}"


def members(paths: Sequence[Path], models: Sequence[str], size: int, rounds: int) -> None:
    device = choose_device()
    views = ("identity", "hflip")
    passes = FOLDS * len(views) * len(paths)
    pres = {name: preprocess(name, size) for name in models}
    plan = {
        "float32": {
            name: [
                prepared(network(name, size, paths, fold), Inference(device.type), size, device)
                for fold in range(FOLDS)
            ]
            for name in models
        }
    }
    half = formats(device)[-1]
    if half != "float32":
        both = {
            name: [halved(own, half, pres[name], views, paths, device) for own in eval_models]
            for name, eval_models in plan["float32"].items()
        }
        plan[half] = {name: [own for own, _ in found] for name, found in both.items()}
        for name, found in both.items():
            print(f"{name}, {half}, fold 0: {found[0][1]}")
    print(f"\n{len(paths)} images, {len(models)} members x {FOLDS} folds x {len(views)} views, {size} px\n")
    print("| format | ens, s | sum of the limits, s | sum / ens | processor-ms an image |\n|---|---|---|---|---|")
    clocks: dict[str, list[Clock]] = {dtype: [] for dtype in plan}
    for eval_models in plan.values():
        ens(
            [LoadedMember(name, pres[name], tuple(own)) for name, own in eval_models.items()],
            paths[:BATCH],
            views,
            device,
        )
    rates: dict[str, dict[str, list[dict[str, float]]]] = {dtype: {name: [] for name in models} for dtype in plan}
    for _ in range(rounds):
        for dtype, eval_models in plan.items():
            own = [LoadedMember(name, pres[name], tuple(nets)) for name, nets in eval_models.items()]
            batches = ready(dtype, size, device)
            before = [limit(eval_models[name][0], batches, passes // 2, device) for name in models]
            clocks[dtype].append(clock(functools.partial(ens, own, paths, views, device), device))
            for name, first in zip(models, before, strict=True):
                rates[dtype][name].append(mean_of(first, limit(eval_models[name][0], batches, passes // 2, device)))
    for dtype in plan:
        each = [best_limit(rates[dtype][name])[1] for name in models]
        sums = [sum(passes / rate for rate in turn) for turn in zip(*each, strict=True)]
        walls = [wall for wall, _ in clocks[dtype]]
        print(f"| {dtype} | {spread(walls)} | {spread(sums)} "
              f"| {spread([a / b for a, b in zip(sums, walls, strict=True)])} "
              f"| {spread([1000 * cpu / len(paths) for _, cpu in clocks[dtype]])} |", flush=True)  # fmt: skip


def mean_blend(names: Sequence[str], views: Sequence[str]) -> Blend:
    weights = (1 / len(views),) * len(views)
    every = (tuple(views),) * len(names)
    return Blend("mean", "log_loss", tuple(names), every, CLASSES, (weights,) * len(names), Chain("mean", Mean()))


def where(paths: Sequence[Path], models: Sequence[str], size: int, rounds: int, folder: Path) -> None:
    """On a GPU, copy, views, forward and the whole are ms of the clock; what the host does is ms of one core."""
    device = choose_device()
    torch.set_num_threads(1)
    half = formats(device)[-1]
    print(f"{len(paths)} images, {size} px, ms an image; whole: as tta-predict makes it, shards and all\n")
    print("| network | views | decode | copy | views | forward | blend, write | sum | whole | forward's share |")
    print("|---" * 10 + "|")
    for name in models:
        pre = preprocess(name, size)
        eval_models = {"float32": prepared(network(name, size, paths), Inference(device.type), size, device)}
        if half != "float32":  # nothing is computed again, so that the steps make the whole
            exact = eval_models["float32"].exact
            eval_models[half] = EvalModel(Inference(device.type, half), exact, half_precision_copy(exact, half))
        for dtype, own in eval_models.items():
            for views in (("identity",), ("identity", "hflip"), expand(["d4"])):
                steps = steps_of(LoadedMember(name, pre, (own,)), dtype, views, paths, folder, device)
                seen: dict[str, list[float]] = {step: [] for step in steps}
                for turn in range(rounds + 1):
                    for step, work in steps.items():
                        wall, cpu = clock(work, device)
                        on_host = device.type == "cpu" or step in ("decode", "write")
                        if turn:  # the first one warms up
                            seen[step].append(1000 * (cpu if on_host else wall) / len(paths))
                *parts, _ = (statistics.median(values) for values in seen.values())
                share = [a / b for a, b in zip(seen["forward"], seen["whole"], strict=True)]
                cells = " | ".join(f"{cell:.3f}" for cell in [*parts, sum(parts)])
                whole = spread(seen["whole"])
                print(f"| {name}, {dtype} | {len(views)} | {cells} | {whole} | {spread(share)} |", flush=True)


def steps_of(
    member: LoadedMember, dtype: str, views: tuple[str, ...], paths: Sequence[Path], folder: Path, device: torch.device
) -> dict[str, Callable[[], object]]:
    """Each step of a prediction of all paths, alone, and the whole of it last. member: of one fold."""
    pre, own = member.preprocess, member.eval_models[0]
    hows = decodings(pre, views)
    batch = batch_rows(BATCH, device)
    batches = ready(dtype, pre.image_size, device)
    squares = decoded_squares(paths, hows, device)[0]
    placed = {how: pixels.to(device) for how, pixels in squares.items()}
    rows = [slice(start, min(start + batch, len(paths))) for start in range(0, len(paths), batch)]
    blend = mean_blend([member.name], views)
    chunk = next(predict_stream([member], [paths], [views], BATCH, device))
    part = shards.PredictionShard(folder / "one.safetensors", 0, len(paths))
    ids = [f"{row:07}" for row in range(len(paths))]

    @torch.inference_mode()
    def cut() -> None:
        for some in rows:
            for view in views:
                view_of(placed, pre, view, some, batch).to(DTYPES[dtype])

    @torch.inference_mode()
    def forward() -> None:
        for index in range(len(views) * len(rows)):
            logits_of(own, batches[index % READY])

    return {
        "decode": lambda: decoded_squares(paths, hows, device),
        "copy": lambda: [pixels.to(device) for pixels in squares.values()],
        "cut": cut,
        "forward": forward,
        "write": lambda: shards.write(part, blend_chunk(blend, chunk.values, {}, [], len(part)), {}),
        "whole": lambda: predicted(Predictor(blend, (member,), (views,), 1, BATCH, device), ids, paths, folder / "all"),
    }


def predicted(predictor: Predictor, ids: Sequence[str], paths: Sequence[Path], folder: Path) -> None:
    """All of tta-predict that comes after the reading of a run: shards, then both files."""
    shutil.rmtree(folder, ignore_errors=True)
    saved, classes = folder / "test-mean.safetensors", predictor.blend.classes
    size = chunk_rows(predictor.members, predictor.batch_size, predictor.device)
    parts = shards.divide(shards_dir(saved), "", ids, paths, size, lambda *_: [])
    chunks = [paths[part.start : part.stop] for part in parts]
    stream = predict_stream(predictor.members, chunks, predictor.views, predictor.batch_size, predictor.device)
    for part, chunk in zip(parts, stream, strict=True):
        shards.write(part, blend_chunk(predictor.blend, chunk.values, {}, [], len(part)), {})
    logs = (np.log(np.maximum(shards.read(part), np.finfo(np.float32).tiny)) for part in parts)
    write_logits(saved, ids, ("blend",), classes, (1, len(ids), len(classes)), logs, {})
    write_submission(folder / "submission.csv", lay_out(classes), ids, map(shards.read, parts))
    shards.remove(shards_dir(saved))


def vmap(paths: Sequence[Path], models: Sequence[str], size: int, rounds: int) -> None:
    """Both in one stream with all threads; and in sequence with the batches side by side, as ens lays them."""
    device = choose_device()
    count = max(4, len(paths) // 16)
    print(f"{FOLDS} networks, batches of 16, {size} px; images/s through all of them, and the ratio of the stacked\n")
    print("| network | in sequence | stacked | as ens | to in sequence | to ens |\n" + "|---" * 6 + "|")
    for name in models:
        made = [network(name, size, paths, fold) for fold in range(FOLDS)]
        eval_models = [prepared(own, Inference(device.type), size, device) for own in made]
        for dtype in dict.fromkeys(("float32", formats(device)[-1])):
            nets = [own.exact if dtype == "float32" else half_precision_copy(own.exact, dtype) for own in eval_models]
            try:
                sides = stacking(nets, dtype, size, count, device)
            except (RuntimeError, NotImplementedError) as error:
                print(f"| {name}, {dtype} | cannot be stacked: {str(error).splitlines()[0][:80]} | | | | |", flush=True)
                continue
            rates: dict[str, list[float]] = {side: [] for side in sides}
            for turn in range(rounds + 1):
                for side, work in sides.items():
                    wall, _ = clock(work, device)
                    if turn:  # the first one warms up
                        rates[side].append(16 * count / wall)
            ratios = [
                [a / b for a, b in zip(rates["stacked"], rates[side], strict=True)] for side in ("sequence", "ens")
            ]
            cells = " | ".join(spread(values) for values in [*rates.values(), *ratios])
            print(f"| {name}, {dtype} | {cells} |", flush=True)


def stacking(
    nets: Sequence[torch.nn.Module], dtype: str, size: int, count: int, device: torch.device
) -> dict[str, Callable[[], object]]:
    """`count` batches in each way. Raises RuntimeError if the networks can't be stacked, or answer something else."""
    batches = [in_layout(torch.randn(16, 3, size, size, device=device)).to(DTYPES[dtype]) for _ in range(READY)]
    state = torch.func.stack_module_state(list(nets))
    together = torch.vmap(
        lambda parameters, buffers, images: torch.func.functional_call(nets[0], (parameters, buffers), (images,)),
        in_dims=(0, 0, None),
    )

    @torch.inference_mode()
    def sequence(index: int) -> Tensor:
        return torch.stack([timm_model.logits(net, batches[index % READY]) for net in nets])

    @torch.inference_mode()
    def stacked(index: int) -> Tensor:
        with without_tf32(device):
            return together(*state, batches[index % READY])  # type: ignore[no-any-return]

    one, other = sequence(0), stacked(0)
    if dtype == "float32" and (one - other).abs().max() > 1e-3 * one.abs().max():
        raise RuntimeError(f"other logits, by {float((one - other).abs().max()):.2g}")
    return {
        "sequence": lambda: [sequence(index) for index in range(count)],
        "stacked": lambda: [stacked(index) for index in range(count)],
        "ens": lambda: side_by_side(sequence, range(count), device),
    }


def memory(source: Path, models: Sequence[str], size: int, counts: Sequence[int]) -> None:
    print(f"{size} px, shards as ens makes them\n")
    print("| network | images | models loaded, MB | peak, MB | peak above, MB | images/s |\n" + "|---" * 6 + "|")
    for name in models:
        above = []
        for count in counts:
            given = [str(source), "--part", "child", "--models", name, "--size", str(size), "--images", str(count)]
            out = subprocess.run([sys.executable, __file__, *given], capture_output=True, text=True)
            if out.returncode:
                raise SystemExit(out.stderr)
            loaded, peak, seconds = (float(word) for word in out.stdout.split()[-3:])
            above.append(peak - loaded)
            print(f"| {name} | {count:,} | {loaded:.1f} | {peak:.1f} | {above[-1]:.1f} | {count / seconds:.1f} |",
                  flush=True)  # fmt: skip
        print(f"\n{name}: {above[-1] - above[0]:+.1f} MB from the first to the last\n")


def child(paths: Sequence[Path], name: str, size: int, folder: Path) -> None:
    """Resident MB after the models were loaded, their peak from then on, and seconds."""
    device = choose_device()
    views = ("identity", "hflip")
    ids = [f"{row:07}" for row in range(len(paths))]
    # not `network`, whose pass in training would leave behind memory that the C library keeps
    model = timm_model.create(name, len(CLASSES), size)
    member = LoadedMember(name, preprocess(name, size), (prepared(model, Inference(device.type), size, device),))
    predictor = Predictor(mean_blend([name], views), (member,), (views,), 1, BATCH, device)
    # the peak so far is of the libraries' start; where the kernel does not let it be forgotten, it counts
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    loaded = resident("VmRSS")
    seconds, _ = clock(lambda: predicted(predictor, ids, paths, folder / "all"), device)
    print(loaded, resident("VmHWM"), seconds)


def resident(key: str) -> float:
    """MB of this process's memory: VmRSS now, VmHWM at its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024 / 1e6


def files_of(source: Path, images: int) -> list[Path]:
    """`images` of the folder's JPEGs in a fixed order, over and over if there are fewer."""
    every = sorted(path for path in source.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    if not every:
        raise SystemExit(f"{source}: holds no JPEGs")
    order = np.random.default_rng(0).permutation(len(every))
    return [every[order[row % len(every)]] for row in range(images)]


def copied(paths: Sequence[Path], folder: Path) -> list[Path]:
    """The files in one class folder, as a timm loader wants them; it reads them in this order."""
    (folder / "every").mkdir(parents=True)
    return [Path(shutil.copy(path, folder / "every" / f"{row:07}.jpg")) for row, path in enumerate(paths)]


def facts(device: torch.device) -> str:
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "no GPU"
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    chip = next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.processor())
    known = importlib.util.find_spec("ttach") is not None
    return (
        f"{os.cpu_count()} cores of {chip} ({torch.backends.cpu.get_cpu_capability()}), {where}; load "
        f"{os.getloadavg()[0]:.2f}; formats {', '.join(formats(device))}; Python {platform.python_version()}, torch "
        f"{torch.__version__}, torchvision {torchvision.__version__}, timm {timm.__version__}, "
        f"{'ttach ' + version('ttach') if known else 'ttach is not installed: its loop stands in for it'}\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--part", choices=["speed", "members", "where", "vmap", "memory", "child"], default="speed")
    parser.add_argument("--models", nargs="+", help="timm names, or NAME=model.safetensors")
    parser.add_argument("--images", type=int, help="512; on a CPU 64 for members, where and vmap")
    parser.add_argument("--size", type=int, help="side of the networks' input, 224; 64 for memory")
    parser.add_argument("--views", choices=["d4", "flips"], default="d4", help="of the part speed")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--counts", type=int, nargs="+", default=[10_000, 200_000], help="images, for memory")
    given = parser.parse_args()
    keep_freed_memory()
    device = choose_device()
    gpu, part, source = device.type == "cuda", given.part, given.folder.resolve()
    if part != "child":
        print(facts(device), flush=True)
    usual = [TINY] if part == "memory" else GPU if gpu else CPU_MEMBERS if part == "members" else CPU
    models = given.models or list(usual)
    size = given.size or (64 if part == "memory" else 224)
    images = given.images or (512 if gpu or part == "speed" else 64)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if part == "speed":
            paths = copied(files_of(source, images), folder / "files")
            speed(paths, folder / "files", models, size, given.views, given.rounds)
        elif part == "members":
            members(files_of(source, images), models, size, given.rounds)
        elif part == "where":
            where(files_of(source, images), models, size, given.rounds, folder)
        elif part == "vmap":
            vmap(files_of(source, images), models, size, given.rounds)
        elif part == "memory":
            memory(source, models, size, given.counts)
        else:
            child(files_of(source, images), models[0], size, folder)


if __name__ == "__main__":
    main()

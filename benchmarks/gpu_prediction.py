"""A section of gpu.py: images per second of prediction, beside the bare forward passes."""

import functools
import importlib.util
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import timm
import torch
from gpu import Bench, Row
from gpu_rates import photos_of, rates_row, sizes
from tta import halved, network, plain, ready

from ensemble.backbones import timm_model
from ensemble.data.pixels.preprocess import Preprocess
from ensemble.device import in_layout, synchronize, to_device
from ensemble.inference.eval_model import EvalModel, logits_of, prepared
from ensemble.inference.formats import Inference, formats
from ensemble.inference.member import LoadedMember
from ensemble.inference.predict import predict_stream
from ensemble.machine import cores

VIEWS = ("identity", "hflip")


def prediction_speed(bench: Bench) -> Iterator[Row]:
    """Two views from files: ens in float32 and in half precision, and the loop of ttach over timm's loader, as PyTorch
    computes by default (TF32) and in half precision; beside the bare forward passes."""
    names, size, _, batch, rounds = sizes(bench)
    device, count = bench.device, 32 if bench.is_dry else 512
    photos = photos_of(bench, count)[:count]
    for name in names:
        model, pre = network(name, size, photos), timm_model.preprocess_for(name, size, None)
        exact = prepared(model, Inference(device.type), size, device)
        kinds = {"float32": exact}
        for half in formats(device)[1:2]:  # the first one that ens tries
            kinds[half], _ = halved(exact, half, pre, VIEWS, photos, device)
        users, wrapped = _ttach(to_device(model, device))
        loader = _loader(name, photos, pre, batch, device)
        work: dict[str, Callable[[], object]] = {}
        for kind, each in kinds.items():
            member = LoadedMember(name, pre, (each,))
            work[f"ens, {kind}"] = functools.partial(_predict, member, photos, device)
            work[f"{users}, {kind}"] = functools.partial(_over, loader, wrapped, kind, device)
            work[f"forward alone, {kind}"] = functools.partial(_forward, each, kind, size, device, count * len(VIEWS))
        seen: dict[str, list[float]] = {side: [] for side in work}
        for turn in range(rounds + 1):  # the first one starts processes and allocates
            for side, run in work.items():
                start = time.perf_counter()
                run()
                synchronize(device)
                if turn:
                    seen[side].append(count / (time.perf_counter() - start))
        for kind in kinds:
            bare, theirs = seen[f"forward alone, {kind}"], seen[f"{users}, {kind}"]
            yield rates_row(f"{name}, ens, {kind}", seen[f"ens, {kind}"], bare=bare, ttach=theirs)
            yield rates_row(f"{name}, {users}, {kind}", theirs)
            yield rates_row(f"{name}, forward alone, {kind}", bare)


def _predict(member: LoadedMember, photos: list[Path], device: torch.device) -> None:
    """As `ens tta-predict` does, in pieces so small that the next one is decoded meanwhile, as with many images."""
    chunks = [photos[start : start + 128] for start in range(0, len(photos), 128)]
    for _ in predict_stream([member], chunks, [VIEWS], 64, device):
        pass


def _ttach(model: torch.nn.Module) -> tuple[str, Callable[[torch.Tensor], torch.Tensor]]:
    if importlib.util.find_spec("ttach"):
        import ttach

        return "ttach", ttach.ClassificationTTAWrapper(model, ttach.Compose([ttach.HorizontalFlip()]))
    return "by hand as ttach does it", functools.partial(plain, model, VIEWS)


def _loader(
    name: str, photos: list[Path], pre: Preprocess, batch: int, device: torch.device
) -> torch.utils.data.DataLoader:
    config = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    is_gpu = device.type == "cuda"
    dataset = timm.data.create_dataset("", root=str(photos[0].parents[1]))
    loader = timm.data.create_loader(
        dataset, (3, pre.image_size, pre.image_size), batch, mean=config["mean"], std=config["std"],
        interpolation=config["interpolation"], crop_pct=config["crop_pct"], device=device, use_prefetcher=is_gpu,
        pin_memory=is_gpu, num_workers=min(16, cores()) if is_gpu else 0, persistent_workers=is_gpu,
    )  # fmt: skip
    dataset.reader.samples = dataset.reader.samples[: len(photos)]
    return loader


@torch.inference_mode()
def _over(
    loader: torch.utils.data.DataLoader,
    wrapped: Callable[[torch.Tensor], torch.Tensor],
    kind: str,
    device: torch.device,
) -> None:
    half = {"float16": torch.float16, "bfloat16": torch.bfloat16}.get(kind)
    with torch.autocast(device.type, half or torch.bfloat16, enabled=half is not None):
        for images, _ in loader:
            wrapped(in_layout(images.to(device))).cpu()


@torch.inference_mode()
def _forward(each: EvalModel, kind: str, size: int, device: torch.device, passes: int) -> None:
    batches = ready(kind, size, device)
    for index in range(-(-passes // len(batches[0]))):
        logits_of(each, batches[index % len(batches)])

"""One job: one backbone on one fold, from fresh weights to its out-of-fold logits. The whole loop is here."""

import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file

from ensemble import rundir
from ensemble.backbones import moving_average, parameter_groups, train_mode
from ensemble.config import Train
from ensemble.data.pixels import Pixels, Preprocess
from ensemble.device import autocast, in_layout, to_device
from ensemble.errors import RunFailure
from ensemble.logits import Logits
from ensemble.train.augment import color_factors, color_jitter, random_crops
from ensemble.tta.predict import forward_views, normalise

Report = Callable[[str, float, int, int], None]  # where it is, mean loss, images since the last call, images left


def job_seed(seed: int, *parts: str | int) -> int:
    """A seed of its own for each (run seed, member, fold, epoch), so that no job depends on what ran before it."""
    return int.from_bytes(hashlib.sha256(repr((seed, *parts)).encode()).digest()[:7])


def learning_rate(step: float, steps: int, warmup: float, peak: float) -> float:
    """Linear warm-up over `warmup` steps, then half a cosine down to 0 at `steps` (Loshchilov and Hutter 2017)."""
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1.0, steps - warmup)))


def fit(
    directory: Path,
    member: str,
    fold: int,
    create: Callable[[], torch.nn.Module],
    preprocess: Preprocess,
    pixels: Pixels,
    ids: np.ndarray,
    labels: np.ndarray,
    folds: np.ndarray,
    classes: tuple[str, ...],
    settings: Train,
    views: tuple[str, ...],
    eval_batch: int,
    seed: int,
    device: torch.device,
    report: Report,
) -> float:
    """Train on the rows of the other folds, evaluate once on this fold's, and write weights, logits and done marker.
    Returns the seconds that the epochs took.

    ids (N,), labels int64 (N,), folds int8 (N,) and pixels are of the same N rows. A row of fold -1 is trained on in
    every fold. Goes on from the last whole epoch if `directory` holds one. The last epoch's (averaged) weights are
    kept: the held-out rows choose nothing. The log's lr is that of the epoch's last step. Raises RunFailure on a loss
    that is not finite.
    """
    torch.manual_seed(job_seed(seed, member, fold))
    model = to_device(create(), device)
    train_rows = np.flatnonzero(folds != fold)
    batch_size = min(settings.batch_size, len(train_rows))
    steps = len(train_rows) // batch_size
    optimizer = torch.optim.AdamW(parameter_groups(model, settings.weight_decay), lr=settings.lr)
    average = moving_average(model, settings.ema) if settings.ema else None
    log = _load_state(rundir.state_file(directory), model, average, optimizer)
    if not log:
        rundir.write_text(rundir.log_file(directory), "")  # from here on the run's settings are settled (`is_begun`)

    for epoch in range(len(log), settings.epochs):
        started = time.monotonic()
        torch.manual_seed(job_seed(seed, member, fold, epoch))  # dropout and stochastic depth
        rng = np.random.default_rng(job_seed(seed, member, fold, epoch))
        order = rng.permutation(train_rows)[: steps * batch_size].reshape(steps, batch_size)
        train_mode(model)
        total = torch.zeros((), device=device)
        for step, (crops, factors, rows) in enumerate(_batches(rng, pixels, order, preprocess.image_size, settings)):
            rate = learning_rate(
                epoch * steps + step, settings.epochs * steps, settings.warmup_epochs * steps, settings.lr
            )
            for group in optimizer.param_groups:
                group["lr"] = rate
            images = crops.to(device, non_blocking=True).float() / 255
            images = in_layout(normalise(color_jitter(images, factors.to(device)) * 255, preprocess))
            target = torch.from_numpy(labels[rows]).to(device)
            with autocast(device):
                loss = F.cross_entropy(model(images), target, label_smoothing=settings.label_smoothing)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if average is not None:
                average.update(model, step=epoch * steps + step)
            total += loss.detach()
            if step % 8 == 7 or step == steps - 1:  # reading the loss makes a GPU wait
                left = ((settings.epochs - epoch) * steps - step - 1) * batch_size
                place = f"{member} fold {fold} epoch {epoch + 1}/{settings.epochs}"
                report(place, total.item() / (step + 1), batch_size * (step % 8 + 1), left)
        mean = total.item() / steps
        if not math.isfinite(mean):
            if not log:
                rundir.log_file(directory).unlink()
            raise RunFailure(
                f"{member} fold {fold}: the loss turned {mean} in epoch {epoch + 1}; lower its lr (now {settings.lr:g})"
            )
        seconds = time.monotonic() - started
        speed = round(steps * batch_size / seconds, 1)
        log.append(
            {"epoch": epoch + 1, "loss": mean, "lr": rate, "seconds": round(seconds, 2), "images_per_second": speed}
        )
        _save_state(rundir.state_file(directory), model, average, optimizer, log)
        rundir.write_text(rundir.log_file(directory), "".join(json.dumps(line) + "\n" for line in log))

    final = (model if average is None else average.module).eval()
    held_out = np.flatnonzero(folds == fold)
    values = np.concatenate(
        [
            forward_views(final, pixels.squares(rows), preprocess, views, eval_batch, device)
            for rows in np.array_split(held_out, math.ceil(len(held_out) / (8 * eval_batch)))
        ],
        axis=1,
    )
    if not np.isfinite(values).all():
        raise RunFailure(f"{member} fold {fold}: its logits are not finite; lower its lr (now {settings.lr:g})")
    weights = {name: value.cpu().contiguous() for name, value in final.state_dict().items()}
    with rundir.replacing(rundir.model_file(directory)) as temporary:
        save_file(weights, temporary)
    Logits(ids[held_out], views, classes, values, {"member": member, "fold": str(fold)}).save(
        rundir.oof_file(directory)
    )
    files = [rundir.model_file(directory), rundir.oof_file(directory), rundir.log_file(directory)]
    seconds = sum(line["seconds"] for line in log)
    rundir.mark_done(directory, files, seconds=round(seconds, 1))
    shutil.rmtree(rundir.state_file(directory).parent, ignore_errors=True)
    return float(seconds)


def _batches(
    rng: np.random.Generator, pixels: Pixels, order: np.ndarray, size: int, settings: Train
) -> Iterator[tuple[torch.Tensor, torch.Tensor, np.ndarray]]:
    """Crops (uint8), colour factors and rows of each step; the next is made while the last one is trained on."""

    def make(rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
        crops = random_crops(rng, pixels, rows, size, settings.crop_area, settings.hflip)
        return crops, color_factors(rng, len(rows), settings.color_jitter), rows

    with ThreadPoolExecutor(1) as ahead:
        coming = ahead.submit(make, order[0])
        for rows in order[1:]:
            ready = coming.result()
            coming = ahead.submit(make, rows)
            yield ready
        yield coming.result()


def _save_state(
    path: Path, model: torch.nn.Module, average: Any, optimizer: torch.optim.Optimizer, log: list[dict[str, Any]]
) -> None:
    """All that the next epoch needs, in one safetensors file that is there whole or not at all."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    if average is not None:
        tensors |= {f"average.{name}": value for name, value in average.module.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
    with rundir.replacing(path) as temporary:
        save_file(
            {name: value.cpu().contiguous() for name, value in tensors.items()}, temporary, {"log": json.dumps(log)}
        )


def _load_state(
    path: Path, model: torch.nn.Module, average: Any, optimizer: torch.optim.Optimizer
) -> list[dict[str, Any]]:
    """Fill model, average and optimizer from `path` and return the log so far; an empty log where there is no file."""
    if not path.is_file():
        return []
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        log: list[dict[str, Any]] = json.loads(file.metadata()["log"])

    def part(prefix: str) -> dict[str, torch.Tensor]:
        return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

    model.load_state_dict(part("model."))
    if average is not None:
        average.module.load_state_dict(part("average."))
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in part("optimizer.").items():
        index, key = name.split(".", 1)
        if value.ndim:  # in the parameter's own memory format, so that going on takes the very same kernels
            value = torch.empty_like(parameters[int(index)]).copy_(value)
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return log

"""One job: one backbone on one fold, from fresh weights to its out-of-fold logits. The whole loop is here."""

import hashlib
import itertools
import json
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ensemble import rundir
from ensemble.backbones.timm_model import classifier, moving_average, parameter_groups, train_mode
from ensemble.backbones.weights import write_state
from ensemble.config import Train
from ensemble.data.logits import Logits
from ensemble.data.pixels.decode import Files, Pixels
from ensemble.data.pixels.preprocess import Decoding, Preprocess
from ensemble.device import is_out_of_memory, to_device
from ensemble.errors import Damaged, RunFailure
from ensemble.files.atomic import write_text
from ensemble.inference.eval_model import (
    Forward,
    Inference,
    Speeds,
    choose_inference,
    lowered,
    prepared,
    save_inference,
)
from ensemble.inference.predict import Group, batch_rows, decodings, forward_views
from ensemble.train.augment.mix import mix
from ensemble.train.augment.policy import finish
from ensemble.train.batches import batches, cutter, far_ahead
from ensemble.train.losses import RowLosses, class_counts, make_loss, row_weights
from ensemble.train.numerics import Numerics, autocast_as, laid_out
from ensemble.train.sampling import epoch_rows
from ensemble.train.state import load_state, save_state

# Averaging the weights takes 1 to 3 % of a step of mobilenetv3_small_100 at 128 px; every fourth step is as good.
EMA_STEPS = 4

Report = Callable[[str, float, int, int], None]  # where it is, mean loss, images since the last call, images left
Head = tuple[torch.Tensor, torch.Tensor]  # float32 (C, D) and (C,): a classifier to start from


@dataclass(frozen=True)
class Labelled:
    """What is learned from: N rows. labels: int64 (N,). folds: int8 (N,), -1 for rows that every fold is trained on.
    weights: float64 (N,) or None. shown: the pixels that training crops are cut from. judged: those of evaluation, by
    their decoding."""

    ids: np.ndarray
    labels: np.ndarray
    folds: np.ndarray
    classes: tuple[str, ...]
    weights: np.ndarray | None
    shown: Pixels | Files
    judged: Mapping[Decoding, Pixels | Files]

    def squares(self, preprocess: Preprocess, views: Sequence[str], rows: np.ndarray) -> dict[Decoding, torch.Tensor]:
        """What these views of the rows are cut from, uint8 (len(rows), side, side, 3) by decoding."""
        return {how: torch.from_numpy(self.judged[how].squares(rows)) for how in decodings(preprocess, views)}


def job_seed(seed: int, *parts: str | int) -> int:
    """A seed of its own for each (run seed, member, fold, epoch), so that no job depends on what ran before it."""
    return int.from_bytes(hashlib.sha256(repr((seed, *parts)).encode()).digest()[:7])


def learning_rate(step: float, steps: int, warmup: float, peak: float) -> float:
    """Linear warm-up over `warmup` steps, then half a cosine down to 0 at `steps` (Loshchilov and Hutter 2017)."""
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1.0, steps - warmup)))


def looked_at(epochs: int, keep: str) -> set[int]:
    """The epochs (from 1) after which the held-out rows are scored, so that the log can tell how many would have been
    enough: each quarter, half-way in short runs (it takes 2 to 3 % of the time), and all where the best is kept."""
    if keep == "best":
        return set(range(1, epochs + 1))
    quarters = (1, 2, 3) if epochs >= 8 else (2,)
    return {epochs * quarter // 4 for quarter in quarters} - {0}


def fit(
    directory: Path,
    member: str,
    fold: int,
    create: Callable[[], torch.nn.Module],
    preprocess: Preprocess,
    data: Labelled,
    settings: Train,
    numerics: Numerics,
    head: Head | None,
    views: tuple[str, ...],
    speeds: Speeds,
    eval_batch: int,
    seed: int,
    device: torch.device,
    report: Report,
    say: Callable[[str], None],
) -> float:
    """Train on the rows of the other folds, evaluate on this fold's, and write weights, logits and done marker.
    Returns the seconds that the epochs took.

    head: where the classifier starts; None leaves it as created. Goes on from the last whole epoch if `directory` holds
    one. The last epoch's (averaged) weights are kept and the held-out rows choose nothing, unless settings.keep is
    "best". The log's lr is that of the epoch's last step. Raises RunFailure on a loss that is not finite, and where not
    even two images fit into memory.
    """
    torch.manual_seed(job_seed(seed, member, fold))
    model = to_device(create(), device, numerics.memory_format)
    if head is not None:
        layer = classifier(model)
        with torch.no_grad():
            layer.weight.copy_(head[0])
            layer.bias.copy_(head[1])
    train_rows, held_out = np.flatnonzero(data.folds != fold), np.flatnonzero(data.folds == fold)
    batch_size = min(settings.batch_size, len(train_rows))
    steps = len(train_rows) // batch_size
    groups = parameter_groups(model, settings.weight_decay, settings.layer_decay, settings.head_lr)
    optimizer = torch.optim.AdamW(groups, lr=settings.lr, fused=device.type != "mps")
    average = moving_average(model, settings.ema**EMA_STEPS) if settings.ema else None
    try:
        best, log = load_state(rundir.state_file(directory), model, average, optimizer)
    except Damaged as error:
        say(f"warning: {error}")
        best, log = {}, []
    if numerics.compile:
        model.compile()
    micro_batch = min(log[-1]["micro_batch"] if log else numerics.micro_batch, batch_size)
    if not log:
        write_text(rundir.log_file(directory), "")  # from here on the run's settings are settled (`is_begun`)
    weights = np.zeros(len(data.ids), dtype=np.float32)
    weights[train_rows] = row_weights(data.weights, train_rows)
    counts = class_counts(data.labels, train_rows, weights[train_rows], len(data.classes))
    loss_of = make_loss(settings.loss, counts, device, settings.label_smoothing, settings.focal_gamma)
    # The bare logits of this loss are those of balanced classes: the held-out rows have the prior back.
    prior = np.log(np.maximum(counts, 0.5) / len(train_rows)) if settings.loss == "logit_adjusted" else 0.0
    size = settings.crop_size or preprocess.image_size
    cut = cutter(data.shown, device, torch.get_num_threads())
    looks = looked_at(settings.epochs, settings.keep)

    def score(kept: torch.nn.Module) -> dict[str, float]:
        exact = prepared(kept, Inference(device.type), preprocess.image_size, device)
        values = held_out_logits(exact, data, held_out, preprocess, ("identity",), eval_batch, device)
        return scores(values[0] + prior, data.labels[held_out])

    for epoch in range(len(log), settings.epochs):
        started = time.monotonic()
        torch.manual_seed(job_seed(seed, member, fold, epoch))  # dropout and stochastic depth
        rng = np.random.default_rng(job_seed(seed, member, fold, epoch))
        mixing = np.random.default_rng(job_seed(seed, member, fold, epoch, "mix"))
        order = epoch_rows(rng, train_rows, data.labels, settings.sampler)
        order = order[: steps * batch_size].reshape(steps, batch_size)
        train_mode(model, settings.freeze_bn)
        total = torch.zeros((), device=device)
        computed = 0.0  # seconds in steps, as the trial of numeric settings times them
        for step, (batch, draws, rows) in enumerate(
            batches(rng, data.shown, cut, order, size, settings, far_ahead(data.shown, device))
        ):
            rate = learning_rate(
                epoch * steps + step, settings.epochs * steps, settings.warmup_epochs * steps, settings.lr
            )
            for group in optimizer.param_groups:
                group["lr"] = rate * group.get("lr_scale", 1.0)
            channels_last = numerics.memory_format == "channels_last"
            images = finish(batch, draws, preprocess.mean, preprocess.std, channels_last)
            images, partner, share = mix(mixing, images, settings.mixup, settings.cutmix)
            labels = torch.from_numpy(data.labels[rows]).to(device)
            targets = [(labels, torch.from_numpy(weights[rows]).to(device))]
            if settings.mixup or settings.cutmix:
                first, weight = targets[0]
                targets = [(first, weight * share), (first[partner], weight[partner] * (1 - share))]
            begun = time.perf_counter()
            while True:
                try:
                    total += gradients(model, laid_out(images, numerics), targets, loss_of, micro_batch, numerics)
                    break
                except RuntimeError as error:
                    if not is_out_of_memory(error):
                        raise
                optimizer.zero_grad(set_to_none=True)
                if device.type == "cuda":
                    torch.cuda.empty_cache()
                if micro_batch < 4:
                    if not log:
                        rundir.log_file(directory).unlink()  # its settings may still change
                    raise RunFailure(f"{member} fold {fold}: out of memory at {micro_batch} images; lower image_size")
                micro_batch //= 2
                say(
                    f"{member} fold {fold}: out of memory; goes on with {micro_batch} images at a time, whose "
                    f"gradients add up to batches of {batch_size} as before"
                )
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if step:  # the first one also allocates, which no trial counts
                computed += time.perf_counter() - begun
            if average is not None and (step % EMA_STEPS == EMA_STEPS - 1 or step == steps - 1):
                average.update(model, step=(epoch * steps + step) // EMA_STEPS)
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
        line = {"epoch": epoch + 1, "loss": mean, "lr": rate, "seconds": round(seconds, 2)}
        line |= {"images_per_second": round(steps * batch_size / seconds, 1), "micro_batch": micro_batch}
        if device.type == "cpu" and steps > 1:  # a GPU's steps end after they return
            line["step_images_per_second"] = round((steps - 1) * batch_size / computed, 1)
        if epoch + 1 in looks:
            kept = model if average is None else average.module
            line |= score(kept)
            past = [old["held_out_log_loss"] for old in log if "held_out_log_loss" in old]
            if settings.keep == "best" and line["held_out_log_loss"] < min(past, default=math.inf):
                best = {name: value.detach().clone() for name, value in kept.state_dict().items()}
        log.append(line)
        save_state(rundir.state_file(directory), model, average, optimizer, best, log)
        _write_log(directory, log)

    final = model if average is None else average.module
    if best:
        final.load_state_dict(best)
    # Which class is the largest depends on the prior that this loss leaves out: ties can't be told without it.
    speeds = {"float32": 1.0} if settings.loss == "logit_adjusted" else speeds
    how, values = settled_logits(final, data, held_out, preprocess, views, speeds, eval_batch, device)
    if not np.isfinite(values).all():
        raise RunFailure(f"{member} fold {fold}: its logits are not finite; lower its lr (now {settings.lr:g})")
    if settings.keep == "last" and "identity" in views:
        log[-1] |= scores(values[views.index("identity")] + prior, data.labels[held_out])
        _write_log(directory, log)
    seconds = sum(line["seconds"] for line in log)
    finish_fold(directory, member, fold, final, how, data.ids[held_out], data.classes, views, values, seconds)
    return float(seconds)


def gradients(
    model: torch.nn.Module,
    images: torch.Tensor,
    targets: list[tuple[torch.Tensor, torch.Tensor]],
    loss_of: RowLosses,
    micro_batch: int,
    numerics: Numerics,
) -> torch.Tensor:
    """Add the gradients of a batch's mean loss, at most `micro_batch` images at a time; returns the loss.

    images: float32 (B, 3, H, W). targets: labels int64 (B,) and the weights float32 (B,) of their losses. The parts are
    as equal as can be: a batch norm has no variance over one image that is left over.
    """
    total = torch.zeros((), device=images.device)
    parts = math.ceil(len(images) / micro_batch)
    ends = [-(-len(images) * index // parts) for index in range(parts + 1)]
    for start, end in itertools.pairwise(ends):
        part = slice(start, end)
        with autocast_as(images.device, numerics):
            logits = model(images[part])
        loss = torch.stack([(loss_of(logits, labels[part]) * weight[part]).sum() for labels, weight in targets]).sum()
        loss = loss / len(images)
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
    return total


def held_out_logits(
    forward: Forward,
    data: Labelled,
    rows: np.ndarray,
    preprocess: Preprocess,
    views: tuple[str, ...],
    batch_size: int,
    device: torch.device,
) -> np.ndarray:
    """float32 (V, len(rows), C), by the function that prediction uses."""
    group = Group(preprocess, views, (forward,))
    batch = batch_rows(batch_size, device)
    values = []
    for part in np.array_split(rows, math.ceil(len(rows) / (32 * batch))):
        squares = {how: own.to(device) for how, own in data.squares(preprocess, views, part).items()}
        values.append(forward_views(group, squares, batch, device)[0][0])
    return np.concatenate(values, axis=1)


def settled_logits(
    model: torch.nn.Module,
    data: Labelled,
    rows: np.ndarray,
    preprocess: Preprocess,
    views: tuple[str, ...],
    speeds: Speeds,
    batch_size: int,
    device: torch.device,
) -> tuple[Inference, np.ndarray]:
    """The fastest way to compute a finished network that holds its answers on rows that it never saw, and its logits
    of them computed so, float32 (V, len(rows), C)."""
    exact = prepared(model, Inference(device.type), preprocess.image_size, device)

    def compute(dtype: str) -> np.ndarray:
        fast = Forward(Inference(device.type, dtype), exact.exact, lowered(exact.exact, dtype))
        return held_out_logits(fast, data, rows, preprocess, views, batch_size, device)

    values = held_out_logits(exact, data, rows, preprocess, views, batch_size, device)
    return choose_inference(speeds, values, compute, data.labels[rows], device)


def scores(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Log loss and accuracy of logits float32 (n, C), for the log."""
    values = torch.from_numpy(logits).double()
    target = torch.from_numpy(labels)
    return {
        "held_out_log_loss": round(torch.nn.functional.cross_entropy(values, target).item(), 5),
        "held_out_accuracy": round((values.argmax(1) == target).double().mean().item(), 5),
    }


def finish_fold(
    directory: Path,
    member: str,
    fold: int,
    model: torch.nn.Module,
    how: Inference,
    ids: np.ndarray,
    classes: tuple[str, ...],
    views: tuple[str, ...],
    values: np.ndarray,
    seconds: float,
) -> None:
    """Write a fold's weights, how they are computed in evaluation, its logits float32 (V, len(ids), C) and, last, its
    done marker. Its log is there."""
    rundir.done_json(directory).unlink(missing_ok=True)  # of the network that was here before
    rundir.added_file(directory).unlink(missing_ok=True)
    source = {"member": member, "fold": str(fold)}
    write_state(rundir.model_file(directory), model.state_dict(), source)
    save_inference(rundir.inference_json(directory), how)
    Logits(ids, views, classes, values, source).save(rundir.oof_file(directory))
    rundir.finish(directory, seconds)
    shutil.rmtree(rundir.state_file(directory).parent, ignore_errors=True)


def _write_log(directory: Path, log: list[dict[str, float]]) -> None:
    write_text(rundir.log_file(directory), "".join(json.dumps(line) + "\n" for line in log))

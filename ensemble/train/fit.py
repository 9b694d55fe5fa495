"""One job: one backbone on one fold, from fresh weights to its out-of-fold logits. The whole loop is here."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from ensemble.backbones.fine_tuning import moving_average, parameter_groups, train_mode
from ensemble.backbones.timm_model import classifier
from ensemble.device import to_device
from ensemble.errors import Damaged, RunFailure
from ensemble.events import Events
from ensemble.files.atomic import remove
from ensemble.files.claims import ClaimLost
from ensemble.inference.formats import Inference
from ensemble.plural import pluralize
from ensemble.run import Fold
from ensemble.run.shapes import Epoch
from ensemble.train.augment.mix import apply_mixing, draw_mixing
from ensemble.train.augment.policy import Draws, finish
from ensemble.train.augment.rarity import rare_shares
from ensemble.train.batch_norms import MOST_ROWS, measuring, synchronized
from ensemble.train.batches import batches, cutter, drawer, far_ahead
from ensemble.train.evaluate import exact, final_logits, held_out_logits, scores
from ensemble.train.finish import finish_fold, fold_logits, write_log
from ensemble.train.job import Job
from ensemble.train.losses import fold_loss
from ensemble.train.numerics import compile_anew
from ensemble.train.rows import TrainingData
from ensemble.train.sampling import epoch_rows
from ensemble.train.shares import shares
from ensemble.train.state import TrainState, load_state, save_state
from ensemble.train.step import Stepper, learning_rate, set_learning_rate, targets_of
from ensemble.train.swa import add_to_average, finish_average
from ensemble.train.teacher import with_teacher

# Averaging the weights takes 1 to 3 % of a step of mobilenetv3_small_100 at 128 px; every fourth step is as good.
EMA_STEPS = 4
REPORT_STEPS = 8  # between two reports of progress: reading the loss makes a GPU wait


def scored_epochs(epochs: int, keep: str) -> set[int]:
    """The epochs (from 1) after which the held-out rows are scored, so that the log can tell how many would have been
    enough: each quarter, half-way in short runs (it takes 2 to 3 % of the time), and all where the best is kept."""
    if keep == "best":
        return set(range(1, epochs + 1))
    quarters = (1, 2, 3) if epochs >= 8 else (2,)
    return {epochs * quarter // 4 for quarter in quarters} - {0}


def fit(job: Job, data: TrainingData, events: Events) -> float:
    """Train on the rows of the other folds, evaluate on this fold's, and write weights, logits and done marker.
    Returns the seconds that the epochs took. A refit's rows are in no fold: it is trained on all of them, and what
    needs held-out rows is left out.

    Goes on from the last whole epoch if the fold holds one. The last epoch's (averaged) weights are kept and the
    held-out rows choose nothing, unless settings.keep is "best". The log's lr is that of the epoch's last step. Raises
    RunFailure on a loss that is not finite, and where not even two images fit into memory.

    Where several processes train it (`job.ranks`), each runs this loop: all hold the same network and draw the same
    chances, each computes its share of every batch, and the first one writes.
    """
    fold, settings, device = job.fold, job.settings, job.evaluation.device
    rows, pixels = data.rows, data.train_pixels
    train_rows, held_out = rows.train_rows(fold.number), rows.held_out_rows(fold.number)
    batch_size = min(settings.batch_size, len(train_rows))
    if batch_size < 2 * job.ranks.count:  # batch norm has no variance over one image
        raise RunFailure(
            f"{fold}: {job.ranks.count} processes can't share batches of {pluralize(batch_size, 'image')}: each takes "
            "at least 2; raise batch_size, or lower gpus_per_job"
        )
    steps = len(train_rows) // batch_size  # of an epoch
    all_steps, warmup_steps = settings.epochs * steps, settings.warmup_epochs * steps
    # Weights that are averaged have to move on: at the end of the cosine all would be the same (Izmailov et al. 2018).
    constant_from = (settings.epochs - settings.swa_epochs) * steps if settings.swa_epochs else math.inf
    size = settings.crop_size or job.evaluation.preprocess.image_size
    loss = fold_loss(rows, fold.number, settings, device)
    rare = rare_shares(rows.likeliest(fold.number), train_rows) if settings.augment_rare else None
    state = _begin(job, events)
    stepper = _stepper(job, state, batch_size, events)
    has_ema = state.average is not None and not settings.swa_epochs
    cut, ahead = cutter(pixels, device, torch.get_num_threads()), far_ahead(pixels, device)
    with _named_failures(fold, state):
        for epoch in range(len(state.log), settings.epochs):
            started, seconds_in_steps = time.monotonic(), 0.0
            torch.manual_seed(job.random_seed(epoch) + job.ranks.rank)  # dropout and stochastic depth
            rng = np.random.default_rng(job.random_seed(epoch))
            mix_rng = np.random.default_rng(job.random_seed(epoch, "mix"))
            order = epoch_rows(rng, train_rows, rows.likeliest(fold.number), settings.sampler)[: steps * batch_size]
            order = order.reshape(steps, batch_size)
            train_mode(state.model, settings.freeze_bn)
            total = torch.zeros((), device=device)
            drawn = drawer(rng, pixels, size, settings, rare)
            mixing = partial(draw_mixing, mix_rng, batch_size, size, settings.mixup, settings.cutmix)
            stream = shares(order, drawn, mixing, cut, size, ahead, job.ranks)
            for step, share in enumerate(stream):
                at = epoch * steps + step
                rate = learning_rate(at, all_steps, warmup_steps, settings.lr, constant_from)
                set_learning_rate(state.optimizer, rate)
                images, mixed = apply_mixing(_input(job, share.crops, share.draws), share.mixing)
                answers = rows.targets(fold.number, share.rows)
                targets = targets_of(answers, loss.row_weights[share.rows], loss.row_losses, mixed, device)
                if job.teacher is not None:
                    targets = with_teacher(job.teacher, images, targets)
                begun = time.perf_counter()
                total += stepper.step(images, targets, batch_size)
                if step:  # the first one also allocates, which no trial counts
                    seconds_in_steps += time.perf_counter() - begun
                if has_ema and (step % EMA_STEPS == EMA_STEPS - 1 or step == steps - 1):
                    state.average.update(state.model, step=at // EMA_STEPS)
                if step % REPORT_STEPS == REPORT_STEPS - 1 or step == steps - 1:
                    text = f"{fold} epoch {epoch + 1}/{settings.epochs}  loss {total.item() / (step + 1):.3f}"
                    events.progress(text, (at + 1) * batch_size, all_steps * batch_size)
            if settings.swa_epochs:
                first = settings.epochs - settings.swa_epochs  # until then it is the network as it is
                add_to_average(state.average.module, state.model, max(0, epoch - first))
            mean = total.item() / steps
            if not math.isfinite(mean):
                raise RunFailure(f"the loss turned {mean} in epoch {epoch + 1}; lower its lr (now {settings.lr:g})")
            seconds = time.monotonic() - started
            line: Epoch = {"epoch": epoch + 1, "loss": mean, "lr": rate, "seconds": round(seconds, 2)}
            line |= {"images_per_second": round(steps * batch_size / seconds, 1), "micro_batch": stepper.micro_batch}
            line |= {"processes": job.ranks.count} if job.ranks.count > 1 else {}
            if device.type == "cpu" and steps > 1:  # a GPU's steps end after they return
                line["step_images_per_second"] = round((steps - 1) * batch_size / seconds_in_steps, 1)
            if len(held_out) and epoch + 1 in scored_epochs(settings.epochs, settings.keep):
                advance = _answering(job, len(held_out), events, (at + 1) * batch_size, all_steps * batch_size)
                line |= _scores(job, data, state.eval_model, loss.log_prior, advance)
                if settings.keep == "best" and line["held_out_log_loss"] < state.best_loss():
                    state.keep_best()
            state.log.append(line)
            if job.ranks.is_first:
                save_state(fold.state_file, state)
                write_log(fold, state.log)
            if epoch + 1 < settings.epochs:  # the last one is reported with its final score
                events.epoch_finished(fold.member.name, fold.number, line)
        if settings.swa_epochs:
            rng = np.random.default_rng(job.random_seed("batch norms"))
            order = rng.permutation(train_rows)[: max(1, min(steps, MOST_ROWS // batch_size)) * batch_size]
            parts = batches(rng, pixels, cut, order.reshape(-1, batch_size), size, settings, ahead)
            finish_average(state, settings.freeze_bn, (_input(job, crops, draws) for crops, draws, _ in parts))
        return _finish(job, data, state, loss.log_prior, events)


def _begin(job: Job, events: Events) -> TrainState:
    """The network and its optimizer as they start, or as the last whole epoch left them."""
    settings, device = job.settings, job.evaluation.device
    torch.manual_seed(job.random_seed())
    model = to_device(job.create(), device, job.numerics.memory_format)
    if job.head is not None:
        layer = classifier(model)
        with torch.no_grad():
            layer.weight.copy_(job.head[0])
            layer.bias.copy_(job.head[1])
    is_synchronized = False
    if job.ranks.count > 1 and device.type == "cuda":
        train_mode(model, settings.freeze_bn)
        is_synchronized = bool(measuring(model))
        model = synchronized(model) if is_synchronized else model
    groups = parameter_groups(model, settings.weight_decay, settings.layer_decay, settings.head_lr)
    optimizer = torch.optim.AdamW(groups, lr=settings.lr, fused=device.type != "mps")
    average = moving_average(model, settings.ema**EMA_STEPS) if settings.ema or settings.swa_epochs else None
    state = TrainState(model, optimizer, average)
    try:
        load_state(job.fold.state_file, state)
    except Damaged as error:
        events.message(f"warning: {error}")
    if job.numerics.compile and is_synchronized:
        events.message(f"{job.fold}: not compiled, since its batch norms measure the images of all processes together")
    elif job.numerics.compile:
        compile_anew(model)
    if not state.log and job.ranks.is_first:
        write_log(job.fold, [])  # from here on the run's settings are fixed (`Run.is_begun`)
    return state


def _stepper(job: Job, state: TrainState, batch_size: int, events: Events) -> Stepper:
    def on_halved(micro_batch: int) -> None:
        events.message(
            f"{job.fold}: out of memory; continues with {pluralize(micro_batch, 'image')} at a time, whose gradients "
            f"add up to batches of {batch_size} as before"
        )

    micro_batch = state.log[-1]["micro_batch"] if state.log else job.numerics.micro_batch
    micro_batch = min(micro_batch, batch_size)
    return Stepper(state.model, state.optimizer, job.numerics, micro_batch, on_halved, job.ranks)


@contextmanager
def _named_failures(fold: Fold, state: TrainState) -> Iterator[None]:
    """Name the fold in a RunFailure. Without a whole epoch its empty log is removed: the settings may still change."""
    try:
        yield
    except ClaimLost:
        raise
    except RunFailure as error:
        if not state.log:
            remove(fold.log_file)
        raise RunFailure(f"{fold}: {error}") from None


def _input(job: Job, crops: torch.Tensor, draws: Draws) -> torch.Tensor:
    """The network's input, float32 (B, 3, S, S)."""
    preprocess, channels_last = job.evaluation.preprocess, job.numerics.memory_format == "channels_last"
    return finish(crops, draws, preprocess.mean, preprocess.std, channels_last)


def _answering(job: Job, count: int, events: Events, trained: int, whole: int) -> Callable[[float], None]:
    """`advance(images)`, which reports how many of `count` held-out images are answered. trained: images that the job
    has trained on so far, of its `whole`."""
    lock, done = threading.Lock(), 0.0

    def advance(images: float) -> None:
        nonlocal done
        with lock:
            done += images
            events.progress(f"{job.fold}: {done:,.0f} of {count:,} held-out images answered", trained, whole)

    return advance


def _scores(
    job: Job, data: TrainingData, model: torch.nn.Module, log_prior: np.ndarray, advance: Callable[[float], None]
) -> Epoch:
    """Of the held-out rows as they are, in float32."""
    held_out, evaluation = data.rows.held_out_rows(job.fold.number), replace(job.evaluation, views=("identity",))
    values = held_out_logits(exact(model, evaluation), data, held_out, evaluation, job.ranks, advance)
    return scores(values[0] + log_prior, data.rows.labels[held_out])


def _finish(job: Job, data: TrainingData, state: TrainState, log_prior: np.ndarray, events: Events) -> float:
    """Evaluate the network that is kept and write the fold; returns the seconds that its epochs took."""
    fold, settings, views = job.fold, job.settings, job.evaluation.views
    if state.best:
        state.eval_model.load_state_dict(state.best)
    seconds = sum(line["seconds"] for line in state.log)
    last = state.log[-1]
    held_out = data.rows.held_out_rows(fold.number)
    if not len(held_out):  # no row that it never saw can vouch for a faster number format
        if job.ranks.is_first:
            finish_fold(fold, state.eval_model, Inference(job.evaluation.device.type), None, seconds)
        events.epoch_finished(fold.member.name, fold.number, last)
        return seconds
    # Which class is the largest depends on the prior that this loss leaves out: ties can't be recognised without it.
    speeds = {"float32": 1.0} if settings.loss == "logit_adjusted" else job.speeds
    advance = _answering(job, len(held_out), events, 1, 1)
    inference, values = final_logits(state.eval_model, data, held_out, job.evaluation, speeds, job.ranks, advance)
    if not np.isfinite(values).all():
        raise RunFailure(f"its logits are not finite; lower its lr (now {settings.lr:g})")
    if not job.ranks.is_first:
        return seconds
    if settings.keep == "last" and "identity" in views:
        last |= scores(values[views.index("identity")] + log_prior, data.rows.labels[held_out])
        write_log(fold, state.log)
    finish_fold(fold, state.eval_model, inference, fold_logits(fold, data.rows, views, values), seconds)
    events.epoch_finished(fold.member.name, fold.number, last)
    return seconds

"""Which backbone x fold jobs a run still lacks, and running them here: in this process, or side by side in several."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from ensemble import rundir
from ensemble.config import Config, train_settings
from ensemble.data.contents import with_digests
from ensemble.data.pixels.preprocess import load_preprocess
from ensemble.data.samples import Samples
from ensemble.device import choose_device, is_out_of_memory, keep_freed_memory
from ensemble.errors import RunFailure
from ensemble.files.atomic import clear_temporaries
from ensemble.inference.views import expand
from ensemble.progress import Show, duration
from ensemble.stop import safe_points
from ensemble.train.clock import Clock
from ensemble.train.ending import Running, kept, may_end, wait_for
from ensemble.train.enough import enough_epochs
from ensemble.train.fit import fit
from ensemble.train.losses import row_weights
from ensemble.train.members import check_backbone, make_model, open_member, probes
from ensemble.train.mend import reopen_damaged
from ensemble.train.numerics import load_numerics
from ensemble.train.prepare import (
    Opened,
    allowed_speeds,
    forget_short,
    labelled,
    named,
    open_cache,
    prepare,
    tested_views,
    unfinished,
)
from ensemble.train.probe import load_heads
from ensemble.train.setup import check_contents, open_run, read_data
from ensemble.train.workers import Job, Slot, Tell, describe_slots, run_here, run_side_by_side, slots

Say = Callable[[str], None]


def train_folds(config: Config, show: Show, say: Say = print) -> list[str]:
    """Train every backbone on every fold that the run lacks; a finished fold is left as it is.

    Returns one line for each job that failed; the others are trained all the same. Raises UserError before anything
    is trained if the data, a backbone or the run directory does not fit.
    """
    samples = read_data(config, say)
    reopen_damaged(config.run, [backbone.name for backbone in config.backbone], show, say)
    expand(config.tta.views)  # a misspelt view is said first: it takes no network
    expected = int(samples.folds.max()) + 1 if samples.folds is not None else config.folds.k
    for number, backbone in enumerate(config.backbone):
        show("trying the backbones", number, len(config.backbone))
        if unfinished(config, backbone, expected):
            check_backbone(config, backbone, len(samples.classes), say)
        tested_views(config, backbone)
    if config.data.cache != "off" or (config.folds.near_copies and not rundir.is_begun(config.run)):
        samples = with_digests(samples, config.data.cache, show)
    folds = open_run(config, samples, show, say)
    count = int(folds.max()) + 1
    for backbone in config.backbone:
        open_member(config, backbone, samples.ids, folds, say)
    for fold in range(count):
        row_weights(samples.weights, np.flatnonzero(folds != fold))  # weights that are all 0 in a fold's part fail now
    device = choose_device()
    keep_freed_memory()
    todo = [backbone for backbone in config.backbone if unfinished(config, backbone, count)]
    jobs = [(backbone.name, fold) for backbone in todo for fold in unfinished(config, backbone, count)]
    total = len(config.backbone) * count
    counts = f"{total} jobs, {total - len(jobs)} of them done"
    say(f"{len(samples)} images, {len(samples.classes)} classes; {counts}; on {device}")
    if not jobs:
        return []
    every = [(backbone.name, fold) for backbone in config.backbone for fold in range(count)]
    running = Running()
    with safe_points(partial(wait_for, running), partial(kept, config.run, every, running)) as asked:
        opened: Opened = {}
        if config.data.cache != "off":
            preprocesses = [load_preprocess(rundir.preprocess_json(config.run, backbone.name)) for backbone in todo]
            hows = {how for own in preprocesses for how in (own.decoding, own.cropping)}
            opened = {**open_cache(config, samples, sorted(hows, key=str), show, say)}
            assert samples.digests is not None
            check_contents(config.run, samples.ids.tolist(), samples.digests, say)
        trained = [job for job in jobs if train_settings(config, named(config, job[0])).strategy != "probe"]
        places = slots(config.workers, device, len(trained))
        failures: list[str] = []
        rates: dict[str, float] = {}
        for backbone in todo:
            try:
                rates |= prepare(config, backbone, samples, folds, opened, device, places, show, say)
            except (RunFailure, RuntimeError) as error:
                if not isinstance(error, RunFailure) and not is_out_of_memory(error):
                    raise
                reason = str(error) if isinstance(error, RunFailure) else "out of memory; lower tta.batch_size"
                failures.append(f"{backbone.name}: {reason}")
                say(f"failed: {failures[-1]}")
                trained = [job for job in trained if job[0] != backbone.name]
        if not trained:
            return failures
        clock = Clock({job: _images(config, job, folds) for job in trained}, rates, len(places))
        say(f"{len(trained)} jobs to train, {describe_slots(places)}: about {duration(clock.remaining())}")
        failures += _train(config, samples, folds, trained, places, opened, clock, running, asked, show, say)
        for backbone in todo:
            for line in (
                enough_epochs(config.run, backbone.name),
                forget_short(config, backbone, device, places[0].threads),
            ):
                if line is not None:
                    say(line)
        return failures


def _train(
    config: Config,
    samples: Samples,
    folds: np.ndarray,
    jobs: Sequence[Job],
    places: Sequence[Slot],
    opened: Opened,
    clock: Clock,
    running: Running,
    asked: Callable[[], bool],
    show: Show,
    say: Say,
) -> list[str]:
    """Run the jobs and pass on what they tell; those that another process is at are tried once more at the end."""
    failures: list[str] = []
    held: list[Job] = []
    for job in jobs:
        settings = train_settings(config, named(config, job[0]))
        rows = int((folds != job[1]).sum())
        running.epochs[job], running.batches[job] = settings.epochs, min(settings.batch_size, rows)
        running.images[job] = rows // running.batches[job] * running.batches[job]

    def heard(job: Job, kind: str, *rest: Any) -> None:
        hear(job, kind, *rest)
        if asked() and may_end(running):
            raise KeyboardInterrupt

    def hear(job: Job, kind: str, *rest: Any) -> None:
        name = f"{job[0]} fold {job[1]}"
        if kind == "progress":
            clock.report(show, job, *rest)
            running.left[job] = rest[-1]
            running.rates.update(clock.rates())
            return
        if kind == "said":
            say(rest[0])
            return
        clock.left[job] = 0
        running.left.pop(job, None)
        if kind == "done":
            say(f"{name}: done in {duration(rest[0])}")
        elif kind == "held":
            held.append(job)
        else:
            reason = rest[0]
            if kind == "killed":
                reason = (
                    f"{name}: its process was killed twice (status {rest[0]}), perhaps for want of memory; lower its "
                    "batch_size, or set workers = 1"
                )
            failures.append(reason)
            say(f"failed: {reason}")

    for _ in range(2):
        if len(places) > 1:
            run_side_by_side(jobs, places, partial(run_job, config, samples, folds, {}), heard)
        else:
            run_here(jobs, places[0], partial(run_job, config, samples, folds, opened), heard)
        jobs = [job for job in held if not rundir.is_done(rundir.fold_dir(config.run, *job))]
        held.clear()
        if not jobs:
            return failures
    for job in jobs:
        say(f"{job[0]} fold {job[1]}: another process is at it, left to that one")
    return failures


def run_job(
    config: Config, samples: Samples, folds: np.ndarray, opened: Opened, job: Job, slot: Slot, tell: Tell
) -> None:
    """One backbone x fold job, wherever it runs: it needs these arguments and the run directory. Tells "progress",
    "said", and "done" (seconds), "held" or "failed" (a line).

    opened: pixels that are open already; what is opened here is added, for the next job of this process.
    """
    member, fold = job
    device = torch.device(slot.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    keep_freed_memory()
    backbone = named(config, member)
    settings = train_settings(config, backbone)
    directory = rundir.fold_dir(config.run, member, fold)
    directory.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(rundir.lock_file(directory), timeout=0):
            if rundir.is_done(directory):  # by another process, since the list of jobs was made
                tell("held")
                return
            clear_temporaries(directory)
            preprocess = load_preprocess(rundir.preprocess_json(config.run, member))
            head = None
            if probes(settings):
                heads = load_heads(rundir.probe_file(config.run, member))
                head = heads.weights[fold], heads.biases[fold]
            seconds = fit(
                directory,
                member=member,
                fold=fold,
                create=partial(make_model, config, backbone, len(samples.classes), fold),
                preprocess=preprocess,
                data=labelled(config, samples, folds, preprocess, opened),
                settings=settings,
                numerics=load_numerics(rundir.numerics_json(config.run, member)),
                head=head,
                views=tested_views(config, backbone),
                speeds=allowed_speeds(config, member),
                eval_batch=config.tta.batch_size,
                seed=config.seed,
                device=device,
                report=partial(tell, "progress"),
                say=partial(tell, "said"),
            )
        tell("done", seconds)
    except Timeout:
        tell("held")
    except RunFailure as error:
        tell("failed", str(error))
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        if device.type == "cuda":
            torch.cuda.empty_cache()
        tell("failed", f"{member} fold {fold}: out of memory in evaluation; lower tta.batch_size or its image_size")


def _images(config: Config, job: Job, folds: np.ndarray) -> int:
    return int((folds != job[1]).sum()) * train_settings(config, named(config, job[0])).epochs

"""Which backbone x fold jobs a run still lacks, and running them here: in this process, or side by side in several."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from ensemble.config import Backbone, Config
from ensemble.data.contents import with_digests
from ensemble.device import choose_device, free_cached_memory, keep_freed_memory
from ensemble.errors import RunFailure
from ensemble.events import Events
from ensemble.files.claims import free_abandoned, holder_of
from ensemble.files.mirror import require_writable
from ensemble.inference.views import expand
from ensemble.launch.engine import LOCAL, Engine
from ensemble.launch.jobs import Outcome, Work
from ensemble.launch.local import run_here, run_side_by_side
from ensemble.launch.slots import Slot, choose_slots, describe_slots
from ensemble.plural import pluralize
from ensemble.progress import duration
from ensemble.run import Fold, Run
from ensemble.stop import safe_points
from ensemble.trackers.listener import tracked
from ensemble.train.clock import Clock
from ensemble.train.ending import Running, kept, near_seconds, wait_for
from ensemble.train.enough import enough_epochs
from ensemble.train.fine_tuning import can_fine_tuning_pay
from ensemble.train.lengths import images_of, settings_of
from ensemble.train.losses import row_weights
from ensemble.train.members import check_backbone, open_member
from ensemble.train.mend import reopen_damaged
from ensemble.train.monitor import Monitor
from ensemble.train.packing import group_by_gpus
from ensemble.train.pixels import OpenPixels
from ensemble.train.prepare import (
    cached_pixels,
    check_views_of,
    forget_slow,
    prepare,
    unfinished,
    why_unprepared,
)
from ensemble.train.probe import LastFeatures
from ensemble.train.rows import Rows
from ensemble.train.setup import check_contents, open_run, read_data
from ensemble.train.waiting import Sharing, failure_stamps, free_jobs, has_failed_elsewhere, is_held, unless_failed
from ensemble.train.work import run_job

if TYPE_CHECKING:
    from ensemble.launch.ray.cluster import Cluster


def train_folds(config: Config, events: Events, engine: Engine = LOCAL, waits: bool = False) -> list[str]:
    """Train every backbone on every fold that the run lacks; a finished fold is left as it is.

    engine: what runs the jobs (`parse_engine`); of SLURM see `on_slurm`.
    waits: for the jobs that other processes hold, in case that one of those dies, as the workers of a cluster do.
    Returns one line for each job that failed; the others are trained all the same. Raises UserError before anything
    is trained if the data, a backbone or the run directory does not fit.
    """
    if engine.name == "local":
        choose_slots(config.workers, choose_device(), 1, config.gpus_per_job)  # too few GPUs: nothing is begun
    with tracked(Run(config.run), trackers_of(config, waits), events) as events:
        if engine.name != "ray":
            return train_members(config, open_rows(config, events), events, waits=waits)
        from ensemble.launch.ray.cluster import open_cluster
        from ensemble.train.on_ray import require_alike

        with open_cluster(engine.address) as cluster:
            require_alike(config, cluster)
            return train_members(config, open_rows(config, events), events, cluster)


def trackers_of(config: Config, waits: bool = False) -> tuple[str, ...]:
    """The trackers that this process sends the run to. A worker of a cluster (waits) is one of many, and sends nothing:
    whoever follows the workers does, or the next command on the run."""
    return () if config.log is None or waits else config.log.to


def train_members(
    config: Config, rows: Rows, events: Events, cluster: "Cluster | None" = None, waits: bool = False
) -> list[str]:
    """As `train_folds`, of a run that is there, whose members have been opened (`open_member`)."""
    members = [Run(config.run).member(backbone.name) for backbone in config.backbone]
    every = [member.fold(n) for member in members for n in range(rows.fold_count)]
    return train_jobs(config, rows, every, events, cluster, waits)


def train_jobs(
    config: Config,
    rows: Rows,
    every: Sequence[Fold],
    events: Events,
    cluster: "Cluster | None" = None,
    waits: bool = False,
) -> list[str]:
    """Train those of the jobs (folds, or refits: then no row is in a fold) that are not done yet. Returns one line for
    each that failed. cluster: of Ray, where they run; None: here. waits: as in `train_folds`."""
    device = choose_device()
    keep_freed_memory()
    jobs = [job for job in every if not job.is_done()]
    images = f"{pluralize(rows.labelled_count, 'image')}, {pluralize(len(rows.classes), 'class', 'classes')}"
    done = len(every) - len(jobs)
    events.message(
        f"{images}; {pluralize(len(every), 'job')}, {done} of them done; on {device if cluster is None else 'Ray'}"
    )
    if not jobs:
        return []
    before = failure_stamps(jobs)
    running = Running(near_seconds=near_seconds())
    with safe_points(partial(wait_for, running), partial(kept, every, running)) as asked:
        backbones = [backbone for backbone in config.backbone if backbone.name in {job.member.name for job in jobs}]
        trained = [job for job in jobs if settings_of(config, job).strategy != "probe"]
        _expect(config, rows, trained, running)
        if cluster is not None:
            _warn_of_changes(config, rows, events)
            clock = Clock({job: images_of(config, rows, job) for job in trained})
            return _train_on_ray(config, rows, backbones, cluster, Monitor(clock, running, asked, events))
        open_pixels = _open_pixels(config, rows, backbones, events)
        slots = choose_slots(config.workers, device, len(trained), config.gpus_per_job)
        threads = slots[0].threads_each
        rates: dict[str, float] = {}
        last_features: LastFeatures = {}
        failed: dict[str, str] = {}
        for backbone in backbones:
            try:
                rates |= prepare(config, backbone, rows, open_pixels, device, threads, events, last_features)
            except (RunFailure, RuntimeError) as error:
                failed[backbone.name] = f"{backbone.name}: {why_unprepared(error)}"
                events.message(f"failed: {failed[backbone.name]}")
                for job in jobs if waits else ():
                    if job.member.name == backbone.name and not is_held(job):
                        job.note_failure(failed[backbone.name])
        last_features.clear()  # training needs the memory
        free_cached_memory(device)  # and so do its processes
        trained = [job for job in trained if job.member.name not in failed]
        if not trained:
            _advise_on_fine_tuning(config, rows, events)
            return list(failed.values())
        rates = {name: rate * slots[0].processes for name, rate in rates.items()}
        clock = Clock({job: images_of(config, rows, job) for job in trained}, rates)
        monitor = Monitor(clock, running, asked, events)
        sharing = Sharing(Run(config.run), before) if waits else None

        def train(jobs: Sequence[Fold]) -> list[Fold]:
            """Returns those that others hold."""
            held = []
            clock.left |= {job: images_of(config, rows, job) for job in jobs}
            for gpus_per_job, group in group_by_gpus(config, rows, jobs, device, clock, events):
                slots = choose_slots(config.workers, device, len(group), gpus_per_job)
                clock.parallel = len(slots)
                time_left = duration(clock.remaining())
                events.message(f"{pluralize(len(group), 'job')} to train, {describe_slots(slots)}: about {time_left}")
                events.progress("starting to train", clock.done, clock.total)
                held += _train(config, rows, group, slots, open_pixels, monitor, sharing)
            return held

        held = train(trained)
        if sharing is not None:
            for free in free_jobs(held, sharing, monitor):
                train(free)
        for backbone in backbones if rows.fold_count else []:  # refits have no held-out rows
            enough = enough_epochs(Run(config.run).member(backbone.name))
            for line in (enough, forget_slow(config, backbone, device, threads)):
                if line is not None:
                    events.message(line)
        return [*failed.values(), *monitor.failures]


def _train_on_ray(
    config: Config, rows: Rows, backbones: Sequence[Backbone], cluster: "Cluster", monitor: Monitor
) -> list[str]:
    """As `train_jobs`, of the jobs that the clock knows."""
    from ensemble.train.on_ray import train_on_ray

    train_on_ray(config, rows, backbones, cluster, monitor)
    if not monitor.clock.left:
        _advise_on_fine_tuning(config, rows, monitor.events)
    elif rows.fold_count:
        for backbone in backbones:
            line = enough_epochs(Run(config.run).member(backbone.name))
            if line is not None:
                monitor.events.message(line)
    return monitor.failures


def _advise_on_fine_tuning(config: Config, rows: Rows, events: Events) -> None:
    members = [Run(config.run).member(backbone.name) for backbone in config.backbone]
    advice = can_fine_tuning_pay(members, rows) if rows.fold_count else None
    if advice is not None:
        events.message(advice)


def open_rows(config: Config, events: Events) -> Rows:
    """The rows of the run, which is made where it is not there yet; its members likewise. Raises UserError for all that
    does not fit."""
    run = Run(config.run)
    require_writable(run.path)
    samples = read_data(config, events)
    reopen_damaged([run.member(backbone.name) for backbone in config.backbone], events)
    expand(config.tta.views)  # a misspelt view is reported first, since it needs no network
    expected = int(samples.folds.max()) + 1 if samples.folds is not None else config.folds.k
    for number, backbone in enumerate(config.backbone):
        events.progress("trying the backbones", number, len(config.backbone))
        if unfinished(run.member(backbone.name), expected):
            check_backbone(config, backbone, len(samples.classes), events)
        check_views_of(config, backbone)
    if config.data.cache != "off" or (config.folds.near_copies and not run.is_begun()):
        samples = with_digests(samples, config.data.cache, events)
    folds = open_run(config, samples, events)
    assert samples.labels is not None
    rows = Rows(
        samples.ids, tuple(samples.paths), samples.labels, folds, samples.classes, samples.weights, samples.digests
    )  # fmt: skip
    for backbone in config.backbone:
        open_member(config, backbone, rows.ids, folds, events)
    for fold in range(rows.fold_count):
        row_weights(rows.weights, rows.train_rows(fold))  # weights that are all 0 in a fold's part fail now
    return rows


def _open_pixels(config: Config, rows: Rows, backbones: Sequence[Backbone], events: Events) -> OpenPixels:
    """The pixels of these backbones. Warns of images that have changed since the run began."""
    open_pixels = cached_pixels(config, rows, backbones, events)
    _warn_of_changes(config, rows, events)
    return open_pixels


def _warn_of_changes(config: Config, rows: Rows, events: Events) -> None:
    """Warn of images that have changed since the run began, where their digests are known."""
    labelled = rows.labelled()
    if config.data.cache != "off" and labelled.digests is not None:
        check_contents(Run(config.run), labelled.ids.tolist(), labelled.digests, events)


def _train(
    config: Config,
    rows: Rows,
    jobs: Sequence[Fold],
    slots: Sequence[Slot],
    open_pixels: OpenPixels,
    monitor: Monitor,
    sharing: Sharing | None,
) -> list[Fold]:
    """Run the jobs. Those that another process has are tried once more at the end. Returns those that it still has."""

    def end(job: Fold, outcome: Outcome) -> None:
        if sharing is not None and outcome.error is not None:
            job.note_failure(outcome.error)
        monitor.end(job, outcome)

    def run(jobs: Sequence[Fold]) -> list[Fold]:
        """Returns those that others hold."""
        work: Work = partial(run_job, config, rows, open_pixels if len(slots) == 1 else {})
        if sharing is not None:
            work = partial(unless_failed, work, sharing.stamps)
        if len(slots) > 1:
            run_side_by_side(jobs, slots, work, monitor.listen, end)
        else:
            run_here(jobs, slots[0], work, monitor.listen, end)
        Run(config.run).refresh()
        locked = [job for job in monitor.locked if not (job.is_done() or has_failed_elsewhere(job, sharing))]
        monitor.locked.clear()
        return locked

    held = run(jobs)
    if held and sharing is None:
        free_abandoned((job.claim_file for job in held), monitor.wait)
    held = run(held) if held else []
    for job in held if sharing is None else ():
        holder = holder_of(job.claim_file) or "another process"
        monitor.events.message(f"{job}: locked by {holder}; skipped")
    return held


def _expect(config: Config, rows: Rows, jobs: Sequence[Fold], running: Running) -> None:
    """Take in how long an epoch of each job is."""
    for job in jobs:
        settings, count_rows = settings_of(config, job), len(rows.train_rows(job.number))
        running.epochs[job], running.batches[job] = settings.epochs, min(settings.batch_size, count_rows)
        running.images[job] = count_rows // running.batches[job] * running.batches[job]

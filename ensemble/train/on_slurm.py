"""A run whose workers SLURM starts: how many are submitted, and following them to the end."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from ensemble.config import Config
from ensemble.events import Events
from ensemble.launch import slurm
from ensemble.launch.planned import count_workers
from ensemble.launch.slurm_queue import Queue, follow
from ensemble.plural import pluralize
from ensemble.run import Fold, Run
from ensemble.stop import safe_points
from ensemble.trackers.listener import tracked
from ensemble.train.ending import Running, kept
from ensemble.train.follow import Followed
from ensemble.train.jobs import open_rows, trackers_of
from ensemble.train.lengths import settings_of
from ensemble.train.rows import Rows
from ensemble.train.waiting import failure_stamps, is_held


def train_on_slurm(config: Config, request: slurm.Request, command: tuple[str, ...], events: Events) -> list[str]:
    """Submit as many workers as the jobs that are left can use, each of which runs this command of ens, and follow
    them.

    Returns one line for each job that failed. Raises UserError before anything is submitted if the data, a backbone or
    the run directory does not fit, or with what sbatch says.
    """
    slurm.require_slurm()
    at_a_time = slurm.jobs_at_a_time(config, request)
    rows = open_rows(config, events)
    members = [Run(config.run).member(backbone.name) for backbone in config.backbone]
    every = [member.fold(number) for member in members for number in range(rows.fold_count)]
    followed = _followed(config, rows, [job for job in every if not job.is_done()], events)
    events.message(f"{pluralize(len(every), 'job')}, {len(every) - len(followed.epochs)} of them done")
    if not followed.epochs:
        return []
    submission = slurm.plan(config, request, command)[0]
    workers = _Workers(Queue(submission, events), at_a_time, request.most)
    with tracked(Run(config.run), () if request.detaches else trackers_of(config), events) as listener:
        return _follow(replace(followed, events=listener), workers, every, request.detaches)


@dataclass
class _Workers:
    """The run's workers.

    queue: of SLURM
    at_a_time: jobs that each worker trains side by side
    most: workers at most
    tried: the jobs that workers were submitted for
    """

    queue: Queue
    at_a_time: int
    most: int | None
    tried: set[Fold] = field(default_factory=set)

    def submit_for(self, jobs: Sequence[Fold]) -> None:
        """Submit the workers that these jobs lack: for those that nobody holds, and no more than the queue leaves to be
        done."""
        free = [job for job in jobs if not is_held(job)]
        lacking = count_workers(len(jobs), self.at_a_time) - len(self.queue.states)
        count = min(lacking, count_workers(len(free), self.at_a_time))
        if self.most is not None:
            count = min(count, self.most - len(self.queue.states))
        self.tried.update(free)
        if count > 0:
            self.queue.submit(count)
        elif jobs:
            held = f"{len(jobs) - len(free)} jobs are held"
            self.queue.events.message(f"no worker submitted: {self.queue.describe()}; {held}")


def _follow(followed: Followed, workers: _Workers, every: Sequence[Fold], detaches: bool) -> list[str]:
    """Submit what workers are lacking, and show the jobs and the workers until all jobs have ended, or nobody is left
    to train them. At Ctrl-C the workers that were submitted here are asked to end, and waited for."""

    def step() -> str:
        return f"the safe points of {pluralize(len(workers.queue.submitted), 'worker')}"

    def is_left(workers_in_words: str) -> bool:
        left[:] = followed.look()
        if left:
            followed.show(workers_in_words)
        return bool(left)

    left: list[Fold] = []
    running = Running(dict(followed.epochs), dict(followed.images), dict.fromkeys(followed.epochs, 1))
    with safe_points(step, partial(kept, every, running)) as asked:
        workers.queue.look()
        workers.submit_for(list(followed.epochs))
        if not detaches:
            follow(workers.queue, asked, is_left, lambda: _end_without_workers(followed, workers, left))
    return list(followed.failures.values())


def _end_without_workers(followed: Followed, workers: _Workers, left: Sequence[Fold]) -> None:
    """What nobody holds and no worker was submitted for is submitted; what workers have left behind has failed."""
    free = [job for job in left if not (is_held(job) or job.is_done())]
    if any(job not in workers.tried for job in free):
        workers.submit_for(left)
        return
    for job in free:
        followed.fail(job, f"{job}: its workers ended before it did; the same command submits new ones")


def _followed(config: Config, rows: Rows, jobs: Sequence[Fold], events: Events) -> Followed:
    settings = {job: settings_of(config, job) for job in jobs}
    epochs = {job: 1 if each.strategy == "probe" else each.epochs for job, each in settings.items()}
    images = {job: len(rows.train_rows(job.number)) for job in jobs}
    return Followed(epochs, images, failure_stamps(jobs), events)

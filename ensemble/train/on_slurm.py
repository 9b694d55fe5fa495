"""A run whose workers SLURM starts: how many are submitted, and following them to the end."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ensemble.config import Config, train_settings
from ensemble.events import Events
from ensemble.launch import slurm
from ensemble.launch.planned import count_workers
from ensemble.launch.slurm_worker import STOPPED
from ensemble.plural import pluralize
from ensemble.run import Fold, Run
from ensemble.stop import safe_points
from ensemble.train.ending import Running, kept
from ensemble.train.follow import Followed
from ensemble.train.jobs import open_rows
from ensemble.train.prepare import backbone_named
from ensemble.train.rows import Rows
from ensemble.train.waiting import failure_stamps, is_held

FILES_SECONDS = 5.0  # between two looks at the run's files
QUEUE_SECONDS = 20.0  # between two questions to SLURM, whose daemon answers all users
END_SECONDS = 60.0  # for workers to end, after the time that they have for their safe point


def train_on_slurm(config: Config, request: slurm.Request, command: tuple[str, ...], events: Events) -> list[str]:
    """Submit as many workers as the jobs that are left can use, each of which runs this command of ens, and follow
    them.

    Returns one line for each job that failed. Raises UserError before anything is submitted if the data, a backbone or
    the run directory does not fit, or with what sbatch says.
    """
    slurm.require_slurm()
    rows = open_rows(config, events)
    members = [Run(config.run).member(backbone.name) for backbone in config.backbone]
    every = [member.fold(number) for member in members for number in range(rows.fold_count)]
    followed = _followed(config, rows, [job for job in every if not job.is_done()], events)
    events.message(f"{pluralize(len(every), 'job')}, {len(every) - len(followed.epochs)} of them done")
    if not followed.epochs:
        return []
    submission = slurm.plan(config, request, command)[0]
    workers = _Workers(submission, slurm.jobs_at_a_time(config, request), request.most, events)
    return _follow(followed, workers, every, request.detaches)


@dataclass
class _Workers:
    """The run's workers in SLURM's queue.

    at_a_time: jobs that each trains side by side
    most: workers at most
    submitted: submitit's jobs of those that were submitted here, by their id, as long as they have not ended
    states: of all workers that have not ended, by their id
    tried: the jobs that workers were submitted for
    """

    submission: slurm.Submission
    at_a_time: int
    most: int | None
    events: Events
    submitted: dict[str, Any] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    tried: set[Fold] = field(default_factory=set)
    _is_silent: bool = False

    def look(self) -> None:
        """Ask SLURM, and say how workers that were submitted here have ended, if not well."""
        states = slurm.states(self.submission)
        if states is None:
            if not self._is_silent:
                self.events.message("warning: SLURM does not answer (squeue); the workers go on, and are asked again")
            self._is_silent = True
            return
        self._is_silent = False
        self.states = {name: state for name, state in states.items() if not slurm.is_ended(state)}
        for name, job in list(self.submitted.items()):
            if slurm.is_ended(states.get(name)):
                del self.submitted[name]
                result = slurm.result_of(job)
                if result is None:
                    ending = f"ended as {states.get(name, 'nothing that SLURM still knows')}; see {job.paths.stdout}"
                    self.events.message(f"worker {name}: {ending}")
                elif result["status"] not in (0, STOPPED):
                    self.events.message(f"worker {name}: {result['error'] or f'failed; see {job.paths.stdout}'}")

    def submit_for(self, jobs: Sequence[Fold]) -> bool:
        """Submit the workers that these jobs lack: for those that nobody holds, and no more than the queue leaves to be
        done. Returns whether there are any."""
        free = [job for job in jobs if not is_held(job)]
        lacking = count_workers(len(jobs), self.at_a_time) - len(self.states)
        count = min(lacking, count_workers(len(free), self.at_a_time))
        if self.most is not None:
            count = min(count, self.most - len(self.states))
        self.tried.update(free)
        if count <= 0:
            if jobs:
                self.events.message(f"no worker submitted: {self.describe()}; {len(jobs) - len(free)} jobs are held")
            return False
        submitted = {job.job_id: job for job in slurm.submit(self.submission, count)}
        self.submitted |= submitted
        self.states |= dict.fromkeys(submitted, "PENDING")
        first = next(iter(submitted)).partition("_")[0]
        self.events.message(
            f"submitted {pluralize(count, 'worker')} (job {first}, {self.submission.name}) for "
            f"{self.submission.minutes} minutes at a time; logs are in {self.submission.folder}"
        )
        return True

    def ask_to_end(self) -> None:
        """Ask those that were submitted here."""
        slurm.ask_to_end({name: state for name, state in self.states.items() if name in self.submitted})

    def describe(self) -> str:
        """How many there are in each state."""
        counts = Counter(state.lower() for state in self.states.values())
        return "workers: " + (", ".join(f"{count} {state}" for state, count in counts.items()) or "none")


def _follow(followed: Followed, workers: _Workers, every: Sequence[Fold], detaches: bool) -> list[str]:
    """Submit what workers are lacking, and show the jobs and the workers until all jobs have ended, or nobody is left
    to train them. At Ctrl-C the workers that were submitted here are asked to end, and waited for."""

    def step() -> str:
        return f"the safe points of {pluralize(len(workers.submitted), 'worker')}"

    running = Running(dict(followed.epochs), dict(followed.images), dict.fromkeys(followed.epochs, 1))
    asked_at: float | None = None
    with safe_points(step, partial(kept, every, running)) as asked:
        workers.look()
        workers.submit_for(list(followed.epochs))
        if detaches:
            return []
        looked_at = time.monotonic()
        while left := followed.look():
            followed.show(workers.describe())
            if asked() and asked_at is None:
                asked_at = time.monotonic()
                workers.ask_to_end()
            if time.monotonic() - looked_at >= QUEUE_SECONDS or asked():
                workers.look()
                looked_at = time.monotonic()
            if asked_at is not None:
                patience = workers.submission.options["signal_delay_s"] + END_SECONDS
                if not workers.submitted or time.monotonic() - asked_at > patience:
                    raise KeyboardInterrupt
            elif not workers.states:
                _end_without_workers(followed, workers, left)
            time.sleep(FILES_SECONDS)
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
    settings = {job: train_settings(config, backbone_named(config, job.member.name)) for job in jobs}
    epochs = {job: 1 if each.strategy == "probe" else each.epochs for job, each in settings.items()}
    images = {job: len(rows.train_rows(job.number)) for job in jobs}
    return Followed(epochs, images, failure_stamps(jobs), events)

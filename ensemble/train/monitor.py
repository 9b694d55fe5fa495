"""The jobs as the process that started them sees them: how far they are, which failed, and where they may end."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ensemble.events import Events
from ensemble.launch.jobs import Outcome
from ensemble.progress import duration
from ensemble.run import Fold
from ensemble.run.shapes import Epoch
from ensemble.train.clock import Clock
from ensemble.train.ending import Running, may_end


@dataclass(frozen=True)
class Monitor:
    """What is known of all jobs.

    clock: what is left of them, and how long it takes.
    running: what is known of those that run.
    asked: says whether the user asked to end.
    events: is told of everything.
    failures: a line for each job that failed.
    locked: jobs that another process has.
    """

    clock: Clock
    running: Running
    asked: Callable[[], bool]
    events: Events
    failures: list[str] = field(default_factory=list)
    locked: list[Fold] = field(default_factory=list)

    def listen(self, job: Fold) -> Events:
        """The listener of one job."""
        return _JobEvents(job, self)

    def end(self, job: Fold, outcome: Outcome) -> None:
        """Take in how a job ended. Raises KeyboardInterrupt at a safe point, if the user asked to end."""
        self.clock.left[job] = 0
        self.running.left.pop(job, None)
        if outcome.is_locked:
            self.locked.append(job)
        else:
            if outcome.error is None:
                self.events.message(f"{job}: done in {duration(outcome.seconds)}")
            else:
                self.failures.append(outcome.error)
                self.events.message(f"failed: {outcome.error}")
            self.events.job_finished(job.member.name, job.number, outcome.seconds, outcome.error)
        self.require_on()

    def advance(self, job: Fold, text: str, left: int) -> None:
        """Take in how many images a job has still to train on, and show how far all jobs are."""
        self.clock.update(job, left)
        self.running.left[job] = left
        self.running.rates.update(self.clock.rates())
        pace = self.clock.describe(job)
        self.events.progress(f"{text}  {pace}" if pace else text, self.clock.done, self.clock.total)

    def wait(self, seconds: float) -> None:
        """Wait for processes on other machines, which may have died with their jobs."""
        text = "waiting for a sign of life of those that have the other jobs"
        self.events.progress(text, self.clock.done, self.clock.total)
        time.sleep(seconds)
        self.require_on()

    def require_on(self) -> None:
        """Raise KeyboardInterrupt if the user asked to end, and no epoch is waited for."""
        if self.asked() and may_end(self.running):
            raise KeyboardInterrupt


@dataclass(frozen=True)
class _JobEvents:
    """Listens to one job, whose progress is counted in images of its own."""

    job: Fold
    monitor: Monitor

    def message(self, line: str) -> None:
        self.monitor.events.message(line)
        self.monitor.require_on()

    def progress(self, text: str, done: float, total: float) -> None:
        self.monitor.advance(self.job, text, int(total - done))
        self.monitor.require_on()

    def epoch_finished(self, member: str, fold: int, epoch: Epoch) -> None:
        self.monitor.events.epoch_finished(member, fold, epoch)
        self.monitor.require_on()

    def job_finished(self, member: str, fold: int, seconds: float, error: str | None) -> None:
        self.monitor.events.job_finished(member, fold, seconds, error)
        self.monitor.require_on()

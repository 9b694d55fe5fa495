"""Jobs that others run, as the files of the run show them: how far they are, and how each ended."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ensemble.errors import UserError
from ensemble.events import Events
from ensemble.progress import duration
from ensemble.run import Fold
from ensemble.train.waiting import Stamps, failed_since


@dataclass
class Followed:
    """Jobs that are followed from now on.

    epochs: that each job takes
    images: of an epoch of each job
    stamps: `failure_stamps` of the jobs, from before their workers began
    events: is told of every epoch, and of each job that ended
    seen: epochs of each job so far
    failures: why a job failed
    """

    epochs: Mapping[Fold, int]
    images: Mapping[Fold, int]
    stamps: Stamps
    events: Events
    seen: dict[Fold, int] = field(default_factory=dict)
    failures: dict[Fold, str] = field(default_factory=dict)
    _ended: set[Fold] = field(default_factory=set)
    _latest: str = ""  # the newest epoch, in words

    def look(self) -> list[Fold]:
        """Read what is new. Returns the jobs that have neither ended nor failed."""
        for job in self.epochs:
            if job in self._ended:
                continue
            is_done = job.is_done()
            self._read_log(job)
            if is_done:
                self._end(job, job.read_done().get("seconds", 0.0), None)
            elif failed_since(job, self.stamps):
                self.fail(job, job.read_failure())
        return [job for job in self.epochs if job not in self._ended]

    def fail(self, job: Fold, error: str) -> None:
        """Take in that a job failed."""
        self.failures[job] = error
        self._end(job, 0.0, error)

    def show(self, workers: str) -> None:
        """Show how far all jobs are. workers: what there is of them, in words."""
        total = sum(epochs * self.images[job] for job, epochs in self.epochs.items())
        trained = {job: self.epochs[job] if job in self._ended else self.seen.get(job, 0) for job in self.epochs}
        done = sum(epochs * self.images[job] for job, epochs in trained.items())
        ended = f"{len(self._ended)} of {len(self.epochs)} jobs ended"
        self.events.progress("; ".join(filter(None, (ended, workers, self._latest))), done, total)

    def _end(self, job: Fold, seconds: float, error: str | None) -> None:
        self._ended.add(job)
        self.events.message(f"{job}: done in {duration(seconds)}" if error is None else f"failed: {error}")
        self.events.job_finished(job.member.name, job.number, seconds, error)

    def _read_log(self, job: Fold) -> None:
        if not job.log_file.is_file():
            return
        try:
            log = job.read_log()
        except (UserError, FileNotFoundError):  # between two files that a worker writes
            return
        before = self.seen.get(job, 0)
        for line in log[before:]:
            self.events.epoch_finished(job.member.name, job.number, line)
        if len(log) > before:
            loss = f"  loss {log[-1]['loss']:.3f}" if "loss" in log[-1] else ""
            self._latest = f"{job} epoch {len(log)}/{self.epochs[job]}{loss}"
        self.seen[job] = len(log)

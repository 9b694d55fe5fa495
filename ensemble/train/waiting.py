"""Workers that share a run (`ens train-folds --wait`): which jobs failed meanwhile, and waiting for those that others
hold, in case that one of those dies."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ensemble.events import Events
from ensemble.files.claims import Taken, claimed, holder_of
from ensemble.launch.jobs import Outcome, Work
from ensemble.launch.slots import Slot
from ensemble.plural import pluralize
from ensemble.run import Fold, Run
from ensemble.train.monitor import Monitor

POLL_SECONDS = 5.0

Stamps = dict[Fold, int | None]  # when a job was last noted as failed, by the clock of its file system; None: never


@dataclass(frozen=True)
class Sharing:
    """What a worker of a cluster knows of the others.

    run: that they share
    stamps: of its jobs, when this worker began
    """

    run: Run
    stamps: Stamps


def failure_stamps(jobs: Sequence[Fold]) -> Stamps:
    """Of each job, for `failed_since`."""
    return {job: _stamp(job) for job in jobs}


def failed_since(job: Fold, stamps: Stamps) -> bool:
    """True if a worker noted that the job failed after `stamps` were taken."""
    return _stamp(job) not in (None, stamps.get(job))


def has_failed_elsewhere(job: Fold, sharing: Sharing | None) -> bool:
    """True if another worker failed at the job since this one began: the others don't try it again. What failed earlier
    they do: its cause may be mended."""
    return sharing is not None and failed_since(job, sharing.stamps)


def unless_failed(work: Work, stamps: Stamps, job: Fold, slot: Slot, events: Events) -> Outcome:
    """As `work`; a job at which another worker has failed meanwhile is left to it."""
    return Outcome(is_locked=True) if failed_since(job, stamps) else work(job, slot, events)


def _stamp(job: Fold) -> int | None:
    try:
        return job.failure_json.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def is_held(job: Fold) -> bool:
    """True while another process has the job, which may be alive. Of one on another machine that is known a minute
    after the first time that this is asked."""
    if holder_of(job.claim_file) is None:
        return False
    try:
        with claimed(job.claim_file):
            return False
    except Taken:
        return True


def free_jobs(jobs: Sequence[Fold], sharing: Sharing, monitor: Monitor) -> Iterator[list[Fold]]:
    """Wait until each of these jobs, which others hold, is done or failed, and yield those whose worker died meanwhile.

    Only one worker of a run waits, for each holds a GPU; the others are told so, and end.
    """

    def left() -> list[Fold]:
        sharing.run.refresh()
        return [job for job in jobs if not (job.is_done() or has_failed_elsewhere(job, sharing))]

    if not left():
        return
    held = f"{pluralize(len(left()), 'job')} held by other workers"
    try:
        with claimed(sharing.run.path / ".waiting.claim"):
            monitor.events.message(f"{held}: waiting, in case that one of them dies")
            while there := left():
                monitor.require_on()
                if free := [job for job in there if not is_held(job)]:
                    yield free
                else:
                    time.sleep(POLL_SECONDS)
    except Taken:
        monitor.events.message(f"{held}, and another one waits for them: nothing left to do")

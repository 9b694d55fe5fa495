"""Where training may end when it is asked to: after an epoch, since that is what is saved. One that takes longer than
NEAR_SECONDS is not waited for, and begins anew; saving in the middle of one would cost every epoch."""

from dataclasses import dataclass, field
from pathlib import Path

from ensemble import rundir
from ensemble.train.clock import Job

NEAR_SECONDS = 10.0
REPORTED = 8  # steps: a job tells as often how far it is


@dataclass(frozen=True)
class Running:
    """What is known of the jobs that are being trained. epochs: of each job; images, batches: of an epoch and a step;
    left: images still to train on, of those that run; rates: images a second of each backbone; aims: what is left of a
    job where the end of its epoch is waited for."""

    epochs: dict[Job, int] = field(default_factory=dict)
    images: dict[Job, int] = field(default_factory=dict)
    batches: dict[Job, int] = field(default_factory=dict)
    left: dict[Job, int] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    aims: dict[Job, int] = field(default_factory=dict)


def wait_for(running: Running) -> str | None:
    """Decide which jobs are let finish their epoch, and say which; None where none is near its end."""
    words = []
    for job, left in running.left.items():
        part = left % running.images[job]
        if part <= NEAR_SECONDS * running.rates.get(job[0], 0.0):
            running.aims[job] = left - part
            epoch = running.epochs[job] - running.aims[job] // running.images[job]
            words.append(f"epoch {epoch} of {running.epochs[job]} of {job[0]} fold {job[1]}")
    return " and ".join(words) or None


def may_end(running: Running) -> bool:
    """True if no epoch is waited for any more. That one is saved is known when the next one is under way."""
    return not any(job in running.left and running.left[job] >= aim for job, aim in running.aims.items())


def kept(run: Path, jobs: list[Job], running: Running) -> str:
    """In words, what the run holds of these jobs."""
    done = sum(rundir.is_done(rundir.fold_dir(run, *job)) for job in jobs)
    words = [f"{done} of {len(jobs)} folds"]
    for job, epochs in running.epochs.items():
        directory = rundir.fold_dir(run, *job)
        log = rundir.log_file(directory)
        saved = log.read_bytes().count(b"\n") if log.is_file() else 0
        if rundir.is_done(directory) or not (saved or job in running.left):
            continue
        own = f"{saved} of {epochs} epochs of {job[0]} fold {job[1]}"
        untrained = (epochs - saved) * running.images[job]
        lost = untrained - running.left.get(job, untrained)
        words.append(own + (f" (epoch {saved + 1} begins anew)" if lost > REPORTED * running.batches[job] else ""))
    return ", ".join(words)

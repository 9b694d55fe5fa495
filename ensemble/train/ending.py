"""Where training may end when it is asked to: after an epoch, since that is what is saved. One that takes longer than
`near_seconds` is not waited for, and starts over; saving in the middle of one would slow every epoch."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from ensemble.errors import UserError
from ensemble.run import Fold
from ensemble.train.fit import REPORT_STEPS

STOP_SECONDS = "ENS_STOP_SECONDS"  # of the environment, where a cluster says long before that it will kill
NEAR_SECONDS = 10.0


@dataclass(frozen=True)
class Running:
    """What is known of the jobs that are being trained.

    epochs: of each job.
    images: of an epoch of each job.
    batches: images of a step of each job.
    left: images still to train on, of the jobs that run.
    rates: images per second of each backbone.
    aims: images left when the epoch ends that is waited for, of the jobs where one is.
    near_seconds: an epoch that ends within so many seconds is waited for.
    """

    epochs: dict[Fold, int] = field(default_factory=dict)
    images: dict[Fold, int] = field(default_factory=dict)
    batches: dict[Fold, int] = field(default_factory=dict)
    left: dict[Fold, int] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    aims: dict[Fold, int] = field(default_factory=dict)
    near_seconds: float = NEAR_SECONDS


def near_seconds() -> float:
    """How long an epoch is waited for: what the environment says, else 10 seconds. Raises UserError for what is no
    number of seconds."""
    text = os.environ.get(STOP_SECONDS, "")
    try:
        seconds = float(text) if text else NEAR_SECONDS
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise UserError(f"{STOP_SECONDS}={text}: want a number of seconds, as in {STOP_SECONDS}=60")
    return seconds


def wait_for(running: Running) -> str | None:
    """Decide which jobs may finish their epoch, and name them; None where none is near its end."""
    words = []
    for job, left in running.left.items():
        left_of_epoch = left % running.images[job]
        if left_of_epoch <= running.near_seconds * running.rates.get(job.member.name, 0.0):
            running.aims[job] = left - left_of_epoch
            epoch = running.epochs[job] - running.aims[job] // running.images[job]
            words.append(f"epoch {epoch} of {running.epochs[job]} of {job}")
    return " and ".join(words) or None


def may_end(running: Running) -> bool:
    """True if no epoch is waited for any more. That one is saved is known when the next one is under way."""
    return not any(job in running.left and running.left[job] >= aim for job, aim in running.aims.items())


def kept(jobs: Sequence[Fold], running: Running) -> str:
    """What the run holds of these jobs, in words."""
    done = sum(job.is_done() for job in jobs)
    words = [f"{done} of {len(jobs)} {jobs[0].kind}s"]
    for job, epochs in running.epochs.items():
        saved = job.log_file.read_bytes().count(b"\n") if job.log_file.is_file() else 0
        if job.is_done() or not (saved or job in running.left):
            continue
        untrained = (epochs - saved) * running.images[job]
        lost = untrained - running.left.get(job, untrained)
        starts_over = f" (epoch {saved + 1} starts over)" if lost > REPORT_STEPS * running.batches[job] else ""
        words.append(f"{saved} of {epochs} epochs of {job}{starts_over}")
    return ", ".join(words)

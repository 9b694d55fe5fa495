"""The workers of a run in SLURM's queue, from the process that submits and follows them."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ensemble.events import Events
from ensemble.launch import slurm
from ensemble.launch.slurm_worker import STOPPED
from ensemble.plural import pluralize

FILES_SECONDS = 5.0  # between two looks at the run's files
QUEUE_SECONDS = 20.0  # between two questions to SLURM, whose daemon answers all users
END_SECONDS = 60.0  # for workers to end, after the time that they have for their safe point


@dataclass
class Queue:
    """The workers of one submission's name.

    submission: what each is
    events: is told of those that are submitted, and of those that end otherwise than well
    submitted: submitit's jobs of those that were submitted here, by their id, as long as they have not ended
    states: of all workers that have not ended, by their id
    """

    submission: slurm.Submission
    events: Events
    submitted: dict[str, Any] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
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

    def submit(self, count: int) -> None:
        """Submit so many workers."""
        submitted = {job.job_id: job for job in slurm.submit(self.submission, count)}
        self.submitted |= submitted
        self.states |= dict.fromkeys(submitted, "PENDING")
        first = next(iter(submitted)).partition("_")[0]
        self.events.message(
            f"submitted {pluralize(count, 'worker')} (job {first}, {self.submission.name}) for "
            f"{self.submission.minutes} minutes at a time; logs are in {self.submission.folder}"
        )

    def ask_to_end(self) -> None:
        """Ask those that were submitted here."""
        slurm.ask_to_end({name: state for name, state in self.states.items() if name in self.submitted})

    def wait_for_end(self, seconds: float) -> None:
        """Cancel those that were submitted here and have not begun, and wait for the others. Those that have not ended
        then are asked to."""
        self.look()
        waiting = {name: state for name, state in self.states.items() if state == "PENDING" and name in self.submitted}
        slurm.ask_to_end(waiting)
        for name in waiting:
            del self.submitted[name]
        deadline = time.monotonic() + seconds
        while self.submitted and time.monotonic() < deadline:
            time.sleep(FILES_SECONDS)
            self.look()
        self.ask_to_end()

    def describe(self) -> str:
        """How many there are in each state."""
        counts = Counter(state.lower() for state in self.states.values())
        return "workers: " + (", ".join(f"{count} {state}" for state, count in counts.items()) or "none")


def follow(
    queue: Queue, asked: Callable[[], bool], is_left: Callable[[str], bool], on_empty: Callable[[], object]
) -> None:
    """Look at the files and the queue until nothing is left.

    asked: whether the workers that were submitted here are to end. They are waited for, and KeyboardInterrupt is raised
    is_left: looks at the files, and shows how far they are; is told how many workers there are, in words
    on_empty: is called when something is left, and no worker
    """
    asked_at: float | None = None
    looked_at = time.monotonic()
    while is_left(queue.describe()):
        if asked() and asked_at is None:
            asked_at = time.monotonic()
            queue.ask_to_end()
        if time.monotonic() - looked_at >= QUEUE_SECONDS or asked():
            queue.look()
            looked_at = time.monotonic()
        if asked_at is not None:
            patience = queue.submission.options["signal_delay_s"] + END_SECONDS
            if not queue.submitted or time.monotonic() - asked_at > patience:
                raise KeyboardInterrupt
        elif not queue.states:
            on_empty()
        time.sleep(FILES_SECONDS)

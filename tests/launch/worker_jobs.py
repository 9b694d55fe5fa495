"""What the workers of test_local.py do. They import this alone: all that training needs would take them seconds."""

import os
import signal
import threading
import time
from dataclasses import dataclass

import torch

from ensemble.errors import RunFailure, UserError
from ensemble.launch.jobs import Outcome

DEATHS = {"resnet fold 0 epoch 3/4": 1, "resnet fold 1 epoch 2/4": 2}


def work(case, job, slot, events):
    """`case` says what."""
    is_blocked = signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    events.message(f"began {is_blocked} {torch.get_num_threads()} {slot.device}")
    if job.number == 1:
        time.sleep(600)
    if case == "bug":
        raise ZeroDivisionError("a bug")
    if case == "user":
        raise UserError(f"{job.member.name}.png: not a readable image")
    if case == "failure":
        raise RunFailure("a failure")
    if case == "disk":
        raise OSError(28, "could not be written (No space left on device)", "a/state/last.safetensors")
    return Outcome()


def die_after_the_first(job, slot, events):
    """The first process ends as soon as it has nothing to do; the second one lives."""
    events.message("began")
    if job.number == 0:
        threading.Thread(target=lambda: (time.sleep(0.3), os.kill(os.getpid(), signal.SIGKILL)), daemon=True).start()
    return Outcome()


@dataclass
class Dying:
    """Events of a process that is killed so often at the end of an epoch, before it is saved."""

    events: object
    folder: object

    def progress(self, text, done, total):
        self.events.progress(text, done, total)
        for place, often in DEATHS.items():
            if text.startswith(place):
                deaths = self.folder / f"deaths of {place[12]}"
                with deaths.open("ab") as file:
                    if file.tell() < often:
                        file.write(b".")
                        file.close()
                        os.kill(os.getpid(), signal.SIGKILL)

    def __getattr__(self, name):
        return getattr(self.events, name)


def run_job_and_die(config, rows, open_pixels, job, slot, events):
    from ensemble.train.work import run_job

    return run_job(config, rows, open_pixels, job, slot, Dying(events, config.run))

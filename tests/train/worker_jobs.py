"""What the workers of test_workers.py do. They import this alone: all that training needs would take them seconds."""

import os
import signal
import threading
import time

import torch

from ensemble.errors import RunFailure, UserError


def work(case, job, slot, tell):
    """`case` says what."""
    member, fold = job
    tell("began", signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []), torch.get_num_threads(), slot.device)
    if fold == 1:
        time.sleep(600)
    if case == "bug":
        raise ZeroDivisionError("a bug")
    if case == "user":
        raise UserError(f"{member}.png: not a readable image")
    if case == "failure":
        raise RunFailure("a failure")
    if case == "disk":
        raise OSError(28, "could not be written (No space left on device)", "a/state/last.safetensors")


def die_after_the_first(job, slot, tell):
    """The first process ends as soon as it has nothing to do; the second one lives."""
    tell("began", os.getpid())
    if job == ("a", 0):
        threading.Thread(target=lambda: (time.sleep(0.3), os.kill(os.getpid(), signal.SIGKILL)), daemon=True).start()

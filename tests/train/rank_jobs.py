"""What the processes of test_ranks.py do: a job of test_fit.py, and what goes wrong in one of them."""

import os
import signal

import torch
from test_fit import CPU, EXACT, NET, PLAIN, PREPROCESS, fold_in, made

from ensemble.config import Train
from ensemble.train.evaluate import Evaluation
from ensemble.train.fit import fit
from ensemble.train.job import Job


def train(folder, net, settings, trouble, ranks, events):
    """Train fold 0; the second process may have trouble."""
    torch.set_num_threads(1)
    if trouble and ranks.rank == 1:
        trouble(folder)
    settings = Train(**{"strategy": "scratch", "epochs": 3, "batch_size": 8, "lr": 0.01, **settings})
    evaluation = Evaluation(PREPROCESS, ("hflip", "identity"), 16, CPU)
    job = Job(fold_in(folder), NET[net], settings, PLAIN, None, evaluation, EXACT, seed=0, ranks=ranks)
    return fit(job, made(), events)


def before_each_pass(do):
    """do(number, images): called before every forward pass in training of this process's networks, from 1."""
    passes = 0

    def before(module, inputs):
        nonlocal passes
        if module.training and hasattr(module, "pretrained_cfg"):
            passes += 1
            do(passes, inputs[0])

    torch.nn.modules.module.register_module_forward_pre_hook(before)


def little_memory(folder):
    def do(_, images):
        if len(images) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    before_each_pass(do)


def no_memory(folder):
    def do(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    before_each_pass(do)


def a_bug(folder):
    def do(*_):
        raise ZeroDivisionError("a bug")

    before_each_pass(do)


def killed_once(folder):
    """In the second epoch of the first attempt."""
    killed(folder, 1)


def killed_always(folder):
    killed(folder, 99)


def killed(folder, often):
    deaths = folder / "deaths"

    def do(number, _):
        with deaths.open("ab") as file:
            if number == 5 and file.tell() < often:
                file.write(b".")
                file.flush()
                os.kill(os.getpid(), signal.SIGKILL)

    before_each_pass(do)

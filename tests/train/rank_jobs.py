"""What the processes of test_ranks.py do: a job of test_fit.py, and what goes wrong in one of them."""

import os
import signal
from dataclasses import replace

import torch
from test_fit import CPU, EXACT, NET, PLAIN, PREPROCESS, fold_in, made

from ensemble.config import Train
from ensemble.train.evaluate import Evaluation
from ensemble.train.exchange import collect, exchange
from ensemble.train.fit import fit
from ensemble.train.job import Job


def train(folder, net, settings, trouble, ranks, events):
    """Train fold 0; the second process may have trouble."""
    torch.set_num_threads(1)
    if trouble and ranks.rank == 1:
        trouble(folder)
    settings = Train(**{"strategy": "scratch", "epochs": 3, "batch_size": 8, "lr": 0.01, **settings})
    evaluation = Evaluation(PREPROCESS, ("hflip", "identity"), 16, CPU)
    numerics = PLAIN if settings.micro_batch == "auto" else replace(PLAIN, micro_batch=settings.micro_batch)
    job = Job(fold_in(folder), NET[net], settings, numerics, None, evaluation, EXACT, seed=0, ranks=ranks)
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


def exchanged(ranks, events):
    """The loss, the gradient and the statistics of a batch norm after the exchange, and their sums over the processes.
    The first process has the images 0 and 2, the second one 4 and 8."""
    images = torch.tensor([[0.0], [2.0]] if ranks.is_first else [[4.0], [8.0]])
    layer, norm = torch.nn.Linear(1, 1, bias=False), torch.nn.BatchNorm1d(1)
    torch.nn.init.ones_(layer.weight)
    unused = torch.nn.Linear(1, 1)
    norm(images)
    loss = layer(images).sum()
    loss.backward()
    optimizer = torch.optim.AdamW([*layer.parameters(), *unused.parameters()])
    loss = loss.detach()
    exchange(collect(loss, norm, optimizer), ranks)
    assert unused.weight.grad is None
    numbers = torch.stack([loss, layer.weight.grad[0, 0], norm.running_mean[0], norm.running_var[0]])
    sums = numbers.clone()
    ranks.add(sums)
    return numbers.tolist(), sums.tolist(), ranks.any(not ranks.is_first), ranks.any(False)

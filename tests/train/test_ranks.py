"""One job by two processes: the network of one process, whatever runs out or is killed on the way."""

import functools
import json
import multiprocessing

import numpy as np
import pytest
import rank_jobs
import torch
from recorder import Recorder
from safetensors.torch import load_file
from test_fit import fold_in, log, oof

from ensemble.errors import RunFailure
from ensemble.launch.elastic import run_in_ranks
from ensemble.launch.ranks import ALONE, Ranks

MIXED = {"mixup": 0.4, "cutmix": 1.0, "trivial_augment": True, "erase": 0.5, "sampler": "balanced"}


def train(folder, net="vit", trouble=None, events=None, **settings):
    """By two processes."""
    work = functools.partial(rank_jobs.train, folder, net, settings, trouble)
    return run_in_ranks(work, "net fold 0", 2, "cpu", events or Recorder())


def train_alone(folder, net="vit", **settings):
    threads = torch.get_num_threads()
    rank_jobs.train(folder, net, settings, None, ALONE, Recorder())
    torch.set_num_threads(threads)


def require_alike(one, other):
    """Of two folders: logits and logged numbers, and weights to a tenth of a step, since AdamW makes as large a step of
    a gradient that is 0 but for rounding (a key's bias has one) as of any other."""
    weights, others = (load_file(fold_in(folder).model_file) for folder in (one, other))
    assert weights.keys() == others.keys()
    of_weights = max((weights[name].double() - others[name].double()).abs().max().item() for name in weights)
    of_logits = float(np.abs(oof(one).values - oof(other).values).max())
    pairs = list(zip(log(one), log(other), strict=True))
    names = ("loss", "held_out_log_loss", "lr")
    of_log = max(abs(line[name] - second[name]) for line, second in pairs for name in names if name in line)
    print(f"differences: weights {of_weights:.2g}, logits {of_logits:.2g}, log {of_log:.2g}")
    assert of_weights < 1e-3 and of_logits < 5e-5 and of_log < 5e-5


@pytest.mark.process
@pytest.mark.parametrize(
    ("net", "settings"),
    [
        ("vit", MIXED | {"batch_size": 7, "keep": "best"}),
        ("resnet", MIXED | {"freeze_bn": True, "swa_epochs": 2, "ema": 0}),
    ],
    ids=["uneven shares", "frozen batch norms"],
)
def test_two_processes_train_the_network_of_one(tmp_path, net, settings):
    events = Recorder()
    assert train(tmp_path / "two", net, events=events, **settings) > 0
    assert multiprocessing.active_children() == []
    train_alone(tmp_path / "one", net, **settings)
    require_alike(tmp_path / "one", tmp_path / "two")
    assert [line["processes"] for line in log(tmp_path / "two")] == [2, 2, 2]
    assert events.epochs == [("net", 0, line) for line in log(tmp_path / "two")]  # each is told of once
    answered = [text for text, *_ in events.steps if "held-out images" in text]
    assert answered[-1].startswith("net fold 0: 24 of 24 held-out images answered")  # those of both processes
    assert all("processes" not in line for line in log(tmp_path / "one"))
    done = [json.loads(fold_in(tmp_path / name).done_json.read_text())["files"].keys() for name in ("one", "two")]
    assert done[0] == done[1] and not fold_in(tmp_path / "two").state_file.parent.exists()


@pytest.mark.process
def test_batch_norms_measure_the_shares_as_they_measure_parts(tmp_path):
    """Of batches of 8: 4 in each of two processes, or 4 at a time in one."""
    train(tmp_path / "two", "resnet", ema=0, epochs=2)
    train_alone(tmp_path / "one", "resnet", ema=0, epochs=2, micro_batch=4)
    one, two = (load_file(fold_in(tmp_path / name).model_file) for name in ("one", "two"))
    for name, value in one.items():
        if "running" not in name and "tracked" not in name:
            torch.testing.assert_close(value, two[name], rtol=0, atol=1e-3, msg=name)


@pytest.mark.process
def test_what_is_exchanged_by_hand():
    """Means of 1 and 6 and variances of 2 and 8, each a tenth of the running ones."""
    numbers, sums, either, neither = run_in_ranks(rank_jobs.exchanged, "job", 2, "cpu", Recorder())
    assert numbers == pytest.approx([14, 14, (0.1 + 0.6) / 2, ((0.9 + 0.2) + (0.9 + 0.8)) / 2])
    assert sums == [2 * number for number in numbers]  # the same bits in both
    assert (either, neither) == (True, False)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The folder of a run by two processes."""
    folder = tmp_path_factory.mktemp("undisturbed")
    train(folder)
    return folder


def bits(folder):
    return oof(folder).values.tobytes(), fold_in(folder).model_file.read_bytes()


@pytest.mark.process
def test_a_killed_process_costs_an_epoch_and_changes_nothing(tmp_path, undisturbed):
    events = Recorder()
    train(tmp_path, trouble=rank_jobs.killed_once, events=events)
    assert (tmp_path / "deaths").read_bytes() == b"."
    line = "net fold 0: one of its 2 processes was killed (status -9); all of them start once more"
    assert events.messages == [line]
    assert [text[:22] for text, *_ in events.steps].count("net fold 0 epoch 1/3  ") == 1  # it is not trained again
    assert [line["epoch"] for _, _, line in events.epochs] == [1, 2, 3]
    assert bits(tmp_path) == bits(undisturbed)
    assert multiprocessing.active_children() == []


@pytest.mark.process
def test_processes_that_are_killed_again_end_the_job(tmp_path):
    line = (
        r"^net fold 0: one of its 2 processes was killed twice \(status -9\), possibly out of memory; lower its "
        "batch_size$"
    )
    with pytest.raises(RunFailure, match=line):
        train(tmp_path, trouble=rank_jobs.killed_always)
    assert (tmp_path / "deaths").read_bytes() == b".."
    assert [line["epoch"] for line in log(tmp_path)] == [1, 2]  # each time it got further
    assert multiprocessing.active_children() == []


@pytest.mark.process
def test_memory_that_one_process_lacks_halves_the_micro_batch_of_all(tmp_path, undisturbed):
    events = Recorder()
    train(tmp_path, trouble=rank_jobs.little_memory, events=events)
    assert events.messages == [
        "net fold 0: out of memory; continues with 2 images at a time, whose gradients add up to batches of 8 as before"
    ]
    assert [line["micro_batch"] for line in log(tmp_path)] == [2, 2, 2]
    require_alike(tmp_path, undisturbed)


@pytest.mark.process
@pytest.mark.parametrize(
    ("trouble", "kind", "line"),
    [
        (rank_jobs.no_memory, RunFailure, "net fold 0: out of memory at 2 images; lower image_size"),
        (rank_jobs.a_bug, RuntimeError, "net fold 0:\nTraceback"),
    ],
)
def test_what_one_process_raises_is_raised_here_and_ends_the_other(tmp_path, trouble, kind, line):
    with pytest.raises(kind) as caught:
        train(tmp_path, trouble=trouble)
    assert type(caught.value) is kind and str(caught.value).startswith(line)
    assert multiprocessing.active_children() == []


class Stopping(Recorder):
    """As the parent's events after Ctrl-C: they end the work at the next safe point."""

    def epoch_finished(self, member, fold, epoch):
        raise KeyboardInterrupt


@pytest.mark.process
def test_what_two_processes_began_one_ends_and_the_other_way_round(tmp_path, undisturbed):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "by two", events=Stopping())
    assert multiprocessing.active_children() == []
    assert len(log(tmp_path / "by two")) == 1
    train_alone(tmp_path / "by two")
    assert [line.get("processes") for line in log(tmp_path / "by two")] == [2, None, None]
    require_alike(tmp_path / "by two", undisturbed)
    with pytest.raises(KeyboardInterrupt):
        rank_jobs.train(tmp_path / "by one", "vit", {}, None, ALONE, Stopping())
    train(tmp_path / "by one")
    assert [line.get("processes") for line in log(tmp_path / "by one")] == [None, 2, 2]
    require_alike(tmp_path / "by one", undisturbed)


def test_batches_that_are_too_small_to_be_shared(tmp_path):
    with pytest.raises(RunFailure) as caught:
        rank_jobs.train(tmp_path, "vit", {"batch_size": 7}, None, Ranks(0, 4), Recorder())
    assert str(caught.value) == (
        "net fold 0: 4 processes can't share batches of 7 images: each takes at least 2; raise batch_size, or lower "
        "gpus_per_job"
    )
    assert not fold_in(tmp_path).log_file.exists()

"""How many jobs share a GPU: chosen from given timings, timed in real processes, and remembered by the machine."""

import json
import multiprocessing
import os
import signal
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest
import torch
from recorder import Recorder

from ensemble.backbones import timm_model
from ensemble.config import Config
from ensemble.errors import RunFailure
from ensemble.launch.slots import choose_slots
from ensemble.run import Run
from ensemble.train import packing as module
from ensemble.train.clock import Clock
from ensemble.train.numerics import Numerics, save_numerics, training_step
from ensemble.train.packing import (
    Packing,
    counts_to_try,
    describe,
    find_packing,
    group_by_gpus,
    packing_of,
    timed_processes,
)
from ensemble.train.rows import Rows

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
PLAIN = Numerics("float32", "channels_last", False, 4, 100.0)


def timings(table):
    """What `timed_processes` yields, from images/s of each number of jobs: a number, one for each time it is asked for,
    or the reason why they fail."""
    asked = []

    def together(count):
        asked.append(count)
        rate = table[count]
        if isinstance(rate, str):
            raise RunFailure(rate)
        return rate[asked.count(count) - 1] if isinstance(rate, list) else rate

    return together, asked


# ---- the choice ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("jobs", "cores", "expected"),
    [
        (15, 64, [1, 2, 4, 8]),
        (15, 4, [1, 2, 4]),
        (3, 64, [1, 2]),
        (15, 1, [1]),
        (1, 64, [1]),
    ],
)
def test_no_more_are_tried_than_there_are_jobs_and_cores(jobs, cores, expected):
    assert counts_to_try(jobs, cores) == expected


@pytest.mark.parametrize(
    ("table", "expected", "doubt"),
    [
        ({1: 100, 2: 109}, Packing(1, {1: 100, 2: 109}), ""),
        ({1: 100, 2: 111, 4: 121, 8: 900}, Packing(2, {1: 100, 2: 111, 4: 121}), ""),
        ({1: 100, 2: 180, 4: 300, 8: 290}, Packing(4, {1: 100, 2: 180, 4: 300, 8: 290}), ""),
        ({1: 100, 2: 200, 4: 400, 8: 800}, Packing(8, {1: 100, 2: 200, 4: 400, 8: 800}), ""),
        ({1: 100, 2: [140, 105, 150]}, Packing(1, {1: 100, 2: 140}), "the trials did not agree"),
        ({1: 100, 2: 180, 4: "CUDA out of memory"}, Packing(2, {1: 100, 2: 180}), ""),
        ({1: 100, 2: "CUDA out of memory"}, Packing(1, {}), ""),
        ({1: 100, 2: "no kernel image"}, Packing(1, {}), "no kernel image"),
        ({1: "a process did not answer within 300 s"}, Packing(1, {}), "a process did not answer within 300 s"),
    ],
)
def test_the_most_that_pays_by_more_than_the_noise_and_fits_is_taken(table, expected, doubt):
    together, asked = timings(table)
    assert find_packing(together, [1, 2, 4, 8]) == (expected, doubt)
    assert set(asked) <= table.keys()  # nothing after what does not pay


def test_they_take_turns():
    together, asked = timings({1: 100, 2: 200, 4: 200})
    find_packing(together, [1, 2, 4])
    assert asked == [1, 2] * 3 + [2, 4] * 3


def test_what_was_found_is_said():
    assert describe(Packing(2, {1: 910.4, 2: 1700, 4: 1750})) == (
        "2 jobs at a time on each GPU: 910 images/s by 1, 1700 images/s by 2, 1750 images/s by 4 in the trial"
    )


# ---- real processes ------------------------------------------------------------------------------------------------


def tiny():
    return timm_model.create("test_resnet", 3, 32)


def steps_that_fail(device):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore")


def steps_that_die(device):
    return lambda: os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.process
def test_steps_are_timed_side_by_side_and_nothing_is_left(monkeypatch):
    build = partial(training_step, tiny, 32, 3, 4, PLAIN)
    with timed_processes(build, 4, CPU) as together:
        assert together(1) > 0 and len(multiprocessing.active_children()) == 1
        assert together(2) > 0 and len(multiprocessing.active_children()) == 2
        assert together(1) > 0
    assert multiprocessing.active_children() == []


@pytest.mark.process
@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (steps_that_fail, "CUDA out of memory. Tried to allocate 2 GiB"),
        (steps_that_die, "a process was killed, possibly out of memory"),
    ],
)
def test_a_process_that_fails_says_why(build, reason):
    with pytest.raises(RunFailure) as error, timed_processes(build, 4, CPU) as together:
        together(1)
    assert str(error.value) == reason and multiprocessing.active_children() == []


# ---- what the machine remembers ------------------------------------------------------------------------------------


@pytest.fixture
def member(tmp_path, monkeypatch):
    """An experiment whose backbone's numeric settings are found, on a machine of 8 cores."""
    monkeypatch.setattr(module, "cores", lambda: 8)
    data = {"train": tmp_path / "train", "image_size": 32, "cache": str(tmp_path / "cache")}
    backbone = {"name": "net", "timm": "test_resnet", "pretrained": False}
    config = Config.model_validate({"run": tmp_path / "run", "data": data, "backbone": [backbone]})
    settings = Run(config.run).member("net").numerics_json
    settings.parent.mkdir(parents=True)
    save_numerics(settings, PLAIN)
    return config


def found(config, monkeypatch, table, jobs=5, images=10**6):
    """What `packing_of` finds by these timings, what it says, and what was timed."""
    together, asked = timings(table)

    @contextmanager
    def processes(build, images, device):
        assert (images, device) == (4, CPU)
        yield together

    monkeypatch.setattr(module, "timed_processes", processes)
    events = Recorder()
    return packing_of(config, config.backbone[0], 2, jobs, images, CPU, events), events.messages, asked


def test_a_stored_answer_is_used_at_once(member, tmp_path, monkeypatch):
    packing, said, asked = found(member, monkeypatch, {1: 100, 2: 180, 4: 190})
    assert packing == Packing(2, {1: 100, 2: 180, 4: 190}) and len(asked) == 12
    assert said == [
        "net: 2 jobs at a time on each GPU: 100 images/s by 1, 180 images/s by 2, 190 images/s by 4 in the trial"
    ]
    (stored,) = (tmp_path / "cache" / "packing").glob("*.json")
    assert json.loads(stored.read_text())["jobs"] == 2
    assert found(member, monkeypatch, {}) == (packing, [], [])
    other = member.model_copy(update={"data": member.data.model_copy(update={"image_size": 48})})
    assert found(other, monkeypatch, {1: 100, 2: 100})[0].jobs == 1
    assert len(list((tmp_path / "cache" / "packing").glob("*.json"))) == 2


def test_a_doubtful_answer_is_not_stored(member, tmp_path, monkeypatch):
    packing, said, _ = found(member, monkeypatch, {1: 100, 2: [130, 100, 130]})
    assert packing.jobs == 1 and not list((tmp_path / "cache" / "packing").glob("*.json"))
    assert said[0] == (
        "net: the trials did not agree while the number of jobs on a GPU was timed; it will be timed again in the next "
        "run"
    )


def test_a_single_job_and_what_is_trained_soon_are_not_timed(member, monkeypatch):
    assert found(member, monkeypatch, {}, jobs=1) == (Packing(1, {}), [], [])
    assert found(member, monkeypatch, {}, images=17_900) == (Packing(1, {}), [], [])  # of 100 a second
    assert found(member, monkeypatch, {1: 100, 2: 100}, images=18_100)[2] == [1, 2] * 3
    assert found(member, monkeypatch, {}, images=1) == (Packing(1, {1: 100, 2: 100}), [], [])  # is known by now


# ---- in training ---------------------------------------------------------------------------------------------------


def test_backbones_of_which_equally_many_fit_are_trained_together(member, tmp_path, monkeypatch):
    backbones = [member.backbone[0].model_copy(update={"name": name}) for name in ("a", "b", "c")]
    config = member.model_copy(update={"backbone": tuple(backbones)})
    packings = {"a": Packing(4, {1: 100, 2: 180, 4: 300}), "b": Packing(1, {1: 9, 2: 9}), "c": Packing(4, {4: 400})}
    asked = []

    def packing(config, backbone, classes, jobs, images, device, events):
        asked.append((jobs, images))
        return packings[backbone.name]

    monkeypatch.setattr(module, "packing_of", packing)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    rows = Rows(np.arange(40).astype(str), (), np.arange(40) % 2, (np.arange(40) % 5).astype(np.int8), ("x", "y"))
    folds = [Run(tmp_path / "run").member(name).fold(number) for name in "abc" for number in range(5)]
    clock = Clock(dict.fromkeys(folds, 10), {"a": 100.0, "b": 9.0, "c": 100.0})
    groups = group_by_gpus(config, rows, folds, CUDA, clock, Recorder())
    assert groups == [("1/4", folds[:5] + folds[10:]), ("1/1", folds[5:10])]
    assert asked == [(3, 5 * 32 * 12 // 2)] * 3 and clock.expected == {"a": 75.0, "b": 9.0, "c": 100.0}
    students = Run(tmp_path / "run").member("c").teachers_json
    students.parent.mkdir()
    students.write_text("{}")
    assert group_by_gpus(config, rows, folds, CUDA, clock, Recorder())[2] == (1, folds[10:])
    by_hand = config.model_copy(update={"workers": 3})
    assert group_by_gpus(by_hand, rows, folds, CUDA, clock, Recorder()) == [("auto", folds)]
    assert group_by_gpus(config, rows, folds, CPU, clock, Recorder()) == [("auto", folds)]


def test_jobs_that_share_a_gpu_share_its_memory(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [slot.memory for slot in choose_slots("auto", CUDA, 15, "1/3")] == [0.9 / 3] * 6
    assert [slot.memory for slot in choose_slots("auto", CUDA, 3, "1/2")] == [0.45, 1.0, 0.45]
    assert [slot.memory for slot in choose_slots("auto", CUDA, 15, "auto")] == [1.0, 1.0]
    assert [slot.memory for slot in choose_slots(4, CUDA, 15, 1)] == [1.0] * 4  # as it was set by hand

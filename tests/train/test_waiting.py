"""Workers that share a run: a job whose worker died is taken over, one that failed elsewhere is not tried again."""

import json
import threading
from contextlib import ExitStack

import pytest
from commands import ens
from recorder import Recorder

from ensemble.config import load_config
from ensemble.errors import RunFailure, UserError
from ensemble.events import SILENT
from ensemble.files.claims import claimed
from ensemble.files.process import this_process
from ensemble.run import Run
from ensemble.train import prepare, waiting
from ensemble.train.ending import Running, near_seconds, wait_for
from ensemble.train.jobs import train_folds

EXPERIMENT = """
run = "{run}"
workers = 1
[data]
train = "{train}"
image_size = 32
[folds]
k = 2
near_copies = false
[train]
epochs = 1
batch_size = 4
dtype = "float32"
memory_format = "channels_last"
[[backbone]]
name = "net"
timm = "test_resnet"
pretrained = false
"""


@pytest.fixture
def file(tmp_path, paint, monkeypatch):
    monkeypatch.setattr(waiting, "POLL_SECONDS", 0.01)
    for index in range(12):
        paint(tmp_path / "images" / "ab"[index % 2] / f"{index}.png")
    path = tmp_path / "e.toml"
    path.write_text(EXPERIMENT.format(run=tmp_path / "run", train=tmp_path / "images"))
    return path


@pytest.fixture
def held(file, tmp_path):
    """The first fold, and what frees it: another worker holds it."""
    fold = Run(tmp_path / "run").member("net").fold(0)
    fold.path.mkdir(parents=True)
    with ExitStack() as worker:
        worker.enter_context(claimed(fold.claim_file))
        yield fold, worker.close


def when(events, line, act):
    """Listens for the message, and then acts in a thread of its own."""

    def message(said, before=events.message):
        before(said)
        if said == line:
            threading.Thread(target=act).start()

    events.message = message
    return events


HELD = "1 job held by other workers"


def test_a_job_is_taken_over_from_a_worker_that_died(file, held):
    fold, free = held
    events = when(Recorder(), f"{HELD}: waiting, in case that one of them dies", free)
    assert train_folds(load_config(file), events, waits=True) == []
    assert fold.is_done() and [(job[1], job[3]) for job in events.jobs] == [(1, None), (0, None)]
    assert not fold.failure_json.exists()


def test_a_job_that_failed_elsewhere_is_not_tried_again_before_the_next_start(file, held):
    fold, free = held

    def fail():
        fold.note_failure("net fold 0: the loss turned nan")
        free()

    events = when(Recorder(), f"{HELD}: waiting, in case that one of them dies", fail)
    assert train_folds(load_config(file), events, waits=True) == []
    assert not fold.is_done() and [job[1] for job in events.jobs] == [1]
    assert train_folds(load_config(file), SILENT, waits=True) == [] and fold.is_done()
    assert not fold.failure_json.exists()


def test_a_job_that_fails_elsewhere_before_its_turn_is_left_out(file, tmp_path):
    later = Run(tmp_path / "run").member("net").fold(1)
    events = Recorder()

    def message(line):
        if line.startswith("net fold 0: done"):
            later.note_failure("net fold 1: the loss turned nan")

    events.message = message
    assert train_folds(load_config(file), events, waits=True) == []
    assert [job[1] for job in events.jobs] == [0] and not later.is_done()


def test_only_one_worker_waits(file, held, tmp_path):
    with claimed(tmp_path / "run" / ".waiting.claim"):
        events = Recorder()
        assert train_folds(load_config(file), events, waits=True) == []
    assert events.messages[-1] == f"{HELD}, and another one waits for them: nothing left to do"


def test_a_worker_that_was_suspended_while_it_prepared_a_member_prepares_it_again(file, tmp_path, monkeypatch):
    """Another one has taken over meanwhile, and died."""
    member, find = Run(tmp_path / "run").member("net"), prepare.training_numerics
    dead = {"id": "other", **vars(this_process()), "started": 1}

    def suspended(*words):
        if not member.claim_file.with_name(".claim-3").exists():
            member.claim_file.with_name(".claim-2").write_text(json.dumps(dead))
        return find(*words)

    monkeypatch.setattr(prepare, "training_numerics", suspended)
    assert train_folds(load_config(file), SILENT, waits=True) == []
    assert [fold.is_done() for fold in member.folds()] == [True, True]
    assert not any(fold.failure_json.exists() for fold in member.folds())


def test_a_worker_that_can_not_prepare_a_member_fails_no_job_of_those_that_could(file, held, tmp_path, monkeypatch):
    def fail(*words):
        raise RunFailure("not even 2 images of 32 px fit into memory")

    monkeypatch.setattr(prepare, "training_numerics", fail)
    line = "net: not even 2 images of 32 px fit into memory"
    assert train_folds(load_config(file), SILENT, waits=True) == [line]
    other = Run(tmp_path / "run").member("net").fold(1)
    assert other.read_failure() == line and not held[0].failure_json.exists()


def test_a_worker_notes_what_failed(file, monkeypatch, capfd, tmp_path):
    status, _, err = ens(monkeypatch, capfd, "train-folds", file, "--wait", "--set", "train.lr=1e30")
    fold = Run(tmp_path / "run").member("net").fold(0)
    assert status == 1 and fold.read_failure() in err and "lower its lr" in fold.read_failure()


def test_how_long_an_epoch_is_waited_for(monkeypatch, tmp_path):
    job = Run(tmp_path).member("net").fold(0)
    running = Running({job: 2}, {job: 100}, {job: 10}, {job: 150}, {"net": 1.0})
    assert wait_for(running) is None and near_seconds() == 10.0  # 50 images to the end of the epoch
    monkeypatch.setenv("ENS_STOP_SECONDS", "60")
    running = Running({job: 2}, {job: 100}, {job: 10}, {job: 150}, {"net": 1.0}, near_seconds=near_seconds())
    assert wait_for(running) == "epoch 1 of 2 of net fold 0"
    for text in ("soon", "-1", "inf"):
        monkeypatch.setenv("ENS_STOP_SECONDS", text)
        with pytest.raises(UserError, match=f"^ENS_STOP_SECONDS={text}: want a number of seconds, as in ENS_STOP"):
            near_seconds()

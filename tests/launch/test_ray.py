"""The jobs of a run on a Ray cluster: the same bytes as here, whatever is killed, and one line for what is wrong."""

import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import ens
from ray_processes import ray_processes
from recorder import Recorder

from ensemble.config import load_config
from ensemble.errors import UserError
from ensemble.launch import engine
from ensemble.launch.engine import Engine, parse_engine
from ensemble.launch.jobs import Outcome
from ensemble.launch.ray import cluster, jobs, worker
from ensemble.launch.ray.cluster import Needs, job_needs
from ensemble.launch.ray.driver import Node
from ensemble.launch.ray.mailbox import MOST_EVENTS, Mailbox
from ensemble.launch.ray.worker import Expected, differences, digest, versions
from ensemble.run import Run
from ensemble.stop import Stopped
from ensemble.train import on_ray
from ensemble.train.jobs import train_folds

EXPERIMENT = """
run = "{run}"
workers = {workers}
[data]
train = "{train}"
image_size = 32
[folds]
k = 3
near_copies = false
[train]
epochs = 8
batch_size = 4
dtype = "float32"
memory_format = "channels_last"
[tta]
dtype = "float32"
engine = "torch"
[[backbone]]
name = "resnet"
timm = "test_resnet"
pretrained = false
"""


@pytest.fixture
def experiment(tmp_path, paint):
    """experiment(run, workers): an experiment file on 2 classes of 12 images."""
    for index in range(24):
        paint(tmp_path / "images" / "ab"[index % 2] / f"{index}.png", width=36, height=36)

    def write(run, workers='"auto"'):
        file = tmp_path / f"{run}.toml"
        file.write_text(EXPERIMENT.format(run=tmp_path / run, workers=workers, train=tmp_path / "images"))
        return file

    return write


def train(file, place=None, on_progress=lambda text, done, total: None):
    events = Recorder(on_progress=on_progress)
    return train_folds(load_config(file), events, Engine("local") if place is None else Engine("ray", place)), events


def contents(run):
    """The bytes of what training made."""
    names = ("model.safetensors", "oof.safetensors")
    return {path.relative_to(run): path.read_bytes() for path in run.rglob("*") if path.name in names}


def kill(title):
    """Kill a process that Ray has given this title."""
    os.kill(ray_processes(title)[0], signal.SIGKILL)


# ---- what a job gets -----------------------------------------------------------------------------------------------


def machines(*cpus_and_gpus):
    return [Node(str(n), f"m{n}", cpus, gpus, 1e10) for n, (cpus, gpus) in enumerate(cpus_and_gpus)]


@pytest.mark.parametrize(
    ("nodes", "gpus_per_job", "workers", "omp", "expected"),
    [
        ([(2, 0)], "auto", "auto", None, (1, 0, 1, 2)),
        ([(8, 0), (16, 0)], "auto", "auto", None, (4, 0, 4, 6)),
        ([(8, 0)], "auto", "auto", 1, (4, 0, 1, 2)),
        ([(1, 0)], "auto", "auto", None, (1, 0, 1, 1)),
        ([(0.5, 0)], "auto", "auto", None, (0.5, 0, 1, 1)),
        ([(2, 0), (0, 0)], "auto", 4, None, (0.5, 0, 1, 4)),
        ([(16, 4), (32, 0)], 1, "auto", None, (4, 1, 4, 4)),
        ([(16, 4), (8, 8)], 2, "auto", None, (2, 2, 2, 6)),
        ([(16, 4), (8, 1)], 2, "auto", 3, (8, 2, 6, 2)),
        ([(8, 1)], "1/4", "auto", None, (2, 0.25, 2, 4)),
        ([(2, 4)], 1, "auto", None, (0.5, 1, 1, 4)),
    ],
)
def test_what_a_job_gets(nodes, gpus_per_job, workers, omp, expected):
    cpus, gpus, threads, together = expected
    assert job_needs(machines(*nodes), gpus_per_job, workers, omp) == Needs(cpus, gpus, threads, together, 1e10)


@pytest.mark.parametrize(
    ("nodes", "gpus_per_job", "said"),
    [
        ([(8, 0), (8, 0)], 2, "gpus_per_job = 2: of the 2 machines of the Ray cluster none has a GPU"),
        ([(8, 0)], 1, "gpus_per_job = 1: of the 1 machine of the Ray cluster none has a GPU"),
        ([(8, 0)], "1/2", "gpus_per_job = 1/2: of the 1 machine of the Ray cluster none has a GPU"),
        ([(8, 2), (8, 1)], 4, "gpus_per_job = 4: of the 2 machines of the Ray cluster none has more than 2 GPUs"),
        ([(0, 0)], "auto", "no machine of the Ray cluster has a CPU for tasks"),
    ],
)
def test_gpus_that_no_machine_has(nodes, gpus_per_job, said):
    with pytest.raises(UserError) as error:
        job_needs(machines(*nodes), gpus_per_job, "auto", None)
    assert str(error.value) == said


def test_no_job_asks_for_more_memory_than_a_machine_has():
    needs = Needs(2.0, 0.25, 2, 4, 1e9)
    assert needs.options(5e9) == {"num_cpus": 2.0, "num_gpus": 0.25, "memory": 10**9}
    assert needs.describe() == "4 at a time with 1/4 GPU and 2 threads each"
    assert needs.describe_one() == "1/4 GPU and 2 CPUs"


def test_a_job_on_a_part_of_a_gpu_is_told_its_part_of_the_memory():
    sent = []
    there = SimpleNamespace(send=lambda *words: sent.append(words))
    for gpus in (0.25, 2.0, 0.0):
        plan = jobs.Plan(None, None, Needs(2.0, gpus, 4, 4, 1e9), None, lambda name: 0)
        jobs._submit(jobs._Jobs(there, plan, None, {}), Run("run").member("net").fold(0))
    assert [(task.memory, task.processes) for _, task, _ in sent] == [(0.9 / 4, 1), (1.0, 2), (1.0, 1)]


# ---- a task ---------------------------------------------------------------------------------------------------------


def test_what_ray_has_lost_on_the_way_to_a_worker_is_no_mistake_of_the_work(monkeypatch):
    lost = Future()
    lost.set_exception(ConnectionError("owner died"))
    monkeypatch.setattr(worker, "_shared", {})
    with pytest.raises(ConnectionError, match="owner died"):
        worker.run_task(worker.Task(0, "work", b"", 1), [SimpleNamespace(future=lambda: lost)], None)


def test_a_job_is_not_waited_for_when_another_worker_has_done_it(monkeypatch):
    monkeypatch.setattr(worker, "RETRY_SECONDS", 0.01)
    tries = []

    def work():
        tries.append(None)
        return Outcome(is_locked=True)

    assert worker._patiently(work, SimpleNamespace(is_done=lambda: len(tries) == 2), 600).is_locked and len(tries) == 2


# ---- events --------------------------------------------------------------------------------------------------------


def test_a_mailbox_holds_a_limited_number_of_events_and_the_last_progress_of_each_task():
    box = Mailbox()
    for number in range(MOST_EVENTS + 5):
        box.put([(0, "message", (str(number),)), (number % 2, "progress", ("a", number, 9))])
    events = box.take()
    assert len(events) == MOST_EVENTS + 2 and events[0] == (0, "message", ("5",))
    assert events[-2:] == [(0, "progress", ("a", MOST_EVENTS + 4, 9)), (1, "progress", ("a", MOST_EVENTS + 3, 9))]
    assert box.take() == []


# ---- machines that differ ------------------------------------------------------------------------------------------


def test_a_machine_that_differs_says_in_what(tmp_path, paint):
    here = Expected(versions(), str(Path.cwd()))
    assert differences(here) is None
    other = replace(here, versions={**versions(), "timm": "0.1"})
    assert re.fullmatch(r"has timm .*, this machine has 0\.1: install the same on both", differences(other))
    there = replace(here, marker=str(tmp_path / "run" / ".ray-1"), text=".ray-1")
    assert differences(there).startswith(f"does not see the run directory {tmp_path / 'run'}: put it where all")
    image = paint(tmp_path / "a.png")
    assert differences(replace(here, digests={str(image): digest(str(image))})) is None
    changed = differences(replace(here, digests={str(image): "0"}))
    assert changed == f"holds other bytes in the image {image}: give all machines the same images"
    gone = differences(replace(here, digests={f"{image}x": "0"}))
    assert gone.startswith(f"can't read the image {image}x (No such file or directory): give all machines the same")


@pytest.mark.process
def test_a_cluster_that_differs_is_refused_before_anything_begins(ray_cluster, experiment, tmp_path, monkeypatch):
    file = experiment("run")
    with pytest.raises(UserError, match=r"^gpus_per_job = 2: of the 1 machine of the Ray cluster none has a GPU$"):
        train_folds(load_config(file, ["gpus_per_job=2"]), Recorder(), Engine("ray", ray_cluster))
    with monkeypatch.context() as patch:
        patch.setattr(on_ray, "versions", lambda: {**versions(), "torch": "1.0"})
        with pytest.raises(
            UserError, match=r"^the machine \S+ of the Ray cluster has torch 2\..*, this machine has 1\.0"
        ):
            train(file, ray_cluster)
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr(cluster, "digest", lambda path: "0")
    with pytest.raises(UserError, match=r"^the machine \S+ of the Ray cluster holds other bytes in the image "):
        train(file, ray_cluster)
    assert not (tmp_path / "run" / "resnet" / "fold0").exists() and not list((tmp_path / "run").glob(".ray-*"))


def test_an_address_that_does_not_answer_and_an_engine_that_is_missing(experiment, tmp_path, monkeypatch, capfd):
    status, _, err = ens(monkeypatch, capfd, "train-folds", experiment("run"), "--on", "ray=127.0.0.1:1")
    assert status == 2 and err.count("\n") == 1
    assert err.startswith("ens: no Ray cluster answers at 127.0.0.1:1 ([Errno 111] Connection refused): start one with")
    monkeypatch.setitem(engine.PACKAGES, "ray", "no_such_package")
    with pytest.raises(
        UserError, match=r'^--on ray needs the package no_such_package, .*: pip install "ens-vision\[ray\]"$'
    ):
        parse_engine("ray=auto")
    with pytest.raises(UserError, match=r"^--on ray=: give ray=ADDRESS, or ray alone$"):
        parse_engine("ray=")
    assert not (tmp_path / "run").exists()


# ---- runs ----------------------------------------------------------------------------------------------------------


@pytest.mark.process
def test_whatever_is_killed_the_bytes_are_those_of_one_process(ray_cluster, experiment, tmp_path):
    """The mailbox is killed at the first progress that is heard, and the worker of a job in the middle of it."""
    assert train(experiment("one", workers=1))[0] == []
    killed = []

    def on_progress(text, done, total):
        if not killed:
            kill("ray::Mailbox")
            killed.append("mailbox")
        if len(killed) == 1 and "epoch 3/8" in text:
            kill("ray::run_task")
            killed.append("worker")

    failures, events = train(experiment("two"), ray_cluster, on_progress)
    assert failures == [] and killed == ["mailbox", "worker"]
    lost = [line for line in events.messages if " was lost " in line]
    assert len(lost) == 1 and re.fullmatch(
        r"resnet fold \d: its worker on \S+ was lost \(its process has ended\); (goes on from epoch \d|starts again)",
        lost[0],
    )
    assert events.messages[1] == "3 jobs to train on 1 machine, 2 at a time with 1 thread each"
    assert sorted((fold, error) for _, fold, _, error in events.jobs) == [(0, None), (1, None), (2, None)]
    assert contents(tmp_path / "two") == contents(tmp_path / "one") and len(contents(tmp_path / "one")) == 6
    memory = on_ray._stored_memory(Run(tmp_path / "two").member("resnet"))
    assert memory["of"] == "fold" and memory["bytes"] > 50e6


@pytest.mark.process
def test_a_job_keeps_its_cpu_so_that_ray_starts_no_further_process(ray_cluster, experiment):
    """A task that waits by ray.get or ray.wait gives its CPU back, and Ray starts another worker beside it."""
    seen = set()
    failures, _ = train(experiment("run"), ray_cluster, lambda *_: seen.update(ray_processes("ray::run_task")))
    assert failures == [] and 1 <= len(seen) <= 2


@pytest.mark.process
def test_what_no_machine_has_free_is_waited_for_aloud(ray_cluster, experiment, monkeypatch):
    monkeypatch.setattr(on_ray, "needs_of", lambda config, cluster: Needs(99.0, 0.0, 1, 1, 1e9))
    monkeypatch.setattr(jobs, "WAIT_SECONDS", 0.5)
    said = []

    class Impatient(Recorder):
        def message(self, line):
            said.append(line)
            if line.startswith("waiting"):
                raise KeyboardInterrupt

    with pytest.raises(Stopped, match=r"^0 of 3 folds$"):
        train_folds(load_config(experiment("run")), Impatient(), Engine("ray", ray_cluster))
    assert said[-1] == "waiting until a machine of the Ray cluster has 99 CPUs free"


def start(file, place):
    command = [sys.executable, "-m", "ensemble.cli", "train-folds", str(file), "--on", f"ray={place}"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, start_new_session=True, **pipes)


def wait_for_epochs(run, process, least):
    """Until one job has saved so many."""
    while True:
        logs = [path.read_text().count("\n") for path in run.rglob("log.jsonl")]
        if max(logs, default=0) >= least:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)


@pytest.mark.process
def test_stopped_and_killed_and_started_again_on_another_engine(ray_cluster, experiment, tmp_path):
    run = tmp_path / "two"
    process = start(experiment("two"), ray_cluster)
    wait_for_epochs(run, process, 1)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    first, last = (line for line in errors.splitlines() if line.startswith("ens: "))
    assert process.returncode == 130 and first.startswith("ens: stopping")
    assert re.match(r"ens: stopped; kept: \d of 3 folds, \d of 8 epochs of resnet fold \d", last)
    assert last.endswith(f"; go on with: ens train-folds {tmp_path / 'two.toml'} --on ray={ray_cluster}")
    process = start(experiment("two"), ray_cluster)
    wait_for_epochs(run, process, 3)
    process.kill()
    process.communicate()
    assert train(experiment("two"), ray_cluster)[0] == []
    assert train(experiment("one", workers=1))[0] == []
    assert contents(run) == contents(tmp_path / "one") and len(contents(run)) == 6
    for number in (0, 1, 2):
        assert len(Run(run).member("resnet").fold(number).read_log()) == 8

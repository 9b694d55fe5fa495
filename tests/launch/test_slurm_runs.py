"""Runs whose workers SLURM starts: by the stand-in for its commands, and by submitit's own executors."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest
import stand_in_slurm
import torch
from recorder import Recorder

from ensemble.config import load_config
from ensemble.launch import slurm
from ensemble.launch.slurm_worker import Fruitless, Worker, count_pieces
from ensemble.train.jobs import train_folds

EXPERIMENT = """
run = "{run}"
workers = 1
[data]
train = "{train}"
image_size = 32
[folds]
k = {k}
near_copies = false
[train]
epochs = {epochs}
batch_size = 4
dtype = "float32"
memory_format = "channels_last"
[[backbone]]
name = "resnet"
timm = "test_resnet"
pretrained = false
"""
pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def images(tmp_path_factory, paint):
    folder = tmp_path_factory.mktemp("images")
    for index in range(24):
        paint(folder / "ab"[index % 2] / f"{index}.png", width=36 + index % 5, height=36)
    return folder


@pytest.fixture
def experiment(tmp_path, images):
    """experiment(run, k, epochs): an experiment file."""

    def write(run, k=3, epochs=3):
        file = tmp_path / f"{run}.toml"
        file.write_text(EXPERIMENT.format(run=tmp_path / run, train=images, k=k, epochs=epochs))
        return file

    return write


@pytest.fixture
def local_bits(tmp_path, experiment):
    """local_bits(k, epochs): the files of a run that is trained here."""

    def train(k=3, epochs=3):
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        assert train_folds(load_config(experiment("here", k, epochs)), Recorder()) == []
        torch.set_num_threads(before)
        return bits(tmp_path / "here")

    return train


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """cluster(most): a stand-in for SLURM on PATH. At the end its workers are gone."""
    folder = tmp_path / "slurm"

    def make(most=2):
        binaries, environment = stand_in_slurm.install(folder, most)
        monkeypatch.setenv("PATH", f"{binaries}:{os.environ['PATH']}")
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(stand_in_slurm, "HOME", folder)
        return folder

    yield make
    if (folder / "table.json").exists():
        stand_in_slurm.scancel(list(jobs_of_slurm()))
        ended()


def bits(run):
    return {(path.parent.name, path.name): path.read_bytes() for path in run.glob("resnet/fold*/*.safetensors")}


def jobs_of_slurm():
    with stand_in_slurm.table() as jobs:
        return jobs


def ended(seconds=120):
    """The jobs of SLURM, when all have ended."""
    for _ in range(seconds * 10):
        jobs = jobs_of_slurm()
        if all(job["state"] in slurm.ENDED for job in jobs.values()):
            return jobs
        time.sleep(0.1)
    raise AssertionError(f"still running: {jobs}")


def start(file, *words):
    """`ens train-folds FILE --on slurm`, which looks at files and queue more often than is right on a real cluster."""
    code = (
        "from ensemble.launch import slurm_queue; slurm_queue.FILES_SECONDS = 0.2; slurm_queue.QUEUE_SECONDS = 0.5; "
        "import sys; from ensemble import cli; sys.argv[0] = 'ens'; cli.main()"
    )
    command = [sys.executable, "-c", code, "train-folds", str(file), "--on", "slurm", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process):
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def wait_until(is_so, seconds=120):
    for _ in range(seconds * 20):
        if is_so():
            return
        time.sleep(0.05)
    raise AssertionError("nothing happened")


def wait_for_epochs(run, count):
    wait_until(lambda: count_pieces(run) >= count)


def test_an_array_trains_the_run_to_the_same_bits_as_here(experiment, local_bits, cluster, tmp_path):
    cluster()
    file = experiment("there")
    status, out, err = finish(start(file))
    assert (status, err) == (0, "")
    assert "3 jobs, 0 of them done" in out and "submitted 3 workers (job 1, ens-there-" in out
    assert all(f"resnet fold {fold}: done in " in out for fold in range(3)) and "next: ens blend" in out
    assert bits(tmp_path / "there") == local_bits()
    assert {job["state"] for job in ended().values()} == {"COMPLETED"}
    printed = finish(start(experiment("other"), "--print"))[1].replace("/other", "/there")
    script = next((tmp_path / "there" / ".slurm").glob("*_submission.sh")).read_text()
    without_name = [line for line in script.splitlines() if "--job-name" not in line]
    assert without_name == [line for line in printed.splitlines() if "--job-name" not in line]


def test_signals_of_a_time_limit_and_of_ctrl_c_lose_no_epoch(experiment, local_bits, cluster, tmp_path):
    """A worker is queued again twice; Ctrl-C ends it, and the same command goes on."""
    cluster()
    file, run = experiment("there", k=2, epochs=100), tmp_path / "there"
    process = start(file, "--jobs", "1")
    for count in (3, 12):
        wait_for_epochs(run, count)
        before = jobs_of_slurm()["1"]["restarts"]
        stand_in_slurm.scancel(["--signal=USR2", "1"])
        wait_until(lambda before=before: jobs_of_slurm()["1"]["restarts"] > before)
    wait_for_epochs(run, count_pieces(run) + 3)
    process.send_signal(signal.SIGINT)
    status, _, err = finish(process)
    assert status == 130 and "stopping after the safe points of 1 worker ... (again to stop at once)" in err
    assert re.search(r"stopped; kept: 0 of 2 folds, \d+ of 100 epochs of resnet fold 0", err)
    assert ended()["1"]["state"] == "COMPLETED" and jobs_of_slurm()["1"]["signals"] == ["USR2", "USR2", "INT"]
    status, out, err = finish(start(file))
    assert (status, err) == (0, "") and "submitted 2 workers (job 2, " in out
    assert bits(run) == local_bits(2, 100)


def test_a_second_start_joins_and_waiting_workers_are_cancelled_by_those_who_submitted_them(experiment, cluster):
    cluster(most=0)
    file = experiment("there")
    first = start(file, "--jobs", "2")
    assert any("submitted 2 workers (job 1, " in line for line in iter(first.stdout.readline, ""))
    second = start(file, "--jobs", "2")
    assert "no worker submitted: workers: 2 pending; 0 jobs are held\n" in iter(second.stdout.readline, "")
    second.send_signal(signal.SIGINT)
    status, _, err = finish(second)
    assert status == 130 and "stopped; kept: 0 of 3 folds; go on with: " in err
    assert {job["state"] for job in jobs_of_slurm().values()} == {"PENDING"}
    first.send_signal(signal.SIGINT)
    assert finish(first)[0] == 130 and {job["state"] for job in ended().values()} == {"CANCELLED"}


def test_what_lost_workers_leave_behind_is_said_and_trained_by_the_next_start(experiment, cluster, tmp_path):
    cluster()
    file, run = experiment("there", k=2, epochs=40), tmp_path / "there"
    process = start(file, "--jobs", "1")
    wait_for_epochs(run, 1)
    stand_in_slurm.scancel(["1"])
    status, out, err = finish(process)
    assert status == 1 and "worker 1: ended as CANCELLED; see " in out
    line = "its workers ended before it did; the same command submits new ones"
    assert err == f"ens: 2 jobs failed: resnet fold 0: {line}; resnet fold 1: {line}\n"
    status, out, err = finish(start(file, "--detach"))
    assert (status, err) == (0, "") and "submitted 2 workers" in out and "next: " not in out


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_submitits_executors_run_the_same_workers(experiment, local_bits, tmp_path):
    file, run = experiment("there", k=2, epochs=30), tmp_path / "there"
    command = ("train-folds", str(file), "--wait", "--json")
    submission = slurm.Submission(command, run, slurm.parse_options(["signal_delay_s=30"]), 30)
    (job,) = slurm.submit(submission, 1, cluster="local")
    wait_for_epochs(run, 2)
    tasks = subprocess.run(["pgrep", "-P", job.job_id], capture_output=True, text=True, check=True).stdout.split()
    os.kill(int(tasks[0]), signal.SIGUSR2)
    assert job.result() == {"status": 0, "error": None}
    assert "this job is preempted" in job.stdout() and bits(run) == local_bits(2, 30)
    (job,) = slurm.submit(submission, 1, cluster="debug")  # which leaves its log files open
    assert job.result() == {"status": 0, "error": None}


def test_a_worker_that_gains_nothing_is_not_queued_for_ever(tmp_path):
    worker = Worker(("train-folds",), str(tmp_path), str(tmp_path / "run"), 60)
    again = worker.checkpoint().function
    assert again.fruitless == 1
    (tmp_path / "run" / "net" / "fold0").mkdir(parents=True)
    (tmp_path / "run" / "net" / "fold0" / "log.jsonl").write_text("{}\n")
    assert again.checkpoint().function.fruitless == 0
    again._pieces = 2
    with pytest.raises(Fruitless, match=r"^it came to its time limit 2 times without an epoch; give it more: --slurm"):
        again.checkpoint()


def test_a_command_that_is_killed_is_run_once_more(tmp_path, monkeypatch):
    """Its interpreter, which dies at once, and wrong input, which is not tried again."""
    dying = tmp_path / "python"
    dying.write_text(f"#!/bin/sh\necho . >> {tmp_path / 'starts'}\nkill -9 $$\n")
    dying.chmod(0o755)
    worker = Worker(("train-folds", "nowhere.toml", "--json"), str(tmp_path), str(tmp_path / "run"), 60)
    result = worker()
    assert result["status"] == 2 and result["error"].startswith("nowhere.toml: no such file")
    monkeypatch.setattr(sys, "executable", str(dying))
    assert worker() == {"status": -9, "error": "it was killed twice (status -9), possibly out of memory"}
    assert (tmp_path / "starts").read_text() == ".\n.\n"

"""Jobs in processes of their own: the same bits, whatever is killed, and nothing left behind."""

import functools
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
from worker_jobs import die_after_the_first, work

from ensemble import rundir
from ensemble.config import load_config
from ensemble.data.logits import load_logits
from ensemble.errors import RunFailure, UserError
from ensemble.train import jobs
from ensemble.train.jobs import run_job, train_folds
from ensemble.train.workers import Slot, describe_slots, run_here, run_side_by_side, slots

CPU = torch.device("cpu")
EXPERIMENT = """
run = "{run}"
workers = {workers}
[data]
train = "{train}"
image_size = 32
[folds]
k = 3
[train]
epochs = 4
batch_size = 4
dtype = "float32"
memory_format = "channels_last"
[[backbone]]
name = "resnet"
timm = "test_resnet"
pretrained = false
"""


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    """Here as in every worker: another number of threads gives other bits."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def experiment(tmp_path, paint):
    """experiment(run, workers): an experiment file on 2 classes of 12 images."""
    for index in range(24):
        paint(tmp_path / "images" / "ab"[index % 2] / f"{index}.png", width=36 + index % 5, height=36)

    def write(run, workers):
        file = tmp_path / f"{run}.toml"
        file.write_text(EXPERIMENT.format(run=tmp_path / run, workers=workers, train=tmp_path / "images"))
        return file

    return write


def nothing(text, done, total):
    pass


def train(file, show=nothing, changes=()):
    said = []
    return train_folds(load_config(file, changes), show, said.append), said


def bits(run, fold):
    directory = rundir.fold_dir(run, "resnet", fold)
    return load_logits(rundir.oof_file(directory)).values.tobytes(), rundir.model_file(directory).read_bytes()


# ---- where the work goes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("workers", "cores", "omp", "jobs", "expected"),
    [
        ("auto", 8, None, 15, (2, 4)),
        ("auto", 5, None, 15, (2, 2)),
        ("auto", 1, None, 15, (1, 1)),
        ("auto", 8, None, 1, (1, 8)),
        ("auto", 8, None, 0, (1, 8)),
        ("auto", 8, "2", 15, (2, 2)),
        ("auto", 8, "1", 15, (2, 1)),
        ("auto", 8, "99", 15, (2, 4)),
        ("auto", 8, "3,2", 15, (2, 3)),
        ("auto", 8, "many", 15, (2, 4)),
        ("auto", 8, "", 15, (2, 4)),
        (1, 8, None, 15, (1, 8)),
        (3, 8, None, 15, (3, 2)),
        (3, 8, None, 2, (2, 4)),
        (16, 8, None, 20, (16, 1)),
    ],
)
def test_slots_on_a_cpu(monkeypatch, workers, cores, omp, jobs, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS")
    if omp is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", omp)
    count, threads = expected
    assert slots(workers, CPU, jobs) == [Slot("cpu", threads)] * count


@pytest.mark.parametrize(
    ("count", "cores", "omp", "said"),
    [
        (2, 2, None, "2 at a time with 1 thread each (2 cores)"),
        (2, 2, "1", "2 at a time with 1 thread each (2 cores)"),
        (2, 8, "1", "2 at a time with 1 thread each (8 cores, OMP_NUM_THREADS=1)"),
        (1, 8, "3", "1 at a time with 3 threads (8 cores, OMP_NUM_THREADS=3)"),
        (1, 1, None, "1 at a time with 1 thread (1 core)"),
    ],
)
def test_what_is_used_is_said(monkeypatch, count, cores, omp, said):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS")
    if omp is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", omp)
    assert describe_slots(slots(count, CPU, 9)) == said


@pytest.mark.parametrize(
    ("workers", "gpus", "jobs", "names"),
    [
        ("auto", 2, 15, ["cuda:0", "cuda:1"]),
        ("auto", 4, 1, ["cuda:0"]),
        (3, 2, 15, ["cuda:0", "cuda:1", "cuda:0"]),
        (1, 2, 15, ["cuda:0"]),
    ],
)
def test_slots_on_gpus(monkeypatch, workers, gpus, jobs, names):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    found = slots(workers, torch.device("cuda"), jobs)
    assert [slot.device for slot in found] == names and {slot.threads for slot in found} == {1}


def test_one_slot_on_other_devices():
    assert slots("auto", torch.device("mps"), 15) == [Slot("mps", 1)]


# ---- errors --------------------------------------------------------------------------------------------------------


@pytest.mark.process
@pytest.mark.parametrize("case", ["user", "disk", "bug"])
def test_what_a_worker_raises_is_raised_here_and_ends_the_others(case):
    """Beside it, for "user", another one sleeps on."""
    jobs = [("a", 1), ("a", 0)] if case == "user" else [("a", 0), ("a", 2)]
    places = [Slot("cpu", 3), Slot("cpu", 3)] if case == "user" else [Slot("cpu", 3)]
    heard = []
    with pytest.raises((UserError, OSError, RuntimeError)) as raised:
        run_side_by_side(jobs, places, functools.partial(work, case), lambda *message: heard.append(message))
    assert multiprocessing.active_children() == []
    began = [message for message in heard if message[0] == ("a", 0)]
    assert [message[1:] for message in began] == [("began", True, 3, "cpu")]  # and never hears Ctrl-C
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert ("a", 2) not in [message[0] for message in heard]
    error = raised.value
    if case == "user":
        assert type(error) is UserError and str(error) == "a.png: not a readable image"
    elif case == "disk":
        assert (error.errno, error.filename) == (28, "a/state/last.safetensors")
        assert error.strerror == "could not be written (No space left on device)"
    else:
        assert type(error) is RuntimeError
        lines = str(error).splitlines()
        assert lines[0] == "a fold 0:" and lines[1] == "Traceback (most recent call last):"
        assert lines[-1] == "ZeroDivisionError: a bug" and '    raise ZeroDivisionError("a bug")' in lines


@pytest.mark.process
def test_a_worker_that_dies_between_two_jobs_loses_none():
    heard = []

    def hear(job, kind, *rest):
        heard.append((job, kind))
        while job == ("a", 0) and multiprocessing.active_children():  # its end is not read before it is dead
            time.sleep(0.01)

    run_side_by_side([("a", 0), ("a", 2)], [Slot("cpu", 1)], die_after_the_first, hear)
    assert heard == [(("a", 0), "began"), (("a", 2), "began")]
    assert multiprocessing.active_children() == []


def test_what_raises_here_raises_at_once():
    done = []

    def here(job, slot, tell):
        tell("began", slot.device)
        if job == ("a", 1):
            raise RunFailure("a failure")

    with pytest.raises(RunFailure, match=r"^a failure$"):
        run_here([("a", 0), ("a", 1), ("a", 2)], Slot("cpu", 1), here, lambda *message: done.append(message))
    assert done == [(("a", 0), "began", "cpu"), (("a", 1), "began", "cpu")]


# ---- kills ---------------------------------------------------------------------------------------------------------

DEATHS = {"resnet fold 0 epoch 3/4": 1, "resnet fold 1 epoch 2/4": 2}


def run_job_and_die(config, samples, folds, opened, job, slot, tell):
    """`run_job` in a process that is killed so often at the end of an epoch, before it is saved."""

    def tell_and_die(kind, *rest):
        tell(kind, *rest)
        for place, often in DEATHS.items():
            if kind == "progress" and rest[0] == place:
                deaths = config.run / f"deaths of {job[1]}"
                with deaths.open("ab") as file:
                    if file.tell() < often:
                        file.write(b".")
                        file.close()
                        os.kill(os.getpid(), signal.SIGKILL)

    run_job(config, samples, folds, opened, job, slot, tell_and_die)


@pytest.mark.process
def test_a_killed_worker_is_replaced_once_and_the_bits_are_those_of_one_process(monkeypatch, experiment, tmp_path):
    """Fold 0 is killed in its third epoch, fold 1 in its second one twice, fold 2 never."""
    assert train(experiment("one", workers=1))[0] == []
    monkeypatch.setattr(jobs, "run_job", run_job_and_die)
    shown = []
    failures, said = train(experiment("two", workers=2), lambda text, done, total: shown.append(text))
    line = (
        "resnet fold 1: its process was killed twice (status -9), perhaps for want of memory; lower its batch_size, "
        "or set workers = 1"
    )
    assert failures == [line] and f"failed: {line}" in said
    assert multiprocessing.active_children() == []
    assert [(tmp_path / "two" / f"deaths of {fold}").read_bytes() for fold in (0, 1)] == [b".", b".."]
    epochs = [text[14:23] for text in shown if text.startswith("resnet fold 0")]
    assert epochs == ["epoch 1/4", "epoch 2/4", "epoch 3/4", "epoch 3/4", "epoch 4/4"]
    for fold in (0, 2):
        assert bits(tmp_path / "two", fold) == bits(tmp_path / "one", fold)
    assert not rundir.is_done(rundir.fold_dir(tmp_path / "two", "resnet", 1))
    monkeypatch.undo()
    assert train(experiment("two", workers=1))[0] == []  # the next start goes on
    assert bits(tmp_path / "two", 1) == bits(tmp_path / "one", 1)


# ---- the whole command ---------------------------------------------------------------------------------------------


def start(file):
    """`ens train-folds` in a process group of its own, as a shell starts it."""
    command = [sys.executable, "-m", "ensemble.cli", "train-folds", str(file)]
    command += ["--set", "train.epochs=20", "--set", "folds.k=2"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, start_new_session=True, **pipes)


def alive(group):
    """The processes of the group that have not ended."""
    listed = subprocess.run(["ps", "-e", "-o", "pgid=,pid=,stat="], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in listed.splitlines()]
    return [pid for own, pid, state in rows if int(own) == group and not state.startswith("Z")]


def ended(group):
    """True as soon as none of the group is alive; False after 20 s."""
    for _ in range(400):
        if not alive(group):
            return True
        time.sleep(0.05)
    return False


def epochs_done(run, fold):
    log = rundir.log_file(rundir.fold_dir(run, "resnet", fold))
    return len(log.read_text().splitlines()) if log.exists() else 0


def wait_for_epochs(run, process, before=(0, 0)):
    while any(epochs_done(run, fold) <= count for fold, count in enumerate(before)):
        assert process.poll() is None
        time.sleep(0.005)


def interrupt(process):
    """Ctrl-C."""
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert ended(process.pid)
    return process.returncode, errors


def go_on(file):
    return f"go on with: ens train-folds {file} --set train.epochs=20 --set folds.k=2\n"


@pytest.mark.process
def test_ctrl_c_and_a_killed_parent_leave_no_process_behind_and_the_bits_are_the_same(experiment, tmp_path):
    run = tmp_path / "two"
    file = experiment("two", workers=2)
    process = start(file)
    wait_for_epochs(run, process)
    status, errors = interrupt(process)
    done = [epochs_done(run, fold) for fold in (0, 1)]
    first, last = (line for line in errors.splitlines(keepends=True) if line.startswith("ens: "))
    assert status == 130 and re.fullmatch(r"ens: stopping( after .+)? \.\.\. \(again to stop at once\)\n", first)
    assert last.startswith("ens: stopped; kept: 0 of 2 folds, ") and last.endswith(go_on(file))
    for fold in (0, 1):
        assert f", {done[fold]} of 20 epochs of resnet fold {fold}" in last
    assert min(done) > 0 and not any(rundir.is_done(rundir.fold_dir(run, "resnet", fold)) for fold in (0, 1))
    process = start(experiment("two", workers=2))
    wait_for_epochs(run, process, done)
    process.kill()
    _, errors = process.communicate()
    assert errors == ""
    assert ended(process.pid)
    changes = ("train.epochs=20", "folds.k=2")
    assert train(experiment("one", workers=1), changes=changes)[0] == []
    assert train(experiment("two", workers=1), changes=changes)[0] == []
    assert [bits(tmp_path / "one", fold) for fold in (0, 1)] == [bits(run, fold) for fold in (0, 1)]

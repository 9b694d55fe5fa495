"""Jobs in processes of their own: the same bits, whatever is killed, and nothing left behind."""

import functools
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import worker_jobs
from recorder import Recorder

from ensemble.config import load_config
from ensemble.data.logits import load_logits
from ensemble.errors import RunFailure, UserError
from ensemble.launch.jobs import Outcome
from ensemble.launch.local import run_here, run_side_by_side
from ensemble.launch.slots import Slot, choose_slots, describe_slots
from ensemble.run import Run
from ensemble.train import jobs
from ensemble.train.jobs import train_folds

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


def train(file, changes=()):
    events = Recorder()
    return train_folds(load_config(file, changes), events), events


def bits(run, fold):
    directory = Run(run).member("resnet").fold(fold)
    return load_logits(directory.oof_file).values.tobytes(), directory.model_file.read_bytes()


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
    assert choose_slots(workers, CPU, jobs) == [Slot("cpu", threads)] * count


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
    assert describe_slots(choose_slots(count, CPU, 9)) == said


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
    found = choose_slots(workers, torch.device("cuda"), jobs)
    assert [slot.device for slot in found] == names and {slot.threads for slot in found} == {1}


@pytest.mark.parametrize(
    ("workers", "gpus", "jobs", "gpus_per_job", "names"),
    [
        ("auto", 2, 15, "1/2", ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]),
        ("auto", 2, 3, "1/4", ["cuda:0", "cuda:1", "cuda:0"]),
        ("auto", 2, 15, "1/1", ["cuda:0", "cuda:1"]),
        (3, 1, 15, "1/8", ["cuda:0", "cuda:0", "cuda:0"]),
        ("auto", 4, 15, 2, ["cuda:0", "cuda:2"]),
        ("auto", 5, 15, 2, ["cuda:0", "cuda:2"]),
        ("auto", 4, 15, 4, ["cuda:0"]),
        (3, 4, 15, 2, ["cuda:0", "cuda:2", "cuda:0"]),
    ],
)
def test_jobs_on_several_gpus_and_several_jobs_on_one(monkeypatch, workers, gpus, jobs, gpus_per_job, names):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    found = choose_slots(workers, torch.device("cuda"), jobs, gpus_per_job)
    assert [slot.device for slot in found] == names
    assert {slot.processes for slot in found} == {gpus_per_job if isinstance(gpus_per_job, int) else 1}
    assert describe_slots(found).endswith("; 1 of 5 GPUs left over") == (gpus == 5)


@pytest.mark.parametrize(
    ("workers", "cores", "omp", "processes", "expected"),
    [
        ("auto", 8, None, 2, (2, 4, 2)),
        ("auto", 8, None, 4, (2, 4, 1)),
        ("auto", 2, None, 2, (1, 2, 1)),
        ("auto", 1, None, 2, (1, 1, 1)),
        ("auto", 8, "1", 3, (2, 3, 1)),
        (1, 8, None, 2, (1, 8, 4)),
    ],
)
def test_jobs_by_several_processes_of_a_cpu(monkeypatch, workers, cores, omp, processes, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS")
    if omp is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", omp)
    count, threads, each = expected
    found = choose_slots(workers, CPU, 15, processes)
    assert found == [Slot("cpu", threads, processes)] * count and found[0].threads_each == each
    assert describe_slots(found).startswith(f"{count} at a time, each by {processes} processes with {each} thread")


@pytest.mark.parametrize(
    ("device", "gpus", "gpus_per_job", "line"),
    [
        ("cuda", 2, 4, "gpus_per_job = 4: this machine has 2 GPUs; lower it"),
        ("mps", 0, 2, "gpus_per_job = 2: this machine has 1 GPU; lower it"),
        (
            "cpu",
            0,
            "1/4",
            'gpus_per_job = "1/4": this machine has no GPU that jobs could share; remove it (workers = N sets how many '
            "jobs run side by side on a CPU)",
        ),
    ],
)
def test_gpus_that_are_not_there(monkeypatch, device, gpus, gpus_per_job, line):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with pytest.raises(UserError) as caught:
        choose_slots("auto", torch.device(device), 15, gpus_per_job)
    assert str(caught.value) == line


def test_where_gpus_are_lacking_nothing_is_begun(experiment, tmp_path):
    with pytest.raises(UserError, match=r'^gpus_per_job = "1/4": this machine has no GPU'):
        train(experiment("none", workers=1), changes=("gpus_per_job=1/4",))
    assert not (tmp_path / "none").exists()


def test_one_slot_on_other_devices():
    assert choose_slots("auto", torch.device("mps"), 15) == [Slot("mps", 1)]


# ---- errors --------------------------------------------------------------------------------------------------------


def folds(*numbers):
    return [Run(Path("run")).member("a").fold(number) for number in numbers]


def heard():
    """What was heard of which job, and `listen` and `end` that note it."""
    seen = []

    @dataclass
    class Listener(Recorder):
        job: object = None

        def message(self, line):
            seen.append((self.job, line))

    return seen, lambda job: Listener(job=job), lambda job, outcome: seen.append((job, outcome))


@pytest.mark.process
@pytest.mark.parametrize("case", ["user", "disk", "bug"])
def test_what_a_worker_raises_is_raised_here_and_ends_the_others(case):
    """Beside it, for "user", another one sleeps on."""
    sleeper, first, second = folds(1, 0, 2)
    jobs = [sleeper, first] if case == "user" else [first, second]
    places = [Slot("cpu", 3), Slot("cpu", 3)] if case == "user" else [Slot("cpu", 3)]
    seen, listen, end = heard()
    with pytest.raises((UserError, OSError, RuntimeError)) as raised:
        run_side_by_side(jobs, places, functools.partial(worker_jobs.work, case), listen, end)
    assert multiprocessing.active_children() == []
    began = [word for job, word in seen if job == first]
    assert began == ["began True 3 cpu"]  # and never hears Ctrl-C
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert second not in [job for job, _ in seen]
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
    first, second = folds(0, 2)
    seen, listen, note = heard()

    def end(job, outcome):
        note(job, outcome)
        while job == first and multiprocessing.active_children():  # its end is not read before it is dead
            time.sleep(0.01)

    run_side_by_side([first, second], [Slot("cpu", 1)], worker_jobs.die_after_the_first, listen, end)
    assert seen == [(first, "began"), (first, Outcome()), (second, "began"), (second, Outcome())]
    assert multiprocessing.active_children() == []


def test_what_raises_here_raises_at_once():
    first, failing, last = folds(0, 1, 2)
    seen, listen, end = heard()

    def here(job, slot, events):
        events.message(f"began {slot.device}")
        if job == failing:
            raise RunFailure("a failure")
        return Outcome(seconds=2.0)

    with pytest.raises(RunFailure, match=r"^a failure$"):
        run_here([first, failing, last], Slot("cpu", 1), here, listen, end)
    assert seen == [(first, "began cpu"), (first, Outcome(2.0)), (failing, "began cpu")]


# ---- kills ---------------------------------------------------------------------------------------------------------


@pytest.mark.process
def test_a_killed_worker_is_replaced_once_and_the_bits_are_those_of_one_process(monkeypatch, experiment, tmp_path):
    """Fold 0 is killed in its third epoch, fold 1 in its second one twice, fold 2 never."""
    assert train(experiment("one", workers=1))[0] == []
    monkeypatch.setattr(jobs, "run_job", worker_jobs.run_job_and_die)
    failures, events = train(experiment("two", workers=2))
    line = (
        "resnet fold 1: its process was killed twice (status -9), possibly out of memory; lower its batch_size, or set "
        "workers = 1"
    )
    assert failures == [line] and f"failed: {line}" in events.messages
    assert multiprocessing.active_children() == []
    assert [(tmp_path / "two" / f"deaths of {fold}").read_bytes() for fold in (0, 1)] == [b".", b".."]
    epochs = [text[14:23] for text, *_ in events.steps if text.startswith("resnet fold 0 epoch")]
    assert epochs == ["epoch 1/4", "epoch 2/4", "epoch 3/4", "epoch 3/4", "epoch 4/4"]
    epochs = [(fold, line["epoch"]) for _, fold, line in events.epochs]
    assert sorted(epochs) == [(0, 1), (0, 2), (0, 3), (0, 4), (1, 1), (2, 1), (2, 2), (2, 3), (2, 4)]
    jobs_ended = {fold: (seconds > 0, error) for _, fold, seconds, error in events.jobs}
    assert jobs_ended == {0: (True, None), 1: (False, line), 2: (True, None)} and len(events.jobs) == 3
    for fold in (0, 2):
        assert bits(tmp_path / "two", fold) == bits(tmp_path / "one", fold)
    assert not Run(tmp_path / "two").member("resnet").fold(1).is_done()
    monkeypatch.undo()
    assert train(experiment("two", workers=1))[0] == []  # the next start goes on
    assert bits(tmp_path / "two", 1) == bits(tmp_path / "one", 1)


# ---- the whole command ---------------------------------------------------------------------------------------------


def start(file, *changes):
    """`ens train-folds` in a process group of its own, as a shell starts it."""
    command = [sys.executable, "-m", "ensemble.cli", "train-folds", str(file)]
    command += ["--set", "train.epochs=20", "--set", "folds.k=2", *changes]
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
    log = Run(run).member("resnet").fold(fold).log_file
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
    assert min(done) > 0 and not any(Run(run).member("resnet").fold(fold).is_done() for fold in (0, 1))
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


@pytest.mark.process
def test_jobs_of_two_processes_each_end_with_their_parent_and_go_on_alone(experiment, tmp_path):
    run, changes = tmp_path / "two", ("train.epochs=20", "folds.k=2", "train.freeze_bn=true")
    words = ("--set", changes[-1], "--gpus-per-job", "2")
    process = start(experiment("two", workers=2), *words)
    wait_for_epochs(run, process)
    assert len(alive(process.pid)) >= 7  # the command, two workers, and two processes of each
    process.kill()
    _, errors = process.communicate()
    assert "Warning" not in errors and ended(process.pid)
    done = epochs_done(run, 0)
    process = start(experiment("two", workers=1), *words)
    wait_for_epochs(run, process, (done, -1))
    status, errors = interrupt(process)
    said = [line for line in errors.splitlines() if "%" not in line]  # without the bar
    assert status == 130 and [line[:12] for line in said] == ["ens: stoppin", "ens: stopped"]
    assert train(experiment("two", workers=1), changes=changes)[0] == []
    assert train(experiment("one", workers=1), changes=changes)[0] == []
    for fold in (0, 1):
        logs = [Run(name).member("resnet").fold(fold) for name in (run, tmp_path / "one")]
        assert {line.get("processes") for line in logs[0].read_log()} == {2, None}
        one, two = (load_logits(log.oof_file).values for log in logs)
        assert abs(one - two).max() < 1e-3


@pytest.mark.process
def test_a_worker_imports_nothing_that_it_does_not_need():
    """Each of these would take every worker most of a second, or more."""
    heavy = ("pandas", "pyarrow", "scipy", "sklearn", "rich", "click", "matplotlib")
    code = f"import sys, ensemble.train.work; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"

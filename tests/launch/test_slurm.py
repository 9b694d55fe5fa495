"""What is asked of SLURM: the options, the script, and the lines where it can't be asked."""

import re
import shutil
import sys
import time

import pytest
import stand_in_slurm
from commands import ens
from recorder import Recorder

from ensemble.config import load_config
from ensemble.errors import UserError
from ensemble.files import mirror
from ensemble.launch import slurm
from ensemble.launch.slurm_queue import Queue
from ensemble.run import Run

EXPERIMENT = """
run = "{run}"
[data]
train = "{train}"
image_size = 32
[folds]
k = 3
[train]
epochs = 2
batch_size = 4
[[backbone]]
name = "resnet"
timm = "test_resnet"
pretrained = false
"""


@pytest.fixture
def file(tmp_path, paint):
    for index in range(12):
        paint(tmp_path / "images" / "ab"[index % 2] / f"{index}.png")
    path = tmp_path / "e.toml"
    path.write_text(EXPERIMENT.format(run=tmp_path / "run", train=tmp_path / "images"))
    return path


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A stand-in for SLURM on PATH."""
    binaries, environment = stand_in_slurm.install(tmp_path / "slurm")
    monkeypatch.setenv("PATH", f"{binaries}:/usr/bin:/bin")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return tmp_path / "slurm"


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("90", 90), ("90:30", 91), ("1:30:00", 90), ("0:00:30", 1), ("2-0", 2880), ("1-2:30", 1590), ("1-0:0:1", 1441)],
)
def test_times_in_slurms_forms(text, minutes):
    assert slurm.minutes(text) == minutes


def test_options():
    texts = [
        "time=8:00:00",
        "--cpus-per-task=4",
        "gres=gpu:a100:2",
        "exclusive=true",
        "setup=module load cuda",
        "mem=8G",
    ]
    assert slurm.parse_options(texts) == {
        "time": 480, "signal_delay_s": 120, "setup": ["module load cuda"], "cpus_per_task": "4",
        "gres": "gpu:a100:2", "exclusive": True, "mem": "8G",
    }  # fmt: skip
    assert slurm.gpus({"gres": "tmpfs:10,gpu:a100:2"}) == 2 and slurm.gpus({"gpus": "h100:4"}) == 4
    assert slurm.gpus({"gpus_per_node": "1"}) == 1 and slurm.gpus({"gres": "gpu"}) == 1 and slurm.gpus({}) == 0


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("time", "--slurm time: must be KEY=VALUE, an option of sbatch, as in --slurm time=8:00:00"),
        ("=3", "--slurm =3: must be KEY=VALUE, an option of sbatch, as in --slurm time=8:00:00"),
        ("time=soon", "--slurm time=soon: want minutes, hours:minutes:seconds or days-hours"),
        ("array=1-3", "--slurm array=1-3: ens sets array itself; leave it out"),
        ("job-name=x", "--slurm job-name=x: ens sets job-name itself; leave it out"),
        ("signal_delay_s=x", "--slurm signal_delay_s=x: want a number of seconds, as in --slurm signal_delay_s=120"),
        (
            "time=2",
            "--slurm time: 2 minutes are no longer than the 120 seconds before their end when a worker is asked to "
            "stop; give more time, or a smaller signal_delay_s",
        ),
    ],
)
def test_bad_options_are_one_line(text, line):
    with pytest.raises(UserError, match=f"^{re.escape(line)}$"):
        slurm.parse_options([text])


def test_the_script_is_shown_without_a_cluster_and_without_a_run(monkeypatch, capfd, file, tmp_path):
    words = ("--on", "slurm", "--print", "--slurm", "time=60", "--slurm", "partition=gpu", "--slurm", "cpus-per-task=1")
    status, out, err = ens(monkeypatch, capfd, "train-folds", file, *words)
    assert (status, err) == (0, "") and not (tmp_path / "run").exists()
    lines = out.splitlines()
    for line in (
        "--array=0-2%3",
        "--partition=gpu",
        "--cpus-per-task=1",
        "--time=60",
        "--signal=USR2@120",
        "--requeue",
    ):
        assert f"#SBATCH {line}" in lines
    assert lines[-1].startswith("srun ") and " --cpus-per-task=1 " in lines[-1]
    assert f"{sys.executable} -u -m submitit.core._submit" in lines[-1]
    out = ens(monkeypatch, capfd, "train-folds", file, "--on", "slurm", "--print", "--jobs", "1")[1]
    assert "--array" not in out and "#SBATCH --time=240" in out


def test_workers_are_given_the_time_that_finished_folds_took(started_run, own_started_run):
    """Of the 6 jobs one is left; nothing is known of a new member."""
    config = load_config(started_run.parent / "e.toml", (f"run={own_started_run}",))
    fold = Run(own_started_run).member("net").fold(1)
    done = fold.read_done()
    fold.done_json.unlink()
    Run(own_started_run).member("net").fold(0).mark_done([], seconds=3600.0)

    def planned(texts=(), most=None):
        request = slurm.read_request("slurm", texts, most, False, False)
        submission, workers = slurm.plan(config, request, ("train-folds",))
        return workers, submission.minutes

    assert planned() == (1, 105) and planned(["time=60"]) == (1, 60)  # half as much again, and a quarter of an hour
    Run(own_started_run).member("net").fold(0).mark_done([], seconds=done["seconds"])
    assert planned() == (1, 30)
    shutil.rmtree(own_started_run / "net-2")
    assert planned() == (4, 240) and planned(["gpus=2"]) == (4, 240)  # workers = 1 in the experiment
    config = config.model_copy(update={"workers": "auto"})
    assert planned(["gpus=2"]) == (2, 240) and planned(["cpus-per-task=4"], 1) == (1, 240)


def test_one_line_where_there_is_no_slurm(monkeypatch, capfd, file, tmp_path):
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    status, _, err = ens(monkeypatch, capfd, "train-folds", file, "--on", "slurm")
    assert status == 2 and err.startswith("ens: --on slurm: there is no sbatch here") and err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_workers_with_fewer_gpus_than_a_job_needs_are_refused(monkeypatch, capfd, file, tmp_path):
    words = ("--on", "slurm", "--print", "--slurm", "gpus=1", "--gpus-per-job", "2")
    status, _, err = ens(monkeypatch, capfd, "train-folds", file, *words)
    line = "ens: gpus_per_job = 2: each worker is to have 1 GPU; ask for more, or lower it\n"
    assert (status, err) == (2, line) and not (tmp_path / "run").exists()
    words = ("--print", "k8s", "--storage", "photos", "--set", "gpus_per_job=2")
    assert ens(monkeypatch, capfd, "launch", file, *words) == (2, "", line)
    assert ens(monkeypatch, capfd, "launch", file, *words, "--gpus", "2")[0] == 0


def test_one_line_without_submitit(monkeypatch, capfd, file, tmp_path, cluster):
    monkeypatch.setattr("ensemble.launch.engine.find_spec", lambda name: None)
    status, _, err = ens(monkeypatch, capfd, "train-folds", file, "--on", "slurm")
    assert status == 2 and err.endswith('not installed: pip install "ens-vision[slurm]"\n') and err.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("words", [["--jobs", "2"], ["--print"], ["--detach"], ["--slurm", "time=60"]])
def test_options_of_another_engine_are_refused(monkeypatch, capfd, file, tmp_path, words):
    status, _, err = ens(monkeypatch, capfd, "train-folds", file, *words)
    assert (status, err) == (2, f"ens: {words[0]} goes with --on slurm\n") and not (tmp_path / "run").exists()


def test_what_sbatch_refuses_is_said_in_its_words(monkeypatch, capfd, file, tmp_path, cluster):
    lines = "invalid partition specified: gpus", "Batch job submission failed: Invalid partition"
    (cluster / "refuses").write_text("".join(f"sbatch: error: {line}\n" for line in lines))
    status, _, err = ens(monkeypatch, capfd, "train-folds", file, "--on", "slurm", "--slurm", "partition=gpus")
    assert (status, err) == (2, f"ens: sbatch refused the workers: {'; '.join(lines)}\n")
    assert list((tmp_path / "run" / ".slurm").iterdir()) == []


def test_a_run_on_an_object_store_is_refused(monkeypatch, capfd, file, tmp_path):
    file.write_text(file.read_text().replace(f'"{tmp_path / "run"}"', '"s3://bucket/runs/art"'))
    line = (
        "ens: --on slurm: the run s3://bucket/runs/art is on an object store, and workers of SLURM share a folder; "
        "name one that all nodes mount (run = ...)\n"
    )
    for words in ((), ("--print",)):
        assert ens(monkeypatch, capfd, "train-folds", file, "--on", "slurm", *words) == (2, "", line)
    with pytest.raises(UserError, match="the run s3://bucket/runs/art is on an object store"):
        slurm.require_folder(mirror.folder_of("s3://bucket/runs/art"))
    slurm.require_folder(tmp_path)


def submission(run, *command):
    return slurm.Submission(command, run, slurm.parse_options([]), 30)


def test_workers_that_do_something_else_are_not_counted(tmp_path):
    training = [submission(tmp_path, "train-folds", name).name for name in ("e.toml", str(tmp_path / "e.toml"))]
    others = [submission(tmp_path, "tta-predict", str(tmp_path), images).name for images in ("test", "more")]
    assert training[0] == training[1] and len({*training, *others}) == 3


def test_workers_that_have_not_begun_are_cancelled_when_nothing_is_left(cluster, tmp_path):
    (cluster / "settings.json").write_text('{"most": 0}')
    queue = Queue(submission(tmp_path, "--version"), events := Recorder())
    queue.submit(2)
    queue.wait_for_end(60.0)
    assert not queue.submitted
    deadline = time.monotonic() + 60
    while set(slurm.states(queue.submission).values()) != {"CANCELLED"}:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert len(events.messages) == 1 and events.messages[0].startswith("submitted 2 workers")

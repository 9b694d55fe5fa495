"""A whole run on an object store (moto's, on loopback) by the commands of ens, on machines with a mirror each."""

import os
import signal
import subprocess
import sys
from collections import Counter

import commands
import pytest
from recorder import Recorder

from ensemble.config import load_config
from ensemble.errors import UserError
from ensemble.events import SILENT
from ensemble.files import mirror, stores
from ensemble.run import Run
from ensemble.train.jobs import train_folds

SAME = ("model.safetensors", "oof.safetensors", "folds.csv", "classes.json", "preprocess.json", "numerics.json")
EXPERIMENT = """
run = "{run}"
workers = 1
[data]
train = "{images}"
image_size = 32
cache = "{cache}"
[folds]
k = 4
near_copies = false
[train]
epochs = 3
batch_size = 4
dtype = "float32"
memory_format = "channels_last"
[tta]
views = ["identity"]
dtype = "float32"
engine = "torch"
[[backbone]]
name = "net"
timm = "test_resnet"
pretrained = false
"""


@pytest.fixture
def experiment(tmp_path, paint, cache_of_the_tests):
    """experiment(run): an experiment file; its images are in train/."""
    for index in range(24):
        paint(tmp_path / "train" / "ab"[index % 2] / f"{index:02}.png", 40, 40)

    def write(run):
        file = tmp_path / f"{str(run).rpartition('/')[2]}.toml"
        file.write_text(EXPERIMENT.format(run=run, images=tmp_path / "train", cache=cache_of_the_tests))
        return file

    return write


def results(run):
    """The bytes that a run has, on a disk or in a store."""
    url = mirror.as_url(run)
    if url is None:
        found = {path.relative_to(run).as_posix(): path.read_bytes() for path in run.rglob("*") if path.is_file()}
    else:
        found = {name: stores._store("s3").cat_file(f"{url}/{name}") for name in stores.listed(url)}
    # how fast the steps were is timed
    return {name: data for name, data in found.items() if name.endswith(SAME) and not name.endswith("numerics.json")}


def ens(machine, *words, code=""):
    """A command of ens on a machine: a process with a mirror of its own."""
    start = f"import sys\nfrom ensemble import cli\n{code}\nsys.argv = ['ens', *sys.argv[1:]]\ncli.main()"
    return subprocess.Popen(
        [sys.executable, "-c", start, *map(str, words)],
        env={**os.environ, "ENS_CACHE": str(machine)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process):
    out, err = process.communicate()
    return process.returncode, out, err


@pytest.mark.process
def test_machines_share_a_run_and_all_commands_know_it(bucket, experiment, paint, tmp_path, monkeypatch, capfd):
    url = f"{bucket}/runs/art"
    assert train_folds(load_config(experiment(tmp_path / "disk")), SILENT) == []
    file = experiment(url)
    both = [ens(tmp_path / name, "train-folds", file) for name in ("a", "b")]
    done = Counter()
    for process in both:
        status, out, err = ended(process)
        assert status == 0, err
        done.update(line.partition(":")[0] for line in out.splitlines() if ": done in" in line)
    assert done == {f"net fold {number}": 1 for number in range(4)}
    assert results(url) == results(tmp_path / "disk")
    assert not [name for name in stores.listed(url) if ".claim" in name or "/state/" in name or name.endswith(".tmp")]

    def run(machine, *words):
        monkeypatch.setenv("ENS_CACHE", str(tmp_path / machine))
        monkeypatch.setattr(mirror, "_opened", set())
        monkeypatch.setattr(mirror, "_writable", set())
        status, out, err = commands.ens(monkeypatch, capfd, *words)
        assert status == 0, (words, err)
        return out

    for index in range(40):
        paint(tmp_path / "test" / f"{index:02}.png", 40, 40)
    run("c", "blend", url, "--method", "mean")  # a machine that has none of it
    run("disk", "blend", tmp_path / "disk", "--method", "mean")
    run("disk", "tta-predict", tmp_path / "disk", tmp_path / "test", "-o", tmp_path / "disk.csv")
    words = ("tta-predict", url, tmp_path / "test", "-o")
    small = "from ensemble.tta import chunks\nchunks.chunk_rows = lambda *words, **more: 2"
    for process in [ens(tmp_path / name, *words, tmp_path / f"{name}.csv", code=small) for name in "ab"]:
        status, _, err = ended(process)
        assert status == 0, err
    for name in "ab":
        assert (tmp_path / f"{name}.csv").read_bytes() == (tmp_path / "disk.csv").read_bytes()
    run("b", "report", url)
    assert "sound" in run("c", "verify", url)
    assert url in run("c", "runs", f"{bucket}/runs", "--json")
    assert "a.csv" in run("c", "submissions", url)
    names = set(stores.listed(url))
    assert {"report.html", "blends/mean.json", "predictions/test-mean.safetensors", "submissions.csv"} <= names
    assert any(name.startswith("ens-") and name.endswith(".log") for name in names)
    assert f",{url}," in stores._store("s3").cat_file(f"{url}/submissions.csv").decode()
    assert f'run = "{url}"' in stores._store("s3").cat_file(f"{url}/config.toml").decode()
    assert not [name for name in names if ".claim" in name or "/." in name]


@pytest.mark.process
def test_another_machine_goes_on_where_one_was_killed(bucket, experiment, tmp_path):
    url = f"{bucket}/art"
    assert train_folds(load_config(experiment(tmp_path / "disk")), SILENT) == []
    killed = (
        "import os, signal\nfrom ensemble.train import fit\nsave, count = fit.save_state, []\n"
        "def save_state(*words):\n    save(*words)\n    count.append(1)\n"
        "    if len(count) == 5: os.kill(os.getpid(), signal.SIGKILL)\nfit.save_state = save_state\n"
    )
    file = experiment(url)
    assert ended(ens(tmp_path / "a", "train-folds", file, code=killed))[0] == -signal.SIGKILL
    left = stores.listed(url)
    assert "net/fold1/state/last.safetensors" in left and "net/fold1/.claim-1" in left
    status, out, err = ended(ens(tmp_path / "b", "train-folds", file))
    assert status == 0 and "4 jobs, 1 of them done" in out, err
    assert results(url) == results(tmp_path / "disk")


def test_a_store_that_goes_away_ends_with_one_line_and_nothing_is_lost(bucket, experiment, tmp_path, monkeypatch):
    url = f"{bucket}/art"
    assert train_folds(load_config(experiment(tmp_path / "disk")), SILENT) == []

    class Unplugged(Recorder):
        def epoch_finished(self, member, fold, epoch):
            if (fold, epoch["epoch"]) == (1, 1):
                monkeypatch.setattr(stores, "PAUSES", ())
                monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
                stores._store.cache_clear()

    config, server = load_config(experiment(url)), os.environ["AWS_ENDPOINT_URL"]
    with pytest.raises(OSError, match="could not be written") as error:
        train_folds(config, Unplugged())
    kept = Run(url).member("net").fold(1).state_file
    assert error.value.filename == f"{url}/net/fold1/state/last.safetensors" and f"kept in {kept}" in str(error.value)
    monkeypatch.setattr(mirror, "_opened", set())
    with pytest.raises(UserError, match=f"{url}: can't be read"):
        train_folds(config, SILENT)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    stores._store.cache_clear()
    assert train_folds(config, events := Recorder()) == []
    assert "24 images, 2 classes; 4 jobs, 1 of them done; on cpu" in events.messages
    assert [line["epoch"] for _, fold, line in events.epochs if fold == 1] == [3]  # two were kept
    assert results(url) == results(tmp_path / "disk")

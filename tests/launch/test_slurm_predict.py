"""Predictions and added views by workers that SLURM starts, here the stand-in for its commands."""

import os
import shutil
import subprocess
import sys
import time

import pytest
import stand_in_slurm
from commands import ens

from ensemble.events import SILENT
from ensemble.launch import slurm
from ensemble.launch.slurm_worker import count_pieces
from ensemble.run import Run
from ensemble.tta.oof import add_views

pytestmark = pytest.mark.process

COMMAND = (
    "import sys; from ensemble.launch import slurm_queue; slurm_queue.FILES_SECONDS = 0.2; "
    "slurm_queue.QUEUE_SECONDS = 0.5; from ensemble import cli; sys.argv[0] = 'ens'; cli.main()"
)


@pytest.fixture(scope="module")
def run(noise_run):
    return noise_run


@pytest.fixture(scope="module")
def images(tmp_path_factory, paint):
    """1,100 images: two shards."""
    folder = tmp_path_factory.mktemp("images") / "test"
    for index in range(1100):
        paint(folder / f"{index:04}.png", 40, 40)
    return folder


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A stand-in for SLURM on PATH. At the end its workers are gone."""
    folder = tmp_path / "slurm"
    binaries, environment = stand_in_slurm.install(folder, 2)
    monkeypatch.setenv("PATH", f"{binaries}:{os.environ['PATH']}")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(stand_in_slurm, "HOME", folder)
    yield folder
    if (folder / "table.json").exists():
        stand_in_slurm.scancel(list(jobs()))
        ended()


def jobs():
    with stand_in_slurm.table() as there:
        return there


def ended():
    """The jobs of SLURM, when all have ended."""
    for _ in range(1200):
        if all(job["state"] in slurm.ENDED for job in jobs().values()):
            return jobs()
        time.sleep(0.1)
    raise AssertionError(f"still running: {jobs()}")


def on_slurm(*words):
    """A command on the stand-in, which looks at files and queue more often than is right on a real cluster."""
    command = [sys.executable, "-c", COMMAND, *map(str, words), "--on", "slurm"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout, done.stderr


def test_workers_of_slurm_predict_the_bytes_of_one_process(run, images, tmp_path, cluster, monkeypatch, capfd):
    words = ["tta-predict", run, images, "--blend", "mean", "--form", "probability", "--keep-gb", 0]
    output, saved = tmp_path / "s.csv", Run(run).predictions_file("test", "mean")
    assert ens(monkeypatch, capfd, *words, "-o", output)[0] == 0
    want = output.read_bytes(), saved.read_bytes()
    output.unlink(), saved.unlink()
    status, out, err = on_slurm(*words, "-o", output, "--workers", 2)
    assert status == 0, err
    assert "submitted 2 workers (job " in out and f"wrote {output} (1,100 rows of" in out
    assert (output.read_bytes(), saved.read_bytes()) == want
    assert len(ended()) == 2 and not list(saved.parent.glob(".*"))
    status, out, _ = on_slurm(*words, "-o", output, "--workers", 2, "--print", "--slurm", "time=30")
    assert status == 0 and "#SBATCH --time=30\n" in out and "#SBATCH --array=0-1" in out and len(jobs()) == 2


def test_what_is_wrong_with_an_image_ends_the_workers_and_the_command(run, images, tmp_path, cluster):
    folder = shutil.copytree(images, tmp_path / "bad")
    (folder / "0003.png").write_text("no image")
    status, out, err = on_slurm("tta-predict", run, folder, "--blend", "mean", "-o", tmp_path / "s.csv")
    assert status == 1 and "0003.png: not a readable image (" in out
    assert "the workers ended, and 2 shards are not predicted" in err


def test_workers_of_slurm_add_views(run, tmp_path, cluster):
    there = shutil.copytree(run.parent, tmp_path / "copy") / "run"
    add_views(Run(run), ["vflip"], SILENT)
    before = count_pieces(there)
    status, out, err = on_slurm("tta-oof", there, "--views", "vflip", "--workers", 1)
    assert status == 0 and "submitted 1 worker (job " in out and "resnet, vit: next: ens tta-search" in out, err
    for name in ("resnet", "vit"):
        for number in (0, 1):
            added = [Run(place).member(name).fold(number).added_views_file.read_bytes() for place in (run, there)]
            assert added[0] == added[1]
    assert count_pieces(there) == before + 4


def test_options_of_clusters_go_with_their_engines(run, images, monkeypatch, capfd):
    cases = {
        ("--workers", 2): "--workers goes with --on ray or slurm; on one machine, start the same command several times",
        ("--slurm", "time=1:00:00"): "--slurm goes with --on slurm",
        ("--detach",): "--detach goes with --on slurm",
    }
    for words, line in cases.items():
        status, _, err = ens(monkeypatch, capfd, "tta-predict", run, images, *words)
        assert (status, err) == (2, f"ens: {line}\n")
    status, _, err = ens(monkeypatch, capfd, "tta-predict", run, images / "0000.png", "--on", "slurm")
    assert (status, err) == (2, "ens: --on slurm: single pictures are predicted here; leave it out\n")

"""A disk without room, a real one of 1 MB: one line, status 1, and the same command goes on when there is room."""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from commands import ens
from PIL import Image

from ensemble.run import Run

ROOM = 4096  # bytes that a full disk has left: enough for a lock file and a line of the log


@pytest.fixture(scope="session")
def may_mount(tmp_path_factory):
    place = tmp_path_factory.mktemp("mount")
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or _mount(place, "1m") != 0:
        pytest.skip("a small file system can't be mounted here")
    _unmount(place)


@pytest.fixture
def disk(may_mount, tmp_path):
    """disk(size): a file system of that size, such as "1m"."""
    places = []

    def mounted(size):
        place = tmp_path / f"disk{len(places)}"
        place.mkdir()
        assert _mount(place, size) == 0
        places.append(place)
        return place

    yield mounted
    for place in places:
        _unmount(place)


def _mount(place, size):
    with suppress(OSError):
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
        return subprocess.run(command, capture_output=True).returncode
    return 1


def _unmount(place):
    subprocess.run(["umount", "-l", str(place)], capture_output=True, check=True)


def fill(disk, left=ROOM):
    """Leave `left` bytes of a disk free."""
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    (disk / "filler").write_bytes(bytes(max(free - left, 0)))


def images(folder, count):
    for number in range(count):
        path = folder / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
    return folder


SCAN = """
import sys
from pathlib import Path
from ensemble.data.scan import scan
from ensemble.events import SILENT
paths = sorted(Path(sys.argv[1]).rglob("*.png"))
print(scan(paths, Path(sys.argv[2]), SILENT).thumbnails.astype(int).sum(), len(paths))
"""


def test_a_look_at_images_needs_no_room_in_the_cache(disk, tmp_path):
    """400 thumbnails of 4 kB on 1 MB: it was a bus error, so it is tried in a process of its own."""
    folder = images(tmp_path / "images", 400)
    told = []
    for cache in (tmp_path / "cache", disk("1m")):
        done = subprocess.run([sys.executable, "-c", SCAN, str(folder), str(cache)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        told.append(done.stdout)
    assert told[0] == told[1] and told[0].endswith(" 400\n")


def experiment(folder, run, cache):
    (folder / "e.toml").write_text(
        f'run = "{run}"\n[data]\ntrain = "{folder / "images"}"\nimage_size = 32\ncache = "{cache}"\n[folds]\nk = 2\n'
        "near_copies = false\n[train]\nepochs = 2\nbatch_size = 8\n"
        '[[backbone]]\nname = "net"\ntimm = "test_resnet"\npretrained = false\n'
    )
    return folder / "e.toml"


def refused(told, disk):
    """The error lines of a command that met the full disk: one, which names a file there."""
    status, _, err = told
    lines = [line for line in err.splitlines() if line.startswith("ens: ")]
    assert status == 1 and len(lines) == 1 and "Traceback" not in err, err
    assert str(disk) in lines[0] and ("No space left" in lines[0] or "has " in lines[0]), lines[0]
    return lines[0]


def test_a_cache_without_room_is_one_line(disk, tmp_path, monkeypatch, capfd):
    images(tmp_path / "images", 16)
    small = disk("1m")
    words = ["train-folds", experiment(tmp_path, tmp_path / "run", small / "cache")]
    fill(small)
    refused(ens(monkeypatch, capfd, *words), small)
    (small / "filler").unlink()
    assert ens(monkeypatch, capfd, *words)[0] == 0


def test_a_run_without_room_goes_on_when_there_is_some(disk, tmp_path, monkeypatch, capfd):
    folder = images(tmp_path / "images", 16)
    small = disk("16m")
    run = small / "run"
    train = ["train-folds", experiment(tmp_path, run, tmp_path / "cache")]

    def full_then_not(*words, left=ROOM):
        fill(small, left)
        line = refused(ens(monkeypatch, capfd, *words), small)
        (small / "filler").unlink()
        status, _, err = ens(monkeypatch, capfd, *words)
        assert status == 0, err
        return line

    fill(small)
    refused(ens(monkeypatch, capfd, *train), small)  # before the run is there
    (small / "filler").unlink()
    full_then_not(*train, left=200_000)  # in the middle of it: the training state has no room
    assert not list(run.rglob("*.tmp"))
    whole = {path: path.read_bytes() for path in run.rglob("*.safetensors")}
    full_then_not("blend", run, "--method", "mean")
    full_then_not("tta-oof", run, "--views", "vflip")
    full_then_not("tta-predict", run, folder / "a", "-o", tmp_path / "s.csv")
    full_then_not("report", run)
    full_then_not("report", run, "-o", small / "page.html")
    full_then_not("relabel", run, "-o", small / "relabel.csv", left=0)
    for path, content in whole.items():
        assert path.read_bytes() == content
    assert Run(run).report_html.is_file() and Path(tmp_path / "s.csv").is_file()

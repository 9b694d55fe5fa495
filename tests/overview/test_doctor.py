"""`ens doctor`: what a machine has, what will be slow on it, and the version with its commit."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import torch
from commands import ens

import ensemble
from ensemble.overview import doctor


def test_a_machine_is_looked_at(monkeypatch, capfd, tmp_path):
    monkeypatch.setenv("ENS_CACHE", str(tmp_path / "not" / "yet"))
    status, out, _ = ens(monkeypatch, capfd, "doctor", "--json")
    items = {item["name"]: item for item in json.loads(out)["result"]}
    assert status == 0 and list(items)[:4] == ["ens", "Python", "packages", "extras"]
    assert items["ens"]["found"].startswith(ensemble.__version__) and "torch 2." in items["packages"]["found"]
    assert items["cache"]["found"].startswith(f"{tmp_path / 'not' / 'yet'}, ")
    assert re.fullmatch(r"writes .*B/s", items["cache's disk"]["found"]) and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("count", "threads", "advice"),
    [
        (8, None, None),
        (8, "4", None),
        (8, "2", "OMP_NUM_THREADS = 2 allows each process fewer threads than it could have"),
    ],
)
def test_cores_that_a_setting_leaves_idle(monkeypatch, count, threads, advice):
    monkeypatch.setattr(doctor, "cores", lambda: count)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if threads:
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
    assert doctor._cores() == doctor.Item("cores", "8 cores for this process", advice)


def test_memory_that_is_short(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "MEMINFO", tmp_path / "meminfo")
    assert doctor._memory() == doctor.Item("memory", "not known")
    (tmp_path / "meminfo").write_text("MemTotal:  16000000 kB\nMemAvailable:  2000000 kB\n")
    assert doctor._memory().advice == "processes may be killed while they train: set workers = 1, or lower batch_size"
    (tmp_path / "meminfo").write_text("MemTotal:  16000000 kB\nMemAvailable:  9000000 kB\n")
    assert doctor._memory().advice is None


def test_a_cache_that_cannot_be_written(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "_writing_speed", lambda folder: (_ for _ in ()).throw(OSError(30, "Read-only")))
    assert doctor._cache(tmp_path)[1] == doctor.Item(
        "cache's disk",
        "can't be written (Read-only)",
        "nothing can be kept between runs: set ENS_CACHE to a folder that can be written",
    )


def test_a_system_that_counts_no_load_and_a_torch_without_onednn(monkeypatch):
    """Windows has no os.getloadavg; torch for Apple's processors has no oneDNN, and so no op that tells its formats."""
    monkeypatch.delattr("os.getloadavg")
    assert doctor._load() == doctor.Item("load", "not known")

    def lacking():
        raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_is_mkldnn_bf16_supported'")

    monkeypatch.setattr("torch.backends.mkldnn.is_available", lambda: False)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lacking)
    assert doctor._number_formats().found == "float32; no units for bfloat16"


def test_a_cache_whose_disk_is_not_there(monkeypatch, tmp_path):
    monkeypatch.setattr(Path, "is_dir", lambda self: False)  # as of a drive of Windows
    [item] = doctor._cache(tmp_path)
    assert item.found == f"{tmp_path}, whose disk is not there" and "set ENS_CACHE" in item.advice


def test_the_version_has_the_commit_of_a_checkout(monkeypatch, capfd, tmp_path):
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    (tmp_path / "ensemble").mkdir()
    (tmp_path / "ensemble" / "__init__.py").write_text("a = 1\n")
    monkeypatch.setattr(ensemble, "__file__", str(tmp_path / "ensemble" / "__init__.py"))
    status, out, _ = ens(monkeypatch, capfd, "--version")
    assert status == 0 and out == f"ens {ensemble.__version__}\n"
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        subprocess.run([*git, *words], check=True)
    assert re.fullmatch(rf"{re.escape(ensemble.__version__)} \([0-9a-f]{{7,}}\)", doctor.version())
    (tmp_path / "ensemble" / "__init__.py").write_text("a = 2\n")
    assert doctor.version().endswith(", changed)")

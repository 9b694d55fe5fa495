"""How many cores there are to use, and on what prediction will run, without torch."""

import os
import subprocess
import sys

import pytest

from ensemble import machine
from ensemble.device import choose_device


@pytest.fixture
def container(tmp_path, monkeypatch):
    """container(own, **files): control groups of these files, and eight cores."""

    def make(own, files):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
        monkeypatch.setattr(machine, "CGROUPS", tmp_path)
        monkeypatch.setattr(machine, "OWN_CGROUPS", tmp_path / "own")
        for name, text in {"own": own, **files}.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)

    return make


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "max 100000\n"}, 8),
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "20000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "9900000 100000\n"}, 8),
        ("0::/a/b\n", {"a/cpu.max": "300000 100000\n", "a/b/cpu.max": "max 100000\n"}, 3),
        ("0::/a/b\n", {"a/cpu.max": "max 100000\n", "a/b/cpu.max": "500000 100000\n"}, 5),
        ("0::/\n", {"cpu.max": "what\n"}, 8),
        ("0::/\n", {}, 8),
        ("", {}, 8),
        ("4:cpu,cpuacct:/x\n", {"cpu/x/cpu.cfs_quota_us": "400000", "cpu/x/cpu.cfs_period_us": "100000"}, 4),
        ("4:cpu,cpuacct:/x\n", {"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"}, 4),
        ("4:cpu:/x\n", {"cpu/x/cpu.cfs_quota_us": "-1", "cpu/x/cpu.cfs_period_us": "100000"}, 8),
        ("4:cpuset:/x\n", {"cpu/x/cpu.cfs_quota_us": "1", "cpu/x/cpu.cfs_period_us": "100000"}, 8),
    ],
)
def test_a_container_may_be_given_less_than_its_cores(container, own, files, expected):
    container(own, files)
    assert machine.cores() == expected


def test_without_control_groups_the_cores_count(container, tmp_path, monkeypatch):
    container("", {})
    monkeypatch.setattr(machine, "OWN_CGROUPS", tmp_path / "none")
    assert machine.cores() == 8


@pytest.mark.parametrize(
    ("text", "expected"), [("", None), ("3", 3), ("4,2", 4), (" 2 ", 2), ("0", None), ("-1", None), ("many", None)]
)
def test_the_threads_that_are_allowed(monkeypatch, text, expected):
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    assert machine.threads_allowed() == expected


def test_the_device_is_torchs_choice(monkeypatch):
    assert machine.device_type() == choose_device().type
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2.11.0")  # of a build that may use a GPU
    assert machine.device_type() == choose_device().type
    monkeypatch.setattr(machine, "DRIVERS", ("/",))  # there is a driver: torch is asked
    assert machine.device_type() == choose_device().type


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere torch is asked")
def test_it_loads_no_torch():
    code = "import sys; from ensemble import machine; machine.DRIVERS = (); machine.cores(); machine.device_type(); "
    subprocess.run([sys.executable, "-c", f"{code} assert 'torch' not in sys.modules"], check=True)

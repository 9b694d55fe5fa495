"""benchmarks/gpu.py as far as a CPU can try it: all of its sections, and what becomes of one that fails."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"
BROKEN = """
import os

from gpu import Row, check


def machine(bench):
    yield check("first", "is kept", True)
    raise ValueError("a bug\\nin two lines")


def steps(bench):
    yield Row("before", "is kept")
    os.kill(os.getpid(), 9)


def crops(bench):
    yield check("a sum", "is wrong", False)
    raise RuntimeError("CUDA error: an illegal memory access was encountered")


def views(bench):
    yield Row("process", str(os.getpid()), numbers={"device": str(bench.device)})


def networks(bench):
    yield Row("process", str(os.getpid()))
"""


def run(script, *words):
    command = [sys.executable, str(script), "--dry-run", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.process
def test_a_dry_run_goes_through_all_sections_and_nothing_fails(tmp_path):
    done = run(SCRIPT, "-o", str(tmp_path / "gpu.json"))
    rows = json.loads((tmp_path / "gpu.json").read_text())
    assert [row for row in rows if row["state"] == "FAILED"] == [] and done.returncode == 0, done.stderr
    counts = {state: sum(row["state"] == state for row in rows) for state in ("ok", "skipped", "")}
    assert counts["ok"] >= 20 and counts["skipped"] <= 7 and counts[""] >= 12
    sections = list(dict.fromkeys(row["section"] for row in rows))
    assert len(sections) == 17 and sections[0] == "machine" and {"training speed", "packing", "demo"} <= set(sections)
    table = (tmp_path / "gpu.md").read_text()
    assert len(table.splitlines()) == len(rows) + 2 and done.stdout.startswith(table)
    assert f"{len(rows)} rows, 0 failed" in done.stdout


@pytest.mark.process
def test_what_fails_is_told_and_the_others_go_on(tmp_path):
    shutil.copy(SCRIPT, tmp_path / "gpu.py")
    (tmp_path / "gpu_checks.py").write_text(BROKEN)
    names = ("machine", "steps", "crops", "views", "networks")
    done = run(tmp_path / "gpu.py", "-o", str(tmp_path / "gpu.json"), "--only", *names)
    rows = json.loads((tmp_path / "gpu.json").read_text())
    assert [(row["section"], row["what"], row["result"], row["state"]) for row in rows[:-2]] == [
        ("machine", "first", "is kept", "ok"),
        ("machine", "the section", "ValueError: a bug", "FAILED"),
        ("steps", "before", "is kept", ""),
        ("steps", "the section", "its process was ended by signal 9", "FAILED"),
        ("crops", "a sum", "is wrong", "FAILED"),
        ("crops", "the section", "RuntimeError: CUDA error: an illegal memory access was encountered", "FAILED"),
    ]
    assert [row["section"] for row in rows[-2:]] == ["views", "networks"] and rows[-1]["result"] == rows[-2]["result"]
    assert rows[-2]["numbers"] == {"device": "cpu"} and int(rows[-1]["result"]) != os.getpid()
    assert done.returncode == 1 and "8 rows, 4 failed, 0 skipped" in done.stdout and "in two lines" in done.stderr


def test_without_a_gpu_it_says_what_can_be_done():
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr == (
        "torch finds no GPU (torch.cuda.is_available() is False); --dry-run does all of it on the CPU\n"
    )

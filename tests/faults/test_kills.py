"""The short form of the harness of kills, in a process of its own, which has no threads: it forks."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.process
def test_after_a_kill_nothing_is_damaged_and_the_end_is_the_same():
    command = [sys.executable, str(Path(__file__).with_name("kills.py")), "--n", "2", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert done.stdout.startswith("2 kills, of ") and done.stdout.endswith("; 0 went wrong\n")

"""Processor time of the commands that read a finished run, each the best of a few: python benchmarks/commands.py RUN

A copy of the run is worked on, so that nothing in it changes. Start it where the experiment's paths start.
"""

import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

TIMES = 3
COMMANDS = (
    ["--help"],
    ["blend", "--help"],
    ["blend", "RUN", "--name", "timed"],
    ["blend", "RUN", "--method", "stack", "--calibration", "auto", "--name", "timed"],
    ["compare", "RUN"],
    ["report", "RUN"],
)


def seconds(words: list[str]) -> float:
    """User and system time of one command, in a process of its own."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "ensemble.cli", *words], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / Path(sys.argv[1]).name
        shutil.copytree(sys.argv[1], run)
        for command in COMMANDS:
            words = [str(run) if word == "RUN" else word for word in command]
            print(f"{min(seconds(words) for _ in range(TIMES)):6.2f} s  ens {' '.join(command)}")


if __name__ == "__main__":
    main()

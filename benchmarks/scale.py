"""Ray against processes of this machine: python benchmarks/scale.py [--rounds 5] [--epochs 6]

Twelve jobs on the digits of `ens demo` (its three networks, four folds), by two workers each, alternating, in a fresh
run each time; medians of the rounds. The rate is of jobs per minute, from when the run's rows are read to the end of
the last job, the start of the workers included. Beside it: Ray's start (until it answers, and its machines are
compared) and its end in seconds, which the rate leaves out.
"""

import argparse
import os
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

from ensemble.config import load_config
from ensemble.demo import EXPERIMENT, write_digits
from ensemble.events import Silent
from ensemble.launch.engine import LOCAL, Engine, parse_engine
from ensemble.toml import toml_value
from ensemble.train.jobs import train_folds


@dataclass(frozen=True)
class Stopwatch(Silent):
    """times: when the first thing was said of the jobs, and when each ended."""

    times: list[float] = field(default_factory=list)

    def message(self, line: str) -> None:
        if " jobs, 0 of them done" in line:
            self.times.append(time.monotonic())

    def job_finished(self, member: str, fold: int, seconds: float, error: str | None) -> None:
        assert error is None, error
        self.times.append(time.monotonic())


def measure(folder: Path, engine: Engine, epochs: int) -> tuple[float, float, float]:
    """Seconds before the jobs, of the jobs, and after them."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        file = Path(place) / "digits.toml"
        train = toml_value(str(folder / "digits" / "train"))
        file.write_text(EXPERIMENT.format(run=toml_value(str(Path(place) / "run")), train=train))
        watch, begun = Stopwatch(), time.monotonic()
        config = load_config(file, ["folds.k=4", f"train.epochs={epochs}"])
        assert train_folds(config, watch, engine) == []
        ended = time.monotonic()
        assert len(watch.times) == 13, watch.times
        return watch.times[0] - begun, watch.times[-1] - watch.times[0], ended - watch.times[-1]


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--epochs", type=int, default=6)
    options.add_argument("--on", default="ray")
    options = options.parse_args()
    engines = {"local": LOCAL, options.on: parse_engine(options.on)}
    with tempfile.TemporaryDirectory() as place:
        os.environ["ENS_CACHE"] = str(Path(place) / "cache")
        write_digits(Path(place) / "digits")
        measure(Path(place), LOCAL, 1)  # pixels are decoded, numeric settings timed
        found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in engines}
        for number in range(options.rounds):
            for name in list(engines)[:: -1 if number % 2 else 1]:
                found[name].append(measure(Path(place), engines[name], options.epochs))
                before, jobs, after = found[name][-1]
                print(f"{name}: {before:.1f} s, {jobs:.1f} s for 12 jobs, {after:.1f} s", flush=True)
    print("| | jobs per minute | before, s | after, s |\n|---|---|---|---|")
    for name, rounds in found.items():
        before, jobs, after = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(f"| {name} | {720 / jobs:.2f} | {before:.1f} | {after:.1f} |")
    ratios = [local[1] / other[1] for local, other in zip(found["local"], found[options.on], strict=True)]
    print(f"{options.on} against local, median of the rounds: {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()

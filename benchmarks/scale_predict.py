"""How prediction scales over processes: one, two that share the shards, and two workers of a Ray cluster.

    python benchmarks/scale_predict.py RUN IMAGES [--blend NAME] [--shard-rows 64] [--rounds 5]

All have one thread each, so that two processes have twice the cores of one. They alternate, and nothing else should run
beside them. A rate is that of the rows between the first shard of each worker and the last shard, so that starting
(imports, networks, joining a Ray cluster) is taken off; the seconds to the first shard are given beside it. The files
of all must be the same. RUN is copied, without what it has predicted before.
"""

import argparse
import os
import secrets
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ensemble.events import SILENT
from ensemble.predictions import sharing
from ensemble.run import Run
from ensemble.run.run import shards_dir
from ensemble.tta.prepare import PredictionRequest, prepare

CHILD = """
import sys
from pathlib import Path
from ensemble.events import SILENT
from ensemble.launch.engine import Engine
from ensemble.run import Run
from ensemble.tta.prepare import PredictionRequest
run, images, output, blend, rows, address = sys.argv[1:]
request = PredictionRequest(
    Run(run), Path(images), Path(output), blend or None, form="probability", shard_rows=int(rows), stored_bytes=0
)
if address:
    from ensemble.tta.on_ray import tta_predict_on_ray
    tta_predict_on_ray(request, Engine("ray", address), 2, SILENT)
else:
    from ensemble.tta.predict import tta_predict
    tta_predict(request, SILENT)
"""


@dataclass(frozen=True)
class Measured:
    """rate: rows per second. start: seconds to the first shard. seconds: of all. files: their bytes."""

    rate: float
    start: float
    seconds: float
    files: tuple[bytes, bytes]


def measure(request: PredictionRequest, processes: int, workers: int, address: str) -> Measured:
    """Predict in so many processes, each a worker, or by workers of the cluster at this address."""
    prediction = prepare(request, SILENT)
    folder = shards_dir(prediction.saved)
    shutil.rmtree(request.run.path / "predictions", ignore_errors=True)
    (folder / "processes").mkdir(parents=True)
    words = [request.run.path, request.images, request.output, request.blend_name or "", request.shard_rows, address]
    command = [sys.executable, "-c", CHILD, *map(str, words)]
    with sharing.taking_part(folder, "benchmark"):  # so that the shards stay
        begun, clock = time.time(), time.monotonic()
        children = [subprocess.Popen(command) for _ in range(processes)]
        if any(child.wait() for child in children):
            sys.exit("a process failed")
        seconds = time.monotonic() - clock
    shards = sorted((part.path.stat().st_mtime, len(part)) for part in prediction.parts)
    rows = sum(count for _, count in shards[workers:])
    rate = rows / (shards[-1][0] - shards[workers - 1][0])
    files = request.output.read_bytes(), prediction.saved.read_bytes()
    return Measured(rate, shards[0][0] - begun, seconds, files)


@contextmanager
def ray_cluster() -> Iterator[str]:
    """A cluster of two CPUs on this machine: its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = ("127.0.0.1", free.getsockname()[1])
    command = [Path(sys.executable).with_name("ray"), "start", "--head", "--block", f"--port={address[1]}"]
    command += ["--num-cpus=2", "--include-dashboard=false", f"--object-store-memory={2**27}", "--disable-usage-stats"]
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    head = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        while head.poll() is None:
            with socket.socket() as tried:
                if tried.connect_ex(address) == 0:
                    break
            time.sleep(0.1)
        yield f"{address[0]}:{address[1]}"
    finally:
        head.terminate()
        head.wait(60)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--blend")
    parser.add_argument("--shard-rows", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        run = Run(shutil.copytree(options.run, Path(folder) / "run", ignore=shutil.ignore_patterns("predictions")))
        request = PredictionRequest(
            run, options.images.absolute(), Path(folder) / "s.csv", options.blend, form="probability",
            shard_rows=options.shard_rows, stored_bytes=0,
        )  # fmt: skip
        ways = {"1 process": (1, 1, ""), "2 processes": (2, 2, "")}
        found: dict[str, list[Measured]] = {name: [] for name in [*ways, "Ray, 2 workers"]}
        with ray_cluster() as address:
            ways["Ray, 2 workers"] = (1, 2, address)
            for _ in range(options.rounds):
                for name, way in ways.items():
                    found[name].append(measure(request, *way))
                    last = found[name][-1]
                    print(f"{name:16} {last.rate:7.2f} rows/s, first shard after {last.start:.1f} s", flush=True)
    rates = {name: statistics.median(each.rate for each in runs) for name, runs in found.items()}
    print(f"\n{'':16} {'rows/s':>14} {'of 1 process':>13} {'of 2':>6} {'first shard':>12} {'all':>8}")
    for name, runs in found.items():
        low, high = min(each.rate for each in runs), max(each.rate for each in runs)
        first, whole = (statistics.median(getattr(each, key) for each in runs) for key in ("start", "seconds"))
        print(
            f"{name:16} {rates[name]:5.2f} ({low:.2f}-{high:.2f}) {rates[name] / rates['1 process']:8.2f} "
            f"{rates[name] / rates['2 processes']:9.2f} {first:10.1f} s {whole:6.1f} s"
        )
    same = len({each.files for runs in found.values() for each in runs}) == 1
    print(f"{'the same' if same else 'NOT THE SAME'} bytes in all {sum(map(len, found.values()))} predictions")


if __name__ == "__main__":
    main()

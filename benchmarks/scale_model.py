"""Where a run stops scaling: python benchmarks/scale_model.py [--measure]

A simulation of 10, 100 and 1,000 workers that share 50 backbones x 10 folds by claims, and of as many that predict 100
million images. --measure times on this machine what the simulation starts from: the start of a worker, a claim, a state
that is saved, and a row of images that is read; their values here are those measured (benchmarks/RESULTS.md). Storage
is what it is assumed to be: so many operations and bytes a second for all workers together, first come first served.
"""

import argparse
import heapq
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from resource import RUSAGE_SELF, getrusage

import numpy as np

WORKERS = 10, 100, 1000


@dataclass(frozen=True)
class Storage:
    """What all workers share.

    seconds: that one operation takes when nothing else is asked for (open, create, stat)
    operations: a second, at most
    bytes: a second, at most
    """

    seconds: float
    operations: float
    bytes: float


@dataclass(frozen=True)
class Training:
    """Jobs of 50 backbones x 10 folds.

    seconds: of a job, the median of the backbones; they differ by a factor e at one standard deviation of `spread`
    epochs: of a job; after each its state is saved
    state: bytes of it
    start: seconds until a worker is ready for its first job
    """

    seconds: float
    spread: float
    epochs: int
    state: float
    start: float
    backbones: int = 50
    folds: int = 10
    operations: int = 4  # of a look at a job: its folder, its marker, its claim, the list of claims


@dataclass(frozen=True)
class Prediction:
    """Images that are predicted.

    images, rows: in all, and of a shard
    seconds: an image takes by all networks
    bytes: of an image's file
    start: seconds until a worker is ready, networks loaded
    listing: seconds for a row of the list that each worker reads
    """

    images: float
    rows: int
    seconds: float
    bytes: float
    start: float
    listing: float
    operations: int = 6  # of a shard: a claim, a file that is written and renamed, a claim that is removed


class Queue:
    """Storage that serves one after the other: who comes waits until it is free."""

    def __init__(self, rate: float) -> None:
        self.rate, self.free = rate, 0.0

    def end(self, now: float, amount: float) -> float:
        """When `amount` that is asked for now has been served."""
        self.free = max(self.free, now) + amount / self.rate
        return self.free


def train(
    work: Training, storage: Storage, workers: int, longest_first: bool = False
) -> tuple[float, dict[str, float]]:
    """Hours until all jobs are done, and the shares of the workers' time in them: training, saving, looking for a job,
    starting and idle. longest_first: jobs are taken in that order, not in that of the config."""
    rng = np.random.default_rng(0)
    of_backbones = work.seconds * np.exp(work.spread * rng.standard_normal(work.backbones))
    if longest_first:
        of_backbones = -np.sort(-of_backbones)
    seconds = np.repeat(of_backbones, work.folds)
    taken = 0  # jobs are taken in their order
    operations, disk = Queue(storage.operations), Queue(storage.bytes)
    spent = dict.fromkeys(("training", "saving", "looking", "starting"), 0.0)
    # When a worker has done what: (time, worker, job or -1 for none, epochs of it that are not saved)
    events = [(work.start, worker, -1, 0) for worker in range(workers)]
    spent["starting"] = work.start * workers
    looked = dict.fromkeys(range(workers), 0)  # how many jobs a worker has looked at
    last = 0.0
    while events:
        now, worker, job, left = heapq.heappop(events)
        if left:  # an epoch has ended: its state is saved, and the next one begins
            spent["training"] += seconds[job] / work.epochs
            last = disk.end(now, work.state)
            spent["saving"] += last - now
            following = last + seconds[job] / work.epochs if left > 1 else last
            heapq.heappush(events, (following, worker, job, left - 1))
            continue
        if taken == len(seconds):
            continue
        job, count = taken, taken + 1 - looked[worker]
        taken, looked[worker] = taken + 1, taken + 1
        asked = count * work.operations
        end = max(now + asked * storage.seconds, operations.end(now, asked))
        spent["looking"] += end - now
        heapq.heappush(events, (end + seconds[job] / work.epochs, worker, job, work.epochs))
    whole = last * workers
    shares = {name: value / whole for name, value in spent.items()}
    return last / 3600, {**shares, "idle": 1 - sum(shares.values())}


def predict(work: Prediction, storage: Storage, workers: int) -> tuple[float, dict[str, float]]:
    """Hours until all shards are done, and the shares of the workers' time: computing, waiting for bytes and
    operations, starting (with the reading of the list) and idle."""
    shards = -(-int(work.images) // work.rows)
    computed = work.rows * work.seconds
    start = work.start + work.listing * work.images
    compute = shards * computed / workers
    # Reading ahead hides what the storage can give in the time; the rest is waited for.
    reading = work.images * work.bytes / storage.bytes
    asking = max(shards * work.operations / storage.operations, shards * work.operations * storage.seconds / workers)
    last_shard = computed if shards % workers else 0.0
    busy = max(compute, reading) + asking
    whole = start + busy + last_shard
    shares = {
        "computing": compute / whole,
        "waiting for images": max(0.0, reading - compute) / whole,
        "claims": asking / whole,
        "starting": start / whole,
        "idle": last_shard / whole,
    }
    return whole / 3600, shares


def measure(rounds: int = 5) -> dict[str, float]:
    """What a worker and the file system of this machine take, medians; in seconds and bytes."""
    from safetensors.numpy import save_file

    from ensemble.data.samples import read_images
    from ensemble.files.claims import claimed

    def median(action: Callable[[], object]) -> float:
        seconds = []
        for _ in range(rounds):
            begun = time.perf_counter()
            action()
            seconds.append(time.perf_counter() - begun)
        return statistics.median(seconds)

    found = {"start": median(lambda: subprocess.run([sys.executable, "-c", "import ensemble.train.jobs"], check=True))}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        images = folder / "images"
        images.mkdir()
        rows = 200_000
        for number in range(rows):
            (images / f"{number:08d}.jpg").touch()
        before, begun = getrusage(RUSAGE_SELF).ru_maxrss, time.perf_counter()
        read = read_images(images)
        found["listing"] = (time.perf_counter() - begun) / rows
        found["row_bytes"] = (getrusage(RUSAGE_SELF).ru_maxrss - before) * 1024 / rows
        del read

        def claim() -> None:
            for number in range(20):
                with claimed(folder / str(number)):
                    pass

        found["claim"] = median(claim) / 20
        state = {"state": np.random.default_rng(0).standard_normal(25_000_000).astype(np.float32)}
        found["state_bytes_per_second"] = 1e8 / median(lambda: save_file(state, folder / "state.safetensors"))
    return found


def show(title: str, simulate: Callable[[int], tuple[float, dict[str, float]]]) -> None:
    """A Markdown table: a row for each number of workers."""
    print(f"\n{title}\n")
    for workers in WORKERS:
        hours, shares = simulate(workers)
        if workers == WORKERS[0]:
            print(f"| workers | hours | {' | '.join(shares)} |\n{'|---' * (2 + len(shares))}|")
        print(f"| {workers:,} | {hours:,.2f} | {' | '.join(f'{share:.0%}' for share in shares.values())} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true")
    if parser.parse_args().measure:
        for name, value in measure().items():
            print(f"{name}: {value:.4g}")
        return
    nfs = Storage(seconds=0.001, operations=10_000, bytes=2e9)
    small = Training(seconds=474, spread=0.5, epochs=6, state=16 * 12e6, start=6)
    large = replace(small, seconds=3600, epochs=30, state=16 * 88e6)
    show("Jobs as the paintings' here", lambda n: train(small, nfs, n))
    show("Jobs of an hour, 30 epochs, 88 million parameters", lambda n: train(large, nfs, n))
    show("... the longest first", lambda n: train(large, nfs, n, True))
    show("... on storage of 20 GB/s", lambda n: train(large, replace(nfs, bytes=2e10), n))
    paintings = Prediction(images=1e8, rows=512, seconds=0.34, bytes=3e4, start=6, listing=1.5e-5)
    fast = replace(paintings, seconds=0.002, bytes=1e5)
    show("100 million images, 0.34 s each", lambda n: predict(paintings, nfs, n))
    show("100 million images, 2 ms and 100 kB each", lambda n: predict(fast, nfs, n))
    show("... on storage of 20 GB/s", lambda n: predict(fast, replace(nfs, bytes=2e10), n))


if __name__ == "__main__":
    main()

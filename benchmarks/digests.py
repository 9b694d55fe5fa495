"""What the check of a network's digest costs: python benchmarks/digests.py WEIGHTS.safetensors ...

For each file, named by its timm architecture (resnet18.a1_in1k.safetensors): milliseconds of loading the network as
prediction does (the file is read, checked, taken apart and filled into a network that is built first), with the check
and without it, in turn; medians of n. Then the check alone, its share of loading without it (the median of the n pairs,
with the least and the greatest), and the physical limit: the same bytes copied once in memory.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import timm
import torch
from safetensors.torch import load, load_file

from ensemble.backbones.weights import read_state, write_state
from ensemble.files import sealed


def milliseconds(work):
    start = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - start)


def main():
    options = argparse.ArgumentParser()
    options.add_argument("weights", nargs="+", type=Path)
    options.add_argument("--n", type=int, default=15)
    options.add_argument("--threads", type=int, default=1)
    options = options.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{'network':36} {'MB':>6} {'with':>7} {'without':>8} {'check':>6} {'copy':>6}  check / loading, %")
    with tempfile.TemporaryDirectory() as folder:
        for file in options.weights:
            path = Path(folder) / file.name
            write_state(path, load_file(file), {})
            name, data = file.name.partition(".")[0], path.read_bytes()

            def fill(state, name=name):
                timm.create_model(name, num_classes=1000).load_state_dict(state, strict=False)

            ways = {
                "with": lambda path=path: fill(read_state(path)),
                "without": lambda path=path: fill(load(path.read_bytes())),
                "check": lambda data=data, path=path: sealed.require_sound(data, path),
                "copy": lambda data=data: bytearray(data),
            }
            times = {way: [] for way in ways}
            for _ in range(options.n):
                for way, work in ways.items():
                    times[way].append(milliseconds(work))
            ms = {way: statistics.median(own) for way, own in times.items()}
            shares = [100 * check / whole for check, whole in zip(times["check"], times["without"], strict=True)]
            spread = f"{statistics.median(shares):.2f} [{min(shares):.2f}, {max(shares):.2f}], n = {options.n}"
            print(
                f"{name:36} {len(data) / 1e6:6.1f} {ms['with']:7.1f} {ms['without']:8.1f} {ms['check']:6.2f} "
                f"{ms['copy']:6.2f}  {spread}"
            )


if __name__ == "__main__":
    main()

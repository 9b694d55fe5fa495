"""What a cascade saves: python benchmarks/cascade.py RUN IMAGES --blend mean --cascade mean-cascade [--rounds 5]
and, of a scout's probes: python benchmarks/cascade.py RUN --probes CACHE/probes

First: `ens tta-predict` by the blend and by its cascade, alternating, each in its own process, with nothing stored:
seconds by the clock and of the processor, medians of the rounds [least, greatest], each round's ratio of its own, and
the classes that differ. Starting Python and loading the networks is part of it: take images for minutes.

Second: find_cascade on the probes that `ens scout` keeps in its cache, joined with the rows and folds of RUN, which has
to be of the same images: costs as the scout has measured them, one network per member. Nothing is predicted.
"""

import argparse
import csv
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from ensemble.blend.oof import Oof, read_rows
from ensemble.blend.recipe import Recipe
from ensemble.cascade.find import find_cascade
from ensemble.cascade.order import Costs
from ensemble.cascade.policy import Limit
from ensemble.data.logits import load_logits
from ensemble.events import SILENT
from ensemble.run import Run
from ensemble.tables.cascade import show_cascade


def predicted(run: Path, images: Path, blend: str, output: Path) -> tuple[float, float]:
    """Seconds by the clock, and of the processor."""
    words = [sys.executable, "-m", "ensemble.cli", "tta-predict", run, images, "--blend", blend, "-o", output]
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([*map(str, words), "--keep-gb", "0"], check=True, stdout=subprocess.DEVNULL)
    seconds, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def shown(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} [{min(values):.2f}, {max(values):.2f}]"


def compare(run: Path, images: Path, blend: str, cascade: str, rounds: int) -> None:
    stored = Run(run).logits_dir(images.resolve().name)
    if stored.is_dir():
        sys.exit(f"{stored}: logits of these images are stored, so that no network would run; delete that folder first")
    took: dict[str, list[tuple[float, float]]] = {blend: [], cascade: []}
    with tempfile.TemporaryDirectory() as folder:
        outputs = {name: Path(folder) / f"{name}.csv" for name in took}
        for number in range(rounds):
            for name in (blend, cascade) if number % 2 else (cascade, blend):
                took[name].append(predicted(run, images, name, outputs[name]))
        one, two = ([row[-1] for row in csv.reader(output.open())][1:] for output in outputs.values())
    for name, seconds in took.items():
        print(f"{name}: {shown([s for s, _ in seconds])} s, {shown([c for _, c in seconds])} processor seconds")
    for number, unit in enumerate(("clock", "processor")):
        ratios = [a[number] / b[number] for a, b in zip(took[blend], took[cascade], strict=True)]
        print(f"times faster, by the {unit}: {shown(ratios)}")
    print(f"{sum(a != b for a, b in zip(one, two, strict=True))} of {len(one)} classes differ")


def of_probes(run: Path, folder: Path, max_loss: float) -> None:
    """Probes are joined by the last two parts of their ids: the folder of the class and the file."""
    rows = read_rows(Run(run))
    names, values, ms = [], [], {}
    for path in sorted(folder.glob("*.safetensors"), key=os.path.getmtime):
        logits = load_logits(path)
        places = {tuple(str(name).split("/")[-2:]): row for row, name in enumerate(logits.ids)}
        name = f"probe{len(names)} ({float(logits.meta['ms']):.1f} ms)"
        names.append(name)
        values.append(logits.values[:, [places[tuple(str(each).split("/")[-2:])] for each in rows.ids]])
        ms[name, "identity"] = float(logits.meta["ms"])
    oof = Oof(rows, tuple(names), (("identity",),) * len(names), tuple(values), {})
    found, _ = find_cascade(oof, Recipe("mean"), Costs(ms, 0.0), Limit(max_loss=max_loss), SILENT)
    show_cascade(replace(found, blend="mean", networks=5))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("images", type=Path, nargs="?")
    parser.add_argument("--blend", default="mean")
    parser.add_argument("--cascade", default="mean-cascade")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--probes", type=Path)
    parser.add_argument("--max-loss", type=float, default=0.005)
    told = parser.parse_args()
    if told.probes is not None:
        of_probes(told.run, told.probes, told.max_loss)
    else:
        compare(told.run, told.images, told.blend, told.cascade, told.rounds)

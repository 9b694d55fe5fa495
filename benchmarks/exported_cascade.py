"""What an exported cascade saves beside its blend in one file:

    python benchmarks/exported_cascade.py art art.onnx data/art/test [--expected s.csv]

For each engine that is installed: seconds of opening either, with OpenVINO's cache (ENS_CACHE) as it is; milliseconds
per image by the clock and of the processor, alternating, medians of the rounds [least, greatest] after one to warm up:
all pictures in batches of 16, and the first ONE_BY_ONE each by itself, with decoding; how many images exit at each
stage; and how many classes differ, from a CSV of ids and labels too if one is given. Nothing else should be running."""

import argparse
import csv
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ensemble.exported import cascade
from ensemble.exported.engines import ENGINES
from ensemble.exported.model import ExportedModel, load_exported
from ensemble.machine import cores

ROUNDS = 5
ONE_BY_ONE = 50


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock, and of the processor."""
    begun, before = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - begun, time.process_time() - before


def shown(seconds: list[tuple[float, float]], images: int) -> str:
    """Milliseconds per image."""
    columns = ([1000 * value / images for value in column] for column in zip(*seconds, strict=True))
    wall, processor = (f"{statistics.median(each):.1f} [{min(each):.1f}, {max(each):.1f}]" for each in columns)
    return f"{wall} ms per image, {processor} of the processor"


def one_by_one(model: ExportedModel, pictures: list[Path]) -> None:
    for picture in pictures:
        model.predict_files([picture], "error")


def exits(model: ExportedModel, pictures: list[Path]) -> list[int]:
    """How many images exit at each stage."""
    plain, found = cascade.run_stages, []

    def spied(*arguments: object) -> np.ndarray:
        found.append(plain(*arguments))  # type: ignore[arg-type]
        return found[-1]

    cascade.run_stages = spied
    model.predict_files(pictures, "error")
    cascade.run_stages = plain
    return np.bincount(np.concatenate(found)).tolist()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--expected", type=Path)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    asked = parser.parse_args()
    pictures = sorted(path for path in asked.images.iterdir() if path.is_file())
    size = sum(path.stat().st_size for path in asked.folder.iterdir())
    print(f"folder {size / 1e6:.1f} MB, file {asked.file.stat().st_size / 1e6:.1f} MB; {cores()} cores")
    for engine in ENGINES:
        models = {}
        for name, path in (("cascade", asked.folder), ("file", asked.file)):
            begun, before = time.perf_counter(), time.process_time()
            models[name] = load_exported(path, engine=engine)
            wall, processor = time.perf_counter() - begun, time.process_time() - before
            print(f"{engine}: {name} opened in {wall:.2f} s, {processor:.2f} of the processor", flush=True)
        for what, some, work in (
            ("batches of 16", pictures, lambda model, some: model.predict_files(some, "error")),
            ("one by one", pictures[:ONE_BY_ONE], one_by_one),
        ):
            seen: dict[str, list[tuple[float, float]]] = {name: [] for name in models}
            for number in range(asked.rounds + 1):
                for name, model in models.items():
                    found = timed(lambda model=model, some=some, work=work: work(model, some))
                    seen[name] += [found] if number else []
            for name, seconds in seen.items():
                print(f"  {what}: {name}: {shown(seconds, len(some))}", flush=True)
        labels = {name: model.predict(pictures).labels for name, model in models.items()}
        differ = sum(one != other for one, other in zip(*labels.values(), strict=True))
        print(f"  exits by stage {exits(models['cascade'], pictures)}; {differ} of {len(pictures)} classes differ")
        if asked.expected is not None:
            with asked.expected.open() as table:
                expected = [row[-1] for row in csv.reader(table)][1:]
            differ = sum(one != other for one, other in zip(expected, labels["cascade"], strict=True))
            print(f"  {differ} of {len(pictures)} classes differ from {asked.expected}")


if __name__ == "__main__":
    main()

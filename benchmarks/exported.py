"""How fast an exported file answers, how much memory it takes, and how near it is to its run:

    python benchmarks/exported.py art.onnx data/art/test [--run runs/art --blend stack]

For each engine that is installed: seconds and peak memory of a cold `ens predict-file` of one picture, medians of
ROUNDS; milliseconds per image at batch 1 and 16 beside the engine's bare run on arrays that are ready, alternating;
images/s of all pictures with decoding. With --run the largest difference of a probability from `ens tta-predict`'s and
how many classes change. On Linux; nothing else should be running."""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from ensemble.data.folders.listing import list_folder
from ensemble.exported.engines import ENGINES
from ensemble.exported.model import ExportedModel, load_exported
from ensemble.machine import cores

ROUNDS = 5


def cold(file: Path, picture: Path, engine: str) -> tuple[float, float]:
    """Seconds and peak MB of the command in a process of its own."""
    words = [sys.executable, "-m", "ensemble.cli", "predict-file", str(file), str(picture), "--engine", engine]
    start = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return time.perf_counter() - start, used.ru_maxrss / 1024


def bare(model: ExportedModel) -> Callable[[dict[str, np.ndarray]], object]:
    """The engine's own run of the file, as its documentation shows it, in float32 on as many threads."""
    threads = model.engine.threads
    if model.engine.name == "onnxruntime":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(model.path, options, providers=["CPUExecutionProvider"])
        return lambda squares: session.run(None, squares)
    import openvino

    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    return openvino.Core().compile_model(model.path, "CPU", settings)


def milliseconds(work: Callable[[], object], images: int) -> float:
    start = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - start) / images


def show(model: ExportedModel, pictures: list[Path]) -> None:
    decoded = [model.decode(path) for path in pictures[:16]]
    run = bare(model)
    for batch in (1, 16):
        squares = {name: np.stack([one[name] for one in decoded[:batch]]) for name in decoded[0]}
        sides = {"file": partial(model.probabilities, squares), "bare": partial(run, squares)}
        seen: dict[str, list[float]] = {side: [] for side in sides}
        for round_ in range(ROUNDS + 1):  # the first one to warm up
            for side, work in sides.items():
                found = statistics.median(milliseconds(work, batch) for _ in range(16 // batch))
                seen[side] += [found] if round_ else []
        ratios = sorted(b / f for f, b in zip(seen["file"], seen["bare"], strict=True))
        print(
            f"  batch {batch}: {statistics.median(seen['file']):.1f} ms per image, bare "
            f"{statistics.median(seen['bare']):.1f}: {statistics.median(ratios):.3f} of its throughput "
            f"[{ratios[0]:.3f}, {ratios[-1]:.3f}]"
        )
    start = time.perf_counter()
    model.predict_files(pictures, "error")
    print(f"  {len(pictures)} pictures with decoding: {len(pictures) / (time.perf_counter() - start):.1f} images/s")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--blend")
    asked = parser.parse_args()
    pictures = list_folder(asked.images).images
    expected = None
    if asked.run is not None:
        from ensemble.tta.images import load, predict_files

        expected, _ = predict_files(load(asked.run, asked.blend), pictures, "error")
    print(f"{asked.file}: {asked.file.stat().st_size / 1e6:.0f} MB; {cores()} cores")
    for engine in ENGINES:
        seen = [cold(asked.file, pictures[0], engine) for _ in range(ROUNDS)]
        seconds, memory = (statistics.median(values) for values in zip(*seen, strict=True))
        start = time.perf_counter()
        model = load_exported(asked.file, engine=engine)
        print(f"{model.summary()}, loaded in {time.perf_counter() - start:.2f} s")
        print(f"  cold command to its answer: {seconds:.2f} s, peak {memory:.0f} MB")
        show(model, pictures)
        if expected is not None:
            found, _ = model.predict_files(pictures, "error")
            changed = int((model.decide(found) != model.decide(expected)).sum())
            print(f"  largest difference {np.abs(found - expected).max():.2g}, {changed} classes changed")


if __name__ == "__main__":
    main()

"""What exporting a blend gains, and what is left to gain:

    python benchmarks/export.py runs/art data/art/test --blend stack --file art.onnx

Milliseconds per image at batch 1 and 16, alternating, medians of ROUNDS after one round to warm up: `ensemble.predict`
with the run's networks in float32, and the file by each engine that is installed, all with decoding; and each engine's
bare forward passes of the same networks, one after the other, on images that are ready. Nothing else should be running.
benchmarks/exported.py compares the file with the engines' own run of it."""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from ensemble.blend import load_blend
from ensemble.data.folds import fold_count
from ensemble.events import SILENT
from ensemble.export.networks import load_exact
from ensemble.exported.engines import ENGINES, NAMES
from ensemble.exported.model import load_exported
from ensemble.inference.to_onnx import networks_to_onnx
from ensemble.machine import cores
from ensemble.run import Run
from ensemble.tta.apply import blend_networks
from ensemble.tta.images import load, predict_files

ROUNDS = 5


def bare(engine: str, content: bytes, threads: int) -> Callable[[np.ndarray], object]:
    """The engine's own run of one network."""
    if engine == "onnxruntime":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        return lambda images: session.run(None, {"images": images})
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    settings |= {"ENABLE_CPU_PINNING": False}  # as the file is run: other processes may have chosen the same core
    compiled = core.compile_model(core.read_model(content), "CPU", settings)
    return lambda images: compiled({"images": images})


def forward_each(
    passes: list[tuple[int, int, Callable[[np.ndarray], object]]], ready: dict[tuple[int, int], np.ndarray]
) -> None:
    """Each network on images of its size, those of all its views in one batch."""
    for size, views, forward in passes:
        forward(ready[size, views])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--blend", required=True)
    parser.add_argument("--file", type=Path, required=True)
    asked = parser.parse_args()
    run = Run(asked.run)
    blend = load_blend(run, asked.blend)
    pictures = sorted(path for path in asked.images.iterdir() if path.is_file())[:16]
    predictor = load(run, asked.blend)
    models = {engine: load_exported(asked.file, engine=engine) for engine in ENGINES}
    members = load_exact(
        blend_networks(run, blend, blend.trained, "folds", fold_count(run)), len(blend.classes), SILENT
    )
    networks = [
        (member.preprocess.image_size, len(views), model.SerializeToString())
        for member, views in zip(members, blend.views, strict=True)
        for model in networks_to_onnx([each.exact for each in member.eval_models], member.preprocess.image_size)
    ]
    alone = {
        engine: [
            (size, views, bare(engine, content, models[engine].engine.threads)) for size, views, content in networks
        ]
        for engine in ENGINES
    }
    print(f"{asked.file}: {asked.file.stat().st_size / 1e6:.0f} MB, {len(networks)} networks; {cores()} cores")
    for batch in (1, 16):
        some = pictures[:batch]
        ready = {
            key: np.zeros((key[1] * batch, 3, key[0], key[0]), dtype=np.float32) for key in {n[:2] for n in networks}
        }
        sides: dict[str, Callable[[], object]] = {"ens": partial(predict_files, predictor, some, "error")}
        for engine, model in models.items():
            sides[f"file, {NAMES[engine]}"] = partial(model.predict_files, some, "error")
            sides[f"bare networks, {NAMES[engine]}"] = partial(forward_each, alone[engine], ready)
        seen: dict[str, list[float]] = {side: [] for side in sides}
        for round_ in range(ROUNDS + 1):
            for side, work in sides.items():
                start = time.perf_counter()
                work()
                seen[side] += [1000 * (time.perf_counter() - start) / batch] if round_ else []
        for side, times in seen.items():
            print(f"  batch {batch}: {side}: {statistics.median(times):.1f} ms [{min(times):.1f}, {max(times):.1f}]")


if __name__ == "__main__":
    main()

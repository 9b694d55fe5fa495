"""Sections of gpu.py: want of memory, and whole runs on a GPU: beside each other, stopped and resumed, on several."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from gpu import Bench, Row, check, skipped
from gpu_checks import PLAIN
from gpu_data import CLASSES, NETWORKS, Recorder, experiment, pictures
from sklearn.utils import Bunch

from ensemble import demo as demo_module
from ensemble.backbones import timm_model
from ensemble.blend import BlendOptions, blend_run
from ensemble.config import load_config
from ensemble.data.logits import load_logits
from ensemble.device import free_cached_memory, to_device
from ensemble.events import SILENT
from ensemble.export.export import ExportRequest
from ensemble.export.export import export as export_blend
from ensemble.inference.eval_model import prepared
from ensemble.inference.formats import Inference
from ensemble.inference.member import LoadedMember
from ensemble.inference.predict import predict_stream
from ensemble.run import Run
from ensemble.train.jobs import train_folds
from ensemble.train.losses import make_loss
from ensemble.train.numerics import find_numerics
from ensemble.train.step import Stepper, targets_of

Result = TypeVar("Result")

CAP = 0.65  # of the memory that a batch takes


def memory(bench: Bench) -> Iterator[Row]:
    """A process that may take little memory: batches are halved, and results stay. On a CPU nothing is limited."""
    device, is_gpu = bench.device, bench.device.type == "cuda"
    name, (side, batch) = NETWORKS[0], (32, 8) if bench.is_dry else (160, 256)  # takes more than networks do

    def create() -> torch.nn.Module:
        torch.manual_seed(0)
        return timm_model.create(name, len(CLASSES), side)

    def step() -> tuple[float, list[int]]:
        model, halved = to_device(create(), device, "contiguous").train(), list[int]()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
        images = torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(0)).to(device)
        row_losses = make_loss("cross_entropy", np.ones(len(CLASSES)), device, 0.1)
        labels, weights = np.arange(batch) % len(CLASSES), np.ones(batch, dtype=np.float32)
        stepper = Stepper(model, optimizer, PLAIN, batch, halved.append)
        return float(stepper.step(images, targets_of(labels, weights, row_losses, None, device), batch)), halved

    (want, halved), needed = _peak(device, step)
    yield check(f"a step of {batch} images, all memory", f"loss {want:.4f}, {needed / 1e6:.0f} MB", not halved)
    with _capped(device, CAP * needed):
        loss, halved = step()
        text = f"loss {loss:.4f}, halved to {', then '.join(map(str, halved)) or 'nothing'}"
        is_ok = bool(halved) == is_gpu and abs(loss / want - 1) < 0.05
        yield check(f"with {CAP:.0%} of that memory", text, is_ok, halved=halved)
    with _capped(device, CAP * needed):
        found, _ = find_numerics(create, side, len(CLASSES), batch, device, [PLAIN])
        text = f"{found.micro_batch} of {batch} images at a time are found to fit"
        yield check("numeric settings", text, (found.micro_batch < batch) == is_gpu, micro_batch=found.micro_batch)
    pre = timm_model.preprocess_for(name, side, None)
    member = LoadedMember("net", pre, (prepared(create(), Inference(device.type), side, device),))
    paths = (pictures(bench.folder.parent / "pictures", 60) * 9)[: 2 * batch]

    def logits() -> np.ndarray:
        (chunk,) = predict_stream([member], [paths], [("identity",)], 2 * batch, device)
        return chunk.values[0]

    whole, needed = _peak(device, logits)
    with _capped(device, CAP * needed):
        off = float(np.abs(logits() - whole).max() / np.abs(whole).max())
        text = f"logits {off:.1e} off, of the largest, with {CAP:.0%} of the memory of {2 * batch} images at a time"
        yield check("prediction", text, off < 1e-4, off=off)


def _peak(device: torch.device, work: Callable[[], Result]) -> tuple[Result, int]:
    """What it returns, and how many bytes of the GPU it takes beyond those that are held before."""
    if device.type != "cuda":
        return work(), 0
    held = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    return work(), torch.cuda.max_memory_allocated(device) - held


@contextmanager
def _capped(device: torch.device, more: float) -> Iterator[None]:
    """While it lasts, this process may take so many bytes of the GPU more than it holds."""
    if device.type != "cuda":
        yield
        return
    free_cached_memory(device)
    fraction = (torch.cuda.memory_reserved(device) + more) / torch.cuda.mem_get_info(device)[1]
    torch.cuda.set_per_process_memory_fraction(min(1.0, fraction), device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)


def runs(bench: Bench) -> Iterator[Row]:
    """`ens train-folds`: in this process; several jobs on the GPU; stopped and resumed; probes; then prediction."""
    alone = _trained(experiment(bench.folder, "alone"))
    yield check("two folds, one after the other", "trained", True)
    again = _compared(_trained(experiment(bench.folder, "again")), alone)
    yield Row("the same seed once more", again)
    shared = {"workers": 2} if bench.is_dry else {"workers": "auto", "extra": 'gpus_per_job = "1/2"\n'}
    together = _compared(_trained(experiment(bench.folder, "together", **shared)), alone)
    yield check("two folds side by side on the GPU, each with half of its memory", together, True)

    def stop(epoch: int) -> None:
        if epoch == 1:
            raise KeyboardInterrupt

    file = experiment(bench.folder, "stopped")
    try:
        train_folds(load_config(file), Recorder(on_epoch=stop))
        yield check("stopped after an epoch", "it was not stopped", False)
    except KeyboardInterrupt:
        pass
    stopped = Run(bench.folder / "stopped").member("net").fold(0)
    kept = len(stopped.read_log())
    resumed = _compared(_trained(file), alone)
    yield check("stopped after an epoch and resumed", f"{kept} epoch was kept; {resumed}", kept == 1)
    blend_run(Run(alone), BlendOptions("mean"))
    yield from _predicted(bench, alone)


def _trained(file: Path) -> Path:
    """Train an experiment in this process. Returns its run."""
    config = load_config(file)
    failed = train_folds(config, SILENT)
    if failed:
        raise RuntimeError("; ".join(failed))
    return config.run


def _compared(one: Path, other: Path) -> str:
    """How far the out-of-fold logits of two runs lie apart, in words."""
    values = [[load_logits(fold.oof_file).values for fold in Run(run).member("net").folds()] for run in (one, other)]
    off = max(float(np.abs(a - b).max()) for a, b in zip(*values, strict=True))
    if off == 0:
        return "the same bits"
    return f"logits at most {off:.1e} apart, of {max(float(np.abs(each).max()) for each in values[1]):.1f}"


def _predicted(bench: Bench, run: Path) -> Iterator[Row]:
    from ensemble.tta.predict import PredictionRequest, tta_predict

    images = bench.folder.parent / "pictures"
    made = tta_predict(PredictionRequest(Run(run), images, bench.folder / "submission.csv"), SILENT)
    sums = made.probabilities.sum(axis=1)
    yield check("ens tta-predict", f"{len(sums)} images", bool(np.allclose(sums, 1, atol=1e-4)))


def several_gpus(bench: Bench) -> Iterator[Row]:
    """A worker on each GPU, and one fold on two of them."""
    count = torch.cuda.device_count() if bench.device.type == "cuda" else 0
    if count < 2:
        yield skipped("a worker on each GPU; one fold on two", f"it takes two GPUs, and {count} can be seen")
        return
    alone = _trained(experiment(bench.folder, "one", workers=1))
    each = _compared(_trained(experiment(bench.folder, "each", workers="auto")), alone)
    yield check(f"a worker on each of {count} GPUs", each, True)
    both = _compared(_trained(experiment(bench.folder, "both", extra="gpus_per_job = 2\n")), alone)
    yield check("one fold after the other on two GPUs", both, True)


def export(bench: Bench) -> Iterator[Row]:
    """An exported file by ONNX Runtime's CUDA provider, where that is installed."""
    what = "an exported file by ONNX Runtime on the GPU"
    lacking = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if lacking:
        yield skipped(what, f"not installed: {', '.join(lacking)}")
        return
    import onnxruntime

    providers = onnxruntime.get_available_providers()
    if "CUDAExecutionProvider" not in providers:
        yield skipped(what, f"this onnxruntime has {', '.join(providers)}")
        return
    run = _trained(experiment(bench.folder, "exported"))
    blend_run(Run(run), BlendOptions("mean"))
    file = export_blend(ExportRequest(Run(run), bench.folder / "blend.onnx"), SILENT).output
    answers = []
    for provider in ("CPUExecutionProvider", "CUDAExecutionProvider"):
        session = onnxruntime.InferenceSession(str(file), providers=[provider])
        given = {each.name: _noise(each.shape) for each in session.get_inputs()}
        answers.append(session.run(["probabilities"], given)[0])
        used = session.get_providers()[0]
    off = float(np.abs(answers[1] - answers[0]).max())
    yield check(
        what, f"probabilities {off:.1e} off the CPU's; by {used}", off < 5e-3 and used == provider, off=off
    )  # TF32


def _noise(shape: list[int | str]) -> np.ndarray:
    sides = [side if isinstance(side, int) else 4 for side in shape]
    return np.random.default_rng(0).integers(0, 256, sides, dtype=np.uint8)


def tests(bench: Bench) -> Iterator[Row]:
    """The tests that need a GPU."""
    if bench.is_dry:
        yield skipped("pytest -m gpu", "they skip without a GPU")
        return
    lacking = [name for name in ("pytest", "xdist", "hypothesis") if importlib.util.find_spec(name) is None]
    if lacking:
        yield skipped("pytest -m gpu", f"not installed: {', '.join(lacking)}")
        return
    root = Path(__file__).parents[1]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "tests/inference"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    last = ([line for line in done.stdout.splitlines() if line.strip()] or ["it printed nothing"])[-1]
    yield check("pytest -m gpu", last.strip("= "), done.returncode == 0)


def demo(bench: Bench) -> Iterator[Row]:
    """`ens demo`, whole; in a dry run with fewer folds and epochs."""
    if bench.is_dry:
        digits = demo_module.load_digits()
        few = Bunch(images=digits.images[:600], target=digits.target[:600])
        demo_module.load_digits = lambda: few
        demo_module.EXPERIMENT = demo_module.EXPERIMENT.replace("k = 5", "k = 2").replace(
            "epochs = 6", 'epochs = 1\ndtype = "float32"\nmemory_format = "channels_last"'
        )
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        stdout, sys.stdout = sys.stdout, nowhere
        try:
            held_out = demo_module.run_demo(bench.folder / "demo", SILENT)
        finally:
            sys.stdout = stdout
    accuracies = {method: scores["accuracy"] for method, scores in held_out.items()}
    text = f"accuracy on 360 held-out digits {min(accuracies.values()):.1%} to {max(accuracies.values()):.1%}"
    yield check("ens demo", text, bench.is_dry or min(accuracies.values()) > 0.95, **accuracies)

"""What engines and number formats give a run's networks on a CPU: python benchmarks/engine.py RUN [FOLDS] [MEMBER ...]

For each member and each format that is there (torch, OpenVINO, ONNX Runtime; float32, bfloat16), over its first FOLDS
folds (all by default): images per second of processor time in a batch of 16, milliseconds of a batch of one, and what
`choose_inference` makes of it on the fold's out-of-fold rows (identity and hflip): of how many folds it may be taken
(by these speeds, were it the only one), the share of the rows that is computed again by torch, the share whose class it
changes, and by how much it moves the log loss, as it is and as chosen. Then one picture through all these networks in
their chosen formats: processor time of the whole (decoding, two views, networks), of the bare forward passes, and of a
batch of 16 that is filled up. One thread; processor time, so that other work disturbs it less.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ensemble.blend.oof import read_rows
from ensemble.config import load_config
from ensemble.device import in_layout, keep_freed_memory
from ensemble.events import SILENT
from ensemble.inference.choose_format import choose_inference
from ensemble.inference.decodings import decodings
from ensemble.inference.eval_model import EvalModel, fast_network, logits_of
from ensemble.inference.formats import Inference, engine_formats, formats, inference_in
from ensemble.inference.member import LoadedMember, load_networks
from ensemble.inference.predict import CPU_BATCH, Group, forward_views, predict_stream
from ensemble.run import Run
from ensemble.tta.oof import run_pixels, run_samples

VIEWS = ("identity", "hflip")
CPU = torch.device("cpu")
ROUNDS = 5


def main() -> None:
    run = Run(Path(sys.argv[1]))
    torch.set_num_threads(1)
    keep_freed_memory()
    rows, config = read_rows(run), load_config(run.config_toml)
    folds = np.unique(rows.folds).tolist()[: int(sys.argv[2]) if len(sys.argv) > 2 else None]
    samples = run_samples(config, run)
    row_of = {name: row for row, name in enumerate(samples.ids.tolist())}
    where = np.array([row_of[name] for name in rows.ids.tolist()])
    names = [*formats(CPU), *engine_formats(CPU)]
    print("| member | format | images/s of a core | ms of one | folds | again | class changed | log loss | as it is |")
    print("|---|---|---|---|---|---|---|---|---|")
    chosen: list[LoadedMember] = []
    for name in sys.argv[3:] or run.member_names():
        networks = [run.member(name).fold(fold) for fold in folds]
        member = load_networks(run.member(name), networks, len(rows.classes), CPU)
        plain = [EvalModel(Inference("cpu"), each.exact) for each in member.eval_models]
        size = member.preprocess.image_size
        pixels = run_pixels(config, samples, decodings(member.preprocess, VIEWS), SILENT)
        batch = in_layout(torch.randn(CPU_BATCH, 3, size, size))

        def logits(eval_model: EvalModel, fold_rows: np.ndarray, pixels=pixels, member=member) -> np.ndarray:
            squares = {how: torch.from_numpy(each.squares(where[fold_rows])) for how, each in pixels.items()}
            return forward_views(Group(member.preprocess, VIEWS, (eval_model,)), squares, CPU_BATCH, CPU)[0][0]

        fold_rows = [np.flatnonzero(rows.folds == fold) for fold in folds]
        exact = [logits(each, own) for each, own in zip(plain, fold_rows, strict=True)]
        speeds: dict[str, float] = {}
        best: list[EvalModel] = list(plain)
        for form in names:
            ready = [_in_format(each, form, size) for each in plain]
            images = batch.to(ready[0].inference.input_dtype)
            one = in_layout(images[:1].clone())
            speeds[form] = CPU_BATCH / _seconds(lambda ready=ready, images=images: logits_of(ready[0], images))
            ms = 1000 * _seconds(lambda ready=ready, one=one: logits_of(ready[0], one))
            cells = ["", "", "", "", ""]
            if form != "float32":
                found, moved = [], []
                for k, (each, own) in enumerate(zip(ready, fold_rows, strict=True)):
                    raw, labels = logits(each, own), rows.labels[own]
                    two = {form: speeds[form], "float32": speeds["float32"]}
                    inference, _ = choose_inference(two, exact[k], lambda _, raw=raw: raw, labels, CPU)
                    found.append(inference)
                    moved.append(
                        ((raw.argmax(-1) != exact[k].argmax(-1)).mean(), _loss(raw, labels) - _loss(exact[k], labels))
                    )
                    faster = speeds[form] > speeds[best[k].inference.format]
                    if inference.format == form and faster:
                        best[k] = replace(each, inference=inference)
                taken = [inference for inference in found if inference.format == form]
                raw_changed, raw_loss = np.mean(moved, axis=0)
                cells = [f"{len(taken)} of {len(folds)}", "", "", "", f"{100 * raw_changed:.2f} %, {raw_loss:+.5f}"]
                if taken:
                    cells[1:4] = [
                        f"{100 * np.mean([each.again for each in taken]):.2f} %",
                        f"{100 * np.mean([each.changed for each in taken]):.2f} %",
                        f"{max(each.loss for each in taken):.5f}",
                    ]
            print("| " + " | ".join([name, form, f"{speeds[form]:.1f}", f"{ms:.1f}", *cells]) + " |", flush=True)
        chosen.append(replace(member, eval_models=tuple(best)))
    _one_picture(chosen, samples.paths[0], config.tta.batch_size)


def _in_format(plain: EvalModel, form: str, size: int) -> EvalModel:
    inference = inference_in(form, CPU)
    return EvalModel(inference, plain.exact, fast_network(plain.exact, inference, size))


def _loss(logits: np.ndarray, labels: np.ndarray) -> float:
    log_p = torch.from_numpy(logits).double().log_softmax(-1).numpy()
    return float(-log_p[:, np.arange(len(labels)), labels].mean())


@torch.inference_mode()
def _seconds(work: Callable[[], object]) -> float:
    work()
    times = []
    for _ in range(ROUNDS):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return float(np.median(times))


def _one_picture(members: list[LoadedMember], path: Path, batch_size: int) -> None:
    def whole(one_by_one: bool) -> None:
        views = [VIEWS] * len(members)
        list(predict_stream(members, [[path]], views, batch_size, CPU, one_by_one=one_by_one))

    def bare() -> None:
        for member in members:
            size = member.preprocess.image_size
            for each in member.eval_models:
                for _ in VIEWS:
                    logits_of(each, in_layout(torch.zeros(1, 3, size, size)).to(each.inference.input_dtype))

    count = sum(len(member.eval_models) for member in members)
    seconds = [_seconds(work) for work in (lambda: whole(True), bare, lambda: whole(False))]
    text = ", ".join(f"{1000 * each:.0f}" for each in seconds)
    print(f"\none picture, {count} networks, two views; ms of processor time: whole, bare, in a filled batch: {text}")


if __name__ == "__main__":
    main()

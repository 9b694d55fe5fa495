"""Whether OpenVINO may compute an exported file in bfloat16, which is twice as fast where a CPU has units for it: tried
on rows that the networks never saw, under the limits that evaluation has for its own faster formats."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from ensemble.blend import Blend
from ensemble.blend.oof import read_rows
from ensemble.config import load_run_config
from ensemble.errors import UserError
from ensemble.events import SILENT, Events
from ensemble.export.ensemble_module import EnsembleModule
from ensemble.export.ensemble_onnx import ensemble_to_onnx
from ensemble.exported.engines import open_engine, openvino_core
from ensemble.inference.choose_format import CHANGED, LEAST_ROWS, LOSS
from ensemble.inference.decodings import decodings
from ensemble.inference.member import LoadedMember, fold_eval_models
from ensemble.inference.to_onnx import Graphs
from ensemble.run import Run
from ensemble.scoring.row_values import row_losses
from ensemble.tta.oof import run_pixels, run_samples

BATCH = 16


@dataclass(frozen=True)
class Tried:
    """What bfloat16 changed of a blend's out-of-fold predictions.

    rows: how many
    changed: of how many it changed the class
    loss: by how much it moved their log loss, nats
    """

    rows: int
    changed: int
    loss: float

    @property
    def is_kept(self) -> bool:
        return self.rows >= LEAST_ROWS and self.changed <= CHANGED * self.rows and abs(self.loss) <= LOSS

    def line(self) -> str:
        found = (
            f"bfloat16 changes the class of {self.changed} of {self.rows:,} out-of-fold rows and the log loss by "
            f"{self.loss:+.5f}"
        )
        if self.is_kept:
            return f"{found}: OpenVINO may compute the file in it"
        limits = f"{CHANGED:.1%} of the rows, {LEAST_ROWS} or more of them, and {LOSS:g} nats"
        return f"{found} (allowed: {limits}): the file is computed in float32"


def require_bfloat16(format: str, networks: str, blend: Blend) -> None:
    """Raise UserError where there are no out-of-fold rows to try it on, or no OpenVINO or CPU to try it with."""
    if format != "onnx":
        raise UserError(f"--dtype bfloat16 is for OpenVINO, which reads no {format} file: leave it out")
    if networks != "folds":
        raise UserError(f"--dtype bfloat16 is tried on out-of-fold rows, and --networks {networks} has none")
    if blend.sources is not None:
        raise UserError("--dtype bfloat16 is not tried for a blend of several runs: export it in float32")
    try:
        import openvino  # noqa: F401
    except ImportError:
        raise UserError("--dtype bfloat16 needs OpenVINO, which computes in it: pip install openvino") from None
    if "BF16" not in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise UserError("this CPU can't compute in bfloat16, so that it can't be tried; export in float32")


def try_bfloat16(run: Run, blend: Blend, loaded: Sequence[LoadedMember], graphs: Graphs, events: Events) -> Tried:
    """Each fold's networks, blended, on the rows that they never saw, in bfloat16 and in float32, both by OpenVINO.

    loaded: the members in float32. graphs: of their architectures.
    """
    rows = read_rows(run)
    config = load_run_config(run.config_toml)
    samples = run_samples(config, run)
    views = zip(loaded, blend.views, strict=True)
    needed = list(dict.fromkeys(each for member, names in views for each in decodings(member.preprocess, names)))
    pixels = run_pixels(config, samples, needed, events)
    row_of = {name: row for row, name in enumerate(samples.ids.tolist())}
    sample_rows = np.array([row_of[name] for name in rows.ids.tolist()])
    of_folds = [fold_eval_models(member) for member in loaded]
    found = {dtype: np.empty((len(rows.ids), len(rows.classes))) for dtype in ("bfloat16", "float32")}
    done = 0
    for fold in range(len(of_folds[0])):
        members = [
            replace(member, eval_models=(models[fold],)) for member, models in zip(loaded, of_folds, strict=True)
        ]
        ensemble = EnsembleModule(blend, members)
        content = ensemble_to_onnx(ensemble, len(rows.classes), graphs, SILENT)
        compute = {
            dtype: open_engine("openvino", content, ["probabilities"], torch.get_num_threads(), dtype).compute
            for dtype in found
        }
        held_out = np.flatnonzero(rows.folds == fold)
        for start in range(0, len(held_out), BATCH):
            events.progress("trying bfloat16", done, len(rows.ids))
            part = held_out[start : start + BATCH]
            squares = {name: pixels[how].squares(sample_rows[part]) for name, how in ensemble.inputs.items()}
            for dtype, probabilities in found.items():
                [probabilities[part]] = compute[dtype](squares)
            done += len(part)
    events.progress("trying bfloat16", done, len(rows.ids))
    losses = {dtype: row_losses(rows.labels, probabilities).mean() for dtype, probabilities in found.items()}
    changed = int((blend.decide(found["bfloat16"]) != blend.decide(found["float32"])).sum())
    return Tried(len(rows.ids), changed, float(losses["bfloat16"] - losses["float32"]))

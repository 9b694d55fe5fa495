"""The number formats and engines that a fold's network may be computed by, and the one that was chosen for it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from ensemble.exported.engines import ENGINES
from ensemble.files.reading import read_json
from ensemble.files.sealed import write_json
from ensemble.inference import compiled

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Inference:
    """The number format that a fold's network is computed in on one kind of device, and what computes it.

    device: torch's type of the device
    dtype: float32, or a faster format
    settle: rows whose two largest logits differ by less are computed again in float32
    again: share of the held-out rows for which that was so
    changed: share of the held-out rows whose predicted class the format changed
    loss: by how much it moved their log loss, nats
    engine: "torch", or what else computes the network
    """

    device: str = ""
    dtype: str = "float32"
    settle: float = 0.0
    again: float = 0.0
    changed: float = 0.0
    loss: float = 0.0
    engine: str = "torch"

    @property
    def format(self) -> str:
        """Its name, as `formats` lists it: "bfloat16", or "openvino bfloat16" if another engine than torch computes."""
        return self.dtype if self.engine == "torch" else f"{self.engine} {self.dtype}"

    @property
    def input_dtype(self) -> torch.dtype:
        """Of the images that the network is given."""
        return DTYPES[self.dtype] if self.engine == "torch" else torch.float32


def inference_in(name: str, device: torch.device) -> Inference:
    """That in a format of this name."""
    engine, _, dtype = name.rpartition(" ")
    return Inference(device.type, dtype, engine=engine or "torch")


def formats(device: torch.device) -> list[str]:
    """The formats to try: float32, and half precision where the device has units for it, on GPUs float16 (10 bits of
    fraction) before bfloat16 (7). PyTorch computes bfloat16 on any CPU, but without such units slower than float32."""
    if device.type == "cuda":
        half = torch.cuda.is_bf16_supported(including_emulation=False)
        return ["float32", "float16", "bfloat16"] if half else ["float32", "float16"]
    onednn = device.type == "cpu" and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if onednn and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return ["float32", "bfloat16"]
    return ["float32"]


def engine_formats(device: torch.device, allowed: Sequence[str] = ENGINES) -> list[str]:
    """The formats of those engines beside torch that are installed and compute on such a device."""
    names = [name for name in compiled.installed() if name in allowed] if device.type == "cpu" else []
    found = [f"{name} float32" for name in names]
    if "openvino" in names and "bfloat16" in formats(device):
        found.append("openvino bfloat16")
    return found


def load_inference(path: Path, device: torch.device) -> Inference:
    """The format that was chosen for a fold, if it was for this kind of device and its engine is installed; else
    float32. Raises UserError that names a file that can't be read."""
    if not path.is_file():
        return Inference(device.type)
    stored = read_json(path, Inference, "delete it: float32 is used then")
    is_known = stored.format in formats(device) or stored.format in engine_formats(device)
    return stored if stored.device == device.type and is_known else Inference(device.type)


def missing_engine(path: Path, device: torch.device) -> str | None:
    """The engine that was chosen for a fold on this kind of device, if it is not installed: torch computes in float32
    then. Raises UserError that names a file that can't be read."""
    if not path.is_file():
        return None
    stored = read_json(path, Inference, "delete it: float32 is used then")
    is_missing = stored.device == device.type and stored.engine not in ("torch", *compiled.installed())
    return stored.engine if is_missing else None


def save_inference(path: Path, inference: Inference) -> None:
    stored = asdict(inference)
    if inference.engine == "torch":
        del stored["engine"]  # as an ens without other engines wrote and reads it
    write_json(path, stored)

"""The formats of an exported file: ONNX, and PyTorch's own (.pt2, of torch.export)."""

import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ensemble.data.pixels.preprocess import Decoding
from ensemble.errors import UserError
from ensemble.events import Events
from ensemble.export.ensemble_module import EnsembleModule, example_of
from ensemble.export.ensemble_onnx import ensemble_to_onnx
from ensemble.exported import seal
from ensemble.exported.description import KEY, Description
from ensemble.exported.engines import installed, open_engine
from ensemble.inference.to_onnx import Graphs, quiet, require_onnx

FORMATS = ("onnx", "pt2")
PT2_ENTRY = "ens.json"  # the description, as an extra file of a .pt2

Probabilities = Callable[[Mapping[str, np.ndarray]], np.ndarray]


@dataclass(frozen=True)
class Artifact:
    """What is exported, before it is a file.

    inputs: the name of each input, and how an image is decoded to it
    engines: what computes it here
    opened: for one of these what it gives, float32 (S, B, C), of squares uint8 (B, side, side, 3) by the names of its
        inputs: of each stage of a cascade; else S is 1
    save: writes it with its description
    """

    inputs: dict[str, Decoding]
    engines: tuple[str, ...]
    opened: Callable[[str], Probabilities]
    save: Callable[[Path, Description], None]


def require_format(name: str) -> None:
    """Raise UserError if a package is missing that this format needs."""
    if name != "onnx":
        return
    require_onnx()
    try:
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise UserError(
            f'the check of the exported file needs onnxruntime ({error}): pip install "ens-vision[export]"'
        ) from None


def artifact(name: str, ensemble: EnsembleModule, classes: int, graphs: Graphs, events: Events) -> Artifact:
    """graphs: as in `ensemble_to_onnx`. Raises UserError that names a member that can't be exported in this format, and
    for networks that are too large for one file."""
    return _onnx(ensemble, classes, graphs, events) if name == "onnx" else _pt2(ensemble, events)


def _onnx(ensemble: EnsembleModule, classes: int, graphs: Graphs, events: Events) -> Artifact:
    content = ensemble_to_onnx(ensemble, classes, graphs, events)

    def opened(engine: str) -> Probabilities:
        compute = open_engine(engine, content, ["probabilities"], torch.get_num_threads(), "float32").compute
        return lambda squares: compute(squares)[0][None]

    def save(path: Path, description: Description) -> None:
        path.write_bytes(seal.sealed(seal.with_metadata(content, {KEY: description.to_json()})))

    return Artifact(ensemble.inputs, installed(), opened, save)


def _pt2(ensemble: EnsembleModule, events: Events) -> Artifact:
    examples = tuple(map(example_of, ensemble.inputs.values()))
    shapes = torch.export.ShapesCollection()  # type: ignore[no-untyped-call]
    batch = torch.export.Dim("batch")
    for example in examples:
        shapes[example] = {0: batch}
    events.progress("exporting the networks", 0, 1)
    with quiet():
        try:
            dynamic = shapes.dynamic_shapes(ensemble, examples)  # type: ignore[no-untyped-call]
            program = torch.export.export(ensemble, examples, dynamic_shapes=dynamic, strict=False)
        except Exception as error:  # whatever a network's code leads the exporter to
            line = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise UserError(f"PyTorch can't export these networks ({line})") from error
    events.progress("exporting the networks", 1, 1)
    module = program.module()

    def probabilities(squares: Mapping[str, np.ndarray]) -> np.ndarray:
        with torch.inference_mode():
            found = module(*(torch.from_numpy(squares[name]) for name in ensemble.inputs))
        return np.asarray(found[0].numpy())[None]

    def save(path: Path, description: Description) -> None:
        with path.open("wb") as file, quiet():
            torch.export.save(program, file, extra_files={PT2_ENTRY: description.to_json()})

    return Artifact(ensemble.inputs, ("torch",), lambda _: probabilities, save)


def require_own(path: Path) -> None:
    """Raise UserError if there is a file that was not exported by ens."""
    if not path.is_file() or not path.stat().st_size or _is_own(path):
        return
    raise UserError(f"{path}: exists already and was not written by ens export; name another file")


def _is_own(path: Path) -> bool:
    with suppress(zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
        return any(Path(name).name == PT2_ENTRY for name in archive.namelist())
    try:
        return KEY in seal.read_metadata(path)
    except UserError:
        return False

"""What computes an exported file: OpenVINO where it is installed, which is faster on most CPUs, else ONNX Runtime."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ensemble.errors import UserError
from ensemble.exported.openvino_cache import compiled

ENGINES = ("openvino", "onnxruntime")
WRITERS = ("onnx", "onnxscript")  # what they need beside them to compute a run's networks
NAMES = {"openvino": "OpenVINO", "onnxruntime": "ONNX Runtime"}
# Images: for fewer OpenVINO isn't worth its opening. 20 networks take it 4 s of a core where ONNX Runtime takes 1, and
# then 0.24 s an image where that takes 0.32.
FEW = 32
OUTPUTS = ("probabilities", "member_probabilities")  # of an exported blend
INSTALL = 'pip install "ens-vision[export]"'

Compute = Callable[[Mapping[str, np.ndarray]], list[np.ndarray]]  # from a graph's inputs to its outputs, by any thread


@dataclass(frozen=True)
class Engine:
    """A graph that is ready to be computed.

    name: "openvino" or "onnxruntime"
    version: of that
    threads: how many it computes with
    compute: the graph's inputs by name -> its outputs in the order asked for
    """

    name: str
    version: str
    threads: int
    compute: Compute

    def __str__(self) -> str:
        return f"{NAMES[self.name]} {self.version}"


def installed() -> tuple[str, ...]:
    """Those of `ENGINES` that are there, in their order."""
    return tuple(name for name in ENGINES if find_spec(name) is not None)


def choose_engine(engine: str, path: Path) -> str:
    """ "auto" becomes the first of `ENGINES` that is installed. Raises UserError, for the file `path`, for a name that
    is none and where that engine is not installed."""
    if engine not in ("auto", *ENGINES):
        raise UserError(f"engine {engine!r}: want one of auto, {', '.join(ENGINES)}")
    there = installed()
    if engine == "auto":
        if not there:
            raise UserError(f"{path}: needs OpenVINO or ONNX Runtime, and neither is installed: {INSTALL}")
        return there[0]
    if engine not in there:
        raise UserError(f"{path}: {NAMES[engine]} is not installed: pip install {engine}, or leave the engine to ens")
    return engine


def engine_for(engine: str, images: int) -> str:
    """`engine`, for so many images: "auto" becomes ONNX Runtime, where that is installed, if they are few."""
    if engine == "auto" and images < FEW and find_spec("onnxruntime") is not None:
        return "onnxruntime"
    return engine


def open_engine(name: str, model: Path | bytes, outputs: Sequence[str], threads: int, dtype: str) -> Engine:
    """The graph in an ONNX file, compiled.

    model: the file, or its bytes
    outputs: their names
    dtype: "float32", or "bfloat16" where OpenVINO may compute in it

    Raises UserError where the engine can't read it.
    """
    opened = _openvino if name == "openvino" else _onnxruntime
    try:
        version, compute = opened(model, outputs, threads, dtype)
    except (ImportError, MemoryError):
        raise
    except Exception as error:  # each engine has kinds of its own
        other = next(each for each in ENGINES if each != name)
        path = model if isinstance(model, Path) else "the exported file"
        raise UserError(f"{path}: {NAMES[name]} can't run it ({one_line(error)}); try it with {NAMES[other]}") from None
    return Engine(name, version, threads, compute)


def one_line(error: Exception) -> str:
    """What an engine said."""
    return " ".join(str(error).split())[:300]


@lru_cache(1)
def openvino_core() -> Any:
    import openvino

    return openvino.Core()


def openvino_options(threads: int, dtype: str) -> dict[str, object]:
    """threads: of all that is computed at a time. dtype: "float32" or "bfloat16"."""
    return {
        "INFERENCE_NUM_THREADS": threads,
        # else bfloat16 wherever the CPU has it, which changes classes
        "INFERENCE_PRECISION_HINT": "bf16" if dtype == "bfloat16" else "f32",
        "ENABLE_CPU_PINNING": False,  # other processes may have chosen the same cores
    }


def onnx_session(model: Path | bytes, threads: int) -> Any:
    """An `onnxruntime.InferenceSession` on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3  # errors, which are raised too
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _openvino(model: Path | bytes, outputs: Sequence[str], threads: int, dtype: str) -> tuple[str, Compute]:
    import openvino

    core, options = openvino_core(), openvino_options(threads, dtype) | {"PERFORMANCE_HINT": "LATENCY"}
    if isinstance(model, Path):
        network = compiled(core, model, options)
    else:
        network = core.compile_model(core.read_model(model), "CPU", options)
    for name in outputs:
        network.output(name)  # raises where there is none
    request = network.create_infer_request()
    lock = threading.Lock()  # a request computes one batch at a time, with all threads

    def compute(inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        with lock:
            request.infer(dict(inputs), share_inputs=True)
            return [np.array(request.get_tensor(name).data) for name in outputs]

    return openvino.__version__.split("-")[0], compute


def _onnxruntime(model: Path | bytes, outputs: Sequence[str], threads: int, dtype: str) -> tuple[str, Compute]:
    import onnxruntime

    session = onnx_session(model, threads)
    absent = set(outputs) - {output.name for output in session.get_outputs()}
    if absent:
        raise ValueError(f"no output {min(absent)!r}")

    def compute(inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        return list(session.run(list(outputs), dict(inputs)))

    return onnxruntime.__version__, compute

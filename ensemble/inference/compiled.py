"""Networks that OpenVINO or ONNX Runtime computes: faster than PyTorch on many processors, and nearly to the bit.

Either reads a network as an ONNX model. What takes seconds to make of it depends on the architecture alone: its graph
is kept in the cache of decoded pixels, whatever the weights, and read by all folds, runs and processes. A network is
compiled when it is first asked for, once for each shape of a batch, within a second.

A batch is computed by as many threads as PyTorch would use in the thread that asks: by one, where batches are computed
side by side. So an image's logits are the same bits in any batch of one size, and with any number of threads.
"""

import hashlib
import json
import threading
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ensemble.data.cache.folder import cache_folder
from ensemble.errors import UserError
from ensemble.exported.engines import (
    ENGINES,
    NAMES,
    WRITERS,
    one_line,
    onnx_session,
    openvino_core,
    openvino_options,
)
from ensemble.files.tensors import map_tensors, of_array, read_bytes, write_tensors
from ensemble.inference.to_onnx import architecture, at_size, graph_of, with_weights
from ensemble.machine import cores, threads_allowed

if TYPE_CHECKING:
    import onnx

Compute = Callable[[torch.Tensor], torch.Tensor]  # float32 (B, 3, S, S), normalised, to logits float32 (B, C)

_graphs: dict[str, "onnx.ModelProto"] = {}
_exporting = threading.Lock()  # torch's exporter is not made for threads


def installed() -> tuple[str, ...]:
    """The engines beside torch whose packages are there."""
    return tuple(name for name in ENGINES if all(map(find_spec, (*WRITERS, name))))


def how_to_install(engine: str) -> str:
    return 'pip install "ens-vision[export]"' + (" openvino" if engine == "openvino" else "")


def compile_network(network: torch.nn.Module, engine: str, dtype: str, image_size: int) -> Compute:
    """A network in evaluation on the CPU, as an engine computes it; safe to be called from several threads.

    engine: one that is `installed`
    dtype: float32, or bfloat16 (OpenVINO)
    image_size: of most of its images, px

    Raises UserError if the network can't be written as ONNX; so does what is returned, if the engine can't compute it.
    """
    _graph(network, image_size)  # now: it may fail, and is none of the streams' work
    most = min(cores(), threads_allowed() or cores())
    build = _openvino if engine == "openvino" else _onnxruntime
    networks: dict[tuple[tuple[int, ...], int], Compute] = {}
    lock = threading.Lock()

    def compute(images: torch.Tensor) -> torch.Tensor:
        threads = torch.get_num_threads()
        shape = tuple(images.shape)
        with lock:
            if (shape, threads) not in networks:
                sized = at_size(network, shape[-1])
                model = with_weights(_graph(sized, shape[-1]), sized)
                try:
                    networks[shape, threads] = build(model, shape, dtype, threads, max(most // threads, 1))
                except Exception as error:  # each engine has kinds of its own
                    raise UserError(
                        f"{NAMES[engine]} can't compute a network ({one_line(error)}); where it is not installed, "
                        "torch does"
                    ) from error
        return networks[shape, threads](images)

    return compute


def _openvino(model: "onnx.ModelProto", shape: tuple[int, ...], dtype: str, threads: int, streams: int) -> Compute:
    """streams: how many batches may be computed at a time, each by so many threads."""
    import openvino
    from openvino.preprocess import PrePostProcessor

    core = openvino_core()
    network = core.read_model(model.SerializeToString())
    network.reshape(list(shape))
    steps = PrePostProcessor(network)
    steps.input().tensor().set_layout(openvino.Layout("NHWC"))  # as batches lie in memory
    steps.input().model().set_layout(openvino.Layout("NCHW"))
    options = openvino_options(threads * streams, dtype) | {"NUM_STREAMS": streams}
    network = core.compile_model(steps.build(), "CPU", options)
    idle: list[Any] = []  # requests hold the memory of what lies between input and logits

    def compute(images: torch.Tensor) -> torch.Tensor:
        try:
            request = idle.pop()
        except IndexError:
            request = network.create_infer_request()
        pixels = np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())
        logits = request.infer([pixels], share_inputs=True)[0]
        idle.append(request)
        return torch.from_numpy(logits)

    return compute


def _onnxruntime(model: "onnx.ModelProto", shape: tuple[int, ...], dtype: str, threads: int, streams: int) -> Compute:
    session = onnx_session(model.SerializeToString(), threads)

    def compute(images: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(session.run(None, {"images": images.contiguous().numpy()})[0])

    return compute


def _graph(network: torch.nn.Module, image_size: int) -> "onnx.ModelProto":
    """The network's graph without its weights, exported unless it was before."""
    versions = [version(name) for name in ("torch", "timm", "onnx", "onnxscript")]
    text = json.dumps([architecture(network), image_size, versions])
    key = hashlib.sha256(text.encode()).hexdigest()[:24]
    with _exporting:
        if key not in _graphs:
            _graphs[key] = _kept_graph(key) or _exported_graph(key, network, image_size)
        return _graphs[key]


def _kept_graph(key: str) -> "onnx.ModelProto | None":
    import onnx

    path = cache_folder("auto") / "graphs" / f"{key}.safetensors"
    with suppress(OSError, UserError):  # one that is damaged is made again
        read_bytes(path)
        return onnx.load_from_string(map_tensors(path)["graph"].tobytes())
    return None


def _exported_graph(key: str, network: torch.nn.Module, image_size: int) -> "onnx.ModelProto":
    with torch.inference_mode(False), torch.no_grad():
        graph = graph_of(network, {"images": torch.zeros(2, 3, image_size, image_size)}, "logits")
    content = np.frombuffer(graph.SerializeToString(), dtype=np.uint8)
    with suppress(OSError):  # without a place to keep it, it is made again by the next process
        write_tensors(cache_folder("auto") / "graphs" / f"{key}.safetensors", {"graph": of_array(content)}, {})
    return graph

"""Compiled graphs that OpenVINO is given again, from the machine's cache: a file of 20 networks is then open in half a
second of a core instead of four.

OpenVINO's own cache (CACHE_DIR) notices neither that an entry is damaged nor that it computes something else, which has
happened. So an entry is named by the digest of the exported file, OpenVINO's version and all that it was told, holds a
checksum, and is kept only if it computes the same bits as what was compiled. Without a cache on the machine nothing is
kept: a container that is started once has no use for it.
"""

import hashlib
import io
import json
import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ensemble.data.cache.folder import cache_folder
from ensemble.errors import UserError
from ensemble.exported.seal import digest_of
from ensemble.files.sealed import require_sound_file
from ensemble.files.tensors import map_tensors, of_array, write_tensors

FOLDER = "compiled"
MOST_BYTES = 2 * 10**9  # of all entries; the least recently used ones go first


def compiled(core: Any, path: Path, options: Mapping[str, object]) -> Any:
    """The graph in a sealed ONNX file, compiled by OpenVINO for the CPU. core: OpenVINO's. options: what it is compiled
    with. Raises what OpenVINO raises where it can't be compiled."""
    import openvino

    cache = cache_folder("auto")
    capabilities = sorted(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
    machine = [platform.machine(), core.get_property("CPU", "FULL_DEVICE_NAME"), capabilities]
    key = json.dumps([digest_of(path), openvino.get_version(), machine, options], sort_keys=True)
    entry = cache / FOLDER / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.safetensors"
    with suppress(OSError, UserError, ValueError, KeyError, RuntimeError):  # compiled anew, and kept again
        require_sound_file(entry)
        kept = core.import_model(openvino.Tensor(np.array(map_tensors(entry)["graph"])), "CPU", options)
        with suppress(OSError):  # of a cache that may be read only
            os.utime(entry)
        return kept
    made = core.compile_model(core.read_model(path), "CPU", options)
    if cache.is_dir():
        with suppress(Exception):  # a full disk, an OpenVINO that can't: nothing depends on it
            _keep(core, entry, made, options)
    return made


def _keep(core: Any, entry: Path, made: Any, options: Mapping[str, object]) -> None:
    """Write what was compiled, unless it computes anything else when it is read again."""
    import openvino

    stream = io.BytesIO()
    made.export_model(stream)
    content = np.frombuffer(stream.getbuffer(), dtype=np.uint8)
    again = core.import_model(openvino.Tensor(content), "CPU", options)
    example = {value.any_name: _example(value) for value in made.inputs}
    found = [compute(example) for compute in (made, again)]
    if all(np.array_equal(found[0][at], found[1][at], equal_nan=True) for at in range(len(made.outputs))):
        write_tensors(entry, {"graph": of_array(content)}, {})
        _make_room(entry.parent)


def _example(value: Any) -> np.ndarray:
    """Random bytes, or numbers about 0, of two images."""
    shape = [side.get_length() if side.is_static else 2 for side in value.get_partial_shape()]
    drawn = np.random.default_rng(0)
    if value.get_element_type().to_dtype() == np.uint8:
        return drawn.integers(0, 256, shape, dtype=np.uint8)
    return drawn.normal(size=shape).astype(np.float32)


def _make_room(folder: Path) -> None:
    entries = sorted(folder.glob("*.safetensors"), key=lambda path: -path.stat().st_mtime)
    size = 0
    for number, path in enumerate(entries):
        size += path.stat().st_size
        if number and size > MOST_BYTES:
            path.unlink(missing_ok=True)

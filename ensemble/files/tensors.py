"""Safetensors files that vouch for themselves (`ensemble.files.sealed`), written and read. Never imports torch."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from ensemble.files import sealed
from ensemble.files.atomic import replacing

_SIZES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}
_OF_NUMPY = {"float64": "F64", "float32": "F32", "float16": "F16", "uint8": "U8", "int8": "I8", "bool": "BOOL"}
_OF_NUMPY |= {f"{sign}int{bits}": f"{sign.upper() or 'I'}{bits}" for sign in ("", "u") for bits in (16, 32, 64)}
_TO_NUMPY = {kind: np.dtype(name).newbyteorder("<") for name, kind in _OF_NUMPY.items()}


@dataclass(frozen=True)
class Tensor:
    """A tensor that is to be written.

    dtype: safetensors' name of it.
    shape: its sides.
    pieces: buffers whose bytes, one after the other, are its numbers in C order, little-endian: they are asked for
        once, and held one at a time.
    """

    dtype: str
    shape: tuple[int, ...]
    pieces: Iterable[Any]

    @property
    def nbytes(self) -> int:
        return _SIZES.get(self.dtype, 1) * math.prod(self.shape)


def of_array(array: np.ndarray) -> Tensor:
    """A numpy array as a `Tensor`."""
    kind = _OF_NUMPY[array.dtype.name]
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return Tensor(kind, array.shape, [little.reshape(-1).view(np.uint8).data])


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Write a safetensors file with its checksum, atomically; returns the checksum as hex digits.

    Equal contents give equal bytes, which safetensors' own writer doesn't promise: it shuffles its metadata. Raises
    ValueError if the pieces of a tensor are not as many bytes as its shape says, OSError that names the file.
    """
    header: dict[str, object] = {"__metadata__": {sealed.KEY: sealed.BLANK, **metadata}}
    order = sorted(
        tensors, key=lambda name: -_SIZES.get(tensors[name].dtype, 1)
    )  # each begins at a multiple of its size
    end = 0
    for name in order:
        tensor = tensors[name]
        header[name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [end, end + tensor.nbytes],
        }
        end += tensor.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    head = len(text).to_bytes(8, "little") + text
    state = xxhash.xxh3_128(head)
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(head)
        for name in order:
            left = tensors[name].nbytes
            for piece in tensors[name].pieces:
                left -= len(piece)
                if left < 0:
                    break
                state.update(piece)
                file.write(piece)
            if left:
                raise ValueError(f"{name}: its pieces are {abs(left)} bytes too {'few' if left > 0 else 'many'}")
        file.seek(head.index(sealed.BLANK.encode()) + len("xxh3:"))
        file.write(state.hexdigest().encode())
    return state.hexdigest()


def read_bytes(path: Path) -> bytes:
    """All bytes of a file, sound if it holds a checksum. Raises Damaged, FileNotFoundError, OSError."""
    data = path.read_bytes()
    sealed.require_sound(data, path)
    return data


def map_tensors(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file by name, read-only and left in the file until they are used.

    Nothing is checked but what mapping takes: `sealed.require_sound_file` comes first. Raises OSError; ValueError or
    KeyError for a file that is not whole, or of a type that numpy lacks.
    """
    data = np.memmap(path, dtype=np.uint8, mode="r")
    start = 8 + int.from_bytes(data[:8].tobytes(), "little")
    header = json.loads(data[8:start].tobytes())
    header.pop("__metadata__", None)
    arrays = {}
    for name, about in header.items():
        first, last = about["data_offsets"]
        arrays[name] = data[start + first : start + last].view(_TO_NUMPY[about["dtype"]]).reshape(about["shape"])
    return arrays


def metadata_of(data: bytes) -> dict[str, str]:
    """The metadata of a safetensors file that safetensors has found whole, of which these bytes are the beginning."""
    size = int.from_bytes(data[:8], "little")
    found: dict[str, str] = json.loads(data[8 : 8 + size]).get("__metadata__") or {}
    found.pop(sealed.KEY, None)
    return found

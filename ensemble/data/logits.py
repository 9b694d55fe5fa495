"""Logits with the ids of their rows: the one thing that training, prediction and blending hand to each other."""

import itertools
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load

from ensemble.errors import Damaged, UserError
from ensemble.files import sealed
from ensemble.files.damage import damaged
from ensemble.files.reading import parse_json
from ensemble.files.tensors import Tensor, map_tensors, metadata_of, of_array, read_bytes, write_tensors
from ensemble.run.vouched import require_in_fold


@dataclass(frozen=True)
class Logits:
    """Raw model outputs (before any softmax) of N rows under V views for C classes.

    ids: unique str (N,).
    views: V names.
    classes: C names.
    values: float32 (V, N, C); for test images (K, V, N, C), kept per fold model.
    meta: free strings that say where they come from.
    """

    ids: np.ndarray
    views: tuple[str, ...]
    classes: tuple[str, ...]
    values: np.ndarray
    meta: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        want = (len(self.views), len(self.ids), len(self.classes))
        if self.values.shape[-3:] != want or self.values.ndim not in (3, 4) or self.values.dtype != np.float32:
            raise ValueError(
                f"values are {self.values.dtype} {self.values.shape}, want float32 ([K,] V, N, C) = {want}"
            )
        unique, counts = np.unique(self.ids, return_counts=True)
        if len(unique) != len(self.ids):
            raise ValueError(f"id {str(unique[counts > 1][0])!r} is there twice")

    def align(self, ids: np.ndarray, source: str = "logits") -> "Logits":
        """The same logits with rows in the order of `ids`.

        Raises UserError, naming `source` and the first id, if an id has no row here. Rows that `ids` does not name
        are left out.
        """
        rows = self.find(ids, source)
        return replace(self, ids=np.asarray(ids), values=self.values[..., rows, :])

    def find(self, ids: np.ndarray, source: str = "logits") -> np.ndarray:
        """The row of each of these ids, int64. Raises UserError as `align` does."""
        position = {name: row for row, name in enumerate(self.ids)}
        missing = [name for name in ids if name not in position]
        if missing:
            raise UserError(f"{source}: no row for id {str(missing[0])!r} ({len(missing)} of {len(ids)} are missing)")
        return np.array([position[name] for name in ids], dtype=np.int64)

    def save(self, path: Path) -> None:
        """Write one safetensors file, atomically."""
        ids = [str(name) for name in self.ids]
        write_logits(path, ids, self.views, self.classes, self.values.shape, [self.values], self.meta)


def write_logits(
    path: Path,
    ids: Sequence[str],
    views: Sequence[str],
    classes: Sequence[str],
    shape: tuple[int, ...],
    pieces: Iterable[np.ndarray],
    meta: dict[str, str],
) -> None:
    """Write logits to one safetensors file, atomically, holding one piece of their values at a time.

    shape: of the values, ([K,] V, N, C). pieces: float32 arrays whose numbers, one piece after the other, are the
    values in C order; with one view these are blocks of rows. Ids are kept as UTF-8 bytes with the end of each. Equal
    logits give equal bytes, which safetensors' own writer doesn't promise: it shuffles its metadata. Raises ValueError
    if the pieces are of another type or have more or fewer numbers, OSError that names the file.
    """
    facts = {"views": list(views), "classes": list(classes), "meta": meta}
    ends, text = encoded_ids(ids)
    tensors = {
        "id_ends": of_array(ends),
        "values": Tensor("F32", shape, _float32(pieces, shape)),
        "id_bytes": of_array(text),
    }
    write_tensors(path, tensors, {key: json.dumps(value) for key, value in facts.items()})


def encoded_ids(ids: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
    """The end of each id, int64 (N,), in their UTF-8 bytes, uint8."""
    encoded = [name.encode() for name in ids]
    ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)
    return ends, np.frombuffer(b"".join(encoded), dtype=np.uint8)


def _float32(pieces: Iterable[np.ndarray], shape: tuple[int, ...]) -> Iterator[memoryview]:
    left = 4 * math.prod(shape)
    for piece in pieces:
        left -= piece.nbytes
        if piece.dtype != np.float32 or left < 0:
            raise ValueError(f"a piece is {piece.dtype} {piece.shape}, want float32, {shape} in all")
        yield np.ascontiguousarray(piece, dtype="<f4").reshape(-1).view(np.uint8).data
    if left:
        raise ValueError(f"the pieces lack {left // 4} numbers of {shape}")


def load_logits(path: Path, mapped: bool = False) -> Logits:
    """Read what `Logits.save` wrote. Raises UserError that names the file if it is missing, cut short or not logits,
    Damaged if its bytes are not those that were written, or if it lies in a fold that it says is not its own.

    mapped: leave the values in the file, to be read as they are used (read-only); it is read through once, to compare
    its checksum.
    """
    try:
        if mapped:
            sealed.require_sound_file(path)
            checksum = sealed.file_checksum(path)
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata() or {}
            arrays = map_tensors(path)
        else:
            data = read_bytes(path)
            checksum = sealed.checksum(data, path)
            arrays, metadata = load(data), metadata_of(data)
        views, classes = (tuple(parse_json(metadata[key], list[str], key)) for key in ("views", "classes"))
        meta = parse_json(metadata["meta"], dict[str, str], "meta")
        ids = decoded_ids(arrays["id_ends"], arrays["id_bytes"])
        logits = Logits(ids, views, classes, arrays["values"], meta)
        require_in_fold(path, logits.meta, checksum)
        return logits
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except Damaged:
        raise
    except (SafetensorError, KeyError, ValueError, TypeError, AttributeError, UserError) as error:
        raise damaged(path, f"not a whole logits file ({error})") from None


def decoded_ids(ends: np.ndarray, text: np.ndarray) -> np.ndarray:
    """What `encoded_ids` was given, str (N,). Raises ValueError."""
    if ends.dtype != np.int64 or ends.ndim != 1 or text.dtype != np.uint8 or text.ndim != 1:
        raise ValueError(f"ids are {ends.dtype} {ends.shape} in {text.dtype} {text.shape}")
    bounds = [0, *ends.tolist()]
    if bounds != sorted(bounds) or bounds[-1] != len(text):
        raise ValueError("ids don't end one after the other")
    whole = text.tobytes()
    return np.array([whole[a:b].decode() for a, b in itertools.pairwise(bounds)], dtype=np.str_)

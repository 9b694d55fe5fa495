"""Logits with the ids of their rows: the one thing that training, prediction and blending hand to each other."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ensemble.errors import UserError
from ensemble.rundir import replacing


@dataclass(frozen=True)
class Logits:
    """Raw model outputs (before any softmax) of N rows under V views for C classes.

    ids: unique str, (N,). views: V names. classes: C names.
    values: float32, (V, N, C); for test images (K, V, N, C), kept per fold model.
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
        position = {name: row for row, name in enumerate(self.ids)}
        missing = [name for name in ids if name not in position]
        if missing:
            raise UserError(f"{source}: no row for id {str(missing[0])!r} ({len(missing)} of {len(ids)} are missing)")
        rows = np.array([position[name] for name in ids], dtype=np.int64)
        return replace(self, ids=np.asarray(ids), values=self.values[..., rows, :])

    def save(self, path: Path) -> None:
        """Write one safetensors file, atomically. Ids are kept as UTF-8 bytes with the end of each."""
        encoded = [str(name).encode() for name in self.ids]
        tensors = {
            "values": np.ascontiguousarray(self.values),
            "id_bytes": np.frombuffer(b"".join(encoded), dtype=np.uint8),
            "id_ends": np.cumsum([len(name) for name in encoded], dtype=np.int64),
        }
        header = {"views": list(self.views), "classes": list(self.classes), "meta": self.meta}
        with replacing(path) as temporary:
            save_file(tensors, temporary, {key: json.dumps(value) for key, value in header.items()})


def load_logits(path: Path) -> Logits:
    """Read what `Logits.save` wrote. Raises UserError that names the file if it is missing, cut short or not logits."""
    try:
        with safe_open(path, framework="numpy") as file:
            header = {key: json.loads(value) for key, value in file.metadata().items()}
            ends = file.get_tensor("id_ends")
            text = file.get_tensor("id_bytes").tobytes()
            values = file.get_tensor("values")
        ids = np.array([text[a:b].decode() for a, b in zip([0, *ends[:-1]], ends, strict=True)], dtype=np.str_)
        return Logits(ids, tuple(header["views"]), tuple(header["classes"]), values, header["meta"])
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (SafetensorError, KeyError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: not a whole logits file ({error}); train its fold again") from None

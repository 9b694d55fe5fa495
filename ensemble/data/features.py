"""Features of images: what a network gives to its classifier, with the ids of their rows. Never imports torch."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from ensemble.data.logits import decoded_ids, encoded_ids
from ensemble.errors import Damaged, UserError
from ensemble.files.damage import damaged
from ensemble.files.reading import parse_json
from ensemble.files.tensors import metadata_of, of_array, read_bytes, write_tensors


@dataclass(frozen=True)
class Features:
    """Features of N images by one network.

    ids: unique str (N,).
    values: float32 (N, D).
    meta: free strings that say where they come from.
    """

    ids: np.ndarray
    values: np.ndarray
    meta: dict[str, str] = field(default_factory=dict)

    def of(self, ids: Sequence[str]) -> np.ndarray | None:
        """The features of these images, float32 (len(ids), D); None if some are lacking."""
        place = {name: row for row, name in enumerate(self.ids.tolist())}
        rows = [place.get(name, -1) for name in ids]
        return None if min(rows, default=-1) < 0 else self.values[rows]

    def save(self, path: Path) -> None:
        """Write one safetensors file, atomically."""
        ends, text = encoded_ids(self.ids.tolist())
        values = np.ascontiguousarray(self.values, dtype=np.float32)
        tensors = {"id_ends": of_array(ends), "values": of_array(values), "id_bytes": of_array(text)}
        write_tensors(path, tensors, {"meta": json.dumps(self.meta)})


def read_features(path: Path) -> Features:
    """Read what `Features.save` wrote. Raises UserError that names the file if it is missing, Damaged if its bytes are
    not those that were written, or are no features."""
    try:
        data = read_bytes(path)
        arrays = load(data)
        ids, values = decoded_ids(arrays["id_ends"], arrays["id_bytes"]), arrays["values"]
        if values.shape[:1] != ids.shape or values.ndim != 2 or values.dtype != np.float32:
            raise ValueError(f"values are {values.dtype} {values.shape} of {len(ids)} rows")
        return Features(ids, values, parse_json(metadata_of(data)["meta"], dict[str, str], "meta"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except Damaged:
        raise
    except (SafetensorError, KeyError, ValueError, UserError) as error:
        raise damaged(path, f"not a whole file of features ({error})") from None

"""The cross-fitted probabilities of a blend, kept beside it for prediction sets and abstention. Never imports torch."""

import hashlib

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from ensemble.conformal.rows import HeldOut
from ensemble.errors import UserError
from ensemble.files.tensors import of_array, read_bytes, write_tensors
from ensemble.run import Run


def save_held_out(run: Run, name: str, rows: HeldOut) -> str:
    """Write blends/held-out/<name>.safetensors, atomically; returns the SHA-256 of its bytes."""
    path = run.held_out_file(name)
    arrays = {
        "probabilities": rows.probabilities.astype(np.float32),
        "labels": rows.labels.astype(np.int32),
        "folds": rows.folds.astype(np.int32),
        "clusters": rows.clusters.astype(np.int32),
    }
    tensors = {key: of_array(value) for key, value in arrays.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(path, tensors, {"blend": name})
    return hashlib.sha256(path.read_bytes()).hexdigest()


def load_held_out(run: Run, name: str, sha256: str | None, classes: int) -> HeldOut:
    """What `save_held_out` wrote. sha256: as it gave it, which the blend keeps; None where it has none. classes: C.
    Raises UserError if it is missing or another one."""
    path, again = run.held_out_file(name), f"fit it again with: ens blend {run}"
    if sha256 is None:
        raise UserError(f"blend {name!r} of {run} was saved without its out-of-fold probabilities; {again}")
    try:
        content = read_bytes(path)
        if hashlib.sha256(content).hexdigest() != sha256:
            raise UserError(f"{path}: not the file that the blend {name!r} was saved with; {again}")
        arrays = load(content)
        probabilities, labels = arrays["probabilities"], arrays["labels"].astype(np.int64)
        folds, clusters = arrays["folds"].astype(np.int64), arrays["clusters"].astype(np.int64)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {again}") from None
    except (ValueError, KeyError, SafetensorError) as error:
        raise UserError(f"{path}: not whole ({error}); {again}") from None
    shapes = {each.shape for each in (labels, folds, clusters)}
    is_whole = shapes == {probabilities.shape[:1]} and probabilities.shape[1:] == (classes,) and len(labels) > 0
    if not is_whole or labels.min() < 0 or labels.max() >= classes or folds.min() < 0:
        raise UserError(f"{path}: its rows, labels and folds don't go together; {again}")
    return HeldOut(probabilities, labels, folds, clusters)

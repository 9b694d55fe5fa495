"""What a blend method is: plain functions on what it learned, which is a frozen dataclass in the method's own file.

A field of that dataclass is a key on disk: arrays go to the blend's safetensors, all else to its JSON, None to neither;
the method's `load` reads them back. A method is added as one file with a `Method`, and named in the table of
`ensemble.blend.methods`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Training:
    """What a method is fitted on: M members' logits of N labelled rows, C classes.

    z: float32 (M, N, C).
    labels: int64 (N,).
    folds: int64 (N,), over which a method may cross-validate within these rows.
    clusters: int64 (N,); rows of one cluster (a group, or a row by itself) are not independent and share a fold.
    metric: what the blend is for; only methods that select by it look at it.
    weights: float64 (N,), what each row counts, mean 1; None where all count the same.
    """

    z: np.ndarray
    labels: np.ndarray
    folds: np.ndarray
    clusters: np.ndarray
    metric: str = "log_loss"
    weights: np.ndarray | None = None


@dataclass(frozen=True)
class Method:
    """A blend method.

    name: as in `ens blend --method`.
    fit: what it learns from a `Training`.
    apply: (learned, z float32 (M, N, C)) -> probabilities float64 (N, C), rows sum to 1.
    load: (saved values by key, M, C) -> learned. Raises ValueError that names what is not as `fit` makes it.
    describe: (learned, metric) -> lines for the reader.
    weights_of: (learned, M) -> for each member its "weight" and, where the method has one, its "temperature".
    reading: how these weights are to be read, one sentence.
    sparse: a member of weight 0 has no part in the answer; all arrays learned are (M,).
    scaled: its probabilities have their scale; those of the others are given one temperature.
    by_metric: it is fitted by the metric itself, not by log loss.
    weighs_views: it is given weighted views of each member, not their plain average.
    slow: it takes too long to be fitted again and again: by `auto`, and without each member.
    """

    name: str
    fit: Callable[[Training], Any]
    apply: Callable[[Any, np.ndarray], np.ndarray]
    load: Callable[[Mapping[str, Any], int, int], Any]
    describe: Callable[[Any, str], list[str]]
    weights_of: Callable[[Any, int], list[dict[str, float]]]
    reading: str
    sparse: bool = False
    scaled: bool = False
    by_metric: bool = False
    weighs_views: bool = True
    slow: bool = False


def only(learned: Any, members: np.ndarray) -> Any:
    """What a sparse method learned, without the members that are not in bool (M,) `members`."""
    arrays = {key: value[members] for key, value in vars(learned).items() if isinstance(value, np.ndarray)}
    return replace(learned, **arrays)


def member_weights(weights: np.ndarray, inverse_temperatures: np.ndarray | None = None) -> list[dict[str, float]]:
    """`Method.weights_of` where each member has one weight, float (M,), and perhaps 1 / temperature, float (M,)."""
    found = [{"weight": float(weight)} for weight in weights]
    if inverse_temperatures is not None:
        for member, inverse in zip(found, inverse_temperatures, strict=True):
            member["temperature"] = 1 / float(inverse)
    return found

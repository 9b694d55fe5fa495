"""Results as plain JSON: what `--json` prints."""

import dataclasses
import math
from collections.abc import Collection, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from ensemble.files.mirror import display_name
from ensemble.run import Run
from ensemble.scoring.bootstrap import Score


def plain(value: Any, without: Collection[str] = ()) -> Any:
    """Numbers, strings, lists and dictionaries, of dataclasses, arrays, paths, runs, dates and numpy's scalars.

    A dataclass is a dictionary of its fields, a `Score` with its mean, its deviation and n, its number of folds.
    Numbers that are not finite become None, since JSON has none. without: fields to leave out; "Block.folds"
    only leaves out that of the class Block. Raises TypeError for anything else.
    """
    if isinstance(value, Path | Run):
        return display_name(value.path if isinstance(value, Run) else value)
    if isinstance(value, Score):
        spread = {"mean": plain(value.mean), "std": plain(value.std), "n": len(value.folds)}
        return {"value": plain(value.value), "low": plain(value.low), "high": plain(value.high)} | spread | {
            "folds": plain(value.folds)
        }  # fmt: skip
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kind = type(value).__name__
        names = [field.name for field in dataclasses.fields(value)]
        kept = [name for name in names if name not in without and f"{kind}.{name}" not in without]
        return {name: plain(getattr(value, name), without) for name in kept}
    if isinstance(value, Mapping):
        return {str(key): plain(item, without) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist(), without)
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item, without) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    if value is None or isinstance(value, str | int | bool):
        return value
    raise TypeError(f"{type(value).__name__} is not plain: leave it out")

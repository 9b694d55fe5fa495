"""Scores and gains as pandas data frames."""

from collections.abc import Iterable, Mapping
from dataclasses import fields

import pandas as pd

from ensemble.scoring.bootstrap import Gain, Score
from ensemble.scoring.metrics import computed


def scores_frame(scores: Mapping[str, Mapping[str, Score]], index: str) -> pd.DataFrame:
    """A row for each name, the index being called `index`. Of each metric four columns: its value, the ends `_low` and
    `_high` of the 95% interval, and `_std`, the standard deviation over folds. NaN where a name has no scores."""
    metrics = dict.fromkeys(metric for by_metric in scores.values() for metric in by_metric) or computed()
    columns = [f"{metric}{end}" for metric in metrics for end in ("", "_low", "_high", "_std")]
    rows = [_cells(by_metric) for by_metric in scores.values()]
    return pd.DataFrame(rows, index=pd.Index(list(scores), name=index, dtype="str"), columns=columns, dtype=float)


def gains_frame(gains: Iterable[Gain]) -> pd.DataFrame:
    """A row for each gain: against, metric, value, low, high, p_better; see `Gain`."""
    names = [field.name for field in fields(Gain)]
    return pd.DataFrame([[getattr(gain, name) for name in names] for gain in gains], columns=names)


def _cells(by_metric: Mapping[str, Score]) -> dict[str, float]:
    cells: dict[str, float] = {}
    for metric, score in by_metric.items():
        cells |= {metric: score.value, f"{metric}_low": score.low, f"{metric}_high": score.high}
        cells[f"{metric}_std"] = score.std
    return cells

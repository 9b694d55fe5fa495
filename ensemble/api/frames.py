"""Scores and gains as pandas data frames."""

from collections.abc import Iterable, Mapping
from dataclasses import fields

import pandas as pd

from ensemble.scoring.bootstrap import Gain, Score


def scores_frame(scores: Mapping[str, Mapping[str, Score]], index: str) -> pd.DataFrame:
    """A row for each name, the index being called `index`. Of each metric four columns: its value, the ends `_low` and
    `_high` of the 95% interval, and `_std`, the standard deviation over folds. NaN where a name has no scores."""
    rows = {name: _cells(by_metric) for name, by_metric in scores.items()}
    frame = pd.DataFrame.from_dict(rows, orient="index", dtype=float)
    return frame.rename_axis(index)


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

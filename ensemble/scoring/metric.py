"""The type of a metric."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np


@dataclass(frozen=True)
class Metric:
    """A score of predicted probabilities, over all rows pooled (never a mean of batches or folds).

    name: what options, files and JSON call it.
    heading: of a table's column; where it ends in %, numbers are shown times 100.
    greater_is_better: whether more is better.
    needs: what `score` is given, and gives.
        "values": labels int64 (N,), probs float (N, C) -> what each row counts, float64 (N,); the metric is the mean.
        "costs": as "values", and what mistakes cost, float64 (C, C); only where the user gives that.
        "counts": `ClassCounts` of any number of draws (...) -> float64 (...).
        "rows": labels (N,), probs (N, C), weights of the rows in B draws float64 (N, B) -> float64 (B,), NaN where a
            draw has none. Every draw costs a pass over the rows.
    score: the function.
    default: whether it is always computed and saved; other metrics only where they are asked for.
    column: whether it always has a column in tables.
    fewest_classes: how many classes it needs at least.
    bounds: its least and greatest value, where its interval is made for values between the two; else None.
    by_class: whether it counts all classes alike, so that its interval rests on the rows of each class.
    """

    name: str
    heading: str
    greater_is_better: bool
    needs: Literal["values", "costs", "counts", "rows"]
    score: Callable[..., np.ndarray]
    default: bool = False
    column: bool = False
    fewest_classes: int = 2
    bounds: tuple[float, float] | None = None
    by_class: bool = False

    @property
    def title(self) -> str:
        """The heading without its unit."""
        return self.heading.removesuffix(" %")

    @property
    def factor(self) -> int:
        """What its numbers are multiplied by where they are shown."""
        return 100 if self.heading.endswith("%") else 1

    @property
    def sign(self) -> int:
        """1 where greater is better, else -1."""
        return 1 if self.greater_is_better else -1

    def number(self, value: float, sign: str = "") -> str:
        """A value as text without a unit: two decimals of a percentage, else four.

        sign: "+" writes a plus before positive numbers, as of a gain.
        """
        return f"{self.factor * value:{sign}.{2 if self.factor == 100 else 4}f}"

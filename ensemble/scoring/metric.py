"""What a metric is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np


@dataclass(frozen=True)
class Metric:
    """A score of predicted probabilities, over all rows pooled (never a mean of batches or folds).

    name: what options, files and JSON call it.
    heading: of a table's column; one that ends in % is of numbers that are shown times 100.
    greater_is_better: whether more is better.
    needs: what `score` is given, and gives.
        "values": labels int64 (N,), probs float (N, C) -> what each row counts, float64 (N,); the metric is the mean.
        "costs": as "values", and what mistakes cost, float64 (C, C); only where the user gives that.
        "counts": `ClassCounts` of any number of draws (...) -> float64 (...).
        "rows": labels (N,), probs (N, C), weights of the rows in B draws float64 (N, B) -> float64 (B,), NaN where a
            draw has none. Every draw costs a pass over the rows.
    score: the function.
    default: computed and saved always; the others where they are asked for.
    column: in tables always, of those that are computed always.
    fewest_classes: that it can be asked for with.
    bounds: the least and the greatest value that it can have, where its interval is made for values between the two.
    by_class: it counts all classes alike, so that it rests on the classes' rows, and not on all rows together.
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
        """As it is shown, without a unit: two digits of a percentage, else four. sign: "+" shows that of a gain too."""
        return f"{self.factor * value:{sign}.{2 if self.factor == 100 else 4}f}"

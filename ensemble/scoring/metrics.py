"""The table of metrics. Every list of metrics in ens derives from it: a new one is its function and one entry here."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ensemble.errors import UserError
from ensemble.scoring import counts, ranking, row_values


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
    """

    name: str
    heading: str
    greater_is_better: bool
    needs: Literal["values", "costs", "counts", "rows"]
    score: Callable[..., np.ndarray]
    default: bool = False
    column: bool = False
    fewest_classes: int = 2

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


_TABLE = (
    Metric("accuracy", "accuracy %", True, "counts", counts.accuracy, default=True, column=True),
    Metric("macro_f1", "macro F1 %", True, "counts", counts.macro_f1, default=True, column=True),
    Metric("log_loss", "log loss", False, "values", row_values.row_losses, default=True, column=True),
    Metric("balanced_accuracy", "balanced accuracy %", True, "counts", counts.balanced_accuracy, default=True),
    Metric("roc_auc", "ROC AUC", True, "rows", ranking.roc_auc),
    Metric("average_precision", "average precision", True, "rows", ranking.average_precision),
    Metric("top5_accuracy", "top-5 accuracy %", True, "values", row_values.top5_hits, fewest_classes=6),
    Metric("quadratic_kappa", "quadratic kappa", True, "counts", counts.quadratic_kappa),
    Metric("matthews", "Matthews correlation", True, "counts", counts.matthews),
    Metric("expected_cost", "expected cost", False, "costs", row_values.row_costs),
)
METRICS: dict[str, Metric] = {metric.name: metric for metric in _TABLE}
HEADLINE = ("accuracy", "log_loss")  # what sentences name, and tables with room for two columns


def computed(*asked: str) -> tuple[str, ...]:
    """The names of those that are computed always, and of those asked for."""
    return tuple(name for name, metric in METRICS.items() if metric.default or name in asked)


def columns(*asked: str) -> tuple[str, ...]:
    """The names of those that a table shows: always as many, as no more fit a terminal of 80 columns. One that is asked
    for and has no column takes the place of macro F1."""
    shown = [name for name, metric in METRICS.items() if metric.column]
    others = [name for name in asked if name not in shown]
    return tuple(others[0] if others and name == "macro_f1" else name for name in shown)


def searchable() -> tuple[str, ...]:
    """The names of those that many candidates are compared by at once: log loss, and what counts of classes give."""
    return tuple(name for name, metric in METRICS.items() if metric.needs == "counts" or name == "log_loss")


def require_metric(name: str, classes: int | None = None, costs: np.ndarray | None = None) -> Metric:
    """The metric of that name. Raises UserError if there is none, or if it needs more than the `classes` there are, or
    what mistakes cost, float64 (C, C), and `costs` is None."""
    if name not in METRICS:
        raise UserError(f"metric {name!r} is not one of: {', '.join(METRICS)}")
    metric = METRICS[name]
    if classes is not None and classes < metric.fewest_classes:
        raise UserError(
            f"metric {name!r} needs at least {metric.fewest_classes} classes, and there are {classes}: with so few "
            "every row is a hit"
        )
    if metric.needs == "costs" and costs is None:
        raise UserError(f"metric {name!r} needs to know what mistakes cost: --costs FILE")
    return metric

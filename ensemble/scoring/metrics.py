"""The table of metrics. Every list of metrics in ens derives from it: a new one is a function in `counts`, `row_values`
or `ranking`, by what it needs, and a line in that module's METRICS."""

import numpy as np

from ensemble.errors import UserError
from ensemble.scoring import counts, ranking, row_values
from ensemble.scoring.metric import Metric

# Those of a table's columns first, then the others that are always computed.
METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in sorted(
        (*counts.METRICS, *row_values.METRICS, *ranking.METRICS),
        key=lambda metric: (not metric.column, not metric.default),
    )
}
HEADLINE = ("accuracy", "log_loss")  # what sentences name, and tables with room for two columns


def computed(*asked: str) -> tuple[str, ...]:
    """The names of those that are computed always, and of those asked for."""
    return tuple(name for name, metric in METRICS.items() if metric.default or name in asked)


def columns(*asked: str) -> tuple[str, ...]:
    """The names of those that a table shows, as many as fit a terminal of 80 columns. One that is asked for and has no
    column takes the place of macro F1."""
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

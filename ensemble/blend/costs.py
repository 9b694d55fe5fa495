"""What mistakes cost: read from a file, or checked where it is an array."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from ensemble.data.classes import listed, reader
from ensemble.errors import UserError
from ensemble.scoring.metrics import METRICS, require_metric

WANTED = "a file of costs has every class as a row, the true one, and as a column, the predicted one"


def read_costs(path: Path, classes: tuple[str, ...]) -> np.ndarray:
    """What it costs to predict the column's class for an image of the row's, float64 (C, C), in the order of `classes`.

    path: a CSV with class names in its first column and its header. Raises UserError, naming file and class, for a
    class that is missing, unknown or there twice, a cost that is no number, and a mistake that costs less than being
    right.
    """
    from ensemble.data.table.read import number, read_table

    table = read_table(path)
    rows = _places(path, "row", [str(name) for name in table.iloc[:, 0]], classes)
    columns = _places(path, "column", [str(name) for name in table.columns[1:]], classes)
    costs = np.empty((len(classes), len(classes)))
    for true, row in enumerate(rows):
        for predicted, column in enumerate(columns):
            cell = str(table.iloc[row, 1 + column])
            costs[true, predicted] = number(cell)
            if not np.isfinite(costs[true, predicted]):
                where = f"row {classes[true]!r}, column {classes[predicted]!r}"
                raise UserError(f"{path}: {where} is {cell!r}; want a number")
    _refuse_cheap_mistakes(costs, classes, str(path))
    return costs


def checked_costs(costs: ArrayLike | None, metric: str, classes: tuple[str, ...]) -> np.ndarray | None:
    """`costs` as float64 (C, C), rows the true classes and columns the predicted ones; None for a metric without costs.

    Raises UserError for an unknown metric, one that needs costs where there are none, costs that the metric does not
    need, another shape, a cost that is no number, and a mistake that costs less than being right.
    """
    wanted = (
        f"a float array ({len(classes)}, {len(classes)}), a row for each true class, a column for each predicted one"
    )
    is_needed = require_metric(metric, costs=np.empty(0)).needs == "costs"
    if costs is None:
        if is_needed:
            raise UserError(f"metric {metric!r} needs costs: {wanted}")
        return None
    if not is_needed:
        needing = ", ".join(name for name, known in METRICS.items() if known.needs == "costs")
        raise UserError(f"costs go with the metric {needing}, not {metric}")
    try:
        matrix = np.asarray(costs, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(f"costs: not an array of numbers ({error}); want {wanted}") from None
    if matrix.shape != 2 * (len(classes),) or not np.isfinite(matrix).all():
        what = f"an array {matrix.shape}" if matrix.shape != 2 * (len(classes),) else "NaN or infinite numbers"
        raise UserError(f"costs: {what}; want {wanted}")
    _refuse_cheap_mistakes(matrix, classes, "costs")
    return matrix


def _refuse_cheap_mistakes(costs: np.ndarray, classes: tuple[str, ...], source: str) -> None:
    cheap = np.argwhere(costs < costs.diagonal()[:, None])
    if len(cheap):
        true, predicted = cheap[0]
        raise UserError(
            f"{source}: to predict {classes[predicted]!r} for {classes[true]!r} costs {costs[true, predicted]:g}, less "
            f"than to be right ({costs[true, true]:g}); write what mistakes cost, not what they are worth"
        )


def _places(path: Path, what: str, names: Sequence[str], classes: tuple[str, ...]) -> list[int]:
    """Where each class is among the names of the rows or columns."""
    read = reader(classes)
    found: dict[int, int] = {}
    for place, name in enumerate(names):
        label = read(name)
        if label is None:
            raise UserError(f"{path}: the {what} {name!r} is not a class; the classes are: {listed(classes)}")
        if label in found:
            raise UserError(f"{path}: the {what} {classes[label]!r} is there twice")
        found[label] = place
    for label, name in enumerate(classes):
        if label not in found:
            raise UserError(f"{path}: no {what} {name!r}; {WANTED}")
    return [found[label] for label in range(len(classes))]

"""Scores of sets of views for `view_sets.py`, which compares many of them on many sets of rows. Each of these sets of
rows is a union of cells, so that all scores are made of sums over cells, which are computed once."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ensemble.blend.methods.pool import HIGHEST, LOWEST
from ensemble.blend.probabilities import chunks, row_sums
from ensemble.scoring.counts import ClassCounts, added, class_counts
from ensemble.scoring.metrics import METRICS

GRID = 0.05  # between the logs of two inverse temperatures at which losses are computed
FARTHEST = 20  # steps of the grid at once: Newton overshoots where the loss is almost flat

Set = tuple[int, ...]  # view numbers, in rising order


@dataclass(frozen=True)
class SearchData:
    """What a search works on, and what it has computed so far.

    z: float32 (V, N, C), the mean of the members' logits, centred
    labels: int64 (N,)
    folds: int64 (N,)
    clusters: int64 (N,), the cluster of each row
    cells: int64 (N,), 0 to F - 1; every set of rows that is trained on is a union of cells
    rows: int64 (F,), how many rows each cell has
    right: float64 (V, F), over the rows of each cell the sum of the true class's z
    ms: float64 (V,), milliseconds per image that each view costs
    metric: the search's
    base: the number of the base view
    exhaustive: whether all sets are tried
    sums: for a set and a node what `_sums` gives
    counts: for a set the class counts of each cell
    best: for the cells that are trained on the best set of each size
    inverse: for a set and the cells that are trained on the fitted inverse temperature
    """

    z: np.ndarray
    labels: np.ndarray
    folds: np.ndarray
    clusters: np.ndarray
    cells: np.ndarray
    rows: np.ndarray
    right: np.ndarray
    ms: np.ndarray
    metric: str
    base: int
    exhaustive: bool
    sums: dict[tuple[Set, int], np.ndarray] = field(default_factory=dict)
    counts: dict[Set, list[ClassCounts]] = field(default_factory=dict)
    best: dict[tuple[int, ...], list[Set]] = field(default_factory=dict)
    inverse: dict[tuple[Set, tuple[int, ...]], float] = field(default_factory=dict)


def tempered(data: SearchData, chosen: Set, parts: Sequence[int], node: int = 0) -> tuple[float, float, int]:
    """The set's mean log loss on the rows of the cells `parts` at its best temperature T; 1 / T; and the nearest node.
    Targets are smoothed as in `pool_weights`, so that T stays finite where every row is right.

    Sums over cells serve all sets of rows that cross-fitting trains on, but only at inverse temperatures that don't
    depend on the rows: the nodes, exp(GRID * node). From the nearest node a Newton step leads to the optimum, with an
    error of the order of (GRID / 2) cubed, some millionths of a nat.
    """
    cells = list(parts)
    rows = int(data.rows[cells].sum())
    right = float(data.right[list(chosen)][:, cells].sum() / len(chosen)) * rows / (rows + 1)  # smoothed
    low, high = round(np.log(LOWEST) / GRID), round(np.log(HIGHEST) / GRID)  # the optimum lies between these nodes
    while True:
        inverse = float(np.exp(GRID * node))
        total, mean, variance = _sums(data, chosen, node)[cells].sum(axis=0)
        slope = mean - right
        low, high = (node, high) if slope < 0 else (low, node)
        best = float(np.clip(inverse - slope / max(variance, 1e-30), np.exp(GRID * low), np.exp(GRID * high)))
        near = round(np.log(best) / GRID)
        if near == node or high - low < 2:
            break
        node = int(np.clip(near, max(low + 1, node - FARTHEST), min(high - 1, node + FARTHEST)))
    step = best - inverse
    return float(total + mean * step + variance * step**2 / 2 - best * right) / rows, best, node


def _sums(data: SearchData, chosen: Set, node: int) -> np.ndarray:
    """For each cell the sums over its rows, float64 (F, 3): log-sum-exp of the set's logits times the node's inverse
    temperature b, and its first and second derivative by b, the logits' mean and variance under the softmax."""
    if (chosen, node) not in data.sums:
        _, rows, classes = data.z.shape
        inverse, out = np.float32(np.exp(GRID * node)), np.zeros((len(data.rows), 3))
        for part in chunks(rows, classes):
            z = set_mean(data, chosen, part)
            top = z.max(axis=1, keepdims=True)
            p = np.exp((z - top) * inverse)
            total = row_sums(p)
            z -= top  # so that the mean and variance are of small numbers
            p *= z
            first = row_sums(p) / total
            p *= z
            of_rows = np.log(total) + inverse * top[:, 0], first + top[:, 0], row_sums(p) / total - first**2
            cells = data.cells[part]
            out += np.stack([np.bincount(cells, values, minlength=len(out)) for values in of_rows], axis=1)
        data.sums[chosen, node] = out
    return data.sums[chosen, node]


def set_metric(data: SearchData, chosen: Set, parts: Sequence[int]) -> float:
    """The search's metric, one of class counts, on the rows of the cells `parts`."""
    if chosen not in data.counts:
        predicted, classes = set_mean(data, chosen, slice(None)).argmax(axis=1), data.z.shape[2]
        cells = [data.cells == cell for cell in range(len(data.rows))]
        data.counts[chosen] = [class_counts(data.labels[in_cell], predicted[in_cell], classes) for in_cell in cells]
    counts = added([data.counts[chosen][cell] for cell in parts])
    return round(float(METRICS[data.metric].score(counts)), 12)


def set_mean(data: SearchData, chosen: Set, rows: np.ndarray | slice) -> np.ndarray:
    """The set's mean logits of some rows, a new float32 (n, C)."""
    total = data.z[chosen[0], rows].copy()
    for v in chosen[1:]:
        total += data.z[v, rows]
    total /= len(chosen)
    return np.asarray(total)


def set_ms(data: SearchData, chosen: Set) -> float:
    """Milliseconds per image of a set's views."""
    return float(data.ms[list(chosen)].sum())

"""Scores of sets of views for `view_sets.py`, which compares many of them on many sets of rows: from sums over cells of
rows, computed once, of which every set of rows is made."""

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
class Work:
    """z: float32 (V, N, C), the members' mean, centred. labels, folds, units, cells: int64 (N,); each set of rows that
    is trained on is made of whole cells, 0 to F - 1. rows: (F,), of each cell. right: float64 (V, F), sums of the true
    class's z. ms: (V,). The dicts hold what was computed, by set or by the cells trained on."""

    z: np.ndarray
    labels: np.ndarray
    folds: np.ndarray
    units: np.ndarray
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


def tempered(work: Work, chosen: Set, parts: Sequence[int], node: int = 0) -> tuple[float, float, int]:
    """The set's mean log loss on the rows of the cells `parts` at its best temperature, 1 / T, and the node near it.
    Targets are smoothed as in `pool_weights`, which makes them finite where every row is right.

    Sums over the cells serve all the sets of rows that cross-fitting trains on, but only at inverse temperatures that
    don't depend on the rows: the nodes, exp(GRID * node). From the nearest one a Newton step leads to the optimum: what
    is left is of the order of (GRID / 2) cubed, some millionths of a nat.
    """
    own = list(parts)
    rows = int(work.rows[own].sum())
    right = float(work.right[list(chosen)][:, own].sum() / len(chosen)) * rows / (rows + 1)  # smoothed
    low, high = round(np.log(LOWEST) / GRID), round(np.log(HIGHEST) / GRID)  # the optimum lies between these nodes
    while True:
        inverse = float(np.exp(GRID * node))
        total, mean, variance = _sums(work, chosen, node)[own].sum(axis=0)
        slope = mean - right
        low, high = (node, high) if slope < 0 else (low, node)
        best = float(np.clip(inverse - slope / max(variance, 1e-30), np.exp(GRID * low), np.exp(GRID * high)))
        near = round(np.log(best) / GRID)
        if near == node or high - low < 2:
            break
        node = int(np.clip(near, max(low + 1, node - FARTHEST), min(high - 1, node + FARTHEST)))
    step = best - inverse
    return float(total + mean * step + variance * step**2 / 2 - best * right) / rows, best, node


def _sums(work: Work, chosen: Set, node: int) -> np.ndarray:
    """Of each cell the sums over its rows, float64 (F, 3): log-sum-exp of the set's logits times the node's inverse
    temperature b, and its first and second derivative by b, the logits' mean and variance under the softmax."""
    if (chosen, node) not in work.sums:
        _, rows, classes = work.z.shape
        inverse, out = np.float32(np.exp(GRID * node)), np.zeros((len(work.rows), 3))
        for part in chunks(rows, classes):
            z = set_mean(work, chosen, part)
            top = z.max(axis=1, keepdims=True)
            p = np.exp((z - top) * inverse)
            total = row_sums(p)
            z -= top  # the mean and variance then are of small numbers
            p *= z
            first = row_sums(p) / total
            p *= z
            each = np.log(total) + inverse * top[:, 0], first + top[:, 0], row_sums(p) / total - first**2
            cells = work.cells[part]
            out += np.stack([np.bincount(cells, own, minlength=len(out)) for own in each], axis=1)
        work.sums[chosen, node] = out
    return work.sums[chosen, node]


def set_metric(work: Work, chosen: Set, parts: Sequence[int]) -> float:
    """The search's metric, one of class counts, on the rows of the cells `parts`."""
    if chosen not in work.counts:
        predicted, classes = set_mean(work, chosen, slice(None)).argmax(axis=1), work.z.shape[2]
        cells = [work.cells == cell for cell in range(len(work.rows))]
        work.counts[chosen] = [class_counts(work.labels[own], predicted[own], classes) for own in cells]
    counts = added([work.counts[chosen][cell] for cell in parts])
    return round(float(METRICS[work.metric].score(counts)), 12)


def set_mean(work: Work, chosen: Set, rows: np.ndarray | slice) -> np.ndarray:
    """The set's logits of some rows, a new float32 (n, C)."""
    total = work.z[chosen[0], rows].copy()
    for v in chosen[1:]:
        total += work.z[v, rows]
    total /= len(chosen)
    return np.asarray(total)


def set_ms(work: Work, chosen: Set) -> float:
    return float(work.ms[list(chosen)].sum())

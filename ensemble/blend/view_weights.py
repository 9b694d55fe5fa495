"""Weights of a member's views: how much each test-time augmentation counts in the member's own logits.

A member's views are pooled as logits, with weights of 0 or more that sum to 1; the plain average of its views is the
centre. They are fitted as a geometric pool (see `pool.py`), a convex problem, each member by itself, and kept only
where they beat the plain average on held-out folds by more than one standard error. That a fixed set of views may hurt,
and learned weights not: Shanmugam et al., "Better Aggregation in Test-Time Augmentation" (ICCV 2021).
One joint set of weights over all (member, view) pairs was measured and is worse: on the art paintings' 7 members x 2
views, cross-fitted, the joint vote reaches a log loss of .229 and the vote over averaged views .216.
`values` are M arrays float32 (V, N, C), one for each member; V may differ.
"""

from collections.abc import Sequence

import numpy as np

from ensemble.blend.methods.pool import pool_weights, pooled
from ensemble.scoring.cross_fit import simplest, usable_folds
from ensemble.scoring.row_values import row_losses


def fit(
    values: Sequence[np.ndarray], labels: np.ndarray, folds: np.ndarray, clusters: np.ndarray, rows: np.ndarray
) -> list[np.ndarray]:
    """Each member's weights float64 (V,), from the rows `rows` int64 (n,). labels, folds, clusters: int64 (N,)."""
    row_clusters, parts = clusters[rows], usable_folds(folds[rows], clusters[rows])
    return [
        _fit(member[:, rows], labels[rows], parts, row_clusters) if len(member) > 1 else np.ones(1) for member in values
    ]


def even(values: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The plain average's weights."""
    return [np.full(len(member), 1 / len(member)) for member in values]


def apply(weights: Sequence[np.ndarray], values: Sequence[np.ndarray], rows: np.ndarray | slice) -> np.ndarray:
    """The members' logits of `rows`, float32 (M, n, C)."""
    parts = [
        np.einsum("v,vnc->nc", view_weights.astype(np.float32), member[:, rows]) if len(member) > 1 else member[0, rows]
        for view_weights, member in zip(weights, values, strict=True)
    ]
    return np.stack(parts)


def _fit(z: np.ndarray, labels: np.ndarray, folds: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    count = len(z)
    plain, held = np.full(count, 1 / count), np.empty((2, len(labels)))
    for fold in np.unique(folds):
        train, test = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        if not len(train):
            return plain
        mean = z.mean(axis=0, keepdims=True)
        for i, logits in enumerate((mean, z)):
            found = pool_weights(logits[:, train], labels[train])[0]
            held[i, test] = row_losses(labels[test], pooled(found, logits[:, test]))
    if simplest(held, clusters) == 0:
        return plain
    weights = pool_weights(z, labels)[0]
    # No view tells anything on all rows: a few rows in each fold said otherwise by luck.
    return np.asarray(weights / weights.sum()) if weights.any() else plain

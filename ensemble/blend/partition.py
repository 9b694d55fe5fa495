"""The folds of a blend whose runs have folds of their own. Never imports torch.

Runs that divide the rows alike are cross-fitted as one run is. Of others, the finest parts that no fold of any run
reaches across are taken: a fit on all parts but one then has not seen a row that was held out together with one of
those that it is scored on.
"""

import math
from collections.abc import Sequence

import numpy as np

from ensemble.scoring.clusters import joined_clusters


def common_folds(folds: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """The finest parts of N rows that neither a fold of any run nor a cluster reaches across, int64 (N,): the first
    run's folds where the runs divide the rows alike, else numbered by the first of these in each.

    folds: int64 (R, N), those of R runs. clusters: int64 (N,). A run whose rows were all held out together, whose
    networks saw none of them, joins nothing.
    """
    dividing = [of_run for of_run in folds if len(np.unique(of_run)) > 1]
    if not dividing:
        return np.asarray(folds[0])
    if is_same_partition(*dividing):
        return np.asarray(dividing[0])
    parts = np.unique(joined_clusters([*dividing, clusters], folds.shape[1]), return_inverse=True)[1]
    first = [int(dividing[0][parts == part].min()) for part in range(parts.max() + 1)]
    return np.argsort(np.argsort(first))[parts]


def is_same_partition(*folds: np.ndarray) -> bool:
    """Whether all of int64 (N,) divide N rows alike, however their folds are numbered."""
    parts = len(np.unique(np.stack(folds), axis=1).T)
    return all(len(np.unique(of_run)) == parts for of_run in folds)


def fold_sets(folds: np.ndarray, parts: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """Which folds' networks the blend is given together at prediction: int64 (R, S), the fold of each run in each set.

    folds: int64 (R, N). parts: int64 (N,), of `common_folds`. counts: the numbers of folds of the R runs; S is their
    least common multiple, so that each network of a run counts as often as its others. Networks that were trained
    without the same rows come together, which is how the blend was fitted; a run of fewer folds has its networks more
    often.
    """
    size = math.lcm(*counts)
    sets = []
    for of_run, count in zip(folds, counts, strict=True):
        shared = [np.flatnonzero(of_run == fold) for fold in range(count)]
        far = np.iinfo(np.int64).max  # of folds that hold out none of these rows
        keys = [(parts[rows].min(), folds[0][rows].min()) if len(rows) else (far, far) for rows in shared]
        order = sorted(range(count), key=lambda fold: (keys[fold], fold))
        sets.append(np.repeat(order, size // count))
    return np.stack(sets)

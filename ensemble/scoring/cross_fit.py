"""Cross-fitting: predictions of rows that the fit did not see, and the choice among candidates by such predictions.

`clusters`, int64 (N,): the number of each row's group, or of the row where there are no groups. Rows of one cluster are
not independent, and are never divided.
"""

from collections.abc import Callable, Sequence

import numpy as np

from ensemble.errors import UserError


def usable_folds(folds: np.ndarray, clusters: np.ndarray, parts: int = 5, seed: int = 0) -> np.ndarray:
    """`folds` where it has at least two numbers, else clusters dealt at random into `parts` folds: int64 (N,).

    A run with one held-out part has a single fold number; no model saw any of its rows, so they may be divided.
    """
    if len(np.unique(folds)) > 1:
        return folds
    names, where = np.unique(clusters, return_inverse=True)
    return np.asarray((np.random.default_rng(seed).permutation(len(names)) % parts)[where], dtype=np.int64)


def cross_fit(
    fit_apply: Callable[[np.ndarray, np.ndarray], np.ndarray], folds: np.ndarray, clusters: np.ndarray
) -> np.ndarray:
    """What `fit_apply` gives for each fold's rows from a fit on the rows of the other folds, (N, ...).

    fit_apply: called with the row numbers to fit on and those to predict, both int64; gives the predictions of the n
        latter, (n, ...).
    folds: int64 (N,), the fold of each row.

    Raises UserError if there is only one cluster (row or group), which can't be divided.
    """
    folds = usable_folds(folds, clusters)
    if len(np.unique(folds)) < 2:
        raise UserError("a blend is scored on rows it was not fitted on: it needs at least 2 rows (or 2 groups)")
    out: np.ndarray | None = None
    for fold in np.unique(folds):
        test = np.flatnonzero(folds == fold)
        probs = fit_apply(np.flatnonzero(folds != fold), test)
        if out is None:
            out = np.empty((len(folds), *probs.shape[1:]))
        out[test] = probs
    assert out is not None
    return out


def simplest(losses: Sequence[np.ndarray] | np.ndarray, clusters: np.ndarray) -> int:
    """The first candidate within one standard error of the least mean loss; candidates in order of growing freedom.

    losses: for each candidate float (N,), its held-out losses.

    Breiman et al., "Classification and Regression Trees" (1984), with the error of the paired difference.
    """
    best = min(losses, key=lambda of_rows: float(of_rows.mean()))
    differences = [of_rows - best for of_rows in losses]
    return next(i for i, more in enumerate(differences) if more.mean() <= standard_error(more, clusters))


def standard_error(values: np.ndarray, clusters: np.ndarray) -> float:
    """Standard error of the mean of values (N,), whose clusters are independent of each other."""
    sums = np.bincount(np.unique(clusters, return_inverse=True)[1], values - values.mean())
    return float(np.sqrt((sums**2).sum()) / len(values))

"""From members' logits to probabilities: the only place in ens, beside the losses, that takes a softmax.

`z` is float32 (M, N, C): the logits of M members for N rows and C classes.
"""

from collections.abc import Iterator

import numpy as np

from ensemble.scoring.row_values import FLOOR

CHUNK = 1 << 17  # numbers in a chunk of rows: small enough for the processor's cache, large enough for numpy


def softmax(z: np.ndarray) -> np.ndarray:
    """Softmax over the last axis, in z's own float type."""
    out = np.asarray(z - over_classes(np.maximum, z))
    np.exp(out, out=out)
    out /= over_classes(np.add, out)
    return out


def log_softmax(z: np.ndarray) -> np.ndarray:
    """Log of `softmax`, without underflow."""
    out = np.asarray(z - over_classes(np.maximum, z))
    out -= np.log(over_classes(np.add, np.exp(out)))
    return out


def over_classes(ufunc: np.ufunc, z: np.ndarray) -> np.ndarray:
    """The ufunc's reduction over the last axis, which is kept with length 1.

    For few classes by way of the transpose: for 10, numpy takes twelve times as long along rows (1.16 ms and 0.09 ms
    for 10,000 rows).
    """
    if z.shape[-1] > 64:
        return np.asarray(ufunc.reduce(z, axis=-1, keepdims=True))
    columns = np.ascontiguousarray(z.reshape(-1, z.shape[-1]).T)
    return np.asarray(ufunc.reduce(columns, axis=0)).reshape(*z.shape[:-1], 1)


def row_sums(z: np.ndarray) -> np.ndarray:
    """Sum over the last axis as a product, for fits: three times as fast as `over_classes`.

    A sum's last bit then depends on which rows are beside it, so `softmax` does without.
    """
    return np.asarray(z @ np.ones(z.shape[-1], dtype=z.dtype))


def chunks(rows: int, classes: int) -> Iterator[slice]:
    """Slices that cover `rows`, so that what is computed between logits and answer stays small."""
    step = max(1, CHUNK // classes)
    return (slice(start, start + step) for start in range(0, rows, step))


def true_class(z: np.ndarray, labels: np.ndarray, inverse: np.ndarray | None = None) -> np.ndarray:
    """Each member's probability of each row's true class, float64 (N, M), at least 1e-15.

    inverse: (M,), 1 / temperature of each member; 1 where it is not given.
    """
    members, rows, classes = z.shape
    out = np.empty((rows, members))
    for part in chunks(rows, classes):
        true = labels[part]
        for m in range(members):
            scaled = z[m, part] if inverse is None else z[m, part] * np.float32(inverse[m])
            out[part, m] = log_softmax(scaled)[np.arange(len(true)), true]
    return np.maximum(np.exp(out, out=out), FLOOR, out=out)


def mixture(z: np.ndarray, weights: np.ndarray, inverse: np.ndarray | None = None) -> np.ndarray:
    """Weighted arithmetic mean of the members' (tempered) probabilities, float64 (N, C); rows sum to 1.

    weights: (M,) on the simplex; a member of weight 0 costs nothing. inverse: as in `true_class`.
    """
    _, rows, classes = z.shape
    out = np.zeros((rows, classes))
    for part in chunks(rows, classes):
        for m in np.flatnonzero(weights):
            out[part] += weights[m] * softmax(z[m, part] if inverse is None else z[m, part] * np.float32(inverse[m]))
    out /= out.sum(axis=1, keepdims=True)
    return out


def geometric_mean(z: np.ndarray) -> np.ndarray:
    """The plain mean of M members, float64 (N, C): softmax of the mean of their logits.

    A softmax forgets what is added to a row, so this is the normalised geometric mean of their probabilities. It is
    ens's plain mean because it is the combination that belongs to log loss (its loss is the members' mean loss less
    their spread; Wood et al., "A Unified Theory of Diversity in Ensemble Learning", JMLR 2023), because it stays as
    sharp as the members are, where the arithmetic mean is always blunter, and because views are averaged the same way.
    """
    return softmax(z.mean(axis=0, dtype=np.float64))


def biased(bias: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """Probabilities (N, C) times exp(bias), bias (C,), each row divided by its sum."""
    out = probs * np.exp(bias)
    return np.asarray(out / out.sum(axis=1, keepdims=True))

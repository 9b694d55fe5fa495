"""Stronger augmentation for rarer classes: their few images are shown most often, and so have most need of change."""

import numpy as np


def rare_shares(labels: np.ndarray, train_rows: np.ndarray) -> np.ndarray:
    """Each row's chance of the stronger policy, float64 (N,): 1 - n / m where n training rows are of its class and m of
    the largest one, so that the largest class never takes it and one of a twentieth of its size 19 times of 20.

    labels: int64 (N,), of all rows. train_rows: int64 (n,), the training rows.
    """
    counts = np.bincount(labels[train_rows], minlength=labels.max() + 1)
    return np.asarray(1 - counts[labels] / counts.max())

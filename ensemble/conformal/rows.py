"""The rows that sets and abstention are calibrated on."""

from dataclasses import dataclass

import numpy as np


def cluster_weights(clusters: np.ndarray) -> np.ndarray:
    """What each row counts where those of a cluster together count as one, float64 (N,), of clusters int64 (N,)."""
    where, sizes = np.unique(clusters, return_inverse=True, return_counts=True)[1:]
    return np.asarray(1 / sizes[where])


@dataclass(frozen=True)
class HeldOut:
    """Out-of-fold rows of a blend, each with the probabilities of a fit without its fold.

    probabilities: float32 (N, C).
    labels: int64 (N,), numbers of the classes.
    folds: int64 (N,), the fold whose networks never saw the row, 0 or more.
    clusters: int64 (N,), the number of the row's group, or of the row where there are no groups.
    """

    probabilities: np.ndarray
    labels: np.ndarray
    folds: np.ndarray
    clusters: np.ndarray

    @property
    def grouped(self) -> bool:
        """Whether there are groups of several rows."""
        return len(np.unique(self.clusters)) < len(self.clusters)

    def some(self, most: int) -> "HeldOut":
        """Clusters drawn at random, the same ones in every call, with about `most` probabilities (rows x classes) at
        most; itself where it has no more."""
        if self.probabilities.size <= most:
            return self
        names, where = np.unique(self.clusters, return_inverse=True)
        place = np.random.default_rng(0).permutation(len(names))[where]
        rows = np.flatnonzero(place < max(1, len(names) * most // self.probabilities.size))
        return HeldOut(self.probabilities[rows], self.labels[rows], self.folds[rows], self.clusters[rows])

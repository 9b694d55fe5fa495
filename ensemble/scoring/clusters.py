"""The clusters of rows where runs of different groups are compared. Never imports torch."""

from collections.abc import Sequence

import numpy as np


def joined_clusters(groups: Sequence[np.ndarray], rows: int) -> np.ndarray:
    """The number of each row's cluster, int64 (N,): rows that share a group in any of the runs, directly or through
    other rows, are of one cluster, which is resampled whole.

    groups: of each run int64 (N,), the number of each row's group.
    rows: N, how many there are.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if all(np.array_equal(of_run, groups[0]) for of_run in groups):
        return groups[0] if groups else np.arange(rows)
    # Nodes: the rows, then the groups of each run.
    start = np.cumsum([rows, *(int(of_run.max()) + 1 for of_run in groups)])
    ends = np.concatenate([of_run + first for of_run, first in zip(groups, start[:-1], strict=True)])
    edges = np.tile(np.arange(rows), len(groups)), ends
    graph = coo_array((np.ones(len(ends), dtype=np.int8), edges), shape=(start[-1], start[-1]))
    return np.asarray(connected_components(graph, directed=False)[1][:rows], dtype=np.int64)

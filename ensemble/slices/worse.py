"""In which slices more is wrong than elsewhere, with a correction for how many slices were looked at.

Step-down min-p (Westfall and Young, Resampling-based multiple testing, 1993; Ge, Dudoit and Speed, TEST 2003): where no
slice is bad, the chance that any is reported is at most `alpha`, however the slices overlap. What is wrong is dealt out
to the rows anew many times. Where rows come in clusters (groups) each cluster takes what is wrong from another of about
its size, cut or repeated to its own, so that rows which fail together go on doing so; a slice that is itself one
cluster is compared by rows.
A slice's count of wrong rows is judged by the binomial tail at its counts divided by their design effect (Rao and
Scott, Biometrics 1992). This only puts slices of all sizes on one scale: what is rare on it the resampling says.

Never imports torch.
"""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array
from scipy.special import betainc

from ensemble.scoring.wilson import wilson
from ensemble.slices.rules import Candidate

DRAWS = 1999
ALIKE = 20  # clusters that take from each other, at least
CHUNK = 200  # draws at a time


def adjusted_p(
    wrong: np.ndarray, clusters: np.ndarray, candidates: Sequence[Candidate], seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """The adjusted p-value of each candidate, float64 (J,): how often the most extreme of all slices is as extreme by
    chance; and how extreme each is, float32 (J,): the logarithm of its binomial tail.

    wrong: bool (N,), whether each row is predicted wrongly.
    clusters: int64 (N,), the number of each row's cluster.
    """
    if not candidates or not wrong.any() or wrong.all():
        return np.ones(len(candidates)), np.zeros(len(candidates), dtype=np.float32)
    by_rows = np.array([candidate.by_rows for candidate in candidates])
    tails = np.empty((len(candidates), 1 + DRAWS), dtype=np.float32)  # the first is what was seen
    draw = np.random.default_rng(seed)
    for part, of in ((by_rows, np.arange(len(wrong))), (~by_rows, clusters)):
        if part.any():
            slices = [candidates[j].rows for j in np.flatnonzero(part).tolist()]
            counts, total = _drawn_counts(wrong, of, _membership(slices, len(wrong)), draw)
            observed = np.array([[wrong[rows].sum()] for rows in slices])
            shares = np.concatenate([[wrong.sum()], total]) / len(wrong)
            tails[part] = _log_tails(np.concatenate([observed, counts], axis=1), list(map(len, slices)), shares)
    return _step_down(tails[:, 0], tails[:, 1:]), tails[:, 0]


def share_interval(right: np.ndarray, clusters: np.ndarray) -> tuple[float, float, float]:
    """The share of right rows with the ends of its 95% interval, all 0 to 1: Wilson's interval of n divided by the
    design effect of the clusters; for a share of 0 or 1, of as many rows as there are clusters. Rows that are all of
    one cluster count singly.

    right: bool (n,).
    clusters: int64 (n,), the number of each row's cluster.
    """
    share, rows = float(right.mean()), float(len(right))
    _, where = np.unique(clusters, return_inverse=True)
    count = int(where.max()) + 1
    if 1 < count < len(right):
        off = np.bincount(where, right - share)
        plain = rows * share * (1 - share)
        rows = float(count) if plain == 0 else rows / max(1.0, count / (count - 1) * float(off @ off) / plain)
    low, high = wilson(np.array([share * rows]), np.array([rows]))[:, 0]
    return share, float(low), float(high)


def _membership(slices: Sequence[np.ndarray], rows: int) -> "csr_array":
    """Float32 (J, N), 1 where a row lies in a slice."""
    ends = np.cumsum([0, *(len(each) for each in slices)])
    where = np.concatenate(slices)
    return csr_array((np.ones(len(where), dtype=np.float32), where, ends), shape=(len(slices), rows))


def _drawn_counts(
    wrong: np.ndarray, clusters: np.ndarray, members: "csr_array", draw: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """How many rows of each slice, and of all, are wrong in each draw: int32 (J, DRAWS) and (DRAWS,)."""
    _, where, sizes = np.unique(clusters, return_inverse=True, return_counts=True)
    kinds = _kinds(sizes)
    in_order = np.argsort(kinds, kind="stable")
    rows = np.argsort(where, kind="stable")  # those of each cluster stand together
    starts = np.cumsum(sizes) - sizes
    cluster = where[rows]
    offset = np.arange(len(wrong)) - starts[cluster]
    wrong_there = wrong[rows]
    out, total = np.empty((members.shape[0], DRAWS), dtype=np.int32), np.empty(DRAWS, dtype=np.int32)
    for first in range(0, DRAWS, CHUNK):
        drawn = []
        for _ in range(min(CHUNK, DRAWS - first)):
            given = np.empty(len(sizes), dtype=np.int64)  # the cluster whose place each takes
            given[in_order] = np.lexsort((draw.random(len(sizes)), kinds))
            turned = (offset + draw.integers(sizes[given])[cluster]) % sizes[given][cluster]
            drawn.append(rows[wrong_there[starts[given][cluster] + turned]])
        ends = np.cumsum([0, *map(len, drawn)])
        ones = np.ones(ends[-1], dtype=np.float32)
        errors = csr_array((ones, np.concatenate(drawn), ends), shape=(len(drawn), len(wrong)))
        part = slice(first, first + len(drawn))
        out[:, part], total[part] = (members @ errors.T).toarray(), np.diff(ends)
    return out, total


def _kinds(sizes: np.ndarray) -> np.ndarray:
    """For each cluster the number of its kind, int64: clusters of one kind are of about one size, and at least `ALIKE`
    where there are so many."""
    different, counts = np.unique(sizes, return_counts=True)
    kinds = np.zeros(len(different), dtype=np.int64)
    kind = held = 0
    for number, count in enumerate(counts.tolist()):
        left = int(counts[number:].sum())
        if held >= ALIKE and left >= ALIKE:
            kind, held = kind + 1, 0
        kinds[number], held = kind, held + count
    return kinds[np.searchsorted(different, sizes)]


def _log_tails(counts: np.ndarray, sizes: Sequence[int], shares: np.ndarray) -> np.ndarray:
    """log P(X >= k), float32 (J, B), of binomial counts k, int (J, B), in slices of these sizes, where the shares (B,)
    of all rows are wrong; k and the size are divided by the design effect."""
    out = np.zeros(counts.shape, dtype=np.float32)
    mean = float(shares.mean())
    for j, (k, size) in enumerate(zip(counts, sizes, strict=True)):
        effect = float((k[1:] - size * shares[1:]).var()) / (size * mean * (1 - mean))
        if effect > 1e-9:  # else the same in each draw
            some = k > 0
            tails = betainc(k[some] / effect, (size - k[some]) / effect + 1, shares[some])
            out[j, some] = np.log(np.maximum(tails, 1e-300))
    return out


def _step_down(seen: np.ndarray, tails: np.ndarray) -> np.ndarray:
    """Adjusted p-values, float64 (J,), of log tails seen (J,) and drawn (J, B)."""
    order = np.argsort(seen, kind="stable")
    smallest = np.minimum.accumulate(tails[order][::-1], axis=0)[::-1]
    counts = (smallest <= seen[order][:, None] + 1e-5).sum(axis=1)
    out = np.empty(len(seen))
    out[order] = np.maximum.accumulate((1 + counts) / (1 + tails.shape[1]))
    return out

"""One greedy selection by a metric of the predicted classes: the rule of `greedy.py`, made quick.

Adding one member changes the class of few rows. The counts that a metric is made of are kept up to date from those
rows alone, and bounds say which rows they can be. Ties go to the lower log loss, `path_losses`, which selection by log
loss needs alone. `z` is float32 (M, N, C).

Against scoring each trial anew, with the same answers, seconds of CPU for macro F1: 0.33 and not 0.73 (8 members,
20,000 rows, 2 classes; n = 3, within 2%), 0.63 and not 2.1 (12, 20,000, 18; n = 3, within 5%), 6.3 and not 20 (30,
50,000, 100).
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from ensemble.blend.probabilities import chunks
from ensemble.scoring.counts import ClassCounts, class_counts
from ensemble.scoring.metrics import METRICS

KEPT = 1 << 23  # a bag of no more probabilities keeps them (64 MB), a larger one computes each when it is needed
STEP = 1 << 16  # rows: one member's stay in the processor's cache; with 1 << 13, 30 x 50,000 take twice as long
SLACK = 1e-4  # rows that are nearer than this to a change are looked at: far more than the rounding of their bounds

Opened = tuple[Callable[..., np.ndarray], np.ndarray, np.ndarray, np.ndarray]


def path_losses(p: np.ndarray, total: np.ndarray, size: int, weights: np.ndarray | None) -> np.ndarray:
    """Log loss (M,) of (total + each p) / size, from p (M, N) and total (N,).

    One logarithm is taken of the product of 16 sums, of at least 1e-15 each: 30 x 50,000 take 3 ms and not 6 (without
    AVX-512, not 18).
    """
    out = np.zeros(len(p))
    for part in (slice(start, start + STEP) for start in range(0, len(total), STEP)):
        for m in range(len(p)):
            sums = p[m, part] + total[part]
            if weights is None:
                cut = len(sums) // 16 * 16
                out[m] += np.log(np.multiply.reduce(sums[:cut].reshape(16, -1))).sum() + np.log(sums[cut:]).sum()
            else:
                out[m] += weights[part] @ np.log(sums)
    return np.asarray(np.log(size) - out / (len(total) if weights is None else weights.sum()))


def open_members(z: np.ndarray, inverse: np.ndarray | None) -> Opened:
    """A function that gives the softmax of any members, rows and classes without keeping one, and of each member and
    row the class of the largest probability, int32 (N, M), that probability and the second largest, float32 (N, M).
    """
    members, rows, classes = z.shape
    top = np.empty((rows, members), np.int32)
    peak, mass, most, second = (np.empty((rows, members), np.float32) for _ in range(4))
    scale = np.ones(members, np.float32) if inverse is None else inverse.astype(np.float32)
    for part in chunks(rows, classes):
        for m in range(members):
            e = z[m, part] * scale[m]
            every = np.arange(len(e))
            peak[part, m] = e.max(axis=1)
            e -= peak[part, m, None]
            mass[part, m] = np.exp(e, out=e).sum(axis=1)
            e /= mass[part, m, None]
            top[part, m] = best = e.argmax(axis=1)
            most[part, m] = e[every, best]
            e[every, best] = 0
            second[part, m] = e.max(axis=1)

    def look(m: Any, n: np.ndarray, c: Any = slice(None)) -> np.ndarray:
        x = z[m, n, c].T  # (C, K) or (K,)
        x *= scale[m]
        x -= peak[n, m]
        np.exp(x, out=x)
        x /= mass[n, m]
        return np.asarray(x.T)

    return look, top, most, second


class Bag:
    """The sum of probabilities along one selection, and the classes it predicts, on the rows where members differ.

    Rows on which all members have the same largest class keep it under any weights. Of the others few change class
    when one member is added, and fewer the more there are: `lead` (R,) is how far at least the predicted class is
    ahead in the sum, `margin` (R, M) how much at least each member adds to that, and a row with lead + margin > 0
    keeps its class. Most others are decided between two classes: the predicted one and the member's.
    """

    def __init__(
        self, opened: Opened, chosen: np.ndarray, picked: np.ndarray, labels: np.ndarray, seen: np.ndarray, classes: int
    ) -> None:
        look, tops, most, second = opened
        top = tops[np.ix_(picked, chosen)]
        split = (top != top[:, :1]).any(axis=1)
        spots = np.ix_(picked[split], chosen)
        self.top, self.most, self.second = top[split], most[spots], second[spots]
        self.gap = self.most - self.second
        self.labels, self.seen, rows = labels[split], seen[split], picked[split]
        self.predicted = self.top[:, 0].astype(np.int64)
        self.counts = class_counts(labels, top[:, 0], classes, seen)  # of `predicted`
        self.total, self.lead = np.empty((len(rows), classes)), np.empty(len(rows))
        self.margin, self.worst = np.empty(self.top.shape, np.float32), np.empty(len(rows))
        self.look: Callable[..., np.ndarray] = lambda i, j, c=slice(None): look(chosen[i], rows[j], c)
        if self.top.size * classes <= KEPT:
            kept = np.empty((len(chosen), len(rows), classes))
            for i, m in enumerate(chosen):
                kept[i] = look(m, rows)
            self.look = lambda i, j, c=slice(None): kept[i, j, c]

    def start(self, counts: np.ndarray) -> None:
        """Begin anew from the sum of counts[i] of each member i."""
        self.total[:] = 0
        for i in np.flatnonzero(counts):
            self.grow(int(i))
        every, after = np.arange(len(self.total)), self.total.argmax(axis=1)
        self.counts = one_of(self.trials(0 * every, every, after), 0)
        self.predicted = after
        self.judge(every)
        self.lead = np.maximum(self.margin @ counts, 0)

    def grow(self, i: int) -> None:
        for part in chunks(*self.total.shape):
            self.total[part] += self.look(i, part)

    def judge(self, j: np.ndarray) -> None:
        """Bring the bounds of rows j up to their predicted classes."""
        margin = np.where(self.top[j] == self.predicted[j][:, None], self.gap[j], -self.most[j])
        self.margin[j], self.worst[j] = margin, margin.min(axis=1)

    def add(self, i: int, j: np.ndarray, after: np.ndarray) -> None:
        """Add member i, by which rows j go over to the classes `after`."""
        self.grow(i)
        self.lead += self.margin[:, i]
        self.predicted[j], self.lead[j] = after, 0
        self.judge(j)

    def flips(self, only: int | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Members i, rows j and their classes then: where adding a member (`only` that one) changes a row's class."""
        worst = self.worst if only is None else self.margin[:, only]
        j = np.flatnonzero(self.lead + worst < SLACK)
        for part in chunks(len(j), self.total.shape[1]):
            r, every = j[part], np.arange(len(j[part]))
            sums, d = self.total.take(r, axis=0), self.predicted[r]
            held = sums[every, d]
            sums[every, d] = -1
            self.lead[r] = held - np.ascontiguousarray(sums.T).max(axis=0)  # a third of the time of max(axis=1)
        margin = self.margin.take(j, axis=0) if only is None else worst[j, None]
        k, i = np.divmod(np.flatnonzero(margin + self.lead[j][:, None] < SLACK), margin.shape[1])
        j, i = j[k], i if only is None else i + only
        d, t = self.predicted[j], self.top[j, i]
        sums = self.total[j, d]
        mine, rival = sums + self.look(i, j, d), self.total[j, t] + self.most[j, i]
        after = np.where((rival > mine) | ((rival == mine) & (t < d)), t, d)
        third = sums - self.lead[j] + self.second[j, i] + SLACK  # no class but these two has more
        unsure = np.flatnonzero(third > np.maximum(mine, rival))
        for part in chunks(len(unsure), self.total.shape[1]):
            u = unsure[part]
            after[u] = (self.total[j[u]] + self.look(i[u], j[u])).argmax(axis=1)
        moved = np.flatnonzero(after != d)
        return i[moved], j[moved], after[moved]

    def trials(self, i: np.ndarray, j: np.ndarray, after: np.ndarray) -> ClassCounts:
        """The counts with each member added, (M, C): its rows j go over to the classes `after`."""
        members, classes = self.top.shape[1], len(self.counts.true)
        before, y, seen, at = self.predicted[j], self.labels[j], self.seen[j], i * classes
        where = np.concatenate([at + y, at + before + members * classes, at + after + members * classes])
        by = np.concatenate([seen * ((after == y) * 1.0 - (before == y)), -seen, seen])
        right, predicted = np.bincount(where, by, 2 * members * classes).reshape(2, members, classes)
        squares = np.bincount(i, seen * ((after - y) ** 2 - (before - y) ** 2), members)
        now = self.counts
        return ClassCounts(now.right + right, now.predicted + predicted, now.true, now.squares + squares)


def one_of(trials: ClassCounts, m: int) -> ClassCounts:
    return ClassCounts(trials.right[m], trials.predicted[m], trials.true, trials.squares[m])


def select(bag: Bag, p: np.ndarray, seen: np.ndarray, metric: str, rounds: int, sorted_start: bool) -> np.ndarray:
    """Weights (M,) of one selection by a metric of the predicted classes; p (M, N) breaks ties by its log loss."""
    members, rows = bag.top.shape[::-1]
    counts, winner, best = np.zeros(members), np.zeros(members), (-np.inf, 0.0)
    score = METRICS[metric].score

    def losses(which: np.ndarray, size: int) -> np.ndarray:
        return np.round(path_losses(p[which], counts @ p, size, seen), 12)

    def step(size: int, only: int | None = None) -> None:
        """Add the best member, or `only` that one; the loss is worked out where it can matter."""
        nonlocal best, winner
        i, j, after = bag.flips(only)
        trials = bag.trials(i, j, after)
        scores = np.round(score(trials), 12)
        tied = np.flatnonzero(scores == scores.max()) if only is None else np.array([only])
        m, reached, loss = int(tied[0]), float(scores[tied[0]]), np.inf
        if len(tied) > 1 or reached >= best[0]:
            each = losses(tied, size)
            m, loss = int(tied[each.argmin()]), float(each.min())
        bag.counts = one_of(trials, m)
        bag.add(m, j[i == m], after[i == m])
        counts[m] += 1
        if (reached, -loss) > best:
            best, winner = (reached, -loss), counts.copy()

    every = np.arange(members)
    alone = [one_of(bag.trials(np.full(rows, m), np.arange(rows), bag.top[:, m]), m) for m in every]
    scores, each = np.round([score(counted) for counted in alone], 12), losses(every, 1)
    order = np.lexsort((each, -scores))
    counts[order[0]] = 1
    best, winner = (float(scores[order[0]]), -float(each[order[0]])), counts.copy()
    bag.start(counts)
    for size, m in enumerate(order[1 : min(members, rounds) if sorted_start else 1], 2):
        step(size, int(m))
    counts = winner.copy()
    bag.start(counts)
    for size in range(int(counts.sum()) + 1, rounds + 1):
        step(size)
    return np.asarray(winner / winner.sum())

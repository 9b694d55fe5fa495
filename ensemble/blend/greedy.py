"""Greedy selection with replacement, with sorted initialisation and bagging.

Caruana, Niculescu-Mizil, Crew & Ksikes, "Ensemble Selection from Libraries of Models" (ICML 2004). Members are added
one at a time to an average of probabilities, each time the one that makes the metric best; the weights are the counts.
`z` is float32 (M, N, C). The answers are those of the plain rule: what is left out here could not change them.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from ensemble.blend.metrics import from_counts
from ensemble.blend.probabilities import chunks, mixture, true_class

ROUNDS = 50
BAGS = 20
SMALLEST_BAG = 4  # members; half of a small pool would leave the best ones out of many bags
# Rows drawn for a bag. Against bags of all 200,000 rows of 10 members and 10 classes, on new rows, n = 4: log loss
# +.0001 +- .0001, macro F1 .0000 +- .0001, in a fifth of the time; of 40,000 rows of 16 and 100, n = 3: +.0002 +- .0001
# and -.0002 +- .0001. Which members a bag sees matters ten times as much.
BAG_ROWS, CLASS_ROWS = 10_000, 100
KEPT = 1 << 23  # a bag of no more probabilities keeps them (64 MB), a larger one computes each when it is needed
STEP = 1 << 16  # rows: one member's stay in the processor's cache; with 1 << 13, 30 x 50,000 take twice as long
SLACK = 1e-4  # rows that are nearer than this to a change are looked at: far more than the rounding of their bounds

Opened = tuple[Callable[..., np.ndarray], np.ndarray, np.ndarray, np.ndarray]


def fit(
    z: np.ndarray,
    labels: np.ndarray,
    metric: str = "log_loss",
    rounds: int = ROUNDS,
    bags: int = BAGS,
    seed: int = 0,
    sorted_start: bool = True,
    weights: np.ndarray | None = None,
    inverse: np.ndarray | None = None,
) -> dict[str, Any]:
    """Select by `metric` (log_loss, accuracy, balanced_accuracy or macro_f1) on labels int64 (N,).

    Each of `bags` selections sees a random half of the members (at least 4, or all) and rows drawn with replacement,
    as many as there are but no more than 10,000 or 100 a class; the weights are the mean of theirs. With bags = 1 the
    selection sees all members and each row once. A selection starts from the best of the sets of the k best members
    or, unless sorted_start, from the best member; it ends at `rounds` members, and the best set on the way counts.
    Ties in the metric go to the lower log loss, then to the earlier member; for log_loss see `select_log_loss`.
    The same seed gives the same weights.

    weights: (N,), how much each row counts: >= 0, not all 0, what is below 1e-9 of the largest may count as 0.
    inverse: (M,), 1 / temperature of each member. Memory beyond z: for log_loss 24 bytes a member and row (37 MB where
    the 30 x 50,000 x 100 logits are 600 MB); for the others 28, and one bag's sums and up to 64 MB (123 MB there).

    Returns weights float64 (M,) on the simplex, rounds, bags, seed and, if given, inverse as inverse_temperatures.
    """
    members, rows, classes = z.shape
    p = true_class(z, labels, inverse)
    opened = None if metric == "log_loss" else _open(z, inverse)
    # whole numbers, whose sums are exact: a class that loses its last row is left with 0 and not with 1e-17
    units = np.ones(rows) if weights is None else np.rint(np.ldexp(weights, 30 - np.frexp(weights.max())[1]))
    alive = np.flatnonzero(units)
    draw = np.random.default_rng(seed)
    size = members if bags == 1 else max(-(-members // 2), min(members, SMALLEST_BAG))
    most = min(len(alive), max(BAG_ROWS, CLASS_ROWS * classes))
    total = np.zeros(members)
    for chosen in [np.sort(draw.permutation(members)[:size]) for _ in range(bags)]:
        drawn = alive if bags == 1 else alive[draw.integers(len(alive), size=most)]
        if opened is None:
            own = None if weights is None else weights[drawn]
            total[chosen] += select_log_loss(p[np.ix_(drawn, chosen)], rounds, sorted_start, own)
        else:
            seen = np.bincount(drawn, minlength=rows) * units
            picked = np.flatnonzero(seen)
            bag = _Bag(opened, chosen, picked, labels[picked], seen[picked], classes)
            own = np.ascontiguousarray(p[np.ix_(picked, chosen)].T)
            total[chosen] += _select(bag, own, seen[picked], metric, rounds, sorted_start)
    params = {"weights": total / bags, "rounds": rounds, "bags": bags, "seed": seed}
    return params if inverse is None else params | {"inverse_temperatures": inverse}


def apply(params: dict[str, Any], z: np.ndarray) -> np.ndarray:
    """Blended probabilities, float64 (N, C), rows sum to 1."""
    return mixture(z, params["weights"], params.get("inverse_temperatures"))


def select_log_loss(
    p: np.ndarray, rounds: int, sorted_start: bool = True, weights: np.ndarray | None = None
) -> np.ndarray:
    """Weights float64 (M,) on the simplex of one selection by log loss, to which nothing matters but p: float64 (N, M),
    each member's probability of each row's true class, at least 1e-15. weights: (N,), how much each row counts.

    Without sorted_start this is AutoGluon's EnsembleSelection of ensemble_size = rounds (autogluon.core 1.6.3): of
    losses equal to six decimals those of members already taken go first, then the lower one (there, unless
    tie_breaker is "second_metric", a random one), then the earlier member; the first of the best sets counts.
    """
    members = p.shape[1]
    p = np.ascontiguousarray(p.T)  # one member's rows lie together
    total, best_loss, start = np.zeros(p.shape[1]), np.inf, 0
    order = np.argsort(_losses(p, total, 1, weights), kind="stable")
    for size, m in enumerate(order[: min(members, rounds) if sorted_start else 1], 1):
        loss = _losses(p[[m]], total, size, weights)[0]
        total += p[m]
        if loss < best_loss - 1e-12:  # more than rounding, so that a copy of a member adds nothing
            best_loss, start = loss, size
    digits = 6 if best_loss > 1e-4 else 15  # its rule too
    best_loss = np.round(best_loss, digits)
    counts = np.bincount(order[:start], minlength=members).astype(np.float64)
    best, total = counts.copy(), counts @ p
    for size in range(start + 1, rounds + 1):
        losses = _losses(p, total, size, weights)
        rounded = losses.round(digits)
        tied = rounded <= rounded.min() * (1 + 1e-12)
        if (tied & (counts > 0)).any():
            tied &= counts > 0
        m = int(np.where(tied, losses, np.inf).argmin())
        counts[m] += 1
        total += p[m]
        if rounded[m] < best_loss:
            best, best_loss = counts.copy(), rounded[m]
    return np.asarray(best / best.sum())


def _losses(p: np.ndarray, total: np.ndarray, size: int, weights: np.ndarray | None) -> np.ndarray:
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


def _open(z: np.ndarray, inverse: np.ndarray | None) -> Opened:
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


class _Bag:
    """The sum of probabilities along one selection, and the classes it predicts, on the rows where members differ.

    Rows on which all members have the same largest class keep it under any weights. Of the others few change class
    when one member is added, and fewer the more there are: `lead` (R,) is how far at least the predicted class is
    ahead in the sum, `margin` (R, M) how much at least each member adds to that, and a row with lead + margin > 0
    keeps its class. Most others are decided between two classes: the predicted one and the member's own.
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
        self.true = np.bincount(labels, seen, classes)
        right = np.bincount(labels, seen * (top[:, 0] == labels), classes)
        self.predicted = self.top[:, 0].astype(np.int64)
        self.base = np.stack([right, np.bincount(top[:, 0], seen, classes)])[:, None]  # the counts of `predicted`
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
        self.base = self.base + self.change(0 * every, every, after)[:, :1]
        self.predicted = after
        self.judge(every)
        self.lead = np.maximum(self.margin @ counts, 0)

    def grow(self, i: int) -> None:
        for part in chunks(*self.total.shape):
            self.total[part] += self.look(i, part)

    def judge(self, j: np.ndarray) -> None:
        """Bring the bounds of rows j up to their predicted classes."""
        own = np.where(self.top[j] == self.predicted[j][:, None], self.gap[j], -self.most[j])
        self.margin[j], self.worst[j] = own, own.min(axis=1)

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

    def change(self, i: np.ndarray, j: np.ndarray, after: np.ndarray) -> np.ndarray:
        """What each member's rows j, gone over to `after`, change in the counts: right and predicted, (2, M, C)."""
        members, classes = self.top.shape[1], len(self.true)
        before, y, seen, at = self.predicted[j], self.labels[j], self.seen[j], i * classes
        where = np.concatenate([at + y, at + before + members * classes, at + after + members * classes])
        by = np.concatenate([seen * ((after == y) * 1.0 - (before == y)), -seen, seen])
        return np.bincount(where, by, 2 * members * classes).reshape(2, members, classes)


def _select(bag: _Bag, p: np.ndarray, seen: np.ndarray, metric: str, rounds: int, sorted_start: bool) -> np.ndarray:
    """Weights (M,) of one selection by a metric of the predicted classes; p (M, N) breaks ties by its log loss."""
    members, rows = bag.top.shape[::-1]
    counts, winner, best = np.zeros(members), np.zeros(members), (-1.0, 0.0)

    def losses(which: np.ndarray, size: int) -> np.ndarray:
        return np.round(_losses(p[which], counts @ p, size, seen), 12)

    def step(size: int, only: int | None = None) -> None:
        """Add the best member, or `only` that one; the loss is worked out where it can matter."""
        nonlocal best, winner
        i, j, after = bag.flips(only)
        trial = bag.base + bag.change(i, j, after)
        scores = np.round(from_counts(metric, trial[0], trial[1], bag.true), 12)
        tied = np.flatnonzero(scores == scores.max()) if only is None else np.array([only])
        m, score, loss = int(tied[0]), float(scores[tied[0]]), np.inf
        if len(tied) > 1 or score >= best[0]:
            each = losses(tied, size)
            m, loss = int(tied[each.argmin()]), float(each.min())
        bag.base = trial[:, [m]]
        bag.add(m, j[i == m], after[i == m])
        counts[m] += 1
        if (score, -loss) > best:
            best, winner = (score, -loss), counts.copy()

    every = np.arange(members)
    alone = bag.base + sum(bag.change(np.full(rows, m), np.arange(rows), bag.top[:, m]) for m in every)
    scores, each = np.round(from_counts(metric, alone[0], alone[1], bag.true), 12), losses(every, 1)
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

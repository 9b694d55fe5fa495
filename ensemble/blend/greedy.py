"""Greedy selection with replacement, with sorted initialisation and bagging.

Caruana, Niculescu-Mizil, Crew & Ksikes, "Ensemble Selection from Libraries of Models" (ICML 2004). Members are added
one at a time to an average of probabilities, each time the one that makes the metric best; the weights are the counts.
`z` is float32 (M, N, C).
"""

from typing import Any

import numpy as np

from ensemble.blend.metrics import FLOOR, macro_f1_of
from ensemble.blend.probabilities import mixture, softmax, true_class

ROUNDS = 50
BAGS = 20
SMALLEST_BAG = 4  # members; half of a small pool would leave the best ones out of many bags


def fit(
    z: np.ndarray, labels: np.ndarray, metric: str = "log_loss", rounds: int = ROUNDS, bags: int = BAGS, seed: int = 0
) -> dict[str, Any]:
    """Select by `metric` (log_loss, accuracy or macro_f1) on labels int64 (N,).

    Each of `bags` selections sees a random half of the members (at least 4, or all) and rows drawn with replacement;
    the weights are the mean of theirs. With bags = 1 the selection sees all members and each row once. Ties in the
    metric go to the lower log loss, then to the earlier member. The same seed gives the same weights.

    Returns weights float64 (M,) on the simplex, rounds, bags, seed.
    """
    members, rows, _ = z.shape
    p = true_class(z, labels)
    probs = None if metric == "log_loss" else softmax(z)
    draw = np.random.default_rng(seed)
    total = np.zeros(members)
    for _ in range(bags):
        chosen, counts = np.arange(members), np.ones(rows)
        if bags > 1:
            size = max(-(-members // 2), min(members, SMALLEST_BAG))
            chosen = np.sort(draw.permutation(members)[:size])
            counts = np.bincount(draw.integers(rows, size=rows), minlength=rows).astype(np.float64)
        picked = np.flatnonzero(counts)
        own, seen = p[np.ix_(picked, chosen)], counts[picked]
        if probs is None:
            bag = _select_log_loss(own, seen, rounds)
        else:
            bag = _select(probs, chosen, picked, own, labels[picked], seen, metric, rounds)
        total[chosen] += bag / bag.sum()
    return {"weights": total / total.sum(), "rounds": rounds, "bags": bags, "seed": seed}


def apply(params: dict[str, Any], z: np.ndarray) -> np.ndarray:
    """Blended probabilities, float64 (N, C), rows sum to 1."""
    return mixture(z, params["weights"])


def _select_log_loss(p: np.ndarray, seen: np.ndarray, rounds: int) -> np.ndarray:
    """Counts (M,) of one selection by log loss: it depends on nothing but the true-class probabilities p (N, M)."""
    members = p.shape[1]

    def losses(sums: np.ndarray, sizes: np.ndarray | int) -> np.ndarray:
        return np.asarray(-(seen @ np.log(np.maximum(sums / sizes, FLOOR))) / seen.sum())

    order = np.argsort(losses(p, 1), kind="stable")
    prefix = losses(np.cumsum(p[:, order], axis=1), np.arange(1, members + 1))
    start = int(prefix.argmin()) + 1
    counts = np.bincount(order[:start], minlength=members).astype(np.float64)
    best, best_loss, total = counts.copy(), float(prefix[start - 1]), p @ counts
    for size in range(start + 1, rounds + 1):
        loss = losses(total[:, None] + p, size)
        add = int(loss.argmin())
        counts[add] += 1
        total += p[:, add]
        if loss[add] < best_loss - 1e-12:
            best, best_loss = counts.copy(), float(loss[add])
    return best


def _select(
    probs: np.ndarray,
    chosen: np.ndarray,
    picked: np.ndarray,
    p: np.ndarray,
    labels: np.ndarray,
    seen: np.ndarray,
    metric: str,
    rounds: int,
) -> np.ndarray:
    """Counts of one selection by a metric of the predicted classes, over `chosen` members and `picked` rows.

    One member moves a sum of probabilities by at most 1 a class, so a row whose two largest sums are further apart
    than 1 keeps its class whoever is added: only the other rows are looked at.
    """
    members, classes = len(chosen), probs.shape[2]

    def score(predicted: np.ndarray) -> float:
        if metric == "accuracy":
            return float(seen @ (predicted == labels) / seen.sum())
        return macro_f1_of(labels, predicted, classes, seen)

    def rank(predicted: np.ndarray, right: np.ndarray, size: int) -> tuple[float, float]:
        return round(score(predicted), 12), float(seen @ np.log(np.maximum(right / size, FLOOR)))

    singles = [rank(probs[m, picked].argmax(axis=1), p[:, i], 1) for i, m in enumerate(chosen)]
    order = sorted(range(members), key=lambda i: singles[i], reverse=True)
    total, right = np.zeros((len(picked), classes)), np.zeros(len(picked))
    prefix, best, start = np.zeros(members), (-1.0, 0.0), 0
    for size, i in enumerate(order, 1):
        total += probs[chosen[i], picked]
        right += p[:, i]
        now = rank(total.argmax(axis=1), right, size)
        if now > best:
            best, start = now, size
    prefix[order[:start]] = 1
    counts, winner = prefix.copy(), prefix.copy()
    total = mixture_sum(probs, chosen, picked, counts)
    right = p @ counts
    for size in range(start + 1, rounds + 1):
        predicted = total.argmax(axis=1)
        top = np.partition(total, -2, axis=1)
        close = np.flatnonzero(top[:, -1] - top[:, -2] <= 1.001)
        ranks = []
        for i, m in enumerate(chosen):
            trial = predicted.copy()
            trial[close] = (total[close] + probs[m, picked[close]]).argmax(axis=1)
            ranks.append(rank(trial, right + p[:, i], size))
        add = max(range(members), key=lambda i: ranks[i])
        counts[add] += 1
        total += probs[chosen[add], picked]
        right += p[:, add]
        if ranks[add] > best:
            best, winner = ranks[add], counts.copy()
    return winner


def mixture_sum(probs: np.ndarray, chosen: np.ndarray, picked: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Sum of counts[i] * probs[chosen[i]] over the picked rows, float64 (rows, C)."""
    total = np.zeros((len(picked), probs.shape[2]))
    for i in np.flatnonzero(counts):
        total += counts[i] * probs[chosen[i], picked]
    return total

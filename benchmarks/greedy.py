"""Greedy selection's fast path against scoring each trial anew: python benchmarks/greedy.py --metric macro_f1

One selection of 50 members from all members and rows, by a metric of the predicted classes. Runs alternate; their
processor seconds are compared, and the weights must be the same.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable

import numpy as np
from blend import CASES, machine
from synthetic import synthetic

from ensemble.blend.methods import greedy
from ensemble.blend.probabilities import softmax, true_class
from ensemble.scoring.counts import class_counts
from ensemble.scoring.metrics import METRICS


def anew(z: np.ndarray, labels: np.ndarray, metric: str, rounds: int) -> np.ndarray:
    """The weights (M,) of greedy's rule: each trial's classes are those of all rows and its counts are made anew."""
    members, _, classes = z.shape
    probs, p = softmax(z).astype(np.float64), true_class(z, labels)
    score = METRICS[metric].score

    def scored(total: np.ndarray) -> float:
        return round(float(score(class_counts(labels, total.argmax(axis=1), classes))), 12)

    def loss(counts: np.ndarray) -> float:
        return round(float(-np.log(p @ counts / counts.sum()).mean()), 12)

    def rank(counts: np.ndarray, total: np.ndarray) -> tuple[float, float]:
        return scored(total), -loss(counts)

    one = np.eye(members)
    order = sorted(range(members), key=lambda m: rank(one[m], probs[m]), reverse=True)
    starts = [one[order[:size]].sum(axis=0) for size in range(1, members + 1)]
    ranks = [rank(counts, np.tensordot(counts, probs, axes=1)) for counts in starts]
    first = max(range(members), key=lambda k: ranks[k])
    counts, best, winner = starts[first], ranks[first], starts[first]
    total = np.tensordot(counts, probs, axes=1)
    while counts.sum() < rounds:
        scores = np.array([scored(total + probs[m]) for m in range(members)])
        tied = np.flatnonzero(scores == scores.max())
        m = tied[0] if len(tied) == 1 else min(tied, key=lambda m: loss(counts + one[m]))
        counts, total = counts + one[m], total + probs[m]
        reached = float(scores[m]), -loss(counts)
        if reached > best:
            best, winner = reached, counts
    return np.asarray(winner / winner.sum())


def seconds(work: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    """Of the processor, and what was found."""
    start = time.process_time()
    found = work()
    return time.process_time() - start, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", choices=CASES, default="mid")
    parser.add_argument("--metric", choices=[name for name in METRICS if METRICS[name].needs == "counts"])
    parser.add_argument("--repeat", type=int, default=5)
    parser.set_defaults(metric="macro_f1")
    args = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != "1":
        os.environ.update({f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")})
        os.execv(sys.executable, [sys.executable, *sys.argv])  # read when numpy loads: start again
    z, labels, _, _ = synthetic(*CASES[args.case], seed=0, fresh=1)
    search = greedy.Search(bags=1)
    fast: list[float] = []
    slow: list[float] = []
    for _ in range(args.repeat):
        took, weights = seconds(lambda: greedy.fit(z, labels, args.metric, search).weights)
        fast.append(took)
        took, expected = seconds(lambda: anew(z, labels, args.metric, search.rounds))
        slow.append(took)
        if not np.allclose(weights, expected, rtol=0, atol=1e-12):
            sys.exit(f"the weights differ: {weights} and {expected}")
    ratios = np.array(slow) / np.array(fast)
    print(f"`python {' '.join(sys.argv)}`; {machine()}.\n")
    print("| members x rows x classes | fast path, CPU s | each trial anew, CPU s | ratio | n |\n|---|---|---|---|---|")
    cells = [
        f"{np.mean(a):.3g} ± {np.std(a, ddof=1):.2g}" if len(a) > 1 else f"{a[0]:.3g}" for a in (fast, slow, ratios)
    ]
    print(f"| {' x '.join(map(str, CASES[args.case]))} | {' | '.join(cells)} | {args.repeat} |")


if __name__ == "__main__":
    main()

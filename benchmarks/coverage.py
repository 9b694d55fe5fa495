"""Do the intervals that `ens blend` prints hold the truth as often as they say?

Repeats, with members whose distribution is known: draw the rows of a run, blend and score them as `ens blend` does
(cross-fitted score; gain over the plain mean and over the best single member; a 95% interval for each), then score on
many fresh rows the very blend that would be saved, the plain mean and that single member. An interval that says 95%
should hold the fresh figure about 95 times in 100.

    python benchmarks/coverage.py --repetitions 200 --rows 1000
"""

import argparse
import os
import sys
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from synthetic import synthetic

from ensemble.blend import methods
from ensemble.blend.crossfit import fit_rows, held_out
from ensemble.blend.oof import Oof, Rows
from ensemble.blend.probabilities import geometric_mean, softmax
from ensemble.blend.recipe import Recipe
from ensemble.scoring.bootstrap import bootstrap, gain, scores
from ensemble.scoring.metrics import METRICS
from ensemble.scoring.outcomes import outcome, value

SHOWN = ("log_loss", "accuracy", "macro_f1")


def repetition(
    method: str, metric: str, members: int, rows: int, classes: int, seed: int
) -> dict[tuple[str, str], tuple[bool, float]]:
    """(what, metric) -> whether the interval held the fresh figure, and by how much the printed one is too good."""
    z, labels, fresh_z, fresh = synthetic(members, rows, classes, seed, fresh=20_000)
    every = np.arange(rows)
    facts = Rows(every.astype(str), labels, every % 5, every, False, tuple(map(str, range(classes))))
    oof = Oof(facts, tuple(map(str, range(members))), (("identity",),) * members, tuple(z[:, None]), {})
    singles = [outcome(labels, softmax(own)) for own in z]
    outcomes = [held_out(oof, z, Recipe(method, metric))[0], outcome(labels, geometric_mean(z)), *singles]
    drawn = bootstrap(labels, outcomes, every, classes)
    table = scores(labels, outcomes, facts.folds, classes, drawn)
    chain = fit_rows(oof, z, Recipe(method, metric), every)[1]
    ours = outcome(fresh, methods.apply(chain, fresh_z))
    truth = [ours, outcome(fresh, geometric_mean(fresh_z)), *(outcome(fresh, softmax(own)) for own in fresh_z)]

    found = {}
    for target in SHOWN:
        sign = METRICS[target].sign
        true = [sign * value(target, fresh, own, classes) for own in truth]
        own = table[0][target]
        low, high = sorted((sign * own.low, sign * own.high))
        found["score", target] = (low <= true[0] <= high, sign * own.value - true[0])
        best = max(range(members), key=lambda m: sign * table[2 + m][target].value)
        for what, column in (("gain over the mean", 1), ("gain over the best single", 2 + best)):
            shown = gain(target, table, drawn, 0, column, what)
            really = true[0] - true[column]
            found[what, target] = (shown.low <= really <= shown.high, shown.value - really)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--members", type=int, default=6)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--classes", type=int, default=7)
    parser.add_argument("--methods", default="mean,vote,pool,greedy,stack")
    parser.add_argument("--metric", default="log_loss", help="what the blends are for")
    options = parser.parse_args()
    print(f"`python benchmarks/coverage.py {' '.join(sys.argv[1:])}`, numpy {np.__version__}\n")
    print("| method | figure | metric | 95% intervals that held | printed - fresh, mean ± se |")
    print("|---|---|---|---|---|")
    for method in options.methods.split(","):
        start = time.perf_counter()
        runs = [
            repetition(method, options.metric, options.members, options.rows, options.classes, seed)
            for seed in range(options.repetitions)
        ]
        for key in runs[0]:
            held = np.array([run[key][0] for run in runs])
            over = np.array([run[key][1] for run in runs])
            error = over.std(ddof=1) / np.sqrt(len(over))
            print(f"| {method} | {key[0]} | {key[1]} | {held.mean():.3f} | {over.mean():+.4f} ± {error:.4f} |")
        print(f"{method}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

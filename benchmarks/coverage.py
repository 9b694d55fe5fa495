"""Do the intervals that `ens blend` prints hold the truth as often as they say?

Repeats, with members whose distribution is known: draw the rows of a run from a population, blend and score them as
`ens blend` does, then score the very blend that would be saved, the plain mean and each member on the whole population.
An interval that says 95% should hold that figure about 95 times in 100. A population is finite and rows are drawn with
replacement, so the truth is exact, whatever the number of rows.

    python benchmarks/coverage.py --repetitions 500 --rows 1000
    python benchmarks/coverage.py --run runs/art --rows 1000      # the population: a run's out-of-fold rows

The draws of a repetition are its number's, so that several processes may share them: --first 100 --repetitions 100.
--save FILE.json keeps what was found, and --show FILE.json ... prints one table of several files.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from synthetic import synthetic

from ensemble.blend import methods
from ensemble.blend.crossfit import RowsFit, fit_rows, held_out_probabilities, plain_average
from ensemble.blend.gains import scored
from ensemble.blend.oof import Oof, Rows, read_oof
from ensemble.blend.probabilities import geometric_mean, softmax
from ensemble.blend.recipe import Recipe
from ensemble.run import Run
from ensemble.scoring.intervals import SAME
from ensemble.scoring.metrics import METRICS
from ensemble.scoring.outcomes import outcome, value

SHOWN = ("log_loss", "accuracy", "macro_f1")
DRAWS = 20  # repetitions of one set of synthetic members
FIGURES = ("score", "gain over the mean", "gain over the best single", "the mean's score", "a member's score")
Found = dict[str, list[tuple[bool, bool, float]]]  # "method|figure|metric" -> below, above, printed less true


def populations(
    run: Path | None, options: argparse.Namespace
) -> Iterator[tuple[np.random.Generator, np.ndarray, np.ndarray]]:
    """For each repetition what draws its rows, and the population: logits float32 (M, P, C) and labels int64 (P,)."""
    whole = None
    if run is not None:
        oof = read_oof(Run(run))
        whole = plain_average(oof), oof.rows.labels
    for number in range(options.first, options.first + options.repetitions):
        if run is None and (whole is None or number % DRAWS == 0):
            size = max(10_000, 3 * options.rows)
            whole = synthetic(options.members, 1, options.classes, 1000 + number // DRAWS, fresh=size)[2:]
        assert whole is not None
        yield np.random.default_rng([number, options.rows]), *whole


def repetition(
    draw: np.random.Generator, z: np.ndarray, labels: np.ndarray, rows: int, names: list[str], metric: str
) -> Found:
    members, _, classes = z.shape
    taken, every = draw.integers(len(labels), size=rows), np.arange(rows)
    facts = Rows(every.astype(str), labels[taken], every % 5, every, False, tuple(map(str, range(classes))))
    some = np.ascontiguousarray(z[:, taken])
    oof = Oof(facts, tuple(map(str, range(members))), (("identity",),) * members, tuple(some[:, None]), {})
    plain = [geometric_mean(some), *map(softmax, some)]
    plain_true = [geometric_mean(z), *map(softmax, z)]
    found: Found = {}
    for name in names:
        recipe, fits = Recipe(name, metric), list[RowsFit]()
        honest = held_out_probabilities(oof, some, recipe, fits=fits)[:, 0]
        outcomes = [outcome(facts.labels, probs) for probs in (honest, *plain)]
        result = scored(oof, some, recipe, outcomes, fits, None)
        chain = fit_rows(oof, some, recipe, every)[1]
        truth = [outcome(labels, probs) for probs in (methods.apply(chain, z), *plain_true)]
        for target in SHOWN:
            sign = METRICS[target].sign
            true = [sign * value(target, labels, own, classes) for own in truth]

            figures = [f"{name}|score", "any|the mean's score", *["any|a member's score"] * members]
            printed = [
                (figure, *(sign * number for number in (own.value, own.low, own.high)), really)
                for figure, own, really in zip(figures, (each[target] for each in result.table), true, strict=True)
            ]
            best = 2 + int(result.best[target])
            for gained in (each for each in result.gains if each.metric == target):
                column, other = (1, "the mean") if gained.against == "mean" else (best, "the best single")
                figure = f"{name}|gain over {other}"
                printed.append((figure, gained.value, gained.low, gained.high, true[0] - true[column]))
            for figure, shown, *ends, really in printed:
                if figure.startswith("any") and name != names[0]:  # the same for all methods
                    continue
                outside = bool(really < min(ends) - SAME), bool(really > max(ends) + SAME)
                found.setdefault(f"{figure}|{target}", []).append((*outside, shown - really))
    return found


def show(title: str, found: Found) -> None:
    names = list(dict.fromkeys(key.split("|")[0] for key in found))
    print(
        f"\n{title}\n\n| | "
        + " | ".join(f"{figure}, {METRICS[m].title}" for figure in FIGURES[:3] for m in SHOWN)
        + " |"
    )
    print("|---|" + "---|" * (3 * len(SHOWN)))
    for name in (name for name in names if name != "any"):
        print(f"| {name} | " + " | ".join(cell(found[f"{name}|{f}|{m}"]) for f in FIGURES[:3] for m in SHOWN) + " |")
    for figure in FIGURES[3:]:
        print(f"{figure}: " + ", ".join(f"{METRICS[m].title} {cell(found[f'any|{figure}|{m}'])}" for m in SHOWN))


def cell(found: list[tuple[bool, bool, float]]) -> str:
    """The share that held; the mean of printed less true, with its standard error."""
    below, above, over = (np.array(column, dtype=float) for column in zip(*found, strict=True))
    return (
        f"{1 - below.mean() - above.mean():.3f} ({below.mean():.3f}, {above.mean():.3f}); "
        f"{over.mean():+.4f} ± {over.std(ddof=1) / np.sqrt(len(over)):.4f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=500)
    parser.add_argument("--first", type=int, default=0, help="number of the first repetition")
    parser.add_argument("--members", type=int, default=6)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--classes", type=int, default=7)
    parser.add_argument("--methods", default="mean,vote,pool,greedy,stack")
    parser.add_argument("--metric", default="log_loss", help="what the blends are for")
    parser.add_argument("--run", type=Path, help="draw from this run's out-of-fold rows")
    parser.add_argument("--save", type=Path)
    parser.add_argument("--show", type=Path, nargs="+", help="print what these files hold")
    options = parser.parse_args()
    print("In each cell the share that held (truth below, above); the mean of printed - true ± its standard error.")
    every: Found = {}
    start = time.process_time()
    if options.show:
        for path in options.show:
            for key, cells in json.loads(path.read_text()).items():
                every.setdefault(key, []).extend(tuple(each) for each in cells)
    else:
        for draw, z, labels in populations(options.run, options):
            for key, cells in repetition(
                draw, z, labels, options.rows, options.methods.split(","), options.metric
            ).items():
                every.setdefault(key, []).extend(cells)
            if options.save:
                options.save.write_text(json.dumps(every))
    repeated = max(len(cells) for key, cells in every.items() if "|score|" in key)
    show(f"`python benchmarks/coverage.py {' '.join(sys.argv[1:])}`: {repeated} repetitions", every)
    print(f"{time.process_time() - start:.0f} s of one core, numpy {np.__version__}", file=sys.stderr)


if __name__ == "__main__":
    main()

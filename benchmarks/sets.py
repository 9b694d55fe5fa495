"""Do prediction sets hold the true class as often as they say, how large are they, and is the error rate kept of what
is answered? Beside MAPIE and TorchCP on the same probabilities.

Repeats, with members whose distribution is known: draw the rows of a run, blend and cross-fit them as `ens blend` does,
calibrate as `ens tta-predict --sets` does, and count on fresh rows. In a second setting the networks of the folds
differ, as they do in a run. `--run` resamples a run's out-of-fold logits instead: half of the rows are the run, the
others are fresh.

    python benchmarks/sets.py coverage --repetitions 200 --rows 1000 --methods mean,vote
    python benchmarks/sets.py coverage --repetitions 200 --run runs/art
    python benchmarks/sets.py peers --run runs/art               (pip install mapie torchcp)
"""

import argparse
import importlib.util
import os
import sys
import time
import types
import warnings

os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from synthetic import synthetic

from ensemble.blend import methods
from ensemble.blend.crossfit import fit_rows, held_out_probabilities, plain_average
from ensemble.blend.oof import Oof, Rows, read_oof
from ensemble.blend.recipe import Recipe
from ensemble.conformal.calibrate import calibrate, prediction_sets, with_most_probable
from ensemble.conformal.choose import choose
from ensemble.conformal.rows import HeldOut
from ensemble.conformal.scores import CANDIDATES, ConformityScore, scores_of
from ensemble.conformal.selective import abstention
from ensemble.run import Run

FOLDS = 5
FRESH = 4000
SCORES = {"threshold": CANDIDATES[0], "APS": CANDIDATES[1], "RAPS": ConformityScore("RAPS", 0.1, 1)}
LEAST = 50  # rows of a class that is looked at by itself


@dataclass(frozen=True)
class Draw:
    """Rows of a run, held_out as its blend keeps them, and fresh rows: their labels, and their probabilities from the
    networks of each fold."""

    held_out: HeldOut
    labels: np.ndarray
    of_folds: list[np.ndarray]


def drawn(method: str, rows: int, members: int, classes: int, common: float, seed: int) -> Draw:
    folds = 1 if common == 1 else FOLDS
    z, labels, fresh_z, fresh = synthetic(members, rows, classes, seed, FRESH, folds, common)
    return blended(method, z, labels, fresh_z.reshape(folds, members, FRESH, classes), fresh)


def resampled(method: str, z: np.ndarray, labels: np.ndarray, seed: int) -> Draw:
    order = np.random.default_rng(seed).permutation(len(labels))
    rows, fresh = order[: len(order) // 2], order[len(order) // 2 :]
    return blended(method, z[:, rows], labels[rows], z[None, :, fresh], labels[fresh])


def blended(method: str, z: np.ndarray, labels: np.ndarray, fresh_z: np.ndarray, fresh: np.ndarray) -> Draw:
    """fresh_z: (1 or K, M, N, C)."""
    every = np.arange(len(labels))
    members, _, classes = z.shape
    rows = Rows(every.astype(str), labels, every % FOLDS, every, False, tuple(map(str, range(classes))))
    oof = Oof(rows, tuple(map(str, range(members))), (("identity",),) * members, tuple(z[:, None]), {})
    probabilities = held_out_probabilities(oof, z, Recipe(method))[:, 0]
    chain = fit_rows(oof, z, Recipe(method), every)[1]
    of_folds = [methods.apply(chain, of_fold) for of_fold in fresh_z]
    held_out = HeldOut(probabilities.astype(np.float32), labels, rows.folds, every)
    return Draw(held_out, fresh, of_folds * (FOLDS // len(of_folds)))


def draws(options: argparse.Namespace, method: str) -> Iterator[Draw]:
    if options.run is None:
        for seed in range(options.repetitions):
            yield drawn(method, options.rows, options.members, options.classes, options.common, seed)
        return
    oof = read_oof(Run(options.run))
    z = plain_average(oof)
    for seed in range(options.repetitions):
        yield resampled(method, z, oof.rows.labels, seed)


def counted(draw: Draw, level: float, by: str | None, score: ConformityScore) -> dict[str, float]:
    raw = prediction_sets(calibrate(draw.held_out, score, level, by, FOLDS), draw.of_folds)
    written = with_most_probable(raw, np.mean(draw.of_folds, axis=0))
    hits = {name: sets[np.arange(len(sets)), draw.labels] for name, sets in (("raw", raw), ("written", written))}
    enough = np.flatnonzero(np.bincount(draw.held_out.labels, minlength=raw.shape[1]) >= LEAST)
    found = {f"class {c}": hits["raw"][draw.labels == c].mean() for c in enough if (draw.labels == c).any()}
    return found | {
        "raw": hits["raw"].mean(), "raw size": raw.sum(axis=1).mean(), "written": hits["written"].mean(),
        "written size": written.sum(axis=1).mean(),
    }  # fmt: skip


def coverage(options: argparse.Namespace) -> None:
    """Sets by each score, by the chosen one, and by class; and what is answered with --abstain."""
    print("| method | sets | coverage % ± se | size | as written % | size | least of the classes % |")
    print("|---|---|---|---|---|---|---|")
    for method in options.methods.split(","):
        start = time.perf_counter()
        found: dict[str, list[dict[str, float]]] = defaultdict(list)
        errors, shares, chosen = [], [], defaultdict(int)
        for draw in draws(options, method):
            for by in (None, "class"):
                score = choose(draw.held_out, options.level, by).score
                chosen[score.kind] += by is None
                found[f"chosen{' by class' if by else ''}"].append(counted(draw, options.level, by, score))
            for name, score in SCORES.items():
                found[name].append(counted(draw, options.level, None, score))
            confidence, right = draw.held_out.probabilities.max(axis=1), draw.held_out.probabilities.argmax(axis=1)
            rate = options.abstain
            answers = abstention(confidence, right != draw.held_out.labels, draw.held_out.clusters, rate)
            mean = np.mean(draw.of_folds, axis=0)
            answered = np.zeros(len(mean), dtype=bool) if answers is None else mean.max(axis=1) >= answers.threshold
            shares.append(answered.mean())
            errors.append((mean.argmax(axis=1) != draw.labels)[answered].mean() if answered.any() else 0.0)
        for name, runs in found.items():
            keys = {key for each in runs for key in each}
            mean_of = {key: np.mean([each[key] for each in runs if key in each]) for key in keys}
            least = min((mean_of[key] for key in keys if key.startswith("class ")), default=float("nan"))
            error = np.std([each["raw"] for each in runs], ddof=1) / np.sqrt(len(runs))
            cells = f"{100 * mean_of['raw']:.1f} ± {100 * error:.1f} | {mean_of['raw size']:.3f} | "
            cells += f"{100 * mean_of['written']:.1f} | {mean_of['written size']:.3f} | {100 * least:.1f}"
            print(f"| {method} | {name} | {cells} |", flush=True)
        over = np.mean([error > options.abstain for error in errors])
        print(
            f"\n{method}: chosen {dict(chosen)}; --abstain {options.abstain}: {np.mean(shares):.1%} answered, "
            f"{np.mean(errors):.2%} of them wrongly, more than asked in {over:.1%} of the repetitions; "
            f"{time.perf_counter() - start:.0f} s\n"
        )


def peers(options: argparse.Namespace) -> None:
    """MAPIE and TorchCP on the same probabilities; all calibrate on the cross-fitted ones, of one network per row."""
    method, levels = options.methods.split(",")[0], (0.9, 0.95, 0.99)
    found: dict[tuple[str, float], list[tuple[float, float, float]]] = defaultdict(list)
    for draw in draws(options, method):
        fresh = np.mean(draw.of_folds, axis=0)
        for level in levels:
            score = choose(draw.held_out, level, None).score
            made = {"ens": prediction_sets(calibrate(draw.held_out, score, level, None, FOLDS), draw.of_folds)}
            made["ens, APS drawn at random"] = _drawn_aps(draw, fresh, level)
            made |= _mapie(draw.held_out, fresh, level) | _torchcp(draw.held_out, fresh, level)
            for name, sets in made.items():
                hit = sets[np.arange(len(sets)), draw.labels].mean()
                found[name, level].append((hit, sets.sum(axis=1).mean(), (~sets.any(axis=1)).mean()))
    print("| | " + " | ".join(f"{level}: coverage %, size (empty %)" for level in levels) + " |")
    print("|---" * (len(levels) + 1) + "|")
    for name in dict.fromkeys(name for name, _ in found):
        cells = []
        for level in levels:
            hit, size, empty = np.mean(found[name, level], axis=0) if (name, level) in found else (np.nan,) * 3
            cells.append("too few rows" if np.isnan(hit) else f"{100 * hit:.1f}, {size:.3f} ({100 * empty:.1f})")
        print(f"| {name} | {' | '.join(cells)} |")


def _drawn_aps(draw: Draw, fresh: np.ndarray, level: float) -> np.ndarray:
    """The paper's APS, whose scores count a random share of the class's own probability."""
    chance, rows = np.random.default_rng(0), draw.held_out
    scores = scores_of([SCORES["APS"]], rows.probabilities, chance.uniform(size=(len(rows.labels), 1)))[0]
    true = np.sort(scores[np.arange(len(scores)), rows.labels])
    at_most = true[min(int(np.ceil(level * (len(true) + 1))), len(true)) - 1]
    return scores_of([SCORES["APS"]], fresh, chance.uniform(size=(len(fresh), 1)))[0] <= at_most


def _mapie(rows: HeldOut, fresh: np.ndarray, level: float) -> dict[str, np.ndarray]:
    from mapie.classification import SplitConformalClassifier
    from sklearn.base import BaseEstimator, ClassifierMixin

    class Given(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
        def fit(self, x: np.ndarray, y: np.ndarray) -> "Given":
            return self

        def predict_proba(self, x: np.ndarray) -> np.ndarray:
            return x / x.sum(axis=1, keepdims=True)

        def predict(self, x: np.ndarray) -> np.ndarray:
            return np.asarray(x.argmax(axis=1))

    given = Given()
    given.classes_, given.n_features_in_ = np.arange(fresh.shape[1]), fresh.shape[1]
    found = {}
    for score, last in (("lac", True), ("aps", True), ("aps", "randomized"), ("raps", True)):
        made = SplitConformalClassifier(given, level, score, prefit=True, random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                made.conformalize(rows.probabilities.astype(np.float64), rows.labels)
                sets = made.predict_set(fresh, {"include_last_label": last})[1]
            except ValueError:  # raps sets rows aside, and refuses too few
                continue
        found[f"MAPIE {score}{', randomised' if last == 'randomized' else ''}"] = sets[:, :, 0]
    return found


def _torchcp(rows: HeldOut, fresh: np.ndarray, level: float) -> dict[str, np.ndarray]:
    import torch

    _without_the_rest_of_torchcp()
    from torchcp.classification.predictor.split import SplitPredictor
    from torchcp.classification.score.aps import APS
    from torchcp.classification.score.lac import LAC
    from torchcp.classification.score.raps import RAPS

    torch.manual_seed(0)
    known, new = (torch.from_numpy(np.log(np.maximum(each, 1e-30))).double() for each in (rows.probabilities, fresh))
    found = {}
    for name, score in (
        ("LAC", LAC()), ("APS", APS(randomized=False)), ("APS, randomised", APS()), ("RAPS", RAPS(penalty=0.1, kreg=1)),
    ):  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            predictor = SplitPredictor(score, alpha=1 - level)
            predictor.calculate_threshold(known, torch.from_numpy(rows.labels))
            found[f"TorchCP {name}"] = predictor.predict_with_logits(new).numpy().astype(bool)
    return found


def _without_the_rest_of_torchcp() -> None:
    """Let its scores be imported without its parts for graphs and language models, and what these need."""
    if "torchcp" in sys.modules:
        return
    folder = Path(importlib.util.find_spec("torchcp").submodule_search_locations[0])  # type: ignore[union-attr,index]
    for name in ("", "classification", "classification/predictor", "classification/score"):
        package = types.ModuleType(".".join(filter(None, ["torchcp", *name.split("/")])))
        package.__path__ = [str(folder / name)]
        sys.modules[package.__name__] = package


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["coverage", "peers"])
    parser.add_argument("--repetitions", type=int, default=100)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--members", type=int, default=6)
    parser.add_argument("--classes", type=int, default=7)
    parser.add_argument("--methods", default="mean")
    parser.add_argument("--level", type=float, default=0.9)
    parser.add_argument("--abstain", type=float, default=0.05)
    parser.add_argument("--common", type=float, default=1.0, help="of a member's noise, what its folds share")
    parser.add_argument("--run", type=Path, help="resample this run's out-of-fold logits")
    options = parser.parse_args()
    print(f"`python benchmarks/sets.py {' '.join(sys.argv[1:])}`, numpy {np.__version__}\n")
    {"coverage": coverage, "peers": peers}[options.what](options)


if __name__ == "__main__":
    main()

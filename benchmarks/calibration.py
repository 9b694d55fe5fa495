"""Does more than one temperature pay? python benchmarks/calibration.py RUN...

Of each run a blend is calibrated by its temperature alone, by vector scaling, by a Dirichlet map and by the choice
between them ("auto"): the plain mean, or each of --methods; the first one beside scikit-learn's calibrators, which are
fitted on the very same log-probabilities. Log loss and class-wise calibration error are of rows that neither the blend
nor its calibration was fitted on; differences from the temperature are paired, over the run's rows or groups.

Then of --draws skewed draws of each run's rows: the classes' sizes fall in a geometric series to a twentieth, in random
order. The networks were trained on the classes' shares of the run, so that their mean is wrong about those of a draw.
Differences have t intervals over the draws.
"""

import argparse
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import stats
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.exceptions import ConvergenceWarning
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegressionCV

from ensemble.blend import methods
from ensemble.blend.crossfit import held_out_probabilities, plain_average
from ensemble.blend.oof import Oof, Rows, read_oof
from ensemble.blend.recipe import Recipe
from ensemble.run import Run
from ensemble.scoring.bootstrap import bootstrap
from ensemble.scoring.cross_fit import cross_fit
from ensemble.scoring.miscalibration import by_class
from ensemble.scoring.outcomes import outcome

BASE = "temperature"
OURS = (BASE, "vector", "dirichlet", "auto")
RATIO = 20

Fit = Callable[[np.ndarray, np.ndarray], Callable[[np.ndarray], np.ndarray]]  # (x, labels) -> x -> probabilities


class Given(ClassifierMixin, BaseEstimator):
    """A classifier for scikit-learn whose probabilities are known: exp of what it is given."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.classes_ = np.arange(classes)

    def fit(self, x: np.ndarray, labels: np.ndarray) -> "Given":
        return self

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(np.exp(x))

    def predict(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(x.argmax(axis=1))


def calibrated(method: str) -> Fit:
    def fit(x: np.ndarray, labels: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        given = FrozenEstimator(Given(x.shape[1]))
        return CalibratedClassifierCV(given, method=method).fit(x, labels).predict_proba

    return fit


def regression(x: np.ndarray, labels: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", FutureWarning)
        found = LogisticRegressionCV(Cs=np.logspace(-4, 2, 7), scoring="neg_log_loss", max_iter=200, cv=4)
        return found.fit(x, labels).predict_proba


PEERS: dict[str, Fit] = {
    "scikit-learn, temperature": calibrated("temperature"),
    "scikit-learn, sigmoid": calibrated("sigmoid"),
    "scikit-learn, isotonic": calibrated("isotonic"),
    "scikit-learn, LogisticRegressionCV on log p": regression,
}


def by_peer(oof: Oof, recipe: Recipe, fit: Fit) -> np.ndarray:
    """Cross-fitted as `held_out_probabilities`, with a peer in the place of the scaling."""
    z, rows = plain_average(oof), oof.rows

    def fitted(where: np.ndarray) -> methods.Chain:
        return methods.fit(recipe, z[:, where], rows.labels[where], rows.folds[where], rows.clusters[where])

    def outer(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        def inner(some: np.ndarray, others: np.ndarray) -> np.ndarray:
            return methods.log_probabilities(fitted(train[some]), z[:, train[others]])

        x = cross_fit(inner, rows.folds[train], rows.clusters[train])
        log_probs = methods.log_probabilities(fitted(train), z[:, test]).astype(np.float64)
        return fit(x, rows.labels[train])(log_probs)

    return cross_fit(outer, rows.folds, rows.clusters)


def systems(oof: Oof, method: str, peers: bool) -> dict[str, np.ndarray]:
    """Name -> cross-fitted probabilities (N, C)."""
    z = plain_average(oof)
    found = {name: held_out_probabilities(oof, z, Recipe(method, calibration=name))[:, 0] for name in OURS}
    if peers:
        found |= {name: by_peer(oof, Recipe(method), fit) for name, fit in PEERS.items()}
    return found


def some_rows(oof: Oof, where: np.ndarray) -> Oof:
    rows = oof.rows
    kept = Rows(
        rows.ids[where], rows.labels[where], rows.folds[where], rows.clusters[where], rows.grouped, rows.classes
    )
    return replace(oof, rows=kept, values=tuple(logits[:, where] for logits in oof.values))


def skewed(oof: Oof, seed: int) -> Oof:
    draw, classes = np.random.default_rng(seed), oof.classes
    counts = np.bincount(oof.rows.labels, minlength=classes)
    sizes = counts.min() * RATIO ** (-draw.permutation(classes) / (classes - 1))
    kept = [draw.permutation(np.flatnonzero(oof.rows.labels == c))[: max(5, round(sizes[c]))] for c in range(classes)]
    return some_rows(oof, np.sort(np.concatenate(kept)))


def show(title: str, found: dict[str, np.ndarray], oof: Oof) -> None:
    rows, labels = oof.rows, oof.rows.labels
    outcomes = [outcome(labels, probs) for probs in found.values()]
    drawn = bootstrap(labels, outcomes, rows.clusters, oof.classes)["log_loss"]
    print(f"\n{title}: {len(labels)} rows\n")
    print("| | log loss | gained over the temperature [95%] | error by class %, by chance up to | p |")
    print("|---|---|---|---|---|")
    for number, (name, probs) in enumerate(found.items()):
        losses, by = outcomes[number].losses, by_class(labels, probs, rows.clusters)
        gained = float((outcomes[0].losses - losses).mean())
        low, high = np.quantile(drawn[:, 0] - drawn[:, number], [0.025, 0.975])
        cell = "" if name == BASE else f"{gained:+.4f} [{low:+.4f}, {high:+.4f}]"
        print(f"| {name} | {losses.mean():.4f} | {cell} | {100 * by.error:.2f}, {100 * by.chance:.2f} | {by.p:.3f} |")


def show_draws(title: str, found: list[tuple[Oof, dict[str, np.ndarray]]]) -> None:
    print(f"\n{title}\n")
    print("| | log loss, mean over draws | gained over the temperature [95%] | draws with p < 0.05 by class |")
    print("|---|---|---|---|")
    for name in OURS:
        losses, doubted = [], 0
        for oof, of_draw in found:
            labels = oof.rows.labels
            losses.append([outcome(labels, of_draw[each]).losses.mean() for each in (BASE, name)])
            doubted += by_class(labels, of_draw[name], oof.rows.clusters).p < 0.05
        base, values = np.array(losses).T
        gained = base - values
        half = stats.t.ppf(0.975, len(gained) - 1) * gained.std(ddof=1) / np.sqrt(len(gained))
        cell = (
            "" if name == BASE else f"{gained.mean():+.4f} [{gained.mean() - half:+.4f}, {gained.mean() + half:+.4f}]"
        )
        print(f"| {name} | {values.mean():.4f} | {cell} | {doubted} of {len(found)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--methods", default="mean")
    parser.add_argument("--draws", type=int, default=10)
    given = parser.parse_args()
    for path in given.runs:
        oof = read_oof(Run(path))
        for number, method in enumerate(given.methods.split(",")):
            show(f"{path.name}, {method}", systems(oof, method, peers=number == 0), oof)
        draws = [skewed(oof, seed) for seed in range(given.draws)]
        if draws:
            sizes = np.mean([len(draw.rows.labels) for draw in draws])
            found = [(draw, systems(draw, "mean", peers=False)) for draw in draws]
            show_draws(f"{path.name}, mean, {given.draws} skewed draws of {sizes:.0f} rows on average", found)


if __name__ == "__main__":
    main()

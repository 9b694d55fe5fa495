"""Is what ens expects of the average of K networks what labels show?

    python benchmarks/averaging.py                       # classifiers of scikit-learn on parts of its digits
    python benchmarks/averaging.py RUN KEPT.csv IMAGES   # a run's networks on labelled images that it was not given

Each time K classifiers are trained without one fold each, on a part of the digits; one temperature is fitted on the
out-of-fold rows. Then the gain of the average over a single classifier is expected from 350 of the other rows without
their labels, and computed with the labels of all the others. Last, the share of the 95% intervals of the expected
accuracy and log loss that held those of the average. RUN: its members one by one, and their plain mean.
"""

import os
import sys
import time
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from ensemble.blend.averaging import Averaged, AveragingGain, averaged, gain_of_answers, in_words
from ensemble.blend.methods.pool import inverse_temperature
from ensemble.blend.probabilities import softmax
from ensemble.scoring.bootstrap import bootstrap, scores
from ensemble.scoring.outcomes import outcome
from ensemble.scoring.row_values import row_losses

UNLABELLED, FOLDS = 350, 5
CASES = (
    ("mlp", 200, 20), ("mlp", 800, 10), ("logistic", 200, 20), ("forest", 300, 20), ("tree", 300, 20), ("knn", 300, 20),
)  # fmt: skip


def expected(oof: np.ndarray, labels: np.ndarray, test: np.ndarray) -> tuple[AveragingGain, Averaged, np.ndarray]:
    """oof: logits (N, C). test: those of K networks, (K, n, C), of which the first UNLABELLED are looked at. Third of
    the results: their answers, (K, n, C)."""
    inverse = inverse_temperature(oof.astype(np.float32), labels)
    answers, alone = softmax(test * inverse), outcome(labels, softmax(oof * inverse))
    some = answers[:, :UNLABELLED]
    gain = gain_of_answers(some, some.mean(axis=0).argmax(axis=1), some.argmax(axis=2))
    drawn = bootstrap(labels, [alone], np.arange(len(labels)), oof.shape[1])
    table = scores(labels, [alone], np.zeros(len(labels), dtype=int), oof.shape[1], drawn)[0]
    return gain, averaged(gain, table), answers


def shown(answers: np.ndarray, labels: np.ndarray) -> dict[str, tuple[float, float]]:
    """metric -> of the average, and what it gains over a single network, by the labels."""
    mean, every = answers.mean(axis=0), [row_losses(labels, each).mean() for each in answers]
    accuracy, loss = (mean.argmax(axis=1) == labels).mean(), row_losses(labels, mean).mean()
    alone = (answers.argmax(axis=2) == labels).mean()
    return {
        "accuracy": (float(accuracy), float(accuracy - alone)),
        "log_loss": (float(loss), float(np.mean(every) - loss)),
    }


def classifier(kind: str, seed: int):  # type: ignore[no-untyped-def]
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.neural_network import MLPClassifier
    from sklearn.tree import DecisionTreeClassifier

    return {
        "mlp": MLPClassifier((32,), max_iter=60, learning_rate_init=5e-3, random_state=seed),
        "logistic": LogisticRegression(max_iter=100),
        "forest": RandomForestClassifier(10, random_state=seed),
        "tree": DecisionTreeClassifier(min_samples_leaf=5, random_state=seed),
        "knn": KNeighborsClassifier(5),
    }[kind]


def digits(kind: str, rows: int, repetition: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Out-of-fold logits and labels; K logits and labels of the rows that were kept."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import StratifiedKFold

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(repetition).permutation(len(y))
    train, kept = order[:rows], order[rows:]
    parts = StratifiedKFold(FOLDS, shuffle=True, random_state=repetition).split(x[train], y[train])
    oof, test = np.empty((rows, 10)), np.empty((FOLDS, len(kept), 10))
    for fold, (others, held) in enumerate(parts):
        fitted = classifier(kind, FOLDS * repetition + fold).fit(x[train[others]] / 16, y[train[others]])
        oof[held], test[fold] = (_logits(fitted, x[where] / 16) for where in (train[held], kept))
    return oof, y[train], test, y[kept]


def _logits(fitted, x: np.ndarray) -> np.ndarray:  # type: ignore[no-untyped-def]
    probs = np.full((len(x), 10), 1e-3)  # a class without a row among those trained on has a column too
    probs[:, fitted.classes_] += fitted.predict_proba(x)
    return np.asarray(np.log(probs / probs.sum(axis=1, keepdims=True)))


def study() -> None:
    warnings.filterwarnings("ignore")
    print(
        "| classifier, rows | out of fold % | accuracy gained by labels | expected | log loss gained by labels "
        "| expected |"
    )
    print("|---|---|---|---|---|---|")
    held: dict[str, list[bool]] = {"accuracy": [], "log_loss": []}
    held_alone: dict[str, list[bool]] = {"accuracy": [], "log_loss": []}
    for kind, rows, repetitions in CASES:
        found = []
        for repetition in range(repetitions):
            oof, labels, test, kept = digits(kind, rows, repetition)
            gain, average, answers = expected(oof, labels, test)
            true = shown(answers, kept)
            for metric, of_metric in held.items():
                _, low, high = average.scores[metric]
                of_metric.append(low <= true[metric][0] <= high)
                _, low, high = average.out_of_fold[metric]
                alone = true[metric][0] - (1 if metric == "accuracy" else -1) * true[metric][1]
                held_alone[metric].append(low <= alone <= high)
            printed = 100 * average.out_of_fold["accuracy"][0]
            found.append((printed, 100 * true["accuracy"][1], 100 * gain.accuracy, true["log_loss"][1], gain.log_loss))
        mean, spread = np.mean(found, axis=0), np.std(found, axis=0, ddof=1) / np.sqrt(len(found))
        cells = [f"{m:+.2f} ± {s:.2f}" for m, s in zip(mean[1:3], spread[1:3], strict=True)]
        cells += [f"{m:+.4f} ± {s:.4f}" for m, s in zip(mean[3:], spread[3:], strict=True)]
        print(f"| {kind}, {rows} | {mean[0]:.1f} | " + " | ".join(cells) + " |", flush=True)
    for metric, of_metric in held.items():
        print(
            f"{metric}: of {len(of_metric)} intervals at 95%, {np.mean(of_metric):.3f} held that of the average, and "
            f"of the out-of-fold ones {np.mean(held_alone[metric]):.3f} that of a single network"
        )


def of_run(directory: Path, kept: Path, images: Path) -> None:
    from ensemble.blend.crossfit import plain_average
    from ensemble.blend.oof import read_oof
    from ensemble.data.folds import fold_count
    from ensemble.data.samples import read_samples
    from ensemble.device import choose_device
    from ensemble.inference.member import load_networks
    from ensemble.run import Run
    from ensemble.run.networks import networks_of
    from ensemble.soup.images import logits_of_files

    run, samples = Run(directory), read_samples(kept, images=images)
    assert samples.labels is not None and list(samples.classes) == run.read_classes()
    oof, device, every = read_oof(run), choose_device(), []
    for name in oof.members:
        member = run.member(name)
        networks = networks_of(run, [name], "folds", fold_count(run))[name]
        loaded = load_networks(member, networks, len(samples.classes), device)
        views = member.read_settings()["views"]
        every.append(
            logits_of_files(loaded.eval_models, samples.paths, loaded.preprocess, views, 64, device).mean(axis=1)
        )
    members = list(zip(oof.members, plain_average(oof), every, strict=True))
    if len(members) > 1:
        members.append(("their plain mean", plain_average(oof).mean(axis=0), np.mean(every, axis=0)))
    for name, z, test in members:
        _, average, answers = expected(z.astype(np.float64), oof.rows.labels, test.astype(np.float64))
        print(f"{name}: {in_words(average)}")
        true = shown(answers, samples.labels)
        print(
            f"by {len(samples.labels)} labels: accuracy {100 * true['accuracy'][0]:.2f} % (gained "
            f"{100 * true['accuracy'][1]:+.2f}), log loss {true['log_loss'][0]:.4f} ({true['log_loss'][1]:+.4f})"
        )


if __name__ == "__main__":
    start = time.process_time()
    if len(sys.argv) > 1:
        of_run(*map(Path, sys.argv[1:]))
    else:
        study()
    print(f"{time.process_time() - start:.0f} s of one core", file=sys.stderr)

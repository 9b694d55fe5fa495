"""What helps against uneven classes: python benchmarks/imbalance.py FOLDER WORK --weights FILE [--seeds 0 1]

FOLDER holds images in class folders. A skewed table of them is written into WORK, the classes in the order of their
sizes, from --largest rows down to that over --ratio, in a geometric series. Each remedy trains one network on the same
folds, --seeds times; what was trained stays in WORK, so that a second call only scores.

Every remedy is scored on the skewed table out of fold, as it is, and on the images that the table leaves out (but for
near copies of its rows), predicted by the mean of the folds' networks, with all classes counted equally. Differences
are from plain cross entropy, paired over the images (and their copies), for these trained networks; a column of a
remedy is the mean over its seeds.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import ensemble as ens
from ensemble.blend.crossfit import Recipe, held_out, plain_average
from ensemble.blend.oof import read_oof
from ensemble.blend.priors import row_weights
from ensemble.data.copies.ties import near_groups
from ensemble.data.samples import Samples, read_class_folders
from ensemble.events import SILENT
from ensemble.scoring.bootstrap import bootstrap, interval
from ensemble.scoring.metrics import METRICS
from ensemble.scoring.outcomes import Outcome, outcome, value
from ensemble.tta.predict import PredictionRequest, tta_predict

BASE = "cross_entropy"
TRAINED = {
    BASE: {},
    "focal": {"loss": "focal"},
    "class_balanced": {"loss": "class_balanced"},
    "logit_adjusted": {"loss": "logit_adjusted"},
    "balanced sampler": {"sampler": "balanced"},
    "augment_rare": {"augment_rare": True},
}
AFTERWARDS = {  # of the networks of plain cross entropy: what `ens blend --method mean` is told besides
    "--priors uniform": {"priors": "uniform"},
    "--metric macro_f1": {"metric": "macro_f1"},
    "--metric balanced_accuracy": {"metric": "balanced_accuracy"},
}
TOLD = ("macro_f1", "balanced_accuracy", "accuracy", "log_loss")


@dataclass(frozen=True)
class Rows:
    """labels: int64 (N,). clusters: int64 (N,). weights: float64 (N,), what each row counts, or None."""

    labels: np.ndarray
    clusters: np.ndarray
    weights: np.ndarray | None


def skewed(samples: Samples, copies: np.ndarray, largest: int, ratio: float) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the skewed table and of the clean test, which holds no copy of them. copies: (N,), each row's set."""
    rng = np.random.default_rng(0)
    counts = np.bincount(samples.labels)
    sizes = np.rint(np.geomspace(largest, largest / ratio, len(counts))).astype(int)
    chosen = []
    for label, size in zip(np.argsort(-counts, kind="stable"), sizes, strict=True):
        chosen.append(np.sort(rng.permutation(np.flatnonzero(samples.labels == label))[:size]))
    table = np.concatenate(chosen)
    return table, np.flatnonzero(~np.isin(copies, copies[table]))


def write_table(path: Path, samples: Samples, rows: np.ndarray) -> Path:
    lines = [f"{samples.paths[row].resolve()},{samples.classes[samples.labels[row]]}" for row in rows]
    path.write_text("path,label\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return path


def trained(name: str, seed: int, table: Path, given: argparse.Namespace) -> ens.Run:
    train = {"epochs": given.epochs, "batch_size": 16, "lr": 2e-4, "head_lr": 5, "freeze_bn": True}
    train |= {"strategy": "partial", "stages": given.stages, "dtype": "float32", "memory_format": "channels_last"}
    config = ens.Config(
        run=given.work / f"{name.replace(' ', '_')}-{seed}",
        seed=seed,
        workers=1,
        data={"train": table, "image_size": given.size},
        folds={"k": 3},
        train=train | {"compile": False, "micro_batch": 16} | TRAINED[name],
        tta={"views": ["identity"], "dtype": "float32"},
        backbone=[{"name": "net", "timm": given.timm, "weights": given.weights}],
    )
    return ens.train_folds(config, events=SILENT)


def out_of_fold(run: ens.Run, told: dict[str, str]) -> Outcome:
    """The cross-fitted outcome of the run's plain mean: its network at a temperature fitted on the other folds."""
    oof = read_oof(run)
    shares = np.full(oof.classes, 1 / oof.classes) if "priors" in told else None
    return held_out(oof, plain_average(oof), Recipe("mean", told.get("metric", "log_loss"), shares))[0]


def on_test(run: ens.Run, name: str, told: dict[str, str], table: Path, labels: dict[str, int]) -> Outcome:
    """The outcome of the saved blend's prediction of the clean test."""
    saved = name.removeprefix("--").replace(" ", "-")
    run.blend("mean", name=saved, events=SILENT, **told)
    made = tta_predict(PredictionRequest(run, table, run.path / f"{saved}.csv", saved), SILENT)
    place = [int(np.flatnonzero(made.ids == path)[0]) for path in labels]
    return outcome(np.array(list(labels.values())), made.probabilities[place])


def recalls(rows: Rows, results: list[Outcome], classes: int) -> np.ndarray:
    """The mean recall of each class over outcomes (seeds), float64 (C,)."""
    right = np.mean([result.predicted == rows.labels for result in results], axis=0)
    return np.array([right[rows.labels == label].mean() for label in range(classes)])


def show(title: str, rows: Rows, systems: dict[str, list[Outcome]], classes: tuple[str, ...]) -> None:
    """systems: name -> the outcome of each seed."""
    every = [result for results in systems.values() for result in results]
    drawn = bootstrap(rows.labels, every, rows.clusters, len(classes), rows.weights)
    ends = np.cumsum([0, *(len(results) for results in systems.values())])
    columns = {name: slice(first, last) for name, first, last in zip(systems, ends, ends[1:], strict=False)}
    order = np.argsort(-np.bincount(rows.labels), kind="stable") if rows.weights is None else range(len(classes))
    print(f"\n{title}: {len(rows.labels)} rows; in brackets the difference from {BASE} [95%]\n")
    heads = [METRICS[metric].heading for metric in TOLD]
    print("| | " + " | ".join([*heads, *(f"recall of {classes[c]} %" for c in order)]) + " |")
    print("|---|" + "---|" * (len(TOLD) + len(classes)))
    for name, results in systems.items():
        cells = []
        for metric in TOLD:
            factor = METRICS[metric].factor
            means = {}
            for of in (name, BASE):
                found = [value(metric, rows.labels, r, len(classes), rows.weights) for r in systems[of]]
                means[of] = factor * np.mean(found), factor * drawn[metric][:, columns[of]].mean(axis=1)
            digits = 2 if factor == 100 else 3
            cell = f"{means[name][0]:.{digits}f}"
            if name != BASE:
                low, high = interval(means[name][1] - means[BASE][1])
                cell += f" ({means[name][0] - means[BASE][0]:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}])"
            cells.append(cell)
        of_class = 100 * recalls(rows, results, len(classes))
        print(f"| {name} | " + " | ".join([*cells, *(f"{of_class[c]:.1f}" for c in order)]) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--timm", default="tf_efficientnet_lite0")
    parser.add_argument("--largest", type=int, default=320)
    parser.add_argument("--ratio", type=float, default=20)
    parser.add_argument("--size", type=int, default=128, help="of the images, px")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--stages", type=int, default=2, help="of the network that are trained")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", choices=list(TRAINED), default=list(TRAINED), help="these remedies")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    samples = read_class_folders(given.folder)
    groups = near_groups(samples, None, "auto", SILENT)
    copies = np.unique(groups, return_inverse=True)[1] if groups is not None else np.arange(len(samples))
    chosen, rest = skewed(samples, copies, given.largest, given.ratio)
    table = write_table(given.work / "skewed.csv", samples, chosen)
    test = write_table(given.work / "rest.csv", samples, rest)
    counts = {name: int((samples.labels[chosen] == c).sum()) for c, name in enumerate(samples.classes)}
    print(f"trained on {len(chosen)} rows: {counts}; clean test: {np.bincount(samples.labels[rest]).tolist()}")
    labels = {str(samples.paths[row].resolve()): int(samples.labels[row]) for row in rest}
    skew: dict[str, list[Outcome]] = {}
    clean: dict[str, list[Outcome]] = {}
    for seed in given.seeds:
        for name in dict.fromkeys([BASE, *given.only]):
            run = trained(name, seed, table, given)
            for system, told in {name: {}, **(AFTERWARDS if name == BASE else {})}.items():
                skew.setdefault(system, []).append(out_of_fold(run, told))
                clean.setdefault(system, []).append(on_test(run, system, told, test, labels))
    rows = read_oof(run).rows
    show("the skewed rows, out of fold", Rows(rows.labels, rows.clusters, None), skew, samples.classes)
    balanced = row_weights(samples.labels[rest], np.full(len(samples.classes), 1 / len(samples.classes)))
    show("the rest, classes counted equally", Rows(samples.labels[rest], copies[rest], balanced), clean,
         samples.classes)  # fmt: skip


if __name__ == "__main__":
    main()

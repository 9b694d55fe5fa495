"""What helps against uneven classes: python benchmarks/imbalance.py FOLDER WORK --weights FILE [--part networks]

FOLDER holds images in class folders. Some of them are taken so that the classes' sizes fall from --largest rows to that
over --ratio in a geometric series; the others, but for near copies of these, are the clean test.

- heads: linear classifiers on the frozen network's features, each remedy on the same --draws random choices of rows and
  of the classes' order. Differences are from plain cross entropy on the same draw, with t intervals over the draws.
- networks: one network is fine-tuned per remedy on one choice of rows (written into WORK, the classes in the order of
  their sizes) in three folds, --seeds times; what was trained stays in WORK, so that a second call only scores. Scored
  on these rows out of fold, as they are, and on the clean test by the mean of the folds' networks, with all classes
  counted equally. Differences are paired over the images and their copies, for these trained networks; a column is the
  mean over the seeds.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import stats

import ensemble as ens
from ensemble.backbones.timm_model import create, preprocess_for
from ensemble.blend.crossfit import held_out, plain_average
from ensemble.blend.methods.pool import inverse_temperature
from ensemble.blend.oof import read_oof
from ensemble.blend.priors import prior_ratio, row_weights
from ensemble.blend.probabilities import softmax
from ensemble.blend.recipe import Recipe
from ensemble.config import Data
from ensemble.data.copies.ties import near_groups
from ensemble.data.samples import Samples, read_class_folders
from ensemble.events import SILENT
from ensemble.scoring.bootstrap import bootstrap
from ensemble.scoring.metrics import METRICS
from ensemble.scoring.outcomes import Outcome, outcome, value
from ensemble.train.evaluate import Evaluation
from ensemble.train.losses import make_loss
from ensemble.train.pixels import training_data
from ensemble.train.probe import member_features
from ensemble.train.rows import Rows
from ensemble.train.sampling import epoch_rows
from ensemble.train.step import learning_rate
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
EPOCHS = 20  # of a linear classifier
TOLD = ("macro_f1", "balanced_accuracy", "accuracy", "log_loss")


@dataclass(frozen=True)
class Scored:
    """labels: int64 (N,). clusters: int64 (N,). weights: float64 (N,), what each row counts, or None."""

    labels: np.ndarray
    clusters: np.ndarray
    weights: np.ndarray | None


def skewed(
    labels: np.ndarray, copies: np.ndarray, order: np.ndarray, largest: int, ratio: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the skewed table and of the clean test, which holds no copy of them. order: the classes from the largest
    to the rarest. copies: (N,), each row's set."""
    rng = np.random.default_rng(seed)
    sizes = np.rint(np.geomspace(largest, largest / ratio, len(order))).astype(int)
    chosen = []
    for label, size in zip(order, sizes, strict=True):
        chosen.append(np.sort(rng.permutation(np.flatnonzero(labels == label))[:size]))
    table = np.concatenate(chosen)
    return table, np.flatnonzero(~np.isin(copies, copies[table]))


def features(given: argparse.Namespace, samples: Samples) -> torch.Tensor:
    """The frozen network's, standardised: float32 (N, D). Kept in WORK."""
    kept = given.work / f"features-{given.timm}-{given.size}.npy"
    if not kept.is_file():
        preprocess = preprocess_for(given.timm, given.size, None)
        model = create(given.timm, len(samples.classes), given.size, weights=given.weights).eval()
        rows = Rows(samples.ids, samples.paths, samples.labels, np.zeros(len(samples), np.int8), samples.classes)
        data = training_data(Data(train=given.folder), rows, preprocess, {}, SILENT)
        evaluation = Evaluation(preprocess, ("identity",), 64, torch.device("cpu"))
        np.save(kept, member_features(model, data, evaluation, lambda done: None)[0].numpy())
    found = torch.from_numpy(np.load(kept)).float()
    return (found - found.mean(0)) / (found.std(0) + 1e-6)


def head(x: torch.Tensor, labels: np.ndarray, remedy: dict[str, str], classes: int, seed: int) -> torch.nn.Linear:
    """A linear classifier of the training rows x float32 (n, D), by AdamW: 20 epochs in batches of 16."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    layer = torch.nn.Linear(x.shape[1], classes)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=1e-3, weight_decay=0.05)
    counts = np.bincount(labels, minlength=classes).astype(float)
    loss_of = make_loss(remedy.get("loss", BASE), counts, torch.device("cpu"), smoothing=0.1)
    rows, steps = np.arange(len(x)), len(x) // 16
    for epoch in range(EPOCHS):
        order = epoch_rows(rng, rows, labels, remedy.get("sampler", "shuffle"))[: steps * 16].reshape(steps, 16)
        for step, chosen in enumerate(order):
            optimizer.param_groups[0]["lr"] = learning_rate(epoch * steps + step, EPOCHS * steps, steps, 1e-3)
            loss_of(layer(x[chosen]), torch.from_numpy(labels[chosen])).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    return layer


def heads(given: argparse.Namespace, samples: Samples, copies: np.ndarray, ratio: float) -> None:
    x, classes = features(given, samples), len(samples.classes)
    uniform = np.full(classes, 1 / classes)
    told, third = ("macro_f1", "balanced_accuracy", "log_loss", "recall of the 3 rarest"), slice(-3, None)
    found: dict[str, list[list[float]]] = {}
    for draw in range(given.draws):
        order = np.random.default_rng(draw).permutation(classes)
        table, rest = skewed(samples.labels, copies, order, given.largest, ratio, draw)
        labels, test = samples.labels[table], samples.labels[rest]
        for name in dict.fromkeys([BASE, *given.only]):
            if name == "augment_rare":  # features know no augmentation
                continue
            remedy = TRAINED[name]
            z = head(x[table], labels, remedy, classes, draw)(x[rest]).detach().numpy().astype(np.float64)
            systems = {name: z}
            if name == BASE:  # a temperature, and then the shift, as `ens blend --priors uniform` has them
                parts = np.random.default_rng(draw).permutation(len(table))
                held, others = parts[: len(table) // 5], parts[len(table) // 5 :]
                part = head(x[table[others]], labels[others], remedy, classes, draw)(x[table[held]]).detach().numpy()
                systems["--priors uniform"] = z * inverse_temperature(part, labels[held]) + np.log(
                    prior_ratio(labels, uniform)
                )
            for system, logits in systems.items():
                result = outcome(test, softmax(logits))
                weights = row_weights(test, uniform)
                row = [METRICS[m].factor * value(m, test, result, classes, weights) for m in told[:-1]]
                of_class = 100 * recalls(Scored(test, rest, weights), [result], classes)
                found.setdefault(system, []).append([*row, of_class[order][third].mean()])
    print(f"\nheads: {given.draws} draws of {len(table)} rows, 1:{ratio:g}; clean tests of about {len(rest)} rows\n")
    print("| | " + " | ".join(told) + " |\n|---|" + "---|" * len(told))
    for name, rows in found.items():
        values, apart = np.array(rows), np.array(rows) - np.array(found[BASE])
        half = stats.t.ppf(0.975, given.draws - 1) * apart.std(axis=0, ddof=1) / np.sqrt(given.draws)
        cells = [
            f"{mean:.2f}" + ("" if name == BASE else f" ({gain:+.2f} [{gain - h:+.2f}, {gain + h:+.2f}])")
            for mean, gain, h in zip(values.mean(axis=0), apart.mean(axis=0), half, strict=True)
        ]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def write_table(path: Path, samples: Samples, rows: np.ndarray) -> Path:
    lines = [f"{samples.paths[row].resolve()},{samples.classes[samples.labels[row]]}" for row in rows]
    path.write_text("path,label\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return path


def trained(name: str, seed: int, table: Path, given: argparse.Namespace) -> ens.Run:
    train = {"epochs": given.epochs, "batch_size": 16, "lr": 2e-4, "head_lr": 5, "freeze_bn": True}
    train |= {"crop_size": given.size * 3 // 4}
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


def recalls(rows: Scored, results: list[Outcome], classes: int) -> np.ndarray:
    """The mean recall of each class over outcomes (seeds), float64 (C,)."""
    right = np.mean([result.predicted == rows.labels for result in results], axis=0)
    return np.array([right[rows.labels == label].mean() for label in range(classes)])


def show(title: str, rows: Scored, systems: dict[str, list[Outcome]], classes: tuple[str, ...]) -> None:
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
                low, high = np.quantile(means[name][1] - means[BASE][1], [0.025, 0.975])
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
    parser.add_argument("--ratio", type=float, nargs="+", default=[20.0])
    parser.add_argument("--size", type=int, default=128, help="of the images, px")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--stages", type=int, default=2, help="of the network that are trained")
    parser.add_argument("--part", choices=["heads", "networks"], default="heads")
    parser.add_argument("--oof-only", action="store_true", help="of the networks: leave the clean test out")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", choices=list(TRAINED), default=list(TRAINED), help="these remedies")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    samples = read_class_folders(given.folder)
    groups = near_groups(samples, None, "auto", SILENT)
    copies = np.unique(groups, return_inverse=True)[1] if groups is not None else np.arange(len(samples))
    if given.part == "heads":
        for ratio in given.ratio:
            heads(given, samples, copies, ratio)
        return
    order = np.argsort(-np.bincount(samples.labels), kind="stable")
    chosen, rest = skewed(samples.labels, copies, order, given.largest, given.ratio[0], seed=0)
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
                if not given.oof_only:
                    clean.setdefault(system, []).append(on_test(run, system, told, test, labels))
    rows = read_oof(run).rows
    show("the skewed rows, out of fold", Scored(rows.labels, rows.clusters, None), skew, samples.classes)
    if given.oof_only:
        return
    balanced = row_weights(samples.labels[rest], np.full(len(samples.classes), 1 / len(samples.classes)))
    show("the rest, classes counted equally", Scored(samples.labels[rest], copies[rest], balanced), clean,
         samples.classes)  # fmt: skip


if __name__ == "__main__":
    main()

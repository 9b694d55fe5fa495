"""How well `ens unknown`'s scores tell unknown images, beside pytorch-ood's detectors on the same logits and features.

    python benchmarks/unknown.py paintings DATA WEIGHTS.safetensors ... [--foreign NAME=FOLDER ...]
    python benchmarks/unknown.py digits [DIGIT ...]

paintings: linear probes on frozen networks (named by their files), of which each class of the folder DATA is left out
in turn; foreign images beside probes of all classes; and the false alarms on images that were kept from everything.
digits: the networks of `ens demo`, trained without each digit; unknown are the digit's images.

pytorch-ood (pip install pytorch-ood) is used where it is installed. Every score is of the networks of one fold,
compared with the rows that they were trained on; unknown and new images get the mean over the folds. Intervals are
DeLong's, of the mean over classes as if those were independent.
"""

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from ensemble.backbones import timm_model
from ensemble.demo import EXPERIMENT, write_digits
from ensemble.device import choose_device
from ensemble.inference.decode import decoded_squares
from ensemble.inference.decodings import decodings
from ensemble.inference.eval_model import prepared
from ensemble.inference.formats import Inference
from ensemble.inference.predict import Group, forward_views
from ensemble.ood.auroc import auroc, auroc_error
from ensemble.ood.detector import normal_scores, part_scores
from ensemble.ood.parts import ENERGY, ENTROPY, FEATURES, LOGITS, bank_of, centred
from ensemble.train.heads import fit_head

SIDE, FOLDS, STRENGTH = 192, 5, 0.03
Scores = dict[str, np.ndarray]  # score -> (n,)
SUMS = {
    "ens: energy + features": (ENERGY, FEATURES),
    "ens: entropy + features": (ENTROPY, FEATURES),
    "ens: logit neighbours + features": (LOGITS, FEATURES),
    "ens: energy + entropy + features": (ENERGY, ENTROPY, FEATURES),
    "ens: energy + logit neighbours + features": (ENERGY, LOGITS, FEATURES),
    "ens: entropy + logit neighbours + features": (ENTROPY, LOGITS, FEATURES),
    "ens: entropy + logit neighbours": (ENTROPY, LOGITS),
}


def features_of(weights: Path, files: Sequence[Path]) -> np.ndarray:
    """float32 (N, D), by the network of this name."""
    name, device = weights.name.split(".")[0], choose_device()
    preprocess = timm_model.preprocess_for(name, SIDE, None)
    model = timm_model.create(name, 2, SIDE, weights=weights)
    network = prepared(model, Inference(device.type), SIDE, device)
    group = Group(preprocess, ("identity",), (network,))
    parts = []
    for start in range(0, len(files), 128):
        squares, _ = decoded_squares(files[start : start + 128], decodings(preprocess, group.views), device)
        parts.append(forward_views(group, squares, 16, device, lambda em, x: timm_model.embed(em.exact, x)[None])[0][0])
    return np.concatenate(parts, axis=2)[0, 0]


def probes(
    features: Sequence[np.ndarray], rows: np.ndarray, labels: np.ndarray, folds: np.ndarray
) -> list[list[Callable]]:
    """For each fold and network a function from features to logits, fitted on the rows (numbers) of the other folds."""
    made = []
    for fold in range(FOLDS):
        weights = (folds[rows] != fold).astype(float)
        heads = [
            fit_head(torch.from_numpy(x[rows][None]), labels, int(labels.max()) + 1, STRENGTH, weights)
            for x in features
        ]
        made.append([lambda x, h=h: x @ h.weights[0].numpy().T + h.biases[0].numpy() for h in heads])
    return made


def scored(known: tuple, given: tuple, fold: int, oracle: bool) -> Scores:
    """Scores of images by the networks of a fold.

    known: logits (M, N, C), features (N, D), labels and folds of the rows. given: the same two of the images. oracle:
    pytorch-ood's too
    """
    z, x, labels, folds = known
    new_z, new_x = given
    logits, bank = bank_of(centred(z)), None if x is None else bank_of(x)
    names = [ENERGY, ENTROPY, LOGITS] + ([] if x is None else [FEATURES])
    cosines = None if bank is None else bank.cosines(new_x)
    found = dict(zip(names, part_scores(names, new_z, logits, cosines, folds != fold), strict=True))
    return found if not oracle else found | pytorch_ood(z.mean(0), x, labels, folds != fold, new_z.mean(0), new_x)


def pytorch_ood(
    z: np.ndarray,
    x: np.ndarray | None,
    labels: np.ndarray,
    rows: np.ndarray,
    new_z: np.ndarray,
    new_x: np.ndarray | None,
) -> Scores:
    """Its detectors, fitted on these rows. ViM takes a linear layer from features to logits, by least squares."""
    try:
        from pytorch_ood import detector as d
    except ImportError:
        return {}
    logits = torch.from_numpy(np.ascontiguousarray(new_z, dtype=np.float32))
    found = {
        name: getattr(d, name).score(logits) for name in ("MaxSoftmax", "EnergyBased", "Entropy", "MaxLogit", "GEN")
    }
    if x is not None:
        train, y, new = torch.from_numpy(x[rows]), torch.from_numpy(labels[rows]), torch.from_numpy(new_x)
        for name, made in (("KNN", d.KNN(None)), ("Mahalanobis", d.Mahalanobis(None)), ("RMD", d.RMD(None))):
            found[name] = made.fit_features(train, y).predict_features(new)
        layer, *_ = np.linalg.lstsq(np.c_[x[rows], np.ones(rows.sum())], z[rows], rcond=1e-3)
        vim = d.ViM(None, min(512, x.shape[1] // 2), torch.from_numpy(layer[:-1].T), torch.from_numpy(layer[-1]))
        found["ViM"] = vim.fit_features(train, y).predict_features(new)
    return {f"pytorch-ood {name}": np.asarray(values, dtype=float) for name, values in found.items()}


def compared(
    known: tuple, unknown: Mapping[str, tuple[list[np.ndarray], np.ndarray | None]], oracle: bool = True
) -> tuple[Scores, dict[str, Scores]]:
    """Scores of all rows, and of unknown images by kind: of each the logits by each fold's networks, and features."""
    z, x, _, folds = known
    rows: Scores = {}
    others: dict[str, list[Scores]] = {kind: [] for kind in unknown}
    for fold in range(FOLDS):
        here = folds == fold
        for name, values in scored(known, (z[:, here], None if x is None else x[here]), fold, oracle).items():
            rows.setdefault(name, np.empty(len(folds)))[here] = values
        for kind, (logits, features) in unknown.items():
            others[kind].append(scored(known, (logits[fold], features), fold, oracle))
    means = {kind: {name: np.mean([each[name] for each in of], axis=0) for name in rows} for kind, of in others.items()}
    for title, parts in SUMS.items():
        if all(part in rows for part in parts):
            of_rows = stacked(rows, parts)
            reference = np.sort(of_rows, axis=1)
            rows[title] = normal_scores(reference, of_rows).sum(axis=0)
            for kind, of in others.items():
                summed = [normal_scores(reference, stacked(each, parts)).sum(axis=0) for each in of]
                means[kind][title] = np.mean(summed, axis=0)
    return rows, means


def stacked(scores: Scores, parts: Sequence[str]) -> np.ndarray:
    return np.stack([scores[part] for part in parts])


def show(title: str, pairs: Sequence[tuple[Scores, Scores]]) -> None:
    """The mean AUROC over pairs of known and unknown scores, in %, with its 95 % interval, the best first."""
    print(f"\n{title}")
    lines = []
    for name in pairs[0][0]:
        values = [auroc(known[name], unknown[name]) for known, unknown in pairs]
        half = (
            1.96 * np.sqrt(sum(auroc_error(known[name], unknown[name]) ** 2 for known, unknown in pairs)) / len(pairs)
        )
        lines.append((np.mean(values), half, min(values), name))
    for value, half, least, name in sorted(lines, reverse=True):
        print(f"  {name:34s} {100 * value:5.1f} ± {100 * half:.1f}   worst {100 * least:.1f}")


def paintings(data: Path, weights: Sequence[Path], foreign: Mapping[str, Path]) -> None:
    files = sorted(path for path in data.glob("*/*") if path.is_file())
    names = sorted({path.parent.name for path in files})
    labels = np.array([names.index(path.parent.name) for path in files])
    rng = np.random.default_rng(0)
    folds = rng.permutation(len(files)) % FOLDS
    others = {}
    for kind, folder in foreign.items():
        there = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
        others[kind] = [there[row] for row in rng.permutation(len(there))[:300]]
    every = [path for each in (files, *others.values()) for path in each]
    features = [features_of(each, every) for each in weights]
    ends = np.cumsum([len(files), *map(len, others.values())])
    of_kind = {kind: np.arange(start, stop) for kind, start, stop in zip(others, ends, ends[1:], strict=False)}

    def run(
        rows: np.ndarray, unknown: Mapping[str, np.ndarray], oracle: bool = True
    ) -> tuple[Scores, dict[str, Scores]]:
        y = np.unique(labels[rows], return_inverse=True)[1]
        heads = probes(features, rows, y, folds)
        z = np.zeros((len(features), len(rows), y.max() + 1), dtype=np.float32)
        for fold in range(FOLDS):
            here = folds[rows] == fold
            for m, (head, x) in enumerate(zip(heads[fold], features, strict=True)):
                z[m, here] = head(x[rows][here])
        given = {
            kind: (
                [np.stack([h(x[where]) for h, x in zip(heads[k], features, strict=True)]) for k in range(FOLDS)],
                features[0][where],
            )
            for kind, where in unknown.items()
        }
        return compared((z, features[0][rows], y, folds[rows]), given, oracle)

    pairs = []
    for number, name in enumerate(names):
        known, unknown = run(np.flatnonzero(labels != number), {name: np.flatnonzero(labels == number)})
        pairs.append((known, unknown[name]))
    show(f"{len(names)} classes of {data}, each left out in turn", pairs)
    known, unknown = run(np.arange(len(files)), of_kind)
    for kind, scores in unknown.items():
        show(f"{kind} as foreign images", [(known, scores)])

    flagged: dict[tuple[str, float], list[bool]] = {}
    parts = rng.permutation(len(files)) % 5
    for part in range(5):  # each image is kept once from everything
        known, unknown = run(np.flatnonzero(parts != part), {"kept": np.flatnonzero(parts == part)}, False)
        for title in (*SUMS, ENERGY, FEATURES):
            for rate in (0.01, 0.02, 0.05, 0.1):
                rank = int(np.ceil((len(known[title]) + 1) * (1 - rate)))
                flagged.setdefault((title, rate), []).extend(unknown["kept"][title] > np.sort(known[title])[rank - 1])
    print("\nfalse alarms in %, on images that were kept from everything, at rates of 1, 2, 5 and 10 %")
    for title in (*SUMS, ENERGY, FEATURES):
        print(f"  {title:34s}", *(f"{100 * np.mean(flagged[title, rate]):6.2f}" for rate in (0.01, 0.02, 0.05, 0.1)))


def digits(chosen: Sequence[int]) -> None:
    from ensemble.blend.oof import read_oof
    from ensemble.config import load_config
    from ensemble.events import SILENT
    from ensemble.inference.predict import predict_stream
    from ensemble.run import Run
    from ensemble.toml import toml_value
    from ensemble.train.jobs import train_folds
    from ensemble.tta.predictor import load_members

    pairs = []
    for digit in chosen:
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            write_digits(folder / "digits")
            kept = (folder / "digits" / "train" / str(digit)).rename(folder / "unknown")
            experiment = folder / "e.toml"
            run, train = (toml_value(str(folder / name)) for name in ("run", "digits/train"))
            experiment.write_text(EXPERIMENT.format(run=run, train=train))
            train_folds(load_config(experiment), SILENT)
            oof = read_oof(Run(folder / "run"))
            members = load_members(Run(folder / "run"), oof.members, oof.classes, FOLDS, SILENT)
            views = [("identity",)] * len(members)
            [chunk] = predict_stream(list(members.values()), [sorted(kept.iterdir())], views, 64, choose_device())
            logits = np.stack([values[:, 0] for values in chunk.values])  # (M, K, n, C)
            known = (np.stack([values[0] for values in oof.values]), None, oof.rows.labels, oof.rows.folds)
            rows, unknown = compared(known, {"digit": (list(logits.swapaxes(0, 1)), None)})
            pairs.append((rows, unknown["digit"]))
            show(f"digit {digit} left out", pairs[-1:])
    show(f"{len(pairs)} digits, each left out in turn", pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="what", required=True)
    of_paintings = commands.add_parser("paintings")
    of_paintings.add_argument("data", type=Path)
    of_paintings.add_argument("weights", type=Path, nargs="+")
    of_paintings.add_argument("--foreign", action="append", default=[], metavar="NAME=FOLDER")
    commands.add_parser("digits").add_argument("digits", type=int, nargs="*")
    given = parser.parse_args()
    if given.what == "digits":
        digits(given.digits or range(10))
    else:
        foreign = {name: Path(folder) for name, _, folder in (text.partition("=") for text in given.foreign)}
        paintings(given.data, given.weights, foreign)


if __name__ == "__main__":
    main()

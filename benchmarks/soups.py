"""What one network in place of K is worth: the fold networks, their soup and the refits of a run, on labelled images
that it was not trained on.

    python benchmarks/soups.py RUN KEPT.csv IMAGES

KEPT.csv has the columns path and label, and its paths start in IMAGES. Every set of networks answers by the plain mean
of its softmax over views and networks, at temperature 1. Differences are paired with the fold networks.
"""

import sys
import time
from pathlib import Path

import numpy as np

from ensemble.data.folds import fold_count
from ensemble.data.samples import read_samples
from ensemble.device import choose_device
from ensemble.errors import UserError
from ensemble.inference.member import load_networks
from ensemble.run import Run
from ensemble.run.networks import KINDS, networks_of
from ensemble.scoring.bootstrap import bootstrap, gain, scores
from ensemble.scoring.outcomes import outcome
from ensemble.soup.images import logits_of_files


def main(run: Run, kept: Path, images: Path) -> None:
    samples = read_samples(kept, images=images)
    assert samples.labels is not None and list(samples.classes) == run.read_classes()
    device = choose_device()
    for name in run.member_names():
        member, systems, outcomes = run.member(name), [], []
        for kind in KINDS:
            try:
                networks = networks_of(run, [name], kind, fold_count(run))[name]
            except UserError as error:
                print(error)
                continue
            for count in sorted({1, len(networks)}):
                loaded = load_networks(member, networks[:count], len(samples.classes), device)
                started = time.process_time()
                views = member.read_settings()["views"]
                logits = logits_of_files(loaded.eval_models, samples.paths, loaded.preprocess, views, 64, device)
                seconds = time.process_time() - started
                probs = np.exp(logits - logits.max(-1, keepdims=True))
                probs = (probs / probs.sum(-1, keepdims=True)).mean(axis=(0, 1))
                label = f"{kind} x {count}" if kind != "folds" or count > 1 else "fold 0 alone"
                systems.append((label, 1000 * seconds / len(samples)))
                outcomes.append(outcome(samples.labels, probs))
        drawn = bootstrap(samples.labels, outcomes, np.arange(len(samples)), len(samples.classes))
        table = scores(samples.labels, outcomes, np.zeros(len(samples), dtype=int), len(samples.classes), drawn)
        base = next(s for s, (label, _) in enumerate(systems) if label.startswith("folds"))
        for s, (label, cost) in enumerate(systems):
            row = table[s]
            differences = [gain(metric, table, drawn, s, base, "folds") for metric in ("accuracy", "log_loss")]
            print(
                f"{name:20} {label:14} {cost:6.1f} ms  accuracy {100 * row['accuracy'].value:.2f} "
                f"[{100 * row['accuracy'].low:.2f}, {100 * row['accuracy'].high:.2f}], log loss "
                f"{row['log_loss'].value:.4f}; gained over the folds: accuracy {100 * differences[0].value:+.2f} "
                f"[{100 * differences[0].low:+.2f}, {100 * differences[0].high:+.2f}], log loss "
                f"{differences[1].value:+.4f} [{differences[1].low:+.4f}, {differences[1].high:+.4f}]"
            )


if __name__ == "__main__":
    main(Run(Path(sys.argv[1])), Path(sys.argv[2]), Path(sys.argv[3]))

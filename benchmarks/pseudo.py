"""Self-training on the digits with few labels: python benchmarks/pseudo.py FOLDER [--shuffled] [--labels 18]
[--variant "NAME OPTIONS"]...

Of scikit-learn's digits, --labels of each class have a label (18: 180 of 1,437), the others have none, and 360 are held
out of all. Two small networks are trained from scratch in five folds on the labels; then each variant of `ens pseudo`
starts from a copy of that run. OPTIONS are those of the command: --variant "soft --power 1 --set train.epochs=6".
--shuffled gives the labels away at random.

Prints, for the plain mean of the two: the gains out of fold over the labelled rows that ens pseudo decides on, and the
accuracy and the log loss on the 360 images that nothing was trained on. A variant named "longer" trains no student: its
members are trained anew with the epochs in its OPTIONS (--set train.epochs=60), to tell what more steps alone are
worth.
"""

import argparse
import shlex
import shutil
from pathlib import Path

import numpy as np

from ensemble.blend.methods.pool import inverse_temperature
from ensemble.blend.probabilities import softmax
from ensemble.config import load_config
from ensemble.demo import write_digits
from ensemble.events import SILENT
from ensemble.pseudo.command import PseudoOptions, self_train
from ensemble.pseudo.students import parse_changes
from ensemble.run import Run
from ensemble.train.jobs import train_folds
from ensemble.tta.member_logits import member_logits

EXPERIMENT = """\
run = "{folder}/run"
workers = 1
[data]
train = "{folder}/labelled"
image_size = 32
[train]
epochs = 60
batch_size = 32
lr = 6e-3
ema = 0.99
crop_area = [0.7, 1.0]
hflip = false
dtype = "float32"
[tta]
views = ["identity"]
dtype = "float32"
[[backbone]]
name = "resnet"
timm = "test_resnet"
pretrained = false
[[backbone]]
name = "efficientnet"
timm = "test_efficientnet"
pretrained = false
"""
MEMBERS = ("resnet", "efficientnet")


def write(folder: Path, labels: int, shuffled: bool) -> None:
    answers = write_digits(folder / "digits")
    rng = np.random.default_rng(0)
    (folder / "unlabelled").mkdir(parents=True)
    for digit in range(10):
        images = sorted((folder / "digits" / "train" / str(digit)).iterdir())
        chosen = set(rng.permutation(len(images))[:labels].tolist())
        for number, image in enumerate(images):
            label = str(rng.integers(10)) if shuffled else str(digit)
            place = folder / "labelled" / label if number in chosen else folder / "unlabelled"
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(image, place / image.name)
    np.save(folder / "answers.npy", np.array([answers[name] for name in sorted(answers)]))
    (folder / "e.toml").write_text(EXPERIMENT.format(folder=folder))


def held_out(folder: Path, run: Run, names: list[str]) -> dict[str, np.ndarray]:
    """Of the plain mean of these members, by what it is: a value for each of the 360 images, float64 (360,). With all
    folds the folds' probabilities are averaged; the log loss is at the best temperature of these images."""
    files = sorted((folder / "digits" / "test").iterdir())
    logits = np.mean([member_logits(run, name, ("identity",), files, "test", SILENT) for name in names], axis=0)
    answers = np.load(folder / "answers.npy")
    log_probs = np.log(softmax(logits.astype(np.float64)).mean(axis=0)).astype(np.float32)
    probs = softmax(log_probs.astype(np.float64) * inverse_temperature(log_probs, answers))
    return {
        "accuracy with one fold": (logits.argmax(axis=2) == answers).mean(axis=0),
        "with all": (log_probs.argmax(axis=1) == answers).astype(np.float64),
        "log loss with all": -np.log(probs[np.arange(len(answers)), answers]),
    }


def described(found: dict[str, np.ndarray], teachers: dict[str, np.ndarray]) -> str:
    """Means, and what they differ from the teachers', with 95% bootstrap intervals over images."""
    parts = []
    for what, values in found.items():
        factor = 1 if "loss" in what else 100
        difference = factor * (values - teachers[what])
        draws = np.random.default_rng(0).integers(len(values), size=(1000, len(values)))
        low, high = np.quantile(difference[draws].mean(axis=1), [0.025, 0.975])
        parts.append(f"{what} {factor * values.mean():.4f} ({difference.mean():+.4f} [{low:+.4f}, {high:+.4f}])")
    return "held out: " + ", ".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--labels", type=int, default=18)
    parser.add_argument("--shuffled", action="store_true")
    parser.add_argument("--variant", action="append", default=[])
    options = parser.parse_args()
    folder = options.folder
    if not (folder / "e.toml").is_file():
        write(folder, options.labels, options.shuffled)
    assert train_folds(load_config(folder / "e.toml"), SILENT) == []
    teachers = held_out(folder, Run(folder / "run"), list(MEMBERS))
    print("teachers:", described(teachers, teachers), flush=True)
    words = argparse.ArgumentParser()
    words.add_argument("--power", type=float, default=2.0)
    words.add_argument("--weight", type=float, default=1.0)
    words.add_argument("--rounds", type=int, default=1)
    words.add_argument("--set", action="append", default=[])
    for variant in options.variant:
        name, *rest = shlex.split(variant)
        asked = words.parse_args(rest)
        run = Run(folder / "variants" / name)
        if name.startswith("longer"):
            config = load_config(folder / "e.toml", (f'run="{run}"', *asked.set))
            assert train_folds(config, SILENT) == []
            print(f"{name}: {described(held_out(folder, run, list(MEMBERS)), teachers)}", flush=True)
            continue
        if not run.path.is_dir():
            shutil.copytree(folder / "run", run.path)
        asked_of = PseudoOptions(
            rounds=asked.rounds, power=asked.power, weight=asked.weight, changes=parse_changes(asked.set)
        )
        for made in self_train(run, folder / "unlabelled", asked_of, SILENT):
            gains = ", ".join(
                f"{metric} {100 * gain.value if metric == 'accuracy' else gain.value:+.4f} "
                f"[{100 * gain.low if metric == 'accuracy' else gain.low:+.4f}, "
                f"{100 * gain.high if metric == 'accuracy' else gain.high:+.4f}]"
                for metric, gain in made.gains.items()
            )
            found = described(held_out(folder, run, list(made.team)), teachers)
            print(f"{name} {made.number}: {gains}; {found}", flush=True)


if __name__ == "__main__":
    main()

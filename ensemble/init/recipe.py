"""How to train: size, networks, schedule and what is done about uneven classes, by data, machine and effort."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ensemble.init.choose import choose_size
from ensemble.init.networks import LIGHT, Backbone, hub_networks
from ensemble.plural import pluralize

Effort = Literal["usual", "fast", "best"]
Row = tuple[str, Any, str]  # a key of [train], its value and a comment

TINY = 64  # pixels of the short side
LONG = 8  # hours, a night
UNEVEN = 10  # times as many images in the largest class as in the smallest


@dataclass(frozen=True)
class Options:
    """What the user asks of a recipe.

    machine: "gpu" or "cpu"; None: this one.
    effort: "fast" trains classifiers on frozen networks, "best" takes longer for more and larger ones.
    weights_dir: a folder of weights files to start from; None: timm's own.
    networks: those to train, which `ens scout` has chosen; none: chosen here.
    """

    machine: str | None = None
    effort: Effort = "usual"
    weights_dir: Path | None = None
    networks: tuple[Backbone, ...] = ()


USUAL = Options()


@dataclass(frozen=True)
class Recipe:
    """What to train and how.

    image_size: side of the networks' input, px.
    why_size: why that one, in words.
    train: the keys of [train].
    backbones: the networks.
    tiny: whether the images are so small that networks may be trained on them from scratch.
    notes: what was found about the weights, and advice on uneven classes.
    """

    image_size: int
    why_size: str
    train: tuple[Row, ...]
    backbones: tuple[Backbone, ...]
    tiny: bool
    notes: tuple[str, ...] = ()

    @property
    def epochs(self) -> int:
        """0 for probes."""
        return next((int(value) for key, value, _ in self.train if key == "epochs"), 0)

    def describe(self) -> str:
        """The networks, each with its size and epochs where they differ."""
        trained = [(each.image_size or self.image_size, self._passes(each)) for each in self.backbones]
        names = [each.name for each in self.backbones]
        if len(set(trained)) == 1:
            size, passes = trained[0]
            return f"{', '.join(names)} at {size} px, {passes}"
        return ", ".join(f"{name} ({size} px, {passes})" for name, (size, passes) in zip(names, trained, strict=True))

    def _passes(self, backbone: Backbone) -> str:
        return f"{dict(backbone.train).get('epochs', self.epochs)} epochs" if self.epochs else "as probes"


# On 1,698 paintings (benchmarks/RESULTS.md), tf_mobilenetv3_large_minimal_100 on two of the five folds: log loss 0.203
# after 4 epochs, 0.176 after 6; with crops of 144 px in training 0.174 after 8, which take a tenth less time. On one
# fold 224 px were worse (0.240 against 0.219; the files have 227 px), and training all stages no better at twice the
# time (0.260 against 0.257).
CPU_SIZE = 192
CROP_SHARE = 0.875  # of an image's short side that a network sees in evaluation, for most of timm's networks
CPU_TRAIN: tuple[Row, ...] = (
    ("lr", 2e-4, "highest learning rate"),
    ("strategy", "partial", 'only the last stages are trained, which a CPU can do; "full" trains everything'),
    ("stages", 4, "how many of them, from the end"),
    ("head_lr", 5, "the new classifier learns at so many times lr"),
    ("freeze_bn", True, "keep the pretrained statistics of the batch norms"),
)
PROBE: tuple[Row, ...] = (("strategy", "probe", "a linear classifier on each frozen network, all folds at once"),)


def choose_recipe(machine: str, options: Options, sides: np.ndarray, counts: np.ndarray) -> Recipe:
    """What to train, and how, on a "gpu" or a "cpu".

    sides: short sides of the images in px, sorted. counts: int64 (C,), images of each class. Raises UserError if the
    folder of weights holds none.
    """
    rows = int(counts.sum())
    size, why = choose_size(sides, rows)
    if machine == "cpu" and options.effort != "fast" and size > CPU_SIZE:
        side = f"the files' short sides are about {np.median(sides):.0f}"
        if options.effort == "usual":
            size, why = CPU_SIZE, f"larger squares take a CPU long; {side}"
        elif np.median(sides) < size / CROP_SHARE:
            size, why = CPU_SIZE, f"at {size} the files would be enlarged; {side}"
    notes: list[str] = []
    if options.networks:
        backbones = options.networks
    elif options.weights_dir is None:
        backbones = hub_networks(machine, options.effort, size)
    else:
        from ensemble.init.weights_dir import networks_in  # loads torch

        backbones, notes = networks_in(options.weights_dir, machine, options.effort)
    train = PROBE if options.effort == "fast" else _schedule(machine, options.effort, rows)
    loss, advice = _against_imbalance(counts, options.effort)
    return Recipe(size, why, train + loss, backbones, bool(np.median(sides) < TINY), (*notes, *advice))


def _schedule(machine: str, effort: Effort, rows: int) -> tuple[Row, ...]:
    """Epochs, batch size, rates and what else a network is fine-tuned with."""
    epochs, batch_size = choose_cpu_schedule(rows) if machine == "cpu" else choose_schedule(rows)
    if effort == "best":
        epochs += epochs // 2
    schedule: tuple[Row, ...] = (
        ("epochs", epochs, f"passes over the images; few images need more ({rows:,} here)"),
        ("batch_size", batch_size, "images per step; halve it if memory runs out"),
    )
    if machine == "cpu":
        return schedule + CPU_TRAIN
    # As published for each family (init/networks.py); the networks below that name no rate have batch norms.
    return (
        *schedule,
        ("lr", 3e-4, "highest learning rate; those below are their families', from the literature"),
        ("head_lr", 5, "the new classifier learns at so many times lr"),
    )


def choose_schedule(rows: int) -> tuple[int, int]:
    """Epochs and batch size: few images need more passes, and small batches to take enough steps."""
    for limit, epochs, batch_size in ((500, 30, 16), (2_000, 15, 32), (10_000, 12, 32), (50_000, 8, 64)):
        if rows <= limit:
            return epochs, batch_size
    return 5, 64


def choose_cpu_schedule(rows: int) -> tuple[int, int]:
    """Epochs and batch size for a CPU: as many steps as 6 epochs of 1,698 paintings are, on up to 30 epochs."""
    for limit, epochs, batch_size in ((350, 30, 16), (700, 15, 16), (1_200, 9, 32), (3_000, 6, 32), (50_000, 4, 32)):
        if rows <= limit:
            return epochs, batch_size
    return 2, 32


# Of linear classifiers on skewed copies of the paintings (benchmarks/RESULTS.md, ten draws each), class_balanced gains
# 0.5 to 0.7 points of macro F1 at 1:10 and 1:20; logit_adjusted and focal lose at 1:20. --priors uniform gains 1.7 and
# 2.6 where the classes count equally, but costs accuracy on rows as skewed as the training's.
def _against_imbalance(counts: np.ndarray, effort: Effort) -> tuple[tuple[Row, ...], list[str]]:
    """A loss, which probes have not to choose, and a line on what to do afterwards; nothing for even classes."""
    ratio = counts.max() / counts.min()
    if ratio < UNEVEN:
        return (), []
    line = "uneven classes: where rare ones count as much as common ones, blend with --priors uniform too"
    why = f"the largest class has {ratio:.0f} times the images of the smallest: rare ones weigh more (Cui et al. 2019)"
    return (() if effort == "fast" else (("loss", "class_balanced", why),)), [line]


def training_time(recipe: Recipe, machine: str, rows: int, k: int, cores: int) -> str:
    """How long training takes, in words. rows, k: images and folds. cores: of a CPU."""
    hours = training_hours(recipe, rows, k, cores) if machine == "cpu" else None
    if hours is None:
        return "ens train-folds says how long training takes before it begins"
    faster = "; --fast trains classifiers on frozen networks instead" if hours > LONG else ""
    about = f"{hours:.1f} hours" if hours >= 2 else pluralize(max(1, round(60 * hours)), "minute")
    return f"on {pluralize(cores, 'core')} about {about}, which ens train-folds times before it begins{faster}"


def training_hours(recipe: Recipe, rows: int, k: int, cores: int) -> float | None:
    """How long training takes on a CPU, from the rates of the networks that were timed here; None for others.

    rows, k: images and folds. cores: of the CPU.
    """
    names = [backbone.timm.partition(".")[0] for backbone in recipe.backbones]
    if not recipe.epochs or not set(names) <= set(LIGHT):
        return None
    seconds = 0.0
    for name, backbone in zip(names, recipe.backbones, strict=True):
        epochs = dict(backbone.train).get("epochs", recipe.epochs)
        pixels = ((backbone.image_size or recipe.image_size) / 192) ** 2
        seconds += rows * (k - 1) * epochs * pixels / LIGHT[name].rate
    return seconds / cores / 3600

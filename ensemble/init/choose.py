"""Settings that fit the data's size. Each choice comes with its reason, in words that go into the file."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ensemble.data.samples import Samples
from ensemble.errors import UserError

K = 5
SIZES = (96, 128, 160, 192, 224)
TINY = 64  # pixels of the short side
LARGE, FEW = 576, 5000  # short sides from LARGE on, in sets of up to FEW images, are worth more than 224 px


@dataclass(frozen=True)
class Backbone:
    """A network to train.

    name: in the run.
    timm: an architecture with hub weights.
    kind: of the architecture, in words.
    lr: highest learning rate of AdamW, where it is not that of the [train] table.
    """

    name: str
    timm: str
    kind: str
    lr: float | None = None


@dataclass(frozen=True)
class Recipe:
    """What to train and how.

    image_size: side of the networks' input, px.
    why_size: why that one, in words.
    epochs: of training.
    batch_size: images per step.
    lr: highest learning rate of AdamW.
    train: more keys of [train], each with its value and a comment.
    backbones: the networks.
    tiny: whether the images are so small that networks may be trained on them from scratch.
    """

    image_size: int
    why_size: str
    epochs: int
    batch_size: int
    lr: float
    train: tuple[tuple[str, Any, str], ...]
    backbones: tuple[Backbone, ...]
    tiny: bool

    def describe(self) -> str:
        names = ", ".join(backbone.name for backbone in self.backbones)
        return f"{names} at {self.image_size} px for {self.epochs} epochs"


# mobilenet_edgetpu_100 on 1,698 paintings, five folds, 4 epochs: 94.70 % [93.64, 95.72] in about 20 core minutes; at
# 160 px with lr 5e-4, a classifier at the same rate and moving statistics of batch norms 91.87.
CPU_SIZE, CPU_LR = 192, 2e-4
CPU_TRAIN: tuple[tuple[str, Any, str], ...] = (
    ("strategy", "partial", 'only the last stages are trained, which a CPU can do; "full" trains everything'),
    ("stages", 4, "how many of them, from the end"),
    ("head_lr", 5, "the new classifier learns at so many times lr"),
    ("freeze_bn", True, "keep the pretrained statistics of the batch norms"),
)


def choose_k(samples: Samples, groups: np.ndarray | None) -> tuple[int, str]:
    """The number of folds and why. groups: str (N,), copies of a file joined, or None.

    Raises UserError if even two folds cannot be made.
    """
    assert samples.labels is not None
    counts = np.bincount(samples.labels, minlength=len(samples.classes))
    smallest = samples.classes[counts.argmin()]
    if counts.min() < 2:
        raise UserError(f"class {smallest!r} has 1 image; every class needs 2, better 5: add images or drop it")
    k, why = min(K, int(counts.min())), ""
    if k < K:
        why = f"the smallest class, {smallest}, has {k} images"
    unique = K if groups is None else len(np.unique(groups))
    if unique < k:
        k, why = unique, f"there are {unique} groups"
    return k, why


def lone_class(samples: Samples, groups: np.ndarray | None) -> str | None:
    """The first class that stands in one group only, so that grouped folds could not both train on it and test it."""
    assert samples.labels is not None
    for index, name in enumerate(samples.classes):
        if groups is not None and len(np.unique(groups[samples.labels == index])) < 2:
            return name
    return None


def choose_size(sides: np.ndarray, rows: int) -> tuple[int, str]:
    """Image size in pixels and why, from the short sides (sorted) and the number of images."""
    median = int(np.median(sides))
    if median >= LARGE and rows <= FEW:
        return 288, f"the files are far larger than 224 (median {median}) and few; 224 takes 0.6 of the time"
    size = min(SIZES, key=lambda size: abs(size - median))
    if median < SIZES[0]:
        # Linear probes of an ImageNet MobileNetV3 on 566 paintings shrunk to 32 px and scaled up again, 5 folds:
        # 40 % right at 32 px, 49 at 64, 62 at 96, 62 at 128, 64 at 160 (each +- 5).
        return size, f"scaled up from {median}: pretrained networks do worse on smaller ones"
    if median > SIZES[-1]:
        return size, f"what most weights were trained at; the files' short sides are about {median}"
    return size, f"near the files' short side ({median})"


def choose_recipe(kind: str, sides: np.ndarray, rows: int) -> Recipe:
    """What to train, and how, on a "gpu" or a "cpu". sides: short sides in px, sorted. rows: number of images."""
    size, why = choose_size(sides, rows)
    tiny = bool(np.median(sides) < TINY)
    if kind == "gpu":
        epochs, batch_size = choose_schedule(rows)
        return Recipe(size, why, epochs, batch_size, 1e-3, (), choose_backbones(size), tiny)
    if size > CPU_SIZE:
        size, why = (
            CPU_SIZE,
            f"larger squares take a CPU too long; the files' short sides are about {np.median(sides):.0f}",
        )
    epochs, batch_size = choose_cpu_schedule(rows)
    return Recipe(size, why, epochs, batch_size, CPU_LR, CPU_TRAIN, light_backbones(), tiny)


def choose_schedule(rows: int) -> tuple[int, int]:
    """Epochs and batch size: few images need more passes, and small batches to take enough steps."""
    for limit, epochs, batch_size in ((500, 30, 16), (2_000, 15, 32), (10_000, 12, 32), (50_000, 8, 64)):
        if rows <= limit:
            return epochs, batch_size
    return 5, 64


def choose_cpu_schedule(rows: int) -> tuple[int, int]:
    """Epochs and batch size for a CPU: as many steps as 4 epochs of 1,698 paintings are, on up to 20 epochs."""
    for limit, epochs, batch_size in ((350, 20, 16), (700, 10, 16), (1_200, 6, 32), (10_000, 4, 32), (50_000, 3, 32)):
        if rows <= limit:
            return epochs, batch_size
    return 2, 32


def choose_backbones(image_size: int) -> tuple[Backbone, ...]:
    """Three that err differently, to train on a GPU."""
    # Below 224 Swin's 7 x 7 windows no longer fit its last stage; ViT only resamples its position embeddings.
    if image_size >= 224:
        transformer = Backbone(
            "swin", "swin_tiny_patch4_window7_224.ms_in22k_ft_in1k", "a transformer with local attention", 1e-4
        )
    else:
        transformer = Backbone(
            "vit", "vit_small_patch16_224.augreg_in21k_ft_in1k", "a transformer with global attention", 1e-4
        )
    return (
        Backbone("convnext", "convnext_tiny.fb_in22k_ft_in1k", "a convolutional network with large kernels", 2e-4),
        transformer,
        Backbone("efficientnet", "tf_efficientnetv2_s.in21k_ft_in1k", "a convolutional network with small kernels"),
    )


def light_backbones() -> tuple[Backbone, ...]:
    """Three that a CPU can train: on 1,698 paintings such networks took about 20 core minutes each."""
    return (
        Backbone("efficientnet_lite", "tf_efficientnet_lite0.in1k", "small, without what CPUs are slow at"),
        Backbone("mobilenetv3", "tf_mobilenetv3_large_minimal_100.in1k", "smaller, of another design"),
        Backbone("mobilenetv1", "mobilenetv1_100.ra4_e3600_r224_in1k", "plain, of another training"),
    )

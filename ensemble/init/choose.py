"""Settings that fit the data's size. Each choice comes with its reason, in words that go into the file."""

from dataclasses import dataclass

import numpy as np

from ensemble.data.table import Samples
from ensemble.errors import UserError

K = 5
SIZES = (96, 128, 160, 192, 224)
TINY = 64  # pixels of the short side
LARGE, FEW = 576, 5000  # short sides from LARGE on, in sets of up to FEW images, are worth more than 224 px


@dataclass(frozen=True)
class Backbone:
    """name: in the run. timm: an architecture with hub weights. lr: AdamW's, where it is not the [train] table's."""

    name: str
    timm: str
    kind: str
    lr: float | None = None


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
        return size, f"scaled up from {median}: pretrained networks make little of less"
    if median > SIZES[-1]:
        return size, f"what most weights were trained at; the files' short sides are about {median}"
    return size, f"near the files' short side ({median})"


def choose_schedule(rows: int) -> tuple[int, int]:
    """Epochs and batch size: few images need more passes, and small batches to take enough steps."""
    for limit, epochs, batch_size in ((500, 30, 16), (2_000, 15, 32), (10_000, 12, 32), (50_000, 8, 64)):
        if rows <= limit:
            return epochs, batch_size
    return 5, 64


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
    """Three that a CPU can train."""
    return (
        Backbone("mobilenet", "mobilenetv3_large_100.ra_in1k", "small and fast"),
        Backbone("resnet18", "resnet18.a1_in1k", "the plain residual network"),
        Backbone("vit_tiny", "vit_tiny_patch16_224.augreg_in21k_ft_in1k", "a small transformer", 1e-4),
    )

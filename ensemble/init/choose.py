"""Folds and image size that fit the data, each choice with its reason in words that go into the file."""

import numpy as np

from ensemble.data.samples import Samples
from ensemble.errors import UserError

K = 5
SIZES = (96, 128, 160, 192, 224)
LARGE, FEW = 576, 5000  # short sides from LARGE on, in sets of up to FEW images, are worth more than 224 px


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

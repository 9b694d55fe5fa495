"""Classifiers of frozen features beside the linear probe, for all folds: "lda", "gaussian" and "knn"."""

from dataclasses import dataclass

import numpy as np
import torch

from ensemble.train.discriminant import GAUSSIAN, LDA, classes_of, discriminant
from ensemble.train.neighbours import NEIGHBOURS, candidate_logits, neighbours
from ensemble.train.nested import choose, fit_folds

CANDIDATES = {  # for each kind the names of its hyper-parameters, and the values that are tried
    "lda": (("shrinkage",), LDA),
    "gaussian": (("shrinkage", "shared"), GAUSSIAN),
    "knn": (("k", "temperature"), NEIGHBOURS),
}


@dataclass(frozen=True)
class FoldHeads:
    """A classifier for each of K folds.

    heads: K modules, from features float32 (B, D) to logits (B, C).
    chosen: for each fold in words what its hyper-parameters are.
    """

    heads: tuple[torch.nn.Module, ...]
    chosen: tuple[str, ...]


def fit_other_heads(
    kind: str,
    features: torch.Tensor,
    labels: np.ndarray,
    folds: np.ndarray,
    classes: int,
    weights: np.ndarray | None = None,
) -> FoldHeads:
    """A classifier for each fold, fitted on the rows of the others; its hyper-parameters, and the factor of its logits,
    are chosen on the other folds too.

    kind: "lda", "gaussian" or "knn".
    features: float32 (V, N, D) on any device; the views of a row are averaged.
    labels, folds, weights: as in `ensemble.train.heads.fit_heads`.
    """
    mean = features.mean(0)
    scaled = np.ones(len(labels)) if weights is None else weights / weights.max()
    target = torch.from_numpy(labels).to(mean.device)
    one_hot = torch.nn.functional.one_hot(target, classes).to(mean.dtype)
    words, candidates = CANDIDATES[kind]

    def build(rows: torch.Tensor, candidate: int, factor: float) -> torch.nn.Module:
        if kind == "knn":
            return neighbours(mean, one_hot, rows.to(mean.device), NEIGHBOURS[candidate], factor)
        return discriminant(kind, classes_of(mean, target, rows.to(mean.device), classes), candidate, factor)

    def logits(rows: torch.Tensor, of: torch.Tensor) -> list[torch.Tensor]:
        if kind == "knn":
            return candidate_logits(neighbours(mean, one_hot, rows.to(mean.device), NEIGHBOURS[0]), mean[of])
        found = classes_of(mean, target, rows.to(mean.device), classes)
        return [discriminant(kind, found, candidate)(mean[of]) for candidate in range(len(candidates))]

    with torch.inference_mode():
        chosen = choose(logits, len(candidates), labels, folds, scaled)
        heads = fit_folds(build, chosen, folds, scaled)
    told = [zip(words, candidates[candidate], strict=True) for candidate, _ in chosen]
    return FoldHeads(tuple(heads), tuple(", ".join(f"{word} {value:g}" for word, value in each) for each in told))

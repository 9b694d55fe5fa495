"""Nearest neighbours among the training rows, by the cosine of standardised frozen features."""

import torch

from ensemble.backbones.heads import NeighboursHead, nearest_rows, standardised, vote
from ensemble.train.discriminant import moments

NEIGHBOURS = tuple((k, temperature) for k in (5, 10, 20, 50, 100) for temperature in (0.05, 0.1, 0.2))
CHUNK = 256  # rows whose cosines are in memory at once


def neighbours(
    features: torch.Tensor, one_hot: torch.Tensor, weights: torch.Tensor, chosen: tuple[int, float], factor: float = 1.0
) -> NeighboursHead:
    """The classifier of the rows that have a weight.

    features: float32 (N, D). one_hot: float32 (N, C), of the labels. weights: float32 (N,).
    chosen: k and the temperature of the cosines. factor: of the logits.
    """
    used = weights > 0
    rows, shares = features[used], weights[used] / weights[used].sum()
    mean, scale = moments(rows, shares)
    return NeighboursHead(
        {
            "mean": mean,
            "scale": scale,
            "neighbours": standardised(rows, mean, scale),
            "labels": one_hot[used].argmax(1),
            "weights": shares / shares.max(),
            "prior": shares @ one_hot[used],
            "chosen": rows.new_tensor([*chosen, factor]),
        }
    )


def candidate_logits(head: NeighboursHead, features: torch.Tensor) -> list[torch.Tensor]:
    """Logits (n, C) of features (n, D) for each of NEIGHBOURS, from one search."""
    most = max(k for k, _ in NEIGHBOURS)
    found: list[list[torch.Tensor]] = [[] for _ in NEIGHBOURS]
    for start in range(0, len(features), CHUNK):
        rows = standardised(features[start : start + CHUNK], head.mean, head.scale)
        cosines, nearest = nearest_rows(rows, head.neighbours, most)
        labels, weights = head.labels[nearest], head.weights[nearest]
        for logits, (k, temperature) in zip(found, NEIGHBOURS, strict=True):
            logits.append(vote(cosines[:, :k], labels[:, :k], weights[:, :k], head.prior, temperature))
    return [torch.cat(parts) for parts in found]

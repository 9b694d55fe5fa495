"""Classifiers of frozen features that are not one linear layer: as a fold's weights file holds them, they are read,
evaluated and written here. They are fitted in ensemble/train/discriminant.py and ensemble/train/neighbours.py."""

from collections.abc import Mapping

import torch

LINEAR = ("linear", "lda")  # kinds that end in one linear layer


class GaussianHead(torch.nn.Module):
    """Logits of Gaussian classes, of features float32 (B, D): (B, C), a linear part and R squares for each class.

    weight: float32 (C, D)
    bias: float32 (C,)
    directions: float32 (C, R, D), along which a class's own covariance is larger than the shared one
    offsets: float32 (C, R), where its mean lies along them
    """

    weight: torch.Tensor
    bias: torch.Tensor
    directions: torch.Tensor
    offsets: torch.Tensor

    def __init__(
        self, weight: torch.Tensor, bias: torch.Tensor, directions: torch.Tensor, offsets: torch.Tensor
    ) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        self.register_buffer("directions", directions)
        self.register_buffer("offsets", offsets)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        linear = torch.nn.functional.linear(features, self.weight, self.bias)
        along = torch.nn.functional.linear(features, self.directions.flatten(0, 1))
        squares = (along.view(-1, *self.offsets.shape) - self.offsets).square()
        return linear + 0.5 * squares.sum(-1)


class NeighboursHead(torch.nn.Module):
    """Logits of the k nearest training rows by the cosine of standardised features: float32 (B, C) of (B, D).

    mean: float32 (D,), of the training rows
    scale: float32 (D,), what their features are multiplied with after it is subtracted
    neighbours: float32 (N, D), the training rows, standardised and of length 1
    labels: int64 (N,), theirs
    weights: float32 (N,), of their votes
    prior: float32 (C,), the shares of the classes
    chosen: float32 (3,): k; the temperature that cosines are divided by; what the logits are multiplied with
    """

    mean: torch.Tensor
    scale: torch.Tensor
    neighbours: torch.Tensor
    labels: torch.Tensor
    weights: torch.Tensor
    prior: torch.Tensor
    chosen: torch.Tensor

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        for name in ("mean", "scale", "neighbours", "labels", "weights", "prior", "chosen"):
            self.register_buffer(name, tensors[name])

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        k, temperature, sharpness = self.chosen.tolist()
        rows = standardised(features, self.mean, self.scale)
        cosines, nearest = nearest_rows(rows, self.neighbours, int(k))
        return vote(cosines, self.labels[nearest], self.weights[nearest], self.prior, temperature).mul_(sharpness)


def standardised(features: torch.Tensor, mean: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Rows (N, D) with their mean removed, scaled, and of length 1."""
    return torch.nn.functional.normalize((features - mean) * scale)


def nearest_rows(rows: torch.Tensor, neighbours: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The cosines (B, k) of the k nearest of N neighbours, the nearest first, and which they are."""
    cosines, nearest = (rows @ neighbours.T).topk(min(k, len(neighbours)), dim=1)
    return cosines, nearest


def vote(
    cosines: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor, prior: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Log-probabilities (B, C): the k neighbours, the nearest first, vote with the weights exp(cosine / temperature),
    as in DINO (Caron et al., Emerging properties in self-supervised vision transformers, ICCV 2021), times their own;
    beside them the prior (C,) has one of k + 1 votes, so that no class has probability 0. All others are (B, k)."""
    weights = weights * ((cosines - cosines[:, :1]) / temperature).exp()
    is_class = labels[:, :, None] == torch.arange(len(prior), device=labels.device)
    votes = (weights[:, :, None] * is_class).sum(1)
    shares = votes / votes.sum(1, keepdim=True).clamp_min(torch.finfo(votes.dtype).tiny)
    k = cosines.shape[1]
    return ((k * shares + prior) / (k + 1)).clamp_min(torch.finfo(votes.dtype).tiny).log()


def head_of(kind: str, tensors: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    """The classifier of this kind with these tensors. Raises KeyError for one that is missing."""
    if kind == "gaussian":
        return GaussianHead(tensors["weight"], tensors["bias"], tensors["directions"], tensors["offsets"])
    if kind == "knn":
        return NeighboursHead(tensors)
    return linear_head(tensors["weight"], tensors["bias"])


def linear_head(weight: torch.Tensor, bias: torch.Tensor) -> torch.nn.Linear:
    """A linear layer with this weight (C, D) and bias (C,), which are not trained."""
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    layer.weight = torch.nn.Parameter(weight, requires_grad=False)
    layer.bias = torch.nn.Parameter(bias, requires_grad=False)
    return layer

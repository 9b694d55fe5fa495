"""A fitted blend as a module: what `Blend.apply` and `tta.apply.blend_folds` compute with NumPy, in operations that
every runtime has, and in the same number formats: logits float32, probabilities float64 until they are averaged."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ensemble.blend import Blend
from ensemble.blend.methods.greedy import Greedy
from ensemble.blend.methods.mean import Mean
from ensemble.blend.methods.pool import Pool
from ensemble.blend.methods.stack import Stack
from ensemble.blend.methods.trees import DEPTH, NODES, Trees
from ensemble.blend.methods.vote import Vote
from ensemble.blend.scaling import LEAST, Scaling
from ensemble.tta.apply import fold_sets

Method = Callable[[Tensor], Tensor]  # from logits float32 (M, N, C) to probabilities float64 (N, C)


class Blending(torch.nn.Module):
    """From the logits of M members, each float32 (K, V, B, C), to the blend's probabilities float32 (B, C), averaged
    over the sets of networks; and to each member's by itself, float32 (M, B, C): the softmax of the plain mean of its
    views, averaged over its networks.

    K and V may differ between members.
    """

    def __init__(self, blend: Blend, networks: Sequence[int]) -> None:
        """networks: K of each member. Raises UserError for numbers of networks that don't go together."""
        super().__init__()
        sets = fold_sets(blend, networks)
        self.sets = torch.nn.ParameterList(
            _constant([folds[member] for folds in sets]) for member in range(len(networks))
        )
        self.view_weights = torch.nn.ParameterList(
            _constant(np.array(weights, dtype=np.float32)[:, None, None]) for weights in blend.view_weights
        )
        self.method = _method(blend)
        chain = blend.chain
        steps: list[torch.nn.Module] = []
        if chain.temperature is not None:
            steps.append(Power(chain.temperature.inverse_temperature))
        if chain.scaling is not None and chain.scaling.scaling_weights is not None:
            steps.append(ScaledLogs(chain.scaling))
        if chain.prior_shift is not None:
            steps.append(Factor(chain.prior_shift.prior_bias))
        if chain.metric_bias is not None:
            steps.append(Factor(chain.metric_bias.metric_bias))
        self.steps = torch.nn.Sequential(*steps)

    def forward(self, *logits: Tensor) -> tuple[Tensor, Tensor]:
        members = torch.stack([each.mean(dim=1).softmax(-1).mean(dim=0) for each in logits])
        weighted = [
            (each * weights).sum(dim=1)[folds]
            for each, weights, folds in zip(logits, self.view_weights, self.sets, strict=True)
        ]
        z = torch.stack(weighted)  # (M, sets, B, C)
        rows = z.flatten(1, 2)
        probabilities = self.steps(self.method(rows)).unflatten(0, (z.shape[1], z.shape[2]))
        return probabilities.mean(dim=0).float(), members


class Power(torch.nn.Module):
    """Probabilities to a power, as `blend.temperature.apply`."""

    def __init__(self, exponent: float) -> None:
        super().__init__()
        self.exponent = exponent

    def forward(self, probabilities: Tensor) -> Tensor:
        # Shares of the largest: in float32, which OpenVINO computes this in, powers of small ones would all be 0.
        return _normalised((probabilities / probabilities.amax(dim=-1, keepdim=True)) ** self.exponent)


class ScaledLogs(torch.nn.Module):
    """A softmax of scaled log-probabilities, as `blend.scaling.apply`."""

    def __init__(self, learned: Scaling) -> None:
        super().__init__()
        assert learned.scaling_weights is not None and learned.scaling_bias is not None
        self.full = learned.scaling_weights.ndim == 2
        self.weights = _constant(learned.scaling_weights.T if self.full else learned.scaling_weights)
        self.bias = _constant(learned.scaling_bias)

    def forward(self, probabilities: Tensor) -> Tensor:
        logs = probabilities.clamp(min=LEAST).log()
        return ((logs @ self.weights if self.full else logs * self.weights) + self.bias).softmax(-1)


class Factor(torch.nn.Module):
    """Probabilities times exp(bias), as `blend.probabilities.biased`."""

    def __init__(self, bias: np.ndarray) -> None:
        super().__init__()
        self.factor = _constant(np.exp(bias))

    def forward(self, probabilities: Tensor) -> Tensor:
        return _normalised(probabilities * self.factor)


def _method(blend: Blend) -> torch.nn.Module:
    learned = blend.chain.learned
    if isinstance(learned, Mean):
        return MeanOfLogits()
    if isinstance(learned, Vote | Greedy):
        return WeightedMixture(learned.weights, learned.inverse_temperatures)
    if isinstance(learned, Pool):
        return WeightedLogits(learned.weights, None)
    if isinstance(learned, Stack):
        return WeightedLogits(learned.weights, learned.bias)
    assert isinstance(learned, Trees)
    return BoostedTrees(learned)


class MeanOfLogits(torch.nn.Module):
    """Of `methods.mean`."""

    def forward(self, z: Tensor) -> Tensor:
        return z.double().mean(dim=0).softmax(-1)


class WeightedMixture(torch.nn.Module):
    """Of `methods.vote` and `methods.greedy`: a weighted mean of probabilities at each member's temperature."""

    def __init__(self, weights: np.ndarray, inverse_temperatures: np.ndarray | None) -> None:
        super().__init__()
        inverse = np.ones(len(weights)) if inverse_temperatures is None else inverse_temperatures
        self.weights = _constant(weights[:, None, None])
        self.inverse = _constant(inverse.astype(np.float32)[:, None, None])

    def forward(self, z: Tensor) -> Tensor:
        return _normalised(((z * self.inverse).softmax(-1).double() * self.weights).sum(dim=0))


class WeightedLogits(torch.nn.Module):
    """Of `methods.pool` and `methods.stack`: a softmax of weighted logits, weights (M,) or (M, C, C), and a bias per
    class."""

    def __init__(self, weights: np.ndarray, bias: np.ndarray | None) -> None:
        super().__init__()
        self.full = weights.ndim == 3
        weights = weights.astype(np.float32)
        self.weights = _constant(weights.transpose(0, 2, 1) if self.full else weights[:, None, None])
        self.bias = None if bias is None else _constant(bias)

    def forward(self, z: Tensor) -> Tensor:
        if self.bias is None:
            return (z * self.weights).sum(dim=0).double().softmax(-1)
        z = z - z.mean(dim=-1, keepdim=True)
        scores = (z @ self.weights if self.full else z * self.weights).sum(dim=0)
        return (scores.double() + self.bias).softmax(-1)


class BoostedTrees(torch.nn.Module):
    """Of `methods.trees`: all trees walk at once, each example of each tree one step down at a time."""

    def __init__(self, learned: Trees) -> None:
        super().__init__()
        self.beta, self.stages = learned.beta, learned.stages
        self.lean = _constant(learned.lean)
        first = np.arange(learned.stages)[:, None] * NODES  # of each tree, in the row of all nodes
        self.roots = _constant(first.ravel())
        is_leaf = learned.left < 0
        stay = first + np.arange(NODES)
        self.left = _constant(np.where(is_leaf, stay, first + learned.left).ravel())
        self.right = _constant(np.where(is_leaf, stay, first + learned.right).ravel())
        self.feature = _constant(learned.feature.ravel())
        self.threshold = _constant(learned.threshold.ravel())
        self.value = _constant(learned.value.ravel())

    def forward(self, z: Tensor) -> Tensor:
        scores = z.mean(dim=0).double() * self.beta
        if not self.stages:
            return scores.softmax(-1)
        lean = self.lean.expand(1, z.shape[1], -1)
        features = torch.cat([z.log_softmax(-1), lean]).flatten(1).T  # (N * C, M + 1)
        node = self.roots.expand(features.shape[0], -1)
        for _ in range(DEPTH):
            goes_left = features.gather(1, self.feature[node]) <= self.threshold[node]
            node = torch.where(goes_left, self.left[node], self.right[node])
        return (scores + self.value[node].sum(dim=1).reshape(scores.shape)).softmax(-1)


def _normalised(probabilities: Tensor) -> Tensor:
    return probabilities / probabilities.sum(dim=-1, keepdim=True)


def _constant(values: np.ndarray | Sequence[int]) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.tensor(np.ascontiguousarray(values)), requires_grad=False)

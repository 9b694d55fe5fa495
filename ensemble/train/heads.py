"""Linear probes: a classifier on frozen features, for all folds in one batched fit, its L2 strength chosen honestly.

The features are computed once. For each held-out fold k the strength is chosen on fits that leave out k and one more
fold j, scored on j; such a fit serves both k and j, so K (K - 1) / 2 of them suffice for all folds. All fits share one
matrix of features: a step of all of them is two matrix products, whatever their number.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ensemble.train.nested import inner_fits

STRENGTHS = tuple(10.0 ** (power / 2) for power in range(-10, 3))  # of L2, from 1e-5 to 10
FIRST = STRENGTHS.index(0.1)  # that is tried
MEMORY = 6  # of L-BFGS
TOLERANCE, ROUGH = 1e-4, 1e-3  # of the gradient's largest entry; ten times finer: 3x the time, equal log loss to 1e-4
MAX_STEPS = 200


@dataclass(frozen=True)
class Heads:
    """One linear classifier for each of K folds: logits = features @ weights[k].T + biases[k].

    weights: float32 (K, C, D)
    biases: float32 (K, C)
    strengths: K, the L2 strength of each
    """

    weights: torch.Tensor
    biases: torch.Tensor
    strengths: tuple[float, ...]


def fit_heads(
    features: torch.Tensor, labels: np.ndarray, folds: np.ndarray, classes: int, weights: np.ndarray | None = None
) -> Heads:
    """Multinomial regressions on standardised features, one for each fold, fitted on the rows of the others.

    features: float32 (V, N, D) on any device; every view of a row is a training row of its own.
    labels: int64 (N,).
    folds: int8 (N,), -1 for rows that are trained on in every fold.
    weights: of the rows, float64 (N,), or None.

    Minimised for each fold: mean weighted log loss + strength / 2 * the squared norm of the weights on features that
    have variance 1 over the fold's training rows (the biases are free).
    """
    count = int(folds.max()) + 1
    scaled = np.ones(len(labels)) if weights is None else weights / weights.max()  # float32 holds none of 1e-50 or 1e50
    outer = np.stack([scaled * (folds != fold) for fold in range(count)])
    inner, validations = inner_fits(labels, folds, scaled)
    mean = _Problem(features.mean(0, keepdim=True), labels, classes)  # the views' mean is enough to choose by
    strengths, starts = _choose(mean, inner, validations, count)
    problem = _Problem(features, labels, classes)
    start = mean.moved(starts, mean.row_weights(outer), problem, problem.row_weights(outer))
    found = problem.solve(outer, np.array(strengths), TOLERANCE, start)
    return Heads(*problem.unscaled(found, problem.row_weights(outer)), tuple(strengths))


def fit_head(
    features: torch.Tensor, labels: np.ndarray, classes: int, strength: float, weights: np.ndarray | None = None
) -> Heads:
    """One multinomial regression (K = 1) on all rows, of an L2 strength that was chosen before; else as `fit_heads`."""
    rows = np.ones((1, len(labels))) if weights is None else weights[None] / weights.max()
    problem = _Problem(features, labels, classes)
    found = problem.solve(rows, np.array([strength]), TOLERANCE)
    return Heads(*problem.unscaled(found, problem.row_weights(rows)), (strength,))


def _choose(
    problem: "_Problem", inner: np.ndarray, validations: Sequence[tuple[int, int, np.ndarray]], folds: int
) -> tuple[list[float], torch.Tensor]:
    """The strength of least held-out log loss for each fold, and the mean of the fits it was chosen by, as a start.

    validations: (which fit, for which fold, weights of the rows).

    It goes from 0.1 to weaker strengths until no fold gains, then to stronger ones. What is tried after a fold's first
    loss (one that did not gain) does not count for that fold, so that no fold learns how far the others went.
    """
    losses: dict[float, np.ndarray] = {}
    fits: dict[float, torch.Tensor] = {}

    def walk(strengths: Sequence[float], at: torch.Tensor | None) -> None:
        gaining = np.full(folds, True)
        for strength in strengths:
            at = fits[strength] = problem.solve(inner, np.full(len(inner), strength), ROUGH, at)
            row_losses = problem.row_losses(at, inner)
            new = np.zeros(folds)
            for fit, fold, rows in validations:
                new[fold] += (row_losses[fit] * rows).sum()
            least = np.min([np.full(folds, np.inf), *losses.values()], axis=0)
            losses[strength] = np.where(gaining, new, np.inf)
            gaining &= new <= least
            if not gaining.any():
                break

    walk(STRENGTHS[FIRST::-1], None)
    walk(STRENGTHS[FIRST + 1 :], fits[STRENGTHS[FIRST]])
    tried = list(losses)
    chosen = [tried[index] for index in np.argmin(np.stack(list(losses.values())), axis=0)]
    starts = [
        torch.stack([fits[strength][fit] for fit, fold, _ in validations if fold == chosen_for]).mean(0)
        for chosen_for, strength in enumerate(chosen)
    ]
    return chosen, torch.stack(starts)


class _Problem:
    """Features and labels of P regressions that differ in the weights of their rows, in their scaling and in their
    strength. Parameters: float32 (P, C, D + 1), the last column being the biases."""

    def __init__(self, features: torch.Tensor, labels: np.ndarray, classes: int) -> None:
        self.views, rows, self.dimensions = features.shape
        flat = features.reshape(self.views * rows, self.dimensions)
        # Centred and scaled over all rows only for the sake of the arithmetic: it changes no optimum, since the biases
        # are free and the penalty is put on each fit's own scale below.
        self.center = flat.mean(0)
        deviation = flat.std(0)
        constant = deviation <= 1e-5 * self.center.abs()  # to float32's rounding: left out
        self.scale = torch.where(constant, 1.0, deviation)
        self.features = torch.where(constant, 0.0, (flat - self.center) / self.scale)
        self.squares = self.features.square()
        target = torch.nn.functional.one_hot(torch.from_numpy(labels), classes).float()
        self.target = target.T.repeat(1, self.views).contiguous().to(features.device)  # (C, V N)
        self.gram = self.features.T @ self.features / len(flat)

    def row_weights(self, weights: np.ndarray) -> torch.Tensor:
        """Shares of each fit's rows, float32 (P, V N)."""
        rows = torch.from_numpy(weights).float().to(self.features.device).repeat(1, self.views)
        return rows / rows.sum(1, keepdim=True).clamp_min(torch.finfo(rows.dtype).tiny)  # all 0: learns nothing

    def spread(self, rows: torch.Tensor) -> torch.Tensor:
        """Each fit's standard deviation of each feature over its own rows, on the common scale: (P, D). It is infinite,
        which leaves the feature out, where that is below 0.01: one that is 0 on all of them, and only on them, would
        be a second bias there, and 3,000 on the row that has it."""
        variance = rows @ self.squares - (rows @ self.features).square()
        return torch.where(variance > 1e-4, variance.sqrt(), torch.inf)

    def unscaled(self, at: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(P, C, D) and (P, C): the parameters for the features as they came."""
        slopes = at[:, :, :-1] / (self.spread(rows) * self.scale)[:, None]
        return slopes, at[:, :, -1] - slopes @ self.center

    def moved(self, at: torch.Tensor, rows: torch.Tensor, other: "_Problem", others: torch.Tensor) -> torch.Tensor:
        """The same classifiers as parameters of another problem on the same features."""
        slopes, biases = self.unscaled(at, rows)
        scaled = slopes * (other.spread(others) * other.scale)[:, None]
        scaled = torch.where(scaled.isfinite(), scaled, 0.0)
        return torch.cat([scaled, (biases + slopes @ other.center)[:, :, None]], 2)

    def row_losses(self, at: torch.Tensor, weights: np.ndarray) -> np.ndarray:
        """Log loss of each row under each fit: float64 (P, V N)."""
        logits = self._logits(at, self.spread(self.row_weights(weights)))
        return (torch.logsumexp(logits, 1) - (logits * self.target).sum(1)).double().cpu().numpy()

    def _logits(self, at: torch.Tensor, spread: torch.Tensor) -> torch.Tensor:
        """(P, C, V N)."""
        slopes = (at[:, :, :-1] / spread[:, None]).view(-1, self.dimensions)
        return (slopes @ self.features.T).view(*at.shape[:2], -1).add_(at[:, :, -1:])

    def solve(
        self, weights: np.ndarray, strengths: np.ndarray, tolerance: float, start: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The optimum of each fit, by L-BFGS (Nocedal 1980) on all at once, each with its own step length.

        Its first metric is the inverse of Boehning's bound on the Hessian (1992): half the features' second moments
        plus the strength.
        """
        rows = self.row_weights(weights)
        spread = self.spread(rows)
        strength = torch.from_numpy(strengths).float().to(rows.device)
        at = rows.new_zeros(len(rows), len(self.target), self.dimensions + 1) if start is None else start
        inverses = {}
        for value in set(strengths.tolist()):
            bound = 0.5 * self.gram
            bound.diagonal().add_(value + 2e-7 * self.dimensions)  # where features are collinear, rounding is as large
            inverses[value] = torch.cholesky_inverse(torch.linalg.cholesky(bound))
        groups = {value: torch.from_numpy(np.flatnonzero(strengths == value)).to(rows.device) for value in inverses}

        def metric(gradient: torch.Tensor) -> torch.Tensor:
            out = 2 * gradient
            for value, which in groups.items():
                out[which, :, :-1] = gradient[which, :, :-1] @ inverses[value]
            return out

        def value_and_gradient(at: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            logits = self._logits(at, spread)
            logits -= logits.amax(1, keepdim=True)
            values = -(logits * self.target).sum(1)
            exponents = logits.exp_()
            total = exponents.sum(1, keepdim=True)
            values += total.squeeze(1).log()
            residual = exponents.div_(total).sub_(self.target).mul_(rows[:, None])
            gradient = torch.empty_like(at)
            slopes = (residual.view(-1, residual.shape[2]) @ self.features).view(*at.shape[:2], -1)
            gradient[:, :, :-1] = slopes / spread[:, None] + strength[:, None, None] * at[:, :, :-1]
            gradient[:, :, -1] = residual.sum(2)
            penalty = 0.5 * strength * at[:, :, :-1].square().sum((1, 2))
            return (values * rows).sum(1) + penalty, gradient

        return minimize(value_and_gradient, metric, at, tolerance)


def minimize(
    value_and_gradient: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]],
    metric: Callable[[torch.Tensor], torch.Tensor],
    at: torch.Tensor,
    tolerance: float,
) -> torch.Tensor:
    """L-BFGS on P smooth convex functions at once. at: (P, ...). Returns the points where the largest entry of each
    gradient is below `tolerance`, or where no step helps any more (float32's end)."""

    def dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a * b).flatten(1).sum(1)

    def spread_out(numbers: torch.Tensor) -> torch.Tensor:
        return numbers.view(-1, *[1] * (at.ndim - 1))

    value, gradient = value_and_gradient(at)
    history: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    for _ in range(MAX_STEPS):
        if (gradient.abs().flatten(1).amax(1) < tolerance).all():
            break
        direction = gradient.clone()
        shares = []
        for step, gradient_change, inverse in reversed(history):
            share = inverse * dot(step, direction)
            direction -= spread_out(share) * gradient_change
            shares.append(share)
        direction = metric(direction)
        for (step, gradient_change, inverse), share in zip(history, reversed(shares), strict=True):
            direction += spread_out(share - inverse * dot(gradient_change, direction)) * step
        slope = dot(gradient, direction)
        length = torch.ones_like(value)
        for _ in range(10):
            trial = at - spread_out(length) * direction
            new_value, new_gradient = value_and_gradient(trial)
            too_long = new_value > value - 1e-4 * length * slope
            if not too_long.any():
                break
            length = torch.where(too_long, length / 2, length)
        stuck = new_value > value  # rounding decides now: these stay where they are
        length = torch.where(stuck, 0.0, length)
        if stuck.all():
            break
        trial = torch.where(spread_out(stuck), at, trial)
        new_gradient = torch.where(spread_out(stuck), gradient, new_gradient)
        step, gradient_change = trial - at, new_gradient - gradient
        curvature = dot(step, gradient_change)
        inverse = torch.where(curvature > 1e-12, 1 / curvature.clamp_min(1e-12), 0.0)
        history = [*history[-MEMORY + 1 :], (step, gradient_change, inverse)]
        at, value, gradient = trial, torch.where(stuck, value, new_value), new_gradient
    return at

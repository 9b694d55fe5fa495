"""Hyper-parameters of classifiers on frozen features, chosen for each fold on the other folds only.

For each held-out fold k a candidate is scored on fits that leave out k and one more fold j, on the rows of j; such a
fit serves both k and j, so that K (K - 1) / 2 of them suffice.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch

Validation = tuple[int, int, np.ndarray]  # which inner fit, for which fold, weights of the rows that score it
Logits = Callable[[torch.Tensor, torch.Tensor], list[torch.Tensor]]  # row weights (N,), rows (n,) -> each candidate's


def inner_fits(labels: np.ndarray, folds: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, list[Validation]]:
    """The row weights of each inner fit, float64 (P, N), and what scores it.

    labels: int64 (N,).
    folds: int8 (N,), -1 for rows that are trained on in every fold.
    weights: float64 (N,), of the rows.
    """
    count = int(folds.max()) + 1
    if count > 2:
        pairs = [(j, k) for k in range(count) for j in range(k)]
        inner = np.stack([weights * ((folds != j) & (folds != k)) for j, k in pairs])
        validations = [(pair, k, weights * (folds == j)) for pair, (j, k) in enumerate(pairs)]
        validations += [(pair, j, weights * (folds == k)) for pair, (j, k) in enumerate(pairs)]
        return inner, validations
    halves = np.zeros((count, 2, len(labels)))  # two folds leave no rows without both: each fold's rows are halved
    for k in range(count):
        rows = np.flatnonzero(folds != k)
        rows = rows[np.argsort(labels[rows], kind="stable")]  # each class is halved
        halves[k, 0, rows[::2]] = halves[k, 1, rows[1::2]] = 1
    inner = np.concatenate([weights * half for half in halves])
    validations = [(2 * k + side, k, weights * halves[k, 1 - side]) for k in range(count) for side in (0, 1)]
    return inner, validations


def choose(
    logits: Logits, candidates: int, labels: np.ndarray, folds: np.ndarray, weights: np.ndarray
) -> list[tuple[int, float]]:
    """For each fold the candidate of least log loss on the other folds, each at its best temperature, and what its
    logits are then multiplied with.

    logits: gives the logits of these rows, float32 (n, C), by each candidate's fit of these row weights.
    """
    inner, validations = inner_fits(labels, folds, weights)
    of_fold: dict[int, list[list[torch.Tensor]]] = {}
    rows_of: dict[int, list[np.ndarray]] = {}
    for number, fit in enumerate(inner):
        served = [(fold, np.flatnonzero(rows)) for pair, fold, rows in validations if pair == number]
        together = np.concatenate([rows for _, rows in served])
        every = logits(torch.from_numpy(fit).float(), torch.from_numpy(together))
        start = 0
        for fold, rows in served:
            of_fold.setdefault(fold, []).append([each[start : start + len(rows)] for each in every])
            rows_of.setdefault(fold, []).append(rows)
            start += len(rows)
    found = []
    for fold in sorted(of_fold):
        rows = np.concatenate(rows_of[fold])
        of_candidates = [torch.cat([part[c] for part in of_fold[fold]]) for c in range(candidates)]
        fits = [
            sharpest(each, torch.from_numpy(labels[rows]), torch.from_numpy(weights[rows])) for each in of_candidates
        ]
        best = int(np.argmin([loss for loss, _ in fits]))
        found.append((best, fits[best][1]))
    return found


def sharpest(logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> tuple[float, float]:
    """The least weighted log loss of logits (n, C) times a factor from exp(-8) to exp(5), and that factor, by golden
    section: the loss has one minimum."""
    values, labels, weights = logits.double().cpu(), labels.cpu(), weights.double().cpu()

    def loss(exponent: float) -> float:
        losses = torch.nn.functional.cross_entropy(values * float(np.exp(exponent)), labels, reduction="none")
        return float((losses * weights).sum() / weights.sum())

    low, high, golden = -8.0, 5.0, (5**0.5 - 1) / 2
    at = [high - golden * (high - low), low + golden * (high - low)]
    of = [loss(at[0]), loss(at[1])]
    while high - low > 1e-3:
        if of[0] < of[1]:
            high, at[1], of[1] = at[1], at[0], of[0]
            at[0] = high - golden * (high - low)
            of[0] = loss(at[0])
        else:
            low, at[0], of[0] = at[0], at[1], of[1]
            at[1] = low + golden * (high - low)
            of[1] = loss(at[1])
    middle = (low + high) / 2
    return loss(middle), float(np.exp(middle))


def fit_folds(
    build: Callable[[torch.Tensor, int, float], torch.nn.Module],
    chosen: Sequence[tuple[int, float]],
    folds: np.ndarray,
    weights: np.ndarray,
) -> list[torch.nn.Module]:
    """The classifier of each fold, built from row weights, its candidate and the factor of its logits."""
    return [
        build(torch.from_numpy(weights * (folds != fold)).float(), candidate, factor)
        for fold, (candidate, factor) in enumerate(chosen)
    ]

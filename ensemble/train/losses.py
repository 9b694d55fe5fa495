"""Losses of single-label classification: one value a row, so that sample weights and mixup apply outside.

A step's loss is the mean over its rows of weight x row loss, with the weights of `row_weights`. It is not divided by
the batch's own sum of weights: that would make a batch of light rows step as far as one of heavy rows. Two targets that
are mixed are two calls: share * loss(z, y) + (1 - share) * loss(z, y[partner]).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from ensemble.config import Train
from ensemble.errors import UserError
from ensemble.train.rows import Rows

LOSSES = ("cross_entropy", "focal", "class_balanced", "logit_adjusted")
BETA = 0.999  # of class_balanced
TAU = 1.0  # of logit_adjusted

# Logits (B, C) and labels int64 (B,), or probabilities float32 (B, C) in their place -> float32 (B,)
RowLosses = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class FoldLoss:
    """What one fold minimises.

    row_losses: the loss of each row of a batch.
    row_weights: what each row's loss is multiplied with, float32 (N,); 0 for rows that are held out.
    log_prior: float64 (C,), to be added to the network's logits where held-out rows are scored. 0 for all losses but
        "logit_adjusted", whose bare logits are those of balanced classes.
    """

    row_losses: RowLosses
    row_weights: np.ndarray
    log_prior: np.ndarray


def fold_loss(rows: Rows, fold: int, settings: Train, device: torch.device) -> FoldLoss:
    """The loss of a fold's training rows. Raises UserError if all those with a label weigh 0."""
    train_rows = rows.labelled().train_rows(fold)
    weights = np.zeros(len(rows.ids), dtype=np.float32)
    weights[train_rows] = row_weights(rows.weights, train_rows)
    counts = class_counts(rows.labels, train_rows, weights[train_rows], len(rows.classes))
    total: float = len(train_rows)
    if rows.soft is not None:  # the classes' shares are those of all that is learned from
        weights[rows.labelled_count :] = rows.soft.weights[fold]
        counts += rows.soft.weights[fold] @ rows.soft.probabilities[fold]
        total += float(rows.soft.weights[fold].sum())
    row_losses = make_loss(settings.loss, counts, device, settings.label_smoothing, settings.focal_gamma)
    adjusted = settings.loss == "logit_adjusted"
    log_prior = np.log(np.maximum(counts, 0.5) / total) if adjusted else np.zeros(len(counts))
    return FoldLoss(row_losses, weights, log_prior)


def make_loss(
    kind: str, counts: np.ndarray, device: torch.device, smoothing: float = 0.0, gamma: float = 2.0
) -> RowLosses:
    """One fold's loss: a function of logits (B, C), of any float type, and labels int64 (B,) to float32 (B,).

    In place of labels it takes probabilities q, float32 (B, C): their loss is sum_c q_c loss(z, c), the mean of the
    labels' losses, of each of the four. Label smoothing is thus laid over such targets too.

    counts: float64 (C,), the weight of each class in the fold's training rows (`class_counts`). smoothing: label
    smoothing s, the target (1 - s) on the label plus s / C on every class. gamma: of the focal loss.

    - "cross_entropy": -sum_c q_c log p_c, of the smoothed target q.
    - "focal" (Lin et al., Focal loss for dense object detection, ICCV 2017), for softmax:
      -sum_c q_c (1 - p_c)^gamma log p_c. It is linear in the target, as mixup needs it, and cross entropy at gamma 0.
      It is no proper score: its probabilities are too modest, which the blend's temperatures mend.
    - "class_balanced" (Cui et al., Class-balanced loss based on effective number of samples, CVPR 2019): cross entropy
      times the weight of the label's class, (1 - beta) / (1 - beta^n) with beta 0.999, scaled to mean 1 over the
      training rows. It runs from 1 / n for small classes to no difference between large ones.
    - "logit_adjusted" (Menon et al., Long-tail learning via logit adjustment, ICLR 2021): cross entropy of
      z + log(prior), the prior being the class's share of the counts. The bare logits z, which evaluation writes, are
      then those of classes that are equally frequent: made for balanced accuracy and macro recall. On rows with the
      training set's shares the log loss and the accuracy of softmax(z) are worse than those of cross entropy, by
      construction and not by failure; z + log(prior) is what those rows call for. `ens blend` fits class biases where
      they pay, and so gives the prior back; single members are scored as they are.

    A class without a row is never a label here. It weighs 0 in class_balanced, and logit_adjusted takes it for half a
    row, so that its logit is still pressed down instead of never learned.
    """
    counts = np.asarray(counts, dtype=np.float64)
    if counts.ndim != 1 or not np.isfinite(counts).all() or counts.min() < 0 or counts.sum() <= 0:
        raise ValueError(f"counts must be finite numbers of 0 or more, one per class, not all 0: {counts}")

    def mean_of_labels(each: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """each: the loss (B, C) of each label without smoothing. targets: (B, C), of any sum."""
        return (1 - smoothing) * (each * targets).sum(1) + smoothing * each.mean(1) * targets.sum(1)

    def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        # float() first: in bfloat16 the log of a sum keeps three digits
        if labels.ndim == 2:
            return mean_of_labels(-logits.float().log_softmax(1), labels)
        return F.cross_entropy(logits.float(), labels, reduction="none", label_smoothing=smoothing)

    def focal(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        log_p = logits.float().log_softmax(1)
        # expm1 keeps 1 - p where p is nearly 1; the least value keeps the slope of a gamma below 1 finite at p = 1
        others = (-torch.expm1(log_p)).clamp_min(torch.finfo(torch.float32).tiny)
        each = -(others**gamma) * log_p
        if labels.ndim == 2:
            return mean_of_labels(each, labels)
        of_label = each.gather(1, labels[:, None]).squeeze(1)
        return (1 - smoothing) * of_label + smoothing * each.mean(1) if smoothing else of_label

    if kind == "cross_entropy":
        return cross_entropy
    if kind == "focal":
        return focal
    if kind == "class_balanced":
        weights = _on(class_balanced_weights(counts), device)

        def class_balanced(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            if labels.ndim == 2:
                return cross_entropy(logits, weights * labels)
            return weights[labels] * cross_entropy(logits, labels)

        return class_balanced
    if kind == "logit_adjusted":
        prior = np.maximum(counts, 0.5) / np.maximum(counts, 0.5).sum()
        shift = _on(TAU * np.log(prior), device)
        return lambda logits, labels: cross_entropy(logits.float() + shift, labels)
    raise ValueError(f"no loss is named {kind!r}; there are: {', '.join(LOSSES)}")


def class_balanced_weights(counts: np.ndarray, beta: float = BETA) -> np.ndarray:
    """Weight of each class by its effective number of samples (Cui et al. 2019), float64 (C,): of mean 1 over the rows
    that `counts` counts; 0 for a class without rows."""
    effective = -np.expm1(counts * np.log(beta)) / (1 - beta)
    weights = np.divide(1.0, effective, out=np.zeros_like(effective), where=counts > 0)
    return np.asarray(weights * (counts.sum() / (counts * weights).sum()))


def row_weights(weights: np.ndarray | None, train_rows: np.ndarray) -> np.ndarray:
    """What each training row's loss is multiplied with, float32 (len(train_rows),): its sample weight, scaled so that
    the training rows have mean 1 and no learning rate depends on the weights' unit; ones without weights.

    weights: float64 (N,) of all rows, or None. train_rows: int64, rows of this fold's training part. Raises UserError
    if all of them weigh 0.
    """
    if weights is None:
        return np.ones(len(train_rows), dtype=np.float32)
    chosen = weights[train_rows] / max(weights[train_rows].max(), np.finfo(np.float64).tiny)  # no sum overflows
    if not chosen.any():
        raise UserError(f"all {len(train_rows)} training rows of a fold have a sample weight of 0: nothing to learn")
    return np.asarray(chosen / chosen.mean(), dtype=np.float32)


def class_counts(labels: np.ndarray, train_rows: np.ndarray, weights: np.ndarray, classes: int) -> np.ndarray:
    """The weight of each class in the training rows, float64 (classes,); it adds up to the number of rows.

    labels: int64 (N,) of all rows. weights: (len(train_rows),), those of `row_weights`.
    """
    return np.bincount(labels[train_rows], weights=weights, minlength=classes).astype(np.float64)


def _on(values: np.ndarray, device: torch.device) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device)

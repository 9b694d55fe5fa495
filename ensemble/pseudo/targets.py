"""What a student is to answer for an image without a label, and how much that counts."""

import numpy as np
import torch

from ensemble.blend.probabilities import softmax
from ensemble.config import Train
from ensemble.train.losses import fold_loss
from ensemble.train.rows import Rows, SoftTargets


def log_priors(rows: Rows) -> np.ndarray:
    """What "logit_adjusted" leaves out of each fold's logits, float32 (K, C): the logarithms of the classes'
    shares in its training rows."""
    folds, settings = range(rows.fold_count), Train(loss="logit_adjusted")
    return np.stack([fold_loss(rows, fold, settings, torch.device("cpu")).log_prior for fold in folds]).astype(
        np.float32
    )


def soft_targets(logits: np.ndarray, allowed: np.ndarray, power: float, weight: float) -> SoftTargets:
    """The targets of each fold's student, of the logits float32 (K, U, C) of that fold's teachers alone.

    allowed: bool (K, U), whether a fold may learn from an image at all.
    power: the probabilities are raised to it and divided by their sum: 1 leaves them soft, above 1 sharpens them.
    weight: what an image counts that its teachers are as sure of as they usually are of its class, where a labelled
        row counts 1. One that they are less sure of counts in proportion: its class's mean, and not one number for all
        classes, says what is usual, so that rare classes, of which networks are less sure, are not left out (as
        FlexMatch's thresholds: Zhang et al., NeurIPS 2021).
    """
    confidence = softmax(logits.astype(np.float64)).max(axis=2)
    likeliest = logits.argmax(axis=2)
    weights = np.zeros(allowed.shape)
    for fold, seen in enumerate(allowed):
        for label in np.unique(likeliest[fold, seen]):
            of_class = seen & (likeliest[fold] == label)
            usual = confidence[fold, of_class].mean()
            weights[fold, of_class] = weight * np.minimum(confidence[fold, of_class] / usual, 1)
    return SoftTargets(softmax(power * logits.astype(np.float64)).astype(np.float32), weights.astype(np.float32))

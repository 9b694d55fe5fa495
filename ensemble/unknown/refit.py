"""Linear classifiers on the frozen features, fitted without a class."""

import numpy as np
import torch

from ensemble.train.heads import fit_head

STRENGTH = 0.03  # of L2: what nested cross-validation chose for three networks on the paintings (0.01 to 0.03)


def logits_without(
    features: np.ndarray, rows: np.ndarray, labels: np.ndarray, folds: np.ndarray, device: torch.device
) -> np.ndarray:
    """Logits of all rows, float32 (N, C), each by the classifier that was not fitted on the row's fold.

    features: float32 (N, D).
    rows: bool (N,), the n rows that classifiers are fitted on.
    labels: int64 (n,), their classes, numbered from 0.
    folds: int64 (N,), in which each row was held out.
    """
    classes = int(labels.max()) + 1
    given = torch.from_numpy(features[rows][None]).to(device)
    logits = np.empty((len(features), classes), dtype=np.float32)
    for fold in np.unique(folds):
        others = (folds[rows] != fold).astype(np.float64)
        head = fit_head(given, labels, classes, STRENGTH, others)
        held_out = torch.from_numpy(features[folds == fold]).to(device)
        logits[folds == fold] = (held_out @ head.weights[0].T + head.biases[0]).cpu().numpy()
    return logits

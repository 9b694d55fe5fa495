"""The scores that `ensemble.ood.choose` chooses among and adds up: each says in its way how unlike the training rows an
image is, larger being more unlike. All are of the networks of one fold, compared with the rows that those were trained
on.
"""

from dataclasses import dataclass

import numpy as np

from ensemble.blend.probabilities import softmax

ENERGY, ENTROPY, DISAGREEMENT = "energy", "entropy", "disagreement"
LOGITS, FEATURES = "logit neighbours", "feature neighbours"
NEAREST = {LOGITS: 5, FEATURES: 50}  # which neighbour's distance counts, where classes have four times as many rows
TINY = np.finfo(np.float32).tiny


@dataclass(frozen=True)
class Bank:
    """Training rows to be compared with: standardised, and of length 1.

    mean: float32 (D,), of the rows
    scale: float32 (D,), what they are multiplied with after it is subtracted
    rows: float32 (N, D)
    """

    mean: np.ndarray
    scale: np.ndarray
    rows: np.ndarray

    def cosines(self, rows: np.ndarray) -> np.ndarray:
        """Cosines of other rows, float32 (n, D), with those of the bank: float32 (n, N)."""
        return np.asarray(unit((rows - self.mean) * self.scale) @ self.rows.T)


def bank_of(rows: np.ndarray, among: np.ndarray | slice = slice(None)) -> Bank:
    """The bank of these rows.

    rows: float32 (N, D).
    among: bool (N,), the rows whose mean and deviation are taken.
    """
    mean, deviation = rows[among].mean(axis=0), rows[among].std(axis=0)
    scale = np.where(deviation > 1e-6 * np.abs(mean), 1 / np.maximum(deviation, TINY), 0).astype(np.float32)
    return Bank(mean, scale, unit((rows - mean) * scale))


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1; those that are 0 stay so."""
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), TINY))


def neighbour_distance(cosines: np.ndarray, allowed: np.ndarray, nearest: int) -> np.ndarray:
    """1 - the cosine of the nearest-th of the allowed rows (Sun et al., Out-of-distribution detection with deep nearest
    neighbors, ICML 2022), float64 (n,).

    cosines: float (n, N).
    allowed: bool (N,), the rows that count.
    nearest: which neighbour's distance is taken, from 1 on.
    """
    among = cosines[:, allowed]
    nearest = min(nearest, among.shape[1])
    return np.asarray(1 - np.partition(among, -nearest, axis=1)[:, -nearest], dtype=np.float64)


def nearest_of(part: str, rows: int, classes: int) -> int:
    """Which neighbour's distance counts: with few rows a nearer one, so that it is of the image's own class.

    part: LOGITS or FEATURES.
    rows, classes: how many there are.
    """
    return max(1, min(NEAREST[part], rows // (4 * classes)))


def centred(z: np.ndarray) -> np.ndarray:
    """The members' logits (M, n, C) side by side, each member's with the mean 0: float32 (n, M C)."""
    each = z - z.mean(axis=-1, keepdims=True)
    return np.ascontiguousarray(each.transpose(1, 0, 2).reshape(z.shape[1], -1), dtype=np.float32)


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """Shannon entropy in nats, (...), of probabilities (..., C)."""
    return np.asarray(-(probabilities * np.log(np.maximum(probabilities, TINY))).sum(axis=-1))


def of_logits(z: np.ndarray) -> dict[str, np.ndarray]:
    """The scores that need nothing but the members' logits, float (M, n, C): name -> float64 (n,)."""
    z = z.astype(np.float64)
    each, mean = softmax(z), z.mean(axis=0)
    largest = mean.max(axis=-1)
    return {
        # Of the logits' level (Liu et al., Energy-based out-of-distribution detection, NeurIPS 2020).
        ENERGY: -largest - np.log(np.exp(mean - largest[..., None]).sum(axis=-1)),
        ENTROPY: entropy(softmax(mean)),
        # Mutual information of the class and the member (Lakshminarayanan et al., NeurIPS 2017).
        DISAGREEMENT: entropy(each.mean(axis=0)) - entropy(each).mean(axis=0),
    }

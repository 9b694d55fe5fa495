"""Directing a blend at a metric: one bias a class, added to the blend's log-probabilities before the largest is taken.

Three families, from simple to free: no bias; a power of the class frequencies (one number: Menon et al., "Long-tail
Learning via Logit Adjustment", ICLR 2021); each class's bias by coordinate ascent on the metric itself. A freer one
is taken only where it gains, on held-out folds, more than the standard error of its gain.
"""

import numpy as np

from ensemble.blend.metrics import macro_f1_of

POWERS = (-0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0, 1.25)
STEPS = (-0.1, 0.1, -0.2, 0.2, -0.4, 0.4, -0.8, 0.8, -1.6, 1.6)  # of equal scores the first, so the smallest, wins
PASSES = 3
MOST_WORK = 2_000_000_000  # numbers read in one pass over the classes; beyond it only the one-number family is tried


def fit(log_probs: np.ndarray, labels: np.ndarray, folds: np.ndarray, metric: str) -> tuple[np.ndarray, str]:
    """Bias float64 (C,) for `metric` (accuracy or macro_f1), and its family: "none", "frequency" or "class".

    log_probs: float64 (N, C). folds: int64 (N,), at least two numbers, else the answer is no bias.
    """
    rows, classes = log_probs.shape
    numbers = np.unique(folds)
    families = ("none", "frequency", "class") if rows * classes**2 <= MOST_WORK else ("none", "frequency")
    if len(numbers) < 2:
        return np.zeros(classes), "none"
    held = np.zeros((len(families), len(numbers)))
    for j, number in enumerate(numbers):
        train, test = folds != number, folds == number
        for i, family in enumerate(families):
            bias = _bias(family, log_probs[train], labels[train], metric)
            held[i, j] = score(metric, labels[test], (log_probs[test] + bias).argmax(axis=1), classes)
    chosen = 0
    for i in range(1, len(families)):
        gain = held[i] - held[chosen]
        if gain.mean() > gain.std(ddof=1) / np.sqrt(len(numbers)):
            chosen = i
    return _bias(families[chosen], log_probs, labels, metric), families[chosen]


def apply(bias: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """Probabilities (N, C) times exp(bias), each row divided by its sum."""
    out = probs * np.exp(bias)
    return np.asarray(out / out.sum(axis=1, keepdims=True))


def score(metric: str, labels: np.ndarray, predicted: np.ndarray, classes: int) -> float:
    """Accuracy or macro F1 of predicted classes int64 (N,)."""
    if metric == "accuracy":
        return float((predicted == labels).mean())
    return macro_f1_of(labels, predicted, classes)


def _bias(family: str, log_probs: np.ndarray, labels: np.ndarray, metric: str) -> np.ndarray:
    classes = log_probs.shape[1]
    if family == "none":
        return np.zeros(classes)
    start = _frequency(log_probs, labels, metric)
    return start if family == "frequency" else _ascend(log_probs, labels, metric, start)


def _frequency(log_probs: np.ndarray, labels: np.ndarray, metric: str) -> np.ndarray:
    """-power * log(class frequency), the power by a grid; of equal scores, the one nearest to no bias."""
    classes = log_probs.shape[1]
    log_share = np.log((np.bincount(labels, minlength=classes) + 1) / (len(labels) + classes))

    def rank(power: float) -> tuple[float, float]:
        predicted = (log_probs - power * log_share).argmax(axis=1)
        return round(score(metric, labels, predicted, classes), 12), -abs(power)

    bias = -max(POWERS, key=rank) * log_share
    return np.asarray(bias - bias.mean())


def _ascend(log_probs: np.ndarray, labels: np.ndarray, metric: str, start: np.ndarray) -> np.ndarray:
    """Coordinate ascent on the metric: the best of STEPS for each class in turn, until a pass gains nothing."""
    rows, classes = log_probs.shape
    bias = start.copy()
    scores = log_probs + bias
    best = score(metric, labels, scores.argmax(axis=1), classes)
    for _ in range(PASSES):
        before = best
        for c in range(classes):
            own = scores[:, c].copy()
            scores[:, c] = -np.inf
            other = scores.argmax(axis=1)
            lead = scores[np.arange(rows), other] - own  # what class c lacks to be predicted
            trials = [score(metric, labels, np.where(step > lead, c, other), classes) for step in STEPS]
            top = int(np.argmax(trials))
            if trials[top] > best + 1e-12:
                best, own = trials[top], own + STEPS[top]
                bias[c] += STEPS[top]
            scores[:, c] = own
        if best <= before:
            break
    return np.asarray(bias - bias.mean())

"""The metric bias of a blend that is for another metric than log loss.

One bias per class is added to the blend's log-probabilities before the largest is taken.

Three families, from simple to free: no bias; a power of the class frequencies (one number: Menon et al., "Long-tail
Learning via Logit Adjustment", ICLR 2021); each class's bias by coordinate ascent on the metric itself. A freer one
is taken only where it gains, on held-out folds, more than the standard error of its gain.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ensemble.blend.params import array, one_of
from ensemble.blend.probabilities import biased
from ensemble.scoring.counts import ClassCounts, class_counts
from ensemble.scoring.metrics import METRICS

FAMILIES = {
    "none": "no class bias paid on held-out folds, so there is none",
    "frequency": "classes shifted by a power of their frequency",
    "class": "one bias per class",
}

POWERS = (-0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0, 1.25)
STEPS = np.array([-1.6, -0.8, -0.4, -0.2, -0.1, 0.0, 0.1, 0.2, 0.4, 0.8, 1.6])
PASSES = 3
MOST_WORK = 200_000_000  # numbers read in one pass over the classes; beyond it only the one-number family is tried


@dataclass(frozen=True)
class MetricBias:
    """What is learned for the metric.

    metric_bias: float64 (C,), what is added to each class's log-probability.
    metric_bias_family: one of FAMILIES.
    """

    metric_bias: np.ndarray
    metric_bias_family: str


def fit(
    log_probs: np.ndarray, labels: np.ndarray, folds: np.ndarray, metric: str, weights: np.ndarray | None = None
) -> MetricBias:
    """The bias for `metric`, one of counts of the predicted classes.

    log_probs: float64 (N, C). folds: int64 (N,), at least two numbers, else the answer is no bias. weights: float (N,),
    what each row counts; 1 where they are not given.
    """
    classes = log_probs.shape[1]
    numbers = np.unique(folds)
    work = classes * (len(labels) + len(STEPS) * classes)
    families = tuple(FAMILIES) if work <= MOST_WORK else ("none", "frequency")
    if len(numbers) < 2:
        return MetricBias(np.zeros(classes), "none")
    every = np.ones(len(labels)) if weights is None else weights
    held = np.zeros((len(families), len(numbers)))
    for j, number in enumerate(numbers):
        train, test = folds != number, folds == number
        for i, family in enumerate(families):
            bias = _bias(family, log_probs[train], labels[train], metric, every[train])
            held[i, j] = score(metric, labels[test], (log_probs[test] + bias).argmax(axis=1), classes, every[test])
    chosen = 0
    for i in range(1, len(families)):
        gain = held[i] - held[chosen]
        if gain.mean() > gain.std(ddof=1) / np.sqrt(len(numbers)):
            chosen = i
    return MetricBias(_bias(families[chosen], log_probs, labels, metric, every), families[chosen])


def apply(learned: MetricBias, probs: np.ndarray) -> np.ndarray:
    """Probabilities (N, C) with the bias, rows sum to 1."""
    return biased(learned.metric_bias, probs)


def load(params: Mapping[str, Any], classes: int) -> MetricBias | None:
    """None where a blend has none. Raises ValueError for what is no bias of `classes` classes."""
    if "metric_bias" not in params:
        return None
    bias = array(params, "metric_bias", (classes,))
    return MetricBias(bias, one_of(params, "metric_bias_family", FAMILIES))


def score(
    metric: str, labels: np.ndarray, predicted: np.ndarray, classes: int, weights: np.ndarray | None = None
) -> float:
    """The metric of predicted classes int64 (N,)."""
    return float(METRICS[metric].score(class_counts(labels, predicted, classes, weights)))


def _bias(family: str, log_probs: np.ndarray, labels: np.ndarray, metric: str, weights: np.ndarray) -> np.ndarray:
    if family == "none":
        return np.zeros(log_probs.shape[1])
    start = _frequency(log_probs, labels, metric, weights)
    return start if family == "frequency" else _ascend(log_probs, labels, metric, weights, start)


def _frequency(log_probs: np.ndarray, labels: np.ndarray, metric: str, weights: np.ndarray) -> np.ndarray:
    """-power * log(class frequency), the power by a grid; of equal scores, the one nearest to no bias."""
    classes = log_probs.shape[1]
    log_share = np.log((np.bincount(labels, minlength=classes) + 1) / (len(labels) + classes))

    def rank(power: float) -> tuple[float, float]:
        predicted = (log_probs - power * log_share).argmax(axis=1)
        return round(score(metric, labels, predicted, classes, weights), 12), -abs(power)

    bias = -max(POWERS, key=rank) * log_share
    return np.asarray(bias - bias.mean())


def _ascend(
    log_probs: np.ndarray, labels: np.ndarray, metric: str, weights: np.ndarray, start: np.ndarray
) -> np.ndarray:
    """Coordinate ascent on the metric: the best of STEPS for each class in turn, until a pass gains nothing.

    A class's step decides only which rows go to it from the best of the other classes, so that a pass costs few looks
    at the scores of all classes, and all steps are scored at once from counts.
    """
    rows, classes = log_probs.shape
    scores = np.ascontiguousarray((log_probs + start).T)  # (C, N): a class's scores side by side
    predicted = scores.argmax(axis=0)
    top = scores[predicted, np.arange(rows)]
    true = np.bincount(labels, weights, minlength=classes)
    bias, best = start.copy(), score(metric, labels, predicted, classes, weights)
    for _ in range(PASSES):
        before = best
        for c in range(classes):
            other, height = predicted.copy(), top.copy()  # the best class but c
            rows_of_c = np.flatnonzero(predicted == c)
            rest = scores[:, rows_of_c]
            rest[c] = -np.inf
            other[rows_of_c] = rest.argmax(axis=0)
            height[rows_of_c] = rest[other[rows_of_c], np.arange(len(rows_of_c))]
            gone, hit = _taken(height - scores[c], other, labels, weights, classes)
            left = np.bincount(other, weights, minlength=classes) - gone
            right = np.bincount(other[other == labels], weights[other == labels], minlength=classes) - hit
            left[:, c], right[:, c] = gone.sum(axis=1), hit[:, c]
            right[:, c] = _taken_right(height - scores[c], labels == c, weights)
            squares = _squares(height - scores[c], other, c, labels, weights)
            trials = np.round(METRICS[metric].score(ClassCounts(right, left, true, squares)), 12)
            step = max(range(len(STEPS)), key=lambda i: (trials[i], -abs(STEPS[i])))
            if trials[step] > best + 1e-12:
                best = float(trials[step])
                bias[c] += STEPS[step]
                scores[c] += STEPS[step]
                mine = scores[c] > height
                predicted, top = np.where(mine, c, other), np.where(mine, scores[c], height)
        if best <= before:
            break
    return np.asarray(bias - bias.mean())


def _taken(
    lead: np.ndarray, other: np.ndarray, labels: np.ndarray, weights: np.ndarray, classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """For each step, per class `other`: the weight of the rows that go over (step > lead), and of those it had right.

    Both (S, C)."""
    at = np.searchsorted(STEPS, lead, side="right")  # the first step that is greater than the lead
    moved = np.flatnonzero(at < len(STEPS))
    cell = at[moved] * classes + other[moved]
    hit = other[moved] == labels[moved]
    shape = (len(STEPS), classes)
    size = len(STEPS) * classes
    gone = np.bincount(cell, weights[moved], minlength=size).reshape(shape).cumsum(axis=0)
    lost = np.bincount(cell[hit], weights[moved][hit], minlength=size).reshape(shape).cumsum(axis=0)
    return gone, lost


def _taken_right(lead: np.ndarray, mine: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """For each step, the weight of the class's own rows (bool `mine`) that are predicted as it, (S,)."""
    at = np.searchsorted(STEPS, lead[mine], side="right")
    return np.bincount(at, weights[mine], minlength=len(STEPS) + 1)[:-1].cumsum()


def _squares(lead: np.ndarray, other: np.ndarray, c: int, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """For each step, the weighted sum of squared distances between true and predicted class numbers, (S,)."""
    at = np.searchsorted(STEPS, lead, side="right")
    before, after = weights * (labels - other) ** 2, weights * (labels - c) ** 2
    changed = np.bincount(at, after - before, minlength=len(STEPS) + 1)[:-1].cumsum()
    return np.asarray(before.sum() + changed)

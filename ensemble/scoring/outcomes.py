"""A system (a blend, a member) reduced to what the metrics need of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ensemble.scoring.counts import class_counts
from ensemble.scoring.metrics import METRICS, computed
from ensemble.scoring.row_values import cheapest, row_briers


@dataclass(frozen=True)
class Outcome:
    """One system on N rows.

    predicted: int64 (N,), the class each row is decided for: the most probable one; with costs, that of the least
        expected cost. The first of a tie.
    most_probable: int64 (N,), the class of the largest probability, the first of a tie.
    confidence: float64 (N,), the largest probability.
    briers: float64 (N,), the rows' Brier scores.
    values: metric -> float64 (N,), of each metric that is a mean over rows; log_loss always.
    metrics: the names of those that it can be scored by.
    probs: float (N, C), where one of these metrics needs the rows; else None, as they are large.
    """

    predicted: np.ndarray
    most_probable: np.ndarray
    confidence: np.ndarray
    briers: np.ndarray
    values: Mapping[str, np.ndarray]
    metrics: tuple[str, ...]
    probs: np.ndarray | None = None

    @property
    def losses(self) -> np.ndarray:
        """-log(true-class probability), in nats, float64 (N,)."""
        return self.values["log_loss"]


def outcome(
    labels: np.ndarray, probs: np.ndarray, asked: Sequence[str] = (), costs: np.ndarray | None = None
) -> Outcome:
    """The outcome of a system's probabilities.

    labels: int64 (N,).
    probs: float (N, C).
    asked: metrics to score it by beside those that are computed always.
    costs: float64 (C, C), what mistakes cost; see `cheapest`.
    """
    metrics = computed(*asked)
    values = {}
    for name in metrics:
        if METRICS[name].needs == "values":
            values[name] = METRICS[name].score(labels, probs)
        elif METRICS[name].needs == "costs":
            values[name] = METRICS[name].score(labels, probs, costs)
    most_probable = probs.argmax(axis=1)
    return Outcome(
        predicted=most_probable if costs is None else cheapest(probs, costs),
        most_probable=most_probable,
        confidence=probs.max(axis=1).astype(np.float64),
        briers=row_briers(labels, probs),
        values=values,
        metrics=metrics,
        probs=probs if any(METRICS[name].needs == "rows" for name in metrics) else None,
    )


def on_rows(result: Outcome, rows: np.ndarray) -> Outcome:
    """The outcome of some rows alone."""
    return Outcome(
        predicted=result.predicted[rows],
        most_probable=result.most_probable[rows],
        confidence=result.confidence[rows],
        briers=result.briers[rows],
        values={name: of_rows[rows] for name, of_rows in result.values.items()},
        metrics=result.metrics,
        probs=None if result.probs is None else result.probs[rows],
    )


def value(metric: str, labels: np.ndarray, result: Outcome, classes: int, weights: np.ndarray | None = None) -> float:
    """The metric of one outcome; NaN where these rows have none.

    metric: its name.
    labels: int64 (N,).
    result: of the same N rows.
    classes: C, how many there are.
    weights: float (N,), of the rows; None for 1.
    """
    known = METRICS[metric]
    match known.needs:
        case "values" | "costs":
            return float(np.average(result.values[metric], weights=weights))
        case "counts":
            return float(known.score(class_counts(labels, result.predicted, classes, weights)))
        case "rows":
            every = np.ones(len(labels)) if weights is None else np.asarray(weights, dtype=np.float64)
            return float(known.score(labels, result.probs, every[:, None])[0])


def evaluate(
    metric: str,
    labels: np.ndarray,
    probs: np.ndarray,
    weights: np.ndarray | None = None,
    costs: np.ndarray | None = None,
) -> float:
    """The metric of a system's probabilities; NaN where these rows have none.

    metric: its name.
    labels: int64 (N,).
    probs: float (N, C).
    weights: float (N,), of the rows; None for 1.
    costs: float64 (C, C), what mistakes cost, for the expected cost; see `cheapest`.
    """
    return value(metric, labels, outcome(labels, probs, (metric,), costs), probs.shape[1], weights)

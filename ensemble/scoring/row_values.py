"""What each row adds to a metric that is a mean over rows: float64 (N,), of labels int64 (N,) and probs (N, C)."""

import numpy as np

from ensemble.scoring.metric import Metric

FLOOR = 1e-15  # below this a probability counts as this, so that one sure mistake costs 34.5 nats and not infinity
TOP = 5


def row_losses(labels: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """-log of each row's true-class probability, in nats; probabilities below 1e-15 count as 1e-15."""
    right = probs[np.arange(len(labels)), labels].astype(np.float64)
    return np.asarray(-np.log(np.maximum(right, FLOOR)))


def row_briers(labels: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """Squared distance between a row's probabilities and the true class's indicator: 0 to 2.

    Brier, "Verification of forecasts expressed in terms of probability" (Monthly Weather Review, 1950).
    """
    right = probs[np.arange(len(labels)), labels].astype(np.float64)
    return np.asarray(np.einsum("nc,nc->n", probs, probs, dtype=np.float64) - 2 * right + 1)


def top5_hits(labels: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """1 where the true class is one of the five most probable, else 0; of equally probable classes the first counts as
    the more probable. With five classes or fewer every row is a hit."""
    right = probs[np.arange(len(labels)), labels][:, None]
    before = (probs > right).sum(axis=1)
    tied = (probs == right) & (np.arange(probs.shape[1]) < labels[:, None])
    return np.asarray(before + tied.sum(axis=1) < TOP, dtype=np.float64)


def row_costs(labels: np.ndarray, probs: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """What each row costs where it is decided for the class of least expected cost.

    costs: float64 (C, C), see `cheapest`.
    """
    return np.asarray(costs[labels, cheapest(probs, costs)], dtype=np.float64)


def cheapest(probs: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """The class of least expected cost, int64 (N,): of equal ones the first.

    probs: float (N, C).
    costs: float64 (C, C), what it costs to predict the column's class for an image of the row's.

    Elkan, "The foundations of cost-sensitive learning" (IJCAI 2001). It is the most probable class where all mistakes
    cost the same and no right answer does.
    """
    return np.asarray((probs @ costs).argmin(axis=1))


METRICS = (
    Metric("log_loss", "log loss", False, "values", row_losses, default=True, column=True),
    Metric("top5_accuracy", "top-5 accuracy %", True, "values", top5_hits, fewest_classes=6, bounds=(0, 1)),
    Metric("expected_cost", "expected cost", False, "costs", row_costs),
)

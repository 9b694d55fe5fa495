"""Greedy selection of what a soup is made of (Wortsman et al., Model soups, ICML 2022), on labelled rows."""

from collections.abc import Callable

import numpy as np

from ensemble.blend.methods.pool import inverse_temperature
from ensemble.blend.probabilities import log_softmax

FoldLogits = Callable[[tuple[int, ...], int], np.ndarray]  # of a soup of ingredients, of a fold's rows: float32 (n, C)


def select_without(fold: int, count: int, logits: FoldLogits, labels: np.ndarray, folds: np.ndarray) -> tuple[int, ...]:
    """`select` by the rows of all folds but one, each answered by that fold's own networks, which never saw it.

    count: of ingredients
    labels, folds: int64 (N,)
    """
    others = [other for other in np.unique(folds).tolist() if other != fold]
    others_labels = np.concatenate([labels[folds == other] for other in others])

    def loss(choice: tuple[int, ...]) -> float:
        return tempered_log_loss(np.concatenate([logits(choice, other) for other in others]), others_labels)

    return select(count, loss)


def select(count: int, loss: Callable[[tuple[int, ...]], float]) -> tuple[int, ...]:
    """From the best ingredient on, each in the order of its loss is kept if the soup is no worse with it than without.

    count: of ingredients
    loss: of the soup of ingredients of these numbers, in ascending order

    Returns the numbers that were kept, the best one first.
    """
    order = sorted(range(count), key=lambda number: loss((number,)))
    kept, least = order[:1], loss((order[0],))
    for number in order[1:]:
        new = loss(tuple(sorted([*kept, number])))
        if new <= least:
            kept.append(number)
            least = new
    return tuple(kept)


def tempered_log_loss(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean log loss, nats, at the best temperature on these same rows: averages are less sure of themselves than what
    they are made of, which the blend mends. logits: float (N, C). labels: int64 (N,)."""
    log_probs = log_softmax(logits.astype(np.float64))
    tempered = log_softmax(log_probs * inverse_temperature(log_probs.astype(np.float32), labels))
    return float(-tempered[np.arange(len(labels)), labels].mean())

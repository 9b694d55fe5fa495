"""Early exit: the stages of a cascade answer one after the other, and a row leaves at the first one that is confident
enough. Never imports torch."""

from collections.abc import Callable, Sequence

import numpy as np


def run_stages(thresholds: Sequence[float], count: int, answer: Callable[[int, np.ndarray], np.ndarray]) -> np.ndarray:
    """The number of the stage at which each of n = `count` rows exits, int64 (n,).

    thresholds: of each stage, the largest probability at which a row exits; 0 of the last one, at which all do
    answer: called with the number of a stage and the rows int64 (m,) that did not exit before it; gives their
        probabilities float32 (m, C)
    """
    exits = np.zeros(count, dtype=np.int64)
    rows = np.arange(count)
    for number, threshold in enumerate(thresholds):
        # Rows that could not be read are NaN, which is below nothing.
        is_open = answer(number, rows).max(axis=1) < threshold
        exits[rows] = number
        rows = rows[is_open]
        if not len(rows):
            break
    return exits

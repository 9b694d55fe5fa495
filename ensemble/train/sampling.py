"""Which rows an epoch shows, and in which order.

Sample weights have no part here: they multiply the loss (`ensemble/train/losses.py`). Drawn as often as they weigh, as
well as weighing in the loss, rows would count twice; and a weight of 0.001 should be a small voice in every epoch, not
a row that one epoch in a thousand sees.
"""

import numpy as np

SAMPLINGS = ("shuffle", "balanced")


def epoch_rows(rng: np.random.Generator, rows: np.ndarray, labels: np.ndarray, kind: str) -> np.ndarray:
    """The rows of one epoch in random order, int64 (n,), as many as `rows`; the same `rng` gives the same ones.

    rows: int64 (n,), the training rows. labels: int64 (N,), of all rows.
    "shuffle": each row once. "balanced": the classes that have rows are shown equally often (some of them, by lot, once
    more where n is no multiple). Within a class no row is shown an (m + 1)-th time before each was shown m times; a
    class of more rows than its part of the epoch shows others of them in other epochs.
    """
    if kind == "shuffle":
        return rng.permutation(rows)
    if kind != "balanced":
        raise ValueError(f"no sampling is named {kind!r}; there are: {', '.join(SAMPLINGS)}")
    present = np.unique(labels[rows])
    parts = np.full(len(present), len(rows) // len(present))
    parts[rng.permutation(len(present))[: len(rows) % len(present)]] += 1
    drawn = []
    for label, part in zip(present, parts, strict=True):
        class_rows = rows[labels[rows] == label]
        rounds = [rng.permutation(class_rows) for _ in range(-(-part // len(class_rows)))]
        drawn.append(np.concatenate([rows[:0], *rounds])[:part])
    return rng.permutation(np.concatenate(drawn))

"""The images behind each cell of the confusion matrix."""

import json
from typing import Any

import numpy as np
from markupsafe import Markup

from ensemble.report.run import RunResults

EACH_CELL = 6  # images of a cell
MOST = 120  # of all cells together, beside those that the page shows anyway: 12 kB each


def cell_rows(results: RunResults, shown: np.ndarray) -> dict[tuple[int, int], np.ndarray]:
    """(label, predicted) -> the rows of that cell whose images are shown, int64, the most confident prediction first.

    Cells of mistakes get theirs first, the largest cell first, an image each in turn. shown: int64 (n,), the rows that
    the page shows anyway.
    """
    assert results.oof is not None
    labels, predicted = results.oof.rows.labels, results.predicted
    confidence = results.probabilities[np.arange(len(labels)), predicted]
    pairs, cell, counts = np.unique(np.stack([labels, predicted]), axis=1, return_inverse=True, return_counts=True)
    order = np.lexsort((-confidence, cell.ravel()))
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    rank = np.empty(len(labels), dtype=np.int64)
    rank[order] = np.arange(len(labels)) - np.repeat(first, counts)
    candidates = order[rank[order] < EACH_CELL]
    right = labels[candidates] == predicted[candidates]
    turns = candidates[np.lexsort((-counts[cell.ravel()[candidates]], rank[candidates], right))]
    new = ~np.isin(turns, shown)
    kept = np.sort(turns[~new | (np.cumsum(new) <= MOST)])
    found: dict[tuple[int, int], np.ndarray] = {}
    for at, (label, guess) in enumerate(pairs.T.tolist()):
        rows = kept[cell.ravel()[kept] == at]
        found[label, guess] = rows[np.argsort(rank[rows], kind="stable")]
    return found


def as_json(value: Any) -> Markup:
    """JSON that nothing can end from within: of a <script> that is no program."""
    return Markup(json.dumps(value).replace("<", "\\u003c").replace("&", "\\u0026"))

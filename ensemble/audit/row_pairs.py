"""Copies and look-alikes of files as pairs of rows: of one side, or of both."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ensemble.audit.findings import EXAMPLES
from ensemble.audit.rows import Rows, clean_labels
from ensemble.data.copies.near import Pairs, joined_rows


@dataclass(frozen=True)
class RowPairs:
    """P pairs of rows whose files are copies or look alike.

    first: int64 (P,), rows of one side.
    second: int64 (P,), rows of the same or the other side.
    kinds: str (P,), as in `near.Pairs`.
    similarity: float32 (P,), 1 for equal pixels.
    """

    first: np.ndarray
    second: np.ndarray
    kinds: np.ndarray
    similarity: np.ndarray

    def where(self, mask: np.ndarray) -> "RowPairs":
        return RowPairs(self.first[mask], self.second[mask], self.kinds[mask], self.similarity[mask])

    def __len__(self) -> int:
        return len(self.first)


def first_rows(at: np.ndarray, files: int) -> np.ndarray:
    """For each file its first row, int64 (files,), -1 where none. at: file of each row, -1 where it is missing."""
    rows = np.full(files, -1, dtype=np.int64)
    present = np.flatnonzero(at >= 0)[::-1]
    rows[at[present]] = present
    return rows


def pairs_within(pairs: Pairs, row_of: np.ndarray) -> RowPairs:
    """The pairs of files that both have a row on one side. row_of: int64 (files,), -1 where a file has none."""
    first, second = row_of[pairs.first], row_of[pairs.second]
    both = (first >= 0) & (second >= 0)
    low, high = np.minimum(first, second)[both], np.maximum(first, second)[both]
    order = np.lexsort((high, low))
    kinds = np.array(pairs.kinds, dtype=np.str_)[both]
    return RowPairs(low[order], high[order], kinds[order], pairs.similarity[both][order])


def pairs_between(pairs: Pairs, train_of: np.ndarray, test_of: np.ndarray) -> RowPairs:
    """The pairs with a training file and a test file, a file that is both included, by training row."""
    kinds = np.array(pairs.kinds, dtype=np.str_)
    parts = [
        (train_of[one], test_of[other], kinds, pairs.similarity)
        for one, other in ((pairs.first, pairs.second), (pairs.second, pairs.first))
    ]
    shared = np.flatnonzero((train_of >= 0) & (test_of >= 0))
    ones = np.ones(len(shared), dtype=np.float32)
    parts.append((train_of[shared], test_of[shared], np.full(len(shared), "exact"), ones))
    train, test, kind, similarity = (np.concatenate(column) for column in zip(*parts, strict=True))
    both = (train >= 0) & (test >= 0)
    order = np.lexsort((test[both], train[both]))
    return RowPairs(*(column[both][order] for column in (train, test, kind, similarity)))


def as_pairs(pairs: RowPairs) -> Pairs:
    return Pairs(pairs.first, pairs.second, tuple(pairs.kinds.tolist()), pairs.similarity)


def exact_sets(exact: RowPairs, rows: int) -> np.ndarray:
    """The smallest row with the same bytes as each, int64 (rows,): many copies are not paired with each other, but all
    with one."""
    return joined_rows(as_pairs(exact), rows)


def describe_pairs(pairs: RowPairs, sides: str, one: Rows, other: Rows) -> list[dict[str, Any]]:
    """The pairs for `audit.json`. sides: "train-train", "train-test" or "test-test"."""
    labels = [None if rows.labels is None else clean_labels(rows) for rows in (one, other)]
    return [
        {
            "first": str(one.ids[first]),
            "second": str(other.ids[second]),
            "sides": sides,
            "kind": str(kind),
            "similarity": round(float(similarity), 4),
            "labels": [None if names is None else str(names[row]) for names, row in zip(labels, (first, second))],  # noqa: B905
        }
        for first, second, kind, similarity in zip(
            pairs.first.tolist(), pairs.second.tolist(), pairs.kinds, pairs.similarity, strict=True
        )
    ]


def shown_pairs(pairs: RowPairs, one: Rows, other: Rows, beside: np.ndarray | None = None) -> Any:
    """A function from a mask of the pairs to their first few as "a.jpg = b.jpg", or ~ where they are alike."""

    def show(mask: np.ndarray) -> Sequence[str]:
        texts = []
        for pair in np.flatnonzero(mask)[:EXAMPLES]:
            names = [str(one.ids[pairs.first[pair]]), str(other.ids[pairs.second[pair]])]
            if beside is not None:
                sides = (beside[pairs.first[pair]], beside[pairs.second[pair]])
                names = [f"{name} ({side})" for name, side in zip(names, sides, strict=True)]
            texts.append((" = " if pairs.kinds[pair] == "exact" else " ~ ").join(names))
        return texts

    return show

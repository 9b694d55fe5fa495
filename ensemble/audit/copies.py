"""Copies of images, exact and near: where they stand, and what that costs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ensemble.audit.findings import Finding, finding
from ensemble.audit.labels import label_key
from ensemble.audit.read import UNKNOWN_FOLD, Given, Rows, clean_labels
from ensemble.data.near import Pairs, joined_rows

# Near copies of two labels: so many pairs, and such a share of all near pairs, are no slips. Among photographs of faces
# with masks drawn in they are a fifth; wrong labels are a few in a hundred (Northcutt et al. 2021: 0.2 to 10 %).
MANY, MANY_SHARE = 10, 0.15


@dataclass(frozen=True)
class RowPairs:
    """P pairs of rows whose files are copies: rows `first` of one side and `second` of the same or the other, int64
    (P,). kinds: str (P,), "exact", "edited", or how the copy was made. similarity: float32 (P,), 1 where the same."""

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


def tied(pairs: RowPairs, rows: int) -> np.ndarray:
    """The smallest row that each row is tied to by copies (itself where it has none), int64 (rows,)."""
    kinds = tuple(pairs.kinds.tolist())
    return np.asarray(joined_rows(Pairs(pairs.first, pairs.second, kinds, pairs.similarity), rows))


def check_copies(given: Given, pairs: RowPairs) -> list[Finding]:
    """Copies among the training rows. Near ones of one class and one group are left aside: folds hold them together."""
    rows = given.rows
    labels = clean_labels(rows)
    keys = np.array([label_key(name) for name in labels.tolist()], dtype=np.str_)
    labelled = (keys[pairs.first] != "") & (keys[pairs.second] != "")
    torn = (keys[pairs.first] != keys[pairs.second]) & labelled
    exact, edited = pairs.kinds == "exact", pairs.kinds == "edited"
    loose = np.ones(len(pairs), dtype=bool)
    if rows.groups is not None:
        loose = (rows.groups[pairs.first] != rows.groups[pairs.second]) | (rows.groups[pairs.first] == "")
    together = "ens train-folds keeps them in one fold"
    return [
        *_pairs(
            rows, "copies-two-labels", "error", pairs.where(exact & torn),
            ("image whose exact copy has another label", "images whose exact copies have other labels"),
            "one label is wrong: correct it; --fix drops them all", labels,
        ),
        *_near_with_two_labels(rows, pairs.where(~exact & ~edited), torn[~exact & ~edited], together, labels),
        *_pairs(
            rows, "edited-two-labels", "note", pairs.where(edited & torn & loose),
            ("image that is in part the same as one of another class",
             "images that are in part the same as one of another class"),
            f"right where the classes differ in just that part; {together}", labels,
        ),
        *_copies_of_class(rows, pairs.where(exact & ~torn)),
        *_pairs(
            rows, "near-copies", "note", pairs.where(~exact & ~torn & loose),
            ("image with a near copy of its own class", "images with near copies of their own class"),
            f"harmless: {together}",
        ),
        *_across_folds(given, pairs),
        *_across_groups(rows, pairs),
    ]  # fmt: skip


def check_test_copies(train: Rows, test: Rows, between: RowPairs, within: RowPairs) -> list[Finding]:
    """Copies of training images among the test images, and of test images among themselves."""
    exact = between.kinds == "exact"
    known = set(between.second[exact].tolist())
    near = [row for row in dict.fromkeys(between.second[~exact].tolist()) if row not in known]
    later = np.unique(within.second[within.kinds == "exact"])
    shown = _shown(between, train, test)
    return [
        *finding(
            "test-in-train", "warning", test.ids[sorted(known)],
            ("test image that is an exact copy of a training image",
             "test images that are exact copies of training images"),
            "their answers are known: a score on this test set flatters", "test", shown(exact),
        ),
        *finding(
            "test-near-train", "warning", test.ids[sorted(near)],
            ("test image that is a near copy of a training image",
             "test images that are near copies of training images"),
            "a score on this test set flatters, as far as they are the same picture", "test",
            shown(~exact & np.isin(between.second, near)),
        ),
        *finding(
            "test-copies", "note", test.ids[later],
            ("test image that is an exact copy of another one", "test images that are exact copies of others"),
            "none needed: they get the same answer", "test",
        ),
    ]  # fmt: skip


def pair_facts(pairs: RowPairs, sides: str, one: Rows, other: Rows) -> list[dict[str, Any]]:
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


def _near_with_two_labels(
    rows: Rows, near: RowPairs, torn: np.ndarray, together: str, labels: np.ndarray
) -> list[Finding]:
    """Some are wrong labels. Where they are many, one class is the other with something drawn in, a mask on a face."""
    usual = torn.sum() >= MANY and torn.mean() >= MANY_SHARE
    return _pairs(
        rows, "near-copies-two-labels", "note" if usual else "warning", near.where(torn),
        ("image whose near copy has another label", "images whose near copies have other labels"),
        f"so many that the classes may differ in a detail; if not, labels are wrong; {together}" if usual
        else "probably a wrong label: look at them", labels,
    )  # fmt: skip


def _copies_of_class(rows: Rows, pairs: RowPairs) -> list[Finding]:
    """Counted without the first of each set: what would leave."""
    later = np.unique(pairs.second)
    return finding(
        "exact-copies", "warning", rows.ids[later],
        ("image that is an exact copy of another of its class",
         "images that are exact copies of others of their class"),
        "each counts as often as it stands there; --fix keeps one of each",
        examples=_shown(pairs, rows, rows)(np.ones(len(pairs), dtype=bool)),
    )  # fmt: skip


def _across_folds(given: Given, pairs: RowPairs) -> list[Finding]:
    rows = given.rows
    if rows.folds is None:
        return []
    one, other = rows.folds[pairs.first], rows.folds[pairs.second]
    split = pairs.where((one != other) & (one != UNKNOWN_FOLD) & (other != UNKNOWN_FOLD))
    exact = split.kinds == "exact"
    whose = "your folds" if given.own_folds else f"the folds of {given.run}"
    mend = "put them in one fold (--fix)" if given.own_folds else "train again in another run directory"
    names = rows.folds.astype(np.str_)
    return [
        *_pairs(
            rows, "exact-across-folds", "error", split.where(exact),
            (f"image that {whose} part from its exact copy", f"images that {whose} part from their exact copies"),
            f"out-of-fold scores flatter; {mend}", np.char.add("fold ", names),
        ),
        *_pairs(
            rows, "near-across-folds", "warning", split.where(~exact),
            (f"image that {whose} part from its near copy", f"images that {whose} part from their near copies"),
            f"out-of-fold scores flatter a little; {mend}", np.char.add("fold ", names),
        ),
    ]  # fmt: skip


def _across_groups(rows: Rows, pairs: RowPairs) -> list[Finding]:
    if rows.groups is None:
        return []
    one, other = rows.groups[pairs.first], rows.groups[pairs.second]
    split = pairs.where((one != other) & (one != "") & (other != ""))
    exact = split.kinds == "exact"
    return [
        *_pairs(
            rows, "exact-across-groups", "warning", split.where(exact),
            ("image whose exact copy stands in another group", "images whose exact copies stand in other groups"),
            "ens joins such groups; see that they are right", rows.groups,
        ),
        *_pairs(
            rows, "near-across-groups", "note", split.where(~exact),
            ("image whose near copy stands in another group", "images whose near copies stand in other groups"),
            "ens joins such groups; see that they are right", rows.groups,
        ),
    ]  # fmt: skip


def _pairs(
    rows: Rows, kind: str, level: str, pairs: RowPairs, words: tuple[str, str], advice: str,
    beside: np.ndarray | None = None,
) -> list[Finding]:  # fmt: skip
    """A finding on all rows of these pairs. beside: what to show behind each id, str (N,)."""
    concerned = np.unique(np.concatenate([pairs.first, pairs.second]))
    examples = _shown(pairs, rows, rows, beside)(np.ones(len(pairs), dtype=bool))
    return finding(kind, level, rows.ids[concerned], words, advice, examples=examples)


def _shown(pairs: RowPairs, one: Rows, other: Rows, beside: np.ndarray | None = None) -> Any:
    """A function from a mask of the pairs to their first few as "a.jpg = b.jpg", or ~ where they are near copies."""

    def show(mask: np.ndarray) -> Sequence[str]:
        texts = []
        for pair in np.flatnonzero(mask)[:3]:
            names = [str(one.ids[pairs.first[pair]]), str(other.ids[pairs.second[pair]])]
            if beside is not None:
                sides = (beside[pairs.first[pair]], beside[pairs.second[pair]])
                names = [f"{name} ({side})" for name, side in zip(names, sides, strict=True)]
            texts.append((" = " if pairs.kinds[pair] == "exact" else " ~ ").join(names))
        return texts

    return show

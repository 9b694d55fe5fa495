"""Copies of images, exact and near: where they stand, and what that costs; and look-alikes, which may cost nothing."""

from collections.abc import Sequence

import numpy as np

from ensemble.audit.findings import EXAMPLES, Finding, finding
from ensemble.audit.row_pairs import RowPairs, as_pairs, exact_sets, shown_pairs
from ensemble.audit.rows import UNKNOWN_FOLD, Given, Rows, clean_labels
from ensemble.data.copies.align import LOOK_ALIKE
from ensemble.data.copies.ties import near_ties
from ensemble.data.name_groups import label_key

# Near copies of two labels: so many pairs, and such a share of all near pairs, are no slips, where one class is the
# other with a detail drawn in; wrong labels are a few in a hundred (Northcutt et al. 2021: 0.2 to 10 %).
MANY, MANY_SHARE = 10, 0.15
TOGETHER = "ens train-folds keeps them in one fold"


def check_copies(given: Given, pairs: RowPairs) -> list[Finding]:
    """Copies and look-alikes among the training rows. Near ones of one class and one group are left aside: folds hold
    them together."""
    rows = given.rows
    labels = clean_labels(rows)
    keys = np.array([label_key(name) for name in labels.tolist()], dtype=np.str_)
    tied = near_ties(as_pairs(pairs), len(rows))
    exact, alike = pairs.kinds == "exact", pairs.kinds == LOOK_ALIKE
    same, near = exact_sets(pairs.where(exact), len(rows)), pairs.where(~exact & ~alike)
    torn = (keys[near.first] != keys[near.second]) & (keys[near.first] != "") & (keys[near.second] != "")
    loose, apart = _loose(rows, near), tied[near.first] != tied[near.second]
    return [
        *_torn(
            rows, "copies-two-labels", "error", same, keys, labels,
            ("image whose exact copy has another label", "images whose exact copies have other labels"),
            "one label is wrong: correct it; --fix drops them all",
        ),
        *_near_with_two_labels(rows, near, torn, _held(given, (apart & loose)[torn]), labels),
        *_copies_of_class(rows, same, keys),
        *_near_of_class(given, near, ~torn & loose, apart),
        *_across_folds(given, same, near),
        *_across_groups(given, same, near, apart & loose),
        *_look_alikes(given, pairs.where(alike), tied, keys, labels),
    ]  # fmt: skip


def _loose(rows: Rows, near: RowPairs) -> np.ndarray:
    """Which pairs no group of the user's holds together, bool (P,)."""
    if rows.groups is None:
        return np.ones(len(near), dtype=bool)
    return np.asarray((rows.groups[near.first] != rows.groups[near.second]) | (rows.groups[near.first] == ""))


def _look_alikes(
    given: Given, alike: RowPairs, tied: np.ndarray, keys: np.ndarray, labels: np.ndarray
) -> list[Finding]:
    """Notes only: most are no copies."""
    rows = given.rows
    alike = alike.where(_loose(rows, alike))
    torn = (keys[alike.first] != keys[alike.second]) & (keys[alike.first] != "") & (keys[alike.second] != "")
    held = _held(given, tied[alike.first] != tied[alike.second])
    return [
        *_pairs(
            rows, "look-alikes", "note", alike.where(~torn),
            ("image that looks like another", "images that look like others"),
            f"perhaps one person, object or scene; {held}",
        ),
        *_pairs(
            rows, "look-alikes-two-labels", "note", alike.where(torn),
            ("image that looks like one of another class", "images that look like some of other classes"),
            f"right if only the person, object or scene is the same; {held}", labels,
        ),
    ]  # fmt: skip


def check_test_copies(train: Rows, test: Rows, between: RowPairs, within: RowPairs) -> list[Finding]:
    """Copies of training images among the test images, and of test images among themselves."""
    exact = between.kinds == "exact"
    known = set(between.second[exact].tolist())
    alike = between.kinds == LOOK_ALIKE
    near = set(between.second[~exact & ~alike].tolist()) - known
    like = set(between.second[alike].tolist()) - known - near
    # a copy of a training image may be paired with that one only
    exact_within, both = within.where(within.kinds == "exact"), between.where(exact)
    links = RowPairs(
        np.concatenate([exact_within.first, both.second]),
        np.concatenate([exact_within.second, both.first + len(test)]),
        np.concatenate([exact_within.kinds, both.kinds]),
        np.concatenate([exact_within.similarity, both.similarity]),
    )
    later = np.flatnonzero(exact_sets(links, len(test) + len(train))[: len(test)] != np.arange(len(test)))
    shown = shown_pairs(between, train, test)
    return [
        *finding(
            "test-in-train", "warning", test.ids[sorted(known)],
            ("test image that is an exact copy of a training image",
             "test images that are exact copies of training images"),
            "their answers are known: a score on this test set is optimistic", "test", shown(exact),
        ),
        *finding(
            "test-near-train", "warning", test.ids[sorted(near)],
            ("test image that is a near copy of a training image",
             "test images that are near copies of training images"),
            "a score on this test set is optimistic", "test",
            shown(~exact & ~alike & np.isin(between.second, sorted(near))),
        ),
        *finding(
            "test-looks-like-train", "note", test.ids[sorted(like)],
            ("test image that looks like a training image", "test images that look like training images"),
            "perhaps one person, object or scene: look at them", "test",
            shown(alike & np.isin(between.second, sorted(like))),
        ),
        *finding(
            "test-copies", "note", test.ids[later],
            ("test image that is an exact copy of another one", "test images that are exact copies of others"),
            "none needed: they get the same answer", "test",
        ),
    ]  # fmt: skip


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


def _held(given: Given, apart: np.ndarray) -> str:
    """What holds near copies and look-alikes in one fold, or that nothing does. apart: which of their pairs nothing
    does for their number, bool (P,)."""
    if given.own_folds and given.rows.folds is not None:
        return "your own folds may part them"
    if not given.near_copies:
        return "folds.near_copies = false lets folds part them"
    if apart.any():
        return "folds may part those that are too many to share one"
    return TOGETHER


def _near_of_class(given: Given, near: RowPairs, mask: np.ndarray, apart: np.ndarray) -> list[Finding]:
    """Near copies of one class: harmless where something holds them in one fold."""
    rows = given.rows
    words = ("image with a near copy of its own class", "images with near copies of their own class")
    optimistic = "out-of-fold scores are then optimistic"
    if given.own_folds and rows.folds is not None:  # those that they part are a finding of their own
        kept = mask & (rows.folds[near.first] == rows.folds[near.second])
        return _pairs(rows, "near-copies", "note", near.where(kept), words, "harmless: your folds hold them together")
    if not given.near_copies:
        advice = f"folds.near_copies = false lets folds part them: {optimistic}"
        return _pairs(rows, "near-copies", "warning", near.where(mask), words, advice)
    return [
        *_pairs(
            rows, "near-copies-apart", "warning", near.where(mask & apart),
            ("image that hangs together by likeness with more than copies would",
             "images that hang together by likeness, more than copies would"),
            f"folds may part them; if they are one scene, give them one data.group: {optimistic}",
        ),
        *_pairs(rows, "near-copies", "note", near.where(mask & ~apart), words, f"harmless: {TOGETHER}"),
    ]  # fmt: skip


def _copies_of_class(rows: Rows, same: np.ndarray, keys: np.ndarray) -> list[Finding]:
    """Counted without the first of each set: what would leave."""
    known = np.flatnonzero(keys != "")
    sets = np.stack([same[known], np.unique(keys[known], return_inverse=True)[1]], axis=1)
    _, start, of = np.unique(sets, axis=0, return_index=True, return_inverse=True)
    first = known[start[of.reshape(-1)]]
    later = first != known
    return finding(
        "exact-copies", "warning", rows.ids[known[later]],
        ("image that is an exact copy of another of its class",
         "images that are exact copies of others of their class"),
        "each counts as often as it stands there; --fix keeps one of each",
        examples=_equal(rows, first[later], known[later]),
    )  # fmt: skip


def _across_folds(given: Given, same: np.ndarray, near: RowPairs) -> list[Finding]:
    rows = given.rows
    if rows.folds is None:
        return []
    one, other = rows.folds[near.first], rows.folds[near.second]
    split = near.where((one != other) & (one != UNKNOWN_FOLD) & (other != UNKNOWN_FOLD))
    whose = "your folds" if given.own_folds else f"the folds of {given.run}"
    mend = "put them in one fold (--fix)" if given.own_folds else "train again in another run directory"
    names = np.char.add("fold ", rows.folds.astype(np.str_))
    known = np.where(rows.folds == UNKNOWN_FOLD, "", rows.folds.astype(np.str_))
    return [
        *_torn(
            rows, "exact-across-folds", "error", same, known, names,
            (f"image that {whose} part from its exact copy", f"images that {whose} part from their exact copies"),
            f"out-of-fold scores are optimistic; {mend}",
        ),
        *_pairs(
            rows, "near-across-folds", "warning", split,
            (f"image that {whose} part from its near copy", f"images that {whose} part from their near copies"),
            f"out-of-fold scores are optimistic; {mend}", names,
        ),
    ]  # fmt: skip


def _across_groups(given: Given, same: np.ndarray, near: RowPairs, apart: np.ndarray) -> list[Finding]:
    rows = given.rows
    if rows.groups is None:
        return []
    one, other = rows.groups[near.first], rows.groups[near.second]
    split = (one != other) & (one != "") & (other != "")
    joins = "ens joins such groups; see that they are right"
    held = _held(given, apart[split])
    return [
        *_torn(
            rows, "exact-across-groups", "warning", same, rows.groups, rows.groups,
            ("image whose exact copy stands in another group", "images whose exact copies stand in other groups"),
            joins,
        ),
        *_pairs(
            rows, "near-across-groups", "note", near.where(split),
            ("image whose near copy stands in another group", "images whose near copies stand in other groups"),
            joins if held == TOGETHER else f"see that they are right; {held}", rows.groups,
        ),
    ]  # fmt: skip


def _torn(
    rows: Rows, kind: str, level: str, same: np.ndarray, values: np.ndarray, beside: np.ndarray,
    words: tuple[str, str], advice: str,
) -> list[Finding]:  # fmt: skip
    """A finding on all rows of the sets of exact copies in which rows have two values or more. values: str (N,), ""
    where unknown. beside: what to show behind each id, str (N,)."""
    known = np.flatnonzero(values != "")
    sets, codes = same[known], np.unique(values[known], return_inverse=True)[1]
    _, start, of = np.unique(sets, return_index=True, return_inverse=True)
    other = codes != codes[start[of]]  # than the first of its set
    concerned = np.isin(sets, sets[other])
    order = np.lexsort((known[other], start[of][other]))
    first, second = known[start[of]][other][order], known[other][order]
    return finding(kind, level, rows.ids[known[concerned]], words, advice, examples=_equal(rows, first, second, beside))


def _equal(rows: Rows, first: np.ndarray, second: np.ndarray, beside: np.ndarray | None = None) -> Sequence[str]:
    """The first few of these exact copies, to be shown."""
    count = min(len(first), EXAMPLES)
    shown = RowPairs(first[:count], second[:count], np.full(count, "exact"), np.ones(count, dtype=np.float32))
    return list(shown_pairs(shown, rows, rows, beside)(np.ones(count, dtype=bool)))


def _pairs(
    rows: Rows, kind: str, level: str, pairs: RowPairs, words: tuple[str, str], advice: str,
    beside: np.ndarray | None = None,
) -> list[Finding]:  # fmt: skip
    """A finding on all rows of these pairs. beside: what to show behind each id, str (N,)."""
    concerned = np.unique(np.concatenate([pairs.first, pairs.second]))
    examples = shown_pairs(pairs, rows, rows, beside)(np.ones(len(pairs), dtype=bool))
    return finding(kind, level, rows.ids[concerned], words, advice, examples=examples)

"""Prediction sets: p-values by hand, scores by hand, strata, groups, and which score is chosen."""

import numpy as np
import pytest

from ensemble.conformal.calibrate import calibrate, prediction_sets, strata_of, with_most_probable
from ensemble.conformal.choose import choose
from ensemble.conformal.rows import HeldOut
from ensemble.conformal.scores import CANDIDATES, ConformityScore, scores_of

THRESHOLD, APS = CANDIDATES[:2]


def two(first):
    """Probabilities of two classes, of those of the first."""
    return np.stack([np.array(first), 1 - np.array(first)], axis=1).astype(np.float32)


def held_out(true, folds, clusters=None):
    """Rows of the first class, with these probabilities of it."""
    clusters = range(len(true)) if clusters is None else clusters
    return HeldOut(two(true), np.zeros(len(true), dtype=np.int64), np.array(folds), np.array(clusters))


def drawn(rows, classes=4, signal=2.0, seed=0):
    draw = np.random.default_rng(seed)
    labels = draw.integers(classes, size=rows)
    z = draw.normal(size=(rows, classes)) + signal * np.eye(classes)[labels]
    probabilities = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    return HeldOut(probabilities.astype(np.float32), labels, np.arange(rows) % 5, np.arange(rows))


def test_scores_by_hand():
    threshold, aps, raps = scores_of([THRESHOLD, APS, ConformityScore("RAPS", 0.1, 1)], [[0.2, 0.5, 0.3]])
    assert threshold == pytest.approx(np.array([[-0.2, -0.5, -0.3]]))
    assert aps == pytest.approx(np.array([[1.0, 0.5, 0.8]]))
    assert raps == pytest.approx(np.array([[1.2, 0.5, 0.9]]))
    half = scores_of([APS], [[0.2, 0.5, 0.3]], chance=0.5)[0]
    assert half == pytest.approx(np.array([[0.9, 0.25, 0.65]]))
    assert str(ConformityScore("RAPS", 0.1, 2)) == "RAPS (0.1 for each class after the first 2)"


def test_a_class_is_compared_with_the_rows_of_each_fold_by_its_networks():
    # p = (1 + count) / 5. First class: at most 0.7 in fold 0 is 0.6, at most 0.5 in fold 1 is 0.3: p = 3/5.
    # Second class: at most 0.3 in fold 0 is none, at most 0.5 in fold 1 is 0.3: p = 2/5, which is not above 0.4.
    rows = held_out([0.9, 0.6, 0.8, 0.3], [0, 0, 1, 1])
    of_folds = [two([0.7]), two([0.5])]
    assert prediction_sets(calibrate(rows, THRESHOLD, 0.6, None, 2), of_folds).tolist() == [[True, False]]
    assert prediction_sets(calibrate(rows, THRESHOLD, 0.61, None, 2), of_folds).tolist() == [[True, True]]
    assert prediction_sets(calibrate(rows, THRESHOLD, 0.39, None, 2), of_folds).tolist() == [[False, False]]
    assert with_most_probable(np.zeros((1, 2), dtype=bool), two([0.4])).tolist() == [[False, True]]


def test_folds_without_rows_count_nothing():
    rows = held_out([0.9, 0.6], [1, 1])
    found = prediction_sets(calibrate(rows, THRESHOLD, 0.5, None, 3), [two([0.0]), two([0.7]), two([0.0])])
    assert found.tolist() == [[True, False]]  # (1 + 1) / 3 and (1 + 0) / 3


def test_rows_of_a_group_count_as_one():
    # Weights 1/3, 1/3, 1/3 and 1: p = (1 + what the rows with at most 0.5 weigh) / 3.
    rows = held_out([0.4, 0.4, 0.9, 0.95], [0, 0, 0, 0], [7, 7, 7, 8])
    p = (1 + 2 / 3) / 3
    for level, inside in ((1 - p + 0.01, True), (1 - p - 0.01, False)):
        found = prediction_sets(calibrate(rows, THRESHOLD, level, "group", 1), [two([0.5])])
        assert found[0, 0] == inside
    assert rows.grouped and not held_out([0.5], [0]).grouped


def test_classes_with_few_rows_share_a_stratum():
    labels = np.repeat([0, 1, 2, 3], [60, 50, 49, 2])
    found = strata_of(labels, 4, 0.9, "class")
    assert (found.least, found.pooled, found.of_class.tolist()) == (50, (2, 3), [1, 2, 0, 0])
    assert [int(rows.sum()) for rows in found.rows] == [51, 60, 50]
    found = strata_of(labels[:130], 4, 0.9, "class")  # of the rest 20 rows, fewer than 50: with no others even so
    assert (found.pooled, [int(rows.sum()) for rows in found.rows]) == ((2, 3), [20, 60, 50])
    assert strata_of(labels, 4, 0.9, None).of_class.tolist() == [0, 0, 0, 0]
    assert strata_of(np.arange(200) % 4, 4, 0.9, "class").of_class.tolist() == [0, 1, 2, 3]


def test_by_class_each_class_keeps_the_promise():
    signal = np.array([3, 3, 3, 1])  # the last class is hard
    rows, fresh = drawn(4000, signal=signal), drawn(8000, signal=signal, seed=1)
    shares = {}
    for by in (None, "class"):
        sets = prediction_sets(calibrate(rows, THRESHOLD, 0.9, by, 5), [fresh.probabilities] * 5)
        hits = sets[np.arange(len(sets)), fresh.labels]
        shares[by] = [hits[fresh.labels == c].mean() for c in range(4)]
        assert hits.mean() == pytest.approx(0.9, abs=0.015)
    assert min(shares[None]) < 0.86 and min(shares["class"]) > 0.88


def test_few_rows_of_a_hard_class_keep_the_promise():
    fresh = drawn(4000, signal=np.array([3, 3, 3, 0.5]), seed=1)
    of_last = fresh.labels == 3
    for few, least in ((40, 0.8), (8, 1.0)):  # of 8 rows (1 + 0) / (1 + 8) is above 0.1: it is in every set
        rows = drawn(2400, signal=np.array([3, 3, 3, 0.5]))
        kept = np.sort(np.concatenate([np.flatnonzero(rows.labels != 3), np.flatnonzero(rows.labels == 3)[:few]]))
        some = HeldOut(rows.probabilities[kept], rows.labels[kept], rows.folds[kept], rows.clusters[kept])
        sets = prediction_sets(calibrate(some, THRESHOLD, 0.9, "class", 5), [fresh.probabilities] * 5)
        assert sets[of_last, 3].mean() >= least
        assert choose(some, 0.9, "class").of_classes[3] >= least


def test_of_two_folds_the_choice_without_one_has_rows_to_calibrate_on():
    rows = drawn(1000)
    two_folds = HeldOut(rows.probabilities, rows.labels, rows.folds % 2, rows.clusters)
    found = choose(two_folds, 0.9, None, (APS, THRESHOLD))
    assert found.score == THRESHOLD
    assert found.raw_size == choose(two_folds, 0.9, None, (THRESHOLD,)).raw_size


def test_one_answer_is_not_taken_for_that_of_all_folds():
    calibrated = calibrate(held_out([0.9, 0.6], [0, 1]), THRESHOLD, 0.5, None, 2)
    with pytest.raises(ValueError, match="shorter"):
        prediction_sets(calibrated, [two([0.7])])


def test_the_choice_is_judged_on_rows_that_it_did_not_see():
    rows = drawn(1500)
    found = choose(rows, 0.9, None)
    assert found.score == THRESHOLD and found.raw_coverage == pytest.approx(0.9, abs=0.02)
    assert found.raw_size <= found.size and found.coverage >= max(found.raw_coverage, found.accuracy)
    only_aps = choose(rows, 0.9, None, (APS,))
    assert only_aps.raw_size > found.raw_size and only_aps.raw_coverage == pytest.approx(0.9, abs=0.02)
    # Labels at random: whatever is chosen, the sets that hold the truth at 0.9 are of nearly all classes.
    noise = HeldOut(rows.probabilities, np.random.default_rng(5).permutation(rows.labels), rows.folds, rows.clusters)
    assert choose(noise, 0.9, None).raw_size > 3.3


def test_sizes_are_those_at_the_given_class_shares():
    rows = drawn(600, classes=2, signal=1.0)
    shares = np.bincount(rows.labels) / 600

    def size(*of_classes):
        return choose(rows, 0.9, "class", (THRESHOLD,), np.array(of_classes) / shares).size

    assert size(1, 0) != pytest.approx(size(0, 1), abs=0.001)
    assert size(0.25, 0.75) == pytest.approx(0.25 * size(1, 0) + 0.75 * size(0, 1))
    assert size(*shares) == pytest.approx(choose(rows, 0.9, "class", (THRESHOLD,)).size)


def test_a_fold_may_hold_all_rows_of_the_only_class_that_is_asked_for():
    rows = drawn(100, classes=2)
    rows = HeldOut(
        rows.probabilities, np.repeat([0, 1], [20, 80]), np.r_[np.zeros(20, int), 1 + np.arange(80) % 4], rows.clusters
    )
    assert choose(rows, 0.9, None, ratios=np.array([5.0, 0.0])).coverage == pytest.approx(
        choose(rows, 0.9, None).of_classes[0]
    )


def test_of_many_rows_whole_groups_are_drawn():
    rows = drawn(1000)
    grouped = HeldOut(rows.probabilities, rows.labels, rows.folds, np.arange(1000) // 10)
    some = grouped.some(1000)
    assert len(some.labels) == 250 and set(np.unique(some.clusters, return_counts=True)[1].tolist()) == {10}
    assert rows.some(4000) is rows

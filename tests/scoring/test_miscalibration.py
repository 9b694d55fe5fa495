"""Calibration by class and by group: against numbers computed by hand, and against chance."""

import numpy as np
import pytest

from ensemble.scoring.miscalibration import by_class, by_group, holm


def drawn_labels(probs, draw):
    return (probs.cumsum(axis=1) < draw.random((len(probs), 1))).sum(axis=1)


def test_the_error_is_the_root_of_the_mean_over_pairs_of_rows():
    # class 0 at .6 in four rows, three of the class: d = .4, .4, .4, -.6; (.6^2 - (3 * .16 + .36)) / 12 = -.04
    probs = np.tile([0.6, 0.4], (4, 1))
    found = by_class(np.array([0, 0, 0, 1]), probs, np.arange(4))
    assert found.classes[0].error == 0 and found.error == 0
    # all four of the class: d = .4 each, and so is the root of the mean of d_i d_j
    found = by_class(np.zeros(4, dtype=int), probs, np.arange(4))
    assert found.classes[0].error == pytest.approx(0.4) and found.error == pytest.approx(0.4)
    assert (found.classes[0].rows, found.classes[0].expected) == (4, pytest.approx(2.4))
    assert (found.classes[1].rows, found.classes[1].expected) == (0, pytest.approx(1.6))


def test_chance_and_p_by_hand():
    """Of four fair coins the error is .5 where all fall alike, a chance of 1 in 8, and else 0."""
    found = by_class(np.zeros(4, dtype=int), np.full((4, 2), 0.5), np.arange(4))
    assert found.error == pytest.approx(0.5) and found.chance == pytest.approx(0.5)
    assert found.p == pytest.approx(1 / 8, abs=0.04)
    assert found.classes[0].p == found.p  # both classes say the same


def test_probabilities_that_are_right_are_rarely_doubted_and_wrong_ones_are():
    draw = np.random.default_rng(0)
    found = []
    for _ in range(60):
        probs = draw.dirichlet([0.3, 0.3, 0.3], size=200)
        found.append(by_class(drawn_labels(probs, draw), probs, np.arange(200)))
    assert sum(each.p < 0.05 for each in found) <= 8
    assert sum(min(of_class.p for of_class in each.classes) < 0.05 for each in found) <= 8
    sharper = probs**2 / (probs**2).sum(axis=1, keepdims=True)
    wrong = by_class(drawn_labels(probs, draw), sharper, np.arange(200))
    assert wrong.p < 0.05 and wrong.error > wrong.chance


def test_one_class_that_is_wrong_is_told_from_the_others():
    draw = np.random.default_rng(1)
    probs = draw.dirichlet([1, 1, 1, 1], size=2000)
    odds = probs * [2.5, 1, 1, 1]
    labels = drawn_labels(odds / odds.sum(axis=1, keepdims=True), draw)
    found = by_class(labels, probs, np.arange(2000))
    assert max(found.classes, key=lambda each: each.error) is found.classes[0]
    assert found.classes[0].p < 0.01 and found.classes[0].rows > found.classes[0].expected + 100


def test_of_each_group_one_row_is_looked_at():
    draw = np.random.default_rng(2)
    probs = draw.dirichlet([1, 1], size=300)
    found = by_class(drawn_labels(probs, draw), probs, np.arange(300) // 3)
    assert found.rows == 100 and sum(each.rows for each in found.classes) == 100
    # copies of one row prove no more than the row
    many = by_class(np.zeros(300, dtype=int), np.tile([0.5, 0.5], (300, 1)), np.zeros(300, dtype=int))
    assert (many.rows, many.error, many.p) == (1, 0, 1)


def test_adjusted_for_their_number_by_hand():
    assert holm(np.array([0.01, 0.04, 0.03])).tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert holm(np.array([0.6, 0.9])).tolist() == [1, 1]


def test_a_group_that_is_wrong_more_often_than_its_confidence_says():
    # three rows at .9, none right: .1^3, two-sided .002, of two groups .004; the other: nothing unusual
    right = np.array([False, True, False, True, False])
    confidence = np.array([0.9, 0.6, 0.9, 0.5, 0.9])
    found = by_group(right, confidence, np.array([7, 3, 7, 3, 7]))
    assert list(found) == [3, 7]
    assert (found[7].rows, found[7].accuracy, found[7].confidence) == (3, 0, pytest.approx(0.9))
    assert found[7].p == pytest.approx(0.004) and found[3].p == pytest.approx(0.6)
    large = by_group(np.arange(4000) % 2 == 0, np.full(4000, 0.5), np.zeros(4000, dtype=int))
    assert large[0].p == 1

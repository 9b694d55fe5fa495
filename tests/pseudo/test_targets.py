"""Soft targets, their weights, and which folds may learn from an image, against numbers worked out by hand."""

import numpy as np
import pytest

from ensemble.data.copies.near import Pairs
from ensemble.pseudo.targets import soft_targets
from ensemble.train.unlabelled import allowed_folds

P = np.array([[[0.8, 0.2], [0.6, 0.4], [0.3, 0.7]]])  # one fold, three images
LOGITS = np.log(P).astype(np.float32)
ALL = np.ones((1, 3), dtype=bool)


def near(*values):
    return pytest.approx(values, rel=1e-5)


def test_targets_are_the_teachers_probabilities():
    found = soft_targets(LOGITS, ALL, power=1.0, weight=1.0)
    assert found.probabilities.dtype == found.weights.dtype == np.float32
    assert found.probabilities[0, 0].tolist() == near(0.8, 0.2)


def test_a_power_sharpens_targets_and_leaves_weights():
    found = soft_targets(LOGITS, ALL, power=2.0, weight=1.0)
    assert found.probabilities[0, 0].tolist() == near(0.64 / 0.68, 0.04 / 0.68)
    assert found.weights.tolist() == soft_targets(LOGITS, ALL, 1.0, 1.0).weights.tolist()


def test_an_image_counts_by_its_confidence_beside_its_own_class():
    # the first two are of class 0, whose mean confidence is 0.7; the third is alone in class 1, and sure as usual there
    assert soft_targets(LOGITS, ALL, 1.0, 0.5).weights[0].tolist() == near(0.5, 0.5 * 0.6 / 0.7, 0.5)


def test_an_image_that_a_fold_may_not_see_weighs_nothing_and_says_nothing_about_its_class():
    allowed = np.array([[False, True, True]])
    assert soft_targets(LOGITS, allowed, 1.0, 1.0).weights[0].tolist() == near(0, 1, 1)


def test_targets_of_a_fold_come_from_its_own_logits():
    both = np.concatenate([LOGITS, LOGITS[:, ::-1]])
    found = soft_targets(both, np.ones((2, 3), dtype=bool), 1.0, 1.0)
    assert found.probabilities[1, 0].tolist() == near(0.3, 0.7)


def pairs(*found):
    first, second, kinds = zip(*found, strict=True) if found else ((), (), ())
    return Pairs(np.array(first, int), np.array(second, int), tuple(kinds), np.ones(len(found), np.float32))


def test_a_fold_may_not_see_what_is_like_a_row_that_it_holds_out():
    folds = np.array([0, 1, -1], dtype=np.int8)  # then the images 3, 4, 5
    found = allowed_folds(pairs((0, 3, "re-encoded"), (1, 4, "look-alike"), (2, 5, "hflip")), folds, 3)
    assert found.tolist() == [[False, True, True], [True, False, True]]


def test_a_copy_of_a_copy_is_kept_away_too():
    folds = np.array([0, 1], dtype=np.int8)
    assert allowed_folds(pairs((0, 2, "crop"), (2, 3, "crop")), folds, 2).tolist() == [[False, False], [True, True]]


def test_where_much_is_alike_what_is_paired_with_a_row_is_kept_away():
    """So many look-alikes are left apart where folds are made; here a pair is still a pair."""
    count = 30
    folds = np.array([0, 1], dtype=np.int8)
    chain = [(0, 2, "look-alike"), *((row, row + 1, "look-alike") for row in range(2, count + 1))]
    assert allowed_folds(pairs(*chain), folds, count)[0].tolist() == [False] + [True] * (count - 1)

"""ROC AUC and average precision against numbers computed by hand, and where there is none."""

import numpy as np
import pytest

from ensemble.scoring.outcomes import evaluate

LABELS = np.array([0, 0, 1, 1])


def binary(positive):
    """Probabilities of two classes from those of the second."""
    positive = np.array(positive)
    return np.stack([1 - positive, positive], axis=1)


def test_roc_auc_is_the_share_of_pairs_in_order():
    assert evaluate("roc_auc", LABELS, binary([0.1, 0.4, 0.35, 0.8])) == 3 / 4


def test_a_tie_counts_half():
    assert evaluate("roc_auc", LABELS, binary([0.1, 0.4, 0.4, 0.8])) == 3.5 / 4
    assert evaluate("roc_auc", LABELS, binary([0.5] * 4)) == 0.5


def test_a_row_of_weight_three_is_three_rows():
    # pairs 3 * (.35 > .1) + 3 * 0 + 1 + 1, of 3 * 2 + 2
    assert evaluate("roc_auc", LABELS, binary([0.1, 0.4, 0.35, 0.8]), np.array([1, 1, 3, 1])) == 5 / 8


def test_average_precision_by_hand():
    # precision 1 at the first positive, 2/3 at the second
    assert evaluate("average_precision", LABELS, binary([0.1, 0.4, 0.35, 0.8])) == pytest.approx((1 + 2 / 3) / 2)


def test_rows_of_equal_probability_are_taken_together():
    # at .8: 1 of 1; at .4 both rows: 2 of 3
    assert evaluate("average_precision", LABELS, binary([0.1, 0.4, 0.4, 0.8])) == pytest.approx((1 + 2 / 3) / 2)
    assert evaluate("average_precision", LABELS, binary([0.5] * 4)) == 0.5  # the share of the class


def test_classes_without_a_row_are_left_out_of_the_mean():
    probs = np.array([[0.6, 0.3, 0.1], [0.2, 0.3, 0.5], [0.3, 0.4, 0.3]])
    labels = np.array([0, 1, 1])
    # class 0: first; class 1: tied with class 0's row, and before it
    assert evaluate("roc_auc", labels, probs) == pytest.approx((1 + 0.75) / 2)
    assert evaluate("average_precision", labels, probs) == pytest.approx((1 + (0.5 * 1 + 0.5 * 2 / 3)) / 2)


@pytest.mark.parametrize("classes", [2, 3])
def test_there_is_no_roc_auc_of_one_class_alone(classes):
    probs = np.full((4, classes), 1 / classes)
    assert np.isnan(evaluate("roc_auc", np.zeros(4, dtype=int), probs))
    assert np.isnan(evaluate("roc_auc", LABELS, probs, np.array([1, 1, 0, 0])))  # whose rows count nothing


def test_of_two_classes_there_is_no_average_precision_without_a_row_of_the_second():
    assert np.isnan(evaluate("average_precision", np.zeros(4, dtype=int), binary([0.5] * 4)))
    assert evaluate("average_precision", np.ones(4, dtype=int), binary([0.5] * 4)) == 1

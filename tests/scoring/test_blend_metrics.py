"""Metrics against numbers computed by hand."""

import numpy as np
import pytest

from ensemble.scoring import metrics


def one_hot(predicted, classes):
    return np.eye(classes)[predicted]


def test_log_loss_is_the_mean_of_minus_log_p():
    probs = np.array([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25], [0.0, 0.0, 1.0], [0.25, 0.5, 0.25]])
    assert metrics.log_loss(np.array([0, 1, 2, 1]), probs) == pytest.approx(np.log(2))  # (ln 2 + ln 4 + 0 + ln 2) / 4


def test_log_loss_of_a_sure_mistake_is_finite():
    assert metrics.log_loss(np.array([1]), np.array([[1.0, 0.0]])) == pytest.approx(34.5388, abs=1e-4)  # -ln 1e-15


def test_accuracy():
    assert metrics.accuracy(np.array([0, 1, 1, 0]), one_hot([0, 1, 0, 0], 2)) == 0.75


def test_macro_f1_leaves_out_a_class_in_neither_labels_nor_predictions():
    # class 0: 2*1/(1+2) = 2/3; class 1: 2*2/(3+2) = 4/5; classes 2 and 3 do not occur
    assert metrics.macro_f1(np.array([0, 0, 1, 1]), one_hot([0, 1, 1, 1], 4)) == pytest.approx((2 / 3 + 4 / 5) / 2)


def test_macro_f1_counts_a_class_that_is_only_predicted_as_zero():
    # class 0: 2*1/(1+2) = 2/3; class 1: 1; class 2: predicted once, never true: 0
    assert metrics.macro_f1(np.array([0, 0, 1]), one_hot([0, 2, 1], 3)) == pytest.approx((2 / 3 + 1 + 0) / 3)


def test_macro_f1_of_weighted_rows():
    # weights 2, 0, 1: class 0 right 2 of 2 labels and 2 predictions; class 1 likewise
    weighted = metrics.macro_f1_of(np.array([0, 0, 1]), np.array([0, 1, 1]), 2, np.array([2.0, 0.0, 1.0]))
    assert weighted == 1.0


def test_macro_f1_agrees_with_scikit_learn():
    from sklearn.metrics import f1_score

    draw = np.random.default_rng(0)
    labels, predicted = draw.integers(5, size=60), draw.integers(6, size=60)
    assert metrics.macro_f1(labels, one_hot(predicted, 8)) == pytest.approx(
        f1_score(labels, predicted, average="macro")
    )


def test_balanced_accuracy_is_mean_recall_of_the_classes_with_rows():
    # class 0: 3 of 4, class 1: 1 of 1, class 2: no row
    assert metrics.balanced_accuracy(np.array([0, 0, 0, 0, 1]), one_hot([0, 0, 0, 2, 1], 3)) == pytest.approx(0.875)


def test_ece():
    # two rows at .9, one right: |.5 - .9|; two at .6, both right: |1 - .6|; each bin holds half of the rows
    probs = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6]])
    assert metrics.ece(np.array([0, 1, 0, 1]), probs) == pytest.approx(0.4)


def test_ece_of_sure_and_right_predictions_is_zero():
    assert metrics.ece(np.array([0, 1]), np.eye(2)) == 0


def test_every_metric_says_which_way_is_better():
    labels, right, wrong = np.array([0, 1, 1]), one_hot([0, 1, 1], 2), one_hot([1, 0, 0], 2)
    for function, greater_is_better in metrics.METRICS.values():
        assert (function(labels, right) > function(labels, wrong)) == greater_is_better

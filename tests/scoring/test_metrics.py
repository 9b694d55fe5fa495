"""Metrics against numbers computed by hand."""

import numpy as np
import pytest

from ensemble.errors import UserError
from ensemble.scoring.metrics import METRICS, columns, computed, require_metric
from ensemble.scoring.outcomes import evaluate
from ensemble.scoring.row_values import cheapest


def one_hot(predicted, classes):
    return np.eye(classes)[predicted]


def test_log_loss_is_the_mean_of_minus_log_p():
    probs = np.array([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25], [0.0, 0.0, 1.0], [0.25, 0.5, 0.25]])
    assert evaluate("log_loss", np.array([0, 1, 2, 1]), probs) == pytest.approx(
        np.log(2)
    )  # (ln 2 + ln 4 + 0 + ln 2) / 4


def test_log_loss_of_a_sure_mistake_is_finite():
    assert evaluate("log_loss", np.array([1]), np.array([[1.0, 0.0]])) == pytest.approx(34.5388, abs=1e-4)  # -ln 1e-15


def test_accuracy():
    assert evaluate("accuracy", np.array([0, 1, 1, 0]), one_hot([0, 1, 0, 0], 2)) == 0.75


def test_macro_f1_leaves_out_a_class_in_neither_labels_nor_predictions():
    # class 0: 2*1/(1+2) = 2/3; class 1: 2*2/(3+2) = 4/5; classes 2 and 3 do not occur
    assert evaluate("macro_f1", np.array([0, 0, 1, 1]), one_hot([0, 1, 1, 1], 4)) == pytest.approx((2 / 3 + 4 / 5) / 2)


def test_macro_f1_counts_a_class_that_is_only_predicted_as_zero():
    # class 0: 2*1/(1+2) = 2/3; class 1: 1; class 2: predicted once, never true: 0
    assert evaluate("macro_f1", np.array([0, 0, 1]), one_hot([0, 2, 1], 3)) == pytest.approx((2 / 3 + 1 + 0) / 3)


def test_macro_f1_of_weighted_rows():
    # weights 2, 0, 1: class 0 right 2 of 2 labels and 2 predictions; class 1 likewise
    weighted = evaluate("macro_f1", np.array([0, 0, 1]), one_hot([0, 1, 1], 2), np.array([2.0, 0.0, 1.0]))
    assert weighted == 1.0


def test_macro_f1_agrees_with_scikit_learn():
    from sklearn.metrics import f1_score

    draw = np.random.default_rng(0)
    labels, predicted = draw.integers(5, size=60), draw.integers(6, size=60)
    assert evaluate("macro_f1", labels, one_hot(predicted, 8)) == pytest.approx(
        f1_score(labels, predicted, average="macro")
    )


def test_balanced_accuracy_is_mean_recall_of_the_classes_with_rows():
    # class 0: 3 of 4, class 1: 1 of 1, class 2: no row
    assert evaluate("balanced_accuracy", np.array([0, 0, 0, 0, 1]), one_hot([0, 0, 0, 2, 1], 3)) == pytest.approx(0.875)


def test_every_metric_says_which_way_is_better():
    labels, right, wrong = np.arange(9) % 7, one_hot(np.arange(9) % 7, 7), one_hot((np.arange(9) + 1) % 7, 7)
    for name, metric in METRICS.items():
        better, worse = (evaluate(name, labels, probs, costs=1 - np.eye(7)) for probs in (right, wrong))
        assert metric.sign * better > metric.sign * worse
        assert metric.sign == (1 if metric.greater_is_better else -1)


def test_computed_are_the_default_ones_and_those_asked_for():
    assert computed() == ("accuracy", "macro_f1", "log_loss", "balanced_accuracy")
    assert computed("roc_auc", "accuracy") == (*computed(), "roc_auc")


def test_a_metric_that_is_asked_for_takes_the_place_of_macro_f1():
    assert columns() == columns("log_loss") == ("accuracy", "macro_f1", "log_loss")
    assert columns("roc_auc") == ("accuracy", "roc_auc", "log_loss")


def test_numbers_as_they_are_shown():
    assert METRICS["accuracy"].number(0.91234) == "91.23"
    assert METRICS["roc_auc"].number(0.91234) == "0.9123"
    assert METRICS["top5_accuracy"].number(0.01, "+") == "+1.00"
    assert METRICS["expected_cost"].number(-0.01, "+") == "-0.0100"


def test_unknown_metrics_and_too_few_classes_are_refused():
    with pytest.raises(UserError, match="metric 'f1' is not one of: accuracy, macro_f1, log_loss"):
        require_metric("f1")
    with pytest.raises(UserError, match="'top5_accuracy' needs at least 6 classes, and there are 5"):
        require_metric("top5_accuracy", 5)
    assert require_metric("top5_accuracy", 6) is METRICS["top5_accuracy"]
    assert require_metric("roc_auc", 2) is METRICS["roc_auc"]


# ---- of counts -----------------------------------------------------------------------------------------------------


def test_quadratic_kappa_by_hand():
    # squared distances 0, 1, 0: mean 1/3; of all pairs 0 4 4, 1 1 1, 4 0 0: mean 15/9; 1 - (1/3) / (15/9)
    assert evaluate("quadratic_kappa", np.array([0, 1, 2]), one_hot([0, 2, 2], 3)) == pytest.approx(0.8)


def test_quadratic_kappa_of_one_class_alone_is_agreement():
    assert evaluate("quadratic_kappa", np.zeros(4, dtype=int), one_hot([0] * 4, 3)) == 1.0
    assert evaluate("quadratic_kappa", np.array([0, 1]), one_hot([0, 0], 2)) == 0.0  # no better than chance


def test_matthews_by_hand():
    # two classes: (tp tn - fp fn) / sqrt(..) = (2 * 3 - 1 * 1) / sqrt(3 * 3 * 4 * 4)
    labels, predicted = np.array([1, 1, 1, 0, 0, 0, 0]), [1, 1, 0, 0, 0, 0, 1]
    assert evaluate("matthews", labels, one_hot(predicted, 2)) == pytest.approx(5 / 12)


def test_matthews_is_0_where_labels_or_predictions_are_one_class():
    assert evaluate("matthews", np.array([0, 1, 2]), one_hot([1, 1, 1], 3)) == 0
    assert evaluate("matthews", np.array([1, 1]), one_hot([0, 1], 3), np.array([0.1, 0.2])) == 0


# ---- of rows' values -----------------------------------------------------------------------------------------------


def test_top5_accuracy_by_hand():
    probs = np.array([[0.3, 0.2, 0.2, 0.1, 0.1, 0.1], [0.3, 0.2, 0.2, 0.1, 0.1, 0.1], [0.0, 0.1, 0.2, 0.2, 0.2, 0.3]])
    # of the tied last three the first two are among the five: class 4 is, class 5 is not; class 0 is the sixth
    assert evaluate("top5_accuracy", np.array([4, 5, 0]), probs) == pytest.approx(1 / 3)
    assert evaluate("top5_accuracy", np.array([4, 5, 0]), probs, np.array([2.0, 1.0, 1.0])) == 0.5


def test_expected_cost_is_that_of_the_cheapest_decision():
    costs = np.array([[0.0, 1.0], [10.0, 0.0]])
    probs = np.array([[0.8, 0.2], [0.95, 0.05], [0.95, 0.05]])
    # predicting class 0 costs 10 p1, class 1 costs p0: the first row is decided for class 1, the others for class 0
    assert cheapest(probs, costs).tolist() == [1, 0, 0]
    assert evaluate("expected_cost", np.array([0, 0, 1]), probs, costs=costs) == pytest.approx((1 + 0 + 10) / 3)


def test_where_all_mistakes_cost_the_same_the_cheapest_decision_is_the_most_probable_class():
    probs = np.random.default_rng(0).dirichlet(np.ones(4), size=50)
    assert np.array_equal(cheapest(probs, 1 - np.eye(4)), probs.argmax(axis=1))
    labels = np.arange(50) % 4
    error = 1 - evaluate("accuracy", labels, probs)
    assert evaluate("expected_cost", labels, probs, costs=1 - np.eye(4)) == pytest.approx(error)


# ---- against scikit-learn ------------------------------------------------------------------------------------------


def one_vs_rest(score, labels, probs, weights):
    """The mean of scikit-learn's score over the classes with rows; of two classes that of the second."""
    classes = [1] if probs.shape[1] == 2 else np.unique(labels[weights > 0])
    return np.mean([score(labels == c, probs[:, c], sample_weight=weights) for c in classes])


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("classes", "present"), [(2, 2), (7, 7), (8, 6)])
def test_metrics_agree_with_scikit_learn(classes, present, weighted):
    from sklearn import metrics as sk

    draw = np.random.default_rng(classes)
    labels = draw.integers(present, size=200)
    probs = np.round(draw.dirichlet(np.ones(classes), size=200) + 0.2 * np.eye(classes)[labels], 2)  # with ties
    probs[:, present:] = 0  # never predicted either: scikit-learn leaves such a class out of kappa
    weights = draw.integers(0, 4, size=200) * draw.random() if weighted else np.ones(200)
    predicted = probs.argmax(axis=1)
    known = {
        "roc_auc": one_vs_rest(sk.roc_auc_score, labels, probs, weights),
        "average_precision": one_vs_rest(sk.average_precision_score, labels, probs, weights),
        "quadratic_kappa": sk.cohen_kappa_score(labels, predicted, weights="quadratic", sample_weight=weights),
        "matthews": sk.matthews_corrcoef(labels, predicted, sample_weight=weights),
        "accuracy": sk.accuracy_score(labels, predicted, sample_weight=weights),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, predicted, sample_weight=weights),
        "macro_f1": sk.f1_score(labels, predicted, average="macro", sample_weight=weights),
    }
    for name, expected in known.items():
        assert evaluate(name, labels, probs, weights if weighted else None) == pytest.approx(expected, abs=1e-12), name


def test_top5_accuracy_agrees_with_scikit_learn():
    from sklearn.metrics import top_k_accuracy_score

    draw = np.random.default_rng(0)
    labels, probs, weights = draw.integers(9, size=100), draw.dirichlet(np.ones(9), size=100), draw.random(100)
    expected = top_k_accuracy_score(labels, probs, k=5, sample_weight=weights, labels=np.arange(9))
    assert evaluate("top5_accuracy", labels, probs, weights) == pytest.approx(expected)

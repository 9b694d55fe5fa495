"""Losses against numbers worked out by hand, and the weights that go with them."""

import math

import numpy as np
import pytest
import torch

from ensemble.errors import UserError
from ensemble.train.losses import LOSSES, class_balanced_weights, class_counts, make_loss, row_weights

CPU = torch.device("cpu")
LN2 = math.log(2)
EVEN = np.ones(3)
HALVES = torch.tensor([[0.5, 0.25, 0.25]] * 3).log() + 7.0  # probabilities 1/2, 1/4, 1/4
EACH = torch.tensor([0, 1, 2])


def losses(kind, counts=EVEN, logits=HALVES, labels=EACH, **options):
    return make_loss(kind, counts, CPU, **options)(logits, labels)


def slope(kind, logits, labels, counts=EVEN, **options):
    logits = logits.clone().requires_grad_()
    losses(kind, counts, logits, labels, **options).sum().backward()
    return logits.grad


def near(*values):
    return pytest.approx(values, rel=1e-6, abs=1e-6)


def test_cross_entropy():
    assert losses("cross_entropy").tolist() == near(LN2, 2 * LN2, 2 * LN2)


def test_cross_entropy_of_smoothed_labels():
    # 0.1 of each class: 0.1 (1 + 2 + 2) ln 2, and 0.7 on the label
    assert losses("cross_entropy", smoothing=0.3).tolist() == near(1.2 * LN2, 1.9 * LN2, 1.9 * LN2)


def test_focal():
    # (1 - p)^2 -log p: 1/4 of ln 2, 9/16 of 2 ln 2
    assert losses("focal").tolist() == near(0.25 * LN2, 1.125 * LN2, 1.125 * LN2)
    assert losses("focal", gamma=1).tolist() == near(0.5 * LN2, 1.5 * LN2, 1.5 * LN2)


def test_focal_of_smoothed_labels():
    # 0.1 (0.25 + 1.125 + 1.125) ln 2 = 0.25 ln 2, and 0.7 of the label's own
    assert losses("focal", smoothing=0.3).tolist() == near(0.425 * LN2, 1.0375 * LN2, 1.0375 * LN2)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_focal_without_focus_is_cross_entropy(smoothing):
    plain = losses("cross_entropy", smoothing=smoothing)
    assert losses("focal", smoothing=smoothing, gamma=0.0).tolist() == near(*plain.tolist())


def test_class_balanced_weights_are_those_of_the_effective_numbers():
    # beta 0.999: effective numbers of 1 and 2 rows are 1 and 1.999; scaled so that 1 a + 2 b = 3
    scale = 3 / (1 + 2 / 1.999)
    assert class_balanced_weights(np.array([1.0, 2.0])).tolist() == near(scale, scale / 1.999)
    assert class_balanced_weights(np.array([1e6, 2e6])).tolist() == near(1.0, 1.0)  # both are as good as 1000 rows
    assert class_balanced_weights(np.array([1e-3, 2e-3])).tolist() == pytest.approx([1.5, 0.75], rel=1e-5)


def test_class_balanced_weighs_the_rows_of_a_class():
    a, b = class_balanced_weights(np.array([1.0, 2.0]))
    logits = HALVES[:, :2]  # 2/3, 1/3
    found = losses("class_balanced", np.array([1, 2]), logits, torch.tensor([0, 1, 1]), smoothing=0.2)
    mean = (math.log(3) + math.log(3 / 2)) / 2
    rows = (a * (0.8 * math.log(3 / 2) + 0.2 * mean), b * (0.8 * math.log(3) + 0.2 * mean))
    assert found.tolist() == near(rows[0], rows[1], rows[1])
    even = losses("class_balanced", EVEN, smoothing=0.2)
    assert even.tolist() == near(*losses("cross_entropy", smoothing=0.2).tolist())


def test_logit_adjusted_adds_the_log_prior():
    # logits of equal classes are, with the prior, the prior itself
    found = losses("logit_adjusted", np.array([20, 10, 10]), torch.full((3, 3), 5.0))
    assert found.tolist() == near(LN2, 2 * LN2, 2 * LN2)
    smoothed = losses("logit_adjusted", np.array([20, 10, 10]), torch.full((3, 3), 5.0), smoothing=0.3)
    assert smoothed.tolist() == near(1.2 * LN2, 1.9 * LN2, 1.9 * LN2)


def test_logit_adjusted_learns_the_logits_of_equal_classes():
    """Rows that say nothing but how frequent the classes are: logits that are all the same are already the optimum."""
    labels = torch.tensor([0] * 5 + [1] * 3 + [2] * 2)
    logits = torch.zeros(10, 3)
    assert slope("logit_adjusted", logits, labels, np.array([5, 3, 2])).sum(0).tolist() == near(0, 0, 0)
    assert slope("cross_entropy", logits, labels).sum(0).tolist() == near(10 / 3 - 5, 10 / 3 - 3, 10 / 3 - 2)


def test_slope_of_cross_entropy_is_probability_less_target():
    found = slope("cross_entropy", HALVES[:1], EACH[:1], smoothing=0.3)
    assert found[0].tolist() == near(0.5 - 0.8, 0.25 - 0.1, 0.25 - 0.1)


def test_slope_of_focal():
    # of the label's logit: (1 - p)^g (g p log p - (1 - p)); the others share it by their probabilities
    own = 0.25 * (-LN2 - 0.5)
    assert slope("focal", HALVES[:1], EACH[:1])[0].tolist() == near(own, -own / 2, -own / 2)


@pytest.mark.parametrize("kind", LOSSES)
def test_label_smoothing_is_a_mixture_of_labels(kind):
    """So is mixup, whose two targets are two calls."""
    counts, rows = np.array([4, 2, 2]), HALVES[:1].expand(3, 3)
    if kind == "class_balanced":
        counts = EVEN  # its weight is the row's, and not the target's
    plain, smoothed = losses(kind, counts, rows), losses(kind, counts, rows, smoothing=0.3)
    assert smoothed.tolist() == near(*(0.7 * plain + 0.3 * plain.mean()).tolist())


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_loss_of_probabilities_is_the_mean_of_the_labels_losses(kind, smoothing):
    counts, rows = np.array([4, 2, 1]), HALVES[:1].expand(3, 3)
    of_labels = losses(kind, counts, rows, smoothing=smoothing)
    targets = torch.tensor([[0.5, 0.25, 0.25], [0.0, 0.9, 0.1], [0.0, 0.0, 1.0]])
    assert losses(kind, counts, rows, targets, smoothing=smoothing).tolist() == near(*(targets @ of_labels).tolist())


def test_cross_entropy_of_probabilities():
    # 1/2 of ln 2, 1/4 of 2 ln 2 twice; of all on the last class 2 ln 2
    targets = torch.tensor([[0.5, 0.25, 0.25], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    assert losses("cross_entropy", labels=targets).tolist() == near(1.5 * LN2, 2 * LN2, LN2)


@pytest.mark.parametrize("kind", LOSSES)
def test_a_class_without_rows_leaves_all_finite(kind):
    counts, logits = np.array([3, 1, 0]), torch.zeros(3, 3)
    for smoothing in (0.0, 0.1):
        assert losses(kind, counts, logits, smoothing=smoothing).isfinite().all()
        found = slope(kind, logits, torch.tensor([0, 0, 1]), counts, smoothing=smoothing)
        assert found.isfinite().all() and (found[:, 2] > 0).all()  # the logit of the class is pressed down


def test_a_class_without_rows_weighs_nothing_or_half_a_row():
    assert class_balanced_weights(np.array([5.0, 5.0, 0.0])).tolist() == near(1, 1, 0)
    found = losses("logit_adjusted", np.array([3, 1, 0]), torch.zeros(3, 3))
    assert found.tolist() == near(math.log(4.5 / 3), math.log(4.5), math.log(9))


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_logits_of_any_size_leave_all_finite(kind, gamma):
    logits = torch.tensor([[1e4, 0.0, -1e4], [-1e4, 0.0, 1e4], [88.0, 0.0, 0.0]])
    for labels in (torch.tensor([0, 2, 0]), torch.tensor([2, 0, 1])):
        assert losses(kind, EVEN, logits, labels, smoothing=0.1, gamma=gamma).isfinite().all()
        assert slope(kind, logits, labels, smoothing=0.1, gamma=gamma).isfinite().all()


@pytest.mark.parametrize("kind", LOSSES)
def test_losses_are_float32_whatever_comes_in(kind):
    counts = np.array([4, 2, 1])
    rough = HALVES.bfloat16()
    fine = losses(kind, counts, rough.float(), smoothing=0.1)
    with torch.autocast("cpu", torch.bfloat16):
        for logits in (rough, rough.float()):
            found = losses(kind, counts, logits, smoothing=0.1)
            assert found.dtype == torch.float32 and found.shape == (3,) and torch.equal(found, fine)


def test_unknown_loss_and_impossible_counts():
    with pytest.raises(
        ValueError, match="no loss is named 'hinge'; there are: cross_entropy, focal, class_balanced, lo"
    ):
        make_loss("hinge", EVEN, CPU)
    for counts in (np.zeros(3), np.array([1, -1, 3]), np.array([1, np.nan]), np.ones((2, 2))):
        with pytest.raises(ValueError, match="counts must be finite numbers of 0 or more, one per class, not all 0"):
            make_loss("cross_entropy", counts, CPU)


# ---- sample weights ------------------------------------------------------------------------------------------------


def test_row_weights_have_mean_1_over_the_training_rows():
    found = row_weights(np.array([1.0, 3.0, 0.0, 99.0, 2.0]), np.array([0, 1, 2]))
    assert found.dtype == np.float32 and found.tolist() == near(0.75, 2.25, 0.0)
    huge = row_weights(np.array([1e308, 1e308, 0.0]), np.arange(3))
    assert huge.tolist() == near(1.5, 1.5, 0.0)
    assert row_weights(None, np.array([7, 8])).tolist() == [1.0, 1.0]


def test_training_rows_that_all_weigh_nothing():
    with pytest.raises(UserError) as caught:
        row_weights(np.array([0.0, 0.0, 1.0]), np.array([0, 1]))
    assert str(caught.value) == "all 2 training rows of a fold have a sample weight of 0: nothing to learn"


def test_class_counts_are_sums_of_weights():
    labels, rows = np.array([0, 2, 2, 1, 0]), np.array([0, 1, 2, 4])
    assert class_counts(labels, rows, np.ones(4, dtype=np.float32), 4).tolist() == [2, 0, 2, 0]
    found = class_counts(labels, rows, np.array([0.5, 1.5, 2.0, 0.0], dtype=np.float32), 4)
    assert found.dtype == np.float64 and found.tolist() == [0.5, 0, 3.5, 0]

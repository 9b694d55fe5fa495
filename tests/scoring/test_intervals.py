"""Intervals by hand."""

import numpy as np
import pytest

from ensemble.scoring.bootstrap import bias_of_best, bootstrap, gain, scores
from ensemble.scoring.intervals import Support, chance_of_gain, gain_interval, score_interval
from ensemble.scoring.metrics import METRICS, computed
from ensemble.scoring.outcomes import Outcome

Z = 1.959963985


def outcome_of(predicted, losses):
    ones = np.ones(len(losses))
    return Outcome(predicted, predicted, ones, 0 * ones, {"log_loss": losses}, computed())


def resampled(error, skewness=0.0, count=400):
    """Values of this standard deviation (n - 1) and about this skewness, around 0."""
    draw = np.random.default_rng(0).standard_normal(count)
    values = draw + skewness * (draw**2 - 1) / 6
    values -= values.mean()
    return error * values / values.std(ddof=1)


def test_no_mistake_has_wilsons_interval_for_as_many_rows():
    labels = np.arange(200) % 4
    made = [outcome_of(labels, np.full(200, 0.1))]
    drawn = bootstrap(labels, made, np.arange(200), 4)
    table = scores(labels, made, labels, 4, drawn)[0]
    t = 1.971957
    assert (table["accuracy"].value, table["accuracy"].high) == (1, 1)
    assert table["accuracy"].low == pytest.approx(200 / (200 + t**2), abs=1e-6)
    assert table["macro_f1"].low == pytest.approx(200 / (200 + t**2), abs=1e-6)  # four classes of 50 rows


def test_a_mean_over_classes_rests_on_the_rarest():
    labels = np.array([0] * 90 + [1] * 10)
    made = [outcome_of(labels, np.full(100, 0.1))]
    support = bootstrap(labels, made, np.arange(100), 2).support
    assert support == Support(100, 100, pytest.approx(4 / (1 / 90 + 1 / 10)))


def test_groups_and_weights_count_as_fewer_rows():
    labels = np.zeros(8, dtype=np.int64)
    made = [outcome_of(labels, np.full(8, 0.1))]
    groups = np.array([0, 0, 0, 0, 1, 1, 2, 2])
    assert bootstrap(labels, made, groups, 1).support == Support(3, pytest.approx(64 / 24), pytest.approx(64 / 24))
    weights = np.array([3.0, 1, 1, 1, 1, 1, 1, 1])
    assert bootstrap(labels, made, np.arange(8), 1, weights).support.rows == pytest.approx(100 / 16)


def test_a_share_has_wilsons_interval_for_rows_that_vary_as_much():
    support = Support(1001, 1001, 1001)
    drawn = 0.9 + resampled(0.01)
    known = 0.9 * 0.1 / (0.01**2 * 1001 / 1000)
    t = 1.962339
    middle = (0.9 + t**2 / (2 * known)) / (1 + t**2 / known)
    half = t * np.sqrt(0.09 / known + t**2 / (4 * known**2)) / (1 + t**2 / known)
    assert score_interval(METRICS["accuracy"], 0.9, drawn, support) == pytest.approx((middle - half, middle + half))
    low, high = score_interval(METRICS["matthews"], 0.8, 2 * drawn - 1, support)  # between -1 and 1
    assert ((low + 1) / 2, (high + 1) / 2) == pytest.approx((middle - half, middle + half))


def test_a_skewed_loss_reaches_further_up():
    drawn = 0.5 + resampled(0.1, 0.3)
    centred = drawn - drawn.mean()
    skewness = (centred**3).mean() / 0.1**3 * np.sqrt(10_000 / 10_001) ** 3
    low, high = score_interval(METRICS["log_loss"], 0.5, drawn, Support(10_001, 10_001, 10_001))
    error, t = 0.1 * np.sqrt(10_001 / 10_000), Z + (Z**3 + Z) / 40_000
    # Hall's transformation of the ends is what it is of a normal value
    for end, wanted in ((low, t), (high, -t)):
        studentised = (0.5 - end) / error
        transformed = studentised + skewness * studentised**2 / 3 + skewness**2 * studentised**3 / 27 + skewness / 6
        assert transformed == pytest.approx(wanted, abs=1e-4)
    assert high - 0.5 > 1.2 * (0.5 - low)


def test_a_gain_in_loss_has_the_wider_end_on_each_side():
    support, drawn = Support(10_001, 10_001, 10_001), 0.5 + resampled(0.1, 0.3)
    low, high = gain_interval(METRICS["log_loss"], 0.5, drawn, support)
    assert low == pytest.approx(0.5 - 0.1 * Z, rel=1e-3)
    assert high == score_interval(METRICS["log_loss"], 0.5, drawn, support)[1]


@pytest.mark.parametrize(
    ("value", "low", "high", "chance"),
    [
        (0.2, 0.0, 0.9, 0.975),
        (-0.2, -0.9, 0.0, 0.025),
        (0.1, -0.1, 0.2, 0.836452),  # a half of the width: the normal distribution at 0.979982
        (0.0, -0.1, 0.3, 0.5),
        (0.2, 0.2, 0.2, 1.0),
        (-0.2, -0.2, -0.2, 0.0),
    ],
)
def test_the_chance_that_a_gain_is_one_goes_with_its_interval(value, low, high, chance):
    assert chance_of_gain(value, low, high) == pytest.approx(chance, abs=1e-6)


def test_a_gain_of_accuracy_is_as_if_two_rows_more_differed():
    ends = gain_interval(METRICS["accuracy"], 0.0, np.zeros(50), Support(100, 100, 25))
    half = 1.984217 * np.sqrt(2) / 100
    assert ends == pytest.approx((-half, half), abs=1e-6)
    low, high = gain_interval(METRICS["macro_f1"], 0.0, np.zeros(50), Support(100, 100, 25))
    assert (low, high) == pytest.approx((-2 * half, 2 * half), abs=2e-6)


def test_what_differs_between_the_fits_counts():
    support, drawn = Support(10_001, 10_001, 10_001), resampled(0.03)
    low, high = gain_interval(METRICS["log_loss"], 0.0, drawn, support, fits=0.04**2)
    assert high == pytest.approx(0.05 * Z, rel=0.01) and low == pytest.approx(-0.05 * Z, rel=0.01)


def test_few_groups_have_students_quantile():
    low, high = gain_interval(METRICS["log_loss"], 0.0, resampled(0.1), Support(5, 5, 5))
    assert high >= 2.776445 * 0.1 * np.sqrt(5 / 4) * (1 - 1e-6)
    assert low <= -2.776445 * 0.1 * np.sqrt(5 / 4) * (1 - 1e-6)


def test_the_best_of_equals_is_biased_by_the_mean_of_the_larger_error():
    """Of two independent errors the larger one has a mean of s / sqrt(pi)."""
    draw = np.random.default_rng(0).normal(0, 0.1, (20_000, 2))
    assert bias_of_best(np.array([0.5, 0.5]), 0.5 + draw) == pytest.approx(0.1 / np.sqrt(np.pi), rel=0.03)
    assert bias_of_best(np.array([0.5, 5.0]), np.array([0.5, 5.0]) + draw) == pytest.approx(0, abs=1e-12)
    assert bias_of_best(np.array([0.5]), 0.5 + draw[:, :1]) == 0
    by_hand = np.array([[0.0, 2.0], [2.0, 0.0]])  # around 1 and 1: the best of each resample is 1 above its value
    assert bias_of_best(np.array([1.0, 1.0]), by_hand) == 1


def test_a_gain_over_the_best_of_several_reaches_further_up():
    draw = np.random.default_rng(1)
    labels = draw.integers(3, size=300)
    made = [outcome_of(np.where(draw.random(300) < 0.7, labels, (labels + 1) % 3), np.ones(300)) for _ in range(4)]
    drawn = bootstrap(labels, made, np.arange(300), 3)
    table = scores(labels, made, np.zeros(300), 3, drawn)
    best = max(range(1, 4), key=lambda s: table[s]["accuracy"].value)
    fixed = gain("accuracy", table, drawn, 0, best, "best")
    chosen = gain("accuracy", table, drawn, 0, best, "best", range(1, 4))
    values = np.array([table[s]["accuracy"].value for s in range(1, 4)])
    assert (chosen.value, chosen.low) == (fixed.value, fixed.low)
    assert chosen.high - fixed.high == pytest.approx(bias_of_best(values, drawn["accuracy"][:, 1:]))
    assert chosen.high > fixed.high + 0.001


def test_equal_answers_may_differ_on_other_rows_unless_they_can_not():
    labels = np.arange(50) % 2
    made = [outcome_of(labels, np.full(50, loss)) for loss in (0.1, 0.2)]
    drawn = bootstrap(labels, made, np.arange(50), 2)
    table = scores(labels, made, np.zeros(50), 2, drawn)
    half = 2.009575 * np.sqrt(2) / 50
    by_chance = gain("accuracy", table, drawn, 0, 1, "other")
    assert (by_chance.value, by_chance.low, by_chance.high) == (
        0,
        pytest.approx(-half, abs=1e-6),
        pytest.approx(half, abs=1e-6),
    )
    always = gain("accuracy", table, drawn, 0, 1, "other", same_classes=True)
    assert (always.value, always.low, always.high) == (0, 0, 0)

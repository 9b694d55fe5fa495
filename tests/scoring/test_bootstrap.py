"""Intervals and paired comparisons."""

import numpy as np
import pytest

from ensemble.scoring import bootstrap as module
from ensemble.scoring.bootstrap import Score, bootstrap, gain, scores
from ensemble.scoring.metrics import METRICS, computed
from ensemble.scoring.outcomes import Outcome as FullOutcome
from ensemble.scoring.outcomes import evaluate, on_rows, outcome, value


def Outcome(losses, predicted):
    """An outcome whose confidence and Brier scores don't matter."""
    return FullOutcome(
        predicted, predicted, np.ones(len(losses)), np.zeros(len(losses)), {"log_loss": losses}, computed()
    )


def outcomes(rows, classes, right, seed=0):
    """Labels (N,) and one outcome for each share of right predictions."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(classes, size=rows)
    made = []
    for share in right:
        predicted = np.where(draw.random(rows) < share, labels, draw.integers(classes, size=rows))
        made.append(Outcome(draw.exponential(size=rows), predicted))
    return labels, made


def test_bootstrap_has_the_textbook_standard_error():
    labels, made = outcomes(2000, 4, [0.8])
    drawn = bootstrap(labels, made, np.arange(2000), 4)
    p = (made[0].predicted == labels).mean()
    assert drawn["accuracy"].std() == pytest.approx(np.sqrt(p * (1 - p) / 2000), rel=0.1)
    assert drawn["log_loss"].std() == pytest.approx(made[0].losses.std() / np.sqrt(2000), rel=0.1)
    assert drawn["accuracy"].mean() == pytest.approx(p, abs=0.002)


def test_bootstrap_over_groups_does_not_gain_from_copies():
    labels, made = outcomes(500, 3, [0.7])
    alone = bootstrap(labels, made, np.arange(500), 3)["accuracy"].std()
    copies = [Outcome(np.repeat(o.losses, 4), np.repeat(o.predicted, 4)) for o in made]
    grouped = bootstrap(np.repeat(labels, 4), copies, np.repeat(np.arange(500), 4), 3)["accuracy"].std()
    ungrouped = bootstrap(np.repeat(labels, 4), copies, np.arange(2000), 3)["accuracy"].std()
    assert grouped == pytest.approx(alone, rel=0.15)
    assert ungrouped == pytest.approx(alone / 2, rel=0.15)


def test_macro_f1_of_a_resample_is_that_of_its_rows():
    labels, made = outcomes(60, 5, [0.5, 0.7])
    groups = np.random.default_rng(1).integers(20, size=60)
    drawn = bootstrap(labels, made, groups, 5, resamples=7, seed=3)
    names, where = np.unique(groups, return_inverse=True)
    draw = np.random.default_rng(3)
    for b in range(7):
        weights = np.bincount(draw.integers(len(names), size=len(names)), minlength=len(names))[where]
        for s, result in enumerate(made):
            rows = np.repeat(np.arange(60), weights)
            own, predicted = labels[rows], result.predicted[rows]
            assert drawn["macro_f1"][b, s] == pytest.approx(evaluate("macro_f1", own, np.eye(5)[predicted]))
            assert drawn["accuracy"][b, s] == pytest.approx((own == predicted).mean())
            recalls = [(predicted[own == c] == c).mean() for c in np.unique(own)]
            assert drawn["balanced_accuracy"][b, s] == pytest.approx(np.mean(recalls))
            assert drawn["log_loss"][b, s] == pytest.approx(result.losses[rows].mean())


def test_weights_of_rows_stand_for_copies_of_them():
    labels, made = outcomes(80, 4, [0.6])
    weights = np.random.default_rng(2).integers(0, 3, size=80)
    rows = np.repeat(np.arange(80), weights)
    copied = on_rows(made[0], rows)
    for metric in ("log_loss", "accuracy", "macro_f1", "balanced_accuracy"):
        weighed = value(metric, labels, made[0], 4, weights.astype(float))
        assert weighed == pytest.approx(value(metric, labels[rows], copied, 4))
    drawn = bootstrap(labels, made, np.arange(80), 4, weights, 50)["accuracy"]
    again = bootstrap(labels, made, np.arange(80), 4, 2 * weights, 50)["accuracy"]
    assert np.array_equal(drawn, again)


def test_random_blocks_of_many_rows_vary_as_much(monkeypatch):
    labels, made = outcomes(4000, 3, [0.7])
    rows = bootstrap(labels, made, np.arange(4000), 3)
    monkeypatch.setattr(module, "MOST_CLUSTERS", 800)
    blocks = bootstrap(labels, made, np.arange(4000), 3)
    for metric in ("log_loss", "accuracy", "macro_f1"):
        assert blocks[metric].std() == pytest.approx(rows[metric].std(), rel=0.12)
        assert blocks[metric].mean() == pytest.approx(rows[metric].mean(), abs=0.002)


def test_bootstrap_is_seeded():
    labels, made = outcomes(50, 3, [0.5])
    first, again, other = (bootstrap(labels, made, np.arange(50), 3, None, 20, seed) for seed in (0, 0, 1))
    assert np.array_equal(first["macro_f1"], again["macro_f1"])
    assert not np.array_equal(first["log_loss"], other["log_loss"])


def test_scores_hold_value_folds_and_an_interval_around():
    labels = np.array([0, 1, 0, 1])
    made = [Outcome(np.array([1.0, 2.0, 3.0, 4.0]), np.array([0, 1, 1, 1]))]
    drawn = bootstrap(labels, made, np.arange(4), 2)
    table = scores(labels, made, np.array([0, 0, 1, 1]), 2, drawn)[0]
    assert table["log_loss"].value == 2.5
    assert table["log_loss"].folds == (1.5, 3.5)
    assert table["log_loss"].mean == 2.5
    assert table["log_loss"].std == pytest.approx(np.sqrt(2))
    assert table["accuracy"].folds == (1.0, 0.5)
    assert table["macro_f1"].folds == (1.0, pytest.approx(1 / 3))  # fold 1: class 0 is 0, class 1 is 2/3
    assert table["accuracy"].low < 0.75 < table["accuracy"].high


def test_spread_of_one_fold_is_not_a_number():
    assert np.isnan(Score(1.0, 1.0, 1.0, (1.0,)).std)


def test_gain_is_positive_where_the_blend_is_better_whichever_way_the_metric_points():
    labels, (worse, better) = outcomes(800, 4, [0.6, 0.9])
    better = Outcome(worse.losses * 0.5, better.predicted)
    made = [better, worse]
    drawn = bootstrap(labels, made, np.arange(800), 4)
    table = scores(labels, made, np.zeros(800), 4, drawn)
    for metric in ("log_loss", "accuracy", "macro_f1"):
        up, down = gain(metric, table, drawn, 0, 1, "worse"), gain(metric, table, drawn, 1, 0, "better")
        assert 0 < up.low < up.value < up.high
        assert (up.p_better, down.p_better) == pytest.approx((1.0, 0.0), abs=1e-6)
        assert down.value == pytest.approx(-up.value)


def test_gain_over_itself_is_a_tie():
    labels, made = outcomes(100, 3, [0.5])
    drawn = bootstrap(labels, made * 2, np.arange(100), 3)
    table = scores(labels, made * 2, np.zeros(100), 3, drawn)
    tie = gain("macro_f1", table, drawn, 0, 1, "itself")
    assert (tie.value, tie.low, tie.high, tie.p_better) == (0, 0, 0, 0.5)


def test_a_paired_interval_is_narrower_than_an_unpaired_one():
    labels, made = outcomes(1000, 4, [0.7])
    made.append(Outcome(made[0].losses + 0.01, made[0].predicted))
    drawn = bootstrap(labels, made, np.arange(1000), 4)
    table = scores(labels, made, np.zeros(1000), 4, drawn)
    paired = gain("log_loss", table, drawn, 0, 1, "shifted")
    assert paired.value == pytest.approx(0.01)
    assert paired.high - paired.low < 1e-9
    assert table[0]["log_loss"].high - table[0]["log_loss"].low > 0.05


OTHERS = tuple(name for name, metric in METRICS.items() if not metric.default)


def probabilities(rows, classes, seed=0):
    """Labels, probabilities with ties, costs, and integer row weights."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(classes, size=rows)
    probs = np.round(draw.dirichlet(np.ones(classes), size=rows) + 0.3 * np.eye(classes)[labels], 1)
    return labels, probs, draw.integers(0, 9, size=(classes, classes)).astype(float), draw.integers(0, 3, size=rows)


@pytest.mark.parametrize("classes", [2, 7])
@pytest.mark.parametrize("metric", OTHERS)
def test_each_metric_of_a_resample_is_that_of_its_rows(metric, classes, monkeypatch):
    monkeypatch.setattr(module, "MOST_WEIGHTS", 150)  # rows x draws: two draws at once
    labels, probs, costs, weights = probabilities(60, classes)
    groups = np.random.default_rng(1).integers(20, size=60)
    made = [outcome(labels, own, (metric,), costs) for own in (probs, np.roll(probs, 1, axis=0))]
    drawn = bootstrap(labels, made, groups, classes, weights, resamples=7, seed=3)[metric]
    names, where = np.unique(groups, return_inverse=True)
    draw = np.random.default_rng(3)
    for b in range(7):
        times = np.bincount(draw.integers(len(names), size=len(names)), minlength=len(names))[where]
        rows = np.repeat(np.arange(60), times * weights)
        for s, own in enumerate((probs, np.roll(probs, 1, axis=0))):
            assert drawn[b, s] == pytest.approx(evaluate(metric, labels[rows], own[rows], costs=costs))


def test_a_resample_without_a_rare_class_has_no_roc_auc_and_is_left_out_of_the_interval():
    labels = np.array([0] * 9 + [1])
    probs = np.stack([np.linspace(1, 0.1, 10), np.linspace(0, 0.9, 10)], axis=1)
    made = [outcome(labels, probs, ("roc_auc",)), outcome(labels, probs[::-1], ("roc_auc",))]
    drawn = bootstrap(labels, made, np.arange(10), 2, resamples=100)
    assert 20 < np.isnan(drawn["roc_auc"][:, 0]).sum() < 50  # (9 / 10) ** 10 is 0.35
    folds = np.arange(10) % 2
    table = scores(labels, made, folds, 2, drawn)
    found = table[0]["roc_auc"]
    assert (found.value, found.high) == (1, 1)  # two classes of 9 rows and 1 say as much as 3.6 rows
    assert found.low == pytest.approx(3.6 / (3.6 + 2.262157**2))
    assert np.isnan(found.folds[0]) and found.folds[1] == 1
    gained = gain("roc_auc", table, drawn, 0, 1, "reversed")
    assert (gained.value, gained.high, gained.p_better) == (1, 1, pytest.approx(1, abs=1e-3))
    assert gained.low == pytest.approx(1 - 2.262157 * np.sqrt(2 / (10 * 3.6)))

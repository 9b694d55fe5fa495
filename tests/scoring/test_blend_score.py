"""Cross-fitting, intervals and paired comparisons."""

import numpy as np
import pytest

from ensemble.errors import UserError
from ensemble.scoring import score
from ensemble.scoring.metrics import macro_f1_of
from ensemble.scoring.score import Outcome as FullOutcome


def Outcome(losses, predicted):
    """An outcome whose confidence and Brier scores don't matter."""
    return FullOutcome(losses, predicted, np.ones(len(losses)), np.zeros(len(losses)))


def outcomes(rows, classes, right, seed=0):
    """Labels (N,) and one outcome for each share of right predictions."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(classes, size=rows)
    made = []
    for share in right:
        predicted = np.where(draw.random(rows) < share, labels, draw.integers(classes, size=rows))
        made.append(Outcome(draw.exponential(size=rows), predicted))
    return labels, made


def test_cross_fit_gives_each_fold_what_was_fitted_on_the_others():
    folds = np.array([2, 0, 1, 0, 2, 1])
    values = np.arange(6.0)

    def fit_apply(train, test):
        return np.repeat(values[train].mean(), 2 * len(test)).reshape(-1, 2)

    probs = score.cross_fit(fit_apply, folds, np.arange(6))
    # the others of fold 0 are 0 2 4 5, of fold 1: 0 1 3 4, of fold 2: 1 2 3 5
    assert probs[:, 0].tolist() == [2.75, 2.75, 2.0, 2.75, 2.75, 2.0]


def test_one_fold_number_is_divided_by_groups():
    units = np.repeat(np.arange(12), 3)
    folds = score.usable_folds(np.zeros(36, dtype=np.int64), units)
    assert len(np.unique(folds)) == 5
    assert all(len(np.unique(folds[units == unit])) == 1 for unit in range(12))
    assert np.array_equal(folds, score.usable_folds(np.zeros(36, dtype=np.int64), units))


def test_one_group_cannot_be_divided():
    with pytest.raises(UserError, match="at least 2 rows"):
        score.cross_fit(lambda train, test: np.ones((len(test), 2)), np.zeros(5), np.zeros(5))


def test_bootstrap_has_the_textbook_standard_error():
    labels, made = outcomes(2000, 4, [0.8])
    drawn = score.bootstrap(labels, made, np.arange(2000), 4)
    p = (made[0].predicted == labels).mean()
    assert drawn["accuracy"].std() == pytest.approx(np.sqrt(p * (1 - p) / 2000), rel=0.1)
    assert drawn["log_loss"].std() == pytest.approx(made[0].losses.std() / np.sqrt(2000), rel=0.1)
    assert drawn["accuracy"].mean() == pytest.approx(p, abs=0.002)


def test_bootstrap_over_groups_does_not_gain_from_copies():
    labels, made = outcomes(500, 3, [0.7])
    alone = score.bootstrap(labels, made, np.arange(500), 3)["accuracy"].std()
    copies = [Outcome(np.repeat(o.losses, 4), np.repeat(o.predicted, 4)) for o in made]
    grouped = score.bootstrap(np.repeat(labels, 4), copies, np.repeat(np.arange(500), 4), 3)["accuracy"].std()
    ungrouped = score.bootstrap(np.repeat(labels, 4), copies, np.arange(2000), 3)["accuracy"].std()
    assert grouped == pytest.approx(alone, rel=0.15)
    assert ungrouped == pytest.approx(alone / 2, rel=0.15)


def test_macro_f1_of_a_resample_is_that_of_its_rows():
    labels, made = outcomes(60, 5, [0.5, 0.7])
    groups = np.random.default_rng(1).integers(20, size=60)
    drawn = score.bootstrap(labels, made, groups, 5, resamples=7, seed=3)
    names, where = np.unique(groups, return_inverse=True)
    draw = np.random.default_rng(3)
    for b in range(7):
        weights = np.bincount(draw.integers(len(names), size=len(names)), minlength=len(names))[where]
        for s, result in enumerate(made):
            rows = np.repeat(np.arange(60), weights)
            own, predicted = labels[rows], result.predicted[rows]
            assert drawn["macro_f1"][b, s] == pytest.approx(macro_f1_of(own, predicted, 5))
            assert drawn["accuracy"][b, s] == pytest.approx((own == predicted).mean())
            recalls = [(predicted[own == c] == c).mean() for c in np.unique(own)]
            assert drawn["balanced_accuracy"][b, s] == pytest.approx(np.mean(recalls))
            assert drawn["log_loss"][b, s] == pytest.approx(result.losses[rows].mean())


def test_weights_of_rows_stand_for_copies_of_them():
    labels, made = outcomes(80, 4, [0.6])
    weights = np.random.default_rng(2).integers(0, 3, size=80)
    rows = np.repeat(np.arange(80), weights)
    copied = score.on_rows(made[0], rows)
    for metric in ("log_loss", "accuracy", "macro_f1", "balanced_accuracy"):
        weighed = score.value(metric, labels, made[0], 4, weights.astype(float))
        assert weighed == pytest.approx(score.value(metric, labels[rows], copied, 4))
    drawn = score.bootstrap(labels, made, np.arange(80), 4, weights, 50)["accuracy"]
    again = score.bootstrap(labels, made, np.arange(80), 4, 2 * weights, 50)["accuracy"]
    assert np.array_equal(drawn, again)


def test_random_blocks_of_many_rows_vary_as_much(monkeypatch):
    labels, made = outcomes(4000, 3, [0.7])
    rows = score.bootstrap(labels, made, np.arange(4000), 3)
    monkeypatch.setattr(score, "MOST_UNITS", 800)
    blocks = score.bootstrap(labels, made, np.arange(4000), 3)
    for metric in ("log_loss", "accuracy", "macro_f1"):
        assert blocks[metric].std() == pytest.approx(rows[metric].std(), rel=0.12)
        assert blocks[metric].mean() == pytest.approx(rows[metric].mean(), abs=0.002)


def test_standard_error_counts_groups_and_not_their_copies():
    values = np.random.default_rng(0).normal(size=100)
    alone = score.standard_error(values, np.arange(100))
    assert alone == pytest.approx(values.std() / 10)
    assert score.standard_error(np.repeat(values, 4), np.repeat(np.arange(100), 4)) == pytest.approx(alone)


def test_simplest_takes_the_first_within_one_standard_error():
    units, draw = np.arange(400), np.random.default_rng(0)
    base = draw.normal(size=400) ** 2
    near, far = base + 0.01 * draw.normal(size=400), base + 1.0
    assert score.simplest([far, near + 1e-4, base], units) == 1
    assert score.simplest([far, base], units) == 1


def test_bootstrap_is_seeded():
    labels, made = outcomes(50, 3, [0.5])
    first, again, other = (score.bootstrap(labels, made, np.arange(50), 3, None, 20, seed) for seed in (0, 0, 1))
    assert np.array_equal(first["macro_f1"], again["macro_f1"])
    assert not np.array_equal(first["log_loss"], other["log_loss"])


def test_scores_hold_value_folds_and_an_interval_around():
    labels = np.array([0, 1, 0, 1])
    made = [Outcome(np.array([1.0, 2.0, 3.0, 4.0]), np.array([0, 1, 1, 1]))]
    drawn = score.bootstrap(labels, made, np.arange(4), 2)
    table = score.scores(labels, made, np.array([0, 0, 1, 1]), 2, drawn)[0]
    assert table["log_loss"].value == 2.5
    assert table["log_loss"].folds == (1.5, 3.5)
    assert table["log_loss"].mean == 2.5
    assert table["log_loss"].std == pytest.approx(np.sqrt(2))
    assert table["accuracy"].folds == (1.0, 0.5)
    assert table["macro_f1"].folds == (1.0, pytest.approx(1 / 3))  # fold 1: class 0 is 0, class 1 is 2/3
    assert table["accuracy"].low < 0.75 < table["accuracy"].high


def test_spread_of_one_fold_is_not_a_number():
    assert np.isnan(score.Score(1.0, 1.0, 1.0, (1.0,)).std)


def test_gain_is_positive_where_the_blend_is_better_whichever_way_the_metric_points():
    labels, (worse, better) = outcomes(800, 4, [0.6, 0.9])
    better = Outcome(worse.losses * 0.5, better.predicted)
    made = [better, worse]
    drawn = score.bootstrap(labels, made, np.arange(800), 4)
    table = score.scores(labels, made, np.zeros(800), 4, drawn)
    for metric in ("log_loss", "accuracy", "macro_f1"):
        up, down = score.gain(metric, table, drawn, 0, 1, "worse"), score.gain(metric, table, drawn, 1, 0, "better")
        assert 0 < up.low < up.value < up.high
        assert (up.p_better, down.p_better) == (1.0, 0.0)
        assert down.value == pytest.approx(-up.value)


def test_gain_over_itself_is_a_tie():
    labels, made = outcomes(100, 3, [0.5])
    drawn = score.bootstrap(labels, made * 2, np.arange(100), 3)
    table = score.scores(labels, made * 2, np.zeros(100), 3, drawn)
    tie = score.gain("macro_f1", table, drawn, 0, 1, "itself")
    assert (tie.value, tie.low, tie.high, tie.p_better) == (0, 0, 0, 0.5)


def test_a_paired_interval_is_narrower_than_an_unpaired_one():
    labels, made = outcomes(1000, 4, [0.7])
    made.append(Outcome(made[0].losses + 0.01, made[0].predicted))
    drawn = score.bootstrap(labels, made, np.arange(1000), 4)
    table = score.scores(labels, made, np.zeros(1000), 4, drawn)
    paired = score.gain("log_loss", table, drawn, 0, 1, "shifted")
    assert paired.value == pytest.approx(0.01)
    assert paired.high - paired.low < 1e-9
    assert table[0]["log_loss"].high - table[0]["log_loss"].low > 0.05

"""Blends of arrays: every form of input gives one answer, and what is unclear is refused."""

import numpy as np
import pandas as pd
import pytest

import ensemble as ens
from ensemble.blend.methods.vote import inverse_temperatures
from ensemble.blend.probabilities import softmax

LABELS = np.arange(90) % 3
Z = np.random.default_rng(0).normal(size=(2, 90, 3)) + 2 * np.eye(3)[LABELS]
STACKED = Z.swapaxes(0, 1)
COSTS = [[0, 1, 1], [1, 0, 1], [20, 20, 0]]  # to miss class 2 is dear


def same(one, other):
    assert one.result.blend == other.result.blend
    assert one.weights.to_numpy() == pytest.approx(other.weights.to_numpy())


def test_a_blend_is_fitted_scored_and_applied():
    blend = ens.fit_blend({"a": Z[0], "b": Z[1]}, LABELS, method="vote")
    weights = blend.weights
    assert weights.index.tolist() == ["a", "b"] and weights["weight"].sum() == pytest.approx(1)
    z = Z.astype(np.float32)
    assert weights["temperature"].to_numpy() == pytest.approx(1 / inverse_temperatures(z, LABELS))
    assert blend.scores.index.tolist() == ["blend", "plain mean", "a", "b"]
    accuracy = blend.scores["accuracy"]
    assert accuracy["a"] == pytest.approx((Z[0].argmax(axis=1) == LABELS).mean())
    assert accuracy["plain mean"] == pytest.approx((Z.mean(axis=0).argmax(axis=1) == LABELS).mean())
    assert (blend.scores["accuracy_low"] < accuracy).all() and (accuracy < blend.scores["accuracy_high"]).all()
    assert set(blend.gains["against"]) == {"mean", "a", "b"} - ({"a", "b"} - set(blend.result.best.values()))
    probabilities = blend.predict_proba({"a": Z[0], "b": Z[1]})
    mixed = sum(w * softmax(z[m] / t) for m, (w, t) in enumerate(weights.to_numpy()))
    mixed **= blend.result.fitted.chain.temperature.inverse_temperature
    assert probabilities == pytest.approx(mixed / mixed.sum(axis=1, keepdims=True), abs=1e-6)
    assert blend.predict({"a": Z[0], "b": Z[1]}).tolist() == probabilities.argmax(axis=1).tolist()


def test_every_form_of_the_same_predictions_gives_the_same_blend():
    first = ens.fit_blend(STACKED, LABELS, method="vote")
    assert first.members == ("member 0", "member 1")
    same(first, ens.fit_blend(list(Z), LABELS, method="vote"))
    same(first, ens.fit_blend(Z.tolist(), LABELS.tolist(), method="vote"))
    same(first, ens.fit_blend({"a": Z[0], "b": Z[1]}, pd.Series(LABELS), method="vote"))
    log_probs = np.log(softmax(Z))
    as_log = ens.fit_blend(list(log_probs), LABELS, method="vote", kind="log-probabilities")
    of_probs = ens.fit_blend(list(np.exp(log_probs)), LABELS, method="vote", kind="probabilities")
    percent = ens.fit_blend(list(100 * np.exp(log_probs)), LABELS, method="vote", kind="percentages")
    for other in (as_log, of_probs, percent):
        assert other.scores["log_loss"].to_numpy() == pytest.approx(first.scores["log_loss"].to_numpy(), abs=1e-5)
    assert of_probs.predict_proba(list(np.exp(log_probs))) == pytest.approx(first.predict_proba(STACKED), abs=1e-5)
    assert first.predict_proba(STACKED[:1]) == pytest.approx(first.predict_proba(list(Z[:, :1])))


def test_a_single_row_of_logits_may_sum_to_1():
    blend = ens.fit_blend(STACKED, LABELS, method="mean")
    assert blend.predict(np.array([[[0.2, 0.5, 0.3], [0.0, 1.0, 0.0]]])).tolist() == [1]


def test_labels_name_the_columns_in_ascending_order_or_as_categories():
    names = np.array(["cat", "dog", "fox"])[LABELS]
    assert ens.fit_blend(STACKED, names, method="mean").predict(STACKED[:3]).tolist() == ["cat", "dog", "fox"]
    order = pd.Categorical(names, categories=["dog", "fox", "cat"])
    turned = STACKED[..., [1, 2, 0]]
    blend = ens.fit_blend(turned, pd.Series(order), method="mean")
    assert blend.classes.tolist() == ["dog", "fox", "cat"] and blend.predict(turned[:3]).tolist() == [
        "cat",
        "dog",
        "fox",
    ]
    wide = np.concatenate([STACKED, np.full((90, 2, 1), -9.0)], axis=2)
    known = pd.Categorical(LABELS, categories=[0, 1, 2, 3])
    assert ens.fit_blend(wide, known, method="mean").predict(wide[:3]).tolist() == [0, 1, 2]


def test_groups_share_a_fold_and_are_resampled_whole():
    groups = np.repeat([f"p{number}" for number in range(30)], 3)
    blend = ens.fit_blend(STACKED, LABELS, method="mean", groups=groups)
    assert blend.result.groups == 30 and "30 groups" in blend._repr_html_()
    folds = np.arange(90) // 30
    assert ens.fit_blend(STACKED, LABELS, method="mean", groups=groups, folds=folds).result.folds == 3
    with pytest.raises(ens.UserError, match=r"^folds: a group is in two folds; put it in one"):
        ens.fit_blend(STACKED, LABELS, groups=groups, folds=np.arange(90) % 3)


def test_with_costs_the_blend_decides_for_the_least_expected_cost():
    blend = ens.fit_blend(STACKED, LABELS, method="mean", metric="expected_cost", costs=COSTS)
    probabilities = blend.predict_proba(STACKED)
    decided = (probabilities @ np.array(COSTS)).argmin(axis=1)
    assert blend.predict(STACKED).tolist() == decided.tolist() != probabilities.argmax(axis=1).tolist()
    plain = softmax(Z.mean(axis=0))
    cost = np.array(COSTS)[LABELS, (plain @ np.array(COSTS)).argmin(axis=1)].mean()
    assert blend.scores.loc["plain mean", "expected_cost"] == pytest.approx(cost)
    accuracy = ((plain @ np.array(COSTS)).argmin(axis=1) == LABELS).mean()  # of the classes that `predict` gives
    assert blend.scores.loc["plain mean", "accuracy"] == pytest.approx(accuracy)
    assert accuracy != (plain.argmax(axis=1) == LABELS).mean()
    # where all mistakes cost the same it is the most probable class
    even = ens.fit_blend(STACKED, LABELS, method="mean", metric="expected_cost", costs=1 - np.eye(3))
    assert even.predict(STACKED).tolist() == probabilities.argmax(axis=1).tolist()


@pytest.mark.filterwarnings("ignore:noise. right on", "ignore:a. wrong on")
def test_members_of_zero_weight_may_be_missing_at_prediction():
    noise = np.random.default_rng(1).normal(size=(90, 3))
    blend = ens.fit_blend({"a": Z[0], "noise": -5 * Z[0] + noise}, LABELS, method="vote")
    assert blend.result.unused == ("noise",)
    assert blend.predict_proba({"a": Z[0]}).shape == (90, 3)
    with pytest.raises(ens.UserError, match=r"^predictions: of member 0; want those of member 0, member 1"):
        ens.fit_blend(STACKED, LABELS, method="mean").predict_proba([Z[0]])


PROBS = softmax(Z)
LACKING = pd.Categorical(["a", "b", None] * 30, categories=["a", "b", "c"])
PRICED = {"metric": "expected_cost"}
NAN = np.where(np.arange(90)[:, None] == 7, np.nan, Z[0])


@pytest.mark.parametrize(
    ("oof", "labels", "more", "line"),
    [
        (Z[0], LABELS, {}, r"predictions: an array \(90, 3\); want \(N, M, C\): rows, members, classes"),
        (Z, LABELS, {}, r"labels: \(90,\), but the predictions have 2 rows; want \(2,\)"),
        ([Z[0], Z[1, 1:]], LABELS, {}, r"member 1: an array \(89, 3\), but member 0 is \(90, 3\)"),
        ([], LABELS, {}, "predictions: there are no members"),
        ({"a": pd.DataFrame(Z[0])}, LABELS, {}, "a: a DataFrame, which is not joined by id"),
        ({"a": [["x", "y"]]}, [0], {}, "a: not an array of numbers"),
        ({"a": NAN}, LABELS, {}, r"a: row 7: NaN \(1 rows\)"),
        (
            list(PROBS),
            LABELS,
            {},
            "member 0: its rows sum to 1, as those of probabilities do: say kind='probabilities'",
        ),
        (STACKED, LABELS, {"kind": "probabilities"}, "member 0: row 0: probabilities out of their range"),
        (list(PROBS / 2), LABELS, {"kind": "probabilities"}, "member 0: row 0: probabilities that do not sum to 1"),
        (STACKED, LABELS[:80], {}, r"labels: \(80,\), but the predictions have 90 rows"),
        (STACKED, LABELS / 2, {}, "labels: of float64; want integers or strings"),
        (STACKED, LABELS % 2, {}, "labels: 2 classes, but the predictions have 3 columns: give them as pandas.Cat"),
        (STACKED, np.array(["2", "10", "3"])[LABELS], {}, "labels: numbers as strings, whose order may be 10, 2, 3 or"),
        (STACKED, LACKING, {}, "labels: row 2 has none of the categories: a, b, c"),
        (STACKED, LABELS, {"method": "vot"}, "blend method 'vot' is not one of: "),
        (STACKED, LABELS, {"metric": "acc"}, "metric 'acc' is not one of: "),
        (STACKED, LABELS, {"kind": "odds"}, "kind 'odds' is not one of: logits, probabilities, percentages, log-prob"),
        ({1: Z[0], "1": Z[1]}, LABELS, {}, "predictions: two members are named '1'; give each its own name"),
        (STACKED * 1e39, LABELS, {}, r"member 0: row 0: an infinite logit \(90 rows\)"),
        (STACKED, np.array([1, "a", "b"] * 30, dtype=object), {}, "labels: of object; want integers or strings"),
        (STACKED, LABELS, {"groups": [1.0, np.nan] * 45}, "groups: row 1 has none; give a row without a group one of"),
        (STACKED, LABELS, {"folds": LABELS - 1}, "folds: want whole numbers, 0 or more"),
        (STACKED, LABELS, {"groups": LABELS[:5]}, r"groups: \(5,\), but the predictions have 90 rows"),
        (STACKED, LABELS, PRICED, r"metric 'expected_cost' needs costs: a float array \(3, 3\), a row for each true"),
        (STACKED, LABELS, {"costs": COSTS}, "costs go with the metric expected_cost, not log_loss"),
        (STACKED, LABELS, {**PRICED, "costs": np.eye(2)}, r"costs: an array \(2, 2\); want a float array \(3, 3\)"),
        (STACKED, LABELS, {**PRICED, "costs": [["x"] * 3] * 3}, "costs: not an array of numbers"),
        (STACKED, LABELS, {**PRICED, "costs": np.full((3, 3), np.nan)}, "costs: NaN or infinite numbers; want a float"),
        (STACKED, LABELS, {**PRICED, "costs": np.eye(3)}, r"costs: to predict '1' for '0' costs 0, less than to be ri"),
    ],
)
def test_what_does_not_fit_together_is_refused(oof, labels, more, line):
    with pytest.raises(ens.UserError, match=f"^{line}"):
        ens.fit_blend(oof, labels, **more)


def test_what_looks_wrong_is_warned_of():
    with pytest.warns(UserWarning, match=r"^member 0 and member 1 are the same predictions; leave one out$"):
        ens.fit_blend([Z[0], Z[0]], LABELS, method="mean")
    sure = np.where(PROBS.max(axis=2, keepdims=True) == PROBS, 1.0, 0.0)
    with pytest.warns(UserWarning, match="probabilities are exactly 0 and were raised to"):
        ens.fit_blend(list(sure), LABELS, method="mean", kind="probabilities")


def test_a_notebook_shows_the_tables_with_every_name_escaped():
    blend = ens.fit_blend({"<b>a</b>": Z[0], "b": Z[1]}, LABELS, method="vote")
    page = blend._repr_html_()
    assert "<b>" not in page and "&lt;b&gt;a&lt;/b&gt;" in page and "accuracy %" in page and "P(better)" in page
    line = "<FittedBlend 'vote' of 2 members, cross-fitted on 90 rows: accuracy 90.00 ±8.24 [80.82, 95.05] %, log loss "
    assert repr(blend).startswith(line)


# ---- zeros ---------------------------------------------------------------------------------------------------------

# Zeros in a quarter of the rows; the least probability, which decides what they are read as, stands in other rows.
SHARES = np.random.default_rng(4).multinomial(500, [0.985, 0.013, 0.002], size=90) / 500


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("method", ["mean", "vote"])
def test_a_prediction_depends_on_no_other_row(method):
    oof = {"a": SHARES, "b": np.roll(SHARES, 1, axis=1)}
    blend = ens.fit_blend(oof, LABELS, method=method, kind="probabilities")
    whole = blend.predict_proba(oof)
    for rows in (slice(40, 90), *(slice(row, row + 1) for row in range(90))):
        assert np.array_equal(blend.predict_proba({name: p[rows] for name, p in oof.items()}), whole[rows])


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_class_that_the_fit_never_saw_above_0_has_its_share():
    lacking = np.stack([PROBS[0][:, 0] + PROBS[0][:, 2], PROBS[0][:, 1], 0 * PROBS[0][:, 2]], axis=1)
    blend = ens.fit_blend({"a": lacking}, LABELS, method="mean", kind="probabilities")
    zeros = blend.zeros["a"]
    assert zeros.unknown.tolist() == [False, False, True] and zeros.shares == pytest.approx([31 / 93] * 3)
    one = blend.predict_proba({"a": lacking[:1]})
    assert np.array_equal(one, blend.predict_proba({"a": lacking})[:1]) and one[0, 2] > 0.1


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_dealt_folds_are_no_models_folds():
    """A class that is 0 in all rows of a fold that was dealt is not unknown: its rows keep their own numbers."""
    rare = np.full((90, 3), [0.5, 0.5, 0.0])
    rare[0] = [0.2, 0.2, 0.6]
    blend = ens.fit_blend({"a": rare}, LABELS, method="mean", kind="probabilities")
    assert blend.zeros["a"].unknown.tolist() == [False] * 3
    dealt = ens.fit_blend({"a": rare}, LABELS, method="mean", kind="probabilities", folds=np.zeros(90, dtype=int))
    assert blend.scores.loc["a", "log_loss"] == dealt.scores.loc["a", "log_loss"]


def test_probabilities_are_refused_by_a_blend_of_logits_at_prediction():
    blend = ens.fit_blend(STACKED, LABELS, method="mean")
    with pytest.raises(ens.UserError, match="member 0: its rows sum to 1, as those of probabilities do"):
        blend.predict_proba(PROBS.swapaxes(0, 1))

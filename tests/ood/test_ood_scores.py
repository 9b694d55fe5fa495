"""The scores of unlike images, by numbers computed by hand."""

import math

import numpy as np
import pytest
from scipy.stats import norm

from ensemble.errors import UserError
from ensemble.ood.auroc import auroc, auroc_error
from ensemble.ood.choose import FoldOutputs, choose
from ensemble.ood.detector import Detector, normal_scores, part_scores
from ensemble.ood.parts import (
    DISAGREEMENT,
    ENERGY,
    ENTROPY,
    FEATURES,
    LOGITS,
    Bank,
    bank_of,
    centred,
    nearest_of,
    neighbour_distance,
    of_logits,
)


def test_energy_entropy_and_disagreement():
    z = np.log(np.array([[[0.5, 0.5]], [[0.9, 0.1]]], dtype=np.float32))  # two members, one image
    found = of_logits(z)
    assert found[ENERGY] == pytest.approx([-math.log(math.sqrt(0.5 * 0.9) + math.sqrt(0.5 * 0.1))])
    mean = np.sqrt([0.5 * 0.9, 0.5 * 0.1]) / np.sqrt([0.5 * 0.9, 0.5 * 0.1]).sum()  # of the mean logits
    assert found[ENTROPY] == pytest.approx([-(mean * np.log(mean)).sum()])
    of_each = (math.log(2) - 0.9 * math.log(0.9) - 0.1 * math.log(0.1)) / 2
    assert found[DISAGREEMENT] == pytest.approx([-0.7 * math.log(0.7) - 0.3 * math.log(0.3) - of_each])


def test_logits_side_by_side_lose_what_all_classes_share():
    z = np.array([[[1, 3]], [[10, 20]]], dtype=np.float32)
    assert centred(z).tolist() == [[-1, 1, -5, 5]]


def test_neighbours_are_counted_among_the_rows_that_the_networks_were_trained_on():
    angles = np.deg2rad([0, 10, 20, 90])
    bank = Bank(np.zeros(2), np.ones(2), np.stack([np.cos(angles), np.sin(angles)], axis=1))
    rows = np.array([[2.0, 0.0]])
    z = np.zeros((1, 1, 2), dtype=np.float32)
    cosines = bank.cosines(rows)
    few = [
        part_scores([FEATURES], z, bank, cosines, np.array(allowed, dtype=bool))[0, 0]
        for allowed in ([1, 1, 0, 1], [0, 1, 1, 0])
    ]
    assert few == pytest.approx([0.0, 1 - math.cos(math.radians(10))])
    assert [nearest_of(FEATURES, rows, 7) for rows in (20, 700, 7000)] == [1, 25, 50]
    assert 1 - bank.cosines(rows)[0, 2] == pytest.approx(neighbour_distance(cosines, np.array([True] * 4), 3)[0])


def test_a_bank_is_standardised_and_a_feature_that_never_varies_counts_nothing():
    bank = bank_of(np.array([[0, 5], [2, 5]], dtype=np.float32))
    assert bank.rows.tolist() == [[-1, 0], [1, 0]]
    assert bank.cosines(np.array([[9, 100]], dtype=np.float32)).tolist() == [[-1, 1]]
    three = bank_of(np.array([[0, 5], [2, 5], [100, 5]], dtype=np.float32), np.array([True, True, False]))
    assert three.mean.tolist() == [1, 5] and three.rows.tolist() == [[-1, 0], [1, 0], [1, 0]]


def detector(scores, weights=None):
    weights = np.ones(len(scores)) if weights is None else weights
    nothing = Bank(np.zeros(2), np.ones(2), np.zeros((len(scores), 2)))
    return Detector((ENTROPY,), scores[None], np.zeros(len(scores), dtype=int), nothing, None, scores, weights)


def test_the_threshold_is_the_conformal_quantile():
    fitted = detector(np.arange(99.0))
    assert fitted.threshold(0.05) == 94  # the 95th smallest of 99: 5 of 100 equally likely places lie above
    assert fitted.threshold(0.01) == 98
    with pytest.raises(
        UserError, match=r"--unknown 0.001: so low a rate takes at least 999 .* there are 99; ask for 0.01"
    ):
        fitted.threshold(0.001)


def test_the_false_alarm_rate_holds_for_new_images():
    rng = np.random.default_rng(0)
    rates = [(rng.normal(size=200) > detector(rng.normal(size=300)).threshold(0.05)).mean() for _ in range(300)]
    assert np.mean(rates) == pytest.approx(0.05, abs=0.005)


def test_rows_of_a_group_count_as_one():
    fitted = detector(np.array([4.0, 9, 1, 2, 3]), np.array([1, 1, 1 / 3, 1 / 3, 1 / 3]))  # three groups
    assert [fitted.threshold(rate) for rate in (0.25, 0.5, 0.75)] == [9, 4, 3]  # which 3, 2 and 1 groups reach
    with pytest.raises(UserError, match=r"at least 99 groups of out-of-fold rows, and there are 3; ask for 0.25 or"):
        fitted.threshold(0.01)


def test_the_false_alarm_rate_holds_for_new_groups_where_small_ones_differ_from_large_ones():
    rng, sizes = np.random.default_rng(0), np.tile([1, 39], 50)
    by_groups, by_rows = [], []
    for _ in range(300):
        scores = np.repeat((sizes == 1) + rng.normal(size=100), sizes)
        new = np.arange(400) % 2 + rng.normal(size=400)
        by_groups.append((new > detector(scores, np.repeat(1 / sizes, sizes)).threshold(0.05)).mean())
        by_rows.append((new > detector(scores).threshold(0.05)).mean())
    assert np.mean(by_groups) == pytest.approx(0.05, abs=0.005) and np.mean(by_rows) > 0.1


def test_a_score_is_the_mean_over_the_folds():
    z = np.log(np.array([[[[0.5, 0.5]]], [[[0.9, 0.1]]]]))  # of the networks of two folds, one view, one image
    fitted = detector(np.array([0.1, 0.2, 0.5]))  # 0.693 nats are more than all, 0.325 between the second and the third
    beyond = math.log(2) - 0.5
    of_first = norm.ppf(1 - 0.5 / 3) + 0.1 * beyond / (beyond + 0.4)
    assert fitted.score([z], None) == pytest.approx([(of_first + norm.ppf(2.5 / 4)) / 2])
    assert fitted.score([z[:, :, :0]], None).shape == (0,)


def test_normal_scores_are_of_ranks_and_nothing_where_rows_do_not_differ():
    reference = np.array([[1.0, 2, 2, 5], [3, 3, 3, 3]])
    found = normal_scores(reference, np.array([[0.0, 1, 2, 5, 9], [0, 3, 3, 3, 9]]))
    # Ranks 0.5, 1, 2.5, 4 and beyond the last; the least and the largest are kept within 0.5 / 4 of the ends. 9 lies as
    # far beyond all rows as these are apart.
    assert found[0] == pytest.approx(norm.ppf([0.125, 0.2, 0.5, 0.8, 0.875]) + 0.05 * (np.arange(5) == 4))
    assert found[1].tolist() == [0] * 5


def test_auroc_with_a_tie_and_its_error():
    assert auroc(np.array([1.0, 2, 3]), np.array([2.0, 4])) == pytest.approx((1.5 + 3) / 6)
    rng = np.random.default_rng(1)
    drawn = [(rng.normal(size=80), rng.normal(1, 1, 60)) for _ in range(300)]
    spread = np.std([auroc(*pair) for pair in drawn])
    assert np.mean([auroc_error(*pair) for pair in drawn]) == pytest.approx(spread, rel=0.15)


def test_what_tells_left_out_classes_is_chosen():
    """Rows of four classes whose features tell the class, and whose logits are noise."""
    rng = np.random.default_rng(0)
    labels, folds = np.arange(240) % 4, np.arange(240) // 4 % 3
    features = (4 * np.eye(4)[labels] + rng.normal(size=(240, 4))).astype(np.float32)
    rows = FoldOutputs(rng.normal(size=(2, 240, 4)).astype(np.float32), folds, features)
    far = FoldOutputs(
        rng.normal(size=(2, 30, 4)).astype(np.float32),
        np.arange(30) % 3,
        4 * rng.normal(size=(30, 4)).astype(np.float32),
    )
    asked = []

    def refit(inside, others):
        asked.append((inside.copy(), others))
        return rng.normal(size=(240, 3)).astype(np.float32)

    fitted, trials = choose(rows, labels, np.arange(240), "abcd", {"far": far}, refit)
    assert fitted.parts == trials[0].parts == (FEATURES,)
    assert min(trials[0].left_out.values()) > 0.8 and list(trials[0].left_out) == list("abcd")
    by_parts = {trial.parts: trial for trial in trials}
    assert 0.3 < np.mean(list(by_parts[ENTROPY,].left_out.values())) < 0.7
    for number, (inside, others) in enumerate(asked):
        assert inside.tolist() == (labels != number).tolist()
        assert len(others) == 180 and sorted(set(others.tolist())) == [0, 1, 2]


def no_refit(inside, others):
    raise AssertionError("there are no features to fit on")


def test_without_features_logits_are_compared_without_the_class_and_energy_is_no_candidate():
    rng = np.random.default_rng(0)
    labels, folds = np.arange(240) % 4, np.arange(240) // 4 % 3
    z = (4 * np.eye(4)[labels] + rng.normal(size=(2, 240, 4))).astype(np.float32)
    far = FoldOutputs(rng.normal(size=(2, 30, 4)).astype(np.float32), np.arange(30) % 3, None)
    fitted, trials = choose(FoldOutputs(z, folds, None), labels, labels, "abcd", {"far": far}, no_refit)
    assert {trial.parts for trial in trials} == {(ENTROPY,), (DISAGREEMENT,), (LOGITS,), (ENTROPY, LOGITS)}
    assert trials[0].value > 0.85 and fitted.features is None
    assert fitted.row_weights.tolist() == [1 / 60] * 240  # four groups
    assert trials[0].flagged_foreign == trials[0].flagged_left_out == 0  # which are too few for 1 % false alarms
    _, of_rows = choose(FoldOutputs(z, folds, None), labels, np.arange(240), "abcd", {"far": far}, no_refit)
    assert of_rows[0].flagged_foreign > 0.1 and of_rows[0].left_out == trials[0].left_out
    one = {"far": FoldOutputs(far.z[:1], far.folds, None)}
    _, trials = choose(FoldOutputs(z[:1], folds, None), labels, np.arange(240), "abcd", one, no_refit)
    assert (DISAGREEMENT,) not in {trial.parts for trial in trials}


def test_of_two_classes_none_is_left_out():
    rng = np.random.default_rng(0)
    rows = FoldOutputs(rng.normal(size=(1, 40, 2)).astype(np.float32), np.arange(40) % 2, None)
    _, trials = choose(rows, np.arange(40) % 2, np.arange(40), "ab", {"far": rows}, no_refit)
    assert trials[0].left_out == {} and trials[0].flagged_left_out is None


def test_of_three_classes_two_of_which_have_rows_none_is_left_out():
    """Without one of the two a single class would be left, and classifiers of one class know nothing."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(40, 5)).astype(np.float32)
    rows = FoldOutputs(rng.normal(size=(1, 40, 3)).astype(np.float32), np.arange(40) % 2, features)
    _, trials = choose(rows, np.arange(40) // 2 % 2, np.arange(40), "abc", {"far": rows}, no_refit)
    assert trials[0].left_out == {}


def test_a_class_without_which_a_fold_has_nothing_to_compare_with_is_not_left_out():
    """All rows outside of fold 0 are of class c: without it, fold 0's networks were trained on no row."""
    rng = np.random.default_rng(0)
    labels, folds = np.array([0, 1, 2] * 10 + [2] * 10), np.repeat([0, 1], [30, 10])
    rows = FoldOutputs(rng.normal(size=(1, 40, 3)).astype(np.float32), folds, None)
    _, trials = choose(rows, labels, np.arange(len(labels)), "abc", {"far": rows}, no_refit)
    assert list(trials[0].left_out) == ["a", "b"]

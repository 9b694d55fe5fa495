"""Whether more of a slice is wrong than elsewhere, and the correction for how many slices were looked at."""

import numpy as np
import pytest
from scipy.stats import hypergeom

from ensemble.scoring.wilson import wilson
from ensemble.slices import worse
from ensemble.slices.rules import Candidate, Rule, of_numbers, of_values
from ensemble.slices.worse import adjusted_p, share_interval


def candidate(rows, by_rows=False):
    return Candidate(Rule("image", "x", "v", None, None, "v"), np.asarray(rows), by_rows)


def test_the_p_of_one_slice_is_that_of_drawing_so_many_wrong_rows():
    wrong = np.zeros(200, dtype=bool)
    wrong[[0, 1, 2, 3, *range(100, 110)]] = True
    p, _ = adjusted_p(wrong, np.arange(200), [candidate(range(25))])
    assert p[0] == pytest.approx(hypergeom.sf(3, 200, 14, 25), abs=0.02)  # 4 of 14 wrong ones in 25 of 200


def test_with_more_slices_to_look_at_the_same_one_is_less_certain():
    draw = np.random.default_rng(0)
    wrong = np.zeros(200, dtype=bool)
    wrong[[*range(6), *range(100, 110)]] = True
    others = [candidate(draw.choice(200, 25, replace=False)) for _ in range(30)]
    alone = adjusted_p(wrong, np.arange(200), [candidate(range(25))])[0][0]
    among = adjusted_p(wrong, np.arange(200), [candidate(range(25)), *others])[0][0]
    assert alone < 0.02 < among < 30 * 0.02


def test_step_down_by_hand():
    seen = np.array([-3.0, -5.0, -1.0])
    drawn = np.array([[-4.0, -1.0, 0.0], [-1.0, -6.0, 0.0], [-2.0, 0.0, -1.5]])
    # The smallest of all: -4, -6, -1.5; without the second slice: -4, -1, -1.5; of the third alone: -2, 0, -1.5.
    assert worse._step_down(seen, drawn).tolist() == [(1 + 1) / 4, (1 + 1) / 4, (1 + 2) / 4]


def test_rows_that_fail_together_count_as_one():
    clusters = np.repeat(np.arange(60), 10)
    wrong = np.zeros(600, dtype=bool)
    wrong[:10] = wrong[300:310] = wrong[500:510] = True  # three groups fail altogether
    slice_of_ten_groups = candidate(range(100))
    by_rows = adjusted_p(wrong, np.arange(600), [slice_of_ten_groups])[0][0]
    by_groups = adjusted_p(wrong, clusters, [slice_of_ten_groups])[0][0]
    assert by_rows < 0.02
    assert by_groups == pytest.approx(hypergeom.sf(0, 60, 3, 10), abs=0.04)  # one of three groups in ten of 60


def test_a_group_that_is_a_slice_itself_is_compared_by_rows():
    clusters = np.repeat(np.arange(20), 30)
    wrong = np.zeros(600, dtype=bool)
    wrong[:15] = wrong[100:600:40] = True
    groups = of_values("group", "group", clusters.astype(str), 20)
    p, _ = adjusted_p(wrong, clusters, groups)
    assert p[[each.rule.value for each in groups].index("0")] < 0.001 and (p < 0.05).sum() == 1


def test_nothing_wrong_or_nothing_to_look_at():
    assert adjusted_p(np.zeros(50, dtype=bool), np.arange(50), [candidate(range(20))])[0].tolist() == [1.0]
    assert adjusted_p(np.ones(50, dtype=bool), np.arange(50), [candidate(range(20))])[0].tolist() == [1.0]
    assert adjusted_p(np.ones(50, dtype=bool), np.arange(50), [])[0].tolist() == []


def test_no_more_than_five_of_a_hundred_runs_without_a_bad_slice_show_one(monkeypatch):
    monkeypatch.setattr(worse, "DRAWS", 199)
    draw = np.random.default_rng(0)
    shown = 0
    for seed in range(200):
        clusters = np.repeat(np.arange(40), draw.integers(1, 12, 40))
        wrong = draw.random(len(clusters)) < draw.beta(0.5, 2.5, 40)[clusters]  # some groups are hard
        slices = []
        for _ in range(4):
            slices += of_numbers("image", "x", draw.random(40)[clusters], "{:.2f}", 10)
            slices += of_numbers("image", "x", draw.random(len(clusters)), "{:.2f}", 10)
        shown += bool((adjusted_p(wrong, clusters, slices, seed)[0] <= 0.05).any())
    assert shown <= 19  # of 200 at a rate of 5 %: 19 or fewer in 996 of 1,000 cases


def test_the_interval_of_an_accuracy():
    right = np.array([True] * 18 + [False] * 2)
    share, low, high = share_interval(right, np.arange(20))
    assert (share, [low, high]) == (0.9, wilson(np.array([18.0]), np.array([20.0]))[:, 0].tolist())
    # Ten groups of two, each wholly right or wrong: as ten rows (the design effect is 2 * 10 / 9).
    _, low, high = share_interval(right, np.repeat(np.arange(10), 2))
    assert [low, high] == pytest.approx(wilson(np.array([0.9 * 9]), np.array([9.0]))[:, 0].tolist())
    _, low, high = share_interval(np.ones(20, dtype=bool), np.repeat(np.arange(4), 5))
    assert [low, high] == wilson(np.array([4.0]), np.array([4.0]))[:, 0].tolist()

"""When a cascade stops, in numbers by hand."""

import numpy as np

from ensemble.cascade.policy import THRESHOLDS, Limit, Policy, StageRows, Tried, choose, last_stages, row_ms, try_all

CONFIDENCE = np.array([[0.9, 0.5, 0.5, 0.2], [0.6, 0.95, 0.5, 0.2], [0.1, 0.1, 0.1, 0.1]])  # of the last none is asked
MS = np.array([1.0, 2.0, 4.0])


def test_a_row_exits_at_the_first_stage_that_is_sure_enough():
    assert last_stages(Policy(0, 0.9), CONFIDENCE).tolist() == [0, 1, 2, 2]
    assert last_stages(Policy(0, 0.5), CONFIDENCE).tolist() == [0, 0, 0, 2]
    assert last_stages(Policy(1, 0.9), CONFIDENCE).tolist() == [2, 1, 2, 2]
    assert last_stages(Policy(2, 1.0), CONFIDENCE).tolist() == [2, 2, 2, 2]


def test_a_row_costs_all_that_was_asked_and_a_decoding_for_each_stop_on_the_way():
    policy = Policy(0, 0.9)
    assert row_ms(policy, last_stages(policy, CONFIDENCE), MS, 0.5).tolist() == [1.5, 4.0, 8.5, 8.5]
    whole = Policy(2, 1.0)  # asked at once: decoded once
    assert row_ms(whole, last_stages(whole, CONFIDENCE), MS, 0.5).tolist() == [7.5] * 4


def test_every_policy_is_tried_and_its_loss_is_that_above_the_whole_blend():
    losses = np.array([[0.1, 9.0, 9.0, 9.0], [0.1, 0.2, 9.0, 9.0], [0.1, 0.1, 0.3, 0.4]])
    tried = try_all(StageRows(CONFIDENCE, losses), MS, 0.0)
    assert len(tried.policies) == 2 * len(THRESHOLDS) + 1
    assert (tried.losses[-1], tried.ms[-1]) == (0, 7)
    found = choose(tried, Limit(max_loss=0.03))  # 0.025 above: the second row exits at the second stage
    assert found is not None and last_stages(found, CONFIDENCE).tolist() == [0, 1, 2, 2]
    assert np.isclose(tried.losses[tried.policies.index(found)], 0.1 / 4)


def test_the_cheapest_within_the_loss_or_the_best_within_the_time():
    policies = (Policy(0, 0.5), Policy(0, 0.9), Policy(1, 0.9), Policy(2, 1.0))
    tried = Tried(policies, np.array([0.5, 0.01, 0.01, 0.0]), np.array([1.0, 3.0, 2.0, 7.0]))
    assert choose(tried, Limit(max_loss=0.0)) == policies[3]
    assert choose(tried, Limit(max_loss=0.01)) == policies[2]
    assert choose(tried, Limit(max_loss=0.5)) == policies[0]
    assert choose(tried, Limit(max_ms=6.9)) == policies[2]  # of equal ones the cheaper
    assert choose(tried, Limit(max_ms=7.0)) == policies[3]
    assert choose(tried, Limit(max_ms=0.9)) is None

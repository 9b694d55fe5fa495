"""The geometric pool and the weights of views, both pools of logits: by hand, against a general solver, certified."""

from functools import partial

import numpy as np
import pytest
from test_blend_methods import simulate

from ensemble.blend import view_weights
from ensemble.blend.methods import pool
from ensemble.blend.probabilities import softmax
from ensemble.scoring.outcomes import evaluate

log_loss = partial(evaluate, "log_loss")


def smoothed_loss(w, z, labels):
    """Log loss of softmax(sum w z) with one row's weight of a uniform label, in float64."""
    p = np.log(softmax(np.tensordot(w, z.astype(np.float64), axes=1)))
    e = 1 / (len(labels) + 1)
    return -((1 - e) * p[np.arange(len(labels)), labels] + e * p.mean(axis=1)).mean()


def test_pool_by_hand():
    # Member 0 says 1 : -1 and is right in 3 of 4 rows, member 1 says the opposite in 2 of them at random: worthless.
    z = np.array([[[1, -1]] * 4, [[1, -1], [-1, 1], [1, -1], [-1, 1]]], dtype=np.float32)
    params = pool.fit(z, np.array([0, 0, 0, 1]))
    # Row 3 is the only wrong one; member 1 agrees with the truth in rows 0, 2 and 3: its weight helps.
    assert (params.weights > 0).all()
    alone = pool.fit(z[:1], np.array([0, 0, 0, 1]))
    assert alone.weights == pytest.approx([np.log(7 / 3) / 2], rel=1e-5)


def test_apply_is_the_softmax_of_the_weighted_sum():
    z = np.log(np.array([[[0.8, 0.2]], [[0.5, 0.5]]], dtype=np.float32))
    # .8^2 * .5 : .2^2 * .5 = 16 : 1
    assert pool.pooled(np.array([2.0, 1.0]), z) == pytest.approx(np.array([[16 / 17, 1 / 17]]), abs=1e-6)


@pytest.mark.parametrize("seed", [0, 1])
def test_pool_is_as_good_as_a_general_solver(seed):
    from scipy.optimize import minimize

    z, labels = simulate(5, 300, 6, seed=seed, noise=2.5, scale=2.0)
    z[4] = np.random.default_rng(9).normal(size=z.shape[1:])
    general = minimize(
        smoothed_loss,
        np.full(5, 0.2),
        args=(z, labels),
        method="L-BFGS-B",
        bounds=[(0, None)] * 5,
        options={"ftol": 1e-13},
    )
    params = pool.fit(z, labels)
    assert smoothed_loss(params.weights, z, labels) <= general.fun + 1e-8
    assert params.weights == pytest.approx(general.x, abs=1e-3)
    assert params.certificate < 1e-6


def test_certificate_bounds_the_distance_to_every_other_pool():
    z, labels = simulate(4, 200, 5, noise=3.0)
    draw = np.random.default_rng(1)
    best = pool.fit(z, labels).weights
    for _ in range(50):
        own = best * draw.uniform(0.5, 1.5, size=4)
        _, slope, _ = pool.derivatives(z, labels, own, 1 / 201)
        bound = pool.optimality_gap(own, slope)
        assert smoothed_loss(own, z, labels) - smoothed_loss(best, z, labels) <= bound + 1e-6


def test_derivatives_are_those_of_the_loss():
    z, labels = simulate(3, 60, 4)
    w, e = np.array([0.3, 0.7, 0.2]), 1e-3
    loss, slope, curvature = pool.derivatives(z, labels, w, 1 / 61)
    assert loss == pytest.approx(smoothed_loss(w, z, labels), abs=1e-5)
    for m in range(3):
        step = e * np.eye(3)[m]
        up, down = (smoothed_loss(w + sign * step, z, labels) for sign in (1, -1))
        assert slope[m] == pytest.approx((up - down) / (2 * e), abs=1e-4)
        ups, downs = (pool.derivatives(z, labels, w + sign * step, 1 / 61)[1] for sign in (1, -1))
        assert curvature[m] == pytest.approx((ups - downs) / (2 * e), abs=2e-3)


def test_a_start_on_some_rows_changes_nothing(monkeypatch):
    z, labels = simulate(3, 900, 4)
    whole = pool.fit(z, labels).weights
    monkeypatch.setattr(pool, "FEW", 1000)
    assert pool.fit(z, labels).weights == pytest.approx(whole, rel=1e-3)
    near = pool.pool_weights(z, labels, start=np.array([0.2, 0.1, 0.4]))[0]
    assert near == pytest.approx(whole, rel=1e-3)


# ---- views ---------------------------------------------------------------------------------------------------------


def fit_views(values, labels):
    rows = np.arange(len(labels))
    return view_weights.fit(values, labels, rows % 5, rows, rows)


def test_a_view_that_hurts_gets_nothing_and_equal_views_the_same():
    z, labels = simulate(2, 800, 5, noise=2.0)
    hurt = np.random.default_rng(3).normal(size=z.shape[1:]).astype(np.float32) * 4
    harmful, harmless = fit_views([np.stack([z[0], hurt]), z], labels)
    assert harmful == pytest.approx([1, 0], abs=0.03)
    assert harmless == pytest.approx([0.5, 0.5])  # what could be gained is less than its standard error
    joined = view_weights.apply([harmful, harmless], [np.stack([z[0], hurt]), z], np.array([5, 2]))
    assert joined[1] == pytest.approx(z[:, [5, 2]].mean(axis=0), abs=1e-6)
    everything = view_weights.apply([harmful], [np.stack([z[0], hurt])], slice(None))[0]
    assert log_loss(labels, softmax(everything)) < log_loss(labels, softmax((z[0] + hurt) / 2)) - 0.2


def test_members_may_have_other_numbers_of_views():
    z, labels = simulate(3, 200, 3)
    weights = fit_views([z[:1], z[1:]], labels)
    assert [len(own) for own in weights] == [1, 2]
    assert view_weights.apply(view_weights.even([z[:1], z[1:]]), [z[:1], z[1:]], slice(None)).shape == (2, 200, 3)
    # one group can't be divided: the plain average
    one = np.zeros(200, dtype=np.int64)
    assert view_weights.fit([z], labels, one, one, np.arange(200))[0] == pytest.approx([1 / 3] * 3)


def test_a_step_that_overshoots_to_zero_is_not_the_end():
    """Of 4 rows with logits (20, 0) one is wrong: Newton's first step from weight 1 ends below 0. Platt's targets are
    .9, .9, .9 and .1 for the first class, so that the weight is log(.7 / .3) / 20."""
    z = np.tile(np.float32([20, 0]), (1, 4, 1))
    weights, gap = pool.pool_weights(z, np.array([0, 0, 0, 1]))
    assert weights == pytest.approx([np.log(7 / 3) / 20], rel=1e-5)
    assert gap < 1e-6


def test_at_zero_nothing_is_certified_where_more_weight_would_be_better():
    assert pool.optimality_gap(np.zeros(2), np.array([0.1, -0.1])) == np.inf
    assert pool.optimality_gap(np.zeros(2), np.array([0.1, 0.0])) == 0

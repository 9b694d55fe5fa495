"""What holds for any logits: permutations permute, weights stay where they belong, a copy of a member does no harm."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_blend_pool import smoothed_loss

from ensemble.blend import methods
from ensemble.blend.methods import greedy, pool, vote
from ensemble.blend.probabilities import true_class
from ensemble.blend.recipe import Recipe


@st.composite
def problems(draw, most_members=4):
    """z float32 (M, N, C) of members of any quality and scale, and labels; sometimes rounded: there are ties."""
    members, classes = draw(st.integers(1, most_members)), draw(st.integers(2, 5))
    rows = draw(st.integers(12, 60))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels = random.integers(classes, size=rows)
    z = (
        random.normal(size=(members, rows, classes))
        + random.uniform(-0.5, 3, size=(members, 1, 1)) * np.eye(classes)[labels]
    )
    z *= draw(st.sampled_from([0.1, 1.0, 5.0])) * random.uniform(0.5, 2, size=(members, 1, 1))
    if draw(st.booleans()):
        z = np.round(z)
    return z.astype(np.float32), labels, random


def fitted(method, z, labels, folds, metric="log_loss"):
    params = methods.fit(Recipe(method, metric), z, labels, folds, np.arange(len(labels)))
    return params, methods.apply(params, z)


@pytest.mark.parametrize("method", ["mean", "vote", "pool"])
@given(problem=problems())
def test_permuting_rows_members_and_classes_permutes_the_answer(method, problem):
    z, labels, random = problem
    folds = np.arange(len(labels)) % 3
    rows, members, classes = (random.permutation(size) for size in (z.shape[1], z.shape[0], z.shape[2]))
    _, probs = fitted(method, z, labels, folds)
    moved = z[members][:, rows][:, :, classes]
    _, again = fitted(method, moved, np.argsort(classes)[labels][rows], folds[rows])
    assert again == pytest.approx(probs[rows][:, classes], abs=2e-3)


@pytest.mark.parametrize("metric", ["log_loss", "accuracy", "macro_f1", "balanced_accuracy"])
@settings(max_examples=15)
@given(problem=problems())
def test_weights_stay_on_the_simplex_and_probabilities_sum_to_1(metric, problem):
    z, labels, _ = problem
    folds = np.arange(len(labels)) % 3
    for method in ("vote", "greedy"):
        params, probs = fitted(method, z, labels, folds, metric)
        assert params.learned.weights.min() >= 0
        assert params.learned.weights.sum() == pytest.approx(1)
        assert probs.min() >= 0
        assert probs.sum(axis=1) == pytest.approx(1)


@given(problem=problems())
def test_adding_a_copy_of_a_member_never_worsens_the_fitted_loss(problem):
    z, labels, random = problem
    losses = []
    for own in (z, np.concatenate([z, z[[random.integers(len(z))]]])):
        params = vote.fit(own, labels)
        voted = -np.log(true_class(own, labels, params.inverse_temperatures) @ params.weights).mean()
        losses.append((voted, smoothed_loss(pool.fit(own, labels).weights, own, labels)))
    assert losses[1][0] <= losses[0][0] + 1e-6
    assert losses[1][1] <= losses[0][1] + 1e-6


@given(problem=problems())
def test_the_certificate_holds_for_single_members_and_the_even_vote(problem):
    z, labels, _ = problem
    inverse = vote.inverse_temperatures(z, labels)
    p = true_class(z, labels, inverse)
    weights, gap = vote.simplex_weights(p)
    assert gap <= 1e-6
    for other in [*np.eye(len(z)), np.full(len(z), 1 / len(z))]:
        assert -np.log(p @ weights).mean() <= -np.log(p @ other).mean() + gap + 1e-12


@given(problem=problems())
def test_greedy_by_log_loss_is_never_worse_than_the_best_member(problem):
    z, labels, _ = problem
    p = true_class(z, labels)
    weights = greedy.fit(z, labels, search=greedy.Search(bags=1)).weights
    assert -np.log(p @ weights).mean() <= -np.log(p).mean(axis=0).min() + 1e-6

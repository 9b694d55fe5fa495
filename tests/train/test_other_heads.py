"""The heads lda, gaussian and knn: against scikit-learn and formulas, and chosen on the other folds only."""

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from ensemble.backbones.heads import head_of, vote
from ensemble.train.discriminant import classes_of, gaussian, lda
from ensemble.train.neighbours import NEIGHBOURS, candidate_logits, neighbours
from ensemble.train.nested import choose, sharpest
from ensemble.train.other_heads import fit_other_heads

KINDS = ["lda", "gaussian", "knn"]
COUNT, DIMENSIONS, CLASSES = 120, 6, 3


@pytest.fixture
def data():
    """Features float32 (1, N, D) of three classes whose covariances differ, in units of their own; labels and folds."""
    rng = np.random.default_rng(0)
    labels = np.arange(COUNT) % CLASSES
    spread = np.array([0.5, 1.0, 2.0])[labels, None]
    features = rng.normal(size=(COUNT, DIMENSIONS)) * spread + 1.5 * np.eye(DIMENSIONS)[labels]
    features = features * np.array([1, 10, 0.1, 1, 5, 1]) + 3
    return torch.from_numpy(features.astype(np.float32))[None], labels, (np.arange(COUNT) // 3 % 4).astype(np.int8)


def classes(data, weights=None):
    features, labels, _ = data
    weights = torch.ones(COUNT) if weights is None else weights
    return classes_of(features[0], torch.from_numpy(labels), weights, CLASSES)


def scaled(features, rows=slice(None)):
    """By the moments of these rows."""
    features = features.double().numpy()
    variance = features[rows].var(0)
    return (features - features[rows].mean(0)) / np.sqrt(variance + 0.09 * variance.mean())


@pytest.mark.parametrize("shrinkage", [0.05, 0.5])
def test_lda_is_scikit_learns_with_this_shrinkage(data, shrinkage):
    rows = scaled(data[0][0])
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage).fit(rows, data[1])
    logits = lda(classes(data), shrinkage)(data[0][0]).double().numpy()
    assert np.allclose(np.diff(logits, axis=1), np.diff(theirs.decision_function(rows), axis=1), atol=1e-3)


def test_gaussian_is_quadratic_discriminant_analysis_with_these_covariances(data):
    rows, labels = scaled(data[0][0]), data[1]
    means = np.stack([rows[labels == c].mean(0) for c in range(CLASSES)])
    own = [np.cov(rows[labels == c].T, bias=True) for c in range(CLASSES)]
    pooled = sum(own) / CLASSES
    shrunk = 0.7 * pooled + 0.3 * np.trace(pooled) / DIMENSIONS * np.eye(DIMENSIONS)
    want = np.empty((COUNT, CLASSES))
    for c in range(CLASSES):
        covariance = 0.8 * shrunk + 0.2 * own[c]
        centred = rows - means[c]
        want[:, c] = -0.5 * (centred @ np.linalg.inv(covariance) * centred).sum(1)
        want[:, c] -= 0.5 * np.linalg.slogdet(covariance)[1]
    got = gaussian(classes(data), 0.3, 0.8)(data[0][0]).double().numpy()
    assert np.allclose(np.diff(got, axis=1), np.diff(want, axis=1), atol=1e-3)  # six directions: all of them
    assert (got.argmax(1) == labels).mean() > (lda(classes(data), 0.3)(data[0][0]).argmax(1).numpy() == labels).mean()


def test_a_factor_multiplies_the_logits_and_rows_without_weight_count_for_nothing(data):
    features, labels, folds = data
    weights = torch.from_numpy((folds != 1).astype(np.float32))
    kept = weights > 0
    alone = classes_of(features[0][kept], torch.from_numpy(labels)[kept], torch.ones(int(kept.sum())), CLASSES)
    for make in (lambda *each: lda(each[0], 0.2, *each[1:]), lambda *each: gaussian(each[0], 0.2, 0.9, *each[1:])):
        one, other, twice = make(alone), make(classes(data, weights)), make(alone, 2.0)
        assert torch.allclose(one(features[0]), other(features[0]), atol=1e-3)
        assert torch.allclose(2 * one(features[0]), twice(features[0]), atol=1e-3)


def test_a_vote_by_hand():
    cosines, labels, weights = torch.tensor([[1.0, 0.9]]), torch.tensor([[0, 1]]), torch.tensor([[1.0, 0.5]])
    prior = torch.tensor([0.5, 0.25, 0.25])
    e = 0.5 * float(np.exp(-1))  # half a vote, and 0.1 less, at a temperature of 0.1
    want = np.log((np.array([2 / (1 + e), 2 * e / (1 + e), 0]) + prior.numpy()) / 3)
    assert np.allclose(vote(cosines, labels, weights, prior, 0.1), want, atol=1e-6)


def test_neighbours_are_those_of_the_standardised_cosine(data):
    features, labels, folds = data
    one_hot = torch.eye(CLASSES)[torch.from_numpy(labels)]
    train = folds != 0
    head = neighbours(features[0], one_hot, torch.from_numpy(train.astype(np.float32)), (5, 0.2), 3.0)
    rows = scaled(features[0], train)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = rows @ rows[train].T
    for row in (0, 1, 2, 50):
        nearest = np.argsort(-cosines[row])[:5]
        votes = np.exp(cosines[row][nearest] / 0.2) @ np.eye(CLASSES)[labels[train][nearest]]
        prior = np.bincount(labels[train]) / train.sum()
        want = 3 * np.log((5 * votes / votes.sum() + prior) / 6)
        assert np.allclose(head(features[0][row : row + 1]), want, atol=1e-4)
    of_all = candidate_logits(head, features[0])
    at = NEIGHBOURS.index((5, 0.2))
    assert torch.allclose(3 * of_all[at], head(features[0]), atol=1e-5)


def test_the_factor_is_that_of_the_least_log_loss():
    logits = torch.tensor([[4.0, 0.0]] * 4)
    loss, factor = sharpest(logits, torch.tensor([0, 0, 0, 1]), torch.ones(4))
    assert factor == pytest.approx(np.log(3) / 4, rel=1e-2)  # a probability of 3/4
    assert loss == pytest.approx(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)), rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [2, 4])
def test_a_folds_labels_change_nothing_for_that_fold(data, kind, count):
    features, labels, folds = data
    folds = (folds % count).astype(np.int8)
    before = fit_other_heads(kind, features, labels, folds, CLASSES)
    assert len(before.heads) == len(before.chosen) == count
    for fold in range(count):
        held_out = folds == fold
        after = fit_other_heads(kind, features, np.where(held_out, (labels + 1) % CLASSES, labels), folds, CLASSES)
        moved = features.clone()
        moved[:, held_out] += 100
        elsewhere = fit_other_heads(kind, moved, labels, folds, CLASSES)
        for other in (after, elsewhere):
            assert other.chosen[fold] == before.chosen[fold]
            for one, two in zip(
                before.heads[fold].state_dict().values(), other.heads[fold].state_dict().values(), strict=True
            ):
                assert torch.equal(one, two)


@pytest.mark.parametrize("kind", ["lda", "gaussian"])
def test_a_feature_that_few_rows_have_does_not_throw_a_row_far_off(data, kind):
    features, labels, folds = data
    rare = torch.zeros(1, COUNT, 1)
    rare[0, 3] = 0.01  # of fold 1 and the first class
    rare[0, 1] = 2.0  # of fold 0 and the second class: 200 times what the training rows have
    found = fit_other_heads(kind, torch.cat([features, rare], 2), labels, folds, CLASSES)
    held_out = torch.from_numpy(np.flatnonzero(folds == 0))
    logits = found.heads[0](torch.cat([features, rare], 2)[0, held_out])
    losses = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels)[held_out], reduction="none")
    assert losses[1] < 5 and losses.mean() < 1


@pytest.mark.parametrize("kind", KINDS)
def test_heads_are_better_than_chance_calibrated_and_read_again(data, kind):
    features, labels, folds = data
    found = fit_other_heads(kind, features, labels, folds, CLASSES, np.linspace(1, 2, COUNT))
    for fold, head in enumerate(found.heads):
        held_out = torch.from_numpy(np.flatnonzero(folds == fold))
        logits = head(features[0, held_out])
        target = torch.from_numpy(labels)[held_out]
        assert torch.nn.functional.cross_entropy(logits, target) < 1 < np.log(CLASSES)
        again = head_of(kind, dict(head.state_dict()))
        assert torch.equal(again(features[0, held_out]), logits)


def test_two_candidates_are_told_apart_by_the_other_folds(data):
    _, labels, folds = data
    target = torch.eye(CLASSES)[torch.from_numpy(labels)]
    noise = torch.from_numpy(np.random.default_rng(0).normal(size=(COUNT, CLASSES)).astype(np.float32))

    def logits(rows, of):
        assert len(of) == 60 and not rows[of].any()  # two folds of four, on neither of which it was fitted
        return [noise[of], (target + 0.3 * noise)[of]]

    assert [candidate for candidate, _ in choose(logits, 2, labels, folds, np.ones(COUNT))] == [1, 1, 1, 1]

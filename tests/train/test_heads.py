"""Linear probes: against scikit-learn's optimum, and honest."""

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression

from ensemble.train import heads
from ensemble.train.heads import STRENGTHS, fit_heads, minimize

CLASSES = 3


def problem(rows=180, dimensions=12, folds=3, views=1, seed=0, signal=0.7):
    """Features of very different scales and means, labels, folds."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, rows)
    middles = rng.normal(size=(CLASSES, dimensions))
    features = signal * middles[labels] + rng.normal(size=(views, rows, dimensions))
    features = features * rng.uniform(0.1, 5, dimensions) + 3 * rng.normal(size=dimensions)
    return torch.from_numpy(features.astype(np.float32)), labels, (rng.permutation(rows) % folds).astype(np.int8)


def optimum(features, labels, rows, strength, weights=None):
    """scikit-learn's probabilities for all rows, (V, N, C), fitted on some of them."""
    flat = features.double().numpy()
    weights = np.ones(len(labels)) if weights is None else weights
    train, label, weight = flat[:, rows].reshape(-1, flat.shape[2]), np.tile(labels[rows], len(flat)), weights[rows]
    weight = np.tile(weight, len(flat))
    mean = np.average(train, axis=0, weights=weight)
    deviation = np.sqrt(np.average((train - mean) ** 2, axis=0, weights=weight))
    deviation = np.where(deviation > 1e-5 * np.abs(mean), deviation, np.inf)
    model = LogisticRegression(C=1 / (strength * weight.sum()), tol=1e-10, max_iter=10_000)
    model.fit((train - mean) / deviation, label, sample_weight=weight)
    return centred(((flat - mean) / deviation) @ model.coef_.T + model.intercept_)


def centred(logits):
    return logits - logits.mean(-1, keepdims=True)


def answers(found, features, fold):
    logits = features.double() @ found.weights[fold].double().T + found.biases[fold].double()
    return centred(logits.numpy())


def log_losses(logits, labels):
    return logsumexp(logits, axis=1) - logits[np.arange(len(labels)), labels]


# ---- the optimum ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("weighted", [False, True])
def test_each_fold_has_scikit_learns_optimum_of_the_other_folds_rows(views, weighted):
    features, labels, folds = problem(views=views)
    weights = np.random.default_rng(1).uniform(0, 3, len(labels)) if weighted else None
    found = fit_heads(features, labels, folds, CLASSES, weights)
    assert found.weights.shape == (3, CLASSES, 12) and found.biases.shape == (3, CLASSES)
    assert found.weights.dtype == found.biases.dtype == torch.float32
    for fold in range(3):
        want = optimum(features, labels, folds != fold, found.strengths[fold], weights)
        assert np.abs(want).max() > 3
        assert answers(found, features, fold) == pytest.approx(want, abs=0.05)
        for view in range(views):
            got = log_losses(answers(found, features, fold)[view], labels)[folds == fold].mean()
            assert got == pytest.approx(log_losses(want[view], labels)[folds == fold].mean(), abs=2e-3)


def test_with_a_fine_tolerance_it_is_the_optimum_to_the_end_of_float32(monkeypatch):
    monkeypatch.setattr(heads, "TOLERANCE", 1e-6)
    monkeypatch.setattr(heads, "MAX_STEPS", 2000)
    features, labels, folds = problem(views=2)
    weights = np.random.default_rng(1).uniform(0, 3, len(labels))
    found = fit_heads(features, labels, folds, CLASSES, weights)
    for fold in range(3):
        want = optimum(features, labels, folds != fold, found.strengths[fold], weights)
        assert answers(found, features, fold) == pytest.approx(want, abs=5e-3)


def test_two_folds():
    features, labels, folds = problem(folds=2)
    found = fit_heads(features, labels, folds, CLASSES)
    assert len(found.strengths) == len(found.weights) == 2
    for fold in (0, 1):
        want = optimum(features, labels, folds != fold, found.strengths[fold])
        assert answers(found, features, fold) == pytest.approx(want, abs=0.05)


@pytest.mark.parametrize("labels_in", ["any order", "the order of the folds"])
def test_two_folds_in_any_order_of_rows(labels_in):
    features, labels, _ = problem()
    folds = (np.arange(len(labels)) // 2 % 2).astype(np.int8)  # 0, 0, 1, 1, 0, 0, ...
    if labels_in == "the order of the folds":
        order = np.argsort(labels, kind="stable")
        features, labels = features[:, order], labels[order]
    found = fit_heads(features, labels, folds, CLASSES)
    for fold in (0, 1):
        want = optimum(features, labels, folds != fold, found.strengths[fold])
        assert answers(found, features, fold) == pytest.approx(want, abs=0.05)
        assert 1e-3 < found.strengths[fold] < 1


@pytest.mark.parametrize("folds", [2, 3])
def test_rows_without_a_fold_are_trained_on_in_all_of_them(folds):
    features, labels, fold_of = problem(folds=folds)
    fold_of[::4] = -1
    found = fit_heads(features, labels, fold_of, CLASSES)
    assert len(found.strengths) == folds
    for fold in range(folds):
        want = optimum(features, labels, fold_of != fold, found.strengths[fold])
        assert answers(found, features, fold) == pytest.approx(want, abs=0.05)


@pytest.mark.parametrize("unit", [1e-60, 1e60])
def test_the_unit_of_the_weights_is_nothing(unit):
    features, labels, folds = problem()
    weights = np.random.default_rng(1).integers(1, 4, len(labels)).astype(np.float64)
    one, other = (fit_heads(features, labels, folds, CLASSES, weights * each) for each in (1.0, unit))
    assert one.strengths == other.strengths
    assert torch.allclose(one.weights, other.weights, rtol=1e-3, atol=1e-4)


def test_a_row_of_weight_0_might_as_well_not_be_there():
    features, labels, folds = problem()
    weights = np.ones(len(labels))
    weights[::5] = 0
    kept = weights > 0
    one = fit_heads(features, labels, folds, CLASSES, weights)
    other = fit_heads(features[:, kept], labels[kept], folds[kept], CLASSES)
    assert one.strengths == other.strengths
    for fold in range(3):
        assert answers(one, features, fold) == pytest.approx(answers(other, features, fold), abs=0.02)


def test_folds_whose_rows_all_weigh_0_leave_the_others_sound():
    features, labels, folds = problem()
    found = fit_heads(features, labels, folds, CLASSES, (folds != 2).astype(np.float64))
    want = optimum(features, labels, folds == 0, found.strengths[1])  # all that weighs in fold 1's training part
    assert answers(found, features, 1) == pytest.approx(want, abs=0.05)
    assert found.weights.isfinite().all() and found.biases.isfinite().all()


# ---- honest --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folds", [2, 3, 5])
@pytest.mark.parametrize("seed", range(3))
def test_a_folds_own_labels_have_no_part_in_its_head(folds, seed):
    features, labels, fold_of = problem(folds=folds, seed=seed)
    before = fit_heads(features, labels, fold_of, CLASSES)
    for fold in range(folds):
        own = fold_of == fold
        after = fit_heads(features, np.where(own, (labels + 1) % CLASSES, labels), fold_of, CLASSES)
        assert after.strengths[fold] == before.strengths[fold]
        assert answers(after, features, fold) == pytest.approx(answers(before, features, fold), abs=0.02)
        others = [each for each in range(folds) if each != fold]
        assert not torch.allclose(after.weights[others], before.weights[others], atol=0.02)


def test_how_far_other_folds_go_chooses_nothing_for_this_one(monkeypatch):
    # Fold 0 loses at the first weaker strength, and would win at the next one, where fold 1 alone takes it.
    losses = {0.1: (3.0, 3.0), 0.1 / 10**0.5: (4.0, 2.0), 0.01: (1.0, 1.0), 0.01 / 10**0.5: (1.0, 2.0)}
    tried = []

    class Told:
        def solve(self, weights, strengths, tolerance, start):
            tried.append(strengths[0])
            return torch.zeros(2, CLASSES, 1)

        def row_losses(self, at, weights):
            near = min(losses, key=lambda strength: abs(strength - tried[-1]))
            return np.array(losses[near] if tried[-1] < 0.11 else (9.0, 9.0))[:, None]

    judges = [(0, 0, np.ones(1)), (1, 1, np.ones(1))]
    chosen, _ = heads._choose(Told(), np.ones((2, 1)), judges, 2)
    assert chosen == pytest.approx([0.1, 0.01])
    assert tried == pytest.approx([0.1, 0.1 / 10**0.5, 0.01, 0.01 / 10**0.5, 10**-0.5])


def test_strengths_are_those_of_least_inner_held_out_loss():
    features, labels, folds = problem(rows=90, dimensions=20, seed=3, signal=0.3)
    weights = np.random.default_rng(1).uniform(0.5, 2, len(labels))
    found = fit_heads(features, labels, folds, CLASSES, weights)
    for fold in range(3):
        inner = [(each, (folds != fold) & (folds != each)) for each in range(3) if each != fold]
        losses = []
        for strength in STRENGTHS:
            logits = [(each, optimum(features, labels, rows, strength, weights)[0]) for each, rows in inner]
            total = sum((log_losses(own, labels) * weights)[folds == each].sum() for each, own in logits)
            losses.append(total / weights[folds != fold].sum())
        assert found.strengths[fold] == STRENGTHS[int(np.argmin(losses))]
        assert 0 < np.argmin(losses) < len(STRENGTHS) - 1


def test_two_folds_choose_by_the_halves_of_their_training_rows():
    features, labels, folds = problem(rows=90, dimensions=20, folds=2, seed=3, signal=0.3)
    found = fit_heads(features, labels, folds, CLASSES)
    for fold in (0, 1):
        half = np.full(len(labels), -1)
        for label in range(CLASSES):  # each class in turn, from where the last one stopped
            rows = np.flatnonzero((folds != fold) & (labels == label))
            half[rows] = (np.arange(len(rows)) + (half >= 0).sum()) % 2
        losses = [
            sum(
                log_losses(optimum(features, labels, half == side, strength)[0], labels)[half == 1 - side].sum()
                for side in (0, 1)
            )
            for strength in STRENGTHS
        ]
        assert found.strengths[fold] == STRENGTHS[int(np.argmin(losses))]


def test_strengths_go_from_1e_5_to_10_in_half_powers():
    assert STRENGTHS[0] == 1e-5 and STRENGTHS[-1] == 10.0 and len(STRENGTHS) == 13
    assert np.diff(np.log10(STRENGTHS)) == pytest.approx(0.5)


def test_noise_is_given_the_strongest_and_a_clean_case_a_weak_one():
    features, labels, folds = problem(dimensions=40)
    noise = torch.randn(features.shape, generator=torch.Generator().manual_seed(0))
    assert min(fit_heads(noise, labels, folds, CLASSES).strengths) >= 1
    clean = torch.nn.functional.one_hot(torch.from_numpy(labels), CLASSES).float()[None]
    found = fit_heads(clean + 0.01 * noise[:, :, :CLASSES], labels, folds, CLASSES)
    assert max(found.strengths) < 1e-3
    for fold in range(3):
        assert answers(found, clean, fold).argmax(-1)[0].tolist() == labels.tolist()


# ---- features that are no use --------------------------------------------------------------------------------------


def test_separable_features_give_finite_heads():
    _, labels, folds = problem()
    clean = 10 * torch.nn.functional.one_hot(torch.from_numpy(labels), CLASSES).float()[None]
    found = fit_heads(clean, labels, folds, CLASSES)
    assert found.weights.isfinite().all() and found.biases.isfinite().all()
    logits = answers(found, clean, 0)
    assert logits.argmax(-1)[0].tolist() == labels.tolist() and np.abs(logits).max() < 100


def test_constant_features_are_left_out():
    features, labels, folds = problem()
    alone = fit_heads(features, labels, folds, CLASSES)
    constants = torch.tensor([0.0, 0.1, -7.0, 1000.1, 1e-12]).expand(1, len(labels), 5)
    found = fit_heads(torch.cat([features, constants], 2), labels, folds, CLASSES)
    assert found.strengths == alone.strengths
    assert torch.equal(found.weights[:, :, 12:], torch.zeros(3, CLASSES, 5))
    assert torch.allclose(found.weights[:, :, :12], alone.weights, atol=1e-3)
    assert torch.allclose(found.biases, alone.biases, atol=5e-3)


def test_nothing_but_constants_leaves_the_shares_of_the_classes():
    _, labels, folds = problem()
    found = fit_heads(torch.full((2, len(labels), 4), 5.0), labels, folds, CLASSES)
    for fold in range(3):
        shares = np.bincount(labels[folds != fold]) / (folds != fold).sum()
        assert found.biases[fold].softmax(0).numpy() == pytest.approx(shares, abs=1e-3)
    assert torch.equal(found.weights, torch.zeros(3, CLASSES, 4))


def test_a_feature_of_one_row_says_nothing_where_that_row_is_held_out():
    features, labels, folds = problem()
    rare = torch.zeros(1, len(labels), 3)
    for fold in range(3):
        rare[0, np.flatnonzero(folds == fold)[0], fold] = 2.0
    every = torch.cat([features, rare], 2)
    found = fit_heads(every, labels, folds, CLASSES)
    for fold in range(3):
        assert torch.equal(found.weights[fold, :, 12 + fold], torch.zeros(CLASSES))
        want = optimum(every, labels, folds != fold, found.strengths[fold])
        assert answers(found, every, fold) == pytest.approx(want, abs=0.05)


@pytest.mark.parametrize(("dimensions", "rows", "rank"), [(512, 100, 5), (1280, 300, 3)])
def test_collinear_features_are_no_trouble(dimensions, rows, rank):
    # as networks that were trained to the end give them: a few directions that tell the classes, and next to no others
    rng = np.random.default_rng(0)
    labels, folds = rng.integers(0, CLASSES, rows), (rng.permutation(rows) % 3).astype(np.int8)
    hidden = 3 * rng.normal(size=(rows, rank))
    hidden[:, 0] += 20 * labels
    features = hidden @ rng.normal(size=(rank, dimensions)) + 1e-3 * rng.normal(size=(rows, dimensions))
    found = fit_heads(torch.from_numpy(features.astype(np.float32))[None], labels, folds, CLASSES)
    for fold in range(3):
        right = answers(found, torch.from_numpy(features)[None], fold).argmax(-1)[0] == labels
        assert right[folds == fold].mean() > 0.95


def test_small_and_large_features_count_the_same():
    features, labels, folds = problem()
    one = fit_heads(features, labels, folds, CLASSES)
    units = torch.logspace(-9, 9, 12)
    other = fit_heads(features * units, labels, folds, CLASSES)
    assert one.strengths == other.strengths
    for fold in range(3):
        assert answers(other, features * units, fold) == pytest.approx(answers(one, features, fold), abs=0.02)


# ---- the minimiser -------------------------------------------------------------------------------------------------


def quadratics(seed=0, size=8, condition=100.0):
    """Three functions x A x / 2 - b x in float64 (float32 may end 6e-4 beside it), and their optimum."""
    generator = torch.Generator().manual_seed(seed)
    turns = torch.linalg.qr(torch.randn(3, size, size, generator=generator).double())[0]
    bends = torch.logspace(0, np.log10(condition), size, dtype=torch.float64).expand(3, size)
    matrices = turns @ torch.diag_embed(bends) @ turns.mT
    right = torch.randn(3, size, generator=generator).double()

    def value_and_gradient(at):
        product = (matrices @ at[:, :, None])[:, :, 0]
        return (at * product).sum(1) / 2 - (at * right).sum(1), product - right

    return value_and_gradient, matrices, torch.linalg.solve(matrices, right)


def test_minimize_finds_the_optimum_of_quadratics():
    function, _, want = quadratics()
    found = minimize(function, lambda gradient: gradient, torch.zeros(3, 8).double(), 1e-5)
    assert torch.allclose(found, want, atol=1e-4)
    assert (function(found)[1].abs() < 1e-5).all()


def test_minimize_with_the_inverse_hessian_needs_one_step():
    function, matrices, want = quadratics(condition=1e4)
    calls = []

    def counted(at):
        calls.append(at)
        return function(at)

    inverses = torch.linalg.inv(matrices)
    found = minimize(
        counted, lambda gradient: (inverses @ gradient[:, :, None])[:, :, 0], torch.full((3, 8), 5.0).double(), 1e-2
    )
    assert torch.allclose(calls[1], want, atol=1e-2) and torch.allclose(found, want, atol=1e-4)
    assert len(calls) <= 3


def test_minimize_shortens_each_functions_step_by_itself():
    def value_and_gradient(at):  # the first step of one is far too long, that of the other exact
        bend = torch.tensor([[64.0], [1.0]])
        return (bend * at**2).sum(1) / 2, bend * at

    seen = []

    def counted(at):
        seen.append(at.flatten().tolist())
        return value_and_gradient(at)

    found = minimize(counted, lambda gradient: gradient, torch.tensor([[1.0], [1.0]]), 1e-6)
    assert found.abs().max() < 1e-6
    # 1 - 64 / 2^i until the value falls; the exact step stays where it is meanwhile
    assert seen[:7] == [[1, 1], [-63, 0], [-31, 0], [-15, 0], [-7, 0], [-3, 0], [-1, 0]]
    assert seen[7] == [0, 0]


def test_minimize_stays_at_an_optimum_and_stops_where_rounding_decides():
    function, _, want = quadratics()
    assert torch.equal(minimize(function, lambda gradient: gradient, want, 1e-3), want)
    found = minimize(function, lambda gradient: gradient, torch.zeros(3, 8).double(), 0.0)  # no gradient is below that
    assert torch.allclose(found, want, atol=1e-4)

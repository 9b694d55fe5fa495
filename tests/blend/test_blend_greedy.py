"""Greedy selection against the plain rule, without shortcuts: every metric, weights, starts, bags and awkward rows."""

import tracemalloc

import numpy as np
import pytest

from ensemble.blend.methods import greedy, greedy_metric
from ensemble.blend.probabilities import softmax, true_class
from ensemble.scoring.counts import class_counts
from ensemble.scoring.metrics import METRICS as TABLE

METRICS = tuple(name for name, metric in TABLE.items() if metric.needs == "counts")


def simulate(members, rows, classes, seed, noise=2.5, signal=3.0):
    """Logits float32 (M, N, C) and labels int64 (N,)."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(classes, size=rows)
    shared = draw.normal(size=(rows, classes)) + signal * np.eye(classes)[labels]
    return (shared + noise * draw.normal(size=(members, rows, classes))).astype(np.float32), labels


def row_weights(kind, labels, seed):
    draw = np.random.default_rng(seed)
    if kind == "whole":
        return draw.integers(0, 4, size=len(labels)).astype(np.float64)
    return None if kind == "none" else draw.dirichlet(np.ones(labels.max() + 1))[labels]  # a shifted class prior


# ---- the plain rules -----------------------------------------------------------------------------------------------


def plain_log_loss(p, rounds, sorted_start, weights):
    """AutoGluon's rule word for word, from the true-class probabilities; sorted_start begins it at the best prefix."""
    members = p.shape[1]

    def loss(chosen):
        return np.average(-np.log(p[:, chosen].mean(axis=1)), weights=weights)

    singles = np.array([loss([m]) for m in range(members)])
    order = list(np.argsort(singles, kind="stable"))
    longest = min(members, rounds) if sorted_start else 1
    path = min((order[:size] for size in range(1, longest + 1)), key=lambda path: loss(path).round(11))
    rounding = abs(loss(path)) > 1e-4
    best, best_loss = list(path), loss(path).round(6) if rounding else loss(path)
    while len(path) < rounds:
        losses = np.array([loss([*path, m]) for m in range(members)])
        seen = losses.round(6) if rounding else losses
        tied = [m for m in range(members) if np.isclose(seen[m], seen.min(), atol=0, rtol=1e-12)]
        tied = [m for m in tied if m in path] or tied
        add = min(tied, key=lambda m: (losses[m].round(13), m))
        path = [*path, add]
        if seen[add] < best_loss:
            best, best_loss = list(path), seen[add]
    return np.bincount(best, minlength=members) / len(best)


def plain_score(metric, labels, predicted, classes, weights):
    w = np.ones(len(labels)) if weights is None else weights
    seen = w > 0
    labels, predicted, w = labels[seen], predicted[seen], w[seen]
    if metric not in ("accuracy", "balanced_accuracy"):
        return float(TABLE[metric].score(class_counts(labels, predicted, classes, w)))
    if metric == "accuracy":
        return np.average(labels == predicted, weights=w)
    return np.mean([np.average(predicted[labels == c] == c, weights=w[labels == c]) for c in np.unique(labels)])


def plain_selection(z, labels, metric, rounds, sorted_start, weights):
    """The rule of a metric of the predicted classes, over all rows and classes each time."""
    members, _, classes = z.shape
    probs, p = softmax(z).astype(np.float64), true_class(z, labels)

    def rank(counts):
        predicted = np.tensordot(counts, probs, axes=1).argmax(axis=1)
        loss = np.average(-np.log(p @ counts / counts.sum()), weights=weights)
        return np.round(plain_score(metric, labels, predicted, classes, weights), 11), -np.round(loss, 11)

    one = np.eye(members)
    order = sorted(range(members), key=lambda m: rank(one[m]), reverse=True)
    longest = min(members, rounds) if sorted_start else 1
    counts = best = max((one[order[:size]].sum(axis=0) for size in range(1, longest + 1)), key=rank)
    while counts.sum() < rounds:
        counts = max((counts + one[m] for m in range(members)), key=rank)
        best = max(best, counts, key=rank)
    return best / best.sum()


def plain_fit(z, labels, metric, rounds, sorted_start=True, weights=None):
    if metric == "log_loss":
        return plain_log_loss(true_class(z, labels), rounds, sorted_start, weights)
    return plain_selection(z, labels, metric, rounds, sorted_start, weights)


# ---- the same answers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("sorted_start", [True, False])
@pytest.mark.parametrize("kind", ["none", "whole", "prior"])
@pytest.mark.parametrize("metric", ["log_loss", *METRICS])
def test_the_answer_is_that_of_the_plain_rule(metric, kind, sorted_start, seed):
    z, labels = simulate(5, 150, (2, 4, 7, 11)[seed], seed)
    weights = row_weights(kind, labels, seed)
    ours = greedy.fit(
        z, labels, metric, greedy.Search(rounds=14, bags=1, sorted_start=sorted_start), weights=weights
    ).weights
    assert ours == pytest.approx(plain_fit(z, labels, metric, 14, sorted_start, weights), abs=1e-12)


@pytest.mark.parametrize("metric", ["log_loss", *METRICS])
def test_bags_are_the_plain_rule_on_drawn_members_and_rows(metric, monkeypatch):
    monkeypatch.setattr(greedy, "BAG_ROWS", 90)
    monkeypatch.setattr(greedy, "CLASS_ROWS", 1)
    z, labels = simulate(9, 120, 5, seed=3)
    weights = row_weights("whole", labels, 1)
    alive, draw, expected = np.flatnonzero(weights), np.random.default_rng(7), np.zeros(9)
    assert len(alive) < 120
    chosen = [np.sort(draw.permutation(9)[:5]) for _ in range(3)]
    for own in chosen:
        rows = alive[draw.integers(len(alive), size=min(90, len(alive)))]
        expected[own] += plain_fit(z[own][:, rows], labels[rows], metric, 10, True, weights[rows])
    params = greedy.fit(z, labels, metric, greedy.Search(rounds=10, bags=3, seed=7), weights=weights)
    assert params.weights == pytest.approx(expected / 3, abs=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_probabilities_are_kept_or_computed_each_time_in_chunks_of_any_size(metric, monkeypatch):
    z, labels = simulate(6, 300, 8, seed=5)
    kept = greedy.fit(z, labels, metric, greedy.Search(rounds=20, bags=2)).weights
    monkeypatch.setattr(greedy_metric, "KEPT", 0)
    assert np.array_equal(kept, greedy.fit(z, labels, metric, greedy.Search(rounds=20, bags=2)).weights)
    monkeypatch.setattr("ensemble.blend.probabilities.CHUNK", 24)
    assert np.array_equal(kept, greedy.fit(z, labels, metric, greedy.Search(rounds=20, bags=2)).weights)


def test_logarithms_of_products_are_those_of_the_factors(monkeypatch):
    draw = np.random.default_rng(0)
    p, total = draw.uniform(1e-15, 1, size=(3, 1003)) ** 4 + 1e-15, draw.uniform(0, 5, size=1003)
    total[:40] = 0
    expected = -np.log((total + p) / 6).mean(axis=1)
    assert greedy_metric.path_losses(p, total, 6, None) == pytest.approx(expected, rel=1e-13)
    assert greedy_metric.path_losses(p, total, 6, np.full(1003, 0.3)) == pytest.approx(expected, rel=1e-13)
    monkeypatch.setattr(greedy_metric, "STEP", 50)
    assert greedy_metric.path_losses(p, total, 6, None) == pytest.approx(expected, rel=1e-13)
    assert np.isfinite(greedy_metric.path_losses(np.full((1, 64), 1e-15), np.zeros(64), 1, None)).all()


@pytest.mark.parametrize("metric", ["log_loss", *METRICS])
def test_the_order_of_rows_and_classes_does_not_matter(metric):
    z, labels = simulate(6, 200, 5, seed=8)
    weights = row_weights("prior", labels, 0)
    first = greedy.fit(z, labels, metric, greedy.Search(bags=1), weights=weights).weights
    rows, classes = np.random.default_rng(1).permutation(200), np.array([3, 1, 4, 0, 2])
    if metric == "quadratic_kappa":
        classes = np.arange(5)[::-1]  # its classes have an order, which may be turned around
    moved = z[:, rows][:, :, classes]
    again = greedy.fit(
        moved, np.argsort(classes)[labels[rows]], metric, greedy.Search(bags=1), weights=weights[rows]
    ).weights
    assert np.array_equal(first, again)


# ---- weights, starts and temperatures ------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["log_loss", *METRICS])
def test_a_row_of_weight_three_is_three_rows_and_one_of_weight_zero_is_none(metric):
    z, labels = simulate(5, 100, 4, seed=2)
    weights = row_weights("whole", labels, 5)
    rows = np.repeat(np.arange(100), weights.astype(int))
    weighted = greedy.fit(z, labels, metric, greedy.Search(bags=1), weights=weights).weights
    assert weighted == pytest.approx(
        greedy.fit(z[:, rows], labels[rows], metric, greedy.Search(bags=1)).weights, abs=1e-12
    )
    larger = greedy.fit(z, labels, metric, greedy.Search(bags=1), weights=weights * 1024).weights
    assert np.array_equal(weighted, larger)


def test_a_member_already_taken_is_taken_before_one_that_is_better_in_the_seventh_decimal():
    # The second member alone is 1.2e-7 nats worse; half of each is 2e-8 better than the first twice.
    p = np.array([[0.5, 0.5 + 1e-7 + 4e-4], [0.5, 0.5 + 1e-7 - 4e-4]])
    loss, mixed = -np.log(p).mean(axis=0), -np.log(p.mean(axis=1)).mean()
    assert mixed < loss[0] < loss[1] < loss[0] + 5e-7
    assert np.array_equal(greedy.select_log_loss(p, 5, sorted_start=False), [1, 0])


def test_the_path_without_a_sorted_start_has_at_most_so_many_members():
    z, labels = simulate(8, 400, 6, seed=4)
    p = true_class(z, labels)
    for rounds in (1, 2, 7, 25):
        counts = greedy.select_log_loss(p, rounds, sorted_start=False) * np.arange(1, rounds + 1)[:, None]
        assert np.isclose(counts, counts.round()).all(axis=1).any()  # of some number of members, `rounds` at most
    assert np.array_equal(greedy.select_log_loss(p, 1, sorted_start=False), np.eye(8)[np.log(p).sum(axis=0).argmax()])


@pytest.mark.parametrize("metric", ["log_loss", "macro_f1"])
def test_temperatures_are_those_of_tempered_members(metric):
    z, labels = simulate(4, 200, 5, seed=6)
    inverse = np.array([0.5, 1.0, 2.0, 0.25])  # powers of two, which lose no digit
    params = greedy.fit(z, labels, metric, greedy.Search(bags=2), inverse=inverse)
    tempered = z * inverse.astype(np.float32)[:, None, None]
    plain = greedy.fit(tempered, labels, metric, greedy.Search(bags=2))
    assert np.array_equal(params.weights, plain.weights)
    assert np.array_equal(params.inverse_temperatures, inverse)
    assert plain.inverse_temperatures is None
    assert greedy.apply(params, z) == pytest.approx(greedy.apply(plain, tempered), abs=1e-7)


def test_balanced_accuracy_takes_the_member_that_knows_the_rare_class():
    labels = np.array([0] * 9 + [1])
    often, rarely = np.full((10, 2), [2.0, 0.0]), np.full((10, 2), [2.0, 0.0])
    rarely[[0, 9]] = [0.0, 2.0]  # 9 of 10 right each; mean recall 1/2 and (8/9 + 1)/2
    z = np.stack([often, rarely]).astype(np.float32)
    assert np.array_equal(greedy.fit(z, labels, "balanced_accuracy", greedy.Search(rounds=1, bags=1)).weights, [0, 1])
    weights = np.where(labels == 1, 0.0, 1.0)  # without rows the class does not count
    params = greedy.fit(z, labels, "balanced_accuracy", greedy.Search(rounds=1, bags=1), weights=weights)
    assert np.array_equal(params.weights, [1, 0])


# ---- awkward rows and members --------------------------------------------------------------------------------------

AWKWARD = {
    "one member": simulate(1, 50, 3, 0),
    "one row": simulate(5, 1, 4, 1),
    "one member and row": simulate(1, 1, 2, 1),
    "two classes": simulate(6, 60, 2, 2),
    "one class": (np.zeros((3, 10, 1), np.float32), np.zeros(10, np.int64)),
    "more classes than rows": simulate(5, 12, 10_000, 3, signal=9.0),
    "members without a mistake": simulate(4, 40, 3, 4, noise=0.1, signal=40.0),
    "members that are always wrong": (-simulate(4, 40, 3, 5, noise=0.5, signal=30.0)[0], np.arange(40) % 3),
}


@pytest.mark.parametrize("metric", ["log_loss", *METRICS])
@pytest.mark.parametrize("case", AWKWARD)
def test_awkward_shapes(case, metric):
    z, labels = AWKWARD[case]
    for sorted_start in (True, False):
        params = greedy.fit(z, labels, metric, greedy.Search(rounds=9, bags=1, sorted_start=sorted_start))
        assert params.weights == pytest.approx(plain_fit(z, labels, metric, 9, sorted_start), abs=1e-12)
    bagged = greedy.fit(z, labels, metric, greedy.Search(rounds=9, bags=3)).weights
    assert bagged.sum() == pytest.approx(1)
    assert bagged.min() >= 0


@pytest.mark.parametrize("metric", ["log_loss", *METRICS])
def test_identical_and_constant_members_and_a_class_without_rows(metric):
    z, labels = simulate(6, 150, 6, seed=9)
    labels[labels == 4] = 1
    z[2], z[3], z[4] = z[0], 0.0, [0, 5, 0, 0, 0, 0]  # a copy, no opinion, one opinion
    for sorted_start in (True, False):
        weights = greedy.fit(z, labels, metric, greedy.Search(rounds=12, bags=1, sorted_start=sorted_start)).weights
        assert weights == pytest.approx(plain_fit(z, labels, metric, 12, sorted_start), abs=1e-12)
    same = np.repeat(z[:1], 5, axis=0)
    assert np.array_equal(
        greedy.fit(same, labels, metric, greedy.Search(bags=1, sorted_start=False)).weights, [1, 0, 0, 0, 0]
    )


def test_log_loss_needs_little_memory_beyond_the_logits():
    z, labels = simulate(10, 20_000, 50, seed=0)
    tracemalloc.start()
    greedy.fit(z, labels, search=greedy.Search(rounds=3, bags=1))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 24 * 10 * 20_000 + 16e6  # the logits are 40 MB

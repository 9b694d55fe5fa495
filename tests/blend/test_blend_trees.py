"""Boosted trees: hand-computed steps, scikit-learn's own predictions, when they pay and when they don't."""

from functools import partial

import numpy as np
import pytest
from safetensors.numpy import load, save

from ensemble.blend.methods import trees
from ensemble.blend.methods.pool import inverse_temperature
from ensemble.blend.probabilities import log_softmax, softmax
from ensemble.scoring.outcomes import evaluate

accuracy, log_loss = (partial(evaluate, name) for name in ("accuracy", "log_loss"))


def simulate(members, rows, classes, seed=0, signal=2.0):
    """Equally good members: logits float32 (M, N, C) with shared and own noise, and labels (N,)."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(classes, size=rows)
    base = draw.normal(size=(rows, classes))
    base[np.arange(rows), labels] += signal
    return (base + draw.normal(size=(members, rows, classes))).astype(np.float32), labels


def exclusive_or(rows, seed):
    """Two members, two classes: the label is 1 where the members disagree, whatever each says."""
    margins = 2 * np.random.default_rng(seed).normal(size=(2, rows))
    labels = ((margins[0] > 0) != (margins[1] > 0)).astype(np.int64)
    return np.stack([-margins, margins], axis=2).astype(np.float32), labels


@pytest.fixture(autouse=True)
def fewer_stages(monkeypatch):
    monkeypatch.setattr(trees, "STAGES", 50)


def fit(z, labels, k=3, seed=0):
    rows = np.arange(len(labels))
    return trees.fit(z, labels, rows % k, rows, seed)


def plain_mean(z, labels, new):
    return softmax(inverse_temperature(z.mean(axis=0), labels) * new.mean(axis=0, dtype=np.float64))


def test_a_tree_by_hand():
    # 20 rows with p = (.6, .4), all of class 0; 10 rows a tree. Its one split parts the classes; a leaf holds
    # 10 residuals of +-.4 and 10 weights of .24 + .001: .1 * 4 / (2.41 + 5) after rate and ridge
    log_p = np.log(np.tile(np.array([[0.6, 0.4]], dtype=np.float32), (20, 1)))
    steps = trees.boost(log_p, [log_p], np.zeros(20, dtype=np.int64), np.arange(20), 1, seed=0)
    first, start = next(steps)
    assert trees.values(first, [log_p]) == 0
    assert start == pytest.approx(log_p)
    tree, scores = next(steps)
    assert scores - log_p == pytest.approx(np.tile([[0.4 / 7.41, -0.4 / 7.41]], (20, 1)), abs=1e-6)
    assert np.log(0.4) < tree["threshold"][0] < np.log(0.6)
    # 20 targets of +-.4 / .241 around 0, all of whose weighted squared error the split removes
    assert tree["gain"][0] == pytest.approx(20 * 0.4**2 / 0.241, rel=1e-4)
    assert next(steps, None) is None


def test_lean_by_hand():
    # the mean expects 10 of each class; found are 15 and 5: (15 + 5) / (10 + 5) and (5 + 5) / (10 + 5)
    beta, lean = trees.origin(np.zeros((20, 2), dtype=np.float32), np.repeat([0, 1], [15, 5]))
    assert beta == 1.0
    assert lean == pytest.approx(np.log([20 / 15, 10 / 15]), abs=1e-6)


def test_nodes_predict_as_scikit_learn_does(monkeypatch):
    from sklearn.ensemble import GradientBoostingClassifier

    monkeypatch.setattr(trees, "RIDGE", 0.0)
    draw = np.random.default_rng(0)
    x, labels = draw.normal(size=(400, 5)).astype(np.float32), draw.integers(3, size=400)
    labels[x[:, 0] * x[:, 1] > 0] = 2
    x[:, 4] = 64 + np.arange(400) % 7 * 2**-17  # neighbours in float32: a threshold's rounding counts
    theirs = GradientBoostingClassifier(n_estimators=30, learning_rate=trees.RATE, max_depth=trees.DEPTH, init="zero")
    theirs.fit(x, labels)
    new = np.concatenate([x, draw.normal(size=(300, 5)).astype(np.float32)])
    scores = np.zeros((700, 3))
    for stage, c in np.ndindex(theirs.estimators_.shape):
        scores[:, c] += trees.values(trees.nodes(theirs.estimators_[stage, c]), list(new.T))
    assert softmax(scores) == pytest.approx(theirs.predict_proba(new), abs=1e-9)


def test_a_threshold_between_neighbours_in_float32():
    from sklearn.tree import DecisionTreeRegressor

    low = np.float32(64 + 2**-17)  # the middle, rounded to even, is the upper one
    x = np.array([low, np.nextafter(low, np.float32(np.inf))] * 10, dtype=np.float32)
    fitted = DecisionTreeRegressor(max_depth=1).fit(x[:, None], np.array([0.0, 1.0] * 10))
    tree = trees.nodes(fitted)
    assert tree["threshold"][0] == low
    n = 10 / (10 + trees.RIDGE)
    assert trees.values(tree, [x]) == pytest.approx(trees.RATE * n * fitted.predict(x[:, None]))


def test_apply_gives_what_boosting_left(monkeypatch):
    z, labels = exclusive_or(300, 0)
    params = fit(z, labels)
    beta, lean = trees.origin(z.mean(axis=0), labels)
    columns = [*map(log_softmax, z), lean]
    steps = trees.boost(beta * z.mean(axis=0), columns, labels, np.arange(300), params.stages, 0)
    scores = [after for _, after in steps][-1]
    probs = trees.apply(params, z)
    assert probs == pytest.approx(softmax(scores), abs=1e-6)
    monkeypatch.setattr("ensemble.blend.probabilities.CHUNK", 50)
    assert trees.apply(params, z) == pytest.approx(probs, abs=1e-12)


@pytest.mark.parametrize("seed", [0, 1])
def test_trees_find_what_no_weighted_sum_can(seed, monkeypatch):
    monkeypatch.setattr(trees, "STAGES", 100)
    z, labels = exclusive_or(400, seed)
    new, truth = exclusive_or(2000, seed + 10)
    params = fit(z, labels, seed=seed)
    probs = trees.apply(params, new)
    assert log_loss(truth, plain_mean(z, labels, new)) > 0.68
    assert log_loss(truth, probs) < 0.25
    assert accuracy(truth, probs) > 0.97
    assert params.inner_log_loss == pytest.approx(log_loss(truth, probs), abs=0.1)
    assert params.weights == pytest.approx([0.5, 0.5], abs=0.2)


def test_a_noisy_member_is_heard_less():
    z, labels = simulate(3, 900, 4)
    z[2] = 2 * np.random.default_rng(1).normal(size=z.shape[1:])
    (old, new), (known, unknown) = np.split(z, [500], axis=1), np.split(labels, [500])
    params = fit(old, known)
    assert log_loss(unknown, trees.apply(params, new)) < log_loss(unknown, plain_mean(old, known, new)) - 0.05


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_where_the_mean_is_best_there_are_no_trees(seed):
    z, labels = simulate(3, 400, 4, seed)
    params = fit(z, labels, k=5)
    assert params.stages == 0
    assert trees.apply(params, z) == pytest.approx(plain_mean(z, labels, z), abs=1e-6)
    assert params.weights == pytest.approx(np.full(3, 1 / 3))


def test_the_same_seed_gives_the_same_answer_and_another_one_nearly():
    z, labels = exclusive_or(200, 0)
    first, again, other = (fit(z, labels, seed=seed) for seed in (0, 0, 1))
    assert all(np.array_equal(vars(first)[key], vars(again)[key]) for key in vars(first))
    assert not np.array_equal(trees.apply(first, z), trees.apply(other, z))
    assert trees.apply(first, z) == pytest.approx(trees.apply(other, z), abs=0.3)


def test_permuting_classes_permutes_the_answer():
    z, labels = simulate(2, 300, 4)
    z[1] *= np.where(z[1].max(axis=1, keepdims=True) > 3, -1, 1)
    params = fit(z, labels)
    order = np.array([3, 1, 0, 2])
    swapped = fit(z[:, :, order], np.argsort(order)[labels])
    assert params.stages > 0
    assert trees.apply(swapped, z[:, :, order]) == pytest.approx(trees.apply(params, z)[:, order], abs=1e-3)


@pytest.mark.parametrize("seed", [None, 0])
def test_params_are_numbers_and_arrays_that_safetensors_brings_back(seed):
    z, labels = simulate(3, 90, 4) if seed is None else exclusive_or(200, seed)
    params = fit(z, labels)
    assert (params.stages == 0) == (seed is None)
    fields = vars(params)
    arrays = {key: np.ascontiguousarray(value) for key, value in fields.items() if isinstance(value, np.ndarray)}
    plain = {key: value for key, value in fields.items() if key not in arrays}
    assert {key: type(value) for key, value in plain.items()} == {"beta": float, "stages": int, "inner_log_loss": float}
    assert np.array_equal(trees.apply(trees.load(load(save(arrays)) | plain, *z.shape[::2]), z), trees.apply(params, z))


@pytest.mark.parametrize(
    "case", ["one member", "two classes", "constant", "identical", "no mistakes", "absent classes"]
)
def test_awkward_members(case):
    members, classes = (1 if case == "one member" else 3), (2 if case == "two classes" else 4)
    classes = 40 if case == "absent classes" else classes
    z, labels = simulate(members, 80, classes)
    if case == "constant":
        z[:] = 0.7
    if case == "identical":
        z[1:] = z[0]
    if case == "no mistakes":
        z[:] = 8 * np.eye(classes)[labels]
    if case == "absent classes":
        labels %= 7
    params = fit(z, labels)
    probs = trees.apply(params, z)
    assert probs.shape == (80, classes)
    assert probs.dtype == np.float64
    assert probs.min() > 0
    assert probs.sum(axis=1) == pytest.approx(1)
    assert params.weights.shape == (members,)
    assert params.weights.sum() == pytest.approx(1)
    assert log_loss(labels, probs) < log_loss(labels, plain_mean(z, labels, z)) + 1e-6


def test_a_single_unit_leaves_the_plain_mean():
    z, labels = simulate(2, 30, 3)
    for rows in (1, 30):
        z, labels = z[:, :rows], labels[:rows]
        params = trees.fit(z, labels, np.zeros(rows, dtype=np.int64), np.zeros(rows, dtype=np.int64))
        assert params.stages == 0
        assert params.inner_log_loss is None
        assert trees.apply(params, z) == pytest.approx(plain_mean(z, labels, z), abs=1e-6)


def test_rows_are_drawn_where_there_are_too_many(monkeypatch):
    z, labels = exclusive_or(1000, 0)
    monkeypatch.setattr(trees, "LARGEST", 800)
    monkeypatch.setattr(trees, "EXAMPLES", 300)
    rows = np.arange(1000)
    params = trees.fit(z, labels, rows % 3, rows)
    assert accuracy(labels, trees.apply(params, z)) > 0.95

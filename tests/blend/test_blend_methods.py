"""The blending methods on arrays: hand-computed answers, optimality, awkward members."""

from functools import partial

import numpy as np
import pytest

from ensemble.blend import methods, metric_bias, view_weights
from ensemble.blend.methods import greedy, pool, stack, stack_regression, vote
from ensemble.blend.priors import row_weights
from ensemble.blend.probabilities import biased, geometric_mean, mixture, softmax, true_class
from ensemble.blend.recipe import Recipe
from ensemble.errors import UserError
from ensemble.scoring.outcomes import evaluate

accuracy, log_loss, macro_f1 = (partial(evaluate, name) for name in ("accuracy", "log_loss", "macro_f1"))


def simulate(members, rows, classes, seed=0, signal=3.0, shared=1.0, noise=1.5, scale=1.0, shares=None):
    """Logits float32 (M, N, C) with shared and own noise, growing with the member's number, and labels (N,)."""
    draw = np.random.default_rng(seed)
    labels = draw.choice(classes, size=rows, p=shares)
    base = shared * draw.normal(size=(rows, classes))
    base[np.arange(rows), labels] += signal
    z = np.stack([base + noise * (1 + 0.15 * m) * draw.normal(size=(rows, classes)) for m in range(members)])
    return (scale * z).astype(np.float32), labels


def fit(method, z, labels, metric="log_loss", k=5):
    rows = np.arange(len(labels))
    return methods.fit(Recipe(method, metric), z, labels, rows % k, rows)


# ---- probabilities -------------------------------------------------------------------------------------------------


def test_geometric_mean_of_two_members():
    # (.8, .2) and (.5, .5): products .4 and .1, roots in the ratio 2 : 1
    z = np.log(np.array([[[0.8, 0.2]], [[0.5, 0.5]]], dtype=np.float32))
    assert geometric_mean(z) == pytest.approx(np.array([[2 / 3, 1 / 3]]), abs=1e-6)


def test_mixture_and_true_class():
    z = np.log(np.array([[[0.8, 0.2]], [[0.5, 0.5]]], dtype=np.float32))
    assert mixture(z, np.array([0.25, 0.75])) == pytest.approx(np.array([[0.575, 0.425]]), abs=1e-6)
    assert true_class(z, np.array([1])) == pytest.approx(np.array([[0.2, 0.5]]), abs=1e-6)
    # 1 / T = 2 squares the odds: .04 / (.64 + .04)
    assert true_class(z, np.array([1]), np.array([2.0, 1.0]))[0, 0] == pytest.approx(0.04 / 0.68, abs=1e-6)


def test_chunks_do_not_change_the_answer(monkeypatch):
    z, labels = simulate(3, 50, 4)
    whole = mixture(z, np.array([0.2, 0.3, 0.5])), true_class(z, labels), vote.inverse_temperature(z[0], labels)
    monkeypatch.setattr("ensemble.blend.probabilities.CHUNK", 28)
    parts = mixture(z, np.array([0.2, 0.3, 0.5])), true_class(z, labels), vote.inverse_temperature(z[0], labels)
    assert parts[2] == pytest.approx(whole[2], rel=1e-4)
    assert all(np.array_equal(a, b) for a, b in zip(whole[:2], parts[:2], strict=True))


# ---- vote ----------------------------------------------------------------------------------------------------------


def test_temperature_by_hand():
    # margin 2, 3 of 4 right; targets smoothed by 1/5: (3 * .9 + .1) / 4 = .7, so 2 b = ln(.7 / .3)
    z = np.array([[1, -1]] * 4, dtype=np.float32)
    assert vote.inverse_temperature(z, np.array([0, 0, 0, 1])) == pytest.approx(np.log(7 / 3) / 2, rel=1e-5)


@pytest.mark.parametrize("scale", [0.02, 1.0, 50.0])
def test_temperature_follows_the_scale_of_the_logits(scale):
    z, labels = simulate(1, 400, 5)
    expected = vote.inverse_temperature(z[0], labels) / scale
    assert vote.inverse_temperature(z[0] * np.float32(scale), labels) == pytest.approx(expected, rel=1e-4)


def test_temperature_is_finite_for_a_member_without_mistakes_and_for_one_that_is_always_wrong():
    labels = np.arange(30) % 3
    z = (4 * np.eye(3)[labels]).astype(np.float32)
    # targets: 1 - e + e/3 with e = 1/31, so exp(4 b) / (exp(4 b) + 2) = 91 / 93
    assert vote.inverse_temperature(z, labels) == pytest.approx(np.log(91) / 4, rel=1e-4)
    assert vote.inverse_temperature(-z, labels) == pytest.approx(pool.LOWEST, rel=1e-3)
    assert vote.inverse_temperature(np.full((30, 3), 2.5, np.float32), labels) == 1.0


def test_weights_by_hand():
    # each row is possible under one member only: the weights are the shares of the rows
    p = np.array([[1, 1e-15]] * 3 + [[1e-15, 1]])
    weights, gap = vote.simplex_weights(p)
    assert weights == pytest.approx([0.75, 0.25], abs=1e-7)
    assert gap < 1e-7


def test_certificate_bounds_the_distance_to_the_optimum():
    p = np.random.default_rng(3).uniform(0.01, 1, size=(300, 6))

    def loss(w):
        return -np.log(p @ w).mean()

    best, gap = vote.simplex_weights(p)
    assert gap < 1e-7
    for w in np.random.default_rng(4).dirichlet(np.full(6, 0.5), size=200):
        assert loss(best) - gap <= loss(w) <= loss(best) + vote.optimality_gap(p, w)


def test_weights_are_as_good_as_a_general_solver_s():
    from scipy.optimize import minimize

    z, labels = simulate(6, 400, 8)
    p = true_class(z, labels)
    general = minimize(
        lambda w: -np.log(p @ w).mean(),
        np.full(6, 1 / 6),
        jac=lambda w: -(p / (p @ w)[:, None]).mean(axis=0),
        method="SLSQP",
        bounds=[(1e-12, 1)] * 6,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: np.ones(6)},
        options={"ftol": 1e-12},
    )
    weights, gap = vote.simplex_weights(p)
    assert -np.log(p @ weights).mean() <= general.fun + 1e-9
    assert gap < 1e-7
    assert weights.sum() == pytest.approx(1)
    assert weights.min() >= 0


def test_a_useless_member_gets_no_weight_and_a_copy_changes_nothing():
    z, labels = simulate(2, 500, 4)
    noise = np.random.default_rng(9).normal(size=z.shape[1:]).astype(np.float32) * 3
    params = vote.fit(np.stack([*z, noise]), labels)
    assert params.weights[2] == 0
    copied = vote.fit(z[[0, 1, 1]], labels)
    probs, again = vote.apply(vote.fit(z, labels), z), vote.apply(copied, z[[0, 1, 1]])
    assert again == pytest.approx(probs, abs=1e-4)
    assert copied.weights[1] == pytest.approx(copied.weights[2], abs=1e-4)


# ---- greedy --------------------------------------------------------------------------------------------------------


def two_members(first, second):
    """Logits of two members with these probabilities of class 0."""
    p = np.array([first, second])
    return np.log(np.stack([p, 1 - p], axis=2)).astype(np.float32)


def test_greedy_walks_the_path_worked_out_by_hand():
    # True-class probabilities (.9 .9 .1) and (.1 .1 .9). Both: ln 2 = .6931 (first alone: .8378). Counts 2:1 give
    # .6389, 3:1 .6391, 4:1 .6498: the best prefix of four rounds is 2:1.
    z = two_members([0.9, 0.9, 0.1], [0.1, 0.1, 0.9])
    params = greedy.fit(z, np.array([0, 0, 0]), search=greedy.Search(rounds=4, bags=1))
    assert params.weights == pytest.approx([2 / 3, 1 / 3])
    assert log_loss(np.array([0, 0, 0]), greedy.apply(params, z)) == pytest.approx(0.63894, abs=1e-5)


def test_greedy_by_accuracy_takes_the_pair_that_outvotes_each_alone():
    z = two_members([0.9, 0.9, 0.4, 0.4], [0.4, 0.4, 0.9, 0.9])  # each 2 of 4 right; their mean .65 on all
    params = greedy.fit(z, np.zeros(4, dtype=np.int64), "accuracy", greedy.Search(rounds=3, bags=1))
    assert accuracy(np.zeros(4, dtype=np.int64), greedy.apply(params, z)) == 1.0


def slow_selection(z, labels, metric, rounds):
    """The same selection without any shortcut."""
    probs, members = softmax(z).astype(np.float64), len(z)

    def rank(counts):
        mean = np.tensordot(counts / counts.sum(), probs, axes=1)
        return round((accuracy if metric == "accuracy" else macro_f1)(labels, mean), 12), -log_loss(labels, mean)

    order = sorted(range(members), key=lambda m: rank(np.eye(members)[m]), reverse=True)
    prefixes = [np.isin(np.arange(members), order[:size]).astype(float) for size in range(1, members + 1)]
    counts = max(prefixes, key=rank)
    best = counts
    while counts.sum() < rounds:
        counts = max((counts + np.eye(members)[m] for m in range(members)), key=rank)
        best = max(best, counts, key=rank)
    return best / best.sum()


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_greedy_looks_only_at_close_rows_and_misses_nothing(metric, seed):
    z, labels = simulate(5, 120, 6, seed=seed, noise=2.5)
    weights = greedy.fit(z, labels, metric, greedy.Search(rounds=12, bags=1)).weights
    assert weights == pytest.approx(slow_selection(z, labels, metric, 12))


def test_greedy_is_the_same_each_time_and_bags_differ_by_seed():
    z, labels = simulate(9, 200, 5)
    first = greedy.fit(z, labels).weights
    assert np.array_equal(first, greedy.fit(z, labels).weights)
    assert not np.array_equal(first, greedy.fit(z, labels, search=greedy.Search(seed=1)).weights)
    assert first.sum() == pytest.approx(1)
    assert first.min() >= 0


# ---- stack ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", stack.FAMILIES)
def test_stack_solves_its_problem(family):
    """No step from the solution in any of many directions lowers the penalised loss, which is computed here anew."""
    z, labels = simulate(3, 300, 4)
    strength, members, classes = 0.01, 3, 4
    start = stack.mean_weights(z, labels, "mean"), np.array([0.1, -0.1, 0.2, -0.2])
    weights, bias = stack.solve(family, strength, z, labels, start)
    beta = vote.inverse_temperature(z.mean(axis=0), labels)
    assert start[0] == pytest.approx(np.full(3, beta / 3))
    centred = z.astype(np.float64) - z.mean(axis=2, keepdims=True)
    rms = np.sqrt((centred**2).mean(axis=(1, 2)))

    def penalised(offset, bias_offset):
        total, penalty = 0, ((bias + bias_offset - start[1]) ** 2).sum()
        for m in range(members):
            own = weights[m] + offset[m]
            total = total + (own * centred[m] if family == "pool" else centred[m] @ own.T)
            away = own - beta / members * (np.eye(classes) if family == "full" else 1)
            penalty += rms[m] ** 2 * (away**2).sum()
        return log_loss(labels, softmax(total + bias + bias_offset)) + strength / 2 * penalty

    draw = np.random.default_rng(0)
    least = penalised(np.zeros_like(weights), np.zeros(classes))
    for _ in range(20):
        for size in (0.01, 0.1):
            assert penalised(size * draw.normal(size=weights.shape), size * draw.normal(size=classes)) > least


def test_newton_and_l_bfgs_agree(monkeypatch):
    z, labels = simulate(3, 300, 4)
    around = stack.mean_weights(z, labels, "mean"), np.zeros(4)
    exact = stack.solve("pool", 0.01, z, labels, around)
    monkeypatch.setattr(stack_regression, "NEWTON", 0)
    for one, other in zip(exact, stack.solve("pool", 0.01, z, labels, around), strict=True):
        assert one == pytest.approx(other, abs=2e-3)


def test_stack_at_great_strength_is_what_it_is_drawn_towards():
    z, labels = simulate(3, 300, 4)
    around = stack.mean_weights(z, labels, "mean"), np.zeros(4)
    for family in stack.FAMILIES:
        weights, bias = stack.solve(family, 1e6, z, labels, around)
        predicted = stack.stacked(weights, bias, z)
        beta = vote.inverse_temperature(z.mean(axis=0), labels)
        assert predicted == pytest.approx(softmax(beta * z.mean(axis=0, dtype=np.float64)), abs=1e-3)


def test_a_part_of_many_rows_chooses_and_all_of_them_are_fitted(monkeypatch):
    z, labels = simulate(3, 1200, 4, noise=2.0)
    z[:, :, 0] += 2  # a class that all members overrate: the pool's bias pays
    whole = fit("stack", z, labels)
    monkeypatch.setattr(stack, "CHOICE", 600 * 12)
    units = np.repeat(np.arange(400), 3)
    kept = stack.some_clusters(units, 600)
    assert 550 < len(kept) < 650
    assert np.array_equal(kept, np.flatnonzero(np.isin(units, units[kept])))  # whole groups
    part = fit("stack", z, labels)
    # half of the rows choose as all of them do, and the last fit is on all, at a penalty that counts the same
    assert part.learned.family == whole.learned.family == "pool"
    assert part.learned.weights == pytest.approx(whole.learned.weights, rel=0.1)
    some = stack.some_clusters(np.arange(1200), 600)
    around = stack.mean_weights(z[:, some], labels[some], part.learned.centre), np.zeros(4)
    weights, bias = stack.solve("pool", part.learned.strengths["pool"] * len(some) / 1200, z, labels, around)
    assert part.learned.weights == pytest.approx(weights, abs=1e-3)
    assert part.learned.bias == pytest.approx(bias, abs=1e-3)


def test_stack_does_not_see_what_is_added_to_a_row():
    z, labels = simulate(2, 200, 3)
    moved = z + 5 * np.random.default_rng(1).normal(size=(2, 200, 1)).astype(np.float32)
    params = fit("stack", z, labels)
    assert methods.apply(params, moved) == pytest.approx(methods.apply(params, z), abs=1e-4)
    assert fit("stack", moved, labels).learned.bias == pytest.approx(params.learned.bias, abs=1e-2)


def test_stack_does_not_collapse_where_plain_stacking_does():
    """37 classes, 4 members, 1,500 rows: default-L2 regression on all logits is sure in-sample and poor on new rows."""
    from sklearn.linear_model import LogisticRegression

    z, labels = simulate(4, 3500, 37, signal=4.5, shared=1.2, noise=2.0)
    (old, new), (known, unknown) = np.split(z, [1500], axis=1), np.split(labels, [1500])
    wide = [np.concatenate(list(part), axis=1) for part in (old, new)]
    plain = LogisticRegression(max_iter=300, tol=1e-2).fit(wide[0], known)
    mean = accuracy(unknown, geometric_mean(new))
    assert plain.score(wide[0], known) > 0.99
    assert plain.score(wide[1], unknown) < mean - 0.12
    ours = methods.apply(fit("stack", old, known, k=3), new)
    assert accuracy(unknown, ours) > mean - 0.005
    assert log_loss(unknown, ours) < log_loss(unknown, geometric_mean(new)) - 0.05


def test_an_overconfident_member_does_not_drown_the_others_in_stack():
    z, labels = simulate(3, 1200, 6)
    z[2] *= 20
    (old, new), (known, unknown) = np.split(z, [600], axis=1), np.split(labels, [600])
    params = fit("stack", old, known)
    assert params.learned.centre == "calibrated"
    assert accuracy(unknown, methods.apply(params, new)) > accuracy(unknown, geometric_mean(new)) + 0.05


def test_the_calibrated_mean_weighs_members_by_their_own_temperatures():
    z, labels = simulate(2, 400, 4)
    z[1] = 4 * z[0]  # the same member, four times as sure: at their own temperatures they are one and the same
    weights = stack.mean_weights(z, labels, "calibrated")
    assert weights[0] == pytest.approx(4 * weights[1], rel=1e-3)
    assert weights[0] == pytest.approx(vote.inverse_temperature(z[0], labels) / 2, rel=1e-3)


def test_stack_takes_more_parameters_only_where_they_pay():
    classes, rows = 4, 1200
    z, labels = simulate(2, rows, classes, noise=1.5)
    assert fit("stack", z[:, :300], labels[:300], k=3).learned.family in ("mean", "calibrated", "pool")
    # each member knows half of the classes: one weight a member is not enough
    draw = np.random.default_rng(5)
    halves = z.copy()
    halves[0, :, 2:] = draw.normal(size=(rows, 2)) * 3
    halves[1, :, :2] = draw.normal(size=(rows, 2)) * 3
    assert fit("stack", halves, labels, k=3).learned.weights.ndim >= 2
    # one member calls the classes by each other's names: only a full matrix mends that
    renamed = z.copy()
    renamed[1] = renamed[1][:, [1, 2, 3, 0]]
    params = fit("stack", renamed, labels, k=3)
    assert params.learned.family == "full"
    assert log_loss(labels, methods.apply(params, renamed)) < log_loss(labels, geometric_mean(renamed)) - 0.3


# ---- for a metric --------------------------------------------------------------------------------------------------


def test_a_class_bias_raises_macro_f1_on_new_rows_of_rare_classes():
    shares = np.array([0.6, 0.3, 0.06, 0.04])
    z, labels = simulate(2, 5000, 4, signal=2.0, shares=shares)
    (old, new), (known, unknown) = np.split(z, [2000], axis=1), np.split(labels, [2000])
    plain, aimed = fit("stack", old, known, k=3), fit("stack", old, known, "macro_f1", k=3)
    assert aimed.metric_bias.metric_bias_family != "none"
    assert np.argmax(aimed.metric_bias.metric_bias) in (2, 3)
    before, after = (macro_f1(unknown, methods.apply(params, new)) for params in (plain, aimed))
    assert after > before + 0.01


def test_a_bias_that_can_gain_nothing_is_none_or_harmless():
    labels = np.arange(200) % 4
    sure = fit("stack", (8 * np.eye(4)[labels])[None].astype(np.float32), labels, "accuracy")
    assert sure.metric_bias.metric_bias_family == "none"
    assert np.array_equal(sure.metric_bias.metric_bias, np.zeros(4))
    # equal classes: the largest calibrated probability is right already
    z, labels = simulate(2, 5000, 4)
    (old, new), (known, unknown) = np.split(z, [2000], axis=1), np.split(labels, [2000])
    plain, aimed = (methods.apply(fit("vote", old, known, m), new) for m in ("log_loss", "accuracy"))
    assert accuracy(unknown, aimed) > accuracy(unknown, plain) - 0.005


def test_ascent_finds_the_bias_worked_out_by_hand():
    # class 1 lacks .3 in both of its rows: a bias of .4 (the least step above) makes all four right
    log_probs = np.array([[0.0, -2.0], [0.0, -2.0], [0.0, -0.3], [0.0, -0.3]])
    bias = metric_bias._ascend(log_probs, np.array([0, 0, 1, 1]), "accuracy", np.ones(4), np.zeros(2))
    assert accuracy(np.array([0, 0, 1, 1]), log_probs + bias) == 1.0
    assert bias.sum() == pytest.approx(0)
    assert bias[1] - bias[0] == pytest.approx(0.4)


def ascend_slowly(log_probs, labels, metric, weights):
    """The same ascent with every trial scored from scratch."""
    classes = log_probs.shape[1]
    scores, bias = log_probs.copy(), np.zeros(classes)
    best = metric_bias.score(metric, labels, scores.argmax(axis=1), classes, weights)
    for _ in range(metric_bias.PASSES):
        before = best
        for c in range(classes):
            others = scores.copy()
            others[:, c] = -np.inf
            trials = {}
            for step in sorted(metric_bias.STEPS, key=abs):
                predicted = np.where(scores[:, c] + step > others.max(axis=1), c, others.argmax(axis=1))
                trials[step] = round(metric_bias.score(metric, labels, predicted, classes, weights), 12)
            step = max(trials, key=trials.get)
            if trials[step] > best + 1e-12:
                best = trials[step]
                bias[c] += step
                scores[:, c] += step
        if best <= before:
            break
    return bias - bias.mean()


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "balanced_accuracy"])
@pytest.mark.parametrize("classes", [2, 5])
def test_ascent_by_counts_is_the_ascent(metric, classes):
    draw = np.random.default_rng(classes)
    labels = draw.choice(classes, size=250, p=np.arange(1, classes + 1) / np.arange(1, classes + 1).sum())
    log_probs = draw.normal(size=(250, classes)) + np.eye(classes)[labels]
    weights = draw.uniform(0.5, 2, size=250)
    found = metric_bias._ascend(log_probs, labels, metric, weights, np.zeros(classes))
    assert np.any(found != 0)
    assert found == pytest.approx(ascend_slowly(log_probs, labels, metric, weights))


def test_bias_multiplies_probabilities():
    assert biased(np.log([3.0, 1.0]), np.array([[0.25, 0.75]])) == pytest.approx(np.array([[0.5, 0.5]]))


# ---- priors --------------------------------------------------------------------------------------------------------


def test_greedy_selects_for_the_shares_that_are_given():
    labels = np.repeat([0, 1], [60, 20])
    first = np.tile(np.float32([2, 0]), (80, 1))  # always says 0: right on 3/4 of these rows, on 1/5 where 1 is common
    second = first.copy()
    second[30:] = [0, 2]  # right on half of class 0 and all of class 1
    z, rows = np.stack([first, second]), np.arange(80)
    for priors, best in ((None, 0), (np.array([0.2, 0.8]), 1)):
        assert (
            methods.fit(Recipe("greedy", "accuracy", priors), z, labels, rows % 4, rows).learned.weights.argmax()
            == best
        )


def test_the_class_bias_is_for_the_shares_that_are_given():
    """Members that treat two classes alike need no bias where both are as common; for these rows they would."""
    z, labels = simulate(2, 3000, 2, signal=1.0, shares=[0.9, 0.1])
    rows = np.arange(3000)
    params = methods.fit(Recipe("mean", "accuracy", np.array([0.5, 0.5])), z, labels, rows % 5, rows)
    shift, bias = (params.params()[key][1] - params.params()[key][0] for key in ("prior_bias", "metric_bias"))
    assert shift == pytest.approx(np.log(9), abs=0.3)
    assert shift + bias == pytest.approx(0, abs=0.5)


def test_auto_compares_by_the_shares_that_are_given():
    z, labels = simulate(2, 150, 2, signal=1.0, shares=[0.8, 0.2])
    folds, units, priors = np.arange(150) % 2, np.arange(150), np.array([0.3, 0.7])
    predicted = np.empty(150, dtype=np.int64)
    for fold in (0, 1):
        train, test = folds != fold, folds == fold
        params = methods.fit(Recipe("mean", "accuracy", priors), z[:, train], labels[train], folds[train], units[train])
        predicted[test] = methods.apply(params, z[:, test]).argmax(axis=1)
    expected = np.average(predicted == labels, weights=row_weights(labels, priors))
    tried = methods.fit(Recipe("auto", "accuracy", priors), z, labels, folds, units).choice.tried
    assert tried["mean"] == pytest.approx(expected)
    assert expected != pytest.approx((predicted == labels).mean(), abs=0.01)


# ---- all methods ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["log_loss", "macro_f1"])
@pytest.mark.parametrize("method", methods.names())
@pytest.mark.parametrize("case", ["one member", "two classes", "constant member", "identical members", "no mistakes"])
def test_awkward_members(case, method, metric):
    members, classes = (1 if case == "one member" else 3), (2 if case == "two classes" else 4)
    z, labels = simulate(members, 80, classes)
    if case == "constant member":
        z[1] = 0.7
    if case == "identical members":
        z[1:] = z[0]
    if case == "no mistakes":
        z[:] = 8 * np.eye(classes)[labels]
    params = fit(method, z, labels, metric)
    probs = methods.apply(params, z)
    assert probs.shape == (80, classes)
    assert np.isfinite(probs).all()
    assert probs.min() >= 0
    assert probs.sum(axis=1) == pytest.approx(1)
    table = methods.readable(params, tuple("abc"[:members]))
    assert all(np.isfinite(list(own.values())).all() for own in table.values())
    alone = max(accuracy(labels, z[m].astype(np.float64)) for m in range(members))
    assert accuracy(labels, probs) >= min(alone, accuracy(labels, geometric_mean(z))) - 0.03


@pytest.mark.parametrize("method", methods.names())
def test_a_class_without_rows_and_many_more_classes_than_rows(method):
    z, labels = simulate(2, 60, 40)
    labels = labels % 7
    probs = methods.apply(fit(method, z, labels, "macro_f1"), z)
    assert np.isfinite(probs).all()
    assert probs.sum(axis=1) == pytest.approx(1)


@pytest.mark.parametrize("method", methods.names())
def test_one_row_is_enough_to_fit(method):
    z, _ = simulate(2, 1, 3)
    params = methods.fit(Recipe(method, "accuracy"), z, np.array([1]), np.array([0]), np.array([0]))
    assert methods.apply(params, z).sum() == pytest.approx(1)


@pytest.mark.parametrize("method", ["mean", "vote", "stack"])
def test_permuting_members_rows_or_classes_permutes_the_answer(method):
    z, labels = simulate(3, 150, 4)
    folds, units = np.arange(150) % 5, np.arange(150)
    probs = methods.apply(methods.fit(Recipe(method), z, labels, folds, units), z)
    order = np.random.default_rng(0).permutation(150)
    swapped = z[[2, 0, 1]][:, order][:, :, [3, 1, 0, 2]]
    names = np.array([2, 1, 3, 0])[labels][order]  # old class 0 is now at place 2, and so on
    params = methods.fit(Recipe(method), swapped, names, folds[order], units[order])
    assert methods.apply(params, swapped) == pytest.approx(probs[order][:, [3, 1, 0, 2]], abs=2e-3)


def test_stack_has_a_weight_for_every_member_in_words():
    z, labels = simulate(2, 300, 3)
    for family in stack.FAMILIES:
        around = stack.mean_weights(z, labels, "mean"), np.zeros(3)
        weights, bias = stack.solve(family, 1e6, z, labels, around)
        table = dict(zip("ab", stack.weights_of(stack.Stack(weights, bias, family, "mean", {}), 2), strict=True))
        beta = vote.inverse_temperature(z.mean(axis=0), labels)
        assert table["a"]["weight"] == pytest.approx(beta / 2, rel=0.01)


def test_unknown_method_and_metric():
    z, labels = simulate(1, 10, 2)
    with pytest.raises(
        UserError, match="blend method 'median' is not one of: mean, pool, vote, greedy, stack, trees, auto"
    ):
        fit("median", z, labels)
    with pytest.raises(UserError, match="metric 'auc' is not one of: accuracy, macro_f1, log_loss"):
        fit("vote", z, labels, "auc")


def test_views_that_tell_nothing_on_all_rows_are_averaged():
    """Seed 593 is the first in which the folds prefer fitted weights and all rows together give none: 0 / 0."""
    draw = np.random.default_rng(593)
    z = (draw.normal(size=(2, 12, 3)) * 0.2).astype(np.float32)
    labels, folds, units = draw.integers(0, 3, 12), np.arange(12) % 4, np.arange(12)
    assert not pool.pool_weights(z, labels)[0].any()
    (weights,) = view_weights.fit([z], labels, folds, units, np.arange(12))
    assert weights.tolist() == [0.5, 0.5]

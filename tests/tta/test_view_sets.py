"""The choice of views: numbers by hand and by brute force, sets whose truth is known, what is not looked at."""

import dataclasses
import itertools
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from rich.console import Console

from ensemble.blend.methods.pool import inverse_temperature
from ensemble.blend.oof import Oof, Rows
from ensemble.blend.probabilities import softmax
from ensemble.errors import UserError
from ensemble.scoring.cross_fit import simplest, usable_folds
from ensemble.scoring.metrics import computed, searchable
from ensemble.scoring.outcomes import evaluate, outcome
from ensemble.scoring.outcomes import value as score_value
from ensemble.scoring.row_values import row_losses
from ensemble.tables import layout
from ensemble.tables.views import show_view_search
from ensemble.tta import view_sets
from ensemble.tta.view_sets import pareto, search_views

VIEWS = ("identity", "hflip", "vflip", "rot90", "rot180", "rot270")


def oof_of(*members, labels, views=None, folds=None, clusters=None, classes=None, left_out=None):
    """members: (V, N, C) each."""
    count = len(labels)
    names = VIEWS[: len(members[0])] if views is None else tuple(views)
    own = np.arange(count) if clusters is None else np.asarray(clusters)
    rows = Rows(
        ids=np.array([f"{i}.png" for i in range(count)]),
        labels=np.asarray(labels),
        folds=np.arange(count) % 5 if folds is None else np.asarray(folds),
        clusters=own,
        grouped=clusters is not None,
        classes=tuple(f"c{c}" for c in range(members[0].shape[2])) if classes is None else classes,
    )
    values = tuple(np.asarray(z, dtype=np.float32) for z in members)
    return Oof(rows, tuple(f"m{m}" for m in range(len(members))), (names,) * len(members), values, left_out or {})


def noisy(rows, views, noise=1.0, signal=(1.5,), shared=0.5, classes=3, seed=0):
    """labels (N,) and logits (V, N, C): the true class's `signal` (of each view), noise that all views share, and noise
    of each view's own."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(classes, size=rows)
    sure = np.broadcast_to(np.asarray(signal, dtype=float), views)[:, None, None] * np.eye(classes)[labels]
    common = shared * draw.normal(size=(rows, classes))
    return labels, sure + common + noise * draw.normal(size=(views, rows, classes))


def search(oof, pass_ms=None, decoding_ms=2.0, metric="log_loss"):
    costs = np.ones((len(oof.members), len(oof.views[0]))) if pass_ms is None else np.asarray(pass_ms, dtype=float)
    return search_views(oof, costs, decoding_ms, metric)


# ---- numbers -------------------------------------------------------------------------------------------------------


def test_log_losses_by_hand():
    """Of each fold's 8 rows identity has 2 wrong. On 8 rows, whose targets hold 1/9 of a uniform label (see pool.py),
    the best temperature gives the class predicted the probability 8/9 * 3/4 + 1/9 * 1/2; where all are right, 17/18."""
    labels, wrong = np.arange(16) % 2, np.isin(np.arange(16), [0, 1, 8, 9])
    sure = np.eye(2)[labels] - 0.5
    identity = np.where(wrong[:, None], -sure, sure)
    hflip = np.where(wrong[:, None], 7 * sure, 5 * sure)  # the mean of the two is 3 * sure in every row
    found = search(oof_of(np.stack([identity, hflip]), labels=labels, folds=np.arange(16) // 8))
    p = 8 / 9 * 3 / 4 + 1 / 9 / 2
    alone, both = -(3 / 4 * np.log(p) + 1 / 4 * np.log(1 - p)), -np.log(17 / 18)
    assert [size.scores["log_loss"].value for size in found.sizes] == pytest.approx([alone, both], abs=1e-5)
    assert found.sizes[1].scores["log_loss"].folds == pytest.approx((both, both), abs=1e-5)
    assert [size.scores["accuracy"].value for size in found.sizes] == [12 / 16, 1]
    assert found.sizes[1].gains["log_loss"].value == pytest.approx(alone - both, abs=1e-5)
    assert (found.sizes[1].gains["accuracy"].value, found.sizes[1].gains["accuracy"].against) == (1 / 4, "identity")
    assert [found.sizes[0].gains[m].value for m in computed()] == [0] * 4
    (single,) = found.singles
    assert (single.view, single.verdict) == ("hflip", "helps") and single.added == found.sizes[1].gains
    assert single.alone["accuracy"].value == 1 / 4
    assert found.chosen == ("identity", "hflip")


def brute_force(oof, metric="log_loss"):
    """Each size's cross-fitted losses and that of the whole search, (V + 1, N), in the plainest way; sets by fold."""
    z = np.mean(oof.values, axis=0)
    base, count = oof.views[0].index("identity"), len(z)
    rows = oof.rows
    folds = usable_folds(rows.folds, rows.clusters)

    def sets_of(size):
        return [own for own in itertools.combinations(range(count), size) if base in own]

    def probs(own, train, test):
        mean = z[list(own)].mean(axis=0)
        return softmax(mean[test].astype(float) * inverse_temperature(mean[train], rows.labels[train]))

    def best(size, train):
        if metric == "accuracy":
            known = rows.labels[train]
            return max(sets_of(size), key=lambda own: evaluate("accuracy", known, probs(own, train, train)))
        return min(sets_of(size), key=lambda own: row_losses(rows.labels[train], probs(own, train, train)).mean())

    def held_out(inside):
        own = usable_folds(folds[inside], rows.clusters[inside])
        out, chosen = np.empty((count, len(inside))), []
        for fold in np.unique(own):
            train, test = inside[own != fold], np.flatnonzero(own == fold)
            chosen.append([best(size, train) for size in range(1, count + 1)])
            for k, one in enumerate(chosen[-1]):
                out[k, test] = row_losses(rows.labels[inside[test]], probs(one, train, inside[test]))
        return out, chosen

    def size_of(losses, inside):
        """The simplest size without a view that hurts."""

        def gained(own, other):
            right, its = (z[list(each)][:, inside].mean(axis=0).argmax(axis=1) == rows.labels[inside]
                          for each in (own, other))  # fmt: skip
            each = np.array(
                [(right - 1.0 * its)[rows.clusters[inside] == unit].sum() for unit in np.unique(rows.clusters[inside])]
            )
            return each.sum(), each.std() * len(each) ** 0.5

        sizes = []
        for size in range(1, count + 1):
            own = best(size, inside)
            without = [gained(own, [v for v in own if v != one]) for one in own if one != base] if size > 1 else []
            if gained(own, [base])[0] >= 0 and all(more >= -error for more, error in without):
                sizes.append(size)
        return sizes[simplest(losses[[size - 1 for size in sizes]], rows.clusters[inside])]

    every = np.arange(len(folds))
    losses, chosen = held_out(every)
    whole = np.empty(len(folds))
    for fold in np.unique(folds):
        train, test = every[folds != fold], every[folds == fold]
        size = size_of(held_out(train)[0], train)
        whole[test] = row_losses(rows.labels[test], probs(best(size, train), train, test))
    names = [[tuple(oof.views[0][v] for v in own) for own in part] for part in chosen]
    found = best(size_of(losses, every), every)
    return np.vstack([losses, whole]), names, [best(size, every) for size in range(1, count + 1)], found


@pytest.mark.parametrize("folds", [3, 2, 1])
def test_every_score_and_choice_is_that_of_brute_force(folds):
    """Two members, four views of uneven worth, groups of three rows; also in the one fold or two that have to be
    divided for the nested choice."""
    views = ("hflip", "identity", "vflip", "rot90")
    labels, a = noisy(150, 4, noise=1.2, signal=[1.2, 1.5, 1.4, 0.6], seed=6)
    b = 3 * a + 2 * np.random.default_rng(2).normal(size=a.shape)  # counts three times as much as a
    clusters = np.arange(150) // 3
    oof = oof_of(a, b, labels=labels, folds=clusters % folds, clusters=clusters, views=views)
    losses, by_fold, sets, taken = brute_force(oof)
    found = search(oof)
    assert found.base == "identity" and found.exhaustive and found.folds == len(by_fold)
    assert [size.scores["log_loss"].value for size in found.sizes] == pytest.approx(losses[:-1].mean(axis=1), abs=2e-5)
    assert found.honest["log_loss"].value == pytest.approx(losses[-1].mean(), abs=2e-5)
    gained = losses[0].mean() - losses[-1].mean()
    assert found.honest_gains["log_loss"].value == pytest.approx(gained, abs=2e-5)
    assert [size.views for size in found.sizes] == [tuple(views[v] for v in own) for own in sets]
    assert [list(part) for part in zip(*(size.by_fold for size in found.sizes), strict=True)] == by_fold
    assert [single.view for single in found.singles] == ["hflip", "vflip", "rot90"]
    assert found.found == tuple(views[v] for v in taken)


def test_scores_hold_the_metric_of_the_cross_fitted_probabilities():
    labels, z = noisy(200, 2, noise=2.0)
    found = search(oof_of(z, labels=labels))
    mean, folds = z.mean(axis=0).astype(np.float32), np.arange(200) % 5
    probs = np.empty((200, 3))
    for fold in range(5):
        inverse = inverse_temperature(mean[folds != fold], labels[folds != fold])
        probs[folds == fold] = softmax(mean[folds == fold] * inverse)
    for metric in computed():
        want = score_value(metric, labels, outcome(labels, probs), 3)
        assert found.sizes[1].scores[metric].value == pytest.approx(want, abs=1e-5)


@pytest.mark.parametrize(("scale", "signal"), [(1, 1.5), (0.01, 1.5), (30, 1.5), (30, 30.0), (1, -1.0), (1, 30.0)])
def test_losses_from_sums_are_those_at_the_best_temperature(scale, signal):
    """Smoothed as in pool.py, for logits of any size, also where all rows are right or the best answer is no answer."""
    labels, z = noisy(100, 2, signal=(signal,), seed=3)
    z = (scale * z).astype(np.float32)
    work = view_sets._search_data(oof_of(z, labels=labels), np.ones(2), "log_loss")
    rows = np.isin(work.cells, [0, 2, 3])
    loss, inverse, _ = view_sets.tempered(work, (0, 1), (0, 2, 3))
    mean, own = z.mean(axis=0)[rows].astype(float), labels[rows]
    best = inverse_temperature(mean.astype(np.float32), own, inverse)
    smoothed = row_losses(own, softmax(mean * best)).mean()
    smoothed += best * (mean[np.arange(60), own] - mean.mean(axis=1)).mean() / 61
    assert loss == pytest.approx(smoothed, abs=2e-5)
    assert inverse == pytest.approx(best, rel=0.01)


def test_costs_and_the_front_by_hand():
    labels, z = noisy(300, 3, seed=2)
    found = search(oof_of(z, z, labels=labels), [[1, 2, 4], [8, 16, 32]], decoding_ms=0.5)
    assert [size.ms for size in found.sizes] == [9.5, 27.5 if "hflip" in found.sizes[1].views else 45.5, 63.5]
    assert [single.ms for single in found.singles] == [18, 36]
    assert pareto([1, 2, 3, 4], [0.5, 0.4, 0.45, 0.3]) == [True, True, False, True]
    assert pareto([1, 2, 2], [0.5, 0.5, 0.4]) == [True, False, True]  # dearer and no better; as dear and worse
    assert pareto([1, 1], [0.5, 0.5]) == [True, True]
    assert pareto([3, 2, 1], [0.1, 0.2, 0.3]) == [True] * 3


# ---- sets whose truth is known -------------------------------------------------------------------------------------


def test_copies_with_noise_of_their_own_help_by_averaging():
    labels, z = noisy(1500, 4, noise=1.5, shared=0)
    found = search(oof_of(z, labels=labels))
    assert found.chosen == VIEWS[:4] and [single.verdict for single in found.singles] == ["helps"] * 3
    losses = [size.scores["log_loss"].value for size in found.sizes]
    assert losses == sorted(losses, reverse=True) and all(size.pareto for size in found.sizes)
    assert found.honest == found.sizes[3].scores and found.honest_gains["log_loss"].low > 0
    assert found.honest_gains == found.sizes[3].gains


def test_a_view_that_is_misleading_hurts_and_is_left_out():
    labels, z = noisy(1200, 4, signal=[1.5, 1.5, -0.5, 1.5], noise=1.5, shared=0)
    found = search(oof_of(z, labels=labels))
    assert {single.view: single.verdict for single in found.singles} == {
        "hflip": "helps",
        "vflip": "hurts",
        "rot90": "helps",
    }
    assert found.chosen == ("identity", "hflip", "rot90")
    assert [size.pareto for size in found.sizes] == [True, True, True, False]
    hurts = found.singles[1]
    assert hurts.added["log_loss"].high < 0 and hurts.added["accuracy"].high < 0
    assert hurts.alone["log_loss"].high < hurts.added["log_loss"].low  # as the base mends it a little


def test_duplicates_are_not_paid_for_and_of_two_the_cheaper_is_taken():
    labels, z = noisy(600, 1)
    found = search(oof_of(np.repeat(z, 3, axis=0), labels=labels), [[1, 3, 2]])
    assert found.chosen == ("identity",) and found.sizes[1].views == ("identity", "vflip")
    assert [size.pareto for size in found.sizes[:2]] == [True, False]
    for single in found.singles:
        assert single.verdict == "no difference can be told"
        assert {(g.value, g.low, g.high) for g in (*single.added.values(), *single.alone.values())} == {(0, 0, 0)}
    assert found.honest == found.sizes[0].scores


def test_a_gain_within_one_standard_error_is_not_paid_for():
    """A copy with a little noise of its own is ahead by luck or not at all."""
    draw = np.random.default_rng(11)
    labels, z = noisy(300, 1, noise=1.5)
    found = search(oof_of(np.concatenate([z, z + 0.05 * draw.normal(size=z.shape)]), labels=labels))
    assert found.chosen == ("identity",)
    assert found.singles[0].verdict == "no difference can be told"


def test_a_lower_log_loss_does_not_pay_for_rows_that_turn_wrong():
    """With vflip the 20 rows that identity has badly wrong are less so, which log loss rewards, but six more are wrong;
    with hflip they are as many as before."""
    labels, draw = np.arange(100) % 2, np.random.default_rng(0)
    sure = (np.eye(2)[labels] - 0.5) * draw.uniform(0.9, 1.1, size=(100, 1))
    order = draw.permutation(100)
    bad, turned = order[:20], order[20:26]
    identity, vflip = 2 * sure, 2 * sure
    identity[bad] = -6 * sure[bad]
    vflip[bad], vflip[turned] = 5 * sure[bad], -2.2 * sure[turned]
    hflip = vflip.copy()
    hflip[turned] = 2 * sure[turned]
    found = search(oof_of(np.stack([identity, vflip]), labels=labels, views=("identity", "vflip")))
    second = found.sizes[1]
    assert second.gains["log_loss"].low > 0 and second.gains["accuracy"].value == pytest.approx(-0.06)
    assert found.found == found.chosen == ("identity",) and found.honest_gains["log_loss"].value == 0
    assert search(oof_of(np.stack([identity, hflip]), labels=labels)).chosen == ("identity", "hflip")


def test_a_search_that_gains_nothing_on_rows_that_it_did_not_choose_on_recommends_the_base(monkeypatch, capsys):
    labels, z = noisy(60, 3, noise=0.5, shared=1.5, seed=26)  # noise that looks like a gain
    found = search(oof_of(z, labels=labels))
    assert found.found == ("identity", "vflip") and found.chosen == ("identity",)
    assert found.honest_gains["log_loss"].value < 0
    first, second, *_, last = printed(found, monkeypatch, capsys, 200).splitlines()
    assert re.fullmatch(
        r"held out, the whole search gains over identity alone: log loss -0\.0029 \[-0\.\d+, \+0\.\d+\], possibly by "
        r"chance; accuracy -1\.67 \[-7\.\d\d, \+4\.\d\d\], possibly by chance",
        first,
    )
    assert second == "that is no gain: identity alone is recommended, not identity, vflip"
    assert last == "choice: identity alone: what the search chose gains nothing on rows that it did not see"


def pair():
    """vflip and rot90 carry one great error with opposite signs, which their mean doesn't have; hflip is fair."""
    draw = np.random.default_rng(5)
    labels, z = noisy(500, 4, noise=1.0, shared=0.3, seed=5)
    wave = 4 * draw.normal(size=z.shape[1:])
    z[2] += wave + np.eye(3)[labels] * 3
    z[3] += np.eye(3)[labels] * 3 - wave
    return oof_of(z, labels=labels)


def test_all_sets_are_tried_so_that_a_pair_is_found(monkeypatch):
    found = search(pair())
    assert found.exhaustive
    assert [size.views for size in found.sizes[1:3]] == [("identity", "hflip"), ("identity", "vflip", "rot90")]
    monkeypatch.setattr(view_sets, "MOST_SETS", 7)
    grown = search(pair())
    assert not grown.exhaustive
    assert grown.sizes[1].views == ("identity", "hflip")
    assert set(grown.sizes[1].views) < set(grown.sizes[2].views) < set(grown.sizes[3].views)
    assert grown.sizes[2].scores["log_loss"].value > found.sizes[2].scores["log_loss"].value + 0.1
    monkeypatch.setattr(view_sets, "MOST_SETS", 8)
    assert search(pair()).exhaustive
    monkeypatch.setattr(view_sets, "MOST_WORK", 8 * 500 * 3 - 1)
    assert not search(pair()).exhaustive


def test_two_cheap_views_go_before_a_dear_one_that_is_as_good():
    """vflip is the sum of hflip and rot90, whose errors cancel: the two sets with them are as good as each other."""
    draw = np.random.default_rng(8)
    labels, z = noisy(500, 4, shared=0, seed=8)
    wave = 9 * draw.normal(size=z.shape[1:])
    z[1], z[3] = z[2] / 2 + wave, z[2] / 2 - wave
    dear, cheap = ("identity", "vflip"), ("identity", "hflip", "rot90")
    found = search(oof_of(z, labels=labels), [[1, 1, 50, 1]])
    assert (found.sizes[1].views, found.sizes[2].views, found.chosen) == (dear, cheap, cheap)
    assert search(oof_of(z, labels=labels)).chosen == dear


def test_the_metric_directs_the_choice():
    """hflip sets eight of a hundred rows right, and by little; vflip is surer where identity is right already."""
    labels, size = np.arange(200) % 2, 200
    sure = np.eye(2)[labels] - 0.5
    wrong = np.arange(size) % 25 < 5
    identity = np.where(wrong[:, None], -0.4 * sure, sure)
    draw = np.random.default_rng(0)
    identity[~wrong] *= draw.uniform(0.1, 2, size=(int((~wrong).sum()), 1))
    hflip, vflip = identity.copy(), identity.copy()
    mended = np.arange(size) % 25 < 2
    hflip[mended] = 0.41 * sure[mended]
    hflip[~mended] *= draw.uniform(0.5, 1.5, size=(int((~mended).sum()), 1))
    vflip[~wrong] = 8 * sure[~wrong]
    oof = oof_of(np.stack([identity, hflip, vflip]), labels=labels, folds=np.arange(200) // 40)
    by_loss, by_accuracy = search(oof), search(oof, metric="accuracy")
    assert by_loss.sizes[1].views == ("identity", "vflip") and by_accuracy.sizes[1].views == ("identity", "hflip")
    assert by_loss.chosen == ("identity", "vflip") and by_accuracy.chosen == ("identity", "hflip")
    assert {single.view: single.verdict for single in by_accuracy.singles} == {
        "hflip": "helps",
        "vflip": "no difference can be told",
    }
    assert by_loss.singles[1].verdict == "helps"
    for metric in ("macro_f1", "balanced_accuracy"):
        assert search(oof, metric=metric).chosen == ("identity", "hflip")
    losses, by_fold, *_ = brute_force(oof, "accuracy")
    assert [size.scores["log_loss"].value for size in by_accuracy.sizes] == pytest.approx(
        losses[:-1].mean(axis=1), abs=1e-4
    )
    assert [part[1] for part in by_fold] == list(by_accuracy.sizes[1].by_fold)


@pytest.mark.parametrize(("mended", "verdict"), [(5, "no difference can be told"), (6, "helps")])
def test_of_fewer_than_six_rows_accuracy_tells_nothing(mended, verdict):
    labels = np.arange(60) % 2
    sure = np.eye(2)[labels] - 0.5
    identity = np.where((np.arange(60) < 12)[:, None], -sure, sure)
    hflip = np.where((np.arange(60) < mended)[:, None], 3 * sure, identity)
    oof = oof_of(np.stack([identity, hflip]), labels=labels)
    assert search(oof, metric="accuracy").singles[0].added["accuracy"].value == pytest.approx(mended / 60)
    assert search(oof, metric="accuracy").singles[0].verdict == verdict
    in_pairs = dataclasses.replace(oof, rows=dataclasses.replace(oof.rows, clusters=np.arange(60) // 2))
    assert search(in_pairs, metric="accuracy").singles[0].verdict == "no difference can be told"


# ---- what is not looked at -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["log_loss", "accuracy"])
@pytest.mark.parametrize("most", [1024, 1])
def test_what_is_chosen_for_a_fold_does_not_look_at_its_labels(monkeypatch, metric, most):
    """With other labels in a fold, the sets chosen for it stay, and so do its probabilities under the whole search;
    elsewhere they change."""
    monkeypatch.setattr(view_sets, "MOST_SETS", most)
    given, real = [], view_sets.cross_fit

    def spy(run, folds, clusters):
        given.append(real(run, folds, clusters))
        return given[-1]

    monkeypatch.setattr(view_sets, "cross_fit", spy)
    labels, z = noisy(120, 4, noise=1.5, seed=7)
    before, own = search(oof_of(z, labels=labels), metric=metric), given[:]
    changed = []
    for fold in range(5):
        given.clear()
        inside = np.arange(120) % 5 == fold
        other = np.where(inside, (labels + 1) % 3, labels)
        after = search(oof_of(z, labels=other), metric=metric)
        for old, new in zip(before.sizes, after.sizes, strict=True):
            assert old.by_fold[fold] == new.by_fold[fold]
        assert len(given) == len(own) == 4 + 3 + 3 + 1
        for old, new in zip(own, given, strict=True):
            assert np.array_equal(old[inside], new[inside]) and not np.allclose(old[~inside], new[~inside])
        changed += [old.by_fold != new.by_fold for old, new in zip(before.sizes, after.sizes, strict=True)]
    assert any(changed)


def test_groups_are_resampled_whole_and_never_divided():
    labels, z = noisy(100, 2, noise=1.5, seed=4)
    rows = np.repeat(np.arange(100), 8)
    plain = search(oof_of(z, labels=labels, folds=np.arange(100) % 5))
    grouped = search(oof_of(z[:, rows], labels=labels[rows], folds=rows % 5, clusters=rows))
    loose = search(oof_of(z[:, rows], labels=labels[rows], folds=rows % 5))
    widths = [
        own.sizes[1].gains["log_loss"].high - own.sizes[1].gains["log_loss"].low for own in (plain, grouped, loose)
    ]
    assert widths[1] == pytest.approx(widths[0], rel=0.05) and widths[2] == pytest.approx(
        widths[0] / np.sqrt(8), rel=0.15
    )
    assert (plain.groups, grouped.groups, loose.groups) == (None, 100, None)
    assert (plain.rows, grouped.rows) == (100, 800)


@pytest.mark.parametrize(("folds", "want"), [(1, {80, 60}), (2, {50, 40}), (5, {80, 60})])
def test_what_temperatures_are_fitted_on(monkeypatch, folds, want):
    """All folds but one, and in the nested choice all of those but one. A single held-out part is divided, and so is
    what remains of two, by groups: here 10 of 10 rows each."""
    labels, z = noisy(100, 2, noise=1.5, seed=4)
    clusters, seen = np.arange(100) // 10, []
    real = view_sets.inverse_temperature

    def spy(z, labels, start=None):
        seen.append(len(labels))
        return real(z, labels, start)

    monkeypatch.setattr(view_sets, "inverse_temperature", spy)
    found = search(oof_of(z, labels=labels, folds=clusters % folds, clusters=clusters))
    assert found.folds == len(found.sizes[0].scores["log_loss"].folds) == len(found.sizes[0].by_fold)
    assert found.folds == (2 if folds == 2 else 5) and set(seen) == want


def test_members_whose_every_row_is_right():
    labels = np.arange(40) % 2
    z = np.stack([size * (np.eye(2)[labels] - 0.5) for size in (40, 60, 50)])
    found = search(oof_of(z, labels=labels))
    assert found.chosen == ("identity",)
    assert {single.verdict for single in found.singles} == {"no difference can be told"}
    assert all(size.scores["accuracy"].value == 1 and size.scores["log_loss"].value < 0.02 for size in found.sizes)


def test_without_identity_the_first_view_is_the_base():
    labels, z = noisy(100, 3)
    found = search(oof_of(z, labels=labels, views=("hflip", "vflip", "rot90")))
    assert found.base == "hflip" and [single.view for single in found.singles] == ["vflip", "rot90"]
    assert all(size.views[0] == "hflip" for size in found.sizes)


def test_the_result_can_be_written_as_json():
    labels, z = noisy(90, 3)
    found = search(oof_of(z, labels=labels, left_out={"x": "not finished: fold 1"}))
    read = json.loads(json.dumps(dataclasses.asdict(found), allow_nan=False))
    assert read["chosen"] == list(found.chosen) and read["notes"] == ["left out: x (not finished: fold 1)"]
    assert read["sizes"][1]["gains"]["log_loss"]["low"] == found.sizes[1].gains["log_loss"].low
    assert isinstance(read["sizes"][0]["pareto"], bool) and read["rows"] == 90


# ---- what does not fit ---------------------------------------------------------------------------------------------


def test_mistakes_are_answered_with_one_line():
    labels, z = noisy(30, 2)
    oof = oof_of(z, labels=labels)

    def said(kind, *given, **named):
        with pytest.raises(kind) as caught:
            search(*given, **named)
        return str(caught.value)

    one = "there is only the view identity: add others with: ens tta-oof RUN --views flips"
    assert said(UserError, oof_of(z[:1], labels=labels)) == one
    unknown = f"views can't be searched by 'auc'; by one of: {', '.join(searchable())}"
    assert said(UserError, oof, metric="auc") == unknown
    group = "a blend is scored on rows it was not fitted on: it needs at least 2 rows (or 2 groups)"
    assert said(UserError, oof_of(z, labels=labels, folds=[0] * 30, clusters=[0] * 30)) == group
    assert said(ValueError, oof, np.ones((2, 1))) == "pass_ms is (2, 1), want (1, 2): members x views"
    wrong = "pass_ms and decoding_ms are milliseconds: finite, and 0 or more"
    for costs, once in (([[1, -1]], 0), ([[1, 1]], -0.1), ([[1, np.nan]], 0), ([[1, np.inf]], 0), ([[1, 1]], np.nan)):
        assert said(ValueError, oof, costs, once) == wrong
    mixed = dataclasses.replace(oof_of(z, z, labels=labels), views=(("identity", "hflip"), ("identity", "vflip")))
    differ = "members have different views: [('identity', 'hflip'), ('identity', 'vflip')]"
    assert said(ValueError, mixed) == differ


def test_searching_loads_no_torch():
    code = "import sys, ensemble.tta.view_sets; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---- what is printed -----------------------------------------------------------------------------------------------


def printed(found, monkeypatch, capsys, width=100):
    monkeypatch.setattr(layout, "Console", lambda width_=None, **_: Console(width=width))
    show_view_search(found)
    return capsys.readouterr().out


def test_the_tables(monkeypatch, capsys):
    labels, z = noisy(1200, 4, signal=[1.5, 1.5, -0.5, 1.5], noise=1.5, shared=0)
    oof = oof_of(z, labels=labels, clusters=np.arange(1200) // 2, left_out={"x": "not finished: fold 1"})
    found = search(oof)
    out = printed(found, monkeypatch, capsys)
    head, gains, out = out.split("\n", 2)
    assert head == "left out: x (not finished: fold 1)"
    assert (
        gains.startswith("held out, the whole search gains over identity alone: log loss +0.") and "chance" not in gains
    )
    assert out.startswith(
        "sets of views, out of fold, 1,200 rows in 600 groups, cross-fitted over 5 folds:\n"
        "score [95% interval], and below it the gain over identity alone\n"
    )
    first, second = found.sizes[:2]
    loss, share = second.scores["log_loss"], second.scores["accuracy"]
    base = (
        rf"1: identity +{first.scores['log_loss'].value:.4f} \[.*\] +{100 * first.scores['accuracy'].value:.2f} \[.*\]"
    )
    assert re.search(rf"{base} +3\.0 \* *\n 2: \+ (hflip|rot90)", out)
    assert f"{loss.value:.4f} [{loss.low:.4f}, {loss.high:.4f}]" in out
    assert f"{100 * share.value:.2f} [{100 * share.low:.2f}, {100 * share.high:.2f}]" in out
    own = second.gains["log_loss"]
    same = second.by_fold.count(second.views)
    assert re.search(rf"\n +{re.escape(f'{own.value:+.4f} [{own.low:+.4f}, {own.high:+.4f}]')} .* {same}/5 *\n", out)
    assert re.search(r" 4: \+ vflip .* 6\.0 *\n", out) and out.count(" * \n") == 3
    assert re.search(r"the whole search +\d\.\d{4} \[", out)
    hurts = found.singles[1]
    added, alone = (f"{gain['log_loss'].value:+.4f} [" for gain in (hurts.added, hurts.alone))
    assert re.search(rf"\n vflip +{re.escape(added)}.* hurts *\n +{re.escape(alone)}", out)
    assert "of 3 added views, by log loss at 95%: 2 help, 1 hurts; 0.15 expected by chance alone\n" in out
    gained = found.sizes[2].gains["log_loss"]
    assert out.endswith(
        "choice: identity, hflip, rot90: the best by log loss; 5.0 ms per image, identity alone 3.0; "
        f"gain over identity alone: {gained.value:+.4f} [{gained.low:+.4f}, {gained.high:+.4f}]\n"
    )
    assert "all sets of each size were tried;" in out
    monkeypatch.setattr(view_sets, "MOST_SETS", 1)
    assert "sets were grown greedily, a view at a time;" in printed(search(oof), monkeypatch, capsys)


def test_a_step_between_sets_that_are_not_nested_and_other_choices(monkeypatch, capsys):
    out = printed(search(pair()), monkeypatch, capsys)
    assert " 2: + hflip " in out and " 3: - hflip + vflip + rot90 " in out and " 4: + hflip " in out
    labels, z = noisy(300, 1)
    worse = printed(search(oof_of(np.concatenate([z, -z]), labels=labels)), monkeypatch, capsys)
    assert worse.endswith("\nchoice: identity alone: no larger set is better by log loss\n")
    found = search(oof_of(np.concatenate([z, z + 0.05 * np.random.default_rng(4).normal(size=z.shape)]), labels=labels))
    chosen = dataclasses.replace(found, chosen=("identity",))
    gains = found.sizes[1].gains | {"macro_f1": dataclasses.replace(found.sizes[1].gains["macro_f1"], value=0.0123)}
    ahead = found.sizes[1].scores | {"macro_f1": dataclasses.replace(found.sizes[1].scores["macro_f1"], value=1.0)}
    best = dataclasses.replace(found.sizes[1], gains=gains, scores=ahead)
    chosen = dataclasses.replace(chosen, metric="macro_f1", sizes=(found.sizes[0], best))
    out = printed(chosen, monkeypatch, capsys)
    pattern = (
        r"choice: identity alone: no set beats it by more than one standard error of macro F1 "
        r"\(the best, of 2 views, gains \+1\.23 \[.*\]\)\n"
    )
    assert re.fullmatch(pattern, out.splitlines(keepends=True)[-1]) and "of 1 added view, by macro F1 at 95%: " in out
    assert "macro F1 %" in out and "accuracy %" not in out


def test_the_cheapest_within_one_standard_error_is_named(monkeypatch, capsys):
    labels, z = noisy(500, 2, shared=0)
    found = search(oof_of(np.concatenate([z, z[1:] + 0.01]), labels=labels), [[1, 1, 1]])
    ahead = found.sizes[2].scores | {"log_loss": dataclasses.replace(found.sizes[2].scores["log_loss"], value=0.1)}
    sizes = (*found.sizes[:2], dataclasses.replace(found.sizes[2], scores=ahead))
    found = dataclasses.replace(found, chosen=found.sizes[1].views, sizes=sizes)
    last = printed(found, monkeypatch, capsys).splitlines()[-1]
    why = "the cheapest within one standard error of the best by log loss (the best, of 3 views, gains "
    cost = "; 4.0 ms per image, identity alone 3.0; gain over identity alone: "
    ends = r"\+\d\.\d{4} \[.*\]"
    assert re.fullmatch(rf"choice: identity, [hv]flip: {re.escape(why)}{ends}\){re.escape(cost)}{ends}", last)


@pytest.mark.parametrize("width", [80, 100])
def test_the_tables_fit(monkeypatch, capsys, width):
    labels, z = noisy(300, 5, noise=1.5, shared=0)
    names = ("identity", "[hflip]", "scale1.15", "scale1.15+hflip", "rot270")
    found = search(oof_of(z, labels=labels, views=names), metric="balanced_accuracy")
    out = printed(found, monkeypatch, capsys, width)
    rows = [line for line in out.splitlines() if re.search(r"\] .*\[", line) and not line.startswith("choice")]
    assert max(map(len, rows)) <= width and "…" not in out
    assert len(rows) == 2 * 5 - 1 + 2 + 2 * 4 and "[hflip]" in out
    assert len(re.findall(r"\d\.\d \*", out)) == sum(size.pareto for size in found.sizes)

"""The blends of backbones: numbers by brute force, and how honest the choice is."""

import itertools

import numpy as np
import pytest

from ensemble.blend.methods.pool import inverse_temperature
from ensemble.blend.probabilities import softmax
from ensemble.events import SILENT
from ensemble.scout import subsets
from ensemble.scout.subsets import Probes, find_front

NAMES = ("a", "b", "c", "d", "e")


def probes_of(z, labels, ms, folds=None, clusters=None):
    count = len(labels)
    return Probes(
        names=NAMES[: len(z)],
        timm=tuple(f"timm_{name}" for name in NAMES[: len(z)]),
        image_sizes=(64,) * len(z),
        ms=np.asarray(ms, dtype=float),
        z=np.asarray(z, dtype=np.float32),
        labels=labels,
        folds=np.arange(count) % 5 if folds is None else folds,
        clusters=np.arange(count) if clusters is None else clusters,
        grouped=clusters is not None,
    )


def noisy(signals, rows=200, classes=3, seed=0):
    """labels (N,) and logits (M, N, C): the true class's signal of each backbone, and noise of its own."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(classes, size=rows)
    noise = draw.normal(size=(len(signals), rows, classes))
    return labels, np.asarray(signals)[:, None, None] * np.eye(classes)[labels] + noise


def cross_fitted_loss(z, labels, folds):
    total = 0.0
    for fold in np.unique(folds):
        train, test = folds != fold, folds == fold
        p = softmax(z[test] * inverse_temperature(z[train], labels[train]))
        total -= np.log(p[np.arange(len(p)), labels[test]]).sum()
    return total / len(labels)


def cross_fitted(z, labels, folds):
    """Log loss of every blend of up to four by members, the temperature fitted on the other folds."""
    sets = [chosen for size in range(1, 5) for chosen in itertools.combinations(range(len(z)), size)]
    return {chosen: cross_fitted_loss(z[list(chosen)].mean(0), labels, folds) for chosen in sets}


def test_the_front_is_that_of_all_blends_by_brute_force():
    labels, z = noisy((0.6, 1.0, 1.0, 1.3, 0.8))
    ms = np.array([1.0, 2.0, 3.0, 5.0, 1.5])
    front = find_front(probes_of(z, labels, ms), "log_loss", SILENT)
    losses = cross_fitted(z.astype(np.float32), labels, np.arange(200) % 5)
    cost = {chosen: ms[list(chosen)].sum() for chosen in losses}
    best = {
        chosen
        for chosen in losses
        if not any(cost[other] <= cost[chosen] and losses[other] < losses[chosen] for other in losses)
    }
    assert {tuple(NAMES.index(name) for name in blend.members) for blend in front.blends} == best
    assert front.tried == len(losses) == 30
    for blend in front.blends:
        chosen = tuple(NAMES.index(name) for name in blend.members)
        assert blend.scores["log_loss"].value == pytest.approx(losses[chosen], abs=5e-5)
        assert blend.ms == cost[chosen]
    assert [blend.ms for blend in front.blends] == sorted(blend.ms for blend in front.blends)


def test_backbones_are_sorted_by_their_score_and_compared_with_the_best():
    labels, z = noisy((0.5, 2.0, 1.0))
    front = find_front(probes_of(z, labels, (1, 2, 3)), "log_loss", SILENT)
    assert [single.name for single in front.singles] == ["b", "c", "a"]
    assert front.singles[0].gains == {}
    assert front.singles[2].gains["log_loss"].high < 0
    assert front.singles[2].gains["log_loss"].against == "b"


def test_nested_scores_choose_without_the_rows_that_they_score():
    labels, z = noisy((1.0, 1.0, 1.0, 1.0, 1.0), rows=120, seed=3)
    ms, folds = np.ones(5), np.arange(120) % 5
    front = find_front(probes_of(z, labels, ms), "log_loss", SILENT)
    z = z.astype(np.float32)
    total, same = 0.0, 0
    singles = [(member,) for member in range(5)]
    for fold in range(5):
        train, test = folds != fold, folds == fold
        inverse = [inverse_temperature(z[m][train], labels[train]) for (m,) in singles]
        losses = [
            -np.log(softmax(z[m][train] * b)[np.arange(train.sum()), labels[train]]).mean()
            for (m,), b in zip(singles, inverse, strict=True)
        ]
        best = int(np.argmin(losses))
        p = softmax(z[best][test] * inverse[best])
        total -= np.log(p[np.arange(len(p)), labels[test]]).sum()
        same += NAMES[best] == front.blends[0].members[0]
    first = front.blends[0]
    assert first.nested["log_loss"].value == pytest.approx(total / 120, abs=5e-5)
    assert first.by_fold == same
    assert first.nested["log_loss"].value >= first.scores["log_loss"].value


def test_among_backbones_that_know_nothing_the_table_is_optimistic_and_the_nested_score_is_not():
    table, nested = [], []
    for seed in range(6):
        labels, z = noisy((0.0,) * 5, rows=60, classes=2, seed=seed)
        front = find_front(probes_of(z, labels, np.arange(1, 6)), "accuracy", SILENT)
        table.append(front.blends[-1].scores["accuracy"].value)
        nested.append(front.blends[-1].nested["accuracy"].value)
    error = np.sqrt(0.25 / (6 * 60))
    assert np.mean(table) > 0.5 + 3 * error
    assert abs(np.mean(nested) - 0.5) < 2 * error


def test_the_simplest_is_the_cheapest_within_one_standard_error(monkeypatch):
    monkeypatch.setattr(subsets, "MOST_WORK", 1)  # backbones alone, no blends of two

    def chosen(signals, seed):
        labels, z = noisy(signals, rows=100, seed=seed)
        front = find_front(probes_of(z, labels, (1, 5)), "log_loss", SILENT)
        return len(front.blends), front.blends[front.simplest].members[0]

    alike = [chosen((1.0, 1.0), seed) for seed in range(8)]
    assert (2, "a") in alike  # the other was better by chance, and costs more
    assert sum(name == "a" for _, name in alike) >= 6
    assert chosen((0.5, 2.0), 0) == (2, "b")


def test_two_folds_and_groups():
    labels, z = noisy((1.0, 1.5), rows=80)
    front = find_front(probes_of(z, labels, (1, 2), np.arange(80) // 40, np.arange(80) // 2), "macro_f1", SILENT)
    assert (front.rows, front.groups, front.folds) == (80, 40, 2)
    assert set(front.blends[-1].scores) >= {"macro_f1", "log_loss"}


def test_where_all_blends_would_take_long_they_are_smaller(monkeypatch):
    labels, z = noisy((1.0,) * 5, rows=50)
    monkeypatch.setattr(subsets, "MOST_WORK", 15 * 50 * 3)
    front = find_front(probes_of(z, labels, np.arange(1, 6)), "log_loss", SILENT)
    assert (front.largest, front.tried) == (2, 15)

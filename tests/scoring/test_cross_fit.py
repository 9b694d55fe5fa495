"""Predictions of rows that the fit did not see, and the choice among candidates."""

import numpy as np
import pytest

from ensemble.errors import UserError
from ensemble.scoring.cross_fit import cross_fit, simplest, standard_error, usable_folds


def test_cross_fit_gives_each_fold_what_was_fitted_on_the_others():
    folds = np.array([2, 0, 1, 0, 2, 1])
    values = np.arange(6.0)

    def fit_apply(train, test):
        return np.repeat(values[train].mean(), 2 * len(test)).reshape(-1, 2)

    probs = cross_fit(fit_apply, folds, np.arange(6))
    # the others of fold 0 are 0 2 4 5, of fold 1: 0 1 3 4, of fold 2: 1 2 3 5
    assert probs[:, 0].tolist() == [2.75, 2.75, 2.0, 2.75, 2.75, 2.0]


def test_one_fold_number_is_divided_by_groups():
    clusters = np.repeat(np.arange(12), 3)
    folds = usable_folds(np.zeros(36, dtype=np.int64), clusters)
    assert len(np.unique(folds)) == 5
    assert all(len(np.unique(folds[clusters == cluster])) == 1 for cluster in range(12))
    assert np.array_equal(folds, usable_folds(np.zeros(36, dtype=np.int64), clusters))


def test_one_group_cannot_be_divided():
    with pytest.raises(UserError, match="at least 2 rows"):
        cross_fit(lambda train, test: np.ones((len(test), 2)), np.zeros(5), np.zeros(5))


def test_standard_error_counts_groups_and_not_their_copies():
    values = np.random.default_rng(0).normal(size=100)
    alone = standard_error(values, np.arange(100))
    assert alone == pytest.approx(values.std() / 10)
    assert standard_error(np.repeat(values, 4), np.repeat(np.arange(100), 4)) == pytest.approx(alone)


def test_simplest_takes_the_first_within_one_standard_error():
    clusters, draw = np.arange(400), np.random.default_rng(0)
    base = draw.normal(size=400) ** 2
    near, far = base + 0.01 * draw.normal(size=400), base + 1.0
    assert simplest([far, near + 1e-4, base], clusters) == 1
    assert simplest([far, base], clusters) == 1

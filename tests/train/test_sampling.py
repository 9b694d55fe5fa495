"""The rows of an epoch: each once, or each class as often."""

import numpy as np
import pytest

from ensemble.train.sampling import epoch_rows

LABELS = np.array([9, 0, 0, 0, 0, 0, 0, 1, 1, 2, 9])  # rows 0 and 10 are held out
ROWS = np.arange(1, 10)


def draw(kind, seed=0, rows=ROWS, labels=LABELS):
    return epoch_rows(np.random.default_rng(seed), rows, labels, kind)


def test_shuffle_shows_each_row_once_in_another_order():
    found = draw("shuffle")
    assert found.dtype == np.int64 and sorted(found) == ROWS.tolist() and found.tolist() != ROWS.tolist()
    assert found.tolist() == np.random.default_rng(0).permutation(ROWS).tolist()


def test_balanced_shows_each_class_as_often():
    """9 rows, 3 classes, 3 of each: of class 0 three of its six rows, of class 1 one row twice, the one of class 2
    three times."""
    for seed in range(20):
        found = draw("balanced", seed)
        assert found.dtype == np.int64 and len(found) == 9
        times = np.bincount(found, minlength=11)
        assert sorted(times[1:7]) == [0, 0, 0, 1, 1, 1]
        assert sorted(times[7:9]) == [1, 2]
        assert times[9] == 3 and times[0] == times[10] == 0


def test_balanced_shows_every_row_of_a_class_before_one_again():
    labels = np.array([0] * 40 + [1] * 7 + [2])
    times = np.bincount(draw("balanced", rows=np.arange(48), labels=labels))
    assert set(times[:40]) == {0, 1} and times[:40].sum() == 16
    assert sorted(times[40:47]) == [2, 2, 2, 2, 2, 3, 3]
    assert times[47] == 16


def test_balanced_gives_what_is_left_over_to_classes_by_lot():
    """11 rows of 3 classes: two classes have 4, one has 3, and each class is that one now and then."""
    labels = np.array([0] * 6 + [1] * 4 + [2])
    shares = {tuple(np.bincount(labels[draw("balanced", seed, np.arange(11), labels)]).tolist()) for seed in range(50)}
    assert shares == {(4, 4, 3), (4, 3, 4), (3, 4, 4)}


def test_balanced_of_more_classes_than_rows_can_show_twice():
    labels = np.array([3, 1, 2, 0])
    assert sorted(draw("balanced", rows=np.arange(4), labels=labels)) == [0, 1, 2, 3]


def test_balanced_mixes_the_classes():
    labels = np.repeat([0, 1], 50)
    found = labels[draw("balanced", rows=np.arange(100), labels=labels)]
    assert 30 < (found[1:] != found[:-1]).sum() < 70


def test_a_class_of_many_rows_shows_others_in_other_epochs():
    labels = np.array([0] * 40 + [1] * 2)
    seen = [set(draw("balanced", seed, np.arange(42), labels)) & set(range(40)) for seed in range(8)]
    assert all(len(each) == 21 for each in seen) and len(set.union(*seen)) == 40


@pytest.mark.parametrize("kind", ["shuffle", "balanced"])
def test_the_same_seed_draws_the_same_rows(kind):
    assert draw(kind, 3).tolist() == draw(kind, 3).tolist() != draw(kind, 4).tolist()


def test_unknown_sampling():
    with pytest.raises(ValueError, match="no sampling is named 'oversample'; there are: shuffle, balanced"):
        draw("oversample")

"""Which fold each row is validated in."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.data.folds import (
    check_classes,
    check_own_folds,
    copies,
    joined,
    listing,
    make_folds,
    read_folds,
    write_folds,
)
from ensemble.data.samples import Samples
from ensemble.errors import UserError
from ensemble.files.reading import read_json
from ensemble.run import Run


def refusal(call, *arguments):
    with pytest.raises(UserError) as caught:
        call(*arguments)
    return str(caught.value)


def letters(text):
    """Labels (N,) from one letter a row, and their classes."""
    classes, labels = np.unique(list(text), return_inverse=True)
    return labels.astype(np.int64), tuple(classes.tolist())


def split_groups(folds, groups):
    return [name for name in np.unique(groups) if len(np.unique(folds[groups == name])) > 1]


# ---- making folds --------------------------------------------------------------------------------------------------


def test_stratified_folds_share_every_class_equally():
    labels, classes = letters("a" * 12 + "b" * 6 + "c" * 3)
    folds = make_folds(labels, classes, 3, 0, None, None)
    assert folds.dtype == np.int8
    assert [np.bincount(labels[folds == fold]).tolist() for fold in range(3)] == [[4, 2, 1]] * 3


def test_seed_0_repeats_itself_and_differs_from_seed_1():
    labels, classes = letters("ab" * 20)
    groups = np.repeat(np.arange(20), 2).astype(str)
    for given_groups, method in [(None, None), (groups, None), (groups, "grouped")]:
        first, again, other = (make_folds(labels, classes, 4, seed, given_groups, method) for seed in (0, 0, 1))
        assert np.array_equal(first, again)
        assert not np.array_equal(first, other)


def test_groups_are_whole_and_classes_balanced():
    labels, classes = letters("aabb" * 12)
    groups = np.repeat(np.arange(24), 2).astype(str)  # of one class each
    folds = make_folds(labels, classes, 4, 0, groups, None)
    assert split_groups(folds, groups) == []
    assert [np.bincount(labels[folds == fold]).tolist() for fold in range(4)] == [[6, 6]] * 4


def test_grouped_folds_are_of_equal_size_whatever_the_classes():
    labels, classes = letters("ab" * 12)
    groups = np.repeat(np.arange(12), 2).astype(str)
    folds = make_folds(labels, classes, 4, 0, groups, "grouped")
    assert split_groups(folds, groups) == [] and np.bincount(folds).tolist() == [6, 6, 6, 6]


@given(
    rows=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 7)), min_size=6, max_size=40),
    k=st.integers(2, 4),
    seed=st.integers(0, 3),
    method=st.sampled_from(["grouped", "stratified-grouped", None]),
)
def test_no_group_is_ever_split_and_every_fold_can_train_on_every_class(rows, k, seed, method):
    labels = np.array([label for label, _ in rows] + [0, 1, 2] * k, dtype=np.int64)
    groups = np.array([group for _, group in rows] + [8 + row // 3 for row in range(3 * k)]).astype(str)
    try:
        folds = make_folds(labels, ("a", "b", "c"), k, seed, groups, method)
    except UserError as error:
        assert method == "grouped" and "are in fold" in str(error)
        return
    assert split_groups(folds, groups) == []
    assert np.unique(folds).tolist() == list(range(k))
    assert all(set(labels[folds != fold]) == {0, 1, 2} for fold in range(k))


def test_class_with_fewer_rows_than_k():
    labels, classes = letters("aaaaabbb")
    line = "class 'b' has 3 rows, fewer than folds.k = 4: lower k, add images, or drop it"
    assert refusal(make_folds, labels, classes, 4, 0, None, None) == line


def test_class_in_one_group_only():
    labels, classes = letters("aaaabb")
    groups = np.array(list("ppqqrr"))
    line = "class 'b' stands in one group only, so a fold could not train on it: drop it"
    assert refusal(make_folds, labels, classes, 2, 0, groups, None) == line


def test_class_whose_groups_all_fall_into_one_fold():
    labels, classes = letters("bbaaaaaa")
    groups = np.array(list("pqrstuvw"))
    lines = set()
    for seed in range(20):
        try:
            folds = make_folds(labels, classes, 2, seed, groups, "grouped")
        except UserError as error:
            lines.add(str(error))
        else:
            assert folds[0] != folds[1]
    assert lines == {
        f"all rows of class 'b' are in fold {fold}, which could not train on it: "
        'set another seed, or folds.method = "stratified-grouped"'
        for fold in range(2)
    }


def test_fewer_groups_than_k():
    labels, classes = letters("aabb" * 3)
    groups = np.array(list("pqpq" * 3))
    line = "there are 2 groups, fewer than folds.k = 3: lower k"
    assert refusal(make_folds, labels, classes, 3, 0, groups, None) == line


@pytest.mark.parametrize("method", ["grouped", "stratified-grouped"])
def test_grouped_folds_without_groups(method):
    labels, classes = letters("aabb")
    line = f"folds.method = {method!r} needs groups: name their column with data.group"
    assert refusal(make_folds, labels, classes, 2, 0, None, method) == line


# ---- copies --------------------------------------------------------------------------------------------------------


def test_copies_are_files_of_the_same_bytes(tmp_path):
    contents = [b"one", b"two", b"one", b"longer", b"two", b"one"]
    for row, content in enumerate(contents):
        (tmp_path / str(row)).write_bytes(content)
    first = copies(tuple(tmp_path / str(row) for row in range(6)))
    assert first.tolist() == [0, 1, 0, 3, 1, 0]


def test_copies_join_groups_through_each_other():
    # row 1 (b) copies row 0 (a), row 3 (c) copies row 2 (b): a, b and c are one; d stands alone
    groups = np.array(list("abbcd"))
    assert joined(groups, np.array([0, 0, 2, 2, 4])).tolist() == ["a", "a", "a", "a", "d"]


def test_a_later_copy_joins_two_groups_that_were_joined_before():
    # b-c, then d-e, then e-b: all but a are one
    groups = np.array(list("abcdeeb"))
    assert joined(groups, np.array([0, 1, 1, 3, 3, 5, 5])).tolist() == ["a", "b", "b", "b", "b", "b", "b"]


def test_copies_are_groups_where_there_are_none():
    assert joined(None, np.array([0, 1, 0, 1, 4])).tolist() == ["0", "1", "0", "1", "4"]
    assert joined(None, np.arange(5)) is None


def test_groups_without_copies_stay_as_they_are():
    groups = np.array(list("abba"))
    assert joined(groups, np.arange(4)).tolist() == ["a", "b", "b", "a"]


# ---- the user's own folds ------------------------------------------------------------------------------------------


def test_own_folds_that_split_a_group():
    folds, ids = np.array([0, 1, -1, 1], dtype=np.int8), np.array(["w.png", "x.png", "y.png", "z.png"])
    check_own_folds(folds, None, ids)
    check_own_folds(folds, np.array(list("abcb")), ids)
    assert refusal(check_own_folds, folds, np.array(list("abca")), ids) == (
        "folds.fold: 'w.png' is in fold 0 and 'z.png' in fold 1, "
        "but they are of one group or copies of one file: put them in one fold"
    )


def test_own_folds_that_never_train_on_a_class():
    folds, labels = np.array([0, 1, 0, 1, -1], dtype=np.int8), np.array([0, 0, 1, 1, 1])
    check_classes(folds, labels, ("a", "b"), "spread it")
    assert refusal(check_classes, folds, np.array([0, 0, 1, 0, 0]), ("a", "b"), "spread it") == (
        "all rows of class 'b' are in fold 0, which could not train on it: spread it"
    )


# ---- folds.csv -----------------------------------------------------------------------------------------------------


def test_folds_csv_keeps_every_text_as_it_is(tmp_path):
    ids = np.array(["007", "NA", 'a, "b".png', "한글 1.png"])
    samples = Samples(ids, (), np.array([0, 1, 0, 2]), ("007", "NA", "가"))
    write_folds(
        Run(tmp_path), listing(samples, np.array([0, 1, -1, 0], dtype=np.int8), np.array(["NA", "1.0", "p", "p"]))
    )
    table = read_folds(Run(tmp_path))
    assert table.columns.tolist() == ["id", "label", "fold", "group"]
    assert table["id"].tolist() == ids.tolist()
    assert table["label"].tolist() == ["007", "NA", "007", "가"]
    assert table["fold"].dtype == np.int8 and table["fold"].tolist() == [0, 1, -1, 0]
    assert table["group"].tolist() == ["NA", "1.0", "p", "p"]
    assert read_json(Run(tmp_path).classes_json) == ["007", "NA", "가"]


def test_folds_csv_of_numbers_alone_stays_text(tmp_path):
    samples = Samples(np.array(["007", "1"]), (), np.array([0, 1]), ("01", "2"))
    write_folds(Run(tmp_path), listing(samples, np.array([0, 1], dtype=np.int8), None))
    assert (tmp_path / "folds.csv").read_text() == "id,label,fold\n007,01,0\n1,2,1\n"
    table = read_folds(Run(tmp_path))
    assert table["id"].tolist() == ["007", "1"] and table["label"].tolist() == ["01", "2"]


def test_folds_of_no_run(tmp_path):
    line = f"{tmp_path}: not a run directory (it has no folds.csv); make one with: ens train-folds FILE"
    assert refusal(read_folds, Run(tmp_path)) == line

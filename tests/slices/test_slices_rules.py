"""Which rows a slice holds."""

import numpy as np

from ensemble.slices.rules import Rule, of_numbers, of_values


def rows(candidates):
    return {candidate.rule.text: candidate.rows.tolist() for candidate in candidates}


def test_a_value_is_a_slice_where_enough_rows_have_it_and_enough_have_not():
    values = np.array(["a", "a", "b", "a", "", "b", "c", "a"])
    assert rows(of_values("column", "site", values, 2)) == {"site a": [0, 1, 3, 7], "site b": [2, 5]}
    assert rows(of_values("column", "site", np.array(["a", "a", "a", "b"]), 2)) == {}


def test_the_lowest_and_highest_numbers_are_slices_of_several_shares():
    values = np.append(np.arange(100.0), np.nan)
    found = of_numbers("image", "brightness", values, "{:.0f}", 5)
    assert rows(found) == {
        "brightness up to 4 (the lowest 5 %)": list(range(5)),
        "brightness from 95 (the highest 5 %)": list(range(95, 100)),
        "brightness up to 9 (the lowest 10 %)": list(range(10)),
        "brightness from 90 (the highest 10 %)": list(range(90, 100)),
        "brightness up to 19 (the lowest 20 %)": list(range(20)),
        "brightness from 80 (the highest 20 %)": list(range(80, 100)),
    }
    assert found[0].rule == Rule("image", "brightness", None, None, 4.0, "brightness up to 4 (the lowest 5 %)")


def test_ties_widen_a_share_and_the_same_rows_are_looked_at_once():
    values = np.concatenate([np.zeros(30), np.arange(1.0, 71.0)])
    assert [len(each.rows) for each in of_numbers("image", "x", values, "{:g}", 5)] == [30, 5, 10, 20]


def test_few_different_numbers_are_a_slice_each():
    assert rows(of_numbers("column", "age", np.array([1, 1, 2, 2, 2, np.nan]), "{:g}", 2)) == {
        "age 1": [0, 1],
        "age 2": [2, 3, 4],
    }
    assert of_numbers("column", "age", np.full(9, 3.0), "{:g}", 2) == []


def test_a_rule_tells_of_other_images_whether_they_lie_in_it():
    interval = Rule("image", "x", None, 2.0, 5.0, "")
    assert interval.holds(np.array([1, 2, 5, 6, np.nan])).tolist() == [False, True, True, False, False]
    assert Rule("class", "class", "b", None, None, "").holds(np.array(["a", "b"])).tolist() == [False, True]

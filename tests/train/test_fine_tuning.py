"""Advice after probes: whether fine-tuning can pay."""

import json

import numpy as np
import pytest

from ensemble.run import Run
from ensemble.train.fine_tuning import can_fine_tuning_pay
from ensemble.train.rows import Rows


@pytest.fixture
def probed(tmp_path):
    """probed(name, accuracy, ...): a member with a finished fold for each accuracy."""

    def make(name, *accuracies, strategy="probe"):
        member = Run(tmp_path).member(name)
        for number, accuracy in enumerate(accuracies):
            fold = member.fold(number)
            line = {"held_out_accuracy": accuracy, "held_out_log_loss": 0.5}
            fold.write_log(json.dumps({**line, **({"strategy": strategy} if strategy else {})}) + "\n")
            fold.mark_done([fold.log_file])
        return member

    return make


def rows(*counts):
    folds = np.repeat(np.arange(len(counts)), counts).astype(np.int8)
    nothing = np.zeros(len(folds))
    return Rows(nothing.astype(np.str_), (), nothing.astype(np.int64), folds, ("a", "b"))


def test_errors_of_the_best_probe_are_counted_over_the_folds(probed):
    """0.9 of 200 and 0.95 of 800 are 20 and 40 wrong; 27 to 43 % of 60 are 16 to 26 rows, 1.6 to 2.6 points."""
    members = [probed("a", 0.9, 0.95), probed("b", 0.9, 0.9)]
    line = can_fine_tuning_pay(members, rows(200, 800))
    assert line is not None and line.startswith("the best probe, a, is wrong on 60 of 1,000 held-out rows; ")
    assert "can pay: it would correct about 16 to 26 of them, 1.6 to 2.6 points of accuracy" in line


@pytest.mark.parametrize(("wrong", "few"), [(0, True), (20, True), (21, False)])
def test_few_errors_leave_nothing_to_tell(probed, wrong, few):
    """43 % of 20 are 8.6, less than 1.96 * 20 ** 0.5 = 8.8; of 21 they are 9.0, more than 1.96 * 21 ** 0.5."""
    line = can_fine_tuning_pay([probed("a", 1 - wrong / 500, 1.0)], rows(500, 500))
    assert line is not None and ("so few that" in line) == few


def test_nothing_is_said_of_networks_that_were_tuned_or_are_not_done(probed):
    assert can_fine_tuning_pay([probed("a", 0.9, 0.9), probed("tuned", 0.9, 0.9, strategy=None)], rows(5, 5)) is None
    member = probed("b", 0.9)
    assert can_fine_tuning_pay([member], rows(5, 5)) is None
    member.fold(1).path.mkdir()  # begun
    assert can_fine_tuning_pay([member], rows(5, 5)) is None

"""How many epochs were enough, and how long the rest takes: exact sentences from logs and speeds made by hand."""

import json
import time
from pathlib import Path

import pytest

from ensemble.run import Run
from ensemble.train.clock import Clock
from ensemble.train.enough import enough_epochs


@pytest.fixture
def finished(tmp_path):
    """finished({epoch: loss}, ...): a run with one finished fold for each log; epochs of loss None were not scored."""

    def write(*logs, done=True):
        for fold, log in enumerate(logs):
            directory = Run(tmp_path).member("net").fold(fold)
            lines = [
                {"epoch": epoch, "loss": 1.0} | ({} if loss is None else {"held_out_log_loss": loss})
                for epoch, loss in log.items()
            ]
            directory.write_log("".join(json.dumps(line) + "\n" for line in lines))
            if done or fold:
                directory.mark_done([directory.log_file])
        return tmp_path

    return write


# ---- epochs --------------------------------------------------------------------------------------------------------


def test_fewer_would_have_been_enough(finished):
    # Worse than the end by .5, .3, .4 (mean .4, error .0577), by -.1, .1, .1 (mean .0333, error .0667), and by 0
    run = finished({2: 1.0, 4: 0.4, 6: 0.5, 8: 0.5}, {2: 0.9, 4: 0.7, 6: 0.6, 8: 0.6}, {2: 1.1, 4: 0.8, 6: 0.7, 8: 0.7})
    assert enough_epochs(Run(run).member("net")) == (
        "net: 4 of 8 epochs would have been enough: held-out log loss 0.633 then, 0.600 at the end (the difference's "
        "standard error is 0.067)"
    )


def test_all_were_of_use(finished):
    # .3 and .1 worse on average, with errors of 0
    run = finished({3: 0.8, 6: 0.6, 12: 0.5}, {3: 1.0, 6: 0.8, 12: 0.7})
    assert enough_epochs(Run(run).member("net")) == (
        "net: all 12 epochs were of use: held-out log loss 0.700 after 6, 0.600 at the end; more may help"
    )


def test_the_first_that_is_good_enough_counts(finished):
    run = finished({1: 0.5, 2: 0.9, 3: 0.5}, {1: 0.6, 2: 0.9, 3: 0.6})
    assert enough_epochs(Run(run).member("net")).startswith(
        "net: 1 of 3 epochs would have been enough: held-out log loss 0.550"
    )


def test_folds_are_compared_in_pairs(finished):
    # The folds differ by 10 times what the epochs do: only in pairs is 0.1 more than its error
    run = finished({2: 0.6, 4: 0.5}, {2: 1.61, 4: 1.5}, {2: 2.59, 4: 2.5})
    assert enough_epochs(Run(run).member("net")) == (
        "net: all 4 epochs were of use: held-out log loss 1.600 after 2, 1.500 at the end; more may help"
    )


def test_one_standard_error_worse_is_still_enough(finished):
    # worse by .1 and .3: mean .2, error .1, too much; by -.1 and .3: mean .1, error .2
    run = finished({1: 0.6, 2: 0.4, 3: 0.5}, {1: 0.8, 2: 0.8, 3: 0.5})
    assert enough_epochs(Run(run).member("net")).startswith(
        "net: 2 of 3 epochs would have been enough: held-out log loss 0.600 "
    )
    assert enough_epochs(Run(run).member("net")).endswith("0.500 at the end (the difference's standard error is 0.200)")


def test_only_epochs_that_all_folds_scored_count(finished):
    run = finished({1: 0.5, 2: None, 3: 0.9, 4: 0.5}, {1: None, 2: 0.5, 3: 1.0, 4: 0.5})
    assert enough_epochs(Run(run).member("net")) == (
        "net: all 4 epochs were of use: held-out log loss 0.950 after 3, 0.500 at the end; more may help"
    )


@pytest.mark.parametrize(
    "logs",
    [
        (),
        ({2: 0.9, 4: 0.5},),
        ({4: 0.5}, {4: 0.5}),
        ({2: None, 4: 0.5}, {2: None, 4: 0.5}),
        ({2: 0.9, 4: None}, {2: None, 4: 0.9}),
    ],
    ids=["no folds", "one fold", "one epoch", "one scored epoch", "no common epoch"],
)
def test_there_is_nothing_to_say(finished, logs):
    assert enough_epochs(Run(finished(*logs)).member("net")) is None


def test_nothing_is_said_before_all_folds_are_done(finished):
    logs = {2: 0.9, 4: 0.5}, {2: 0.9, 4: 0.5}
    run = finished(*logs, done=False)
    assert enough_epochs(Run(run).member("net")) is None
    finished(*logs)
    assert enough_epochs(Run(run).member("net")) is not None
    Run(run).member("net").fold(2).path.mkdir()  # begun
    assert enough_epochs(Run(run).member("net")) is None


def test_probes_have_no_epochs(tmp_path):
    for fold in (0, 1):
        directory = Run(tmp_path).member("net").fold(fold)
        directory.write_log('{"strategy": "probe", "held_out_log_loss": 0.5}\n')
        directory.mark_done([directory.log_file])
    assert enough_epochs(Run(tmp_path).member("net")) is None


# ---- time ----------------------------------------------------------------------------------------------------------


def job(member, number):
    return Run(Path("run")).member(member).fold(number)


def test_expected_rates_and_processes_side_by_side():
    jobs = {job("a", 0): 100, job("a", 1): 300, job("b", 0): 200}
    assert Clock(jobs, {"a": 10.0, "b": 4.0}).remaining() == pytest.approx(400 / 10 + 200 / 4)
    assert Clock(jobs, {"a": 10.0, "b": 4.0}, parallel=2).remaining() == pytest.approx(45)
    assert Clock(jobs, {"a": 10.0, "b": 4.0}, parallel=8).remaining() == pytest.approx(30)  # of 8, 3 have a job


def test_an_unknown_backbone_is_as_fast_as_the_others_harmonic_mean():
    jobs = {job("a", 0): 100, job("b", 0): 100, job("c", 0): 90}
    rates = {"a": 10.0, "b": 5.0}  # an image takes 0.1 and 0.2 s: 0.15 s
    assert Clock(jobs, rates).remaining() == pytest.approx(10 + 20 + 90 * 0.15)


def test_finished_jobs_keep_no_process_busy():
    clock = Clock({job("a", 0): 100, job("a", 1): 100}, {"a": 10.0}, parallel=2)
    assert clock.remaining() == pytest.approx(10)
    clock.left[job("a", 0)] = 0
    assert clock.remaining() == pytest.approx(10)
    clock.left[job("a", 1)] = 0
    assert clock.remaining() == 0


def test_what_is_seen_replaces_what_was_expected(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    first, second = job("a", 0), job("a", 1)
    clock = Clock({first: 100, second: 100, job("b", 0): 50}, {"a": 10.0, "b": 5.0}, parallel=2)
    clock.update(first, left=90)  # the start is no measure: as expected, (90 + 100) / 10 + 50 / 5 on two
    assert (clock.describe(first), clock.done, clock.total) == ("10 images/s  0:14 left", 10, 250)
    now[0] = 2.0
    clock.update(second, left=90)
    assert clock.rates() == {"a": 10.0, "b": 5.0}
    now[0] = 4.0
    clock.update(first, left=10)  # 80 in 4 s
    assert clock.rates() == {"a": 20.0, "b": 5.0}
    assert (clock.describe(first), clock.done) == ("20 images/s  0:08 left", 100)
    now[0] = 12.0
    clock.update(second, left=50)  # 40 in 10 s: both folds together 120 in 14 s
    assert clock.rates()["a"] == pytest.approx(120 / 14)
    assert clock.remaining() == pytest.approx(((10 + 50) / (120 / 14) + 10) / 2)
    assert clock.done == 140

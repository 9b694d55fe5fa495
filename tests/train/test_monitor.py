"""The jobs as their parent sees them: what is shown of them all, how each ended, and where they may end."""

from pathlib import Path

import pytest
from recorder import Recorder

from ensemble.launch.jobs import Outcome
from ensemble.run import Run
from ensemble.train.clock import Clock
from ensemble.train.ending import Running
from ensemble.train.monitor import Monitor

RUN = Run(Path("run"))
JOB, OTHER = RUN.member("a").fold(0), RUN.member("a").fold(1)


def made(rates=None, asked=lambda: False):
    running = Running()
    for job in (JOB, OTHER):
        running.epochs[job], running.images[job], running.batches[job] = 2, 50, 10
    return Monitor(Clock({JOB: 100, OTHER: 100}, rates), running, asked, Recorder())


def test_a_jobs_own_progress_is_shown_as_part_of_all_jobs():
    monitor = made()
    monitor.listen(JOB).progress("a fold 0 epoch 1/2  loss 0.500", 30, 100)
    assert monitor.events.steps == [("a fold 0 epoch 1/2  loss 0.500", 30, 200)]  # of no known speed
    monitor = made({"a": 10.0})
    monitor.listen(JOB).progress("a fold 0 epoch 1/2  loss 0.500", 30, 100)
    assert monitor.events.steps == [("a fold 0 epoch 1/2  loss 0.500  10 images/s  0:17 left", 30, 200)]
    assert monitor.running.left == {JOB: 70} and monitor.running.rates == {"a": 10.0}


def test_held_out_images_are_told_of_and_their_time_counts_in_the_speed(monkeypatch):
    seconds = iter((0.0, 10.0, 40.0, 50.0))  # 10 images in 10 s, then answers for 30 s, and 10 images in 10 s
    monkeypatch.setattr("ensemble.train.clock.time.monotonic", lambda: next(seconds))
    monitor = made()
    job = monitor.listen(JOB)
    job.progress("step", 10, 100)
    job.progress("step", 20, 100)
    job.progress("a fold 0: 7 of 9 held-out images answered", 20, 100)
    assert monitor.events.steps[-1] == ("a fold 0: 7 of 9 held-out images answered  1 images/s  3:00 left", 20, 200)
    job.progress("step", 30, 100)
    assert monitor.clock.rates() == {"a": 20 / 50}


def test_messages_and_epochs_go_on_to_the_events():
    monitor = made()
    monitor.listen(JOB).message("warning: x")
    monitor.listen(JOB).epoch_finished("a", 0, {"epoch": 1})
    assert monitor.events.messages == ["warning: x"] and monitor.events.epochs == [("a", 0, {"epoch": 1})]


def test_how_jobs_end():
    monitor = made()
    monitor.end(JOB, Outcome(seconds=61.0))
    monitor.end(OTHER, Outcome(error="a fold 1: the loss turned nan"))
    assert monitor.events.messages == ["a fold 0: done in 1:01", "failed: a fold 1: the loss turned nan"]
    assert monitor.events.jobs == [("a", 0, 61.0, None), ("a", 1, 0.0, "a fold 1: the loss turned nan")]
    assert monitor.failures == ["a fold 1: the loss turned nan"] and monitor.clock.done == 200
    monitor = made()
    monitor.end(JOB, Outcome(is_locked=True))
    assert monitor.locked == [JOB] and monitor.events.jobs == monitor.events.messages == []


def test_a_job_is_interrupted_where_no_epoch_is_waited_for():
    monitor = made(asked=lambda: True)
    monitor.running.aims[JOB] = 50  # its first epoch ends there
    monitor.listen(JOB).progress("", 40, 100)
    monitor.listen(JOB).progress("", 50, 100)  # that it is saved is known when the next one is under way
    with pytest.raises(KeyboardInterrupt):
        monitor.listen(JOB).progress("", 60, 100)

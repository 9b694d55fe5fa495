"""Ctrl-C and SIGTERM, with real signals to real processes."""

import signal
import subprocess
import sys
import time

import pytest
from recorder import Recorder

from ensemble.events import SILENT
from ensemble.run import Run
from ensemble.stop import Stopped, safe_points
from ensemble.train.ending import Running, kept, may_end, wait_for
from ensemble.tta.oof import add_views
from ensemble.tta.predict import PredictionRequest, tta_predict

SCRIPT = """
import sys, time
from ensemble import stop
from ensemble.cli.signals import listening
noted = []
with listening("ens x 'a b'", noted.append):
    try:
        with stop.safe_points(lambda: "all of it", lambda: "nothing"):
            with stop.safe_points(lambda: {step!r}, lambda: "2 of 3 shards") as asked:
                print("ready", flush=True)
                while not ({heeds} and asked()):
                    time.sleep(0.01)
                print("safe point", flush=True)
                raise KeyboardInterrupt
    except stop.Stopped as error:
        print("kept", error, noted, flush=True)
if {heeds} is None:  # as threads that are waited for at the end
    time.sleep(60)
"""
STOPPING = "ens: stopping after shard 3 of 3 ... (again to stop at once)\n"


def start(step="shard 3 of 3", heeds=True):
    """A process that works, and heeds what it is asked at its safe points or does not."""
    code = SCRIPT.format(step=step, heeds=heeds)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_one_ends_at_the_next_safe_point_and_says_so_at_once(number):
    process = start()
    process.send_signal(number)
    assert process.stderr.readline() == STOPPING
    out, err = process.communicate(timeout=60)
    assert out == f"safe point\nkept 2 of 3 shards {[STOPPING[5:-1]]}\n" and err == "" and process.returncode == 0


def test_what_would_take_long_is_ended_at_once():
    process = start(step=None)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    line = "stopping ... (again to stop at once)"
    assert out == f"kept 2 of 3 shards {[line]}\n" and err == f"ens: {line}\n"


@pytest.mark.parametrize(("heeds", "step"), [(False, "shard 3 of 3"), (None, None)])
def test_the_second_one_ends_at_once_with_a_line(heeds, step):
    """While a safe point is waited for, or while what was stopped is put away."""
    process = start(step, heeds)
    process.send_signal(signal.SIGINT)
    first = process.stderr.readline()
    process.send_signal(signal.SIGINT)  # a key that bounces, or a sender who means the process and its group
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert first + err == (STOPPING if step else "ens: stopping ... (again to stop at once)\n") + (
        "ens: stopped at once; go on with: ens x 'a b'\n"
    )


def test_the_innermost_safe_points_count():
    with pytest.raises(Stopped, match=r"^all of it$"), safe_points(lambda: None, lambda: "all of it"):
        with pytest.raises(Stopped, match=r"^a part$"), safe_points(lambda: None, lambda: "a part"):
            raise KeyboardInterrupt
        raise KeyboardInterrupt


# ---- commands ------------------------------------------------------------------------------------------------------

# `ens` with the words that it is given, its work in small pieces; it gets a real signal when the second piece is
# written, from its own parent.
DRIVER = """
import os, signal, sys, time
from ensemble import cli
from ensemble.predictions import shards
from ensemble.tta import chunks, oof

count = 0

def told(work):
    def worked(*words):
        global count
        work(*words)
        count += 1
        if count == 2:
            print("written", flush=True)
            sys.stdin.readline()
    return worked

chunks.chunk_rows = lambda *facts: 4
shards.write = told(shards.write)
oof._write_added = told(oof._write_added)
sys.argv = ["ens", *sys.argv[1:]]
cli.main()
"""


@pytest.fixture(scope="module")
def run(noise_run):
    return noise_run


def nothing(*words):
    pass


def stopped(number, *words):
    """The command stopped by a signal when its second piece was just written: its status, its lines on stderr."""
    command = [sys.executable, "-c", DRIVER, *map(str, words)]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    process = subprocess.Popen(command, text=True, **pipes)
    while (line := process.stdout.readline()) and line != "written\n":
        pass
    process.send_signal(number)
    first = process.stderr.readline()  # it is said at once, while the work goes on
    _, err = process.communicate("go on\n", timeout=100)
    return process.returncode, [first.rstrip(), *err.splitlines()]


@pytest.mark.process
def test_prediction_ends_after_a_shard_and_goes_on_to_the_same_bytes(run, tmp_path):
    whole, output = tmp_path / "whole.csv", tmp_path / "a b.csv"
    words = ["tta-predict", run, run.parent / "train"]
    status, lines = stopped(signal.SIGTERM, *words, "-o", output)
    assert status == 130 and lines == [
        "ens: stopping after shard 2 of 6 ... (again to stop at once)",
        f"ens: stopped; kept: 2 of 6 shards; go on with: ens {' '.join(map(str, words))} -o '{output}'",
    ]
    log = (run / "ens.log").read_text()
    assert "stopping after shard 2 of 6 ..." in log and f"error: {lines[1][5:]}\n" in log
    assert "ends with status 130" in log and not output.exists()
    events = Recorder()
    tta_predict(PredictionRequest(Run(run), run.parent / "train", output, shard_rows=4), events)
    assert events.messages[-1] == "resuming: 2 of 6 shards are finished"
    made = run / "predictions" / "train-mean.safetensors"
    bits = made.read_bytes()
    tta_predict(PredictionRequest(Run(run), run.parent / "train", whole, shard_rows=4), events)
    assert events.messages[-1].endswith("no network is run") and whole.read_bytes() == output.read_bytes()
    assert made.read_bytes() == bits


@pytest.mark.process
def test_added_views_end_after_a_fold_and_go_on_to_the_same_bytes(run, tmp_path):
    words = ["tta-oof", run, "--views", "vflip"]
    status, lines = stopped(signal.SIGINT, *words)
    files = [Run(run).member(member).fold(fold).added_views_file for member in ("resnet", "vit") for fold in (0, 1)]
    assert [file.is_file() for file in files] == [True, True, False, False]
    assert status == 130 and lines == [
        "ens: stopping after fold 1 of resnet ... (again to stop at once)",
        f"ens: stopped; kept: the new views of 2 of 4 folds; go on with: ens tta-oof {run} --views vflip",
    ]
    add_views(Run(run), ["vflip"], SILENT)
    bits = [file.read_bytes() for file in files]
    for file in files:
        file.unlink()
    add_views(Run(run), ["vflip"], SILENT)
    assert [file.read_bytes() for file in files] == bits


# ---- training ------------------------------------------------------------------------------------------------------


def test_the_end_of_an_epoch_is_waited_for_where_it_is_near(tmp_path):
    """Two jobs of 4 epochs of 100 images, at 5 images a second: what is 50 images away is 10 seconds away."""
    run = Run(tmp_path)
    a, b, c = run.member("net").fold(0), run.member("net").fold(1), run.member("slow").fold(0)
    running = Running(rates={"net": 5.0, "slow": 0.1})
    for job in (a, b, c):
        running.epochs[job], running.images[job], running.batches[job] = 4, 100, 10
    assert wait_for(running) is None and may_end(running)  # nothing runs
    running.left[c] = 250
    assert wait_for(running) is None and may_end(running)
    running.left.update({a: 250, b: 251})
    assert wait_for(running) == "epoch 2 of 4 of net fold 0" and not may_end(running)
    running.left.update({a: 200, b: 201})
    assert not may_end(running)  # its last step is done; that it is saved is known when the next one is under way
    running.left[a] = 120
    assert may_end(running)
    running.aims.clear()
    running.left[a] = 0
    del running.left[b]
    assert wait_for(running) == "epoch 4 of 4 of net fold 0" and not may_end(running)
    del running.left[a]  # done
    assert may_end(running)


def test_what_training_keeps_is_said(tmp_path):
    *jobs, later, last = (Run(tmp_path).member("net").fold(number) for number in range(5))
    running = Running()
    for job, saved, left in ((jobs[1], 1, 300), (jobs[2], 2, 110)):
        running.epochs[job], running.images[job], running.batches[job], running.left[job] = 4, 100, 10, left
        job.write_log("{}\n" * saved)
    for job in (later, last, jobs[0]):  # not begun again yet: one has an epoch, one none
        running.epochs[job], running.images[job], running.batches[job] = 4, 100, 10
    later.write_log("{}\n")
    jobs[0].path.mkdir()
    jobs[0].mark_done([])
    assert kept(jobs, running) == (
        "1 of 3 folds, 1 of 4 epochs of net fold 1, 2 of 4 epochs of net fold 2 (epoch 3 starts over), "
        "1 of 4 epochs of net fold 3"
    )

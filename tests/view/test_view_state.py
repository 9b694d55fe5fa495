"""What `ens view` makes of a run's files."""

import json
import os

import numpy as np
import pytest
from report_runs import noisy_logits, write_run

from ensemble.files.claim_files import claim_file, claim_text, count_file
from ensemble.files.claims import STALE, claimed
from ensemble.run import Run
from ensemble.view.folds import FoldProgress, FoldWatcher
from ensemble.view.images import Gallery, mean_probabilities
from ensemble.view.messages import last_messages, without_paths
from ensemble.view.state import MemberProgress, RunWatcher, seconds_left

LABELS = np.arange(12) % 3
FOLDS = np.arange(12) // 3 % 2


def epochs(count, accuracy=None, seconds=10.0):
    lines = [{"epoch": n, "loss": 1 / n, "lr": 0.1, "seconds": seconds} for n in range(1, count + 1)]
    if accuracy is not None:
        lines[-1] |= {"held_out_accuracy": accuracy, "held_out_log_loss": 0.5}
    return lines


@pytest.fixture
def run(tmp_path):
    """One member of two folds of four epochs: the first one done, the second one begun."""
    logs = {"net": {0: epochs(4, 0.75), 1: epochs(2)}}
    members = {"net": noisy_logits(LABELS, 3, 2, 0)}
    settings = {"net": {"epochs": 4}}
    write_run(tmp_path / "art", "abc", LABELS, FOLDS, members, logs=logs, settings=settings, done={"net": [0]})
    return Run(tmp_path / "art")


def test_accuracy_is_that_of_the_epoch_that_was_kept(tmp_path):
    scores = ((0.5, 0.9), (0.2, 0.75), (0.4, 0.5))  # held-out log loss, accuracy
    log = [{"epoch": 1, "loss": 1.0, "held_out_log_loss": loss, "held_out_accuracy": right} for loss, right in scores]
    members = {name: noisy_logits(LABELS, 3, 2, 0) for name in ("best", "last")}
    settings = {name: {"epochs": 3, "keep": name} for name in members}
    logs = {name: {0: log, 1: log} for name in members}
    write_run(tmp_path / "art", "abc", LABELS, FOLDS, members, logs=logs, settings=settings)
    best, last = RunWatcher(Run(tmp_path / "art")).state()["members"]
    assert (best["accuracy"]["mean"], last["accuracy"]["mean"]) == (0.75, 0.5)
    assert [fold["accuracy"] for fold in best["folds"] + last["folds"]] == [0.75, 0.75, 0.5, 0.5]


def states(run):
    return [fold["state"] for fold in RunWatcher(run).state()["members"][0]["folds"]]


def test_a_run_in_its_middle(run):
    with claimed(run.member("net").fold(1).claim_file):
        state = RunWatcher(run).state()
    assert state["run"] == "art" and (state["images"], state["classes"], state["folds"]) == (12, 3, 2)
    assert state["jobs"] == {"all": 2, "done": 1, "training": 1, "failed": 0}
    assert state["seconds_left"] == 20.0
    (member,) = state["members"]
    assert member["epochs"] == 4 and member["accuracy"] == {"mean": 0.75, "std": None, "folds": 1}
    done, training = member["folds"]
    assert (done["state"], training["state"]) == ("done", "training")
    assert done["log"][-1] == epochs(4, 0.75)[-1] and len(training["log"]) == 2


def test_nobody_works_on_what_was_left(run):
    assert states(run) == ["done", "stopped"] and RunWatcher(run).state()["seconds_left"] is None
    fold = run.member("net").fold(1)
    fold.note_failure("out of memory")
    assert states(run) == ["done", "failed"]
    with claimed(fold.claim_file):  # it is tried again
        assert states(run) == ["done", "training"]
    fold.failure_json.unlink()
    fold.log_file.unlink()
    assert states(run) == ["done", "waiting"]


def test_who_works_on_another_machine_is_believed_for_a_minute_without_a_sign(run):
    fold, now = run.member("net").fold(1), 100.0
    elsewhere = json.loads(claim_text("abc")) | {"host": "node3", "machine": "another"}
    claim_file(fold.claim_file, 1).write_text(json.dumps(elsewhere))
    watcher = FoldWatcher(clock=lambda: now)
    assert watcher.look(fold).state == "training"
    now += STALE - 1
    assert watcher.look(fold).state == "training"
    count_file(fold.claim_file, 1, "abc").write_text("1")
    now += STALE - 1
    assert watcher.look(fold).state == "training"
    now += STALE
    assert watcher.look(fold).state == "stopped"


def test_who_has_died_here_is_seen_at_once(run):
    child = os.fork()
    if not child:
        claim_file(run.member("net").fold(1).claim_file, 1).write_bytes(claim_text("abc"))
        os._exit(0)
    os.waitpid(child, 0)
    assert states(run) == ["done", "stopped"]


def test_a_damaged_marker_is_named_and_a_log_that_is_being_written_keeps_its_lines(run):
    watcher, fold = FoldWatcher(), run.member("net").fold(1)
    assert len(watcher.look(fold).log) == 2
    fold.log_file.write_text('{"epoch": 1, "lo')
    assert len(watcher.look(fold).log) == 2
    done = run.member("net").fold(0).done_json
    done.write_text(done.read_text().replace("60.0", "61.0"))
    assert states(run)[0] == "damaged"


def test_a_member_of_the_experiment_that_is_not_there_yet_and_a_loss_that_is_no_number(run):
    text = run.config_toml.read_text() + (
        '[[backbone]]\nname = "probe"\ntimm = "test_vit"\ntrain = { strategy = "probe" }\n'
        '[[backbone]]\nname = "vit"\ntimm = "test_vit"\ntrain = { epochs = 7 }\n'
    )
    run.config_toml.write_text(text)
    run.member("net").fold(1).write_log('{"epoch": 1, "loss": NaN, "lr": 0.1}\n')
    members = RunWatcher(run).state()["members"]
    assert [(member["name"], member["epochs"]) for member in members] == [("net", 4), ("probe", 1), ("vit", 7)]
    assert [fold["state"] for fold in members[2]["folds"]] == ["waiting", "waiting"]
    assert members[0]["folds"][1]["log"] == [{"epoch": 1, "loss": None, "lr": 0.1}]


def test_time_left_by_hand():
    def member(name, epochs_of_all, *folds):
        return MemberProgress(name, epochs_of_all, False, [FoldProgress(0, state, tuple(log)) for state, log in folds])

    known = member("a", 4, ("done", epochs(4)), ("training", epochs(1)), ("failed", epochs(1)))
    other = member("b", 4, ("training", epochs(3, seconds=30.0)), ("waiting", []))
    unknown = member("c", 2, ("waiting", []))
    # a: 3 x 10; b: 1 x 30 and 4 x 30; c: 2 x the mean of 10 and 30; two at a time
    assert seconds_left([known, other, unknown]) == (30 + 30 + 120 + 40) / 2
    assert seconds_left([unknown]) is None and seconds_left([member("a", 4, ("stopped", epochs(1)))]) is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("saved {run}/blends/stack.json", "saved art/blends/stack.json"),
        ("{run}: not whole", "art: not whole"),
        ("/home/ann/secret/e.toml: no such file", "…/e.toml: no such file"),
        ("'C:\\Users\\ann\\x.png': broken", "'…/x.png': broken"),
        ("read data/art/train and s3://bucket/runs/art", "read data/art/train and s3://bucket/runs/art"),
        ("12 images/s, 3/4 done", "12 images/s, 3/4 done"),
        ("a\x1b[31m", "a\\x1b[31m"),
    ],
)
def test_paths_of_the_machine_stay_there(run, text, shown):
    assert without_paths(text.format(run=run.path), run) == shown


def test_messages_of_all_machines_in_their_order(run):
    run.path.joinpath("ens.log").write_text(
        "2026-01-01T00:00:02Z 7 done\n2026-01-01T00:00:03Z 7 error: x\n    Traceback /usr/lib/x.py\n"
    )
    run.path.joinpath("ens-node3.log").write_text("2026-01-01T00:00:01Z 8 begins: ens train-folds /a/b/art.toml\n")
    assert last_messages(run) == [
        {"time": "2026-01-01T00:00:01Z", "text": "begins: ens train-folds …/art.toml"},
        {"time": "2026-01-01T00:00:02Z", "text": "done"},
        {"time": "2026-01-01T00:00:03Z", "text": "error: x"},
    ]


def test_images_are_ranked_by_rows_that_have_logits(tmp_path, paint):
    labels, folds = np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1])
    first = np.array([[3, 0], [5, 0], [1, 0], [0, 9]], np.float32)  # fold 0 is done: right, wrong
    second = np.array([[0, 1], [0, 1], [2, 0], [0, 1]], np.float32)
    write_run(tmp_path / "art", "ab", labels, folds, {"x": first, "y": second}, done={"x": [0], "y": [0, 1]})
    run = Run(tmp_path / "art")
    rows = RunWatcher(run).rows()
    found, probabilities = mean_probabilities(run, rows, {"x": [0]})
    assert found.tolist() == [0, 1]
    assert probabilities[:, 0] == pytest.approx([1 / (1 + np.exp(-3)), 1 / (1 + np.exp(-5))])
    both = mean_probabilities(run, rows, {"x": [0], "y": [0, 1]})[1]
    assert both[:, 0] == pytest.approx(1 / (1 + np.exp([-1, -2, -2, 1])))
    gallery = Gallery(run)
    gallery._files = {f"r{n}": paint(tmp_path / "images" / f"r{n}.png", 20, 10) for n in range(3)}
    wrong, right = gallery.images(rows)["groups"]
    assert [(one["id"], one["label"], one["predicted"]) for one in wrong["images"]] == [("r1", "b", "a")]
    assert [one["id"] for one in right["images"]] == ["r2", "r0", "r3"]
    assert wrong["images"][0]["uri"].startswith("data:image/jpeg;base64,") and wrong["images"][0]["width"] == 20
    assert right["images"][2]["problem"] == "not among the images of the config"


def test_without_a_finished_fold_or_without_the_images_a_line_says_so(run, tmp_path, monkeypatch, paint):
    monkeypatch.chdir(tmp_path)
    gallery, rows = Gallery(run), RunWatcher(run).rows()
    note = gallery.images(rows)["note"]
    assert "images: no such" in note and "run this there too" in note
    for name in "ab":
        paint(tmp_path / "images" / name / "1.png", 20, 10)
    assert gallery.images(rows)["note"].startswith("6 images so far")  # as soon as they are there
    run.member("net").fold(0).done_json.unlink()
    found = Gallery(run).images(RunWatcher(run).rows())
    assert found == {"note": "There are images as soon as the first fold is finished.", "groups": []}

"""Several processes share a prediction: each shard is predicted once, and the files are those of one process."""

import json
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from recorder import Recorder

from ensemble.blend import BlendOptions, ExternalFiles, blend_run
from ensemble.data.folds import read_folds
from ensemble.data.logits import load_logits
from ensemble.errors import RunFailure, UserError
from ensemble.events import SILENT
from ensemble.files.claims import claimed
from ensemble.predictions import shards, sharing
from ensemble.run import Run
from ensemble.run.run import predictions_claim, shards_dir
from ensemble.tta.predict import tta_predict
from ensemble.tta.prepare import PredictionRequest

# Imports once and forks for each command, of which several run at once. Each reports the shards that it wrote. It waits
# for the others before it writes its first one, and a little before each, so that all have some. It is killed before it
# writes its n-th.
DRIVER = """
import dataclasses, json, multiprocessing, os, signal, sys, time
from ensemble import cli
from ensemble.inference import member, predict  # and with them torch and timm
from ensemble.predictions import shards
from ensemble.tta import predict as tta
with_any, write_any = tta.tta_predict, shards.write
tta.tta_predict = lambda request, events: with_any(dataclasses.replace(request, shard_rows=7), events)
written = []

def write(shard, *values):
    if not written:
        begun.wait(120)
    time.sleep(0.2)
    if len(written) + 1 == killed_at:
        os.kill(os.getpid(), signal.SIGKILL)
    write_any(shard, *values)
    written.append(shard.start)

shards.write = write
for line in sys.stdin:
    children, commands = [], json.loads(line)
    begun = multiprocessing.Barrier(len(commands))
    for words, killed_at in commands:
        (out, own_out), (err, own_err) = os.pipe(), os.pipe()  # which hold 64 kB: more than a command says
        child = os.fork()
        if not child:
            os.dup2(own_out, 1), os.dup2(own_err, 2)
            sys.argv = ["ens", *words]
            status = 0
            try:
                cli.main()
            except SystemExit as ended:
                status = ended.code
            sys.stdout.flush()
            os.write(2, f"\\n{json.dumps(written)}".encode())
            os._exit(status)
        os.close(own_out), os.close(own_err)
        children.append((child, out, err))
    ended = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child, _, _ in children]
    texts = [[open(end).read() for end in ends] for _, *ends in children]
    print(json.dumps([[status, *each] for status, each in zip(ended, texts)]), flush=True)
"""


@pytest.fixture(scope="module")
def run(noise_run):
    return noise_run


@pytest.fixture
def images(tmp_path, paint):
    """60 images, 00.png to 59.png: nine shards of 7 rows."""
    for index in range(60):
        paint(tmp_path / "test" / f"{index:02}.png", 40, 40)
    return tmp_path / "test"


@pytest.fixture(scope="module")
def driver():
    with subprocess.Popen([sys.executable, "-c", DRIVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield process
        process.stdin.close()


def attempt(driver, *commands, killed_at=(0, 0)):
    """Commands at once: of each its exit status (below 0: killed), what it printed, its error line, and the first rows
    of the shards that it wrote."""
    lines = [[["tta-predict", *map(str, words)], at] for words, at in zip(commands, killed_at, strict=False)]
    driver.stdin.write(json.dumps(lines).encode() + b"\n")
    driver.stdin.flush()
    made = []
    for status, out, err in json.loads(driver.stdout.readline()):
        line, _, wrote = err.rpartition("\n") if status >= 0 else (err, "", "[]")
        made.append((status, out, line.strip(), json.loads(wrote)))
    return made


def predict(run, images, output, **changes):
    events = Recorder(on_progress=changes.pop("on_progress", lambda *step: None))
    return tta_predict(
        PredictionRequest(Run(run), images, output, **{"blend_name": "mean", "shard_rows": 7, **changes}), events
    ), events


def saved(run, images, blend="mean"):
    return Run(run).predictions_file(images.name, blend)


# ---- two processes -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def with_external(run):
    """A blend with a member that ens did not train."""
    folder, random = run.parent, np.random.default_rng(3)
    labels = {name: label == "a" for name, label in read_folds(Run(run))[["id", "label"]].to_numpy().tolist()}
    ids = {"oof": labels, "test": {f"{index:02}.png": index % 3 == 0 for index in range(60)}}
    for name, of in ids.items():
        shares = {id: random.uniform(0.05, 0.3) + 0.65 * is_a for id, is_a in of.items()}
        (folder / f"{name}.csv").write_text("\n".join(["id,a,b", *(f"{id},{x},{1 - x}" for id, x in shares.items())]))
    external = [ExternalFiles("knn", folder / "oof.csv", folder / "test.csv")]
    blend_run(Run(run), BlendOptions("stack", name="both", external=external), events=SILENT)
    return "both"


@pytest.mark.process
def test_two_processes_share_the_shards_and_end_with_the_bytes_of_one(run, images, tmp_path, driver, with_external):
    (images / "33.png").write_text("no image")
    output, saved = tmp_path / "s.csv", Run(run).predictions_file("test", with_external)
    words = [run, images, "--blend", with_external, "--form", "probability"]
    words += ["--on-bad", "skip", "--keep-gb", 0, "-o", output]
    [(status, _, line, wrote)] = attempt(driver, words)
    assert (status, line) == (0, "") and wrote == [*range(0, 60, 7)]
    want = output.read_bytes(), saved.read_bytes()
    output.unlink(), saved.unlink()
    before = len(Run(run).submissions_csv.read_text().splitlines())

    one, other = attempt(driver, words, words)
    assert (one[0], other[0], one[2], other[2]) == (0, 0, "", "")
    assert min(len(one[3]), len(other[3])) > 1 and sorted(one[3] + other[3]) == [*range(0, 60, 7)]
    assert (output.read_bytes(), saved.read_bytes()) == want
    assert not list(saved.parent.glob(".*"))
    said = sorted([one[1], other[1]], key=lambda out: "another process wrote" in out)
    assert f"wrote {output} (" in said[0] and f"another process wrote {output} (" in said[1]
    assert all("1 of 60 images could not be read" in out for out in said)
    assert len(Run(run).submissions_csv.read_text().splitlines()) == before + 1

    output.unlink(), saved.unlink()
    lost, other = attempt(driver, words, words, killed_at=(3, 0))
    assert lost[0] == -signal.SIGKILL and other[0] == 0 and len(other[3]) == 7
    assert (output.read_bytes(), saved.read_bytes()) == want


@pytest.mark.process
def test_two_outputs_are_written_of_the_same_shards(run, images, tmp_path, driver):
    (tmp_path / "sample.csv").write_text("".join(["id,b,a\n", *(f"{index:02},0.5,0.5\n" for index in range(60))]))
    one = [run, images, "--blend", "mean", "--keep-gb", 0, "-o", tmp_path / "one.csv"]
    other = [*one[:-1], tmp_path / "other.csv", "--sample-submission", tmp_path / "sample.csv"]
    made = attempt(driver, one, other)
    assert [each[0] for each in made] == [0, 0] and not any("another process wrote" in each[1] for each in made)
    assert (tmp_path / "one.csv").read_text().startswith("id,label\n00.png,")
    assert (tmp_path / "other.csv").read_text().startswith("id,b,a\n00,")


# ---- shards ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def parts(tmp_path):
    """Four shards of two rows."""
    files = [tmp_path / f"{index}.png" for index in range(8)]
    return shards.divide(tmp_path / ".p", "plan", [file.name for file in files], files, 2)


def claim_of(part):
    return part.path.parent / "claims" / f".{part.path.stem}.claim"


def of_start(taken):
    """Probabilities that name the shard."""
    for part in taken:
        yield part, np.full((2, 3), part.start, np.float32), {1: "bad"} if part.start == 4 else {}


def test_a_shard_that_another_process_holds_is_waited_for(parts, monkeypatch):
    monkeypatch.setattr(sharing, "WAIT_SECONDS", 0.01)
    events, found = Recorder(), []
    rest = sharing.rest_of(parts, 3, "skip", events)
    rest.found = found.append
    claim_of(parts[1]).parent.mkdir(parents=True)
    with claimed(claim_of(parts[1])):
        thread = threading.Thread(target=sharing.fill, args=(rest, of_start, events))
        thread.start()
        while not events.messages:
            thread.join(0.01)
        assert not parts[1].path.exists() and all(part.path.exists() for part in (parts[0], parts[2], parts[3]))
        shards.write(parts[1], np.full((2, 3), 9, np.float32), {0: "gone"})
    thread.join()
    assert found == [parts[1]] and [shards.read(part)[0, 0] for part in parts] == [0, 9, 4, 6]
    assert rest.unreadable == {2: "gone", 5: "bad"} and rest.done == 4
    assert [line.partition(" process ")[0] for line in events.messages] == [
        "waiting: the last 1 shard is being predicted by"
    ]
    assert not list((parts[0].path.parent / "claims").iterdir())


def test_a_shard_of_a_process_that_was_killed_is_predicted_by_another(parts):
    claim_of(parts[1]).parent.mkdir(parents=True)
    code = (
        "import os, sys; from pathlib import Path; from ensemble.files.claims import claimed\n"
        "with claimed(Path(sys.argv[1])):\n    os.kill(os.getpid(), 9)"
    )
    claim = claim_of(parts[1])
    assert subprocess.run([sys.executable, "-c", code, claim]).returncode == -signal.SIGKILL and list(
        claim.parent.iterdir()
    )
    rest = sharing.rest_of(parts, 3, "skip", SILENT)
    sharing.fill(rest, of_start, SILENT)
    assert [shards.read(part)[0, 0] for part in parts] == [0, 2, 4, 6] and not list(claim.parent.iterdir())


def test_a_shard_whose_claim_was_lost_is_left_to_who_took_it(parts):
    """As a process that was suspended finds when it wakes."""

    def predict(taken):
        for part in taken:
            if part == parts[1]:
                for claim in (part.path.parent / "claims").iterdir():
                    claim.unlink()
                shards.write(part, np.full((2, 3), 9, np.float32), {})
            yield part, np.full((2, 3), part.start, np.float32), {}

    rest = sharing.rest_of(parts, 3, "skip", SILENT)
    sharing.fill(rest, predict, SILENT)
    assert [shards.read(part)[0, 0] for part in parts] == [0, 9, 4, 6]


def test_a_process_that_is_stopped_before_it_begins_predicts_nothing(parts):
    """As a worker of a cluster that gets its place after Ctrl-C."""
    rest = sharing.rest_of(parts, 3, "skip", SILENT)
    rest.is_stopped = lambda: True
    with pytest.raises(KeyboardInterrupt, match="0 of 4 shards"):
        sharing.fill(rest, of_start, SILENT)
    assert not any(part.path.exists() for part in parts)


def test_a_process_whose_shards_were_removed_predicts_on(parts, monkeypatch):
    """One that was suspended for minutes, while another one ended."""
    monkeypatch.setattr(sharing, "LOOK_SECONDS", 0.0)

    def predict(taken):
        for part in taken:
            if part == parts[1] and part.path.parent not in removed:
                removed.append(part.path.parent)
                shards.remove(part.path.parent)
            yield part, np.full((2, 3), part.start, np.float32), {}

    removed = []
    rest = sharing.rest_of(parts[1:], 3, "skip", SILENT)
    sharing.fill(rest, predict, SILENT)
    assert [shards.read(part)[0, 0] for part in parts[1:]] == [2, 4, 6]


def test_a_shard_that_no_process_has_predicted_is_missed(parts, monkeypatch):
    """As one that a worker of a cluster has, which is seen only after a last look at the folder."""
    for part in parts[:2]:
        shards.write(part, np.zeros((2, 3), np.float32), {1: "bad"})
    rest = sharing.rest_of(parts[2:], 3, "skip", SILENT)
    rest.left = dict.fromkeys(parts)
    monkeypatch.setattr(sharing, "LATE_SECONDS", 0.0)
    with pytest.raises(RunFailure, match=f"^{parts[2].path}: is not there, although"):
        rest.require_finished()
    assert rest.unreadable == {1: "bad", 3: "bad"}
    monkeypatch.undo()
    monkeypatch.setattr(
        sharing.time,
        "sleep",
        lambda seconds: [shards.write(part, np.zeros((2, 3), np.float32), {}) for part in parts[2:]],
    )
    rest.require_finished()
    assert not rest.left


def test_shards_may_be_asked_for_ahead_and_are_free_again_after_an_error(parts):
    def predict(taken):
        ahead = [next(taken), next(taken)]
        assert {claim_of(part).name for part in ahead} == {path.name.partition("-")[0] for path in claims.iterdir()}
        yield ahead[0], np.zeros((2, 3), np.float32), {}
        raise UserError("x.png: empty")

    claims = parts[0].path.parent / "claims"
    with pytest.raises(UserError, match=r"^x\.png: empty; 1 of 4 shards are kept, and the same command then resumes"):
        sharing.fill(sharing.rest_of(parts, 3, "error", SILENT), predict, SILENT)
    assert not list(claims.iterdir()) and [part.path.exists() for part in parts] == [True, False, False, False]


def test_the_last_process_to_leave_removes_the_shards(parts, tmp_path):
    folder, lock = tmp_path / ".p", tmp_path / ".p.lock"
    shards.write(parts[0], np.zeros((2, 3), np.float32), {})
    old = shards.divide(folder, "older plan", ["0.png"], [tmp_path / "0.png"], 2)[0]
    shards.write(old, np.zeros((1, 3), np.float32), {})
    first, second, third = Recorder(), Recorder(), Recorder()
    with sharing.joined(folder, lock, "plan", parts, first):
        assert not old.path.exists() and parts[0].path.exists()
        shards.write(old, np.zeros((1, 3), np.float32), {})
        with sharing.joined(folder, lock, "plan", parts[1:], second):
            pass
        with pytest.raises(KeyError), sharing.joined(folder, lock, "older plan", [old], third):
            raise KeyError
        assert old.path.exists() and parts[0].path.exists()  # others may need them
    assert not folder.exists() and not list(tmp_path.glob(".*"))
    assert len(first.messages) == 1 and first.messages[0].startswith("removed 1 shard of a stopped prediction")
    assert second.messages == ["shares the shards with 1 other process"]
    assert len(third.messages) == 1 and third.messages[0].endswith("the two share no shards")


def test_what_one_process_has_written_no_other_one_writes_again(run, images, tmp_path):
    """A second start, while the first one has still to leave."""
    output, more = tmp_path / "s.csv", tmp_path / "more.csv"
    folder, lock = shards_dir(saved(run, images)), predictions_claim(saved(run, images))
    folder.parent.mkdir(exist_ok=True)
    with sharing.joined(folder, lock, "another plan", [], SILENT):
        made, _ = predict(run, images, output)
        stamps = [path.stat().st_mtime_ns for path in (output, made.predictions)]
        again, events = predict(run, images, output, stored_bytes=0)
        assert (made.is_new, again.is_new) == (True, False) and made.said == again.said
        assert [path.stat().st_mtime_ns for path in (output, made.predictions)] == stamps
        assert "resuming: 9 of 9 shards are finished" in events.messages
        assert np.array_equal(made.probabilities, again.probabilities)
        assert predict(run, images, more)[0].is_new and more.read_bytes() == output.read_bytes()
        assert predict(run, images, output, form="probability")[0].is_new and more.read_bytes() != output.read_bytes()
        assert made.predictions.stat().st_mtime_ns == stamps[1]
        output.write_text("another one's")  # as on a machine that has its own
        assert predict(run, images, output)[0].is_new and more.read_bytes() == output.read_bytes()


def test_progress_counts_what_other_processes_have_done(run, images, tmp_path, monkeypatch):
    """Another process predicts three shards, while this one predicts its first."""
    monkeypatch.setattr(sharing, "LOOK_SECONDS", 0.0)
    shown = []
    other = [*range(7, 28)]

    def meanwhile(text, done, total):
        if text.startswith("predicting"):
            shown.append(round(done))
        if len(shown) == 2:
            for part in sharing_parts[1:4]:
                shards.write(part, np.full((len(part), 2), 0.5, np.float32), {})

    sharing_parts = []
    divide = shards.divide

    def keep(*words):
        sharing_parts.extend(divide(*words))
        return sharing_parts

    monkeypatch.setattr(shards, "divide", keep)
    made, _ = predict(run, images, tmp_path / "s.csv", stored_bytes=0, on_progress=meanwhile)
    assert shown[0] == 0 and 28 in shown and shown[-1] == 60 and shown == sorted(shown)
    halves = np.flatnonzero((load_logits(made.predictions).values[0] == np.log(np.float32(0.5))).all(axis=1))
    assert halves.tolist() == other

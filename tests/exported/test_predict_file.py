"""`ens predict-file`."""

import json
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from commands import ens
from exported_file import CLASSES, content, description
from PIL import Image
from recorder import Recorder

from ensemble.errors import UserError
from ensemble.exported import predict as predicting
from ensemble.exported.model import load_exported
from ensemble.exported.predict import FileRequest, predict_file
from ensemble.files.claims import claimed

PURE = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


@pytest.fixture
def images(tmp_path):
    """40 images, 00.png to 39.png, red, green and blue in turn."""
    (tmp_path / "test").mkdir()
    for index in range(40):
        Image.new("RGB", (45, 45), PURE[CLASSES[index % 3]]).save(tmp_path / "test" / f"{index:02}.png")
    return tmp_path / "test"


@pytest.fixture
def small_shards(monkeypatch):
    """40 images are three shards."""
    monkeypatch.setattr(predicting, "SHARD_BATCHES", 1)


def predict(file, images, output, on_bad="error"):
    events = Recorder()
    return predict_file(FileRequest(load_exported(file), images, output, on_bad=on_bad), events), events.messages


def rows(path):
    return [line.split(",") for line in path.read_text().splitlines()]


def hidden(folder):
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def test_pictures_are_printed(monkeypatch, capfd, exported, images):
    monkeypatch.chdir(images)
    status, out, err = ens(monkeypatch, capfd, "predict-file", exported, "01.png", "02.png")
    assert (status, err) == (0, "")
    first, second = out.splitlines()
    assert first.startswith("01.png: green 9") and second.startswith("02.png: blue 9") and second.count("%") == 3
    status, out, _ = ens(monkeypatch, capfd, "predict-file", exported, "02.png", "--json", "--engine", "onnxruntime")
    answer = json.loads(out)["result"]
    assert answer["classes"] == list(CLASSES) and np.argmax(answer["probabilities"]) == 2
    status, out, _ = ens(monkeypatch, capfd, "predict-file", exported, "02.png", "-o", "one.csv")
    assert status == 0 and "wrote one.csv" in out and rows(images / "one.csv") == [["id", "label"], ["02.png", "blue"]]
    status, out, _ = ens(monkeypatch, capfd, "predict-file", exported, "02.png", "--form", "index")
    assert status == 0 and rows(images / "submission.csv")[1:] == [["02.png", "2"]]  # a form is that of a CSV


def test_a_picture_that_cannot_be_read_is_decided_for_no_class(monkeypatch, capfd, images):
    costs = ((0.0, 1.0, 1.0), (1.0, 0.0, 1.0), (90.0, 90.0, 0.0))
    (images / "a.onnx").write_bytes(content(description(costs=costs)))
    (images / "01.png").write_bytes(b"not a picture")
    monkeypatch.chdir(images)
    words = ("predict-file", "a.onnx", "00.png", "01.png", "--on-bad", "skip", "--json")
    status, out, _ = ens(monkeypatch, capfd, *words)
    assert status == 0 and json.loads(out)["result"]["decided"] == ["blue", ""]


def test_a_folder_becomes_a_submission_and_nothing_else_is_left(monkeypatch, capfd, exported, images, tmp_path):
    sample = tmp_path / "sample.csv"
    sample.write_text("image;class\n07;red\n03;red\n02;red\n")
    monkeypatch.chdir(tmp_path)
    words = ("predict-file", exported, images, "--sample-submission", sample)
    status, out, err = ens(monkeypatch, capfd, *words)
    assert (status, err) == (0, "") and hidden(tmp_path) == []
    assert (tmp_path / "submission.csv").read_text() == "image;class\n07;green\n03;red\n02;blue\n"
    assert "37 images are not in" in out and "3 images; blend mean of 2 members, 4 networks in all; by OpenVINO" in out


def test_it_resumes_to_the_same_bytes(exported, images, tmp_path, small_shards):
    whole, again = tmp_path / "whole.csv", tmp_path / "again.csv"
    predict(exported, images, whole)
    content_of_last = (images / "39.png").read_bytes()
    (images / "39.png").write_bytes(b"not a picture")
    with pytest.raises(
        UserError, match=r"39\.png: not a readable image.*; 2 of 3 shards are kept, and the same command"
    ):
        predict(exported, images, again)
    assert hidden(tmp_path) == [".again.csv.shards"]
    (images / "39.png").write_bytes(content_of_last)
    made, said = predict(exported, images, again)
    assert "resuming: 2 of 3 shards are finished" in said and made.rows == 40
    assert again.read_bytes() == whole.read_bytes() and hidden(tmp_path) == []


def test_another_file_predicts_everything_anew(exported, images, tmp_path, small_shards):
    (images / "39.png").write_bytes(b"not a picture")
    output, other = tmp_path / "s.csv", tmp_path / "other.onnx"
    with pytest.raises(UserError, match="2 of 3 shards are kept"):
        predict(exported, images, output)
    other.write_bytes(content(description(created="2026-01-02T00:00:00")))
    made, said = predict(other, images, output, "skip")
    assert "removed 2 shards of a stopped prediction of other images or with other settings" in said
    assert made.unreadable == 1 and made.said.endswith("; 1 image has empty cells")
    assert "1 of 40 images could not be read and have no prediction:" in said
    assert any(line.startswith("  39.png: not a readable image") for line in said)
    assert rows(output)[-1] == ["39.png", ""] and rows(output)[-2] == ["38.png", "blue"]


@pytest.mark.process
def test_killed_it_resumes_to_the_same_bytes(exported, images, tmp_path, small_shards):
    """Killed by itself when it writes its second shard."""
    whole, output = tmp_path / "whole.csv", tmp_path / "s.csv"
    predict(exported, images, whole)
    code = (
        "import os, signal, sys\nfrom ensemble import cli\nfrom ensemble.exported import predict\n"
        "from ensemble.predictions import shards\npredict.SHARD_BATCHES = 1\nwrite, count = shards.write, []\n"
        "def killed(*words):\n    count.append(1)\n    if len(count) == 2: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    write(*words)\nshards.write = killed\ncli.main()\n"
    )
    words = [sys.executable, "-c", code, "predict-file", exported, images, "-o", output]
    assert subprocess.run(words, capture_output=True).returncode == -signal.SIGKILL and not output.exists()
    _, said = predict(exported, images, output)
    assert "resuming: 1 of 3 shards are finished" in said and output.read_bytes() == whole.read_bytes()


def test_bad_input_is_one_line(monkeypatch, capfd, exported, images, tmp_path):
    (tmp_path / "sample.csv").write_text("id,label\n00,cat\n01,dog\n02,mouse\n")
    (tmp_path / "bad.onnx").write_bytes(exported.read_bytes()[:-3])
    shutil.copy(exported, tmp_path / "art.onnx")
    monkeypatch.chdir(tmp_path)
    cases = [
        (["bad.onnx", images], "bad.onnx: an ONNX file without the digest of ens at its end"),
        (["none.onnx", images], "none.onnx: no such file"),
        (["art.onnx", "none"], "none: no such file or folder"),
        (["art.onnx", images, "--sample-submission", "sample.csv"], "cat"),
        (["art.onnx", images, "-o", "art.onnx"], "art.onnx: is what the command reads"),
        (["art.onnx", images / "00.png", "-o", "art.onnx"], "art.onnx: is what the command reads"),
        (["sample.csv", images], "sample.csv: not an ONNX file"),
    ]
    for words, reason in cases:
        status, _, err = ens(monkeypatch, capfd, "predict-file", *words)
        assert status == 2 and reason in err and err.startswith("ens: ") and err.count("\n") == 1, (words, err)
    for path in images.iterdir():
        path.write_bytes(b"nothing")
    status, _, err = ens(monkeypatch, capfd, "predict-file", "art.onnx", images, "--on-bad", "skip")
    assert status == 2 and "not one of its 40 images could be read" in err and hidden(tmp_path) == []


def test_two_at_a_time_do_not_share_an_output(exported, images, tmp_path):
    with claimed(tmp_path / ".s.csv.claim"), pytest.raises(UserError, match=r"s\.csv: another ens predict-file is"):
        predict(exported, images, tmp_path / "s.csv")


def test_memory_holds_a_few_batches(exported, images, small_shards):
    """However many there are: images are asked for as they are needed."""
    asked = 0

    def batches():
        nonlocal asked
        for _ in range(50):
            asked += 1
            yield [images / "00.png"]

    stream = load_exported(exported).stream(batches(), "error")
    next(stream)
    assert asked < 6
    stream.close()

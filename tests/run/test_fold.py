"""Names of a run's files, writes that are whole or not there, and done markers."""

import errno
import signal
import subprocess
import sys

import pytest

from ensemble.errors import UserError
from ensemble.files.atomic import replacing, write_text
from ensemble.files.reading import read_json
from ensemble.files.sealed import write_json
from ensemble.run import Run


def refusal(call, *arguments):
    with pytest.raises(UserError) as caught:
        call(*arguments)
    return str(caught.value)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def child(code, path):
    names = "from pathlib import Path\nfrom ensemble.files.atomic import replacing, write_text\n"
    code = f"{names}path = Path({str(path)!r})\n{code}"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


# ---- writes --------------------------------------------------------------------------------------------------------


def test_write_makes_the_folder_and_leaves_only_the_file(tmp_path):
    path = tmp_path / "a" / "b" / "file.txt"
    write_text(path, "한\r\nline\n")
    write_text(path, "new\r\n")
    assert path.read_bytes() == b"new\r\n"
    assert names(path.parent) == ["file.txt"]


def test_nobody_sees_the_file_before_it_is_whole(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("half")
        assert path.read_text() == "old" and temporary.parent == tmp_path
    assert path.read_text() == "half"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_old_file_is_whole_when_the_writer_raises(tmp_path, error):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(error), replacing(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


def test_writer_that_raises_before_it_writes(tmp_path):
    with pytest.raises(ValueError), replacing(tmp_path / "file.txt"):
        raise ValueError
    assert names(tmp_path) == []


def test_old_file_is_whole_when_the_writer_is_killed(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    code = """
import os, signal
with replacing(path) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert child(code, path).returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    assert len(names(tmp_path)) == 2  # the half file lies beside it under its temporary name
    write_text(path, "new")
    assert path.read_text() == "new"


def test_old_file_is_whole_when_the_disk_takes_no_more(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    code = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_text(path, "x" * 100_000)
except OSError as error:
    print(error.errno)
"""
    done = child(code, path)
    assert (done.stdout, done.stderr) == (f"{errno.EFBIG}\n", "")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


# ---- JSON ----------------------------------------------------------------------------------------------------------


def test_json_is_readable_and_comes_back(tmp_path):
    value = {"classes": ["고양이", "NA"], "seed": 0, "lr": 3e-4}
    write_json(tmp_path / "a.json", value)
    assert "고양이" in (tmp_path / "a.json").read_text(encoding="utf-8")
    assert read_json(tmp_path / "a.json") == value


def test_json_that_is_missing_or_broken(tmp_path):
    path = tmp_path / "a.json"
    assert refusal(read_json, path) == f"{path}: no such file"
    path.write_text('{"a": ')
    assert refusal(read_json, path) == f"{path}: not valid JSON (Expecting value: line 1 column 7 (char 6))"
    path.write_bytes(b"\xff\xfe")
    assert refusal(read_json, path) == f"{path}: not UTF-8 text (byte 0 is 0xff)"


# ---- done markers --------------------------------------------------------------------------------------------------


@pytest.fixture
def fold(tmp_path):
    """A finished fold of two files."""
    fold = Run(tmp_path).member("swin").fold(0)
    write_text(fold.model_file, "weights")
    write_text(fold.oof_file, "logits")
    fold.mark_done([fold.model_file, fold.oof_file], seconds=3)
    return fold


def test_done_fold(fold):
    assert fold.is_done()
    found = read_json(fold.done_json)
    assert {name: own["bytes"] for name, own in found["files"].items()} == {
        "model.safetensors": 7,
        "oof.safetensors": 6,
    }
    assert found["seconds"] == 3
    write_json(fold.done_json, {"files": {"model.safetensors": 7, "oof.safetensors": 6}, "seconds": 3})
    assert fold.is_done()  # as markers were before there were digests


def test_fold_without_its_marker_is_not_done(fold):
    (fold.done_json).unlink()
    assert not fold.is_done()
    assert not fold.member.fold(7).is_done()


def test_fold_with_a_missing_file_is_not_done(fold):
    fold.oof_file.unlink()
    assert not fold.is_done()


@pytest.mark.parametrize("text", ["weight", "weights!", ""])
def test_fold_with_a_file_of_another_size_is_not_done(fold, text):
    fold.model_file.write_text(text)
    assert not fold.is_done()


# ---- what a run holds ----------------------------------------------------------------------------------------------


def test_folds_in_the_order_of_their_numbers(tmp_path):
    for number in (10, 9, 0, 2):
        Run(tmp_path).member("swin").fold(number).path.mkdir(parents=True)
    (tmp_path / "swin" / "fold3.old").mkdir()
    (tmp_path / "swin" / "preprocess.json").touch()
    assert [fold.number for fold in Run(tmp_path).member("swin").folds()] == [0, 2, 9, 10]


def test_members_are_the_folders_with_settings(tmp_path):
    for member in ("swin", "convnext"):
        write_json(Run(tmp_path).member(member).settings_json, {})
    write_json(Run(tmp_path).blend_json("stack"), {})
    assert Run(tmp_path).member_names() == ["convnext", "swin"]


def test_folder_that_is_no_run(tmp_path):
    line = f"{tmp_path}: not a run directory (it has no folds.csv); make one with: ens train-folds FILE"
    assert refusal(Run(tmp_path).require) == line
    Run(tmp_path).folds_csv.touch()
    Run(tmp_path).require()


def test_the_fold_that_was_trained_with_other_settings_is_found(tmp_path):
    member = Run(tmp_path).member("net")
    path = member.settings_json
    for fold, epochs in ((0, 3), (1, 3), (10, 5)):
        write_json(path, {"epochs": epochs})
        Run(tmp_path).member("net").fold(fold).finish(1.0)
    assert str(member.fold_of_other_settings()) == "net fold 0"
    write_json(path, {"epochs": 3})
    assert str(member.fold_of_other_settings()) == "net fold 10"
    Run(tmp_path).member("net").fold(10).done_json.unlink()
    assert member.fold_of_other_settings() is None

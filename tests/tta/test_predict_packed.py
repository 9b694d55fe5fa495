"""The commands on a zip: what they write is what they write of the folder, to the byte."""

import os
import shutil
from pathlib import Path
from zipfile import ZipFile

import pytest
from commands import ens

from ensemble.config import load_config
from ensemble.events import SILENT
from ensemble.run import Run
from ensemble.train.jobs import train_folds


@pytest.fixture
def work(noise_run, tmp_path, monkeypatch):
    """A working folder with train.zip, which holds what the run was trained on."""
    monkeypatch.setenv("ENS_CACHE", str(tmp_path / "cache"))
    shutil.make_archive(str(tmp_path / "train"), "zip", noise_run.parent, "train")
    monkeypatch.chdir(tmp_path)
    return noise_run.parent / "train"


def test_a_run_begun_from_the_folder_goes_on_from_the_zip(noise_run, work):
    config = load_config(noise_run / "config.toml", ("data.train=train.zip", f"run={noise_run}"))
    times = {path: path.stat().st_mtime_ns for path in noise_run.rglob("*.safetensors")}
    assert train_folds(config, SILENT) == []
    assert {path: path.stat().st_mtime_ns for path in noise_run.rglob("*.safetensors")} == times
    assert 'train = "train.zip"' in Run(noise_run).config_toml.read_text()


def test_predictions_are_the_folders(noise_run, work, exported_noise, monkeypatch, capfd):
    ids = [f"{path.relative_to(work).as_posix()},a\n" for path in sorted(work.rglob("*.png"))]
    Path("sample_submission.csv").write_text("image,answer\n" + "".join(ids[::-1]))
    with ZipFile("train.zip", "a") as archive:
        archive.write("sample_submission.csv")
    of_folder, of_zip = (work, "sample_submission.csv"), ("train.zip/train", "train.zip/sample_submission.csv")
    for command, model in (("tta-predict", noise_run), ("predict-file", exported_noise)):
        for (images, sample), output in ((of_folder, "folder.csv"), (of_zip, "zip.csv")):
            options = ("--sample-submission", sample, "-o", output)
            status, printed, errors = ens(monkeypatch, capfd, command, model, images, *options)
            assert status == 0, errors
        assert Path("zip.csv").read_bytes() == Path("folder.csv").read_bytes()
        assert str(Path(os.environ["ENS_CACHE"])) not in printed
        Path("zip.csv").unlink()
        Path("folder.csv").unlink()


def test_check_and_init_name_the_zip(work, monkeypatch, capfd):
    for index in range(6):
        shutil.copy(work / "ab"[index % 2] / f"{index}.png", Path(f"t{index}.png"))
    shutil.make_archive("all", "zip", work.parent, "train")
    (work / "a" / "bad.png").write_bytes(b"no image")
    shutil.make_archive("bad", "zip", work.parent, "train")
    (work / "a" / "bad.png").unlink()
    status, printed, errors = ens(monkeypatch, capfd, "check", "all.zip", "--fix", "fixed.csv")
    assert status == 0 and 'train = "fixed.csv", images = "all.zip"' in printed, printed + errors
    status, printed, errors = ens(monkeypatch, capfd, "init", "all.zip", "-o", "e.toml")
    assert status == 0, errors
    written = Path("e.toml").read_text()
    assert 'train = "all.zip"' in written and 'run = "runs/all"' in written and os.environ["ENS_CACHE"] not in written
    status, printed, errors = ens(monkeypatch, capfd, "init", "fixed.csv", "--images", "all.zip", "-o", "fixed.toml")
    assert status == 0 and 'images = "all.zip"' in Path("fixed.toml").read_text(), errors
    status, printed, errors = ens(monkeypatch, capfd, "init", "bad.zip", "-o", "bad.toml")
    assert status == 2 and errors == "ens: bad.zip/a/bad.png: not a readable image; replace it or remove it\n"
    status, printed, errors = ens(monkeypatch, capfd, "cache")
    assert " of unpacked images" in printed
    status, printed, errors = ens(monkeypatch, capfd, "cache", "--clear")
    assert status == 0 and not list(Path(os.environ["ENS_CACHE"]).glob("unpacked/*/copy.json"))

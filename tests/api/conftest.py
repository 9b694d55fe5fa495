"""A trained run, for all tests of the front door."""

import shutil

import pytest


@pytest.fixture
def art(run_on_noise, tmp_path, monkeypatch):
    """The working directory, with what examples name: data/art/train (classes a and b), art.toml and its finished run
    runs/art of the members resnet and vit, with the blend "mean"."""
    trained = run_on_noise.parent
    shutil.copytree(trained / "train", tmp_path / "data" / "art" / "train")
    shutil.copytree(run_on_noise, tmp_path / "runs" / "art")
    text = (trained / "e.toml").read_text(encoding="utf-8")
    text = text.replace(str(trained / "train"), "data/art/train").replace(str(run_on_noise), "runs/art")
    (tmp_path / "art.toml").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path

"""A trained run, for all tests of the front door."""

import shutil
import zlib

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def trained(tmp_path_factory, blended_run):
    """A folder with data/art/train (two classes), its experiment e.toml, and its finished run: two members, two folds,
    the blend "mean"."""
    folder = tmp_path_factory.mktemp("api")
    for index in range(16):
        path = folder / "train" / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(zlib.crc32(path.name.encode())).integers(0, 128, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(noise + np.uint8(100 * (index % 2))).save(path)
    blended_run(folder)
    return folder


@pytest.fixture
def art(trained, tmp_path, monkeypatch):
    """The working directory, with what examples name: data/art/train, art.toml, runs/art."""
    shutil.copytree(trained / "train", tmp_path / "data" / "art" / "train")
    shutil.copytree(trained / "run", tmp_path / "runs" / "art")
    text = (trained / "e.toml").read_text(encoding="utf-8")
    text = text.replace(str(trained / "train"), "data/art/train").replace(str(trained / "run"), "runs/art")
    (tmp_path / "art.toml").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path

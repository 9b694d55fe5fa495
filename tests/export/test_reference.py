"""The guide's script that predicts by an exported file without ens: its pixels, and its answers."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ensemble
from ensemble.data.pixels.decode import decode, middle_square
from ensemble.data.pixels.preprocess import Decoding

GUIDE = Path(__file__).parents[2] / "docs/pages/guides/export-and-serve.md"
PAINTINGS = Path(__file__).parents[3] / "shared" / "data" / "art-painting" / "test"


@pytest.fixture(scope="module")
def script():
    (code,) = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.S)
    assert len([line for line in code.splitlines() if line.strip()]) <= 40
    return code


@pytest.fixture(scope="module")
def square(script):
    names = {}
    exec(script.partition("session = ")[0], names)
    return names["square"]


def test_it_answers_as_the_run_does(script, exported_noise, noise_run, tmp_path, monkeypatch, capsys):
    (tmp_path / "art.onnx").symlink_to(exported_noise)
    files = sorted((noise_run.parent / "train").glob("*/*.png"))[:3]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["script", *map(str, files)])
    exec(script, {})
    want = ensemble.predict(noise_run, files).labels
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == want


@pytest.mark.parametrize("crop", [None, (40, 50)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "lanczos", "nearest"])
def test_its_pixels_are_those_of_ens(square, tmp_path, interpolation, crop):
    draw = np.random.default_rng(0)
    for number, (width, height) in enumerate([(90, 61), (50, 170), (32, 32), (20, 31)]):
        small = Image.fromarray(draw.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        path = tmp_path / f"{number}.{'jpg' if number % 2 else 'png'}"
        exif = Image.Exif()
        exif[0x0112] = 6  # on its side
        small.resize((width, height)).save(path, exif=exif)
        want = middle_square(decode(path, Decoding(32, interpolation, crop))).astype(int)
        found = square(path, 32, interpolation, crop)
        assert found.shape == (32, 32, 3)
        assert np.abs(found - want).max() <= 2


@pytest.mark.skipif(not PAINTINGS.is_dir(), reason="needs the paintings")
def test_on_the_paintings(square):
    apart = []
    for path in sorted(PAINTINGS.rglob("*.*"))[:20]:
        want = middle_square(decode(path, Decoding(219, "bicubic", None))).astype(int)
        apart.append(np.abs(square(path, 219, "bicubic", None) - want))
    assert max(each.max() for each in apart) <= 2
    assert np.mean([each > 0 for each in apart]) < 0.01

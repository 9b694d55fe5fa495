"""NumPy resizes as torch does, to the byte."""

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import from_numpy
from torch.nn.functional import interpolate

from ensemble.data.pixels.decode import decode
from ensemble.data.pixels.preprocess import Decoding
from ensemble.data.pixels.resize import resized

side = st.integers(1, 300)


@given(side, side, side, side, st.sampled_from(["bilinear", "bicubic"]), st.booleans(), st.integers(0, 999))
def test_it_is_torchs_to_the_byte(height, width, new_height, new_width, interpolation, extreme, seed):
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    if extreme:  # bicubic weights overshoot most between 0 and 255
        image = np.where(image > 127, 255, 0).astype(np.uint8)
    pixels = from_numpy(image).permute(2, 0, 1)[None]
    want = interpolate(pixels, size=(new_height, new_width), mode=interpolation, antialias=True)
    assert np.array_equal(resized(image, (new_width, new_height), interpolation), want[0].permute(1, 2, 0).numpy())


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_a_file_is_decoded_alike_without_torch(tmp_path, paint, monkeypatch, interpolation):
    path, decoding = paint(tmp_path / "a.png", 150, 101), Decoding(64, interpolation, None)
    with_torch = decode(path, decoding)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert np.array_equal(decode(path, decoding), with_torch)

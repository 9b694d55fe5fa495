"""What several test files share: small noisy images, and the same Hypothesis examples on every run."""

import zlib

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

settings.register_profile("ens", deadline=None, derandomize=True, database=None)
settings.load_profile("ens")


@pytest.fixture
def paint():
    """paint(path, width, height): write noise that depends on the file's name alone, in the format of its ending."""

    def write(path, width=32, height=32):
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(zlib.crc32(path.name.encode()))
        Image.fromarray(noise.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
        return path

    return write

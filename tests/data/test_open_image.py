"""Pillow's limit of pixels, which a program that imports ens may rely on."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from ensemble.data.pixels.decode import decode, decode_image
from ensemble.data.pixels.open_image import open_image, without_pillow_limit
from ensemble.data.pixels.preprocess import Decoding
from ensemble.data.scan import look
from ensemble.report.thumbnails import thumbnails

LIMIT = 100  # pixels: Pillow warns above it, which is an error in the tests, and refuses above twice as many


@pytest.fixture
def limit(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", LIMIT)


def test_importing_ens_leaves_the_limit_as_it_is():
    assert Image.MAX_IMAGE_PIXELS == 1024**3 // 4 // 3


def test_ens_reads_what_pillow_would_refuse_and_leaves_its_limit(tmp_path, paint, limit):
    paths = [paint(tmp_path / f"{row}.{'jpg' if row % 2 else 'png'}", 60, 40) for row in range(24)]
    decoding = Decoding(20, "bicubic", (30, 30))
    with ThreadPoolExecutor(8) as pool:
        images = list(pool.map(lambda path: decode(path, decoding), paths))
    assert {image.shape for image in images} == {(20, 20, 3)}
    assert not look(paths[0])[0]["error"] and not thumbnails(paths[:1])[0].problem
    assert decode_image(Image.fromarray(np.zeros((40, 60, 3), dtype=np.uint8)), decoding).shape == (20, 20, 3)
    assert Image.MAX_IMAGE_PIXELS == LIMIT
    with pytest.raises(Image.DecompressionBombError):
        Image.open(paths[0])


def test_the_limit_comes_back_when_the_last_of_several_threads_is_done(limit):
    inside, leave = threading.Event(), threading.Event()

    def stay():
        with without_pillow_limit():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=stay)
    thread.start()
    assert inside.wait(10)
    with without_pillow_limit():
        assert Image.MAX_IMAGE_PIXELS is None
    assert Image.MAX_IMAGE_PIXELS is None  # the other one may be decoding
    leave.set()
    thread.join()
    assert Image.MAX_IMAGE_PIXELS == LIMIT


def test_a_file_that_is_no_image_leaves_the_limit_as_it_is(tmp_path, limit):
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(Image.UnidentifiedImageError), open_image(tmp_path / "a.png"):
        pass
    assert Image.MAX_IMAGE_PIXELS == LIMIT


def test_a_limit_that_the_program_sets_meanwhile_stays(limit):
    with without_pillow_limit():
        Image.MAX_IMAGE_PIXELS = 7
    assert Image.MAX_IMAGE_PIXELS == 7

"""Batches: one order of chances whatever makes them, and no thread left behind."""

import threading

import numpy as np
import pytest
import torch
from PIL import Image

from ensemble.config import Train
from ensemble.data.pixels.decode import Files, Pixels
from ensemble.data.pixels.preprocess import Decoding
from ensemble.errors import UserError
from ensemble.train import batches as module
from ensemble.train.augment.crops import crops
from ensemble.train.augment.policy import Augmentation, draw
from ensemble.train.batches import AHEAD, batches, cutter, far_ahead

CPU = torch.device("cpu")
OWN_SIZE = Decoding(None, "bicubic", None)
ORDER = np.array([[5, 2, 9, 0], [7, 7, 1, 4], [3, 6, 8, 2], [0, 1, 2, 3], [9, 8, 7, 6]])
EVERYTHING = {
    "crop_area": (0.2, 0.8), "hflip": True, "vflip": True, "rotate": 25.0, "color_jitter": 0.3, "trivial_augment": True,
    "erase": 0.5,
}  # fmt: skip


@pytest.fixture
def paths(tmp_path, paint):
    return [paint(tmp_path / f"{row}.png", 30 + 2 * row, 44 - row) for row in range(10)]


def in_memory(paths):
    """The same images as `Files` of their own size gives, decoded already."""
    images = [np.asarray(Image.open(path)) for path in paths]
    sizes = [image.size for image in images]
    starts = np.cumsum([0, *sizes[:-1]])
    flat = np.concatenate([image.ravel() for image in images])
    return Pixels((flat,), np.zeros(len(paths), np.int32), starts, np.array([image.shape[:2] for image in images]))


def made(pixels, threads=1, settings=None, order=ORDER, seed=0, size=16):
    settings = Train(**EVERYTHING) if settings is None else settings
    return list(batches(np.random.default_rng(seed), pixels, cutter(pixels, CPU, threads), order, size, settings))


def same(one, other):
    return len(one) == len(other) and all(torch.equal(a[0], b[0]) for a, b in zip(one, other, strict=True))


def test_rows_come_in_their_order_with_the_crops_that_were_drawn(paths):
    pixels = in_memory(paths)
    found = made(pixels)
    assert np.array_equal([rows for _, _, rows in found], ORDER)
    rng = np.random.default_rng(0)
    for (batch, draws, _), rows in zip(found, ORDER, strict=True):
        want = draw(rng, pixels.shapes[rows], 16, Augmentation((0.2, 0.8), True, True, 25.0, 0.3, True, 0.5))
        for name in ("matrices", "factors", "op", "magnitude", "hidden"):
            assert np.array_equal(getattr(draws, name), getattr(want, name))
        assert torch.equal(batch, crops(pixels, rows, want, 16))
        assert batch.dtype == torch.uint8 and batch.shape == (4, 3, 16, 16)
        assert batch.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("threads", [2, 3, 16])
def test_the_number_of_threads_changes_nothing(paths, threads):
    files = Files(paths, OWN_SIZE)
    assert same(made(files, 1), made(files, threads))
    assert same(made(in_memory(paths), 1), made(in_memory(paths), threads))


def test_made_here_or_ahead_they_are_the_same(paths):
    pixels = in_memory(paths)
    here = batches(np.random.default_rng(0), pixels, cutter(pixels, CPU, 1), ORDER, 16, Train(**EVERYTHING), ahead=0)
    assert same(list(here), made(pixels))
    assert (far_ahead(pixels, CPU), far_ahead(pixels, torch.device("cuda"))) == (0, AHEAD)
    assert far_ahead(Files(paths, OWN_SIZE), CPU) == AHEAD


def test_files_and_pixels_give_the_same_crops(paths):
    files, pixels = Files(paths, OWN_SIZE), in_memory(paths)
    assert np.array_equal(files.shapes, pixels.shapes)
    one, other = made(files, 2), made(pixels)
    assert same(one, other)
    assert all(np.array_equal(a[1].matrices, b[1].matrices) for a, b in zip(one, other, strict=True))
    assert all(batch.is_contiguous(memory_format=torch.channels_last) for batch, _, _ in one)


def test_another_seed_gives_others(paths):
    pixels = in_memory(paths)
    assert same(made(pixels), made(pixels)) and not same(made(pixels), made(pixels, seed=1))


@pytest.mark.parametrize("length", [0, 1, 2, 3, 5])
def test_no_batch_is_lost_however_few_there_are(paths, length):
    found = made(in_memory(paths), order=ORDER[:length])
    assert [rows.tolist() for _, _, rows in found] == ORDER[:length].tolist()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("crop_area", (0.1, 0.2)),
        ("hflip", True),
        ("vflip", True),
        ("rotate", 20.0),
        ("color_jitter", 0.5),
        ("trivial_augment", True),
        ("erase", 1.0),
    ],
)
def test_each_key_reaches_the_draws(paths, key, value):
    nothing = {"crop_area": (1.0, 1.0), "hflip": False, "color_jitter": 0.0}
    pixels = in_memory(paths)
    ((_, plain, _),) = made(pixels, settings=Train(**nothing), order=np.arange(10)[None])
    ((_, draws, _),) = made(pixels, settings=Train(**nothing | {key: value}), order=np.arange(10)[None])
    assert (plain.factors, plain.op, plain.hidden) == (None, None, None)
    sides = plain.matrices[:, [0, 1], [0, 1]]
    assert (sides > 0).all()
    match key:
        case "crop_area":
            share = draws.matrices[:, [0, 1], [0, 1]].prod(1) * 16**2 / pixels.shapes.prod(1)
            assert (share < 0.23).all()
        case "hflip" | "vflip":
            axis = int(key == "vflip")
            mirrored = draws.matrices[:, axis, axis] < 0
            assert 0 < mirrored.sum() < 10
            assert (draws.matrices[:, 1 - axis, 1 - axis] == sides[:, 1 - axis]).all()
        case "rotate":
            assert (draws.matrices[:, 0, 1] != 0).all()
        case "color_jitter":
            assert draws.factors.min() < 0.7 and draws.factors.max() > 1.3
        case "trivial_augment":
            assert len(set(draws.op.tolist())) > 3
        case "erase":
            assert (draws.hidden[:, 2] > 0).all()


def test_rows_take_the_operation_by_their_own_chance(paths):
    pixels, rare = in_memory(paths), np.repeat([0.0, 1.0], [7, 3])
    stream = batches(
        np.random.default_rng(0), pixels, cutter(pixels, CPU, 1), np.tile(ORDER, (9, 1)), 16, Train(), 0, rare
    )
    changed = np.concatenate([rows[draws.op > 0] for _, draws, rows in stream])
    assert set(changed.tolist()) == {7, 8, 9}


def test_the_size_asked_for_is_given(paths):
    assert made(in_memory(paths), size=24)[0][0].shape == (4, 3, 24, 24)


def test_two_are_made_ahead_in_one_thread_and_no_more(paths):
    pixels, begun, one_more = in_memory(paths), [], threading.Semaphore(0)

    def cut(rows, draws, size):
        begun.append((rows.tolist(), threading.current_thread()))
        one_more.release()
        return crops(pixels, rows, draws, size)

    stream = batches(np.random.default_rng(0), pixels, cut, ORDER, 16, Train())
    assert begun == []
    next(stream)
    for _ in range(1 + AHEAD):  # without being asked for
        assert one_more.acquire(timeout=60)
    stream.close()
    assert [rows for rows, _ in begun] == ORDER[:3].tolist()
    (thread,) = {thread for _, thread in begun}
    assert thread is not threading.main_thread() and not thread.is_alive()


@pytest.mark.parametrize("kind", ["files", "pixels"])
def test_left_early_it_leaves_no_thread(paths, kind):
    pixels = Files(paths, OWN_SIZE) if kind == "files" else in_memory(paths)
    before = set(threading.enumerate())
    cut = cutter(pixels, CPU, 3)
    for _ in batches(np.random.default_rng(0), pixels, cut, np.tile(ORDER, (50, 1)), 16, Train()):
        assert len(threading.enumerate()) > len(before)
        break
    del cut
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=30)
    assert set(threading.enumerate()) <= before


def test_an_unreadable_file_is_named_and_leaves_no_thread(paths):
    files = Files(paths, OWN_SIZE)
    paths[3].write_text("no image")
    before = set(threading.enumerate())
    cut = cutter(files, CPU, 2)
    seen = []
    with pytest.raises(UserError, match=r"3\.png: not a readable image"):
        for _, _, rows in batches(np.random.default_rng(0), files, cut, ORDER, 16, Train()):
            seen.append(rows.tolist())
    assert seen == ORDER[:2].tolist()
    del cut
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=30)
    assert set(threading.enumerate()) <= before


def test_files_take_the_threads_they_are_given_and_pixels_none(paths, monkeypatch):
    seen = set()
    ready = threading.Barrier(3, timeout=60)

    def crops_seen(pixels, rows, draws, size):
        if len(rows) == 1:
            ready.wait()  # passes only where three are at it together
        seen.add(threading.current_thread())
        return crops(pixels, rows, draws, size)

    monkeypatch.setattr(module, "crops", crops_seen)
    made(Files(paths, OWN_SIZE), 3, order=ORDER[:3, :3])
    assert len(seen) == 3
    seen.clear()
    made(in_memory(paths), 3, order=ORDER[:3])
    assert len(seen) == 1


def test_pixels_that_a_gpu_has_no_room_for_are_not_copied_at_all(monkeypatch):
    """Half a terabyte would fill the host before it is found not to fit into the GPU."""
    asked = []
    monkeypatch.setattr(module, "free_memory", lambda device: asked.append(device) or 10**11)
    count = 2_000_000
    shapes = np.full((count, 2), 300)
    pixels = Pixels((np.zeros(0, np.uint8),), np.zeros(count, np.int32), np.arange(count) * 270_000, shapes)
    cutter(pixels, torch.device("cuda"), 1)
    assert asked == [torch.device("cuda")]

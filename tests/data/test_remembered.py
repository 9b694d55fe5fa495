"""One search for copies: the same answer for every order, name and asker, remembered while the files hold the same."""

import json

import numpy as np
import pytest
from PIL import Image

from ensemble.data.copies import remembered
from ensemble.data.copies.remembered import find_copies
from ensemble.data.scan import scan
from ensemble.events import SILENT


def picture(seed, side=96):
    coarse, fine = (
        Image.fromarray(np.random.default_rng((seed, cells)).integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        for cells in (12, 32)
    )
    size = (side, side)
    return Image.blend(coarse.resize(size, Image.Resampling.BICUBIC), fine.resize(size, Image.Resampling.BICUBIC), 0.4)


@pytest.fixture
def images(tmp_path):
    """Four pictures; the first again mirrored (4), turned (5) and byte for byte (6), the second with much drawn over
    (7)."""
    made = [picture(seed) for seed in range(4)]
    over = made[1].copy()
    over.paste(picture(77, 30), (30, 50))
    made += [
        made[0].transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        made[0].transpose(Image.Transpose.ROTATE_90),
        made[0],
        over,
    ]
    paths = [tmp_path / "images" / f"{row}.png" for row in range(len(made))]
    paths[0].parent.mkdir()
    for path, image in zip(paths, made, strict=True):
        image.save(path)
    return paths


def found(paths, folder):
    pairs = find_copies(scan(paths, folder, SILENT), np.arange(len(paths)), folder, SILENT)
    return list(zip(pairs.first.tolist(), pairs.second.tolist(), pairs.kinds, strict=True)), pairs.similarity.tolist()


PAIRS = [
    (0, 4, "hflip"), (0, 5, "rot90"), (0, 6, "exact"), (1, 7, "look-alike"), (4, 5, "transpose"), (4, 6, "hflip"),
    (5, 6, "rot270"),
]  # fmt: skip


def searches(monkeypatch):
    """A list that grows by one with each search."""
    done = []
    search = remembered.search
    monkeypatch.setattr(remembered, "search", lambda *given: done.append(1) or search(*given))
    return done


def test_the_search_runs_once(images, tmp_path, monkeypatch):
    done = searches(monkeypatch)
    first = found(images, tmp_path / "cache")
    assert first[0] == PAIRS
    assert found(images, tmp_path / "cache") == first and len(done) == 1


def test_names_and_order_do_not_matter(images, tmp_path, monkeypatch):
    done = searches(monkeypatch)
    _, similarity = found(images, tmp_path / "cache")
    order = [7, 2, 5, 0, 6, 1, 4, 3]
    moved = []
    for row in order:
        moved.append(tmp_path / "elsewhere" / f"{len(moved)}.png")
        moved[-1].parent.mkdir(exist_ok=True)
        moved[-1].write_bytes(images[row].read_bytes())
    again, values = found(moved, tmp_path / "cache")
    assert len(done) == 1 and sorted(values) == sorted(similarity)
    back = {tuple(sorted((order[one], order[other]))) for one, other, _ in again}
    assert back == {(one, other) for one, other, _ in PAIRS}
    # the kind is what makes the later of the two: 5 stands before 0 now
    assert (2, 3, "rot270") in again and (3, 4, "exact") in again


def test_another_image_or_version_is_searched_anew(images, tmp_path, monkeypatch):
    done = searches(monkeypatch)
    found(images, tmp_path / "cache")
    picture(9).save(images[3])
    found(images, tmp_path / "cache")
    assert len(done) == 2
    monkeypatch.setattr(remembered, "VERSION", -1)
    found(images, tmp_path / "cache")
    assert len(done) == 3


def test_some_rows_of_a_scan_are_as_if_alone(images, tmp_path, monkeypatch):
    done = searches(monkeypatch)
    alone = found(images[:5], tmp_path / "cache")
    seen = scan(images, tmp_path / "cache", SILENT)
    pairs = find_copies(seen, np.arange(5), tmp_path / "cache", SILENT)
    assert list(zip(pairs.first.tolist(), pairs.second.tolist(), pairs.kinds, strict=True)) == alone[0]
    assert len(done) == 1


@pytest.mark.parametrize("damage", ["flip", "cut", "row", "kind", "type"])
def test_a_damaged_memory_is_made_anew(images, tmp_path, monkeypatch, damage):
    whole = found(images, tmp_path / "cache")
    (path,) = (tmp_path / "cache" / "copies").iterdir()
    data = path.read_bytes()
    held = json.loads(data)
    if damage == "flip":
        at = data.index(b"hflip")
        path.write_bytes(data[:at] + b"v" + data[at + 1 :])
    elif damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    else:
        broken = {"row": [0, 99, "hflip", 1.0], "kind": [0, 1, "?", 1.0], "type": ["0", 1, "hflip", None]}[damage]
        path.write_text(json.dumps({"pairs": [*held["pairs"], broken]}))
    done = searches(monkeypatch)
    assert found(images, tmp_path / "cache") == whole and len(done) == 1
    assert found(images, tmp_path / "cache") == whole and len(done) == 1  # mended


def test_a_cache_that_can_not_be_written_is_done_without(images, tmp_path):
    (tmp_path / "file").write_text("in the way")
    pairs, _ = found(images, tmp_path / "file")
    assert pairs == PAIRS


def test_no_images_have_no_pairs(tmp_path):
    assert found([], tmp_path / "cache") == ([], [])

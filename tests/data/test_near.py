"""Copies among images: planted ones of every kind are found and named, and pictures that only look alike are not."""

import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageDraw, ImageEnhance
from recorder import Recorder

from ensemble.data.copies import near as module
from ensemble.data.copies.near import ZOOMS, Pairs, descriptors, joined_rows, near_copies
from ensemble.data.scan import scan
from ensemble.data.scan_pieces import SIDE
from ensemble.events import SILENT

MASKS = Path(__file__).parents[3] / "shared" / "data" / "masks" / "train"
SIDE_PX = 128


def blobs(seed, side=SIDE_PX):
    """Blobs of colour without fine details, of which no two seeds' are alike."""
    small = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)


def picture(seed, side=SIDE_PX):
    """Blobs with finer ones upon them, as sharp as a photo."""
    fine = np.random.default_rng(seed + 10_000).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    fine = Image.fromarray(fine).resize((side, side), Image.Resampling.BICUBIC)
    return Image.blend(blobs(seed, side), fine, 0.4)


@pytest.fixture
def store(tmp_path):
    """store(images, ending="png"): write them, and return their scan."""

    def write(images, ending="png", **options):
        paths = []
        for row, image in enumerate(images):
            folder = tmp_path / "images"
            folder.mkdir(exist_ok=True)
            paths.append(folder / f"{row:04}.{ending}")
            if isinstance(image, bytes):
                paths[-1].write_bytes(image)
            else:
                image.save(paths[-1], **options)
        return scan(paths, tmp_path / "memory", SILENT)

    return write


def listed(pairs):
    return list(zip(pairs.first.tolist(), pairs.second.tolist(), pairs.kinds, strict=True))


def same(one, other):
    assert listed(one) == listed(other) and np.array_equal(one.similarity, other.similarity)


def cropped(image, share=0.05):
    edge = round(image.width * share / 2)
    return image.crop((edge, edge, image.width - edge, image.height - edge))


def drawn_over(image, seed):
    """A box of another picture over a seventh."""
    image = image.copy()
    image.paste(picture(9000 + seed, 48), (20, 60))
    return image


def as_jpeg(image, quality, folder):
    image.save(folder / "x.jpg", quality=quality)
    return Image.open(folder / "x.jpg").copy()


TURNS = {
    "hflip": Image.Transpose.FLIP_LEFT_RIGHT,
    "vflip": Image.Transpose.FLIP_TOP_BOTTOM,
    "rot90": Image.Transpose.ROTATE_90,  # counterclockwise, as Pillow's
    "rot180": Image.Transpose.ROTATE_180,
    "rot270": Image.Transpose.ROTATE_270,
    "transpose": Image.Transpose.TRANSPOSE,
    "transverse": Image.Transpose.TRANSVERSE,
}
PLANTED = {
    "half": ("re-encoded", lambda image: image.resize((image.width // 2,) * 2, Image.Resampling.BICUBIC)),
    "wider": ("re-encoded", lambda image: image.resize((200, image.height), Image.Resampling.BICUBIC)),
    "brighter": ("re-encoded", lambda image: ImageEnhance.Brightness(image).enhance(1.25)),
    "paler": ("re-encoded", lambda image: ImageEnhance.Contrast(image).enhance(0.6)),
    "grey": ("re-encoded", lambda image: image.convert("L")),
    "cropped": ("crop", cropped),
    "cropped more": ("crop", lambda image: cropped(image, 0.09)),
    "shifted": ("crop", lambda image: image.crop((5, 0, image.width, image.height - 5))),
    "tilted": ("crop", lambda image: image.rotate(3, Image.Resampling.BICUBIC)),
    "small and mirrored": ("hflip", lambda image: image.resize((64, 64)).transpose(TURNS["hflip"])),
    "cropped and turned": ("rot90", lambda image: cropped(image).transpose(TURNS["rot90"])),
} | {name: (name, lambda image, turn=turn: image.transpose(turn)) for name, turn in TURNS.items()}


# planted copies


@pytest.mark.parametrize("plant", PLANTED)
def test_planted_copies_are_found_and_named(store, plant):
    kind, make = PLANTED[plant]
    pictures = [picture(seed) for seed in range(10)]
    found = near_copies(store([*pictures, *(make(image) for image in pictures[:5])]), SILENT)
    assert [(first, second) for first, second, _ in listed(found)] == [(row, 10 + row) for row in range(5)]
    assert found.kinds == (kind,) * 5
    assert (found.similarity > 0.6).all() and (found.similarity <= 1 + 1e-6).all()


def test_pictures_drawn_over_are_look_alikes(store):
    pictures = [picture(seed) for seed in range(10)]
    found = near_copies(store([*pictures, *(drawn_over(image, at) for at, image in enumerate(pictures))]), SILENT)
    assert set(zip(found.first.tolist(), found.second.tolist(), strict=True)) <= {(row, 10 + row) for row in range(10)}
    assert len(found.kinds) >= 6 and set(found.kinds) == {"look-alike"} and not found.copies.any()
    assert (found.similarity >= 0.75).all() and (found.similarity < 0.945).all()


def test_soft_pictures_are_copies_only_if_nearly_the_same(store):
    """Blurred or enlarged ones have few details: the same digit of two hands has them too."""
    pictures = [blobs(seed) for seed in range(4)]
    copies = [pictures[0].transpose(TURNS["hflip"]), pictures[1].resize((64, 64)), cropped(pictures[2], 0.09)]
    found = near_copies(store([*pictures, *copies]), SILENT)
    assert listed(found) == [(0, 4, "hflip"), (1, 5, "re-encoded"), (2, 6, "look-alike")]


def test_jpegs_of_quality_50_are_found(store, tmp_path):
    pictures = [picture(seed) for seed in range(10)]
    found = near_copies(store([*pictures, *(as_jpeg(image, 50, tmp_path) for image in pictures)]), SILENT)
    assert listed(found) == [(row, 10 + row, "re-encoded") for row in range(10)]
    assert (found.similarity > 0.98).all()


@pytest.mark.parametrize("name", TURNS)
def test_the_kind_is_what_makes_the_second_of_the_first(store, name):
    turned = picture(0).transpose(TURNS[name])
    other = {"rot90": "rot270", "rot270": "rot90"}.get(name, name)
    assert listed(near_copies(store([picture(0), turned]), SILENT)) == [(0, 1, name)]
    assert listed(near_copies(store([turned, picture(0)]), SILENT)) == [(0, 1, other)]


def test_a_photo_is_a_copy_of_itself_turned_by_exif(store, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = picture(0).transpose(Image.Transpose.ROTATE_90)
    turned.save(tmp_path / "x.png", exif=exif)
    found = near_copies(store([picture(0), (tmp_path / "x.png").read_bytes()]), SILENT)
    assert listed(found) == [(0, 1, "re-encoded")]


def test_a_copy_beside_many_other_pictures(store):
    pictures = [picture(seed, 64) for seed in range(300)]
    pictures[7] = pictures[200].transpose(TURNS["transverse"])
    pictures[299] = cropped(pictures[100])
    found = near_copies(store(pictures), SILENT)
    assert listed(found) == [(7, 200, "transverse"), (100, 299, "crop")]


# what is no copy


def test_unlike_pictures_are_no_copies(store):
    found = near_copies(store([picture(seed, 64) for seed in range(1000, 1300)]), SILENT)
    assert listed(found) == [] and found.first.dtype == found.second.dtype == np.int64
    assert found.similarity.dtype == np.float32 and len(found.similarity) == 0 and found.kinds == ()


def test_coarse_light_and_shade_alone_make_no_copy(store):
    """Scenes of one kind: the same large blobs, with other details upon each."""
    coarse = np.array(Image.fromarray(np.array(picture(0, 12))[::4, ::4]).resize((SIDE_PX, SIDE_PX), Image.BICUBIC))
    scenes = []
    for seed in range(12):
        details = np.array(picture(seed, 48).resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC))
        scenes.append(Image.fromarray((0.7 * coarse + 0.3 * details).astype(np.uint8)))
    assert listed(near_copies(store(scenes), SILENT)) == []


def test_flat_images_are_copies_only_if_their_bytes_are_equal(store):
    greys = [Image.new("RGB", (64, 64), (value,) * 3) for value in (0, 100, 101, 100, 255)]
    ramp = Image.fromarray(np.tile(np.linspace(100, 104, 64).astype(np.uint8), (64, 1)))
    found = near_copies(store([*greys, ramp, ramp.transpose(TURNS["hflip"])]), SILENT)
    assert listed(found) == [(1, 3, "exact")]


@pytest.mark.parametrize(("strength", "near"), [(3, []), (6, [(0, 1, "hflip")])])
def test_pictures_of_less_than_two_grey_levels_have_exact_copies_only(store, strength, near):
    grey = np.full((64, 64), 128)
    grey[8:40, 4:36] += np.random.default_rng(0).choice([-strength, strength], (32, 32))
    assert (grey.std() < 2) == (strength == 3)
    image = Image.fromarray(grey.astype(np.uint8))
    assert listed(near_copies(store([image, image.transpose(TURNS["hflip"])]), SILENT)) == near


def test_images_under_32_px_have_exact_copies_only(store):
    for side, near in ((31, []), (32, [(0, 1, "hflip")])):
        small = picture(0, side)
        wide = small.resize((64, side))
        images = [small, small.transpose(TURNS["hflip"]), picture(1, side)]
        assert listed(near_copies(store(images), SILENT)) == near
        assert listed(near_copies(store([*images, small]), SILENT))[:1] == (near or [(0, 3, "exact")])[:1]
        assert len(listed(near_copies(store([wide, wide.transpose(TURNS["vflip"])]), SILENT))) == (side == 32)


def on_white(seed, outline):
    """A thing with a pattern of its own, on white."""
    return Image.fromarray(np.where(outline[..., None], np.array(picture(seed)), 255).astype(np.uint8))


def test_things_of_one_outline_on_white_are_no_copies_and_their_copies_are(store):
    outline = np.hypot(*(np.indices((SIDE_PX, SIDE_PX)) - 63.5)) < 40
    things = [on_white(seed, outline) for seed in range(10)]
    copies = [things[0].transpose(TURNS["hflip"]), things[1].resize((90, 90), Image.Resampling.BICUBIC)]
    assert listed(near_copies(store([*things, *copies]), SILENT)) == [(0, 10, "hflip"), (1, 11, "re-encoded")]


def test_one_shape_drawn_on_two_pictures_makes_no_copy(store):
    """As a mask on two faces."""
    images = []
    for seed in range(10):
        image = picture(seed)
        ImageDraw.Draw(image).ellipse((32, 64, 96, 112), fill="white", outline="black", width=3)
        images.append(image)
    assert listed(near_copies(store([*images, images[3].transpose(TURNS["hflip"])]), SILENT)) == [(3, 10, "hflip")]


# exact copies


def test_exact_copies_are_all_paired_and_have_the_near_ones_of_each_other(store):
    found = near_copies(store([picture(0), picture(1), picture(0), picture(0).transpose(TURNS["rot90"])]), SILENT)
    assert listed(found) == [(0, 2, "exact"), (0, 3, "rot90"), (2, 3, "rot90")]
    assert found.similarity[0] == 1 and found.similarity[1] == found.similarity[2]
    found = near_copies(store([picture(0).transpose(TURNS["rot90"]), picture(0), picture(2), picture(0)]), SILENT)
    assert listed(found) == [(0, 1, "rot270"), (0, 3, "rot270"), (1, 3, "exact")]
    # a copy of the first stands between the two
    turned = picture(0).transpose(TURNS["rot90"])
    found = near_copies(store([picture(0), turned, picture(0), turned]), SILENT)
    assert listed(found) == [
        (0, 1, "rot90"), (0, 2, "exact"), (0, 3, "rot90"), (1, 2, "rot270"), (1, 3, "exact"), (2, 3, "rot90")
    ]  # fmt: skip


def test_large_sets_of_exact_copies_are_paired_with_the_first_alone(store, monkeypatch):
    monkeypatch.setattr(module, "SET", 4)
    four = near_copies(store([picture(0)] * 4), SILENT)
    assert len(four.first) == 6
    scanned = store([*[picture(0)] * 6, picture(0).transpose(TURNS["vflip"]), picture(1)])
    found = near_copies(scanned, SILENT)
    assert listed(found) == [
        (0, 1, "exact"), (0, 2, "exact"), (0, 3, "exact"), (0, 4, "exact"), (0, 5, "exact"), (0, 6, "vflip"),
        (1, 6, "vflip"), (2, 6, "vflip"), (3, 6, "vflip"),
    ]  # fmt: skip
    assert joined_rows(found, 8).tolist() == [0] * 7 + [7]


def test_files_that_can_not_be_decoded_have_exact_copies_only(store, tmp_path):
    picture(0).save(tmp_path / "x.png")
    data = (tmp_path / "x.png").read_bytes()
    broken, empty = data[: len(data) // 2], b""
    found = near_copies(store([data, broken, b"no image", broken, empty, empty, broken + b"more"]), SILENT)
    assert listed(found) == [(1, 3, "exact"), (4, 5, "exact")]
    # whatever their thumbnails show
    scanned = store([picture(0), picture(0).transpose(TURNS["hflip"])])
    assert len(listed(near_copies(scanned, SILENT))) == 1
    assert listed(near_copies(replace(scanned, errors=(None, "cut short")), SILENT)) == []


def test_missing_files_are_copies_of_nothing(tmp_path):
    found = near_copies(scan([tmp_path / "a.png", tmp_path / "b.png"], tmp_path / "memory", SILENT), SILENT)
    assert listed(found) == []


@pytest.mark.parametrize("count", [0, 1])
def test_no_images_or_one_have_no_pairs(store, tmp_path, count):
    scanned = store([picture(0)] * count) if count else scan([], tmp_path / "memory", SILENT)
    found = near_copies(scanned, SILENT)
    assert listed(found) == [] and found.first.dtype == np.int64 and joined_rows(found, count).tolist() == [0] * count


# sets of copies


def test_large_sets_of_near_copies_hang_together(store, tmp_path):
    """More copies than neighbours are looked at."""
    clusters = []
    for seed in (0, 1):
        for at in range(40):
            image = picture(seed) if at % 2 else picture(seed).transpose(TURNS["hflip"])
            image = ImageEnhance.Brightness(cropped(image, at % 5 / 100)).enhance(1 + at % 7 / 40)
            clusters.append(as_jpeg(image, 50 + at, tmp_path))
    images = [image for both in zip(clusters[:40], clusters[40:], strict=True) for image in both]
    found = near_copies(store([picture(2), *images, picture(3)]), SILENT)
    joined = joined_rows(found, 82)
    assert joined[1:81].tolist() == [1, 2] * 40 and joined[[0, 81]].tolist() == [0, 81]
    assert len(found.first) >= 2 * 40 * 20 / 2  # each row has 20 neighbours, and all are in its set


def test_joined_rows_by_hand():
    first, second = np.array([1, 2, 4, 6]), np.array([5, 3, 5, 8])
    pairs = Pairs(first, second, ("exact",) * 4, np.ones(4, dtype=np.float32))
    joined = joined_rows(pairs, 10)
    assert joined.tolist() == [0, 1, 2, 2, 1, 1, 6, 7, 6, 9] and joined.dtype == np.int64
    # by the way of a later row: 0-3, 1-2, 2-3
    chain = Pairs(np.array([0, 1, 2]), np.array([3, 2, 3]), ("exact",) * 3, np.ones(3, dtype=np.float32))
    assert joined_rows(chain, 4).tolist() == [0, 0, 0, 0]
    none = Pairs(first[:0], second[:0], (), np.ones(0, dtype=np.float32))
    assert joined_rows(none, 3).tolist() == [0, 1, 2]


# what must not matter


def gallery(tmp_path):
    """30 pictures with near and exact copies among them."""
    pictures = [picture(seed) for seed in range(20)]
    for at, (_, make) in enumerate(list(PLANTED.values())[:8]):
        pictures.append(make(pictures[at]))
    return [*pictures, pictures[3], as_jpeg(pictures[4], 50, tmp_path)]


def test_pairs_are_sorted_once_each_and_of_the_types_promised(store, tmp_path):
    found = near_copies(store(gallery(tmp_path)), SILENT)
    rows = list(zip(found.first.tolist(), found.second.tolist(), strict=True))
    assert rows == sorted(set(rows)) and (found.first < found.second).all() and len(rows) >= 10
    assert found.first.dtype == found.second.dtype == np.int64 and found.similarity.dtype == np.float32
    assert len(found.kinds) == len(found.similarity) == len(rows)
    assert (found.similarity >= 0.45).all() and (found.similarity <= 1 + 1e-6).all()


def test_any_number_of_threads_gives_the_same(store, tmp_path, monkeypatch):
    scanned = store(gallery(tmp_path))
    found = []
    for count in (1, 7):
        monkeypatch.setattr(module, "cores", lambda count=count: count)
        found.append(near_copies(scanned, SILENT))
    same(*found)


def test_pieces_of_the_search_do_not_matter(store, tmp_path, monkeypatch):
    scanned = store(gallery(tmp_path))
    whole = near_copies(scanned, SILENT)
    monkeypatch.setattr(module, "CHUNK", 7)
    events = Recorder()
    parts = near_copies(scanned, events)
    assert listed(parts) == listed(whole) and parts.similarity == pytest.approx(whole.similarity, abs=1e-4)
    alike = [done for text, done, _ in events.steps if text.startswith("looking for images that look alike")]
    thirds = [0, *(29 * turn + done for turn in range(3) for done in (7, 14, 21, 28, 29))]  # described, then two zooms
    assert alike == pytest.approx([third / 3 for third in thirds])
    text, done, total = events.steps[-1]
    assert text.startswith("comparing images that look alike: ") and "pairs/s" in text and done == total >= 10


def test_the_order_of_the_files_does_not_matter(store, tmp_path):
    images = gallery(tmp_path)
    turned = Image.Transpose.ROTATE_90
    images.append(images[10].transpose(turned))
    plain = near_copies(store(images), SILENT)
    order = np.random.default_rng(0).permutation(len(images))
    mixed = near_copies(store([images[row] for row in order]), SILENT)
    back = {tuple(sorted((int(order[i]), int(order[j])))) for i, j, _ in listed(mixed)}
    assert back == {(i, j) for i, j, _ in listed(plain)}
    assert Counter(kind.replace("270", "90") for kind in mixed.kinds) == Counter(
        kind.replace("270", "90") for kind in plain.kinds
    )


# descriptors


def test_descriptors_are_the_same_for_every_flip_turn_and_brightness(store):
    image = store([picture(0)]).thumbnails[0]
    every = np.stack([image, image[::-1], image[:, ::-1], image.T, np.rot90(image), np.rot90(image, 2), image // 2 + 9])
    plain = descriptors(every, 1.0)
    assert plain.dtype == np.float32 and np.linalg.norm(plain, axis=1) == pytest.approx(np.ones(7), abs=1e-5)
    apart = np.linalg.norm(plain - plain[0], axis=1)
    assert (apart[:6] < 1e-4).all() and apart[6] < 0.02
    other = descriptors(store([picture(1)]).thumbnails, 1.0)
    assert np.linalg.norm(other - plain[0]) > 0.1


def test_the_zoom_of_a_descriptor_looks_at_the_middle():
    assert ZOOMS[0] == 1.0
    thumbnails = np.zeros((1, SIDE, SIDE), dtype=np.uint8)
    thumbnails[:, 16:48, 16:48] = np.arange(32) * 8
    shrunk = module._shrunk(thumbnails, 32, 0.5)
    assert np.array_equal(shrunk[0], np.tile(np.arange(32) * 8, (32, 1)))
    assert module._shrunk(thumbnails, 32, 1.0)[0, 8, 8:11].tolist() == [4, 20, 36]  # means of 2 by 2
    # a pixel and a half a cell: 0, 0 and 8 by halves
    ramp = np.tile(np.arange(SIDE, dtype=np.uint8), (1, SIDE, 1))
    assert module._shrunk(ramp, 32, 0.75)[0, 0, :2] == pytest.approx([(8 + 9 / 2) / 1.5, (9 / 2 + 10) / 1.5])


# real images


@pytest.mark.skipif(not MASKS.is_dir(), reason="the masks are not here")
def test_the_copies_among_the_masks(tmp_path):
    paths = [MASKS / path for path in pd.read_csv(MASKS / "train.csv")["path"]]
    digests = np.array([hashlib.sha256(path.read_bytes()).hexdigest() for path in paths])
    _, which, counts = np.unique(digests, return_inverse=True, return_counts=True)
    mirrored = ["4eec57f454a1f6f29c42.jpg", "230028e0d2b775d3b8ab.jpg", "5bd8b41f79bc53e59062.jpg"]
    names = [path.name for path in paths]
    rows = sorted({*np.flatnonzero(counts[which] > 1).tolist(), *(names.index(name) for name in mirrored)})
    found = near_copies(scan([paths[row] for row in rows], tmp_path / "memory", SILENT), SILENT)
    assert found.kinds.count("exact") == (counts * (counts - 1) // 2).sum() == 89
    kinds = {(names[rows[i]], names[rows[j]]): kind for i, j, kind in listed(found)}
    # mirrored with so much noise that it is 0.90 alike: nothing that is certain
    assert kinds["7bb60f0c29c5e8f13bb0.jpg", "4eec57f454a1f6f29c42.jpg"] == "look-alike"
    assert kinds["230028e0d2b775d3b8ab.jpg", "5bd8b41f79bc53e59062.jpg"] == "hflip"

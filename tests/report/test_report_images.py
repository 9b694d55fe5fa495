"""The report's images: which are shown, that they decode, and that a crop is to be seen."""

import base64
import io
import re
import shutil
import sys
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from recorder import Recorder

from ensemble.audit.check import check
from ensemble.blend.oof import Oof, Rows
from ensemble.config import Train, load_config
from ensemble.data.copies.ties import near_groups
from ensemble.data.labelled import read_labelled
from ensemble.data.pixels.decode import Files
from ensemble.data.pixels.preprocess import Preprocess, load_preprocess
from ensemble.errors import UserError
from ensemble.events import SILENT
from ensemble.report import attention, data, examples, images, write_report
from ensemble.report.cells import MOST, as_json, cell_rows
from ensemble.report.copies import run_copies
from ensemble.report.page import environment
from ensemble.report.relabel import label_errors
from ensemble.report.run import read_run
from ensemble.report.thumbnails import SIDE, image_files, thumbnails, upright_size
from ensemble.run import Run

NAMES = ("고양이", "<b>dog</b>", "a, b")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, blended_run):
    """The folder of a blended run on 8 images of each of three classes, of several shapes, two of them copies."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for c, name in enumerate(NAMES):
        for number in range(8):
            path = folder / "train" / f"c{c}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            shape = (40 + 4 * number, 60 if number % 2 else 40, 3)
            Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(path)
        (folder / "train" / f"c{c}").rename(folder / "train" / name.replace("/", "∕"))
    first, second = (folder / "train" / name.replace("/", "∕") for name in NAMES[:2])
    shutil.copy(first / "0.png", second / "0.png")
    blended_run(folder)
    return folder


@pytest.fixture(scope="module")
def results(trained):
    return read_run(Run(trained / "run"), SILENT)


def rendered(name, content, results):
    return environment().get_template(f"{name}.html").render(results=results, **content)


def pictures(page):
    found = re.findall(
        r'<img src="data:image/jpeg;base64,([^"]+)" width="(\d+)" height="(\d+)" alt="([^"]*)"(?: data-row="\d+")?>',
        page,
    )
    assert len(found) == page.count("<img")
    for text, width, height, alt in found:
        with Image.open(io.BytesIO(base64.b64decode(text, validate=True))) as image:
            image.load()
            assert image.format == "JPEG"
            assert image.size == (int(width), int(height))
            assert alt
    return found


def with_probabilities(results, labels, probabilities, predicted):
    """The results with other rows: `predicted` are the members' classes, int (M, N)."""
    probabilities = np.asarray(probabilities, dtype=np.float64)
    count, classes = probabilities.shape
    rows = Rows(
        results.rows.ids[:count],
        np.array(labels),
        np.arange(count) % 2,
        np.arange(count),
        False,
        results.classes[:classes],
    )
    values = tuple(np.eye(classes, dtype=np.float32)[None, np.array(own)] for own in predicted)
    oof = Oof(rows, tuple("abcdefg"[: len(values)]), (("identity",),) * len(values), values, {})
    return replace(results, rows=rows, oof=oof, probabilities=probabilities)


def test_lists_by_hand(results):
    own = with_probabilities(
        results,
        [0, 0, 0, 1, 1, 2, 2],
        [
            [0.90, 0.05, 0.05],
            [0.20, 0.70, 0.10],
            [0.48, 0.47, 0.05],
            [0.95, 0.03, 0.02],
            [0.10, 0.80, 0.10],
            [0.40, 0.20, 0.40],
            [0.00, 0.01, 0.99],
        ],
        [[0, 1, 0, 0, 1, 0, 2]],
    )
    assert images.confidently_wrong(own).tolist() == [3, 1, 5]
    assert images.confidently_wrong(own, 1).tolist() == [3]
    assert images.least_sure(own, 2).tolist() == [5, 2]
    best, worst = images.best_and_worst(own, 0)
    assert best.tolist() == [0, 2]  # row 1 is of class 0, but predicted 1
    assert worst.tolist() == [1]
    best, worst = images.best_and_worst(own, 1)
    assert (best.tolist(), worst.tolist()) == ([4], [3])


def test_a_card_says_label_prediction_probabilities_and_votes(results):
    own = with_probabilities(results, [0, 1], [[0.25, 0.7, 0.05], [0.1, 0.8, 0.1]], [[1, 1], [2, 1], [1, 0]])
    card = images.card(own, 0, thumbnails([None])[0])
    assert (card["label"], card["predicted"], card["right"]) == (results.classes[0], results.classes[1], False)
    assert (card["p_label"], card["p_predicted"]) == (0.25, 0.7)
    assert card["votes"] == [(2, results.classes[1]), (1, results.classes[2])]
    assert images.card(own, 1, thumbnails([None])[0])["right"]


def test_many_classes_show_those_of_the_least_recall(results, monkeypatch):
    own = with_probabilities(
        results, [0, 0, 1, 1, 2, 2], np.eye(3)[[0, 1, 0, 0, 2, 2]] * 0.8 + 0.1 / 1.5, [[0, 1, 0, 0, 2, 2]]
    )
    assert images.shown_classes(own) == [0, 1, 2]
    monkeypatch.setattr(images, "FEW_CLASSES", 2)
    assert images.shown_classes(own) == [1, 0]


def test_the_images_section(results):
    content = images.section(results)
    page = rendered("images", content, results)
    found = pictures(page)
    assert content["problem"] == ""
    wrong = int((results.predicted != results.rows.labels).sum())
    doubtful = len(label_errors(results, image_files(results.config)))
    assert [(own["key"], own["shown"]) for own in content["lists"]] == [
        ("wrong", min(24, wrong)),
        ("unsure", 24),
        ("doubtful", doubtful),
    ]
    rows = [own["row"] for own in content["gallery"]]
    assert len(rows) == len(set(rows)) == 24  # each image once, whatever lists it is in
    assert {own["name"] for own in content["by_class"]} == set(results.classes)
    assert len(found) == len(rows) + sum(len(own["best"]) + len(own["worst"]) for own in content["by_class"])
    # the two files with the same bytes and two labels are doubted, each with the other named
    name = results.classes[0].replace("/", "∕")
    doubts = {own["id"]: own["why"] for own in content["gallery"] if own["why"]}
    assert doubts["고양이/0.png"] == "copy of <b>dog<∕b>/0.png, labelled <b>dog<∕b>"
    assert doubts["<b>dog<∕b>/0.png"] == "copy of 고양이/0.png, labelled 고양이"
    assert name in unescape(page)
    assert "<b>dog" not in page.replace("<b>&lt;b&gt;dog", "")
    assert "&lt;b&gt;dog&lt;∕b&gt;" in page
    assert f"ens relabel {results.run}" in page


def test_a_list_says_how_much_of_it_is_shown(results):
    own = with_probabilities(results, [0, 0, 1], [[0.9, 0.1, 0], [0.2, 0.8, 0], [0.1, 0.9, 0]], [[0, 1, 1]])
    ranked = {"wrong": np.array([1]), "unsure": np.arange(3), "doubtful": np.array([1])}
    notes = {made["key"]: made["note"] for made in images._lists(own, ranked, 30)}
    assert notes["wrong"].startswith("1 prediction is wrong. ")
    assert notes["doubtful"].startswith("30 labels are doubtful; the 24 most doubtful are shown: a copy")
    right = replace(own, probabilities=np.eye(3)[[0, 0, 1]])
    none = {made["key"]: made["note"] for made in images._lists(right, ranked | {"wrong": np.arange(0)}, 0)}
    assert (none["wrong"], none["doubtful"]) == ("No prediction is wrong.", "No label is doubtful.")


def test_cells_of_the_confusion_matrix_by_hand(results):
    """The most confident of each cell first; what the page shows anyway costs nothing of the bound."""
    labels = [0] * 8 + [1, 1]
    chance = [0.51, 0.52, 0.53, 0.54, 0.55, 0.56, 0.57, 0.58, 0.9, 0.6]
    sides = [0] * 8 + [0, 1]
    probabilities = [[p, 1 - p, 0] if side == 0 else [1 - p, p, 0] for p, side in zip(chance, sides, strict=True)]
    own = with_probabilities(results, labels, probabilities, [sides])
    found = cell_rows(own, np.arange(0))
    assert {cell: rows.tolist() for cell, rows in found.items()} == {
        (0, 0): [7, 6, 5, 4, 3, 2],
        (1, 0): [8],
        (1, 1): [9],
    }


def test_mistakes_have_their_images_before_what_is_right(results, monkeypatch):
    monkeypatch.setattr("ensemble.report.cells.MOST", 2)
    assert MOST == 120
    own = with_probabilities(
        results, [0, 0, 0, 1, 1], [[0.9, 0.1, 0], [0.8, 0.2, 0], [0.1, 0.9, 0], [0.7, 0.3, 0], [0.6, 0.4, 0]], [[0] * 5]
    )
    found = cell_rows(own, np.array([1]))
    assert {cell: rows.tolist() for cell, rows in found.items()} == {(0, 0): [1], (0, 1): [2], (1, 0): [3]}


def test_json_in_the_page_cannot_end_its_script():
    assert as_json({"a": "</script>&"}) == '{"a": "\\u003c/script>\\u0026"}'


def test_thumbnails_show_the_whole_picture_upright(tmp_path):
    wide = tmp_path / "wide.png"
    Image.fromarray(np.full((100, 600, 3), 90, np.uint8)).save(wide)  # more than 2:1: networks don't see its ends
    turned = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.full((40, 80, 3), 90, np.uint8)).save(turned, exif=exif)
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    (tmp_path / "empty.jpg").write_bytes(b"")
    Image.fromarray(np.full((10, 20), 40000, np.uint16)).save(tmp_path / "deep.png")
    names = ("wide.png", "turned.jpg", "gone.jpg", "bad.jpg", "empty.jpg", "deep.png")
    shown = thumbnails([*(tmp_path / name for name in names), None])
    assert [(own.width, own.height) for own in shown[:2]] == [(SIDE, 43), (40, 80)]
    assert [own.problem for own in shown[:3]] == ["", "", "the file is missing"]
    assert shown[3].problem == shown[4].problem == "not a readable image"
    assert shown[6].problem == "not among the images of the config"
    assert {own.uri for own in shown[2:5]} == {""}
    deep = Image.open(io.BytesIO(base64.b64decode(shown[5].uri.partition(",")[2])))
    assert np.abs(np.asarray(deep).astype(int) - 156).max() <= 1  # 40000 / 257, where PIL itself says 255
    assert upright_size(wide) == (600, 100)
    assert upright_size(turned) == (40, 80)
    with pytest.raises(UserError, match=r"bad\.jpg: not a readable image"):
        upright_size(tmp_path / "bad.jpg")


def test_lost_images_have_placeholders(results, tmp_path):
    """One image is gone from the folder; then the folder is."""
    train = tmp_path / "train"
    shutil.copytree(results.config.data.train, train)
    config = results.config.model_copy(update={"data": results.config.data.model_copy(update={"train": train})})
    (train / "고양이" / "3.png").unlink()
    own = replace(results, config=config)
    content = images.section(own)
    lost = [card for card in content["gallery"] if card["id"] == "고양이/3.png"]
    page = rendered("images", content, own)
    assert "not among the images of the config" in page
    assert all(card["picture"].uri == "" for card in lost)
    shutil.rmtree(train)
    own = replace(own)  # the files are looked for once
    page = rendered("images", images.section(own), own)
    assert "<img" not in page
    assert f"{train}: no such file or folder; paths start where ens train-folds was run: run this there too" in page
    assert examples.section(own)["missing"].startswith(f"The images can’t be shown: {train}: no such file or folder")
    page = rendered("data", data.section(own), own)
    assert "Not known: no image was found." in page
    assert "Not searched, since no image was found." in page


def test_without_a_finished_fold_there_are_no_predictions(results):
    assert images.section(replace(results, oof=None)) == {
        "missing": "No fold is finished yet, so no image has a prediction."
    }


def test_a_config_that_cannot_be_read(results):
    with pytest.raises(UserError, match=r"config\.toml can't be read, so the images can't be found"):
        image_files(None)
    assert "<img" not in rendered("images", images.section(replace(results, config=None)), results)


def test_a_thousand_classes_stay_small(results, tmp_path):
    rng = np.random.default_rng(0)
    for c in range(1000):
        folder = tmp_path / "train" / f"{c:04}"
        folder.mkdir(parents=True)
        noise = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((200, 200), Image.Resampling.NEAREST).save(folder / "0.jpg")
    config = results.config.model_copy(
        update={"data": results.config.data.model_copy(update={"train": tmp_path / "train", "cache": "off"})}
    )
    ids = np.array(sorted(image_files(config)))
    labels = np.arange(1000)
    rows = Rows(ids, labels, labels % 2, labels, False, tuple(f"{c:04}" for c in range(1000)))
    values = rng.normal(0, 4, (1, 1000, 1000)).astype(np.float32)
    probabilities = np.exp(values[0]) / np.exp(values[0]).sum(axis=1, keepdims=True)
    own = replace(
        results, config=config, rows=rows, oof=Oof(rows, ("a",), (("identity",),), (values,), {}),
        probabilities=probabilities,
    )  # fmt: skip
    shown = {"images": images, "examples": examples, "data": data}
    pages = {name: rendered(name, module.section(own), own) for name, module in shown.items()}
    assert len(pictures(pages["images"])) <= 144
    assert "Shown are the 12 classes of the lowest recall; 988 others are left out." in pages["images"]
    assert "10 of 1,000 classes" in pages["examples"]
    assert "Shown are the 25 largest and the 25 smallest classes; 950 between them are left out." in pages["data"]
    assert sum(len(page) for page in pages.values()) < 4e6


# What the networks see


@pytest.fixture
def framed(tmp_path):
    """A file of 120 x 80 px whose middle 40 x 40 is red and whose rest is blue."""
    pixels = np.zeros((80, 120, 3), np.uint8)
    pixels[:, :, 2] = 255
    pixels[20:60, 40:80] = (255, 0, 0)
    Image.fromarray(pixels).save(tmp_path / "framed.png")
    return tmp_path / "framed.png"


MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CROPPED = Preprocess(32, 36, "bicubic", MEAN, STD, (40, 40))
WHOLE = replace(CROPPED, crop=None)


def red(pixels):
    return np.abs(pixels.astype(int) - (255, 0, 0)).max(axis=-1) <= 1


def test_boxes_by_hand():
    """Of 120 x 80: the crop of height 40 and width 60 lies at 30, 20; evaluation sees 32/36 of its shorter side."""
    boxes = examples.seen_boxes(120, 80, replace(CROPPED, crop=(40, 60)))
    assert boxes["training"] == (30, 20, 60, 40)
    assert boxes["evaluation"] == pytest.approx((60 - 160 / 9, 40 - 160 / 9, 320 / 9, 320 / 9))
    assert examples.seen_boxes(500, 100, WHOLE)["training"] == (150, 0, 200, 100)  # at most 2:1
    assert examples.seen_boxes(30, 20, CROPPED)["training"] == (0, 0, 30, 20)  # smaller than the crop


def test_a_crop_is_seen_in_evaluation_and_in_training(framed):
    settings = Train(crop_area=(0.2, 1.0), color_jitter=0)
    cropped = examples.SharedInput(("a",), CROPPED, settings, ("hflip",), whole=False)
    views = examples.evaluation_views([framed], CROPPED, ("identity", "hflip"))
    assert {name: own.shape for name, own in views.items()} == dict.fromkeys(("identity", "hflip"), (1, 32, 32, 3))
    assert red(views["identity"]).all()
    assert all(red(own).all() for own, _, _ in examples.training_draws([framed], cropped, 4))
    whole = replace(cropped, preprocess=WHOLE)
    assert not red(examples.evaluation_views([framed], WHOLE, ("identity",))["identity"]).all()
    assert any(not red(own).all() for own, _, _ in examples.training_draws([framed], whole, 4))
    assert "the file is cut to its middle 40 x 40 px (width x height), scaled" in examples.in_words(cropped)[0]
    assert "cut" not in examples.in_words(whole)[0]


def test_evaluation_is_what_prediction_decodes(framed):
    """To the byte: the middle 32 of the decoded 36."""
    square = Files([framed], WHOLE.decoding).squares([0])[0]
    seen = examples.evaluation_views([framed], WHOLE, ("identity", "hflip"))
    assert np.array_equal(seen["identity"][0], square[2:34, 2:34])
    assert np.array_equal(seen["hflip"][0], square[2:34, 2:34][:, ::-1])


@pytest.fixture
def plain(tmp_path):
    """Two files of one colour each, and one that is red on its left and green on its right."""
    red_, green = np.full((48, 48, 3), (255, 0, 0), np.uint8), np.full((48, 48, 3), (0, 255, 0), np.uint8)
    both = np.concatenate([red_[:, :24], green[:, :24]], axis=1)
    for name, pixels in (("red", red_), ("green", green), ("both", both)):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    return [tmp_path / f"{name}.png" for name in ("red", "green", "both")]


def sight(**changes):
    settings = Train(**{"crop_area": (0.9, 1.0), "hflip": False, "color_jitter": 0} | changes)
    return examples.SharedInput(("a",), WHOLE, settings, (), whole=False)


def near(pixels, colour):
    return np.abs(pixels.astype(int) - np.asarray(colour)).max(axis=-1) <= 2


def test_training_draws_have_the_size_of_training(plain):
    drawn = examples.training_draws(plain, sight(), 4)
    assert len(drawn) == 4
    for pixels, partner, share in drawn:
        assert pixels.shape == (3, 32, 32, 3)
        assert near(pixels[0], (255, 0, 0)).all()
        assert (share.tolist(), partner.tolist()) == ([1, 1, 1], [0, 1, 2])
        assert near(pixels[2][:, 0], (255, 0, 0)).all()  # nothing is mirrored
    assert examples.training_draws(plain, sight(crop_size=24), 1)[0][0].shape == (3, 24, 24, 3)
    again = examples.training_draws(plain, sight(), 4)
    assert all(np.array_equal(one[0], two[0]) for one, two in zip(drawn, again, strict=True))
    assert not all(np.array_equal(drawn[0][0], own) for own, _, _ in drawn)  # boxes differ


def test_training_draws_mirror_erase_and_mix(plain):
    left = [own[2][:, 0] for own, _, _ in examples.training_draws(plain, sight(hflip=True), 12)]
    assert {bool(near(own, (255, 0, 0)).all()) for own in left} == {True, False}
    for own, _, _ in examples.training_draws(plain, sight(erase=1.0), 4):
        hidden = near(own[1], [255 * value for value in MEAN])  # 0 after normalisation is the mean colour
        assert 0.01 < hidden.mean() < 0.4
        assert (hidden | near(own[1], (0, 255, 0))).all()
    mixed = 0
    for own, partner, share in examples.training_draws(plain[:2], sight(mixup=1.0), 8):
        if partner[0] == 1:
            mixed += 1
            assert near(own[0], (255 * share[0], 255 * (1 - share[0]), 0)).all()
            assert near(own[1], (255 * (1 - share[1]), 255 * share[1], 0)).all()
    assert mixed
    for own, partner, share in examples.training_draws(plain, sight(cutmix=1.0), 6):
        if partner[0] == 1:
            assert near(own[0], (255, 0, 0)).mean() == pytest.approx(share[0], abs=1e-6)


def test_what_was_mixed_in_is_said():
    pixels = np.zeros((2, 4, 4, 3), np.uint8)
    chosen = [("말", "1", Path("1")), ("b", "2", Path("2"))]
    share = np.array([0.7, 1.0], np.float32)
    assert examples._draw((pixels, np.array([1, 0]), share), 0, chosen)[1] == "70 % + 30 % b"
    assert examples._draw((pixels, np.array([1, 0]), share), 1, chosen)[1] == ""
    assert examples._draw((pixels, np.array([0, 1]), share), 0, chosen)[1] == ""  # with itself


def test_settings_in_words():
    settings = Train(
        crop_area=(0.5, 1), hflip=False, vflip=True, rotate=10, color_jitter=0.3, trivial_augment=True, erase=0.25,
        mixup=0.2, cutmix=1, crop_size=24,
    )  # fmt: skip
    own = examples.SharedInput(("a",), CROPPED, settings, (), whole=False)
    assert examples.in_words(own) == [
        "Evaluation and prediction: the file is cut to its middle 40 x 40 px (width x height), scaled (bicubic) until "
        "its shorter side has 36 px, and the network sees the middle 32 px of that (89 % of the side).",
        "Training: a random box of 50 to 100 % of the cut picture, at 24 px; half of them upside down; turned by up to "
        "10°; light and colours changed by up to 30 %; one operation of TrivialAugment; a box erased in 25 %; mixup "
        "(0.2); CutMix (1).",
    ]
    probe = replace(own, settings=Train(strategy="probe"), preprocess=replace(WHOLE, decode_size=32))
    assert examples.in_words(probe) == [
        "Evaluation and prediction: the file is scaled (bicubic) until its shorter side has 32 px, and the network "
        "sees the middle square.",
        "Training: a linear probe is fitted on the evaluation input, without augmentation.",
    ]


def test_rarer_classes_are_drawn_with_more_change(plain):
    drawn = [own for own, _, _ in examples.training_draws(plain, sight(augment_rare=True), 12, np.array([1, 0, 0]))]
    assert any(not near(own[0], (255, 0, 0)).all() for own in drawn)
    assert all(near(own[1], (0, 255, 0)).all() for own in drawn)
    words = examples.in_words(sight(augment_rare=True))
    assert "one operation of TrivialAugment, the rarer its class the more often" in words[1]


def test_members_that_see_the_same_share_a_table(results, trained):
    seen = examples.shared_inputs(results)
    assert [own.members for own in seen] == [("resnet",), ("vit",)]  # 32 and 48 px
    assert [own.preprocess for own in seen] == [
        load_preprocess(results.run.member(name).preprocess_json) for name in ("resnet", "vit")
    ]
    assert all(own.views == ("hflip",) for own in seen)
    twice = replace(results, members=(*results.members, results.members[0]))
    assert [own.members for own in examples.shared_inputs(twice)] == [("resnet", "resnet"), ("vit",)]


def test_one_typical_image_a_class(results):
    files = image_files(results.config)
    chosen = examples.typical(results, files, 10)
    assert [name for name, _, _ in chosen] == list(results.classes)
    p = results.probabilities[np.arange(len(results.rows.ids)), results.rows.labels]
    for c, (_, id_, path) in enumerate(chosen):
        rows = np.flatnonzero(results.rows.labels == c)
        apart = np.abs(p[rows] - np.median(p[rows]))
        assert id_ == results.rows.ids[rows[apart.argmin()]]
        assert path == files[id_]
    assert [name for name, _, _ in examples.typical(results, files, 2)] == [results.classes[0], results.classes[2]]
    lost = {name: path for name, path in files.items() if name != chosen[0][1]}
    assert examples.typical(results, lost, 10)[0][1] != chosen[0][1]


def test_the_examples_section(results):
    content = examples.section(results)
    page = rendered("examples", content, results)
    # two groups of three classes: the file, the evaluation input, five draws, one view
    assert len(pictures(page)) == 2 * 3 * 8
    assert page.count('class="evaluation" style="left:') == 6
    assert "Training, 32 px: 5 draws" in page
    assert "Evaluation, 48 px" in page
    assert rendered("examples", examples.section(results), results) == page  # the same chances every time


# What a network looked at


def test_a_spotlight_by_hand():
    """Where nothing hangs on the image, or hiding helps, a quarter of the light is left."""
    pixels = np.full((1, 3, 3), 200, np.uint8)
    lit = attention.spotlight(pixels, np.array([[2.0, 1.0, -5.0]]))
    assert lit[0, :, 0].tolist() == [200, 125, 50]
    assert (attention.spotlight(pixels, np.zeros((1, 3))) == 50).all()


def test_what_a_network_looked_at(results):
    pytest.importorskip("captum")
    asked = replace(results, attention=True)
    content = attention.section(asked)
    assert content["member"] == min(zip(results.oof.members, results.single, strict=True),
                                    key=lambda pair: pair[1].losses.mean())[0]  # fmt: skip
    page = rendered("attention", content, asked)
    shown = sum(len(cards) for cards in content["groups"].values())
    assert shown and len(pictures(page)) == 2 * shown
    assert attention.section(results) is None
    assert attention.section(replace(asked, config=None))["missing"].startswith("The images can’t be shown: ")


def test_the_network_that_never_saw_the_image_answers_as_it_did(results):
    """Its out-of-fold answer and probability, under the one view that is shown; what counts is a fall."""
    pytest.importorskip("captum")
    files = image_files(results.config)
    row, name = 5, str(results.rows.ids[5])
    fold = int(results.rows.folds[row])
    [look] = attention.attention_maps(results, results.oof.members[0], fold, [files[name]])
    logits = results.oof.values[0][results.oof.views[0].index("identity"), row].astype(np.float64)
    probabilities = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    assert look.predicted == probabilities.argmax()
    assert look.probability == pytest.approx(probabilities.max(), abs=1e-4)
    assert look.parts.shape == look.pixels.shape[:2] and np.ptp(look.parts) > 0


def test_without_captum_one_line_says_how_to_get_it(results, monkeypatch):
    monkeypatch.setitem(sys.modules, "captum", None)
    with pytest.raises(
        UserError, match=r'--attention needs captum; install with: pip install "ens-vision\[attention\]"'
    ):
        write_report(results.run, None, SILENT, attention=True)


# The data


def test_the_data_section(results):
    content = data.section(results)
    page = rendered("data", content, results)
    assert [own["rows"] for own in content["classes"]] == [8, 8, 8]
    assert "All classes are equally large." in page
    assert [own["rows"] for own in content["folds"]] == np.bincount(results.rows.folds).tolist()
    assert [sum(column) for column in zip(*(own["counts"] for own in content["folds"]), strict=True)] == [8, 8, 8]
    assert content["sizes"]["table"][0] == ("width, px", ["40", "40", "50", "60", "60"])
    assert content["sizes"]["table"][1][1][0] == "40"
    assert content["sizes"]["table"][1][1][-1] == "68"
    # shorter sides: 40 for the four even ones, min(60, 44 52 60 68) for the odd ones; 0.png of class 1 is a copy
    assert content["sizes"]["enlarged"] == [(32, 0), (48, 15)]
    assert "15 (62.5 %) have a shorter side below the 48 px of the networks’ input and are enlarged." in page
    assert "Copies: 2 images in 1 pair (1 byte for byte). Of the pairs of copies 1 carries two labels" in page
    assert f"ens check {results.run.config_toml}" in page
    assert len(pictures(page)) == 2


def test_uneven_classes(results):
    own = with_probabilities(results, [0, 0, 0, 1, 2, 2], np.full((6, 3), 1 / 3), [[0] * 6])
    content = data.section(own)
    page = rendered("data", content, own)
    assert [(one["rows"], one["share"], one["bar"]) for one in content["classes"]] == [
        (3, 0.5, 1.0), (1, 1 / 6, 1 / 3), (2, 1 / 3, 2 / 3),
    ]  # fmt: skip
    assert (content["ratio"], content["most"], content["least"]) == (3.0, results.classes[0], results.classes[1])
    assert "has 3.0 times as many as the smallest" in page
    assert [one["counts"] for one in content["folds"]] == [[2, 0, 1], [1, 1, 1]]


def test_copies_of_the_audit_where_the_images_are_gone(results):
    rows = results.rows
    a, b, c = (str(rows.ids[row]) for row in (0, 1, 20))
    pair = {"first": a, "second": b, "sides": "train-train", "kind": "hflip", "similarity": 0.98, "labels": ["x", "y"]}
    pairs = [
        pair,
        pair | {"second": c, "kind": "exact"},
        pair | {"first": b, "second": c, "kind": "look-alike"},
        pair | {"first": b, "second": c, "kind": "edited"},  # an older ens's
        pair | {"sides": "train-test", "second": "t/1.png"},
        pair | {"second": "dropped.png"},
    ]
    own = replace(results, audit={"pairs": pairs, "test": "t"})
    found = run_copies(own, rows.ids, {})
    assert found.copies == ((0, 1, "hflip"), (0, 20, "exact"))
    assert found.look_alikes == ((1, 20, "look-alike"), (1, 20, "look-alike"))
    shown = data.found_copies(own, {})
    assert (shown["pairs"], [one["kind"] for one in shown["shown"]][-1]) == (2, "look-alike")
    assert shown["clash"] == sum(rows.labels[0] != rows.labels[row] for row in (1, 20))
    assert shown["split"] == sum(rows.folds[0] != rows.folds[row] for row in (1, 20))
    assert run_copies(replace(results, audit=None), rows.ids, {}) is None


def test_copies_are_those_of_training_whatever_an_audit_says(results):
    """One search for both, of all images: near copies too."""
    files = image_files(results.config)
    pair = {
        "first": str(results.rows.ids[0]),
        "second": str(results.rows.ids[1]),
        "sides": "train-train",
        "kind": "crop",
    }
    own = replace(results, audit={"pairs": [pair], "test": "t"})
    found = run_copies(own, own.rows.ids, files)
    assert found == run_copies(replace(results, audit=None), own.rows.ids, files)
    assert found.near and found.text == "copies: 2 images in 1 pair (1 byte for byte)"
    assert [(str(results.rows.ids[a]), str(results.rows.ids[b]), kind) for a, b, kind in found.copies] == [
        ("<b>dog<∕b>/0.png", "고양이/0.png", "exact")
    ]
    page = rendered("data", data.section(own), own)
    assert "Copies: 2 images in 1 pair (1 byte for byte). Of the pairs of copies 1 carries two labels" in page
    assert "ens check" not in page and "equal bytes" not in page


def test_check_training_and_report_count_alike(trained, results, tmp_path):
    """And search once: the run's cache holds one answer for all."""
    text = run_copies(results, results.rows.ids, image_files(results.config)).text
    said = []
    check(trained / "e.toml", None, None, None, tmp_path / "audit.json", (), Recorder(said))
    near_groups(read_labelled(results.config), None, results.config.data.cache, Recorder(said))
    assert [line.partition(";")[0] for line in said if line.startswith("copies")] == [text, text]


def test_copies_without_a_cache_are_the_same(results):
    config = results.config.model_copy(update={"data": results.config.data.model_copy(update={"cache": "off"})})
    files = image_files(config)
    kept, off = (run_copies(own, own.rows.ids, files) for own in (results, replace(results, config=config)))
    assert kept == off


def test_near_copies_that_training_was_told_to_leave_apart_are_not_searched(results):
    folds = results.config.folds.model_copy(update={"near_copies": False})
    own = replace(results, config=results.config.model_copy(update={"folds": folds}))
    assert not run_copies(own, own.rows.ids, image_files(own.config)).near
    page = rendered("data", data.section(own), own)
    assert "Near copies (resized, mirrored, saved again) were not searched, since folds.near_copies = false" in page
    none = {"copies": data.found_copies(results, {}) | {"searched": True, "near": True}}
    assert "None: no two training images show the same picture or look alike." in rendered(
        "data", data.section(results) | none, results
    )


def test_corrected_labels_are_admitted(results):
    own = replace(results, provenance={"facts": {"relabel": {"labels changed": 12, "rows dropped": 3}}})
    page = rendered("data", data.section(own), own)
    assert "Labels were corrected before training: 12 labels changed, 3 rows dropped." in page
    assert "makes out-of-fold scores optimistic" in page
    assert "optimistic" not in rendered(
        "data", data.section(results) | {"copies": data.found_copies(results, {})}, results
    )


def test_paths_of_the_config_and_its_corrections(trained, tmp_path):
    """A relabelled run's images are those that were not dropped."""
    config = load_config(trained / "e.toml")
    csv = tmp_path / "relabel.csv"
    csv.write_text("id,new_label\n고양이/1.png,drop\n", encoding="utf-8")
    data_ = config.data.model_copy(update={"relabel": csv})
    assert len(image_files(config)) == 24
    assert "고양이/1.png" not in image_files(config.model_copy(update={"data": data_}))

"""`ens check`: what cheap numbers tell of the class, and of the side."""

import numpy as np
import pytest
from PIL import Image

from ensemble.audit.check import check
from ensemble.audit.features import NAMES, features, held_out_shares
from ensemble.audit.shift import area, check_shift, shift
from ensemble.audit.shortcuts import check_shortcuts, class_shortcuts
from ensemble.data.scan import scan
from ensemble.events import SILENT


def numbers(rows: int, seed: int = 0) -> np.ndarray:
    """Features that tell nothing, (rows, 12)."""
    return np.random.default_rng(seed).normal(size=(rows, len(NAMES)))


def labels(rows: int) -> np.ndarray:
    return np.array(["a", "b", "c", "d"])[np.arange(rows) % 4]


def test_features_of_real_files(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (64, 32), (255, 0, 51)).save(tmp_path / "a.png", exif=exif)
    values = dict(zip(NAMES, features(scan([tmp_path / "a.png"], tmp_path / "cache", SILENT))[0], strict=True))
    assert (values["width"], values["height"], values["width / height"], values["EXIF turn"]) == (32, 64, 0.5, 6)
    assert (values["red"], values["green"], values["blue"]) == pytest.approx((1, 0, 0.2))
    assert values["bytes a pixel"] == (tmp_path / "a.png").stat().st_size / 2048
    assert values["contrast"] == pytest.approx(0, abs=1e-6) and values["sharpness"] == pytest.approx(0, abs=1e-6)


def test_copies_do_not_help_each_other():
    """Random labels, every row there twice: trees that saw the copy would be right each time."""
    random = np.random.default_rng(0)
    values, codes = random.normal(size=(100, 3)).repeat(8, axis=0), random.integers(0, 2, 100).repeat(8)
    right = held_out_shares(values, codes, np.arange(100).repeat(8)).argmax(axis=1) == codes
    leaked = held_out_shares(values, codes, np.arange(800)).argmax(axis=1) == codes
    assert right.mean() < 0.65 and leaked.mean() > 0.95


def test_numbers_that_tell_nothing_are_no_shortcut():
    scores = class_shortcuts(numbers(200), labels(200), np.arange(200))
    assert scores.keys() == {"size", "file", "colour"}
    assert all(score["low"] < 0.3 and score["chance"] == 0.25 for score in scores.values())
    assert check_shortcuts(scores, ["a", "b", "c", "d"]) == []


@pytest.mark.parametrize(("column", "kind"), [("width", "size"), ("format", "file"), ("blue", "colour")])
def test_each_kind_of_shortcut_is_found(column, kind):
    values, names = numbers(200), labels(200)
    values[:, NAMES.index(column)] = np.arange(200) % 4
    scores = class_shortcuts(values, names, np.arange(200))
    (one,) = check_shortcuts(scores, ["a", "b", "c", "d"])
    assert one.kind == f"{kind}-tells-class" and "100 % balanced accuracy, chance 25 %" in one.what
    assert one.level == ("note" if kind == "colour" else "warning")
    assert one.rows == ("a", "b", "c", "d")


def test_a_weak_shortcut_is_a_note_and_a_faint_one_is_none():
    random = np.random.default_rng(1)
    for share, levels in ((0.45, ["note"]), (0.12, [])):
        values = numbers(600)
        told = random.random(600) < share
        values[told, 0] = 10 * (np.arange(600) % 4)[told] + 100
        found = check_shortcuts(class_shortcuts(values, labels(600), np.arange(600)), ["a", "b", "c", "d"])
        assert [one.level for one in found] == levels


def test_rare_classes_and_constant_features_are_left_aside():
    names = np.array(["a", "b"] * 50 + ["c"] * 4 + [""] * 30)
    values = numbers(len(names))
    values[:, :3] = 7.0
    scores = class_shortcuts(values, names, np.arange(len(names)))
    assert scores.keys() == {"file", "colour"} and scores["file"]["chance"] == 0.5
    assert class_shortcuts(values[:20], np.array(["a"] * 18 + ["b"] * 2), np.arange(20)) == {}


def test_area_by_hand():
    # pairs (one of side 1, one of side 0): 3 > 1, 3 > 2, 2 > 1, 2 = 2: 3.5 of 4
    assert area(np.array([1, 2, 2, 3]), np.array([0, 0, 1, 1])) == 3.5 / 4


def test_no_shift_where_there_is_none():
    for seed in range(2):
        found = shift(numbers(300, seed), numbers(150, seed + 100), np.arange(300), np.arange(300, 450))
        assert found is not None and found["low"] < 0.58
        assert check_shift(found, np.array(["x"])) == []


def test_a_shift_is_found_and_what_it_is_in():
    train, test = numbers(300), numbers(150, 1)
    train[:, 0] = 224
    test[:, 0] = 512
    found = shift(train, test, np.arange(300), np.arange(300, 450))
    assert found is not None and found["auc"] == 1 and found["features"][0]["name"] == "width"
    (one,) = check_shift(found, np.array(["x", "y"]))
    assert one.level == "warning" and one.examples == ("width 224 px to 512 px",) and one.side == "test"
    assert "AUC 1.00 [1.00, 1.00]" in one.what and "other shares of the classes" in one.advice


def test_a_slight_shift_is_a_note():
    train, test = numbers(500), numbers(500, 1)
    test[:, 9] += 1.0  # AUC of two normals one deviation apart: 0.76
    found = shift(train, test, np.arange(500), np.arange(500, 1000))
    assert found is not None
    assert found["features"][0] == {
        "name": "blue",
        "auc": pytest.approx(0.76, abs=0.03),
        "train": pytest.approx(0, abs=0.1),
        "test": pytest.approx(1, abs=0.1),
        "form": "{:.2f}",
    }
    (one,) = check_shift(found, np.array(["x"]))
    assert one.level == "note" and one.examples[0].startswith("blue ")


def test_the_interval_is_wider_where_rows_are_copies():
    train, test = numbers(300), numbers(300, 1)
    test[:, 9] += 0.7
    alone = shift(train, test, np.arange(300), np.arange(300, 600))
    again = shift(
        train[:30].repeat(10, axis=0),
        test[:30].repeat(10, axis=0),
        np.arange(30).repeat(10),
        np.arange(30, 60).repeat(10),
    )
    assert alone is not None and again is not None
    assert again["high"] - again["low"] > 1.5 * (alone["high"] - alone["low"])


def test_what_counts_is_the_lower_end_of_the_interval():
    one = {"name": "width", "auc": 0.55, "train": 1.0, "test": 2.0, "form": "{:.0f} px"}
    levels = [
        [
            found.level
            for found in check_shift({"auc": 0.95, "low": low, "high": 0.99, "features": [one]}, np.array(["x"]))
        ]
        for low in (0.59, 0.6, 0.89, 0.9)
    ]
    assert levels == [[], ["note"], ["note"], ["warning"]]


def test_few_test_images_are_not_judged():
    assert shift(numbers(300), numbers(29), np.arange(300), np.arange(29)) is None


def test_sizes_that_differ_by_class_in_real_files(tmp_path, paint):
    for number in range(60):
        side = 40 if number % 2 else 48
        paint(tmp_path / "pets" / ("cat", "dog")[number % 2] / f"{number}.png", side, side)
        paint(tmp_path / "test" / f"t{number}.png", side, side + 20)
    audit = check(tmp_path / "pets", tmp_path / "test", None, None, tmp_path / "a.json", (), SILENT)
    kinds = {one.kind: one for one in audit.findings}
    assert kinds["size-tells-class"].level == "warning"
    assert kinds["shift"].level == "warning" and any(text.startswith("height") for text in kinds["shift"].examples)

"""`ens check` on sizes and looks: tiny, stretched, enlarged, mixed, of one colour, blurred."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from ensemble.audit.check import check
from ensemble.audit.findings import Audit, Finding
from ensemble.events import SILENT


@pytest.fixture
def pets(tmp_path, paint):
    """Two classes of eight noise images of 120 x 100 px."""
    for name in ("cat", "dog"):
        for number in range(8):
            paint(tmp_path / "pets" / name / f"{name}{number}.png", 120, 100)
    return tmp_path / "pets"


def audited(data: Path, test: Path | None = None) -> Audit:
    return check(data, test, None, None, Path("audit.json"), (), SILENT)


@pytest.fixture(autouse=True)
def own_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def only(data: Path, kind: str) -> Finding:
    findings = audited(data).findings
    assert [one.kind for one in findings] == [kind]
    return findings[0]


def experiment(folder: Path, data: str, settings: str) -> Path:
    path = folder / "e.toml"
    path.write_text(
        f'run = "run"\n[data]\ntrain = "{data}"\n{settings}\n[[backbone]]\nname = "a"\ntimm = "test_resnet"\n'
    )
    return path


def test_tiny_images_among_larger_ones(pets, paint):
    paint(pets / "cat" / "icon.png", 24, 20)
    one = only(pets, "tiny")
    assert one.examples == ("cat/icon.png (24x20)",) and one.level == "warning"


def test_an_image_of_25_px_is_small_but_not_tiny_there(pets, paint):
    paint(pets / "cat" / "icon.png", 26, 25)  # a quarter of the median shorter side
    assert audited(pets).findings == ()


def test_a_set_of_8_px_digits_is_not_tiny(tmp_path, paint):
    for number in range(16):
        paint(tmp_path / "digits" / str(number % 2) / f"{number}.png", 8, 8)
    assert audited(tmp_path / "digits").findings == ()


def test_stretched_images(pets, paint):
    paint(pets / "cat" / "wide.png", 400, 100)
    paint(pets / "cat" / "tall.png", 100, 399)
    one = only(pets, "stretched")
    assert one.examples == ("cat/wide.png (400x100)",) and "middle square" in one.advice


def test_images_turned_by_exif_are_measured_upright(pets):
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.random.default_rng(1).integers(0, 256, (100, 400, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(pets / "cat" / "tall.jpg", exif=exif)
    found = {one.kind: one for one in audited(pets).findings}
    assert found["stretched"].examples == ("cat/tall.jpg (100x400)",)


def test_images_enlarged_for_the_network(pets, tmp_path, paint):
    few = audited(experiment(tmp_path, "pets", "image_size = 125")).findings
    assert few == ()  # 100 px are 0.8 of it
    for number in range(3):
        paint(pets / "cat" / f"small{number}.png", 90, 90)
    few = audited(experiment(tmp_path, "pets", "image_size = 120")).findings
    assert [(one.kind, one.count) for one in few] == [("enlarged", 3)] and "they are few" in few[0].advice
    (all_,) = audited(experiment(tmp_path, "pets", "image_size = 160")).findings
    assert all_.count == 19 and "half of all shorter sides are below 100 px" in all_.advice


def test_images_smaller_than_the_crop(pets, tmp_path, paint):
    paint(pets / "cat" / "small.png", 90, 100)
    (one,) = audited(experiment(tmp_path, "pets", "image_size = 64\ncrop = [96, 96]")).findings
    assert one.kind == "smaller-than-crop" and one.examples == ("cat/small.png (90x100)",)


def test_very_mixed_sizes(tmp_path, paint):
    for number in range(40):
        side = 40 if number % 4 else 400
        paint(tmp_path / "pets" / "ab"[number // 20] / f"{number}.png", side, side)
    one = only(tmp_path / "pets", "mixed-sizes")
    assert "below 40 px, 1 % above 400 px" in one.what and len(one.examples) == 2


def test_images_of_one_colour(pets):
    Image.new("RGB", (120, 100), (7, 8, 9)).save(pets / "cat" / "plain.png")
    assert only(pets, "one-colour").rows == ("cat/plain.png",)


def test_blurred_images(pets):
    soft = Image.open(pets / "cat" / "cat0.png").filter(ImageFilter.GaussianBlur(6))
    soft.save(pets / "cat" / "soft.png")
    assert only(pets, "blurred").rows == ("cat/soft.png",)


def test_what_the_file_keeps_of_sizes_and_colours(pets):
    Image.new("RGB", (60, 50), (255, 0, 0)).save(pets / "dog" / "red.png")
    audit = audited(pets)
    assert audit.sizes["train"]["width"][0] == 60 and audit.sizes["train"]["height"][-1] == 100
    assert audit.class_sizes == {"cat": [120.0, 100.0], "dog": [120.0, 100.0]}
    red, green, blue = audit.class_colours["dog"]
    assert red == pytest.approx((8 * 0.5 + 1) / 9, abs=0.01)
    assert (green, blue) == pytest.approx((4 / 9, 4 / 9), abs=0.01)

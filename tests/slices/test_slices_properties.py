"""Properties of image files, and columns of tables."""

import numpy as np
import pytest
from PIL import Image

from ensemble.errors import UserError
from ensemble.events import SILENT
from ensemble.slices.columns import Columns, column_slices, read_columns
from ensemble.slices.properties import camera, image_properties, property_slices


def test_what_the_files_show(tmp_path):
    exif = Image.Exif()
    exif[271], exif[272] = "Canon", "Canon EOS 5D"
    for number, grey in enumerate((20, 120, 240)):
        Image.new("RGB", (40, 20 + number), (grey, grey, grey)).save(
            tmp_path / f"{number}.jpg", exif=exif if number else b""
        )
    (tmp_path / "3.png").write_bytes(b"no image")
    exif[271], exif[272] = "NIKON", "D70"
    Image.new("L", (8, 8)).save(tmp_path / "4.png", exif=exif)
    found = image_properties([*sorted(tmp_path.glob("*.jpg")), tmp_path / "3.png", tmp_path / "4.png"], "off", SILENT)
    assert found["camera"].tolist() == ["", "Canon EOS 5D", "Canon EOS 5D", "", "NIKON D70"]
    assert found["file type"].tolist() == ["JPEG", "JPEG", "JPEG", "", "PNG"]
    assert found["shorter side"][:3].tolist() == [20, 21, 22] and np.isnan(found["shorter side"][3])
    assert found["brightness"][:3] == pytest.approx(np.array([20, 120, 240]) / 255, abs=0.01)
    assert camera(tmp_path / "none.jpg") == ""


def test_properties_that_tell_no_images_apart_are_named():
    slices, notes = property_slices(
        {"camera": np.array(["", "", "", ""]), "mode": np.array(["L", "L", "RGB", "RGB"])}, 2
    )
    assert [each.rule.text for each in slices] == ["mode L", "mode RGB"]
    assert notes == ["not looked at, since nearly all images have the same or none: camera"]


IDS = np.array(["cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "dog/2.jpg"])


def table(tmp_path, text):
    path = tmp_path / "meta.csv"
    path.write_text(text)
    return path


def test_a_table_is_joined_by_id(tmp_path):
    path = table(tmp_path, "id,site,age\ndog/1.jpg,B,7\ncat/2,A,\ncat/1.jpg,A,5\n")
    found = read_columns(path, IDS, None)
    assert found.values["site"].tolist() == ["A", "A", "B", ""] and found.values["age"].tolist() == ["5", "", "7", ""]
    assert any("1 image has no row in meta.csv" in note for note in found.notes)
    assert list(read_columns(path, IDS, ["age"]).values) == ["age"]


@pytest.mark.parametrize(
    ("text", "wanted", "error"),
    [
        ("id,site\ncat/1.jpg,A\n", ["sight"], "no column 'sight'; nearest: site"),
        ("id,site\ncat/1.jpg,A\ncat/1.jpg,B\n", None, "id 'cat/1.jpg' is there twice"),
        ("id,site\nhorse/9.jpg,A\n", None, "names none of the run's images"),
    ],
)
def test_a_table_that_does_not_go_with_the_run(tmp_path, text, wanted, error):
    with pytest.raises(UserError, match=error):
        read_columns(table(tmp_path, text), IDS, wanted)


def test_columns_of_numbers_of_kinds_and_of_names():
    numbers = np.array([f"{number}" for number in range(40)])
    kinds = np.array(["a"] * 20 + ["b"] * 20)
    names = np.array([f"photo {number}" for number in range(40)])
    slices, notes = column_slices(Columns({"age": numbers, "site": kinds, "name": names}), 4)
    assert [each.rule.text for each in slices][-2:] == ["site a", "site b"]
    assert {each.rule.text for each in slices if each.rule.of == "age"} == {
        "age up to 3 (the lowest 10 %)", "age from 36 (the highest 10 %)",
        "age up to 7 (the lowest 20 %)", "age from 32 (the highest 20 %)",
    }  # fmt: skip
    assert len(notes) == 1 and "column 'name' is left out: of its 40 values none is that of 4 images" in notes[0]

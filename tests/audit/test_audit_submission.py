"""`ens check` on a sample submission against the test images."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ensemble.audit.findings import Finding
from ensemble.audit.read import read_test
from ensemble.audit.rows import Rows
from ensemble.audit.submission import check_submission
from ensemble.errors import UserError

IMAGES = [f"0/{number}.jpg" for number in range(6)]


def found(
    folder: Path, rows: list[str], images: list[str] | None = IMAGES, header: str = "id,label"
) -> dict[str, Finding]:
    path = folder / "sample.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    listed = pd.DataFrame({"path": images or []})
    test = None if images is None else Rows(Path("t.csv"), np.array(images), (None,) * len(images), None, table=listed)
    kinds = check_submission(path, test, ["cat", "dog"])
    assert {one.side for one in kinds} <= {"submission"}
    return {one.kind: one for one in kinds}


@pytest.mark.parametrize("form", ["0/{}.jpg", "{}.jpg", "{}"])
def test_a_sample_that_fits_by_path_name_or_stem(tmp_path, form):
    assert found(tmp_path, [f"{form.format(number)},cat" for number in range(6)]) == {}


def test_ids_without_images_and_images_not_asked_for(tmp_path):
    kinds = found(tmp_path, [f"{number}.jpg,cat" for number in (0, 1, 2, 3, 8, 9)])
    assert kinds.keys() == {"sample-id-without-image", "image-not-asked"}
    assert kinds["sample-id-without-image"].rows == ("8.jpg", "9.jpg")
    assert kinds["sample-id-without-image"].level == "error"
    assert kinds["image-not-asked"].rows == ("0/4.jpg", "0/5.jpg") and kinds["image-not-asked"].level == "warning"


def test_nothing_fits(tmp_path):
    kinds = found(tmp_path, ["x,cat", "y,cat"])
    assert (
        kinds.keys() == {"sample-id-without-image"}
        and "named like '0/0.jpg'" in kinds["sample-id-without-image"].advice
    )


def test_repeated_ids(tmp_path):
    kinds = found(tmp_path, [f"{number}.jpg,cat" for number in (0, 1, 2, 3, 4, 5, 5)])
    assert kinds["repeated-sample-id"].rows == ("5.jpg",) and kinds["repeated-sample-id"].count == 1


def test_one_name_in_two_folders(tmp_path):
    kinds = found(tmp_path, ["a.jpg,cat", "b.jpg,cat"], ["0/a.jpg", "1/a.jpg", "0/b.jpg"])
    assert kinds["sample-id-of-two"].rows == ("a.jpg",)


def test_another_order_is_said_not_feared(tmp_path):
    kinds = found(tmp_path, [f"{number}.jpg,cat" for number in (0, 2, 1, 3, 4, 5)])
    assert kinds.keys() == {"sample-order"}
    assert kinds["sample-order"].level == "note" and "joins by id" in kinds["sample-order"].advice
    assert kinds["sample-order"].rows == ("2.jpg", "1.jpg")


def test_a_shuffled_test_list(tmp_path, paint):
    for number in range(4):
        paint(tmp_path / "pics" / f"{number}.png")
    (tmp_path / "test.csv").write_text("image\npics/2.png\npics/0.png\npics/3.png\npics/1.png\n")
    (tmp_path / "sample.csv").write_text("id,label\n" + "".join(f"{number},cat\n" for number in range(4)))
    kinds = [one.kind for one in check_submission(tmp_path / "sample.csv", read_test(tmp_path / "test.csv"), ["cat"])]
    assert kinds == ["sample-order"]


def test_a_folder_has_no_order(tmp_path, paint):
    """Its names sort as text, 10 before 2; a sample counts."""
    for number in range(12):
        paint(tmp_path / "test" / f"{number}.png")
    (tmp_path / "sample.csv").write_text("id,label\n" + "".join(f"{number}.png,cat\n" for number in range(12)))
    assert check_submission(tmp_path / "sample.csv", read_test(tmp_path / "test"), ["cat"]) == []


def test_answers_that_are_no_class(tmp_path):
    kinds = found(tmp_path, [f"{number}.jpg,{'cat' if number else 'wolf'}" for number in range(6)])
    assert kinds["sample-answer"].rows == ("wolf",)
    assert found(tmp_path, [f"{number}.jpg,{'cat' if number else 'Dog'}" for number in range(6)]) == {}
    assert found(tmp_path, [f"{number}.jpg,0" for number in range(6)]) == {}


def test_columns_that_are_not_the_classes(tmp_path):
    rows = [f"{number}.jpg,0.5,0.5" for number in range(6)]
    assert found(tmp_path, rows, header="id,cat,dog") == {}
    assert found(tmp_path, rows, header="id,cat,Dog") == {}
    form = found(tmp_path, rows, header="id,cat,cow")["sample-form"]
    assert form.rows == ("cat", "cow") and "(without a column: dog; no class: 'cow'); ens writes" in form.advice


def test_without_test_images_only_repeats_are_told(tmp_path):
    assert found(tmp_path, ["x,cat", "x,cat"], None).keys() == {"repeated-sample-id"}


def test_a_sample_of_one_column_is_a_mistake(tmp_path):
    with pytest.raises(UserError, match=r"sample.csv: has one column, 'id'; a submission needs an id and a label"):
        found(tmp_path, ["x"], header="id")


def test_a_test_table_whose_images_lie_in_a_folder_below(tmp_path, paint):
    for number in range(4):
        paint(tmp_path / "images" / f"{number}.jpg")
    (tmp_path / "info.csv").write_text("ImageID,ans\n" + "".join(f"{number}.jpg,0\n" for number in range(4)))
    test = read_test(tmp_path / "info.csv")
    assert test.ids.tolist() == [f"{number}.jpg" for number in range(4)]
    assert test.files[3] == tmp_path / "images" / "3.jpg"

"""Submissions: the sample's ids, order, header and form."""

import numpy as np
import pytest

from ensemble.errors import UserError
from ensemble.tta.submission import arrange, lay_out, match, read_sample, write_submission

CLASSES = ("cat", "dog")
PROBABILITIES = np.array([[0.75, 0.25], [0.125, 0.875]])


def sample(tmp_path, text):
    file = tmp_path / "sample.csv"
    file.write_text(text, encoding="utf-8")
    return read_sample(file)


def written(tmp_path, text, classes=CLASSES, form=None):
    given = sample(tmp_path, text)
    table, said = arrange(given.ids, PROBABILITIES, classes, given, form)
    write_submission(tmp_path / "s.csv", table)
    return (tmp_path / "s.csv").read_text(encoding="utf-8").splitlines(), said


@pytest.mark.parametrize("names", [["1/b.jpg", "0/a.jpg"], ["b.jpg", "a.jpg"], ["b", "a"]])
def test_ids_match_by_path_name_or_stem(tmp_path, names):
    given = sample(tmp_path, "id,label\n" + "".join(f"{name},x\n" for name in names))
    assert match(given, ["0/a.jpg", "1/b.jpg"]).tolist() == [1, 0]


def test_ids_match_across_unicode_forms(tmp_path):
    given = sample(tmp_path, "id,label\n\u1112\u1161\u11ab.jpg,x\n")  # decomposed Hangul
    assert match(given, ["\ud55c.jpg"]).tolist() == [0]


def test_an_id_without_an_image_is_named(tmp_path):
    given = sample(tmp_path, "id,label\na.jpg,x\nc.jpg,x\n")
    with pytest.raises(UserError) as error:
        match(given, ["0/a.jpg", "1/b.jpg"])
    assert str(error.value) == (
        f"{given.path}: no image for id 'c.jpg' (1 of 2 ids have none; the images are named like '0/a.jpg')"
    )


def test_an_id_that_means_two_images_is_refused(tmp_path):
    given = sample(tmp_path, "id,label\na.jpg,x\n")
    with pytest.raises(UserError, match=r"id 'a\.jpg' is the file name of two images; use their paths"):
        match(given, ["0/a.jpg", "1/a.jpg"])


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("id\na\n", "has one column, 'id'; a submission needs an id and a label column"),
        ("id,label\na,x\na,x\n", "id 'a' is there twice"),
        ("id,label\n", "has no rows"),
    ],
)
def test_a_sample_that_cannot_be_followed_is_refused(tmp_path, text, error):
    with pytest.raises(UserError) as caught:
        sample(tmp_path, text)
    assert str(caught.value) == f"{tmp_path / 'sample.csv'}: {error}"


def test_class_names_in_the_samples_header_and_order(tmp_path):
    assert written(tmp_path, "ImageID,ans\n007,dog\n001,dog\n") == (
        ["ImageID,ans", "007,cat", "001,dog"],
        "2 rows of class names as in the training labels: cat, dog",
    )


def test_class_numbers_where_the_sample_has_numbers(tmp_path):
    lines, said = written(tmp_path, "ImageID,ans\na,0\nb,0\n")
    assert lines == ["ImageID,ans", "a,0", "b,1"] and said == "2 rows of class numbers: 0 = cat, 1 = dog"


def test_classes_that_are_numbers_stay_names(tmp_path):
    lines, said = written(tmp_path, "id,ans\na,3\nb,7\n", classes=("3", "7"))
    assert lines == ["id,ans", "a,3", "b,7"] and said == "2 rows of class names as in the training labels: 3, 7"


@pytest.mark.parametrize("classes", [("1", "2"), ("001", "002"), ("4.0", "10.0"), ("-1", "1"), ("2", "3")])
@pytest.mark.parametrize("dummy", ["0", "1", "0.0", "7", "-1", "label"])
def test_dummies_say_nothing_where_the_classes_are_numbers(tmp_path, classes, dummy):
    lines, said = written(tmp_path, f"id,ans\na,{dummy}\nb,{dummy}\n", classes)
    assert lines == ["id,ans", f"a,{classes[0]}", f"b,{classes[1]}"]
    assert said == f"2 rows of class names as in the training labels: {', '.join(classes)}"
    lines, said = written(tmp_path, f"id,ans\na,{dummy}\nb,{dummy}\n", classes, "index")
    assert lines == ["id,ans", "a,0", "b,1"]
    assert said == f"2 rows of class numbers: 0 = {classes[0]}, 1 = {classes[1]}"


def test_shares_ask_for_a_probability_where_the_classes_are_numbers_too(tmp_path):
    lines, said = written(tmp_path, "id,p\na,0.5\nb,0.5\n", ("0", "1"))
    assert lines == ["id,p", "a,0.25", "b,0.875"] and said == "2 rows of the probability of '1'"


def test_a_column_a_class_takes_probabilities_in_the_headers_order(tmp_path):
    lines, said = written(tmp_path, "id,dog,cat\na,0,0\nb,0,0\n")
    assert lines == ["id,dog,cat", "a,0.25,0.75", "b,0.875,0.125"] and said == "2 rows of one probability a class"


def test_one_share_beside_the_id_takes_the_second_class(tmp_path):
    lines, said = written(tmp_path, "id,p\na,0.5\nb,0.5\n")
    assert lines == ["id,p", "a,0.25", "b,0.875"] and said == "2 rows of the probability of 'dog'"


def test_columns_that_are_not_the_classes_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"one column a class \(cat, dog\); the header has: \['cat', 'cow'\]"):
        written(tmp_path, "id,cat,cow\na,0,0\nb,0,0\n")
    with pytest.raises(UserError, match="a label needs one column beside the id; the header has: cat, dog"):
        written(tmp_path, "id,cat,dog\na,0,0\nb,0,0\n", form="label")


def test_without_a_sample(tmp_path):
    write_submission(tmp_path / "s.csv", arrange(["a", "b"], PROBABILITIES, CLASSES)[0])
    assert (tmp_path / "s.csv").read_text().splitlines() == ["id,label", "a,cat", "b,dog"]
    write_submission(tmp_path / "s.csv", arrange(["a", "b"], PROBABILITIES, CLASSES, form="probability")[0])
    assert (tmp_path / "s.csv").read_text().splitlines() == ["id,cat,dog", "a,0.75,0.25", "b,0.125,0.875"]


def test_rows_must_be_the_samples_own_in_its_order(tmp_path):
    given = sample(tmp_path, "id,label\na,cat\nb,cat\n")
    with pytest.raises(ValueError, match=r"2 ids are not the 2 of .*sample\.csv, in its order"):
        arrange(["b", "a"], PROBABILITIES, CLASSES, given)


@pytest.mark.parametrize(
    ("form", "lines"),
    [
        ("label", ["id,label", "a,cat", "b,", "c,dog"]),
        ("index", ["id,label", "a,0", "b,", "c,1"]),
        ("probability", ["id,cat,dog", "a,0.75,0.25", "b,,", "c,0.125,0.875"]),
    ],
)
def test_rows_without_a_prediction_are_empty_and_pieces_make_one_file(tmp_path, form, lines):
    probabilities = np.insert(PROBABILITIES, 1, np.nan, axis=0).astype(np.float32)
    layout = lay_out(CLASSES, form=form)
    pieces = (layout.rows(["abc"[row]], probabilities[row : row + 1]) for row in range(3))
    write_submission(tmp_path / "pieces.csv", pieces)
    assert (tmp_path / "pieces.csv").read_text().splitlines() == lines
    write_submission(tmp_path / "whole.csv", arrange(list("abc"), probabilities, CLASSES, form=form)[0])
    assert (tmp_path / "whole.csv").read_bytes() == (tmp_path / "pieces.csv").read_bytes()


def test_pieces_follow_the_samples_header(tmp_path):
    given = sample(tmp_path, "Image,dog,cat\na,0,0\nb,0,0\n")
    layout = lay_out(CLASSES, given)
    assert (layout.form, layout.columns, layout.said) == ("probability", (1, 0), "one probability a class")
    write_submission(tmp_path / "s.csv", (layout.rows([name], PROBABILITIES[:1]) for name in given.ids))
    assert (tmp_path / "s.csv").read_text().splitlines() == ["Image,dog,cat", "a,0.25,0.75", "b,0.25,0.75"]
    with pytest.raises(ValueError, match="2 ids for 1 rows of probabilities"):
        layout.rows(["a", "b"], PROBABILITIES[:1])


def test_a_writer_that_fails_leaves_the_old_submission(tmp_path):
    (tmp_path / "s.csv").write_text("old")

    def pieces():
        yield lay_out(CLASSES).rows(["a"], PROBABILITIES[:1])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_submission(tmp_path / "s.csv", pieces())
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("s.csv", "old")]

"""Submissions: the sample's ids, order, header and form."""

import numpy as np
import pytest

from ensemble.data.submission.match import match
from ensemble.data.submission.sample import read_sample
from ensemble.data.submission.write import follow, lay_out, write_submission
from ensemble.errors import UserError

CLASSES = ("cat", "dog")
THREE = ("cat", "dog", "owl")
PROBABILITIES = np.array([[0.75, 0.25], [0.125, 0.875]])
THREE_PROBABILITIES = np.array([[0.625, 0.25, 0.125], [0.0625, 0.1875, 0.75]])


def sample(tmp_path, text, encoding="utf-8"):
    file = tmp_path / "sample.csv"
    file.write_bytes(text.encode(encoding))
    return read_sample(file)


def written(tmp_path, text, classes=CLASSES, form=None, images=("a.png", "b.png"), encoding="utf-8"):
    """The lines of a submission for these images, of which the first is a cat and the second the last class, and what
    was said."""
    probabilities = PROBABILITIES if len(classes) == 2 else THREE_PROBABILITIES
    path = sample(tmp_path, text, encoding).path
    layout, ids, rows = follow(path, list(images), classes, form)
    said = [*layout.notes, write_submission(tmp_path / "s.csv", layout, ids, [probabilities[rows]])]
    return (tmp_path / "s.csv").read_bytes().decode(encoding).splitlines(), "\n".join(said)


def refusal(tmp_path, text, classes=THREE, form=None, images=("a.png", "b.png")):
    with pytest.raises(UserError) as caught:
        written(tmp_path, text, classes, form, images)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{tmp_path / 'sample.csv'}: ")


# ---- ids -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [
        ["1/b.jpg", "0/a.jpg"], ["b.jpg", "a.jpg"], ["b", "a"], ["test/1/b.jpg", "test/0/a.jpg"], ["b.png", "a.png"],
        ["B.JPG", "A.JPG"], [" b.jpg", "a.jpg "], ["1\\b.jpg", "0\\a.jpg"],
    ],
)  # fmt: skip
def test_ids_mean_images_and_stay_as_they_are(tmp_path, names):
    text = "id,label\n" + "".join(f"{name},x\n" for name in names)
    asked = match(sample(tmp_path, text), ["0/a.jpg", "1/b.jpg"], CLASSES)
    assert asked.images.tolist() == [1, 0] and asked.ids == names
    lines, _ = written(tmp_path, text, images=["0/a.jpg", "1/b.jpg"])
    assert lines == ["id,label", f"{names[0]},dog", f"{names[1]},cat"]


def test_ids_that_lost_their_zeros(tmp_path):
    lines, said = written(tmp_path, "id,label\n2,x\n1,x\n", images=["001.png", "002.png"])
    assert lines == ["id,label", "2,dog", "1,cat"]
    assert "2 of 2 names are written without their leading zeros and without their ending: '2' is read as" in said


def test_ids_match_across_unicode_forms(tmp_path):
    given = sample(tmp_path, "id,label\n\u1112\u1161\u11ab.jpg,x\n")  # decomposed Hangul
    assert match(given, ["\ud55c.jpg"], CLASSES).images.tolist() == [0]


def test_an_id_without_an_image_is_named_with_the_nearest(tmp_path):
    given = sample(tmp_path, "id,label\nimg_1.jpg,x\nimg_33.jpg,x\n")
    with pytest.raises(UserError) as error:
        match(given, ["0/img_1.jpg", "1/img_32.jpg"], CLASSES)
    assert str(error.value) == (
        f"{given.path}: id 'img_33.jpg' is not there; the nearest name is '1/img_32.jpg' (1 of 2 ids have no image of "
        "their own; the images are named like '0/img_1.jpg')"
    )


def test_an_id_that_means_two_images_is_refused(tmp_path):
    given = sample(tmp_path, "id,label\na.jpg,x\n")
    with pytest.raises(
        UserError, match=r"id 'a\.jpg' could be '0/a.jpg' or '1/a.jpg' \(2 files\): write the path in f"
    ):
        match(given, ["0/a.jpg", "1/a.jpg"], CLASSES)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("id\na\n", "has one column, 'id'; a submission needs an id and a label column"),
        (
            "id,label\na,cat\na,cat\n",
            "id 'a' is there twice; several rows per image need a column that names the class of each",
        ),
        ("id,label\n", "has no rows"),
        (
            "id,label\na,cat\nb,cat,3\n",
            "row 2 has 3 cells where the header has 2: put quotes around a cell that holds the delimiter",
        ),
    ],
)
def test_a_sample_that_cannot_be_followed_is_refused(tmp_path, text, error):
    assert refusal(tmp_path, text) == error


def test_without_images_headers_tell_the_ids(tmp_path):
    assert match(sample(tmp_path, "label,image_id\ncat,a\ndog,b\n"), None, CLASSES).ids == ["a", "b"]
    assert match(sample(tmp_path, ",x,label\n0,a,dog\n1,b,dog\n"), None, CLASSES).ids == ["a", "b"]
    assert match(sample(tmp_path, "x,label\na,cat\nb,dog\n"), None, CLASSES).ids == ["a", "b"]


# ---- names and numbers ---------------------------------------------------------------------------------------------


def test_class_names_in_the_samples_header_and_order(tmp_path):
    lines, said = written(tmp_path, "ImageID,ans\n007,dog\n001,dog\n", images=["001.png", "007.png"])
    assert lines == ["ImageID,ans", "007,dog", "001,cat"]
    assert said.splitlines()[-2:] == [
        "writes class names as in the training labels: cat, dog",
        "2 rows of class names as in the training labels; the first: 007,dog and 001,cat",
    ]


def test_class_numbers_where_the_sample_has_numbers(tmp_path):
    lines, said = written(tmp_path, "ImageID,ans\na,0\nb,0\n")
    assert lines == ["ImageID,ans", "a,0", "b,1"] and "writes class numbers: 0 = cat, 1 = dog\n" in said


@pytest.mark.parametrize("numbers", [("1", "3"), ("3", "3"), ("2", "3")])
def test_class_numbers_that_count_from_1(tmp_path, numbers):
    lines, said = written(tmp_path, f"id,ans\na,{numbers[0]}\nb,{numbers[1]}\n", THREE)
    assert lines == ["id,ans", "a,1", "b,3"] and "writes class numbers: 1 = cat, 2 = dog, 3 = owl\n" in said


@pytest.mark.parametrize("dummy", ["-1", "0", "1", "2", "0.0"])
def test_numbers_of_whatever_kind_ask_for_numbers(tmp_path, dummy):
    lines, _ = written(tmp_path, f"id,ans\na,{dummy}\nb,{dummy}\n", THREE)
    assert lines == ["id,ans", "a,0", "b,2"]


@pytest.mark.parametrize("classes", [("1", "2"), ("001", "002"), ("4.0", "10.0"), ("-1", "1"), ("2", "3")])
@pytest.mark.parametrize("dummy", ["0", "1", "0.0", "7", "-1", "label", ""])
def test_dummies_say_nothing_where_the_classes_are_numbers(tmp_path, classes, dummy):
    lines, said = written(tmp_path, f"id,ans\na,{dummy}\nb,{dummy}\n", classes)
    assert lines == ["id,ans", f"a,{classes[0]}", f"b,{classes[1]}"]
    assert f"writes class names as in the training labels: {', '.join(classes)}\n" in said
    lines, said = written(tmp_path, f"id,ans\na,{dummy}\nb,{dummy}\n", classes, "index")
    assert lines == ["id,ans", "a,0", "b,1"]
    assert f"writes class numbers: 0 = {classes[0]}, 1 = {classes[1]}\n" in said


def test_one_share_beside_the_id_takes_the_second_class(tmp_path):
    for classes in (CLASSES, ("0", "1")):
        lines, said = written(tmp_path, "id,p\na,0.5\nb,0.5\n", classes)
        assert lines == ["id,p", "a,0.25", "b,0.875"] and f"writes the probability of {classes[1]!r}\n" in said


@pytest.mark.parametrize(
    ("header", "cell", "values"),
    [
        ("cat", "0.5", ["0.75", "0.125"]), ("prob_cat", "0.5", ["0.75", "0.125"]), ("P(Dog)", "0.5", ["0.25", "0.875"]),
        ("probability", "0", ["0.25", "0.875"]), ("cat_score", "0", ["0.75", "0.125"]), ("is_dog", "0", ["0", "1"]),
    ],
)  # fmt: skip
def test_the_header_tells_whose_probability_is_asked_for(tmp_path, header, cell, values):
    lines, _ = written(tmp_path, f"id,{header}\na,{cell}\nb,{cell}\n")
    assert lines == [f"id,{header}", f"a,{values[0]}", f"b,{values[1]}"]


def test_whole_numbers_under_the_first_class_may_mean_either(tmp_path):
    text = "id,is_cat\na,0\nb,0\n"
    assert refusal(tmp_path, text, CLASSES).startswith(
        "'is_cat' is named after the class 'cat' and holds whole numbers: "
    )
    assert written(tmp_path, text, form="probability")[0][1:] == ["a,0.75", "b,0.125"]
    assert written(tmp_path, text, form="index")[0][1:] == ["a,0", "b,1"]
    message = refusal(tmp_path, "id,score\na,0\nb,0\n")
    assert message == "'score' is one column, which can hold the probability of one of two classes; there are 3"


@pytest.mark.parametrize(
    ("spelling", "lines"),
    [("Cat", ["a,Cat", "b,Owl"]), ("CAT", ["a,CAT", "b,OWL"]), ("cat", ["a,cat", "b,owl"])],
)
def test_names_are_spelt_as_in_the_sample(tmp_path, spelling, lines):
    assert written(tmp_path, f"id,label\na,{spelling}\nb,{spelling}\n", THREE)[0][1:] == lines


def test_spaces_and_underscores_in_names(tmp_path):
    classes = ("big cat", "small dog")
    assert written(tmp_path, "id,label\na,big_cat\nb,big_cat\n", classes)[0][1:] == ["a,big_cat", "b,small_dog"]
    assert written(tmp_path, "id,label\na,Big Cat\nb,Big Cat\n", classes)[0][1:] == ["a,Big Cat", "b,Small Dog"]
    assert written(tmp_path, "id,label\na,big cat\nb,SMALL dog\n", classes)[0][1:] == ["a,big cat", "b,SMALL dog"]


def test_a_spelling_that_can_not_be_told(tmp_path):
    assert refusal(tmp_path, "id,label\na,Dog\nb,Dog\n", ("big cat", "dog", "owl")) == (
        "'label' holds 'Dog' for the class 'dog', and how it spells the other classes can't be told: --form label "
        "writes all names as in the training labels"
    )
    text = "id,label\na,Dog\nb,Dog\n"
    assert written(tmp_path, text, ("big cat", "dog", "owl"), "label")[0][1:] == ["a,big cat", "b,owl"]


def test_a_dummy_word_is_said(tmp_path):
    lines, said = written(tmp_path, "id,label\na,olw\nb,olw\n", THREE)
    assert lines[1:] == ["a,cat", "b,owl"]
    assert "warning: " in said and "'label' holds 'olw', which is no class (the nearest is 'owl')\n" in said


@pytest.mark.parametrize(
    ("cells", "which"),
    [
        (("kitten", "puppy"), "'kitten', 'puppy', which are neither classes (cat, dog, owl) nor their numbers from 0"),
        (("0.5", "0.5"), "'0.5', which is neither classes"),
        (("283", "7"), "'283', '7', which are neither classes"),
        (("not known", "not known"), "'not known', which is neither classes"),
        (("[cat]", "[cat]"), "'[cat]', which is neither classes (cat, dog, owl) nor their numbers from 0"),
    ],
)
def test_answers_that_can_not_be_understood(tmp_path, cells, which):
    message = refusal(tmp_path, f"id,label\na,{cells[0]}\nb,{cells[1]}\n")
    assert message.startswith(f"'label' holds {which}") and message.endswith("with --form label or --form index")


def test_names_that_are_partly_numbers_are_not_numbered(tmp_path):
    message = refusal(tmp_path, "id,label\na,0\nb,0\n", ("1", "2", "none"))
    assert message.startswith("'label' holds '0', which is neither classes (1, 2, none) nor their numbers from 0")


# ---- several answers per row, confidences ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "between"), [("cat dog", " "), ("cat|owl", "|"), ("'cat;dog'", ";"), ("Cat Dog", " ")]
)
def test_several_answers_in_a_cell(tmp_path, cell, between):
    cell = cell.strip("'")
    lines, said = written(tmp_path, f"id,label\na,{cell}\nb,{cell}\n", THREE)
    names = {name.lower(): name for name in (["Cat", "Dog", "Owl"] if cell[0] == "C" else THREE)}
    assert lines[1:] == [f"a,{names['cat']}{between}{names['dog']}", f"b,{names['owl']}{between}{names['dog']}"]
    assert "writes the 2 likeliest class names" in said and f"{between!r} between them: " in said


def test_several_answers_keep_the_spaces_between_them(tmp_path):
    assert written(tmp_path, 'id,label\na,"cat, dog"\nb,"cat, dog"\n', THREE)[0][1:] == ['a,"cat, dog"', 'b,"owl, dog"']


def test_cells_with_different_numbers_of_answers(tmp_path):
    text = "id,label\na,cat dog\nb,cat\n"
    assert refusal(tmp_path, text) == (
        "'label' has cells with different numbers of answers ('cat dog', ...): ens can't tell how many to write; "
        "--form label writes one"
    )
    assert written(tmp_path, text, THREE, "label")[0][1:] == ["a,cat", "b,owl"]


def test_several_numbers_in_a_cell(tmp_path):
    assert written(tmp_path, "id,label\na,0 0 0\nb,0 0 0\n", THREE)[0][1:] == ["a,0 1 2", "b,2 1 0"]
    assert written(tmp_path, "id,label\na,0 0\nb,0 0\n", ("2", "4", "10"))[0][1:] == ["a,2 4", "b,10 4"]
    assert written(tmp_path, "id,label\na,0 0 0 0 0\nb,0 0 0 0 0\n", ("2", "4", "10"))[0][1:] == [
        "a,2 4 10",
        "b,10 4 2",
    ]


def test_columns_of_the_likeliest(tmp_path):
    lines, said = written(tmp_path, "id,label1,label2\na,cat,dog\nb,cat,dog\n", THREE)
    assert lines == ["id,label1,label2", "a,cat,dog", "b,owl,dog"]
    assert "writes the 2 likeliest class names as in the training labels: cat, dog, owl\n" in said


def test_a_confidence_beside_the_answer(tmp_path):
    lines, said = written(tmp_path, "id,label,confidence\na,cat,0.5\nb,cat,0.5\n", THREE)
    assert lines == ["id,label,confidence", "a,cat,0.625", "b,owl,0.75"]
    assert "writes class names as in the training labels with their probabilities in 'confidence': cat, dog" in said
    lines, _ = written(tmp_path, "Score,id,label\n0,a,0\n0,b,0\n", THREE)
    assert lines == ["Score,id,label", "0.625,a,0", "0.75,b,2"]


def test_answers_of_the_least_expected_cost(tmp_path):
    # to miss a dog costs 3.5: cat 1.0, dog 0.75 for the first image; dog 0.8125, owl 0.71875 for the second
    costs = np.array([[0.0, 1, 1], [3.5, 0, 3.5], [1, 1, 0]])
    path = sample(tmp_path, "id,label,confidence\na,cat,0.5\nb,cat,0.5\n").path
    layout, ids, rows = follow(path, ["a.png", "b.png"], THREE, None, costs)
    write_submission(tmp_path / "s.csv", layout, ids, [THREE_PROBABILITIES[rows]])
    lines = (tmp_path / "s.csv").read_text().splitlines()
    assert lines == ["id,label,confidence", "a,dog,0.25", "b,owl,0.75"]
    last = "each answer is the class of the least expected cost, which may not be the most probable one"
    assert layout.notes[-1] == last
    layout, *_ = follow(None, ["a.png"], THREE, "probability", costs)
    assert layout.notes[-1].startswith("writes one probability per class")


# ---- probabilities -------------------------------------------------------------------------------------------------


def test_a_column_a_class_takes_probabilities_in_the_headers_order(tmp_path):
    lines, said = written(tmp_path, "id,dog,cat\na,0,0\nb,0,0\n")
    assert lines == ["id,dog,cat", "a,0.25,0.75", "b,0.875,0.125"] and "writes one probability per class" in said


@pytest.mark.parametrize(
    "header",
    [
        "id,prob_owl,prob_cat,prob_dog",
        "id, owl, cat, dog",
        "id,Owl,CAT,dog",
        "id,p(owl),p(cat),p(dog)",
        "Owl,id,Cat,Dog",
    ],
)
def test_class_columns_in_other_words_keep_their_header(tmp_path, header):
    row = ",".join("{0}" if name == "id" else "0.3" for name in header.split(","))
    lines, said = written(tmp_path, "\n".join([header, row.format("b"), row.format("a")]) + "\n", THREE)
    place = [name.strip().lower() for name in header.split(",")]
    of_b = dict(zip(("id", *THREE), ("b", "0.0625", "0.1875", "0.75"), strict=True))
    assert lines[0] == header
    assert lines[1] == ",".join(next(v for k, v in of_b.items() if k in name) for name in place)
    assert "writes one probability per class" in said


def test_columns_of_numbered_classes_are_matched_by_value(tmp_path):
    lines, _ = written(tmp_path, "id,class_10,class_2,class_1\na,0,0,0\nb,0,0,0\n", ("1.0", "2.0", "10.0"))
    assert lines[1:] == ["a,0.125,0.25,0.625", "b,0.75,0.1875,0.0625"]
    lines, _ = written(tmp_path, "id,3,1,2\na,0,0,0\nb,0,0,0\n", ("001", "002", "003"))
    assert lines[1] == "a,0.125,0.625,0.25"
    message = refusal(tmp_path, "id,0,1,2\na,0,0,0\nb,0,0,0\n", ("1", "2", "3"))
    assert message.startswith(
        "its 3 answer columns are not the 3 classes: 0, 1, 2 (without a column: 3; no class: '0')"
    )


def test_columns_that_are_numbered_stand_for_classes_in_their_order(tmp_path):
    lines, said = written(tmp_path, "id,p2,p0,p1\na,0,0,0\nb,0,0,0\n", THREE)
    assert lines[1:] == ["a,0.125,0.625,0.25", "b,0.75,0.0625,0.1875"]
    assert "writes one probability per class (p0 = cat, p1 = dog, p2 = owl)\n" in said


def test_columns_that_are_not_the_classes_are_refused(tmp_path):
    message = refusal(tmp_path, "id,cat,cow\na,0,0\nb,0,0\n", CLASSES)
    assert message.startswith(
        "its 2 answer columns are not the 2 classes: cat, cow (without a column: dog; no class: 'cow'); ens "
    )
    message = refusal(tmp_path, "id,cat,dog,none\na,0,0,0\nb,0,0,0\n", CLASSES)
    assert message.startswith("its 3 answer columns are not the 2 classes: cat, dog, none (no class: 'none'); ens")
    message = refusal(tmp_path, "id,cat,dog\na,0,0\nb,0,0\n", CLASSES, "label")
    assert message == "a label needs one column beside the id; the header has: cat, dog"
    message = refusal(tmp_path, "id,prob_cat,prob_dog,new_cat,new_dog\na,0,0,0,0\nb,0,0,0,0\n", CLASSES)
    assert message.startswith("both 'prob_cat', 'prob_dog' and 'new_cat', 'new_dog' are named after the classes")


LONG = [f"{image},{name},0.5" for name in ("owl", "cat", "dog") for image in ("b", "a")]
IN_ONE = ["b_owl", "a_owl", "b_cat", "a_cat", "b_dog", "a_dog"]


def test_one_row_an_image_and_class(tmp_path):
    values = ["0.75", "0.125", "0.0625", "0.625", "0.1875", "0.25"]
    lines, said = written(tmp_path, "\n".join(["id,class,p", *LONG]) + "\n", THREE)
    assert lines == ["id,class,p", *(f"{line[:-3]}{value}" for line, value in zip(LONG, values, strict=True))]
    assert "6 rows of one probability per row, of its image and class; the first: b,owl,0.75 and a,owl,0.125" in said
    lines, _ = written(tmp_path, "\n".join(["id,p", *(f"{id},0" for id in IN_ONE)]) + "\n", THREE)
    assert lines == ["id,p", *(f"{id},{value}" for id, value in zip(IN_ONE, values, strict=True))]
    numbered = [id.replace("owl", "2").replace("cat", "0").replace("dog", "1") for id in IN_ONE]
    lines, _ = written(tmp_path, "\n".join(["id,p", *(f"{id},0" for id in numbered)]) + "\n", THREE)
    assert lines == ["id,p", *(f"{id},{value}" for id, value in zip(numbered, values, strict=True))]


def test_an_image_and_class_in_one_beside_answers_that_are_named_like_an_image(tmp_path):
    """Zeros for answers mean the image 0.png too."""
    lines, _ = written(tmp_path, "id_class,p\n0_cat,0\n0_dog,0\n1_cat,0\n1_dog,0\n", images=("0.png", "1.png"))
    assert lines == ["id_class,p", "0_cat,0.75", "0_dog,0.25", "1_cat,0.125", "1_dog,0.875"]


def test_row_numbers_beside_the_ids(tmp_path):
    """They are not the ids, even where images are named by numbers, in another order."""
    text = "row_id,image,label\n0,1.png,cat\n1,0.png,cat\n"
    lines, _ = written(tmp_path, text, images=("0.png", "1.png"))
    assert lines == ["row_id,image,label", "0,1.png,dog", "1,0.png,cat"]
    lines, _ = written(tmp_path, "row_id,label\n0,cat\n1,cat\n", images=("0.png", "1.png"))
    assert lines == ["row_id,label", "0,cat", "1,dog"]


def test_ranks_are_no_classes(tmp_path):
    text = "id,rank,label\na,1,cat\na,2,cat\nb,1,cat\nb,2,cat\n"
    assert "id 'a' is there twice" in refusal(tmp_path, text)
    text = "id,top1,top2,top3\na,0,0,0\nb,0,0,0\n"
    assert refusal(tmp_path, text).startswith(
        "its 3 answer columns are not the 3 classes: top1, top2, top3; ens writes"
    )
    text = "id,class,note\n" + "".join(f"{image},{name},x\n" for image in "ab" for name in THREE)
    assert refusal(tmp_path, text).startswith(
        "has one row per image and class, which takes one column of probabilities"
    )


def test_class_names_with_the_mark_that_divides_ids(tmp_path):
    classes, images = ("cat", "big_cat", "dog"), ("x.png", "x_1.png")
    text = "id,p\n" + "".join(f"{image}_{name},0\n" for image in ("x", "x_1") for name in classes)
    lines, _ = written(tmp_path, text, classes, images=images)
    assert lines[1:] == ["x_cat,0.625", "x_big_cat,0.25", "x_dog,0.125", "x_1_cat,0.0625", "x_1_big_cat,0.1875",
                         "x_1_dog,0.75"]  # fmt: skip


# ---- the file ------------------------------------------------------------------------------------------------------


def test_row_numbers_and_the_place_of_the_ids_are_kept(tmp_path):
    assert written(tmp_path, ",id,label\n0,b,cat\n1,a,cat\n")[0] == [",id,label", "0,b,dog", "1,a,cat"]
    assert written(tmp_path, "label,id\ncat,b\ncat,a\n")[0] == ["label,id", "dog,b", "cat,a"]


def test_delimiter_encoding_and_header_are_the_samples(tmp_path):
    assert written(tmp_path, "\ufeffid;label\nb;cat\na;cat\n")[0] == ["id;label", "b;dog", "a;cat"]
    assert written(tmp_path, "id\tlabel\r\nb\tcat\r\na\tcat\r\n")[0] == ["id\tlabel", "b\tdog", "a\tcat"]
    text = "사진;정답 \n가;고양이\n나;고양이\n"
    classes, images = ("개", "고양이"), ("가.png", "나.png")
    for encoding in ("cp949", "utf-16"):
        lines, _ = written(tmp_path, text, classes, images=images, encoding=encoding)
        assert lines == ["사진;정답 ", "가;개", "나;고양이"]
    lines, _ = written(tmp_path, "id;cat;dog\na;0,5;0,5\nb;0,5;0,5\n")
    assert lines == ["id;cat;dog", "a;0,75;0,25", "b;0,125;0,875"]


def test_a_sample_without_a_header_is_answered_without_one(tmp_path):
    assert written(tmp_path, "b.png,cat\na.png,cat\n")[0] == ["b.png,dog", "a.png,cat"]
    assert written(tmp_path, "0,b,0.5\n1,a,0.5\n")[0] == ["0,b,0.875", "1,a,0.25"]


def test_names_that_the_samples_encoding_lacks_make_the_file_utf_8(tmp_path):
    path = sample(tmp_path, "사진,정답\n가,y\n나,y\n", "cp949").path
    layout, ids, _ = follow(path, ["가.png", "나.png"], ("caf\u00e9", "y"), None)
    write_submission(tmp_path / "s.csv", layout, ids, [PROBABILITIES])
    assert (tmp_path / "s.csv").read_text(encoding="utf-8").splitlines() == ["사진,정답", "가,caf\u00e9", "나,y"]


def test_without_a_sample(tmp_path):
    write_submission(tmp_path / "s.csv", lay_out(CLASSES), ["a", "b"], [PROBABILITIES])
    assert (tmp_path / "s.csv").read_text().splitlines() == ["id,label", "a,cat", "b,dog"]
    write_submission(tmp_path / "s.csv", lay_out(CLASSES, form="probability"), ["a", "b"], [PROBABILITIES])
    assert (tmp_path / "s.csv").read_text().splitlines() == ["id,cat,dog", "a,0.75,0.25", "b,0.125,0.875"]


def test_rows_must_be_the_samples_own_in_its_order(tmp_path):
    asked = match(sample(tmp_path, "id,label\na,cat\nb,cat\n"), ["a", "b"], CLASSES)
    with pytest.raises(ValueError, match=r"2 ids are not the 2 of .*sample\.csv, in its order"):
        list(lay_out(CLASSES, asked).tables(["b", "a"], [PROBABILITIES]))
    with pytest.raises(ValueError, match="2 ids for 1 rows of probabilities"):
        list(lay_out(CLASSES, asked).tables(["a", "b"], [PROBABILITIES[:1]]))
    with pytest.raises(ValueError, match="2 ids for 3 rows of probabilities"):
        list(lay_out(CLASSES).tables(["a", "b"], [PROBABILITIES, PROBABILITIES[:1]]))


@pytest.mark.parametrize(
    ("text", "form", "lines"),
    [
        (None, "label", ["id,label", "a,cat", "b,", "c,dog"]),
        (None, "index", ["id,label", "a,0", "b,", "c,1"]),
        (None, "probability", ["id,cat,dog", "a,0.75,0.25", "b,,", "c,0.125,0.875"]),
        ("no,id,y,score\n0,a,cat dog,1\n1,b,cat dog,1\n2,c,cat dog,1\n", None, None),
        ("index,id,y\n0,a,cat dog\n1,b,cat dog\n2,c,cat dog\n", None,
         ["index,id,y", "0,a,cat dog", "1,b,", "2,c,dog cat"]),
        ("id,y,conf\na,cat,1\nb,cat,1\nc,cat,1\n", None, ["id,y,conf", "a,cat,0.75", "b,,", "c,dog,0.875"]),
    ],
)  # fmt: skip
def test_rows_without_a_prediction_are_empty_and_pieces_make_one_file(tmp_path, text, form, lines):
    probabilities = np.insert(PROBABILITIES, 1, np.nan, axis=0).astype(np.float32)
    asked = None if text is None else match(sample(tmp_path, text), ["a", "b", "c"], CLASSES)
    if lines is None:
        with pytest.raises(UserError, match="its 2 answer columns are not the 2 classes: y, score"):
            lay_out(CLASSES, asked, form)
        return
    layout = lay_out(CLASSES, asked, form)
    pieces = (probabilities[row : row + 1] for row in range(3))
    write_submission(tmp_path / "pieces.csv", layout, list("abc"), pieces)
    assert (tmp_path / "pieces.csv").read_text().splitlines() == lines
    write_submission(tmp_path / "whole.csv", layout, list("abc"), [probabilities])
    assert (tmp_path / "whole.csv").read_bytes() == (tmp_path / "pieces.csv").read_bytes()


def test_a_writer_that_fails_leaves_the_old_submission(tmp_path):
    (tmp_path / "s.csv").write_text("old")

    def pieces():
        yield PROBABILITIES[:1]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_submission(tmp_path / "s.csv", lay_out(CLASSES), ["a", "b"], pieces())
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("s.csv", "old")]

"""Predictions of other tools: every format by id, what is guessed and said, what is refused, what looks wrong."""

import subprocess
import sys
import unicodedata

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from recorder import Recorder

from ensemble.blend import BlendOptions, blend_files
from ensemble.blend.external.checks import suspicious
from ensemble.blend.external.external_files import ExternalFiles
from ensemble.blend.external.members import join, read_labels, read_predictions, read_test, rows_of
from ensemble.blend.external.scale import floored, without_unknown_classes
from ensemble.blend.oof import Rows
from ensemble.data.logits import Logits
from ensemble.errors import UserError

CLASSES = ("cat", "dog", "owl")
IDS = ["007", "7", "bild ü.png"]
P = np.array([[0.5, 0.25, 0.25], [0.125, 0.75, 0.125], [0.0625, 0.0625, 0.875]])
LOG_P = np.log(P)


def written(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def csv(path, text="id,cat,dog,owl\n007,.5,.25,.25\n7,.125,.75,.125\nbild ü.png,.0625,.0625,.875\n"):
    return written(path / "oof.csv", text)


def read(path, classes=CLASSES, kind=None):
    """Ids, logits and the warnings said."""
    said = []
    ids, z = read_predictions(path, classes, said.append, "xgb", kind)
    assert ids.dtype.kind == "U" and z.shape == (len(ids), len(classes))
    z = floored(z, lambda text: said.append(f"warning: xgb ({path.name}): {text}"))
    assert z.dtype == np.float32
    return ids.tolist(), z, [line for line in said if line.startswith("warning")]


def taken(path, classes=CLASSES, kind=None):
    """What the numbers were read as, and the probabilities."""
    said = []
    z = read_predictions(path, classes, said.append, "xgb", kind)[1]
    return [line for line in said if not line.startswith("warning")], np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)


def refusal(path, classes=CLASSES):
    with pytest.raises(UserError) as caught:
        read_predictions(path, classes, lambda line: None, "xgb")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def labels_refusal(path):
    with pytest.raises(UserError) as caught:
        read_labels(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def make_rows(labels, ids=None, classes=CLASSES, folds=None):
    count = len(labels)
    ids = np.array([f"r{i}" for i in range(count)] if ids is None else ids)
    folds = np.zeros(count, dtype=np.int64) if folds is None else np.array(folds)
    return Rows(ids, np.array(labels), folds, np.arange(count), False, classes)


# ---- labels --------------------------------------------------------------------------------------------------------


def test_labels_of_two_columns(tmp_path):
    rows = read_labels(written(tmp_path / "y.csv", "file,species\n007,owl\n7,cat\nb, owl \n"))
    assert rows.ids.tolist() == ["007", "7", "b"] and rows.ids.dtype.kind == "U"
    assert rows.classes == ("cat", "owl")
    assert rows.labels.tolist() == [1, 0, 1] and rows.labels.dtype == np.int64
    assert rows.folds.tolist() == [0, 0, 0] and rows.folds.dtype == np.int64
    assert rows.clusters.tolist() == [0, 1, 2] and rows.clusters.dtype == np.int64
    assert rows.grouped is False


def test_the_id_column_may_be_the_second_of_two(tmp_path):
    rows = read_labels(written(tmp_path / "y.csv", "species,id\nowl,a\ncat,b\n"))
    assert (rows.ids.tolist(), rows.labels.tolist()) == (["a", "b"], [1, 0])


def test_labels_with_folds_and_groups(tmp_path):
    text = "x,id,label,fold,group\n1,a,cat,1,p2\n2,b,dog,0,p1\n3,c,cat,1.0,p2\n4,d,,-1,\n5,e,owl,,p9\n"
    rows = read_labels(written(tmp_path / "y.csv", text))
    assert rows.ids.tolist() == ["a", "b", "c"]
    assert rows.folds.tolist() == [1, 0, 1]
    assert rows.clusters.tolist() == [0, 1, 0]
    assert rows.grouped is True
    assert rows.classes == ("cat", "dog", "owl")  # the owl is only trained on, and still has its column
    assert rows.labels.tolist() == [0, 1, 0]


def test_numeric_labels_are_in_the_order_of_their_values(tmp_path):
    path = written(tmp_path / "y.csv", "id,label\na,10\nb,2\nc,1\nd,-1\ne,2\nf,NA\n")
    assert read_labels(path).classes == ("-1", "1", "2", "10", "NA")
    assert read_labels(path).labels.tolist() == [3, 2, 1, 0, 2, 4]


def test_labels_from_parquet(tmp_path):
    table = pd.DataFrame({"id": [3, 10], "label": [10, 2], "fold": [0.0, 1.0], "group": ["g", "h"]})
    table.to_parquet(tmp_path / "y.parquet")
    rows = read_labels(tmp_path / "y.parquet")
    assert (rows.ids.tolist(), rows.classes, rows.labels.tolist()) == (["3", "10"], ("2", "10"), [1, 0])
    assert rows.folds.tolist() == [0, 1]


def test_ids_and_labels_are_composed(tmp_path):
    korean = unicodedata.normalize("NFD", "고양이")
    rows = read_labels(written(tmp_path / "y.csv", f"id,label\n{korean} 1,{korean}\n2,고양이\n3,개\n"))
    assert rows.ids.tolist() == ["고양이 1", "2", "3"]
    assert rows.labels.tolist() == [1, 1, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b,c\n1,2,3\n", "no column 'label' for the labels; it has: a, b, c"),
        ("id,fold\n1,2\n", "no column 'label' for the labels; it has: id, fold"),
        ("label,x,y\ncat,2,3\n", "the ids would be read from 'label', which holds another thing; name theirs 'id'"),
        ("id,label\na,cat\nb,dog\na,cat\n", "id 'a' is there twice"),
        ("id,label\na,cat\n,dog\n", "the id of row 2 is empty"),
        ("id,label\na,cat\nb, \nc,\n", "column 'label' is empty in row 2, id 'b' (2 rows in all)"),
        ("id,label,group\na,cat,g\nb,dog,\n", "column 'group' is empty in row 2, id 'b' (1 rows in all)"),
        ("id,label,fold\na,cat,0\nb,dog,0.5\n", "row 2, id 'b': fold '0.5' is not a whole number"),
        ("id,label,fold\na,cat,0\nb,dog,x\n", "row 2, id 'b': fold 'x' is not a whole number"),
        ("id,label,fold\na,cat,0\nb,dog,inf\n", "row 2, id 'b': fold 'inf' is not a whole number"),
        ("id,label,fold\na,cat,-1\nb,dog,\n", "no row has a fold (0 or more), so there is nothing to blend on"),
        ("id,label\n", "has no rows"),
        (
            "id,label,label\na,cat,dog\n",
            "not a readable CSV or Parquet file (columns 2 and 3 are both named 'label' and hold different values: "
            "rename one)",
        ),
        (
            "id,label\na,cat,0\nb,dog,1\n",
            "not a readable CSV or Parquet file (row 1 has 3 cells where the header has 2: put quotes around a cell "
            "that holds the delimiter)",
        ),
    ],
)
def test_labels_with_a_fault(tmp_path, text, message):
    path = written(tmp_path / "y.csv", text)
    assert labels_refusal(path) == f"{path}: {message}"


def test_label_files_that_can_not_be_read(tmp_path):
    for name in ("no.csv", "no.parquet"):
        assert labels_refusal(tmp_path / name) == f"{tmp_path / name}: no such file or folder"
    path = written(tmp_path / "y.parquet", "id,label\n")
    assert labels_refusal(path).startswith(f"{path}: not a readable Parquet file (")
    (tmp_path / "y.csv").write_bytes(b"\x80\x04\x95\xff")
    assert labels_refusal(tmp_path / "y.csv").startswith(f"{tmp_path / 'y.csv'}: not a readable CSV or Parquet file (")
    pd.DataFrame({"id": [], "label": []}).to_parquet(path)
    assert labels_refusal(path) == f"{path}: has no rows"


# ---- tables --------------------------------------------------------------------------------------------------------


def test_csv_of_probabilities(tmp_path):
    ids, z, said = read(csv(tmp_path))
    assert ids == IDS
    assert z == pytest.approx(LOG_P)
    assert z[2].tolist() == pytest.approx([-2.7725887, -2.7725887, -0.1335314])
    assert said == []


def test_columns_in_any_order_and_others_left_over(tmp_path):
    text = "fold,owl,label,cat,id,pred,dog\n0,.25,cat,.5,007,cat,.25\n1,.125,owl,.125,7,owl,.75\n"
    ids, z, said = read(csv(tmp_path, text))
    assert (ids, said) == (["007", "7"], [])
    assert z == pytest.approx(LOG_P[:2])


@pytest.mark.parametrize("name", ["prob_{}", "{}_prob", "oof {} p", "p{}"])
def test_a_common_text_around_the_class_names(tmp_path, name):
    header = ",".join(name.format(c) for c in ("owl", "cat", "dog"))
    ids, z, said = read(csv(tmp_path, f"id,fold,{header}\n007,0,.25,.5,.25\n"))
    assert (ids, said) == (["007"], [])
    assert z == pytest.approx(LOG_P[:1])


def test_numbered_classes_are_not_read_into_longer_numbers(tmp_path):
    path = csv(tmp_path, "id,p1,p0,p10\na,.5,.25,.25\n")
    assert read(path, ("0", "1", "10"))[1] == pytest.approx(np.log([[0.25, 0.5, 0.25]]))
    path = csv(tmp_path, "id,10,11\na,.5,.5\n")
    assert read(path, ("0", "1"))[2] == [
        "warning: xgb (oof.csv): its columns are not named after the classes and were taken in their order: "
        "'10' for '0', '11' for '1'"
    ]


def test_two_sets_of_columns(tmp_path):
    path = csv(tmp_path, "id,oof_cat,oof_dog,oof_owl,test_cat,test_dog,test_owl\na,1,0,0,1,0,0\n")
    assert refusal(path) == (
        f"{path}: both 'oof_cat', 'oof_dog' and 'test_cat', 'test_dog' are named after the classes; "
        "keep one column per class"
    )


def test_columns_by_their_order_are_said(tmp_path):
    ids, z, said = read(csv(tmp_path, "image,fold,label,p1,p2,p3,note\n007,3,cat,.5,.25,.25,x\n"))
    assert ids == ["007"]
    assert z == pytest.approx(LOG_P[:1])
    assert said == [
        "warning: xgb (oof.csv): its columns are not named after the classes and were taken in their order: "
        "'p1' for 'cat', 'p2' for 'dog', 'p3' for 'owl'"
    ]


def test_too_many_columns_for_a_guess(tmp_path):
    path = csv(tmp_path, "file,cat,dog,pig,age,note\na,.5,.25,.25,3,x\n")
    assert refusal(path) == (
        f"{path}: want one column per class, named after it (cat, dog, owl); beside the ids in column 'file' "
        "it has: cat, dog, pig, age, note"
    )
    path = csv(tmp_path, "id\na\n")
    assert refusal(path).endswith("(cat, dog, owl); beside the ids in column 'id' it has: nothing")


def test_many_classes_are_not_all_listed(tmp_path):
    classes = tuple(f"c{i}" for i in range(25))
    assert ", c19, ... (25 in all)); beside" in refusal(csv(tmp_path, "id,x\na,1\n"), classes)


@pytest.mark.parametrize(
    ("name", "label", "p"),
    [("pred", "dog", 0.75), ("dog", "dog", 0.75), ("p_cat", "cat", 0.25), ("catlike", "dog", 0.75)],
)
def test_one_column_for_two_classes(tmp_path, name, label, p):
    _, z, said = read(csv(tmp_path, f"id,label,{name}\na,1,.75\n"), ("cat", "dog"))
    assert z == pytest.approx(np.log([[1 - p, p]]))
    assert said == [f"warning: xgb (oof.csv): its one column, '{name}', was taken for the probability of '{label}'"]


def test_one_column_for_numbered_classes(tmp_path):
    path = csv(tmp_path, "id,p0\na,.75\n")
    assert read(path, ("0", "1"))[1] == pytest.approx(np.log([[0.75, 0.25]]))


def test_one_column_that_is_no_probability(tmp_path):
    path = csv(tmp_path, "id,margin\na,.5\nb,-2.5\n")
    assert refusal(path, ("cat", "dog")) == (
        f"{path}: id 'b', column 'margin': -2.5 is not in [0, 1]; a column by itself must hold the probability of 'dog'"
    )


def test_row_names_that_pandas_wrote_without_a_header(tmp_path):
    ids, z, said = read(csv(tmp_path, ",cat,dog,owl\n007,.5,.25,.25\n"))
    assert (ids, said) == (["007"], [])
    assert z == pytest.approx(LOG_P[:1])


def test_a_file_without_ids(tmp_path):
    path = csv(tmp_path, "cat,dog,owl\n.5,.25,.25\n")
    assert refusal(path) == f"{path}: no ids: its first column is the class 'cat'; write them in a column 'id'"


def test_parquet_with_number_ids_in_shuffled_order(tmp_path):
    table = pd.DataFrame({"owl": P[:, 2], "id": [30, 1, 2], "cat": P[:, 0], "dog": P[:, 1]}).astype({"cat": "float32"})
    table.to_parquet(tmp_path / "oof.parquet")
    ids, z, said = read(tmp_path / "oof.parquet")
    assert (ids, said) == (["30", "1", "2"], [])
    assert z == pytest.approx(LOG_P)


def test_parquet_whose_row_names_are_the_ids(tmp_path):
    path = tmp_path / "oof.parquet"
    pd.DataFrame(P, columns=list(CLASSES), index=IDS).to_parquet(path)
    assert read(path)[0] == IDS
    pd.DataFrame(P, columns=list(CLASSES), index=pd.Index([5, 3, 4], name="row")).to_parquet(path)
    assert read(path)[0] == ["5", "3", "4"]
    pd.DataFrame(P, columns=list(CLASSES), index=range(10, 13)).to_parquet(path)
    assert read(path)[0] == ["10", "11", "12"]
    for name in ("id", "image"):  # row numbers of the table that these rows were taken from
        pd.DataFrame({name: IDS, **dict(zip(CLASSES, P.T, strict=True))}, index=[5, 3, 4]).to_parquet(path)
        assert read(path)[0] == IDS


def test_parquet_with_numbers_as_text_nulls_and_flags(tmp_path):
    path = tmp_path / "oof.parquet"
    pd.DataFrame({"id": ["a"], "x": ["0.5"], "y": ["0.5"], "is_train": [True], "z": [None]}).to_parquet(path)
    assert read(path, ("cat", "dog"))[1] == pytest.approx(np.log([[0.5, 0.5]]))
    pd.DataFrame({"id": ["a", None], "cat": [0.5, 0.5], "dog": [0.5, 0.5]}).to_parquet(path)
    assert refusal(path, ("cat", "dog")) == f"{path}: the id of row 2 is empty"
    table = pd.DataFrame({"id": ["a", "b"], "cat": pd.array([1, None], dtype="Int64"), "dog": [0.5, 0.5]})
    table.to_parquet(path)
    assert "id 'b', column 'cat': the value is empty or NaN (1 rows have such)" in refusal(path, ("cat", "dog"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,cat,dog,owl\na,1,0,0\nb,1,0,0\nb,0,1,0\n", "id 'b' is there twice"),
        ("id,cat, cat,dog,owl\na,1,0,0,1\n", "column 'cat' is there twice"),
        ("id,cat,dog,owl\na,1,0,0\nb,n/a,1,0\n", "id 'b', column 'cat': 'n/a' is not a number"),
        ("id,cat,dog,owl\na,1,0,0\nb,,1,0\n", "id 'b', column 'cat': the value is empty or NaN (1 rows have such)"),
        ("id,owl,dog,cat\na,1,0,nan\nb,,1,NaN\n", "id 'a', column 'cat': the value is empty or NaN (2 rows have such)"),
        ("id,cat,dog,owl\na,1,inf,0\nb,0,1,0\n", "id 'a', column 'dog': the value is inf (1 rows have such)"),
        ("id,cat,dog,owl\na,1,1e39,0\nb,0,1,0\n", "id 'a', column 'dog': the value is 1e+39 (1 rows have such)"),
        ("id,cat,dog,owl\na,1,0,0\nb,0,0,0\nc,0,0,0\n", "id 'b': all its values are 0 (2 such rows)"),
        ("id,cat,dog,owl\na,9,0,0\nb,0,0,0\n", "id 'b': all its values are 0 (1 such rows)"),
        ("id,cat,dog,owl\na,-inf,-inf,-inf\n", "id 'a': all its values are -inf (1 such rows)"),
    ],
)
def test_predictions_with_a_fault(tmp_path, text, message):
    path = csv(tmp_path, text)
    advice = "; leave rows without a prediction out of the file" if message.endswith(")") else ""
    assert refusal(path) == f"{path}: {message}{advice}"


# ---- probabilities or logits ---------------------------------------------------------------------------------------


def test_logits_stay_as_they_are(tmp_path):
    ids, z, said = read(csv(tmp_path, "id,cat,dog,owl\na,-2.5,.5,40\nb,0,1.5,-.25\n"))
    assert (ids, said) == (["a", "b"], [])
    assert z.tolist() == [[-2.5, 0.5, 40], [0, 1.5, -0.25]]


def test_endless_log_probabilities_end_below_the_others(tmp_path):
    _, z, said = read(csv(tmp_path, "id,cat,dog,owl\na,-.5,-1,-inf\nb,-.5,-99,-inf\nc,-1e300,-.5,-1\n"))
    assert said == []
    log_sum = np.log(np.exp(-0.5) + np.exp(-1))
    low = [log_sum - 34.538776, -0.5 - 99, log_sum - 34.538776]
    assert z == pytest.approx(np.array([[-0.5, -1, low[0]], [-0.5, -99, -99], [low[2], -0.5, -1]]))


def test_rows_that_do_not_sum_to_1(tmp_path):
    _, z, said = read(csv(tmp_path, "id,cat,dog,owl\na,.5,.5,0.0009\nb,.5,.5,.25\nc,.25,.25,.25\n"))
    assert said == [
        "warning: xgb (oof.csv): 2 of 3 rows do not sum to 1 (first: id 'b', sum 1.25); they were divided by their sums"
    ]
    assert np.exp(z) == pytest.approx(np.array([[0.49955, 0.49955, 0.0009], [0.4, 0.4, 0.2], [1 / 3] * 3]), abs=1e-5)


def test_softmaxes_that_end_just_above_1_are_probabilities(tmp_path):
    _, z, said = read(csv(tmp_path, "id,cat,dog,owl\na,1.0000001,-1e-9,0\n"))
    assert z[0] == pytest.approx([0, -4.60517, -4.60517], abs=1e-6)
    assert len(said) == 1 and "2 of its 3 probabilities are exactly 0 and were raised to 0.01" in said[0]


TENTHS = np.array([[62.5, 25, 12.5], [3.1, 0.4, 96.5], [33.3, 33.3, 33.3]])


@pytest.mark.parametrize(
    ("values", "said", "probabilities"),
    [
        (P, "0.0625 to 0.875, rows sum to 1) were read as probabilities", P),
        (100 * P[:2], "12.5 to 75, rows sum to 100) were read as percentages", P[:2]),
        ([[63, 25, 13], [3, 0, 96]], "0 to 96, rows sum to 99 to 101) were read as percentages",
         [[63 / 101, 25 / 101, 13 / 101], [3 / 99, 0, 96 / 99]]),
        (TENTHS, "0.4 to 96.5, rows sum to 99.9 to 100) were read as percentages",
         TENTHS / TENTHS.sum(axis=1, keepdims=True)),
        ([[62, 25, 12], [3, 0, 95]], "0 to 95, rows sum to 98 to 99) were read as percentages",
         [[62 / 99, 25 / 99, 12 / 99], [3 / 98, 0, 95 / 98]]),
        (np.log(P[:2]), "were read as log-probabilities", P[:2]),
        (np.round(np.log(P[:2]), 2), "were read as log-probabilities", P[:2]),
        ([[np.log(2), 0, -5], [0, 3, 0]], "were read as logits", None),
        ([[-2, -1, -3], [-1, -4, -9]], "were read as logits", None),
    ],
)  # fmt: skip
def test_what_the_numbers_are_is_seen_and_said(tmp_path, values, said, probabilities):
    values = np.array(values, dtype=np.float64)
    path = tmp_path / "oof.csv"
    pd.DataFrame({"id": range(len(values)), **dict(zip(CLASSES, values.T, strict=True))}).to_csv(path, index=False)
    lines, p = taken(path)
    if probabilities is None:
        probabilities = np.exp(values) / np.exp(values).sum(axis=1, keepdims=True)
    assert len(lines) == 1 and lines[0].startswith("xgb (oof.csv): its values (") and lines[0].endswith(said)
    assert p == pytest.approx(np.asarray(probabilities), abs=0.003)


MAY_BE_LOGITS = (
    "may be logits, or probabilities that do not sum to 1 (each row is then divided by its sum): say which with "
    "--read-as xgb=KIND, KIND being one of probabilities, percentages, log-probabilities, logits"
)
OUTSIDE = (
    "look like probabilities, but some are outside of [0, 1]: with --read-as xgb=probabilities, negative ones count as "
    "0 and each row is divided by its sum"
)


@pytest.mark.parametrize(
    ("text", "sums", "advice"),
    [
        ("id,cat,dog,owl\na,3,0.5,7\nb,1,2,3\n", "0.5 to 7, rows sum to 6 to 10.5", MAY_BE_LOGITS),
        ("id,cat,dog,owl\na,60,20,90\nb,10,20,30\n", "10 to 90, rows sum to 60 to 170", MAY_BE_LOGITS),
        ("id,cat,dog,owl\na,1.5,-1,0.5\nb,2,-0.5,-0.5\n", "-1 to 2, rows sum to 1", MAY_BE_LOGITS),
        ("id,cat,dog,owl\na,7,2,1\nb,0,9,1\n", "0 to 9, rows sum to 10", MAY_BE_LOGITS),
        ("id,cat,dog,owl\na,500,250,249\nb,1,0,1000\n", "0 to 1000, rows sum to 999 to 1001", MAY_BE_LOGITS),
        ("id,cat,dog,owl\na,1.01,0,-0.01\nb,0.5,0.25,0.25\n", "-0.01 to 1.01, rows sum to 1", OUTSIDE),
        ("id,cat,dog,owl\na,1.04,0,0\nb,0.5,0.25,0.25\n", "0 to 1.04, rows sum to 1 to 1.04", OUTSIDE),
    ],
)
def test_numbers_of_two_readings_are_refused_until_one_is_named(tmp_path, text, sums, advice):
    path = csv(tmp_path, text)
    assert refusal(path) == f"{path}: its values ({sums}) {advice}"
    values = pd.read_csv(path)[list(CLASSES)].to_numpy()
    assert read(path, kind="logits")[1] == pytest.approx(values)
    lines, p = taken(path, kind="probabilities")
    positive = np.maximum(values, 0)
    assert p == pytest.approx(positive / positive.sum(axis=1, keepdims=True)) and lines[0].endswith("as you asked")


@pytest.mark.parametrize(("log", "base", "factor"), [(np.log10, 10, "2.30259"), (np.log2, 2, "0.693147")])
def test_logs_to_another_base_are_refused_with_the_factor_that_makes_them_natural(tmp_path, log, base, factor):
    path = tmp_path / "oof.csv"

    def write(values):
        pd.DataFrame({"id": range(len(P)), **dict(zip(CLASSES, values.T, strict=True))}).to_csv(path, index=False)

    write(log(P))
    assert refusal(path).endswith(
        f"look like log-probabilities to base {base}: multiply them by {factor} for natural logs, or, if they are "
        "logits, say so with --read-as xgb=logits"
    )
    assert read(path, kind="logits")[1] == pytest.approx(log(P), rel=1e-5)
    write(log(P) * float(factor))
    lines, p = taken(path)
    assert lines[0].endswith("were read as log-probabilities") and p == pytest.approx(P, rel=1e-4)


def test_one_column_of_percentages(tmp_path):
    path = csv(tmp_path, "id,p\na,75\nb,20\n")
    assert "75 is not in [0, 1]" in refusal(path, ("cat", "dog"))
    assert taken(path, ("cat", "dog"), "percentages")[1] == pytest.approx(np.array([[0.25, 0.75], [0.8, 0.2]]))


# ---- probabilities of 0 --------------------------------------------------------------------------------------------


def test_zeros_are_raised_to_half_of_the_least_above_them():
    said = []
    with np.errstate(divide="ignore"):
        z = floored(np.log([[0.0, 0.9996, 0.0004], [0.5, 0.5, 0.0]]), said.append)
    assert np.exp(z) == pytest.approx(np.array([[0.0002, 0.9996, 0.0004], [0.5, 0.5, 0.0002]]))
    assert said == ["2 of its 6 probabilities are exactly 0 and were raised to 0.0002: as 0 they would forbid a class "
                    "to the whole blend"]  # fmt: skip
    said.clear()
    with np.errstate(divide="ignore"):
        z = floored(np.log([[0.0, 1.0, 1e-30]]), said.append)  # what a softmax in float32 ends in is no rounding
    assert z[0] == pytest.approx([-69.07755, 0, -69.07755]) and said == []


def test_a_class_that_a_fold_lacked_has_its_share_there():
    """Fold 1 never saw the owl: of 4 labels 1 is an owl, so its share is (1 + 1) / (4 + 3)."""
    with np.errstate(divide="ignore"):
        z = np.log([[0.5, 0.25, 0.25], [0.125, 0.875, 0.0], [0.5, 0.5, 0.0], [0.25, 0.75, 0.0]])
    said, folds, shares = [], np.array([0, 0, 1, 1]), np.array([3, 2, 2]) / 7
    p = np.exp(without_unknown_classes(z, folds, shares, CLASSES, said.append))
    p /= p.sum(axis=1, keepdims=True)
    assert p[:2] == pytest.approx(np.array([[0.5, 0.25, 0.25], [0.125, 0.875, 0]]))
    assert p[2:] == pytest.approx(np.array([[0.5 * 5 / 7, 0.5 * 5 / 7, 2 / 7], [0.25 * 5 / 7, 0.75 * 5 / 7, 2 / 7]]))
    assert said == [
        "gives 'owl' a probability of exactly 0 in all 2 rows of fold 1, as a model does that was trained without the "
        "class; its share of the labels (28.57%) is taken there"
    ]


def test_a_class_that_no_fold_knew_is_said_once():
    with np.errstate(divide="ignore"):
        z = np.log([[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.25, 0.75, 0.0], [1.0, 0.0, 0.0]])
    said = []
    without_unknown_classes(z, np.array([0, 0, 1, 1]), np.full(3, 1 / 3), CLASSES, said.append)
    assert len(said) == 1 and said[0].startswith(
        "gives 'owl' a probability of exactly 0 in all 4 rows, as a model does"
    )


def test_labels_in_place_of_probabilities_are_said(tmp_path):
    said = read(csv(tmp_path, "id,cat,dog,owl\na,1,0,0\nb,0,0,1\n"))[2]
    assert (
        said[0] == "warning: xgb (oof.csv): it holds only 0 and 1, as labels do: how sure the model was can't be told"
    )


def test_rounded_probabilities_need_no_warning_of_their_sums(tmp_path):
    assert read(csv(tmp_path, "id,cat,dog,owl\na,.33,.33,.33\nb,.13,.24,.64\n"))[2] == []


def test_a_fold_without_a_class_does_not_spoil_the_blend(tmp_path):
    """Of two members that are right on 80%, one never saw the owl in fold 0: their mean is better than either."""
    draw = np.random.default_rng(0)
    labels, folds = np.arange(300) % 3, np.arange(300) // 3 % 2
    ids = np.array([f"r{row}" for row in range(300)])
    pd.DataFrame({"id": ids, "label": np.array(CLASSES)[labels], "fold": folds}).to_csv(tmp_path / "y.csv", index=False)
    names = []
    for name in ("a", "b"):
        z = draw.normal(size=(300, 3)) + 2.0 * np.eye(3)[labels]
        p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
        if name == "b":
            p[folds == 0, 2] = 0
            p /= p.sum(axis=1, keepdims=True)
        names.append(ExternalFiles(name, tmp_path / f"{name}.csv"))
        pd.DataFrame({"id": ids, **dict(zip(CLASSES, p.T, strict=True))}).to_csv(names[-1].oof, index=False)
    recorder = Recorder()
    result = blend_files(tmp_path / "y.csv", BlendOptions("mean", external=names), events=recorder)
    assert result.blend["log_loss"].value < min(own["log_loss"].value for own in result.members.values())
    assert any(
        "b (b.csv): gives 'owl' a probability of exactly 0 in all 150 rows of fold 0" in line
        for line in recorder.messages
    )


# ---- arrays --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_npz(tmp_path, dtype):
    np.savez(tmp_path / "oof.npz", ids=np.array(IDS), whatever=P.astype(dtype))
    ids, z, said = read(tmp_path / "oof.npz")
    assert (ids, said) == (IDS, [])
    assert z == pytest.approx(LOG_P, rel=1e-6)


def test_npz_with_classes_number_ids_and_other_arrays(tmp_path):
    objects = np.array([1, None], dtype=object)
    order = [2, 0, 1]
    held = {"id": [7, 3, 5], "oof": P[:, order], "classes": np.array(CLASSES)[order], "features": np.ones((9, 2))}
    np.savez(tmp_path / "oof.npz", labels=[0, 1, 2], note=objects, **held)
    ids, z, _ = read(tmp_path / "oof.npz")
    assert ids == ["7", "3", "5"]
    assert z == pytest.approx(LOG_P)


def test_npz_ids_as_bytes(tmp_path):
    np.savez(tmp_path / "oof.npz", ids=np.array([text.encode() for text in IDS]), oof=P)
    assert read(tmp_path / "oof.npz")[0] == IDS


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"oof": P}, "no array 'ids'; it has: oof"),
        (
            {"ids": IDS},
            "want one 2-D array of floats, has 0 (ids <U10 (3,)); keep one, called 'values'",
        ),
        (
            {"ids": IDS, "oof": P, "test": P[:2]},
            "want one 2-D array of floats, has 2 (ids <U10 (3,), oof float64 (3, 3), test float64 (2, 3)); keep one, "
            "called 'values'",
        ),
        ({"ids": IDS[:2], "oof": P}, "holds float64 (3, 3), want floats (2, 3) for its 2 ids and the 3 classes"),
        ({"ids": IDS, "oof": P[:, :2]}, "holds float64 (3, 2), want floats (3, 3) for its 3 ids and the 3 classes"),
        ({"ids": [IDS], "oof": P}, "ids are <U10 (1, 3), want one dimension"),
        ({"ids": IDS, "oof": P, "classes": ["cat", "dog", "pig"]}, "its classes are cat, dog, pig; want cat, dog, owl"),
        ({"ids": ["a", "b", "a"], "oof": P}, "id 'a' is there twice"),
        ({"ids": [], "oof": P[:0]}, "has no rows"),
        (
            {"ids": np.array(["a", "b", None], dtype=object), "oof": P},
            "ids holds Python objects, which ens does not unpickle; save it as text: array.astype(str)",
        ),
        (
            {"ids": IDS, "oof": P * [1, 1, np.nan]},
            "id '007', column 'owl': the value is empty or NaN (3 rows have such); leave rows without a prediction out "
            "of the file",
        ),
    ],
)
def test_npz_with_a_fault(tmp_path, arrays, message):
    path = tmp_path / "oof.npz"
    np.savez(path, **arrays)
    assert refusal(path) == f"{path}: {message}"


@pytest.mark.parametrize("ending", [".ids.txt", "_ids.txt", ".ids.npy", "_ids.npy"])
def test_npy_with_its_ids_beside_it(tmp_path, ending):
    np.save(tmp_path / "oof.v2.npy", P)
    if ending.endswith("npy"):
        np.save(tmp_path / f"oof.v2{ending}", np.array(IDS))
    else:
        written(tmp_path / f"oof.v2{ending}", "\n".join(IDS) + "\n")
    ids, z, said = read(tmp_path / "oof.v2.npy")
    assert (ids, said) == (IDS, [])
    assert z == pytest.approx(LOG_P)


def test_npy_with_a_fault(tmp_path):
    path = tmp_path / "oof.npy"
    np.save(path, P)
    assert refusal(path) == (
        f"{path}: holds no ids, and there is no oof.ids.txt beside it; write one id a line there, in the order of its "
        "rows, or: np.save('oof.ids.npy', np.array(ids, dtype=str))"
    )
    beside = written(tmp_path / "oof.ids.txt", "id\n" + "\n".join(IDS))
    assert refusal(path) == f"{path}: holds float64 (3, 3), want floats (4, 3) for its 4 ids and the 3 classes"
    written(beside, "a\n\nb\n")
    assert refusal(path) == f"{path}: the id of row 2 is empty"
    beside.write_bytes(b"\xff\n")
    assert refusal(path).startswith(f"{beside}: not UTF-8 text (")
    beside.unlink()
    np.save(tmp_path / "oof.ids.npy", np.array(IDS, dtype=object))
    assert refusal(path) == (
        f"{tmp_path / 'oof.ids.npy'}: holds Python objects, which ens does not unpickle; "
        "save it as text: array.astype(str)"
    )
    written(beside, "\n".join(IDS))
    np.save(path, np.eye(3, dtype=np.int64))
    assert refusal(path) == f"{path}: holds int64 (3, 3), want floats (3, 3) for its 3 ids and the 3 classes"


def test_arrays_that_can_not_be_read(tmp_path):
    for name in ("no.npz", "no.npy"):
        assert refusal(tmp_path / name) == f"{tmp_path / name}: no such file"
    path = tmp_path / "oof.npz"
    np.savez(path, ids=np.array(IDS), oof=P)
    whole = path.read_bytes()
    for part in (b"", b"no", whole[:40], whole[: len(whole) // 2], whole[:150] + b"\xff" + whole[151:]):
        path.write_bytes(part)
        assert refusal(path).startswith(f"{path}: not a whole npy or npz file ("), part[:9]


# ---- rows by id ----------------------------------------------------------------------------------------------------


@given(st.permutations(range(6)), st.sampled_from(["csv", "parquet", "npz", "npy"]))
def test_the_order_of_rows_in_a_file_changes_nothing(tmp_path_factory, order, kind):
    path = tmp_path_factory.mktemp("order") / f"oof.{kind}"
    ids = np.array(["007", "7", "07", "ü", "x y", "-1"])
    p = np.random.default_rng(1).dirichlet(np.ones(3), 6)
    table = pd.DataFrame({"id": ids, **dict(zip(CLASSES, p.T, strict=True))}).iloc[list(order)]
    if kind == "csv":
        table.to_csv(path, index=False)
    elif kind == "parquet":
        table.to_parquet(path)
    elif kind == "npz":
        np.savez(path, ids=ids[order], oof=p[order])
    else:
        np.save(path, p[order])
        np.save(path.with_name("oof.ids.npy"), ids[order])
    rows = make_rows([0, 1, 2, 0, 1, 2], ids)
    said = []
    read_ids, z = read_predictions(path, CLASSES, said.append, "xgb")
    joined, values = join(rows, [("xgb", read_ids, z)], said.append)
    assert joined.ids.tolist() == ids.tolist()
    assert values == pytest.approx(np.log(p)[None], rel=1e-5)
    test = read_test(ExternalFiles("xgb", path, path), rows, said.append)
    assert rows_of(test, list(ids), "xgb")[0] == pytest.approx(np.log(p), rel=1e-5)
    assert len(said) == 2 and all(line.endswith("were read as probabilities") for line in said)


def test_join_in_the_order_of_the_rows():
    rows = make_rows([2, 0, 1], IDS)
    z = np.arange(9, dtype=np.float32).reshape(3, 3)
    joined, values = join(rows, [("a", np.array(IDS), z), ("b", np.array(IDS)[[2, 0, 1]], z[[2, 0, 1]])], print)
    assert joined.ids.tolist() == IDS and joined.labels.tolist() == [2, 0, 1]
    assert values.dtype == np.float32 and values.tolist() == [z.tolist(), z.tolist()]


def test_rows_that_a_member_lacks_are_left_out_for_all():
    rows = Rows(np.array(list("abcdef")), np.array([0, 1, 2, 0, 1, 2]), np.array([0, 1, 0, 1, 0, 1]),
                np.array([0, 0, 1, 2, 2, 3]), True, CLASSES)  # fmt: skip
    z = np.arange(21, dtype=np.float32).reshape(7, 3)
    said = []
    members = [("x", np.array(list("fedcaz!")), z), ("y", np.array(list("abdef")), z[:5])]
    joined, values = join(rows, members, said.append)
    assert joined.ids.tolist() == list("adef")
    assert joined.labels.tolist() == [0, 0, 1, 2]
    assert joined.folds.tolist() == [0, 1, 0, 1]
    assert joined.clusters.tolist() == [0, 1, 1, 2] and joined.clusters.dtype == np.int64
    assert joined.grouped and joined.classes == CLASSES
    assert values[0, :, 0].tolist() == [12, 6, 3, 0]
    assert values[1, :, 0].tolist() == [0, 6, 9, 12]
    assert said == [
        "warning: x: has no prediction for 1 of the 6 rows (first: id 'b'); they are left out for all members",
        "warning: x: 2 of its 7 ids are not among the rows (first: 'z'); they are not used",
        "warning: y: has no prediction for 1 of the 6 rows (first: id 'c'); they are left out for all members",
    ]


def test_ids_written_otherwise():
    z = np.zeros((4, 3), dtype=np.float32)
    rows = make_rows([0, 1, 2, 0], ["1.png", "2.png", "3.png", "4.png"])
    with pytest.raises(UserError) as caught:
        join(rows, [("x", rows.ids, z), ("y", np.array(["4.png", "1", "2", "3"]), z)], print)
    assert str(caught.value) == (
        "y: only 1 of 4 rows have a prediction by every member, and it lacks the most (3, first: id '1.png'); its own "
        "ids are like '1': are they written otherwise?"
    )
    half, values = join(rows, [("x", rows.ids[2:], z[2:])], lambda line: None)
    assert half.ids.tolist() == ["3.png", "4.png"] and values.shape == (1, 2, 3)
    with pytest.raises(
        UserError, match=r"x: only 1 of 4 rows .* \(3, first: id '1\.png'\); its own ids are like '4\.png'"
    ):
        join(rows, [("x", rows.ids[3:], z[3:])], print)


def test_rows_of_test_predictions():
    z = np.arange(9, dtype=np.float32).reshape(1, 3, 3)
    test = Logits(np.array(IDS), ("given",), CLASSES, z)
    wanted = ["7", unicodedata.normalize("NFD", "bild ü.png")]
    assert rows_of(test, wanted, "t.csv").tolist() == [[[3, 4, 5], [6, 7, 8]]]
    with pytest.raises(UserError) as caught:
        rows_of(test, ["7", "8", "9"], "t.csv: xgb")
    assert str(caught.value) == "t.csv: xgb: no row for id '8' (2 of 3 are missing)"


# ---- what looks wrong ----------------------------------------------------------------------------------------------


def member(labels, wrong, seed=0, classes=3):
    """Logits float32 (N, C) that say the next class on `wrong` rows, and are nowhere the same."""
    draw = np.random.default_rng(seed)
    said = labels.copy()
    said[draw.permutation(len(labels))[:wrong]] += 1
    return (draw.normal(size=(len(labels), classes)) * 0.3 + 4 * np.eye(classes)[said % classes]).astype(np.float32)


LABELS = np.arange(1000) % 3


def lines(labels, members, external=None, classes=CLASSES):
    names = [f"m{i}" for i in range(len(members))]
    return suspicious(
        make_rows(labels, classes=classes), names, np.stack(members), names if external is None else external
    )


def test_honest_members_are_not_suspected():
    assert lines(LABELS, [member(LABELS, 200, 1), member(LABELS, 51, 2), member(LABELS, 400, 3)]) == []
    assert lines(LABELS[:99], [member(LABELS[:99], 0, 1)]) == []  # 99 rows
    assert lines(LABELS, [member(LABELS, 3, 1)]) == []  # nothing to compare with


def test_predictions_of_rows_that_were_trained_on():
    honest, perfect, leaked = member(LABELS, 200, 1), member(LABELS, 0, 2), member(LABELS, 49, 3)
    ask = "are its predictions out of fold, or on rows that it was trained on?"
    assert lines(LABELS, [honest, leaked]) == [
        f"warning: m1: wrong on 49 of 1000 rows, the best other member (m0) on 200; {ask}"
    ]
    assert lines(LABELS, [honest, perfect]) == [f"warning: m1: no error at all on 1000 rows; {ask}"]
    assert lines(LABELS, [honest, perfect], external=["m0"]) == []
    few = LABELS[:60]
    assert lines(few, [member(few, 12, 1), member(few, 2, 2)]) == []  # 2 against 12 of 60: p = 0.001
    assert lines(few, [member(few, 30, 1), member(few, 2, 2)]) == [
        f"warning: m1: wrong on 2 of 60 rows, the best other member (m0) on 30; {ask}"
    ]


def test_columns_in_another_order():
    z = member(LABELS, 100)
    assert lines(LABELS, [z, z[:, [1, 2, 0]]], external=["m1"]) == [
        "warning: m1: right on 10.0% of the rows, no more than by always saying 'cat' (33.4%); are its columns in "
        "another order? It would be right on 90.0% if those read as cat, dog, owl were dog, owl, cat"
    ]
    swapped = lines(LABELS, [z[:, [1, 0, 2]]])  # a third is right
    assert len(swapped) == 1 and swapped[0].endswith(
        "are its columns in another order? It would be right on 90.0% if those read as cat, dog, owl were dog, cat, owl"
    )


def test_numbered_classes_in_the_order_of_their_text():
    """scikit-learn sorts "10" before "2"; some columns are right all the same."""
    classes = tuple(str(c) for c in range(12))
    labels = np.arange(1200) % 12
    z = member(labels, 0, classes=12)[:, [int(c) for c in sorted(classes)]]
    assert lines(labels, [z], classes=classes) == [
        "warning: m0: right on 16.7% of the rows; are its columns in another order? It would be right on 100.0% if "
        "those read as 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 were 0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9"
    ]
    many = tuple(f"c{c:02}" for c in range(25))
    labels = np.arange(1000) % 25
    assert lines(labels, [np.roll(member(labels, 100, classes=25), 1, axis=1)], classes=many) == [
        "warning: m0: right on 0.0% of the rows, no more than by always saying 'c00' (4.0%); are its columns in "
        "another order? It would be right on 90.0% in the best one"
    ]


def test_noise_is_no_better_in_another_order():
    for rows, count in ((1000, 3), (100, 20), (2000, 1000)):
        labels = np.arange(rows) % count
        z = np.random.default_rng(3).normal(size=(rows, count)).astype(np.float32)
        found = lines(labels, [z], classes=tuple(f"c{c}" for c in range(count)))
        assert all(line.endswith("; are its columns in another order?") for line in found)
        assert len(found) == (float((z.argmax(axis=1) == labels).mean()) <= 1 / count)


def test_rare_classes_need_no_row_right():
    """A member of calibrated probabilities that never reach one half is worth its place."""
    rare = (np.arange(1000) % 20 == 0).astype(np.int64)
    p = np.where(rare == 1, 0.3, 0.03) + 0.02 * np.random.default_rng(0).random(1000)
    honest = np.log(np.stack([1 - p, p], axis=1)).astype(np.float32)
    assert lines(rare, [honest], classes=("no", "yes")) == []
    assert lines(rare, [honest[::-1][:, [0, 1]] * np.float32(0.1)], classes=("no", "yes")) == [
        "warning: m0: right on 95.0% of the rows, no more than by always saying 'no' (95.0%); "
        "are its columns in another order?"
    ]


def test_an_output_that_is_the_same_for_all_rows():
    constant = np.tile(np.float32([3, 1, 2]), (1000, 1)) + np.arange(1000, dtype=np.float32)[:, None] / 1024
    assert lines(LABELS, [member(LABELS, 200), constant]) == ["warning: m1: its output is the same for all 1000 rows"]


def test_the_same_predictions_twice():
    one, other = member(LABELS, 200), member(LABELS, 200, 1)
    near = one.copy()
    near[500, 1] += 0.01
    assert lines(LABELS, [one, other, one + 5, near]) == ["warning: m0 and m2 are the same predictions; leave one out"]
    assert lines(LABELS, [one, one, other], external=["m2"]) == []


def test_torch_is_not_loaded():
    code = (
        "import sys, ensemble.blend.external.members, ensemble.blend.external.checks; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

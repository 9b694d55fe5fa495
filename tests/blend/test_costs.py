"""Reading what mistakes cost."""

import pytest

from ensemble.blend.costs import read_costs
from ensemble.errors import UserError

CLASSES = ("cat", "dog", "NA")


def write(path, text):
    (path / "costs.csv").write_text(text, encoding="utf-8")
    return path / "costs.csv"


def test_rows_are_true_classes_and_columns_predicted_ones_in_any_order(tmp_path):
    path = write(tmp_path, "true,NA,cat,dog\ndog,5,1,0\nNA,0,10,20\ncat,3,0,2.5\n")
    assert read_costs(path, CLASSES).tolist() == [[0, 2.5, 3], [1, 0, 5], [10, 20, 0]]


def test_a_spreadsheet_may_leave_the_corner_empty_and_write_decimal_commas(tmp_path):
    path = write(tmp_path, ";cat;dog\ncat;0;1,5\ndog;2;0\n")
    assert read_costs(path, ("cat", "dog")).tolist() == [[0, 1.5], [2, 0]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("true,cat,dog\ncat,0,1\ndog,1,0\n", "no row 'NA'; a file of costs has every class as a row, the true one"),
        ("true,cat,dog\ncat,0,1\ndog,1,0\nNA,1,1\n", "no column 'NA'; a file of costs has"),
        ("true,cat,dog,NA\ncat,0,1,1\ncow,1,0,1\n", "the row 'cow' is not a class; the classes are: cat, dog, NA"),
        ("true,cat,dog,cow\n" + "cat,0,1,1\ndog,1,0,1\nNA,1,1,0\n", "the column 'cow' is not a class"),
        ("true,cat,dog,NA\ncat,0,1,1\ncat,1,0,1\n", "the row 'cat' is there twice"),
        ("true,cat,dog,NA\ncat,0,1,1\ndog,much,0,1\nNA,1,1,0\n", "row 'dog', column 'cat' is 'much'; want a number"),
        ("true,cat,dog,NA\ncat,0,1,\ndog,1,0,1\nNA,1,1,0\n", "row 'cat', column 'NA' is ''; want a number"),
        ("true,cat,dog,NA\ncat,0,1,inf\ndog,1,0,1\nNA,1,1,0\n", "row 'cat', column 'NA' is 'inf'; want a number"),
        (
            "true,cat,dog,NA\ncat,1,0,0\ndog,0,1,0\nNA,0,0,1\n",
            "to predict 'dog' for 'cat' costs 0, less than to be right (1); write what mistakes cost",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path, text, said):
    path = write(tmp_path, text)
    with pytest.raises(UserError) as caught:
        read_costs(path, CLASSES)
    assert str(caught.value).startswith(f"{path}: ") and said in str(caught.value)

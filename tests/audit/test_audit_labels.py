"""`ens check` on labels: empty, contradictory, misspelt, repeated, uneven."""

import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ensemble.audit.check import check
from ensemble.audit.findings import Finding
from ensemble.audit.labels import check_labels, class_counts, label_key
from ensemble.audit.rows import Given, Rows
from ensemble.events import SILENT


def given(labels: list[str], ids: list[str] | None = None, files: list[Path | None] | None = None, k: int = 5) -> Given:
    """A table without images."""
    names = ids or [f"{row}.png" for row in range(len(labels))]
    paths = tuple(files or [Path(f"{row}.png") for row in range(len(labels))])
    columns = {"path": "path", "label": "label", "id": "id" if ids else None, "group": None, "fold": None}
    table = pd.DataFrame({"label": labels})
    rows = Rows(Path("t.csv"), np.array(names), paths, np.array(labels), table=table, columns=columns)
    return Given(rows, True, k, None, None, None, False, "auto", ())


def found(what: Given) -> dict[str, Finding]:
    return {one.kind: one for one in check_labels(what)}


def test_nothing_is_found_in_sound_labels():
    assert found(given(["cat", "dog"] * 10)) == {}


def test_empty_labels_and_stray_spaces():
    kinds = found(given(["cat", "dog"] * 10 + ["", "  ", " cat", "dog\t"]))
    assert kinds.keys() == {"empty-label", "stray-spaces"}
    assert kinds["empty-label"].rows == ("20.png", "21.png") and kinds["empty-label"].level == "error"
    assert kinds["stray-spaces"].rows == ("22.png", "23.png") and kinds["stray-spaces"].level == "note"
    assert kinds["stray-spaces"].examples == ("' cat'", "'dog\\t'")


@pytest.mark.parametrize("other", ["Dog", "DOG", "ＤＯＧ", "dog​"])
def test_classes_that_differ_by_case_width_or_a_space_of_no_width(other):
    kinds = found(given(["cat", "dog", other] * 10))
    assert kinds.keys() == {"class-spelling"}
    assert kinds["class-spelling"].level == "error" and kinds["class-spelling"].count == 1
    assert len(kinds["class-spelling"].rows) == 20


def test_separators_are_a_spelling_and_letters_are_classes():
    assert label_key("polar bear") == label_key("Polar_Bear") == label_key("polar-bear")
    assert found(given(["a", "A", "b", "B"] * 10)) == {}  # written letters


def test_unicode_forms_of_one_korean_name():
    composed, decomposed = (unicodedata.normalize(form, "한국어") for form in ("NFC", "NFD"))
    assert composed != decomposed
    kinds = found(given([composed, decomposed, "영어"] * 10))
    assert kinds.keys() == {"unicode-form"}
    assert kinds["unicode-form"].examples == ("한국어",) and kinds["unicode-form"].level == "note"
    assert len(kinds["unicode-form"].rows) == 20 and kinds["unicode-form"].what == "class in two Unicode forms"


@pytest.mark.parametrize("wrong", ["girafe", "giraffee", "girraffe", "giarffe", "girafte"])
def test_typos_of_a_class(wrong):
    kinds = found(given(["giraffe", "house"] * 30 + [wrong] * 5))
    assert kinds.keys() == {"class-typo"}
    assert kinds["class-typo"].rows == tuple(f"{row}.png" for row in range(60, 65))
    assert kinds["class-typo"].examples == (f"{wrong!r} (5) / 'giraffe' (30)",)


@pytest.mark.parametrize(
    "pair", [("class1", "class2"), ("with_mask", "without_mask"), ("male", "female"), ("lion", "lyon")]
)
def test_what_is_no_typo(pair):
    assert found(given([pair[0]] * 30 + [pair[1]] * 5)) == {}


def test_two_classes_of_one_size_are_no_typo():
    assert found(given(["tongue", "tongues"] * 10)) == {}


def test_labels_that_look_missing():
    kinds = found(given(["cat", "dog", "NaN"] * 10))
    assert kinds["placeholder"].examples == ("'NaN'",) and kinds["placeholder"].count == 10


def test_repeated_paths_and_paths_with_two_labels():
    files = [Path(f"{row}.png") for row in range(10)]
    repeated = [*files, files[0], files[1], files[2]]
    what = given(["a", "b"] * 5 + ["a", "b", "b"], [f"id{row}" for row in range(13)], repeated)
    kinds = found(what)
    assert kinds.keys() == {"repeated-path", "path-two-labels"}
    assert kinds["repeated-path"].rows == ("id0", "id1", "id10", "id11")
    assert kinds["path-two-labels"].rows == ("id2", "id12")
    assert kinds["path-two-labels"].examples == ("id2 (a)", "id12 (b)")
    assert {one.level for one in kinds.values()} == {"error"}


def test_repeated_ids():
    kinds = found(given(["a", "b"] * 6, ["x", "y", "x", *(f"id{row}" for row in range(9))]))
    assert kinds.keys() == {"repeated-id"} and kinds["repeated-id"].rows == ("x", "x")


def test_class_counts_and_small_classes():
    assert class_counts(np.array(["b", "a", "", "b", "a", "c"])) == {"a": 2, "b": 2, "c": 1}
    kinds = found(given(["cat"] * 10 + ["dog"] * 4, k=5))
    assert kinds["small-class"].rows == ("dog",) and kinds["small-class"].level == "error"
    assert kinds["small-class"].what == "class of fewer rows than the 5 folds"
    assert found(given(["cat"] * 10 + ["dog"] * 4, k=4)) == {}


def test_one_class_only():
    kinds = found(given(["cat"] * 10))
    assert kinds["one-class"].level == "error" and kinds["one-class"].count == 1


def test_uneven_classes():
    kinds = found(given(["cat"] * 100 + ["dog"] * 10))
    one = kinds["uneven-classes"]
    # entropy of 10/11 and 1/11: 0.3046 nats; its exponent 1.356
    assert one.what.startswith("classes, the largest with 10 times") and "1.4 equal ones" in one.what
    assert "always saying 'cat' is 91 % right" in one.advice
    assert found(given(["cat"] * 99 + ["dog"] * 10)) == {}


def test_class_folders_of_two_cases_in_a_real_folder(tmp_path, paint):
    for name in ("dog", "Dog", "cat"):
        for number in range(6):
            paint(tmp_path / "pets" / name / f"{name}{number}.png")
    (tmp_path / "pets" / "dog" / "dog0.png").rename(tmp_path / "pets" / "dog" / "first.png")
    audit = check(tmp_path / "pets", None, None, None, tmp_path / "a.json", (), SILENT)
    assert [one.kind for one in audit.findings] == ["class-spelling"]
    assert audit.findings[0].examples == ("'Dog' / 'dog'",) and audit.fails("error")


def test_a_large_class_is_no_typo_of_a_larger_one():
    assert "class-typo" not in found(given(["house"] * 80 + ["horse"] * 816 + ["dog"] * 100))
    kinds = found(given(["house"] * 9 + ["horse"] * 816 + ["dog"] * 100))
    assert kinds["class-typo"].examples == ("'house' (9) / 'horse' (816)",)
    assert "class-typo" in found(given(["hosre"] * 12 + ["horse"] * 1300 + ["dog"] * 100))


def test_several_labels_in_a_cell():
    kinds = found(given(["scab", "rust", "scab rust"] * 10))
    assert kinds.keys() == {"several-labels"} and kinds["several-labels"].level == "warning"
    assert kinds["several-labels"].rows == ("scab rust",)
    assert found(given(["great white shark", "tiger shark", "shark"] * 10)) == {}

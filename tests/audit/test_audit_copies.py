"""`ens check` on copies: what they cost depends on the labels, folds, groups and sets that they stand in."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from ensemble.audit.check import check
from ensemble.audit.copies import check_copies, check_test_copies
from ensemble.audit.findings import Audit, Finding
from ensemble.audit.row_pairs import first_rows, pairs_between, pairs_within
from ensemble.audit.rows import Given, Rows
from ensemble.data.copies.near import Pairs
from ensemble.events import SILENT


def pairs(*found: tuple[int, int, str]) -> Pairs:
    first, second, kinds = zip(*found, strict=True) if found else ((), (), ())
    ones = np.ones(len(found), dtype=np.float32)
    return Pairs(np.array(first, dtype=np.int64), np.array(second, dtype=np.int64), tuple(kinds), ones)


def kinds_of(
    labels: list[str],
    found: Pairs,
    groups: list[str] | None = None,
    folds: list[int] | None = None,
    run: Path | None = None,
    near_copies: bool = True,
) -> dict[str, Finding]:
    count = len(labels)
    rows = Rows(
        Path("t.csv"),
        np.array([f"{row}" for row in range(count)]),
        tuple(Path(f"{row}.png") for row in range(count)),
        np.array(labels),
        None if groups is None else np.array(groups),
        None if folds is None else np.array(folds),
    )
    given = Given(rows, False, 5, None, None, run, run is None, "auto", (), None, near_copies)
    within = pairs_within(found, np.arange(count))
    return {one.kind: one for one in check_copies(given, within)}


def test_exact_copies_of_one_class_are_counted_without_the_first():
    kinds = kinds_of(["a", "a", "a", "b"], pairs((0, 1, "exact"), (0, 2, "exact"), (1, 2, "exact")))
    assert kinds.keys() == {"exact-copies"} and kinds["exact-copies"].rows == ("1", "2")
    assert kinds["exact-copies"].examples == ("0 = 1", "0 = 2") and kinds["exact-copies"].level == "warning"


def test_exact_copies_with_two_labels_are_an_error():
    kinds = kinds_of(["a", "b", "c"], pairs((0, 1, "exact")))
    assert kinds.keys() == {"copies-two-labels"} and kinds["copies-two-labels"].level == "error"
    assert kinds["copies-two-labels"].rows == ("0", "1") and kinds["copies-two-labels"].examples == ("0 (a) = 1 (b)",)


def test_spellings_of_one_class_and_missing_labels_do_not_contradict():
    kinds = kinds_of(["cat", "Cat", "", "dog"], pairs((0, 1, "exact"), (2, 3, "exact")))
    assert kinds.keys() == {"exact-copies"}


@pytest.mark.parametrize("kind", ["hflip", "re-encoded", "crop", "rot90"])
def test_near_copies(kind):
    kinds = kinds_of(["a", "a", "b"], pairs((0, 1, kind), (0, 2, kind)))
    assert kinds.keys() == {"near-copies", "near-copies-two-labels"}
    assert kinds["near-copies"].rows == ("0", "1") and kinds["near-copies"].level == "note"
    assert kinds["near-copies-two-labels"].rows == ("0", "2")
    assert kinds["near-copies-two-labels"].level == "warning"
    assert kinds["near-copies-two-labels"].examples == ("0 (a) ~ 2 (b)",)


def test_so_many_contradictions_are_no_slips():
    """Ten pairs of twenty: one class may be the other with something drawn in."""
    found = [(2 * number, 2 * number + 1, "re-encoded") for number in range(20)]
    kinds = kinds_of(["a", "b"] * 10 + ["a", "a"] * 10, pairs(*found))
    assert kinds["near-copies-two-labels"].level == "note" and kinds["near-copies-two-labels"].count == 20
    assert "may differ in a detail" in kinds["near-copies-two-labels"].advice
    few = kinds_of(["a", "b"] * 9 + ["a", "a"] * 11, pairs(*found))["near-copies-two-labels"]
    assert few.level == "warning" and few.count == 18 and "wrong label" in few.advice
    rare = kinds_of(["a", "b"] * 10 + ["a", "a"] * 90, pairs(*[(2 * n, 2 * n + 1, "crop") for n in range(100)]))
    assert rare["near-copies-two-labels"].level == "warning"


def test_look_alikes_are_noted_and_accused_of_nothing():
    found = pairs((0, 1, "look-alike"), (0, 2, "look-alike"), (3, 4, "look-alike"))
    kinds = kinds_of(["bare", "masked", "bare", "bare", "bare"], found, folds=[0, 1, 2, 0, 1], run=Path("run"))
    assert kinds.keys() == {"look-alikes", "look-alikes-two-labels"}  # not across folds
    assert {one.level for one in kinds.values()} == {"note"}
    assert kinds["look-alikes"].rows == ("0", "2", "3", "4") and kinds["look-alikes-two-labels"].rows == ("0", "1")
    assert kinds["look-alikes"].advice == (
        "perhaps one person, object or scene; ens train-folds keeps them in one fold"
    )
    assert not any("optimistic" in one.advice or "copy" in one.what for one in kinds.values())
    assert kinds_of(["a"] * 4, pairs((0, 1, "look-alike")), groups=["p", "p", "q", "q"]) == {}


def test_test_images_that_look_like_training_images_are_noted():
    train = Rows(Path("t"), np.array(["a", "b"]), (None, None), np.array(["x", "y"]))
    test = Rows(Path("u"), np.array(["p", "q", "r"]), (None, None, None), None)
    found = pairs((0, 2, "look-alike"), (0, 3, "look-alike"), (1, 3, "crop"), (1, 4, "look-alike"))
    between = pairs_between(found, np.array([0, 1, -1, -1, -1]), np.array([-1, -1, 0, 1, 2]))
    kinds = {one.kind: one for one in check_test_copies(train, test, between, pairs_within(pairs(), np.zeros(0, int)))}
    assert kinds.keys() == {"test-near-train", "test-looks-like-train"}
    assert kinds["test-near-train"].rows == ("q",) and kinds["test-near-train"].level == "warning"
    assert kinds["test-looks-like-train"].rows == ("p", "r") and kinds["test-looks-like-train"].level == "note"
    assert kinds["test-looks-like-train"].examples == ("a ~ p", "b ~ r")
    assert kinds["test-looks-like-train"].advice == "perhaps one person, object or scene: look at them"


def test_copies_across_folds():
    found = pairs((0, 1, "exact"), (2, 3, "hflip"), (4, 5, "exact"))
    kinds = kinds_of(["a"] * 6, found, folds=[0, 1, 0, 2, 1, 1])
    assert kinds["exact-across-folds"].level == "error" and kinds["exact-across-folds"].rows == ("0", "1")
    assert kinds["exact-across-folds"].examples == ("0 (fold 0) = 1 (fold 1)",)
    assert kinds["near-across-folds"].level == "warning" and kinds["near-across-folds"].rows == ("2", "3")
    assert "your folds" in kinds["near-across-folds"].what and "--fix" in kinds["near-across-folds"].advice


def test_copies_across_the_folds_of_a_run_and_rows_that_it_does_not_know():
    found = pairs((0, 1, "hflip"), (2, 3, "hflip"))
    kinds = kinds_of(["a"] * 4, found, folds=[0, 1, -2, 1], run=Path("runs/x"))
    assert kinds["near-across-folds"].rows == ("0", "1")
    assert "the folds of runs/x" in kinds["near-across-folds"].what
    assert "another run directory" in kinds["near-across-folds"].advice


def test_a_copy_that_is_always_trained_on_leaks_too():
    assert "exact-across-folds" in kinds_of(["a"] * 2, pairs((0, 1, "exact")), folds=[-1, 1])


def test_copies_across_groups():
    found = pairs((0, 1, "exact"), (2, 3, "hflip"), (0, 4, "exact"), (0, 5, "exact"))
    kinds = kinds_of(["a"] * 6, found, groups=["p", "q", "r", "s", "p", ""])
    assert kinds["exact-across-groups"].level == "warning" and kinds["exact-across-groups"].rows == ("0", "1", "4")
    assert kinds["exact-across-groups"].examples == ("0 (p) = 1 (q)",)
    assert kinds["near-across-groups"].level == "note" and kinds["near-across-groups"].rows == ("2", "3")


def test_near_copies_of_one_group_are_together_already():
    found = pairs((0, 1, "hflip"), (0, 2, "look-alike"), (3, 4, "hflip"))
    assert kinds_of(["a", "a", "b", "a", "b"], found, groups=["p", "p", "p", "q", "q"]).keys() == {
        "near-copies-two-labels"
    }


def star(count: int) -> Pairs:
    """As so many exact copies of one file are paired: each with the first one only."""
    return pairs(*[(0, row, "exact") for row in range(1, count)])


def test_of_many_copies_each_counts_though_only_the_first_has_pairs():
    kinds = kinds_of(["b"] + ["a"] * 39, star(40))
    assert kinds.keys() == {"copies-two-labels", "exact-copies"}
    assert kinds["copies-two-labels"].count == 40 and kinds["copies-two-labels"].examples[0] == "0 (b) = 1 (a)"
    assert kinds["exact-copies"].rows == tuple(str(row) for row in range(2, 40))
    assert kinds["exact-copies"].examples[0] == "1 = 2"
    kinds = kinds_of([""] + ["a"] * 38 + ["b"], star(40))
    assert kinds["copies-two-labels"].count == 39 and kinds["copies-two-labels"].examples == ("1 (a) = 39 (b)",)
    kinds = kinds_of(["a"] * 40, star(40), folds=[-2] + [0] * 20 + [1] * 19, run=Path("run"))
    assert kinds["exact-across-folds"].count == 39
    assert kinds["exact-across-folds"].examples[0] == "1 (fold 0) = 21 (fold 1)"
    kinds = kinds_of(["a"] * 40, star(40), groups=[""] + ["p"] * 20 + ["q"] * 19)
    assert kinds["exact-across-groups"].count == 39
    assert kinds["exact-across-groups"].examples[0] == "1 (p) = 21 (q)"


def test_test_images_that_are_many_copies_of_a_training_image_are_copies_of_each_other():
    train = Rows(Path("t"), np.array(["a", "b"]), (None, None), np.array(["x", "y"]))
    test = Rows(Path("u"), np.array([f"t{row}" for row in range(40)]), (None,) * 40, None)
    found = pairs(*[(0, 2 + row, "exact") for row in range(39)])
    train_of, test_of = np.array([0, 1] + [-1] * 40), np.array([-1, -1, *range(40)])
    between, among = pairs_between(found, train_of, test_of), pairs_within(found, test_of)
    kinds = {one.kind: one for one in check_test_copies(train, test, between, among)}
    assert kinds["test-in-train"].count == 39 and kinds["test-copies"].rows == tuple(f"t{n}" for n in range(1, 39))


def test_near_copies_are_harmless_only_where_something_holds_them_in_one_fold():
    found = pairs((0, 1, "hflip"), (2, 3, "crop"))
    one = kinds_of(["a"] * 4, found)["near-copies"]
    assert (one.level, one.advice) == ("note", "harmless: ens train-folds keeps them in one fold")
    kinds = kinds_of(["a"] * 4, found, near_copies=False)
    assert kinds.keys() == {"near-copies"} and kinds["near-copies"].level == "warning"
    assert kinds["near-copies"].advice == (
        "folds.near_copies = false lets folds part them: out-of-fold scores are then optimistic"
    )
    kinds = kinds_of(["a"] * 4, found, folds=[0, 1, 1, 1])
    assert kinds.keys() == {"near-copies", "near-across-folds"} and kinds["near-across-folds"].rows == ("0", "1")
    assert kinds["near-copies"].rows == ("2", "3")
    assert kinds["near-copies"].advice == "harmless: your folds hold them together"


def test_other_findings_promise_no_fold_either():
    found = pairs((0, 1, "look-alike"), (2, 3, "hflip"))
    labels, groups = ["a", "b", "a", "a"], ["p", "q", "r", "s"]
    kinds = kinds_of(labels, found, groups, run=Path("run"))
    assert kinds["look-alikes-two-labels"].advice.endswith("ens train-folds keeps them in one fold")
    assert kinds["near-across-groups"].advice == "ens joins such groups; see that they are right"
    kinds = kinds_of(labels, found, groups, run=Path("run"), near_copies=False)
    assert kinds["look-alikes-two-labels"].advice.endswith("folds.near_copies = false lets folds part them")
    assert kinds["near-across-groups"].advice == (
        "see that they are right; folds.near_copies = false lets folds part them"
    )
    kinds = kinds_of(labels, found, groups, [0, 1, 0, 1])
    assert kinds["look-alikes-two-labels"].advice.endswith("your own folds may part them")


def test_more_look_alikes_than_copies_are_warned_of():
    """21 in a row, each like the next, of 100: folds are free to part them."""
    crowd = [(row, row + 1, "re-encoded") for row in range(20)]
    kinds = kinds_of(["a"] * 100, pairs(*crowd, (50, 51, "hflip")))
    assert kinds.keys() == {"near-copies", "near-copies-apart"}
    assert kinds["near-copies"].rows == ("50", "51") and "harmless" in kinds["near-copies"].advice
    assert kinds["near-copies-apart"].count == 21 and kinds["near-copies-apart"].level == "warning"
    assert "folds may part them" in kinds["near-copies-apart"].advice
    assert kinds_of(["a"] * 100, pairs(*crowd), groups=["p"] * 21 + ["q"] * 79) == {}  # the user holds them together
    assert kinds_of(["a"] * 100, pairs(*crowd[:19])).keys() == {"near-copies"}
    kinds = kinds_of(["a"] * 20 + ["b"] * 80, pairs(*crowd[:19], (19, 20, "look-alike")))
    assert kinds["look-alikes-two-labels"].advice.endswith("folds may part those that are too many to share one")


def test_pairs_of_files_become_pairs_of_rows():
    # files 0..4; training rows of files 2, 0, 0, 3 and one that is missing; test rows of files 3, 4
    train, test = first_rows(np.array([2, 0, 0, 3, -1]), 5), first_rows(np.array([3, 4]), 5)
    assert train.tolist() == [1, -1, 0, 3, -1] and test.tolist() == [-1, -1, -1, 0, 1]
    found = pairs((0, 2, "hflip"), (0, 4, "crop"), (1, 3, "exact"), (3, 4, "rot90"))
    within = pairs_within(found, train)
    assert (within.first.tolist(), within.second.tolist(), within.kinds.tolist()) == ([0], [1], ["hflip"])
    between = pairs_between(found, train, test)  # file 3 is in both sets: it is its own copy
    assert between.first.tolist() == [1, 3, 3] and between.second.tolist() == [1, 0, 1]
    assert between.kinds.tolist() == ["crop", "exact", "rot90"]


def test_test_images_that_are_training_images():
    train = Rows(Path("t"), np.array(["a", "b"]), (None, None), np.array(["x", "y"]))
    test = Rows(Path("u"), np.array(["p", "q", "r"]), (None, None, None), None)
    between = pairs_between(
        pairs((0, 2, "exact"), (1, 2, "hflip"), (1, 3, "hflip")),
        np.array([0, 1, -1, -1, -1]),
        np.array([-1, -1, 0, 1, 2]),
    )
    among = pairs_within(pairs((3, 4, "exact")), np.array([-1, -1, 0, 1, 2]))
    kinds = {one.kind: one for one in check_test_copies(train, test, between, among)}
    assert kinds["test-in-train"].rows == ("p",) and kinds["test-in-train"].examples == ("a = p",)
    assert kinds["test-near-train"].rows == ("q",) and kinds["test-near-train"].examples == ("b ~ q",)
    assert kinds["test-copies"].rows == ("r",) and kinds["test-copies"].level == "note"
    assert {one.side for one in kinds.values()} == {"test"}


@pytest.fixture
def pets(tmp_path):
    """Two classes of eight smooth textures of 128 px."""
    for number in range(16):
        path = tmp_path / "pets" / ("cat", "dog")[number // 8] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        texture(number).save(path)
    return tmp_path / "pets"


def texture(seed: int) -> Image.Image:
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (12, 12, 3), dtype=np.uint8)).resize(
        (128, 128), Image.Resampling.BICUBIC
    )
    fine = Image.fromarray(random.integers(0, 256, (128, 128, 3), dtype=np.uint8)).filter(ImageFilter.GaussianBlur(1))
    return Image.blend(coarse, fine, 0.4)


def audited(data: Path, test: Path | None = None) -> Audit:
    return check(data, test, None, None, data.parent / "a.json", (), SILENT)


def test_planted_copies_in_real_files(pets):
    shutil.copy(pets / "cat" / "0.png", pets / "cat" / "again.png")
    shutil.copy(pets / "cat" / "1.png", pets / "dog" / "wrong.png")
    test = pets.parent / "test"
    test.mkdir()
    shutil.copy(pets / "dog" / "9.png", test / "known.png")
    texture(99).save(test / "new.png")
    audit = audited(pets, test)
    kinds = {one.kind: one for one in audit.findings}
    assert kinds.keys() == {"copies-two-labels", "exact-copies", "test-in-train"}
    assert kinds["copies-two-labels"].rows == ("cat/1.png", "dog/wrong.png")
    assert kinds["exact-copies"].rows == ("cat/again.png",) and kinds["test-in-train"].rows == ("known.png",)
    assert [(pair["first"], pair["second"], pair["sides"]) for pair in audit.pairs] == [
        ("cat/0.png", "cat/again.png", "train-train"),
        ("cat/1.png", "dog/wrong.png", "train-train"),
        ("dog/9.png", "known.png", "train-test"),
    ]
    assert audit.pairs[1]["labels"] == ["cat", "dog"] and audit.pairs[2]["labels"] == ["dog", None]


def test_planted_near_copies_in_real_files(pets):
    Image.open(pets / "cat" / "0.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(pets / "cat" / "mirror.png")
    Image.open(pets / "cat" / "1.png").save(pets / "dog" / "encoded.jpg", quality=60)
    kinds = {one.kind: one for one in audited(pets).findings}
    assert kinds.keys() == {"near-copies", "near-copies-two-labels"}
    assert kinds["near-copies"].rows == ("cat/0.png", "cat/mirror.png")
    assert kinds["near-copies-two-labels"].rows == ("cat/1.png", "dog/encoded.jpg")

"""Blends of several runs: whose folds are used, which networks go together, what is said of runs that don't fit."""

import json
import re
import shutil

import numpy as np
import pytest
from commands import ens
from report_runs import noisy_logits, write_run
from test_compare import CLASSES, make_run

from ensemble.blend import BlendOptions, blend_run, check_sources, load_blend, read_result
from ensemble.blend.oof import read_rows
from ensemble.blend.partition import common_folds, fold_sets
from ensemble.blend.several import read_runs
from ensemble.blend.sources import Sources
from ensemble.errors import UserError
from ensemble.events import SILENT
from ensemble.files.sealed import write_json
from ensemble.overview.blends import read_blends
from ensemble.overview.verify import verify
from ensemble.run import Run

LABELS = np.arange(60) % 2
FOLDS = np.arange(60) // 2 % 4


def noise(seed):
    """float32 (60, 2), right for most rows."""
    rng = np.random.default_rng(seed)
    return (np.eye(2)[LABELS] * 1.5 + rng.normal(size=(60, 2))).astype(np.float32)


@pytest.fixture
def parted(tmp_path):
    """A run of four members, and the same members in two runs."""
    members = {name: noise(seed) for seed, name in enumerate(["u", "v", "x", "y"])}
    make_run(tmp_path / "whole", LABELS, members, folds=FOLDS)
    make_run(tmp_path / "a", LABELS, {name: members[name] for name in "uv"}, folds=FOLDS)
    make_run(tmp_path / "b", LABELS, {name: members[name] for name in "xy"}, folds=FOLDS)
    return tmp_path


def joined(*paths, views=None, members=None):
    said = []
    return *read_runs([Run(path) for path in paths], views, members, said.append), said


def fitted(run, *others, method="stack", **options):
    return blend_run(Run(run), BlendOptions(method, with_runs=others, **options))


def refusal(*paths, **options):
    with pytest.raises(UserError) as error:
        fitted(*paths, **options)
    return str(error.value)


# ---- folds and networks --------------------------------------------------------------------------------------------


def test_runs_that_divide_the_rows_alike_keep_the_first_ones_folds():
    first = np.array([0, 1, 2, 0, 1, 2])
    other = np.array([2, 0, 1, 2, 0, 1])  # the same parts under other numbers
    clusters = np.array([0, 0, 1, 2, 3, 4])  # the first run's own folds divide one
    parts = common_folds(np.stack([first, other]), clusters)
    assert parts.tolist() == first.tolist()
    assert fold_sets(np.stack([first, other]), parts, [3, 3]).tolist() == [[0, 1, 2], [2, 0, 1]]


def test_of_other_folds_the_finest_parts_that_none_reaches_across_are_taken():
    first = np.array([0, 0, 1, 1, 2, 2, 3, 3])
    other = np.array([4, 0, 0, 4, 1, 1, 3, 2])  # 4 and 0 tie the folds 0 and 1
    every = np.arange(8)
    assert common_folds(np.stack([first, other]), every).tolist() == [0, 0, 0, 0, 1, 1, 2, 2]
    tied = np.array([0, 1, 2, 3, 4, 5, 5, 6])  # a group in the folds 2 and 3
    assert common_folds(np.stack([first, other]), tied).tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


def test_a_run_with_one_held_out_part_joins_nothing():
    first, other = np.zeros(4, dtype=int), np.array([1, 0, 1, 0])
    assert common_folds(np.stack([first, other]), np.arange(4)).tolist() == [1, 0, 1, 0]
    assert common_folds(np.stack([first, first]), np.arange(4)).tolist() == [0, 0, 0, 0]
    assert fold_sets(np.stack([first, other]), other, [1, 2]).tolist() == [[0, 0], [0, 1]]


def test_networks_trained_without_the_same_rows_go_together_and_each_counts_equally():
    first = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    finer = np.array([2, 2, 0, 0, 3, 3, 1, 1])
    parts = common_folds(np.stack([first, finer]), np.arange(8))
    assert parts.tolist() == first.tolist()
    assert fold_sets(np.stack([first, finer]), parts, [2, 4]).tolist() == [[0, 0, 1, 1], [0, 2, 1, 3]]
    parts = common_folds(np.stack([finer, first]), np.arange(8))
    assert parts.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert fold_sets(np.stack([finer, first]), parts, [4, 2]).tolist() == [[0, 2, 1, 3], [0, 0, 1, 1]]


def test_of_2_and_3_folds_there_are_6_sets():
    first, other = np.array([0, 0, 1, 1]), np.array([0, 2, 1, 1])
    sets = fold_sets(np.stack([first, other]), common_folds(np.stack([first, other]), np.arange(4)), [2, 3])
    assert sets.tolist() == [[0, 0, 0, 1, 1, 1], [0, 0, 2, 2, 1, 1]]


# ---- the blend -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["mean", "stack", "vote"])
def test_the_blend_is_that_of_the_same_members_in_one_run(parted, method):
    one, two = fitted(parted / "whole", method=method), fitted(parted / "a", parted / "b", method=method)
    assert (one.name, two.name, two.path) == (method, f"{method}-b", parted / "a" / "blends" / f"{method}-b.json")
    assert list(two.members) == ["u", "v", "b/x", "b/y"]
    assert two.blend == one.blend and two.mean == one.mean
    assert list(two.members.values()) == list(one.members.values())
    assert two.fitted.chain.params().keys() == one.fitted.chain.params().keys()
    for key, value in one.fitted.chain.params().items():
        assert np.array_equal(two.fitted.chain.params()[key], value)
    assert two.fitted.sources == Sources({"b": "../b"}, {"": (0, 1, 2, 3), "b": (0, 1, 2, 3)})
    assert one.fitted.sources is None and "runs" not in json.loads(one.path.read_text())


def test_what_is_saved_is_read_again_wherever_both_runs_lie(parted, tmp_path):
    made = fitted(parted / "a", parted / "b")
    (tmp_path / "elsewhere").mkdir()
    for name in "ab":
        shutil.move(parted / name, tmp_path / "elsewhere" / name)
    run = Run(tmp_path / "elsewhere" / "a")
    assert load_blend(run, "stack-b").sources == made.fitted.sources
    assert read_result(run, "stack-b").blend == made.blend
    check_sources(run, "stack-b")
    assert not [bad for bad in verify(run, SILENT).findings if bad.path.name == made.path.name]
    shutil.move(tmp_path / "elsewhere" / "b", tmp_path / "elsewhere" / "c")
    b = tmp_path / "elsewhere" / "b"
    gone = f"{b}: is no run directory, but a blend of {run} holds its member 'x'"
    lines = [bad.line for bad in verify(run, SILENT).findings]
    assert f"{b}: is no run directory, but the blend holds members of it; bring it back there" in lines
    with pytest.raises(UserError, match=f"^{re.escape(gone)}; bring it back there, or fit the blend again"):
        check_sources(run, "stack-b")
    assert load_blend(run, "stack-b").members == made.fitted.members  # what needs no network still works


def test_a_member_of_the_other_run_that_was_trained_again_is_noticed(parted):
    fitted(parted / "a", parted / "b")
    make_run(parted / "b", LABELS, {"x": noise(9)}, folds=FOLDS)
    a, b = parted / "a", parted / "b"
    text = f"blend 'stack-b' was fitted on another 'b/x' than {b} holds now; fit it again with: ens blend {a} {b}"
    with pytest.raises(UserError, match=f"^{re.escape(text)}$"):
        check_sources(Run(a), "stack-b")


def test_members_are_chosen_by_their_names_and_have_their_own_views(parted):
    make_run(parted / "b", LABELS, {"x": np.stack([noise(2), noise(3)])}, folds=FOLDS)
    oof, _, _ = joined(parted / "a", parted / "b", members=["v", "b/x"])
    assert (oof.members, oof.views) == (("v", "b/x"), (("identity",), ("identity", "hflip")))
    assert oof.left_out == {"u": "not asked for", "b/y": "not asked for"}
    assert refusal(parted / "a", parted / "b", members=["u", "c/x"]) == (
        "no member 'c/x': those of other runs than the first are called b/MEMBER"
    )
    text = refusal(parted / "a", parted / "b", members=["u"])
    assert text == f"--members names none of {parted / 'b'}; they are called b/MEMBER"
    assert "no member 'z'; nearest:" in refusal(parted / "a", parted / "b", members=["u", "b/z"])


def test_two_other_runs_of_one_name_are_told_apart(parted):
    make_run(parted / "more" / "b", LABELS, {"x": noise(7)}, folds=FOLDS)
    made = fitted(parted / "a", parted / "b", parted / "more" / "b", method="mean")
    assert list(made.members) == ["u", "v", "b/x", "b/y", "b-2/x"]
    assert made.name == "mean-b-b-2"
    assert made.fitted.sources.others == {"b": "../b", "b-2": "../more/b"}


def test_finer_folds_are_joined_to_the_coarser_ones(parted):
    finer = FOLDS + 4 * (np.arange(60) // 8 % 2)  # each fold in two
    make_run(parted / "c", LABELS, {"x": noise(5)}, folds=finer)
    oof, sources, said = joined(parted / "a", parted / "c")
    assert oof.rows.folds.tolist() == FOLDS.tolist() and said == []
    assert sources.sets == {"": (0, 0, 1, 1, 2, 2, 3, 3), "c": (0, 4, 1, 5, 2, 6, 3, 7)}
    oof, sources, _ = joined(parted / "c", parted / "a")
    assert sorted(set(zip(oof.rows.folds.tolist(), FOLDS.tolist(), strict=True))) == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert fitted(parted / "a", parted / "c", method="mean").folds == 4


def test_rows_that_one_run_lacks_are_left_out_and_said(parted):
    make_run(parted / "c", LABELS[:50], {"x": noise(5)[:50]}, folds=FOLDS[:50])
    oof, _, said = joined(parted / "a", parted / "c")
    assert len(oof.rows.ids) == 50 and [values.shape for values in oof.values] == [(1, 50, 2)] * 3
    assert said == [f"blended on the 50 rows that all have; rows left out: 10 of {parted / 'a'}"]
    assert fitted(parted / "a", parted / "c", method="mean").rows == 50


def test_rows_are_joined_by_id_whatever_their_order(parted):
    order = np.random.default_rng(0).permutation(60)
    ids = [f"bild ü{i:03}.png" for i in order]
    make_run(parted / "c", LABELS[order], {"x": noise(2)[order]}, folds=FOLDS[order], ids=ids)
    oof, _, _ = joined(parted / "a", parted / "c")
    assert np.array_equal(oof.values[2][0], noise(2))


# ---- what is refused -----------------------------------------------------------------------------------------------


def test_folds_that_hang_together_are_refused_with_the_way_to_go_on(parted):
    make_run(parted / "c", LABELS, {"x": noise(5)}, folds=np.arange(60) % 5)
    a, c = parted / "a", parted / "c"
    assert refusal(a, c) == (
        f"{c}: its folds and groups tie all rows of {a} together, so that no blend of both can be scored on rows that "
        f"it was not fitted on; train it anew with the data, seed and k of {a}, or give it the folds in "
        f'{a / "folds.csv"} ([folds] fold = "fold")'
    )
    assert not (a / "blends").exists()


def test_groups_of_one_run_that_the_other_divides_are_said(parted):
    finer = FOLDS + 4 * (np.arange(60) // 8 % 2)
    groups = np.where(np.arange(60) < 20, FOLDS, np.arange(60))
    make_run(parted / "g", LABELS, {"u": noise(0)}, folds=FOLDS, groups=groups.tolist())
    make_run(parted / "c", LABELS, {"x": noise(5)}, folds=finer)
    oof, _, said = joined(parted / "g", parted / "c")
    assert said == [
        f"warning: 4 groups of {parted / 'g'} stand in two or more folds of {parted / 'c'}: its networks have seen "
        "rows of the groups that they are scored on, which makes its scores, and the blend's, optimistic"
    ]
    assert oof.rows.grouped and len(np.unique(oof.rows.clusters)) == 4 + 40
    assert oof.rows.folds.tolist() == FOLDS.tolist()


def test_runs_that_do_not_fit_are_refused(parted):
    a = parted / "a"
    make_run(parted / "classes", LABELS, {"x": noise(2)}, folds=FOLDS, classes=("cat", "cow"))
    assert refusal(a, parted / "classes") == (
        f"{parted / 'classes'}: lacks the class 'dog' of {a}; the classes must be the same"
    )
    make_run(parted / "order", 1 - LABELS, {"x": noise(2)}, folds=FOLDS, classes=CLASSES[::-1])
    assert refusal(a, parted / "order").startswith(f"{parted / 'order'}: its classes have another order than those of ")
    make_run(parted / "labels", np.where(np.arange(60) == 3, 0, LABELS), {"x": noise(2)}, folds=FOLDS)
    assert "id 'bild ü003.png' is labelled 'cat', in" in refusal(a, parted / "labels")
    make_run(parted / "ids", LABELS, {"x": noise(2)}, folds=FOLDS, ids=[f"{i}" for i in range(60)])
    assert refusal(a, parted / "ids").startswith("no row's id is in all of ")
    assert refusal(a, parted / "b", a / ".." / "a") == f"{a}: is named twice"
    assert "not a run directory" in refusal(a, parted / "none")


def test_the_first_runs_own_blends_are_not_replaced(parted):
    make_run(parted / "c", LABELS, {"x": noise(5)}, folds=FOLDS)
    fitted(parted / "a", parted / "b", members=["u", "b/x"], method="mean")
    text = refusal(parted / "a", parted / "b", method="mean")
    assert text.endswith("there is a blend 'mean-b' already, of other members or views; give this one its own --name")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"others": {}}, "a member's name can't be that of a folder"),
        ({"sets": {"": [0, 1]}}, "no run is named for b/x"),
        ({"sets": {"": [0, 1], "b": [0]}}, "its runs and their sets of folds don't go together"),
        ({"sets": {"": [], "b": []}}, "it has no set of folds"),
        ({"sets": {"": [-1], "b": [0]}}, "key 'runs.sets..0' should be greater than or equal to 0"),
    ],
)
def test_a_file_that_does_not_fit_together_is_refused(parted, change, says):
    path = fitted(parted / "a", parted / "b").path
    saved = json.loads(path.read_text())
    saved.pop("checksum", None)
    saved["runs"] |= change
    write_json(path, saved)
    with pytest.raises(UserError, match=re.escape(says)):
        load_blend(Run(parted / "a"), path.stem)


# ---- commands and pages --------------------------------------------------------------------------------------------


def test_the_command_takes_several_runs(parted, monkeypatch, capfd):
    a, b = parted / "a", parted / "b"
    status, out, err = ens(monkeypatch, capfd, "blend", a, b, "--method", "mean")
    assert status == 0 and "b/x" in out and f"saved {a / 'blends' / 'mean-b.json'}" in out + err
    status, _, err = ens(monkeypatch, capfd, "blend", a, parted / "none")
    assert status == 2 and "not a run directory" in err


def test_from_python(parted):
    made = Run(parted / "a").blend("mean", with_runs=[Run(parted / "b")], name="both")
    assert (made.name, list(made.weights.index)) == ("both", ["u", "v", "b/x", "b/y"])
    with pytest.raises(UserError, match=r"with_runs: want a list, as in \['b'\]"):
        Run(parted / "a").blend(with_runs="b")


def test_the_report_shows_it_beside_the_blends_of_its_own_run(tmp_path, monkeypatch, capfd):
    for seed, name in enumerate("ab"):
        members = {member: noisy_logits(LABELS, 2, 1.5, seed + 2 * number) for number, member in enumerate("xy")}
        write_run(tmp_path / name, CLASSES, LABELS, FOLDS, members)
    made = fitted(tmp_path / "a", tmp_path / "b", method="mean")
    fitted(tmp_path / "a", method="mean")
    status, _, err = ens(monkeypatch, capfd, "report", tmp_path / "a")
    assert status == 0, err
    page = (tmp_path / "a" / "report.html").read_text(encoding="utf-8")
    assert made.name in page and f"with members of {tmp_path / 'b'}" in page
    assert ens(monkeypatch, capfd, "runs", tmp_path)[0] == 0
    shutil.rmtree(tmp_path / "b")
    _, stale, _ = read_blends(Run(tmp_path / "a"), read_rows(Run(tmp_path / "a")))
    assert stale[made.name].startswith(f"{tmp_path / 'b'}: is no run directory")

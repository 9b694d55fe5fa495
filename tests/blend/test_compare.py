"""`ens compare`: differences worked out by hand, what is paired with what, and what is said of runs that don't fit."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
from commands import ens
from rich.console import Console

from ensemble.blend import compare, members_table
from ensemble.blend.comparison import OPTIMISTIC, tells
from ensemble.blend.seeds import seed_deviation
from ensemble.data.contents import contents_of
from ensemble.data.logits import Logits
from ensemble.errors import UserError
from ensemble.files.atomic import write_text
from ensemble.files.sealed import write_json
from ensemble.run import Run
from ensemble.scoring.bootstrap import Gain
from ensemble.scoring.intervals import Support, gain_interval
from ensemble.scoring.metrics import METRICS
from ensemble.tables import layout
from ensemble.tables.compare import show_comparison, verdict

CLASSES = ("cat", "dog")


def logits(labels, wrong=(), size=2.0, classes=2):
    """float32 (N, C): `size` for the class predicted, which is the true one but for the rows `wrong`."""
    predicted = np.where(np.isin(np.arange(len(labels)), wrong), (labels + 1) % classes, labels)
    return size * np.eye(classes, dtype=np.float32)[predicted]


def make_run(path, labels, members, k=2, folds=None, groups=None, ids=None, classes=CLASSES, seconds=None, **settings):
    """A run directory of `members`, name -> float32 (N, C) or (V, N, C). seconds: of each fold."""
    labels = np.asarray(labels)
    folds = np.arange(len(labels)) % k if folds is None else np.asarray(folds)
    ids = [f"bild ü{i:03}.png" for i in range(len(labels))] if ids is None else ids
    lines = ["id,label,fold" + (",group" if groups is not None else "")]
    for i, label in enumerate(labels):
        lines.append(f"{ids[i]},{classes[label]},{folds[i]}" + (f",{groups[i]}" if groups is not None else ""))
    write_text(Run(path).folds_csv, "\n".join([*lines, "only trained on,cat,-1,"[: None if groups else -1]]))
    write_json(Run(path).classes_json, list(classes))
    for name, z in members.items():
        z = z if z.ndim == 3 else z[None]
        write_json(Run(path).member(name).settings_json, settings)
        for fold in np.unique(folds).tolist():
            where = np.flatnonzero(folds == fold)[::-1]
            folder = Run(path).member(name).fold(fold)
            views = ("identity", "hflip")[: len(z)]
            own = np.ascontiguousarray(z[:, where])
            Logits(np.array(ids)[where], views, classes, own).save(folder.oof_file)
            facts = {} if seconds is None else {"seconds": seconds}
            folder.mark_done([folder.oof_file], **facts)
    return path


def undo(run, member, fold):
    Run(run).member(member).fold(fold).done_json.unlink()


LABELS = np.arange(24) % 2


@pytest.fixture
def two(tmp_path):
    """Two runs with the members x and y; of x, run a is wrong on 8 rows and run b on 2 of those and one other."""
    a = {"x": logits(LABELS, range(8)), "y": logits(LABELS, [20]), "only_a": logits(LABELS)}
    b = {"x": logits(LABELS, [0, 1, 23], size=6.0), "y": logits(LABELS, [20])}
    return make_run(tmp_path / "a", LABELS, a), make_run(tmp_path / "b", LABELS, b)


def resampled(values, seed=0, resamples=1000):
    """The means of `values` (U,) in the resamples that bootstrap.py draws, one at a time."""
    draw = np.random.default_rng(seed)
    return np.array([values[draw.integers(len(values), size=len(values))].mean() for _ in range(resamples)])


# ---- numbers -------------------------------------------------------------------------------------------------------


def test_the_difference_and_its_interval_are_those_of_the_rows(two):
    block = compare(two).blocks[0]
    assert [item.name for item in block.items] == [str(run) for run in two]
    assert [own["accuracy"].value for own in block.scores] == pytest.approx([16 / 24, 21 / 24])
    difference = np.zeros(24)
    difference[2:8], difference[23] = 1, -1
    drawn = resampled(difference)
    own = block.accuracy[1]
    assert (own.against, own.metric, own.value) == (str(two[0]), "accuracy", pytest.approx(5 / 24))
    error = np.sqrt(drawn.var(ddof=1) * 24 / 23 + 2 / 24**2)  # as if two rows more differed, one each way
    assert (own.low, own.high) == pytest.approx((5 / 24 - 2.0686576 * error, 5 / 24 + 2.0686576 * error))
    assert own.p_better == pytest.approx(NormalDist().cdf(1.959964 * (5 / 24) / (2.0686576 * error)))
    assert block.differ.tolist() == [0, 7] and block.best == 1
    assert (block.behind[0].value, block.behind[1].value) == (pytest.approx(-5 / 24), 0)
    assert (block.accuracy[0].value, block.accuracy[0].low, block.accuracy[0].high) == (0, 0, 0)


def test_two_groups_by_hand(tmp_path):
    """Of two groups of 8 rows one gains 4 rows and one loses 2: resamples gain 1/2, 1/8 or -1/4, as 1 to 2 to 1. Two
    groups say so little that anything may be true."""
    labels, groups = np.arange(16) % 2, [f"p{i // 8}" for i in range(16)]
    a, b = logits(labels, [0, 2, 4, 6]), logits(labels, [8, 10])
    run = make_run(tmp_path / "run", labels, {"a": a, "b": b}, folds=np.arange(16) // 8, groups=groups)
    result = compare([run])
    own, recalls = result.blocks[0].accuracy[1], result.blocks[0].recall_interval
    assert result.grouped and result.clusters.tolist() == [0] * 8 + [1] * 8
    assert (own.value, own.low, own.high) == (pytest.approx(1 / 8), -1, 1)
    assert own.p_better == pytest.approx(NormalDist().cdf(1.959964 * (1 / 8) / (9 / 8)))
    assert recalls[:, 1, 0].tolist() == [-1, 1]


def test_log_loss_at_the_cross_fitted_temperature_by_hand(tmp_path):
    """Each fold has 2 of 8 rows wrong. On the other fold's 8 rows, whose targets hold 1/9 of a uniform label (see
    pool.py), the best temperature gives the class predicted the probability 8/9 * 3/4 + 1/9 * 1/2."""
    labels = np.arange(16) % 2
    own, sharp = logits(labels, [0, 1, 2, 3]), logits(labels, [0, 1, 2, 3], size=9.0)
    block = compare([make_run(tmp_path / "run", labels, {"modest": own, "sharp": sharp})]).blocks[0]
    p = 8 / 9 * 3 / 4 + 1 / 18
    want = -(0.75 * np.log(p) + 0.25 * np.log(1 - p))
    assert [score.value for score in block.tempered] == pytest.approx([want, want], abs=1e-5)
    for score, size in zip(block.scores, (2, 9), strict=True):
        assert score["log_loss"].value == pytest.approx(np.log1p(np.exp(-size)) + 0.25 * size, abs=1e-6)
    assert block.log_loss[1].value == pytest.approx(0, abs=1e-5)
    assert block.tempered[0].folds == pytest.approx([want, want], abs=1e-5)
    assert block.tempered_losses.shape == (2, 16)
    assert block.tempered_losses.mean(axis=1) == pytest.approx([score.value for score in block.tempered])


def test_a_lower_log_loss_is_a_gain(tmp_path):
    noise = np.random.default_rng(0).normal(0, 3, (24, 2)).astype(np.float32)
    block = compare([make_run(tmp_path / "run", LABELS, {"a": noise, "b": noise + logits(LABELS)})]).blocks[0]
    difference = block.tempered_losses[0] - block.tempered_losses[1]
    own = block.log_loss[1]
    assert own.metric == "log_loss" and own.value == pytest.approx(difference.mean()) and own.value > 0
    ends = gain_interval(METRICS["log_loss"], own.value, resampled(difference), Support(24, 24, 24))
    assert (own.low, own.high) == pytest.approx(ends)


def test_recalls_and_what_is_marked(tmp_path):
    """Of the class cat all 6 rows are won and of dog all 5, too few to tell. No resample varies; another row might."""
    labels = np.array([0] * 6 + [1] * 5)
    run = make_run(tmp_path / "run", labels, {"a": logits(labels, range(11)), "b": logits(labels)})
    block = compare([run]).blocks[0]
    assert block.recall.tolist() == [[0, 0], [1, 1]]
    assert block.recall_gain.tolist() == [[0, 0], [1, 1]]
    lowest = [1 - 2.5705818 * np.sqrt(2) / 6, 1 - 2.7764451 * np.sqrt(2) / 5]
    assert block.recall_interval[0] == pytest.approx(np.array([[0, 0], lowest]))
    assert block.recall_interval[1].tolist() == [[0, 0], [1, 1]]
    assert block.marked.tolist() == [[False, False], [True, False]]


def test_the_interval_of_a_recall(two):
    block = compare(two).blocks[0]
    cats = np.zeros(12)
    cats[1:4] = 1  # rows 2, 4 and 6
    assert block.recall[:, 0] == pytest.approx([8 / 12, 11 / 12])
    half = 2.2009852 * np.sqrt(resampled(cats).var(ddof=1) * 12 / 11 + 2 / 12**2)
    assert block.recall_interval[:, 1, 0] == pytest.approx([0.25 - half, 0.25 + half])


def test_a_class_without_rows_has_no_recall(tmp_path, capsys):
    three = ("cat", "dog", "newt")
    own = {name: logits(LABELS, wrong, classes=3) for name, wrong in (("a", []), ("b", [1, 2]))}
    result = compare([make_run(tmp_path / "run", LABELS, own, classes=three)])
    block = result.blocks[0]
    assert np.isnan(block.recall[:, 2]).all() and np.isnan(block.recall_interval[:, :, 2]).all()
    show_comparison(result)
    out = capsys.readouterr().out
    assert "newt" not in out and "0 of 2 comparisons; 0.1 (5%) are expected by chance alone" in out


def test_scores_are_those_of_the_members_table(two):
    rows = {row.member: row for row in members_table(Run(two[0]))}
    block = compare([two[0]]).blocks[0]
    assert [item.name for item in block.items] == ["only_a", "x", "y"]
    for item, own in zip(block.items, block.scores, strict=True):
        for metric in ("accuracy", "macro_f1", "log_loss"):
            theirs = rows[item.name].scores[metric]
            assert (own[metric].value, own[metric].folds) == (pytest.approx(theirs.value), pytest.approx(theirs.folds))


def test_views_are_averaged(tmp_path):
    views = np.stack([logits(LABELS, size=1.0), logits(LABELS, range(24), size=3.0)])
    block = compare([make_run(tmp_path / "run", LABELS, {"a": views, "b": logits(LABELS)})]).blocks[0]
    assert [own["accuracy"].value for own in block.scores] == [0, 1]


def test_one_held_out_part_has_no_spread(tmp_path):
    own = {"a": logits(LABELS, [1, 2, 3]), "b": logits(LABELS, [5])}
    block = compare([make_run(tmp_path / "run", LABELS, own, k=1)]).blocks[0]
    assert np.isnan(block.tempered[0].std) and block.tempered[0].value > 0


def test_too_few_rows_tell_nothing():
    gain = Gain("a", "accuracy", 0.1, 0.02, 0.2, 0.99)
    assert (tells(gain), tells(gain, 6), tells(gain, 5)) == (1, 1, 0)
    assert tells(replace(gain, low=-0.2, high=-0.02), 6) == -1
    assert tells(replace(gain, low=0.0)) == 0


# ---- what is compared with what ------------------------------------------------------------------------------------


def names(block):
    return [(item.run.path.name, item.members) for item in block.items]


def test_members_of_one_name_are_paired_and_then_their_means(two):
    result = compare(two)
    assert [names(block) for block in result.blocks] == [
        [("a", ("x",)), ("b", ("x",))],
        [("a", ("y",)), ("b", ("y",))],
        [("a", ("x", "y")), ("b", ("x", "y"))],
    ]
    assert [block.title for block in result.blocks] == ["x", "y", "the plain mean of x, y"]
    assert result.notes == (f"left out, as their names are in one run only: {two[0] / 'only_a'}",)
    x, y = logits(LABELS, [0, 1, 23], size=6.0), logits(LABELS, [20])
    assert result.blocks[2].predicted[1].tolist() == (x + y).argmax(axis=1).tolist()


def test_the_mean_needs_two_members_that_all_runs_have(two, tmp_path):
    c = make_run(tmp_path / "c", LABELS, {"x": logits(LABELS)})
    result = compare([*two, c])
    assert [names(block) for block in result.blocks] == [
        [("a", ("x",)), ("b", ("x",)), ("c", ("x",))],
        [("a", ("y",)), ("b", ("y",))],
    ]


def test_members_alone_and_runs_named_twice(two):
    a, b = two
    assert [names(block) for block in compare([b / "x", a / "x"]).blocks] == [[("b", ("x",)), ("a", ("x",))]]
    result = compare([a / "y", a, a / "." / "x"])
    assert [names(block) for block in result.blocks] == [[("a", ("y",)), ("a", ("only_a",)), ("a", ("x",))]]
    assert [item.name for item in result.blocks[0].items] == ["y", "only_a", "x"] and result.notes == ()


def test_with_no_name_in_common_all_are_compared(two):
    a, b = two
    result = compare([a / "only_a", b])
    assert [item.name for item in result.blocks[0].items] == [str(a / "only_a"), str(b / "x"), str(b / "y")]
    assert result.notes == ("no member's name is in two of the runs: all are compared with each other",)


def test_rows_are_joined_by_id_and_those_not_in_all_are_counted(two, tmp_path):
    ids = [f"bild ü{i:03}.png" for i in range(3, 30)][::-1]  # another order, 3 rows fewer and 6 more
    labels = np.array([int(name[6:9]) % 2 for name in ids])
    c = make_run(tmp_path / "c", labels, {"x": logits(labels, [26])}, ids=ids, folds=labels)
    result = compare([two[0] / "x", c])
    assert len(result.ids) == 21 and result.ids[0] == "bild ü003.png"
    assert result.blocks[0].folds.tolist() == [[i % 2 for i in range(3, 24)]] * 2
    assert [own["accuracy"].value for own in result.blocks[0].scores] == pytest.approx([16 / 21, 20 / 21])
    assert result.notes == (f"compared on the 21 rows that all have; rows left out: 3 of {two[0]}, 6 of {c}",)


def test_other_folds_are_said_and_other_numbers_of_the_same_folds_are_not(two, tmp_path):
    a = two[0]
    other = make_run(tmp_path / "c", LABELS, {"x": logits(LABELS, [0, 1, 4])}, folds=np.arange(24) // 2 % 2)
    swapped = make_run(tmp_path / "d", LABELS, {"x": logits(LABELS)}, folds=1 - np.arange(24) % 2)
    result = compare([a / "x", other])
    assert result.notes == (f"the folds of {other} are not those of {a}: a difference holds the luck of the split too",)
    assert result.blocks[0].folds[1].tolist() == (np.arange(24) // 2 % 2).tolist()
    assert [own["accuracy"].folds for own in result.blocks[0].scores] == [(8 / 12, 8 / 12), (9 / 12, 1)]
    assert compare([a / "x", swapped]).notes == ()


def test_rows_of_a_group_in_any_run_are_resampled_together(two, tmp_path):
    pairs, threes = [f"p{i // 2}" for i in range(24)], [f"q{i // 3 if i < 6 else i}" for i in range(24)]
    one = make_run(tmp_path / "one", LABELS, {"x": logits(LABELS)}, groups=pairs)
    other = make_run(tmp_path / "other", LABELS, {"x": logits(LABELS)}, groups=threes)
    assert np.array_equal(compare([two[0] / "x", one]).clusters, np.unique(pairs, return_inverse=True)[1])
    units = compare([one, other]).clusters  # 0 1 2 and 3 4 5 by one run, 2 3 by the other: six rows hang together
    assert len(set(units[:6].tolist())) == 1 and len(set(units.tolist())) == 10 and units[6] == units[7]


def test_what_training_took(tmp_path):
    members = {"x": logits(LABELS), "y": logits(LABELS)}
    a = make_run(tmp_path / "a", LABELS, members, seconds=1861.5, epochs=4)
    b = make_run(tmp_path / "b", LABELS, members)
    result = compare([a, b])
    assert [(item.seconds, item.epochs) for item in result.blocks[0].items] == [(3723.0, 4), (None, None)]
    assert [(item.seconds, item.epochs) for item in result.blocks[2].items] == [(7446.0, 4), (None, None)]
    write_json(Run(a).member("y").settings_json, {"epochs": 5})
    assert compare([a, b]).blocks[2].items[0].epochs is None
    write_json(Run(a).member("y").settings_json, {"epochs": 12, "strategy": "probe"})  # which has none
    assert compare([a / "y", b / "y"]).blocks[0].items[0].epochs is None


# ---- what does not fit ---------------------------------------------------------------------------------------------


def said(paths):
    with pytest.raises(UserError) as caught:
        compare(paths)
    return str(caught.value)


def test_labels_that_differ(two, tmp_path):
    labels = LABELS.copy()
    labels[[5, 9]] = 0
    c = make_run(tmp_path / "c", labels, {"x": logits(labels)})
    assert said([two[0], c]) == (
        f"{c}: id 'bild ü005.png' is labelled 'cat', in {two[0]} 'dog' (2 of 24 rows differ); "
        "the labels must be the same"
    )


@pytest.mark.parametrize(
    ("classes", "line"),
    [
        (("cat", "newt"), "lacks the class 'dog' of {a}"),
        (("cat", "dog", "newt"), "has the class 'newt', {a} not"),
    ],
)
def test_classes_that_differ(two, tmp_path, classes, line):
    c = make_run(tmp_path / "c", LABELS, {"x": logits(LABELS, classes=len(classes))}, classes=classes)
    assert said([two[0], c]) == f"{c}: {line.format(a=two[0])}; the classes must be the same"


def test_runs_with_another_order_of_classes_are_compared_by_their_names(two, tmp_path):
    """An older ens stored numbered classes in another order."""
    c = make_run(tmp_path / "c", 1 - LABELS, {"x": logits(1 - LABELS, range(8))}, classes=CLASSES[::-1])
    block = compare([two[0] / "x", c / "x"]).blocks[0]
    assert block.predicted[0].tolist() == block.predicted[1].tolist()
    assert block.losses[0] == pytest.approx(block.losses[1])


def test_the_members_of_a_run_stand_in_the_order_of_its_file(tmp_path):
    run = make_run(tmp_path / "run", LABELS, {"a": logits(LABELS), "b": logits(LABELS, [1]), "c": logits(LABELS, [2])})
    other = f"; for another, name it first: ens compare {run / 'MEMBER'} {run}"
    result = compare([run])
    assert [item.name for item in result.blocks[0].items] == ["a", "b", "c"]
    assert result.notes == (f"the baseline is a, the first by its name{other}",)
    Run(run).config_toml.write_text('[[backbone]]\nname = "c"\n[[backbone]]\nname = "a"\n')
    result = compare([run])
    assert [item.name for item in result.blocks[0].items] == ["c", "a", "b"]
    assert result.notes == (f"the baseline is c, the first in {Run(run).config_toml}{other}",)
    result = compare([run / "b", run])
    assert [item.name for item in result.blocks[0].items] == ["b", "c", "a"] and result.notes == ()


def keep_digests(run, ids, digests):
    write_json(Run(run).contents_json, contents_of(ids, digests))


def test_rows_with_other_ids_are_joined_by_what_their_files_hold(tmp_path):
    """A column of ids was added, in another order; one file changed, one is there twice."""
    ids, labels = [f"{row}.png" for row in range(24)], LABELS
    a = make_run(tmp_path / "a", labels, {"x": logits(labels, range(8))}, ids=ids)
    order = np.random.default_rng(0).permutation(24)
    others = [f"id{row}" for row in range(24)]
    b = make_run(tmp_path / "b", labels[order], {"x": logits(labels, range(8))[order]}, ids=others, folds=order % 2)
    assert said([a, b]) == f"no row's id is in all of {a}, {b}: nothing can be compared"
    digests = [f"{row:064}" for row in range(24)]
    keep_digests(a, ids, digests)
    assert said([a, b]).startswith("no row's id")  # an older run keeps none
    keep_digests(b, others, [digests[row] for row in order])
    result = compare([a / "x", b / "x"])
    assert result.ids.tolist() == ids and result.notes == (
        f"24 rows of {b} have other ids than in {a} and are joined by what their files hold: 'id0' is "
        f"'{order[0]}.png' there",
    )
    assert result.blocks[0].losses[0] == pytest.approx(result.blocks[0].losses[1])
    keep_digests(a, ids, ["changed", *digests[1:-2], digests[5], digests[-1]])
    result = compare([a / "x", b / "x"])
    assert result.ids.tolist() == [id for row, id in enumerate(ids) if row not in (0, 5, 22)]
    assert f"compared on the 21 rows that all have; rows left out: 3 of {a}, 3 of {b}" in result.notes


def test_no_common_row_or_one(two, tmp_path):
    c = make_run(tmp_path / "c", LABELS, {"x": logits(LABELS)}, ids=[f"{i}.png" for i in range(24)])
    assert said([two[0], c]) == f"no row's id is in all of {two[0]}, {c}: nothing can be compared"
    ids = ["bild ü000.png", *(f"{i}.png" for i in range(1, 24))]
    d = make_run(tmp_path / "d", LABELS, {"x": logits(LABELS)}, ids=ids)
    one = "the runs have only one row (or group) in common: no interval can be drawn from it"
    assert said([two[0], d]) == one


def test_paths_that_are_no_run_or_member(two, tmp_path):
    a = two[0]
    assert said([a, a / "z"]) == f"{a}: no member 'z'; there are: only_a, x, y"
    assert said([tmp_path / "no" / "x", a]) == (
        f"{tmp_path / 'no' / 'x'}: not a run directory (it has no folds.csv); make one with: ens train-folds FILE"
    )
    assert said([a / "x"]) == f"{a / 'x'}: nothing to compare it with, name a second run or member"


def test_members_that_are_named_one_by_one_are_all_compared(two):
    a, b = two
    (block,) = compare([a / "x", b / "x", a / "only_a"]).blocks
    assert block.title == "the members named"
    assert [item.name for item in block.items] == [str(a / "x"), str(b / "x"), str(a / "only_a")]


def test_members_that_are_not_finished(two):
    a, b = two
    undo(b, "y", 1)
    result = compare([a, b])
    left = f"left out: {b / 'y'} (not finished: fold 1)"
    assert [block.title for block in result.blocks] == ["x"]
    assert result.notes == (left, f"left out, as their names are in one run only: {a / 'only_a'}, {a / 'y'}")
    again = f"train on with: ens train-folds {b / 'config.toml'}"
    assert said([a, b / "y"]) == f"{b}: member 'y' is not finished: fold 1; {again}"
    assert said([b]) == f"{b / 'x'}: nothing to compare it with, name a second run or member; {left}"
    undo(b, "x", 0)
    assert said([a, b]) == f"{b}: no member has all its folds finished; {again}"


# ---- what is printed -----------------------------------------------------------------------------------------------


def test_the_command(monkeypatch, capfd, two):
    monkeypatch.chdir(two[0].parent)
    status, out, _ = ens(monkeypatch, capfd, "compare", "a", "b")
    assert status == 0
    assert "x, out of fold, 24 rows: score ± deviation over folds, [95% interval]" in out
    assert re.search(r"a +66\.67 ±0\.00 +\d+\.\d\d ±\d\.\d\d +\d\.\d{4} ±\d\.\d{4} +\d\.\d{4} ±\d\.\d{4}", out)
    assert re.search(r"a +baseline +baseline +- +- *\n", out)
    assert "no significant difference at 95%: b (gained: accuracy +20.83 [-3.66, +45.33], log loss +0.2" in out
    assert "no significant difference at 95%: b (gained: accuracy +0.00 [+0.00, +0.00], log loss " in out
    assert "the plain mean of x, y, out of fold, 24 rows" in out
    assert "left out, as their names are in one run only: a/only_a" in out
    assert "best by accuracy" not in out


def test_mistakes_end_with_status_2_and_one_line(monkeypatch, capfd, two):
    status, out, err = ens(monkeypatch, capfd, "compare", two[0], two[0] / "z")
    assert (status, out, err) == (2, "", f"ens: {two[0]}: no member 'z'; there are: only_a, x, y\n")
    status, _, err = ens(monkeypatch, capfd, "compare")
    assert status == 2 and "Missing argument 'RUN...'" in err


def test_verdicts_in_words(tmp_path):
    labels = np.arange(100) % 2
    own = {
        "a": logits(labels, range(20)),
        "b": logits(labels, range(8)),
        "c": logits(labels, range(40)),
        "d": logits(labels, [*range(16), *range(90, 92)]),
        "e": logits(labels, range(15)),
    }
    result = compare([make_run(tmp_path / "run", labels, own)])
    b, c, d, e, best, optimistic = verdict(result.blocks[0])
    assert b.startswith("better in accuracy and log loss: b (gained: accuracy +12.00 [+")
    assert c.startswith("worse in accuracy and log loss: c (gained: accuracy -20.00 [-")
    assert d.startswith("no significant difference at 95%: d (gained: accuracy +2.00 [-")
    few = r"accuracy \+5\.00 \[-0\.\d\d, \+10\.\d\d\], log loss \+"
    assert re.match(rf"better in log loss: e \(gained: {few}", e)
    assert re.fullmatch(r"best by accuracy: b; all others differ from it at 95%", best)
    assert optimistic == "it was chosen as the best of 5 on these rows, so its lead is optimistic"
    own = {name: own[name] for name in ("a", "d", "e")}
    *_, best, _ = verdict(compare([make_run(tmp_path / "other", labels, own)]).blocks[0])
    pattern = r"best by accuracy: e; no significant difference to it at 95%: a \(-5\.00 \[.*\]\), d \(-3\.00 \[.*\]\)"
    assert re.fullmatch(pattern, best)


def test_better_in_one_and_worse_in_the_other(tmp_path):
    """b is right more often, but what it is wrong in it is as sure of as of all else, where a knows its doubt."""
    labels = np.arange(400) % 2
    a, b = logits(labels, range(100), size=8.0), logits(labels, range(60), size=2.0)
    a[:100] /= 100
    lines = verdict(compare([make_run(tmp_path / "run", labels, {"a": a, "b": b})]).blocks[0])
    assert lines[0].startswith("better in accuracy, worse in log loss: b (gained: accuracy +10.00 [+")


def test_an_optimistic_member_is_marked_wherever_it_is_named(tmp_path, capsys):
    labels = np.arange(60) % 2
    plain = make_run(tmp_path / "plain", labels, {"x": logits(labels, range(9)), "y": logits(labels, range(9))})
    kept = {"x": logits(labels, range(2)), "y": logits(labels, range(7)), "z": logits(labels)}
    best = make_run(tmp_path / "kept", labels, kept, keep="best")
    result = compare([plain, best])
    assert [[item.optimistic for item in block.items] for block in result.blocks] == [[False, True]] * 3
    assert result.notes == (f"left out, as their names are in one run only: {best / 'z'} ({OPTIMISTIC})",)
    show_comparison(result)
    squeezed = re.sub(r"\s+", "", re.sub(r" {3,}.*", "", capsys.readouterr().out.replace("─", "")))
    assert squeezed.count(f"kept({OPTIMISTIC})".replace(" ", "")) == 3 * 2 + 3  # two tables and the verdict, thrice
    lines = verdict(compare([best / "x", best / "y", plain / "x", plain / "y"]).blocks[0])
    assert all(line.count(OPTIMISTIC) == line.count(f"{best}") for line in lines)
    show_comparison(compare([best / "x", plain / "x"]))
    out = capsys.readouterr().out
    assert f"gain over {best} ({OPTIMISTIC}) (positive is better)" in " ".join(out.split())
    assert f"recall % by class, and the gain over {best} ({OPTIMISTIC})" in " ".join(out.split())
    assert out.count("(optimistic:") == 5  # and in both tables, and above its column of recalls


def test_tables_of_four_long_names_fit_100_columns(tmp_path, monkeypatch, capsys):
    labels = np.arange(60) % 3
    members = [f"convnextv2_large_of_year_{i}" for i in range(4)]
    own = {name: logits(labels, range(i, 60, 2 + i), classes=3) for i, name in enumerate(members)}
    classes = ("a class with a long name", "dog", "cat")
    run = make_run(tmp_path / "run", labels, own, classes=classes, seconds=123456, epochs=12)
    monkeypatch.setattr(layout, "Console", lambda width=None: Console(width=100))
    show_comparison(compare([run]))
    out = capsys.readouterr().out
    rows = [line for line in out.splitlines() if "  " in line]
    assert max(map(len, rows)) <= 100 and "…" not in out
    for number in (r"\[-\d+\.\d, [+-]\d+\.\d\]", r"68:35:12", r"\[\d\.\d{4}, \d\.\d{4}\]"):
        assert re.search(number, out)


def test_names_in_brackets_are_printed_as_they_are(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    classes = ("[red]", "dog")
    for name in ("[a]", "[/b]"):
        make_run(Path(name), LABELS, {"x": logits(LABELS)}, classes=classes)
    show_comparison(compare([Path("[a]"), Path("[/b]")]))
    out = capsys.readouterr().out
    assert out.count("[a]") == 5 and out.count("[/b]") == 4 and out.count("[red] (12)") == 1


def test_many_items_and_many_classes(tmp_path, capsys):
    labels = np.tile(np.arange(60), 8)
    classes = tuple(f"class{c}" for c in range(60))
    worse = np.flatnonzero(labels < 2)
    own = {"a": logits(labels, classes=60)} | {f"m{i}": logits(labels, worse, classes=60) for i in range(4)}
    show_comparison(compare([make_run(tmp_path / "run", labels, own, classes=classes)]))
    out = capsys.readouterr().out
    assert out.count("recall % by class") == 2 and len(re.findall(r"class\d+ \(8\)", out)) == 4
    last = "8 of 240 comparisons; 12.0 (5%) are expected by chance alone; of 60 classes, only these are shown"
    assert f"* interval without 0, and at least 6 rows that differ: {last}" in out


def test_comparing_loads_no_torch(two):
    code = (
        f"import sys; sys.argv = ['ens', 'compare', {str(two[0])!r}, {str(two[1])!r}]\nfrom ensemble import cli\n"
        "cli.ens(standalone_mode=False)\nsys.exit('torch' in sys.modules or 'timm' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0 and "the plain mean of x, y" in done.stdout


# ---- another seed --------------------------------------------------------------------------------------------------


def test_the_deviation_over_seeds_by_hand():
    """Of two seeds one is right on 4 rows more of 100: means that differ by 0.04 have a variance of 0.0008, of which
    half the squared error of their difference is the rows'."""
    values = np.zeros((2, 100))
    values[0, :50], values[1, :54] = 1, 1
    error = np.sqrt(0.04 * 0.96 / 100)
    assert seed_deviation(values, np.arange(100)) == pytest.approx(np.sqrt(0.0008 - error**2 / 2))
    values[1] = 0
    values[1, 1:52] = 1  # another row wrong, two others right: what the rows add is more than that
    assert seed_deviation(values, np.arange(100)) == 0


def test_seeds_of_one_backbone_are_told(tmp_path, capsys):
    labels = np.arange(100) % 2
    own = {"net": logits(labels, range(30)), "net-2": logits(labels, range(10)), "other": logits(labels, range(5))}
    run = make_run(tmp_path / "run", labels, own)
    result = compare([run])
    expected = np.sqrt(0.02 - 0.2 * 0.8 / 100 / 2)
    assert [line.split(" and ")[0] for line in result.seeds] == [
        f"another seed: over the 2 of {run / 'net'}, accuracy varies by {100 * expected:.2f} points"
    ]
    show_comparison(result)
    assert "without what the rows add; rough)" in " ".join(capsys.readouterr().out.split())

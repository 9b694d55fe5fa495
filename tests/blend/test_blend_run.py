"""From a run directory to a saved blend, and what is said of input that can't be blended."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from ensemble.blend import BlendOptions, blend_run, gains, list_blends, load_blend, members_table, methods, read_result
from ensemble.blend.crossfit import fit_rows, held_out_probabilities, plain_average
from ensemble.blend.oof import Oof, Rows
from ensemble.blend.probabilities import geometric_mean
from ensemble.blend.recipe import Recipe
from ensemble.data.logits import Logits
from ensemble.errors import RunFailure, UserError
from ensemble.files.atomic import write_text
from ensemble.files.reading import read_json
from ensemble.files.sealed import write_json
from ensemble.run import Run
from ensemble.scoring.bootstrap import bootstrap, scores
from ensemble.scoring.cross_fit import cross_fit
from ensemble.scoring.outcomes import outcome

CLASSES = ("cat", "dog", "NA")
VIEWS = ("identity", "hflip")


def make_run(path, rows=90, k=3, members=("a", "b"), groups=False, seed=0, unvalidated=2):
    """A run directory as `ens train-folds` leaves it; returns z float32 (M, V, N, C) of its validated rows."""
    draw = np.random.default_rng(seed)
    labels = np.arange(rows) % len(CLASSES)
    folds = np.arange(rows) // 2 % k
    ids = [f"bild ü{i:03}.png" for i in range(rows)]
    lines = ["id,label,fold" + (",group" if groups else "")]
    for i in range(rows):
        lines.append(f"{ids[i]},{CLASSES[labels[i]]},{folds[i]}" + (f",p{i // 2}" if groups else ""))
    lines += [f"train only {i},cat,-1" + (",px" if groups else "") for i in range(unvalidated)]
    path.mkdir(parents=True)
    write_text(Run(path).folds_csv, "\n".join(lines) + "\n")
    write_json(Run(path).classes_json, list(CLASSES))
    z = draw.normal(size=(len(members), len(VIEWS), rows, len(CLASSES))).astype(np.float32)
    z += 1.5 * np.eye(len(CLASSES), dtype=np.float32)[labels]
    for m, member in enumerate(members):
        write_json(Run(path).member(member).settings_json, {})
        for fold in range(k):
            where = draw.permutation(np.flatnonzero(folds == fold))  # any order: rows are joined by id
            write_fold(path, member, fold, [ids[i] for i in where], z[m][:, where])
    return z


def write_fold(run, member, fold, ids, values, views=VIEWS, classes=CLASSES):
    folder = Run(run).member(member).fold(fold)
    Logits(np.array(ids), views, classes, values).save(folder.oof_file)
    folder.mark_done([folder.oof_file])


def rewrite(run, member, fold, change):
    """Save one fold's OOF logits again after `change` (a function of ids and values that returns both)."""
    from ensemble.data.logits import load_logits

    old = load_logits(Run(run).member(member).fold(fold).oof_file)
    ids, values = change(list(old.ids), old.values.copy())
    write_fold(run, member, fold, ids, values)


@pytest.fixture
def run(tmp_path):
    make_run(tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize("method", ["mean", "vote", "pool", "greedy", "stack", "trees", "auto"])
@pytest.mark.parametrize("metric", ["log_loss", "balanced_accuracy"])
def test_a_blend_is_scored_saved_loaded_and_applied(tmp_path, method, metric):
    run = tmp_path / "run"
    z = make_run(run)
    result = blend_run(Run(run), BlendOptions(method, metric))
    assert result.name == (method if metric == "log_loss" else f"{method}-{metric}")
    assert (result.rows, result.folds, result.groups) == (90, 3, None)
    assert list(result.members) == ["a", "b"]
    for table in (result.blend, result.mean, *result.members.values()):
        for target in ("log_loss", "accuracy", "macro_f1"):
            assert table[target].low <= table[target].value <= table[target].high
            assert len(table[target].folds) == 3
    assert [(g.metric, g.against) for g in result.gains][:2] == [
        ("accuracy", "mean"),
        ("accuracy", result.best["accuracy"]),
    ]
    assert set(result.weights) == {"a", "b"}
    assert all(isinstance(line, str) for line in result.notes)

    loaded = load_blend(Run(run), result.name)
    assert (loaded.method, loaded.metric, loaded.members, loaded.views) == (method, metric, ("a", "b"), (VIEWS, VIEWS))
    assert loaded.classes == CLASSES
    probs = loaded.apply(z)
    assert probs.shape == (90, 3)
    assert probs.sum(axis=1) == pytest.approx(1)
    assert np.array_equal(probs, result.fitted.apply(list(z)))
    assert (probs.argmax(axis=1) == np.arange(90) % 3).mean() > 0.8
    written = json.loads(result.path.read_text(encoding="utf-8"))
    assert written["scores"]["blend"]["accuracy"]["value"] == result.blend["accuracy"].value
    assert list_blends(Run(run)) == [result.name]


def test_scores_are_those_of_the_rows_by_id(tmp_path):
    z = make_run(tmp_path / "run").mean(axis=1)
    labels = np.arange(90) % 3
    result = blend_run(Run(tmp_path / "run"), BlendOptions("mean"))
    assert result.mean["accuracy"].value == pytest.approx((geometric_mean(z).argmax(axis=1) == labels).mean())
    assert result.members["b"]["accuracy"].value == pytest.approx((z[1].argmax(axis=1) == labels).mean())
    # The method "mean" is the plain mean at its best temperature: the same labels, other probabilities.
    for metric in ("accuracy", "macro_f1", "balanced_accuracy"):
        assert result.blend[metric] == result.mean[metric]
    assert [g.p_better for g in result.gains if g.against == "mean" and g.metric != "log_loss"] == [0.5] * 3
    assert result.calibration["blend before its temperature"] == result.calibration["plain mean"]
    assert result.blend["log_loss"].value < result.mean["log_loss"].value


def test_the_best_single_member_is_the_best_by_each_metric(run):
    for fold in range(3):
        rewrite(
            run, "b", fold, lambda ids, v: (ids, v + 2 * np.random.default_rng(1).normal(size=v.shape).astype("f4"))
        )
    result = blend_run(Run(run), BlendOptions("mean"))
    over = {gain.metric: gain for gain in result.gains if gain.against != "mean"}
    for metric, sign in (("log_loss", -1), ("accuracy", 1), ("macro_f1", 1), ("balanced_accuracy", 1)):
        a, b = (result.members[member][metric].value for member in "ab")
        assert sign * a > sign * b
        assert result.best[metric] == over[metric].against == "a"
        assert over[metric].value == pytest.approx(sign * (result.blend[metric].value - a))


def test_the_cross_fitted_score_does_not_see_its_own_rows(tmp_path):
    """Pure noise with a wild number of weights: an in-sample score would shine, the cross-fitted one is chance."""
    run = tmp_path / "run"
    make_run(run, members=tuple("abcdef"))
    for member in "abcdef":
        for fold in range(3):
            rewrite(run, member, fold, lambda ids, v: (ids, np.random.default_rng(v.size).permuted(v, axis=2)))
    result = blend_run(Run(run), BlendOptions("stack", "accuracy"))
    assert result.blend["accuracy"].value < 0.5
    assert result.blend["log_loss"].value > np.log(3) - 0.05


@pytest.mark.parametrize("calibration", ["temperature", "vector"])
def test_a_fit_that_several_folds_ask_for_is_made_once_and_gives_the_same_bits(calibration):
    labels, draw, every = np.arange(120) % 3, np.random.default_rng(0), np.arange(120)
    folds = every // 3 % 4
    rows = Rows(every.astype(np.str_), labels, folds, every, False, ("a", "b", "c"))
    values = tuple((draw.normal(size=(1, 120, 3)) + np.eye(3)[labels]).astype(np.float32) for _ in range(2))
    oof = Oof(rows, ("one", "two"), (("identity",),) * 2, values, {})
    recipe, plain, made = Recipe("auto", calibration=calibration), plain_average(oof), {}
    found = held_out_probabilities(oof, plain, recipe, made=made)[:, 0]
    chain = fit_rows(oof, plain, recipe, every, made)[1]

    def alone(train, test):
        z, of_rows = plain[:, train], (labels[train], folds[train], every[train])
        return methods.apply(methods.fit(recipe, z, *of_rows), plain[:, test])

    assert np.array_equal(found, cross_fit(alone, folds, every))
    again = methods.fit(recipe, plain, labels, folds, every)
    assert np.array_equal(methods.apply(chain, plain), methods.apply(again, plain))
    assert chain.choice == again.choice
    assert len(made) == len(methods.candidates()) * (4 + 4 * 3 // 2) + 1  # without one fold, without two; all rows


def test_how_fits_differ_is_told_by_rows_of_all_classes(monkeypatch):
    """Of many rows some are drawn: every second one would be of one class here, of which the area has no value."""
    monkeypatch.setattr(gains, "MOST_ROWS", 60)
    labels, draw = np.arange(120) % 2, np.random.default_rng(0)
    ids = np.array([str(row) for row in range(120)])
    rows = Rows(ids, labels, np.arange(120) // 2 % 4, np.arange(120), False, ("a", "b"))
    values = tuple((draw.normal(size=(1, 120, 2)) + np.eye(2)[labels]).astype(np.float32) for _ in range(2))
    oof = Oof(rows, ("one", "two"), (("identity",),) * 2, values, {})
    recipe, plain, fits = Recipe("stack", "roc_auc"), plain_average(oof), []
    held_out_probabilities(oof, plain, recipe, fits=fits)
    found = gains.variance_between(oof, plain, recipe, fits)
    assert found["log_loss"] > 0 and 0 <= found["roc_auc"] < 0.01
    monkeypatch.setattr(gains, "MOST_ROWS", 1)  # one row has no area
    assert gains.variance_between(oof, plain, recipe, fits)["roc_auc"] == 0


def test_groups_are_resampled_whole(tmp_path):
    z = make_run(tmp_path / "run", groups=True).mean(axis=1)
    result = blend_run(Run(tmp_path / "run"), BlendOptions("vote"))
    assert result.groups == 45
    labels = np.arange(90) % 3
    groups = np.unique([f"p{i // 2}" for i in range(90)], return_inverse=True)[1]
    mean = [outcome(labels, geometric_mean(z))]
    found, own = (
        result.mean["log_loss"],
        scores(labels, mean, groups, 3, bootstrap(labels, mean, groups, 3))[0]["log_loss"],
    )
    assert (found.low, found.high) == pytest.approx((own.low, own.high))


def test_one_held_out_part_can_be_blended(tmp_path):
    make_run(tmp_path / "run", k=1)
    result = blend_run(Run(tmp_path / "run"), BlendOptions("vote"))
    assert result.folds == 1
    assert result.blend["log_loss"].value > 0


def test_a_class_absent_from_a_fold(tmp_path):
    run = tmp_path / "run"
    make_run(run)
    text = Run(run).folds_csv.read_text(encoding="utf-8").splitlines()
    moved = [line.replace(",NA,0", ",cat,0") for line in text]
    write_text(Run(run).folds_csv, "\n".join(moved) + "\n")
    for method in ("vote", "greedy", "stack"):
        assert 0 < blend_run(Run(run), BlendOptions(method, "macro_f1")).blend["macro_f1"].folds[0] <= 1


def test_one_member(tmp_path):
    make_run(tmp_path / "run", members=("only",))
    result = blend_run(Run(tmp_path / "run"), BlendOptions("vote"))
    assert result.weights["only"]["weight"] == 1
    assert result.best["accuracy"] == "only"


def test_members_not_finished_are_left_out_and_named(run):
    Run(run).member("b").fold(1).done_json.unlink()
    result = blend_run(Run(run), BlendOptions("mean"))
    assert list(result.members) == ["a"]
    assert result.left_out == {"b": "not finished: fold 1"}
    with pytest.raises(UserError, match="member 'b' is not finished: fold 1; train on with: ens train-folds"):
        blend_run(Run(run), BlendOptions("mean", members=["a", "b"]))
    for fold in range(3):
        Run(run).member("a").fold(fold).done_json.unlink()
    with pytest.raises(UserError, match="no member has all its folds finished; train on with: ens train-folds"):
        blend_run(Run(run), BlendOptions("mean"))


def test_chosen_members_views_and_name(run, tmp_path):
    result = blend_run(Run(run), BlendOptions("vote", name="flips", views=["hflip"], members=["b"]))
    assert result.path == run / "blends" / "flips.json"
    assert load_blend(Run(run), "flips").views == (("hflip",),)
    assert result.left_out == {"a": "not asked for"}
    with pytest.raises(UserError, match="no member 'c'; nearest: "):
        blend_run(Run(run), BlendOptions("vote", members=["c"]))
    with pytest.raises(UserError, match="a has the views identity, hflip, not rot90; choose with --views"):
        blend_run(Run(run), BlendOptions("vote", views=["rot90"]))
    with pytest.raises(UserError, match="name at least one, each once"):
        blend_run(Run(run), BlendOptions("vote", views=["hflip", "hflip"]))
    with pytest.raises(UserError, match=r"blend name '\.\./x'"):
        blend_run(Run(run), BlendOptions("vote", name="../x"))


@pytest.mark.parametrize("part", [{"members": ["a"]}, {"views": ["hflip"]}])
def test_a_blend_of_a_part_does_not_replace_that_of_all(run, part, monkeypatch):
    blend_run(Run(run), BlendOptions("vote"))
    before = Run(run).blend_json("vote").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("ensemble.blend.fit.fit_oof", lambda *_: pytest.fail("fitted what can't be saved"))
        with pytest.raises(UserError) as caught:
            blend_run(Run(run), BlendOptions("vote", **part))
    assert str(caught.value) == (
        f"{run}: there is a blend 'vote' already, of other members or views; give this one its own --name"
    )
    assert Run(run).blend_json("vote").read_bytes() == before
    assert blend_run(Run(run), BlendOptions("vote", name="part", **part)).name == "part"
    assert blend_run(Run(run), BlendOptions("vote", name="vote", **part)).name == "vote"  # as asked for
    assert blend_run(Run(run), BlendOptions("vote", **part)).name == "vote"  # of the same members and views
    assert blend_run(Run(run), BlendOptions("vote")).views == {
        "a": VIEWS,
        "b": VIEWS,
    }  # all of them are what the name stands for
    assert blend_run(Run(run), BlendOptions("vote", members=["b", "a"], views=VIEWS)).name == "vote"


def test_a_part_with_a_member_that_has_no_weight_is_still_that_part(tmp_path):
    run = tmp_path / "run"
    make_run(run, rows=300, members=("a", "noise"))
    for fold in range(3):
        rewrite(run, "noise", fold, lambda ids, v: (ids, np.random.default_rng(1).normal(size=v.shape).astype("f4")))
    assert blend_run(Run(run), BlendOptions("vote", views=["hflip"])).fitted.members == ("a",)
    blend_run(Run(run), BlendOptions("vote", views=["hflip"]))
    with pytest.raises(UserError, match="there is a blend 'vote' already, of other members or views"):
        blend_run(Run(run), BlendOptions("vote", members=["a"], views=["hflip"]))


def test_members_with_different_views(run):
    for fold in range(3):
        old = Run(run).member("b").fold(fold).oof_file
        from ensemble.data.logits import load_logits

        logits = load_logits(old)
        write_fold(run, "b", fold, logits.ids, logits.values[:1], views=("identity",))
    with pytest.raises(UserError, match="b has the views identity, not hflip; choose with --views"):
        blend_run(Run(run), BlendOptions("mean"))
    assert blend_run(Run(run), BlendOptions("mean", views=["identity"])).fitted.views == (("identity",),) * 2


def test_members_with_different_ids(run):
    rewrite(run, "b", 1, lambda ids, v: (ids[1:], v[:, 1:]))
    with pytest.raises(
        UserError, match=r"b, fold 1: the out-of-fold file has no row for id 'bild ü\d+\.png'.*1 missing"
    ):
        blend_run(Run(run), BlendOptions("mean"))


def test_a_row_too_many(run):
    rewrite(run, "a", 2, lambda ids, v: ([*ids, "stranger.png"], np.concatenate([v, v[:, :1]], axis=1)))
    with pytest.raises(UserError, match=r"a, fold 2: the out-of-fold file has a row for id 'stranger\.png'"):
        blend_run(Run(run), BlendOptions("mean"))


@pytest.mark.parametrize("bad", [(0.0, np.nan), (0.0, np.inf), (-np.inf, np.inf)])
def test_logits_that_are_not_finite(run, bad):
    def spoil(ids, values):
        values[:, 4, 0] = bad
        spoil.name = ids[4]
        return ids, values

    rewrite(run, "b", 0, spoil)
    with pytest.raises(UserError, match=f"b, fold 0: NaN or infinite logits for id '{spoil.name}'"):
        blend_run(Run(run), BlendOptions("mean"))


def test_classes_that_differ(run):
    write_json(Run(run).classes_json, ["cat", "dog", "NA", "newt"])
    with pytest.raises(UserError, match=r"its classes are not those of classes\.json"):
        blend_run(Run(run), BlendOptions("mean"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("id,label,fold", "id,label,part", r"folds\.csv: no column 'fold'"),
        (",dog,0", ",wolf,0", r"folds\.csv, line 3: label 'wolf' is not one of the 3 classes in classes\.json"),
        (",dog,0", ",dog,x", r"folds\.csv, line 3: fold 'x' is not a number"),
        ("bild ü001.png", "bild ü000.png", r"folds\.csv: id 'bild ü000\.png' is there twice"),
    ],
)
def test_folds_csv_with_a_fault(run, old, new, message):
    text = Run(run).folds_csv.read_text(encoding="utf-8")
    write_text(Run(run).folds_csv, text.replace(old, new, 1))
    with pytest.raises(UserError, match=message):
        blend_run(Run(run), BlendOptions("mean"))


def test_a_folder_that_is_not_a_run(tmp_path):
    with pytest.raises(UserError, match="not a run directory"):
        blend_run(Run(tmp_path), BlendOptions("mean"))


def test_members_table(run):
    Run(run).member("b").fold(1).done_json.unlink()
    for fold in range(3):
        (run / "c" / f"fold{fold}").mkdir(parents=True)
    write_json(Run(run).member("c").settings_json, {})
    a, b, c = members_table(Run(run))
    assert (a.member, a.done, a.folds, a.rows) == ("a", (0, 1, 2), 3, 90)
    assert (b.member, b.done, b.rows, c.done, c.scores) == ("b", (0, 2), 60, (), {})
    Run(run).member("b").fold(1).mark_done([Run(run).member("b").fold(1).oof_file])
    whole = blend_run(Run(run), BlendOptions("mean")).members["a"]
    for metric in ("log_loss", "accuracy", "macro_f1"):
        assert a.scores[metric].folds == pytest.approx(whole[metric].folds)
        for end in ("value", "low", "high"):
            assert getattr(a.scores[metric], end) == pytest.approx(getattr(whole[metric], end))


# ---- saved blends --------------------------------------------------------------------------------------------------


def test_apply_checks_shapes_and_numbers(run):
    blend = blend_run(Run(run), BlendOptions("stack")).fitted
    z = np.zeros((2, 2, 5, 3), dtype=np.float32)
    assert blend.apply(z).shape == (5, 3)
    assert blend.apply(z[:, :, :0]).shape == (0, 3)
    for wrong in (z[:1], z[:, :1], z[..., :2], [z[0], z[1, :, :4]], z[:, 0]):
        with pytest.raises(ValueError, match=r"want \[\("):
            blend.apply(wrong)
    z[1, 0, 3, 2] = np.nan
    with pytest.raises(RunFailure, match="b: NaN or infinite logits in row 3"):
        blend.apply(z)


def test_a_blend_that_is_not_there(run):
    with pytest.raises(UserError, match="no blend 'stack'; make one with: ens blend"):
        load_blend(Run(run), "stack")
    blend_run(Run(run), BlendOptions("mean"))
    with pytest.raises(UserError, match="no blend 'stack'; there are: mean"):
        load_blend(Run(run), "stack")


def test_half_written_blends(run):
    """A kill between the two files of a second fit leaves a pair that doesn't belong together."""
    blend_run(Run(run), BlendOptions("vote"))
    first = Run(run).blend_json("vote").read_bytes()
    blend_run(Run(run), BlendOptions("vote", name="vote", views=["hflip"]))
    second = json.dumps(read_json(Run(run).blend_json("vote")))
    Run(run).blend_json("vote").write_bytes(first)
    with pytest.raises(UserError, match=r"not the file that vote\.json was written with; fit it again"):
        load_blend(Run(run), "vote")
    Run(run).blend_file("vote").unlink()
    with pytest.raises(UserError, match=r"vote\.safetensors: no such file; fit it again"):
        load_blend(Run(run), "vote")
    for text, message in (
        (second.replace('"format": 2', '"format": 1'), "not a blend of format 2"),
        (second[: len(second) // 2], "not valid JSON"),
    ):
        Run(run).blend_json("vote").write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=message):
            load_blend(Run(run), "vote")


def test_blending_loads_neither_torch_nor_pandas(run):
    code = (
        "import sys, pathlib; from ensemble.blend import BlendOptions, blend_run; from ensemble.run import Run; "
        "[blend_run(Run(sys.argv[1]), BlendOptions(m, 'macro_f1')) for m in ('greedy', 'stack')]; "
        "print('torch' in sys.modules or 'pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(run)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_result_is_read_back_as_it_was(run):
    result = blend_run(Run(run), BlendOptions("vote", "macro_f1", prune=True))
    again = read_result(Run(run), "vote-macro_f1")
    assert replace(again, fitted=None, diversity=None) == replace(result, fitted=None, diversity=None)
    assert again.diversity.costs == result.diversity.costs
    assert np.array_equal(again.fitted.chain.learned.weights, result.fitted.chain.learned.weights)


def test_a_result_of_an_older_ens_is_read(run):
    """What format 2 did not hold from the start: the views, the number of folds, a fourth metric, who is optimistic."""
    result = blend_run(Run(run), BlendOptions("pool"))
    described = read_json(result.path)
    for key in ("folds", "groups", "views", "pruned", "optimistic"):
        del described["scores"][key]
    for table in (described["scores"]["blend"], described["scores"]["mean"], described["scores"]["best"]):
        del table["balanced_accuracy"]
    described["scores"]["diversity"] = {"costs": {}}
    write_json(result.path, described)
    again = read_result(Run(run), "pool")
    assert (again.folds, again.groups, again.views, again.optimistic) == (0, None, {"a": VIEWS, "b": VIEWS}, ())
    assert again.blend == {metric: own for metric, own in result.blend.items() if metric != "balanced_accuracy"}
    described["scores"] = {}
    write_json(result.path, described)
    assert read_result(Run(run), "pool") is None and load_blend(Run(run), "pool").members == ("a", "b")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda scores: scores["blend"].pop("accuracy"), "its scores of blend have no accuracy"),
        (lambda scores: scores["best"].update(log_loss="c"), "its best single members are not among its members"),
        (
            lambda scores: scores["mean"]["log_loss"].update(low=float("nan")),
            "key 'scores.mean.log_loss.low' should be",
        ),
        (lambda scores: scores.update(fitted={"x": 1}, notes=3), "key 'scores.notes' should be"),
        (lambda scores: scores.pop("gains"), "has no key 'scores.gains'"),
    ],
)
def test_a_result_that_is_damaged_names_file_and_key(run, change, message):
    path = blend_run(Run(run), BlendOptions("mean")).path
    described = read_json(path)
    change(described["scores"])
    write_json(path, described)
    with pytest.raises(UserError, match=message) as caught:
        read_result(Run(run), "mean")
    assert str(caught.value).startswith(f"{path}: ") and str(caught.value).endswith(
        f"fit it again with: ens blend {run}"
    )
    assert load_blend(Run(run), "mean").members == ("a", "b")  # prediction does without the scores

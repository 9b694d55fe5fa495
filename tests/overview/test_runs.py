"""The list of runs: what each reached, what differs, and that nothing in a folder breaks it."""

import json
import os
import shutil
from dataclasses import replace
from datetime import datetime
from types import SimpleNamespace

import numpy as np
import pytest
from commands import ens

from ensemble.audit.findings import finding
from ensemble.blend import BlendOptions, blend_run, compare, members_table
from ensemble.blend.oof import read_member, read_rows
from ensemble.blend.probabilities import softmax
from ensemble.data.logits import load_logits
from ensemble.errors import UserError
from ensemble.files.reading import read_json
from ensemble.files.sealed import write_json
from ensemble.overview.runs import differences, find_runs, list_runs, read_run
from ensemble.overview.selection_bias import System, selection_bias
from ensemble.run import Run
from ensemble.scoring.bootstrap import bias_of_best, bootstrap
from ensemble.scoring.outcomes import outcome
from ensemble.tables import layout
from ensemble.tables.audit import show_audit
from ensemble.tables.compare import show_comparison
from ensemble.tables.runs import show_runs


@pytest.fixture(scope="module")
def made(tmp_path_factory, blended_run):
    """A run of two members and two folds, blended as "mean"."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("made")
    for index in range(24):
        path = folder / "train" / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(index).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
    return blended_run(folder)


@pytest.fixture
def copied(made, tmp_path):
    """copied(name, **changes): a copy of the run under that name, with these texts of its config replaced."""

    def copy(name, *changes):
        run = shutil.copytree(made, tmp_path / name)
        config = Run(run).config_toml
        for old, new in changes:
            text = config.read_text()
            assert old in text
            config.write_text(text.replace(old, new).split("# checksum")[0])  # as edited by hand
        return run

    return copy


def printed(capsys, found):
    show_runs(found)
    return capsys.readouterr().out


def test_a_run_says_what_it_reached(made):
    row = read_run(made)
    assert row.members == ("resnet", "vit") and (row.done, row.folds) == (4, 4) and row.notes == ()
    held = read_json(Run(made).blend_json("mean"))["scores"]
    assert row.blend == "mean" and row.blends == 1
    for metric in ("accuracy", "log_loss"):
        for key in ("value", "low", "high"):
            assert getattr(row.blend_scores[metric], key) == held["blend"][metric][key]
    single = min(members_table(Run(made)), key=lambda own: own.scores["log_loss"].value)
    assert row.single == single.member
    assert row.single_scores["log_loss"].value == pytest.approx(single.scores["log_loss"].value)
    done = [read_json(path) for path in made.glob("*/fold*/done.json")]
    assert row.seconds == pytest.approx(sum(own["seconds"] for own in done)) and row.ms is None
    latest = max(path.stat().st_mtime for path in made.glob("*/fold*/done.json"))
    assert row.date == datetime.fromtimestamp(latest).astimezone()
    assert row.settings["train.epochs"] == "1" and row.settings["backbone.vit.image_size"] == "48"
    assert "run" not in row.settings


def test_the_best_blend_is_that_of_the_least_log_loss_on_the_runs_own_classes(copied):
    run = copied("run")
    for name in ("better", "shifted"):
        blend_run(Run(run), BlendOptions("mean", name=name, priors="uniform" if name == "shifted" else None))
    for name, value in (("better", 0.1), ("shifted", 0.01)):  # for other shares of the classes it means nothing here
        path = Run(run).blend_json(name)
        held = read_json(path)
        held["scores"]["blend"]["log_loss"]["value"] = value
        write_json(path, held)
    row = read_run(run)
    assert (row.blend, row.blends, row.blend_scores["log_loss"].value) == ("better", 3, 0.1)


def test_what_an_image_takes_is_known_where_the_views_were_searched(copied):
    run = copied("run")
    sizes = [{"views": ["identity"], "ms": 3.5}, {"views": ["hflip", "identity"], "ms": 7.25}]
    held = {
        "metric": "log_loss",
        "base": "identity",
        "chosen": ["identity"],
        "sizes": [{**own, "scores": {}} for own in sizes],
    }
    write_json(Run(run).view_search_json, held)
    assert read_run(run).ms == 7.25  # whatever their order


def test_runs_are_found_three_folders_down_and_not_in_runs(copied, tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    near, inner, deep = copied("near"), copied("near/inner"), copied("a/b/deep")
    too_deep = copied("a/b/c/too-deep")
    hidden = copied(".hidden")
    found = list(find_runs(tmp_path))
    assert found == [deep, near]
    assert all(run.is_dir() for run in (inner, too_deep, hidden))
    assert list(find_runs(near)) == [near]


def test_only_what_differs_is_told_and_backbones_by_name(copied, tmp_path, capsys):
    one = copied("one", ("\nepochs = 1", "\nepochs = 3"))
    two = copied("two", ('name = "vit"\ntimm = "test_vit"', 'name = "byob"\ntimm = "test_byobnet"'))
    three = copied("three", ("image_size = 32", "image_size = 40"))
    found = list_runs(tmp_path, "name")
    assert [row.run for row in found.rows] == [one, three, two] and found.groups == ((0, 1, 2),)
    common = {"train.epochs": "1", "backbone.resnet.image_size": "32", "backbone.vit": "yes"}
    common |= {"backbone.byob": "-"}
    assert found.differs == {
        one: {**common, "train.epochs": "3"},
        two: {**common, "backbone.vit": "-", "backbone.byob": "yes"},
        three: {**common, "backbone.resnet.image_size": "40"},
    }
    out = printed(capsys, found)
    assert f"{one}: train.epochs=3, backbone.resnet.image_size=32, backbone.vit=yes" in out
    assert "not comparable" not in out
    assert differences(found.rows[:1]) == {one: {}}


@pytest.mark.parametrize(("sort", "order"), [("name", "abc"), ("date", "bca"), ("score", "cab")])
def test_in_order(copied, tmp_path, sort, order):
    for name, day, value in (("a", 1, 0.5), ("b", 3, 0.6), ("c", 2, 0.4)):
        run = copied(name)
        held = read_json(Run(run).blend_json("mean"))
        held["scores"]["blend"]["log_loss"]["value"] = value
        write_json(Run(run).blend_json("mean"), held)
        for path in run.glob("*/fold*/done.json"):
            os.utime(path, (86400 * day, 86400 * day))
    assert "".join(row.run.name for row in list_runs(tmp_path, sort).rows) == order


def test_runs_on_other_data_stand_apart(copied, tmp_path, capsys):
    for name, own in (("a", "x"), ("b", "y"), ("c", "x")):
        path = Run(copied(name)).provenance_json
        held = read_json(path)
        held["facts"]["data fingerprint"] = own * 64
        write_json(path, held)
    found = list_runs(tmp_path, "name")
    assert [row.run.name for row in found.rows] == ["a", "c", "b"] and found.groups == ((0, 1), (2,))
    out = printed(capsys, found)
    assert "2 runs on data 1 of 2, fingerprint xxxxxxxxxxxx" in out and "1 run on data 2 of 2" in out
    assert "scores of different data are not comparable" in out


def test_whatever_is_wrong_is_said_and_the_others_are_listed(copied, tmp_path, capsys):
    unfinished = copied("unfinished")
    Run(unfinished).member("vit").fold(1).done_json.unlink()
    student = copied("student")
    member = Run(student).member("vit")
    member.fold(1).done_json.unlink()
    write_json(member.settings_json, {**member.read_settings(), "learned_from": {"teachers": ["resnet"]}})
    retrained = copied("retrained")
    fold = Run(retrained).member("vit").fold(0)
    held = load_logits(fold.oof_file)
    replace(held, values=held.values[:, ::-1]).save(fold.oof_file)
    fold.mark_done([fold.oof_file])
    config = copied("config", ("\nepochs = 1", "\nepochs = oops"))
    old = copied("old")
    Run(old).provenance_json.write_text("{}")
    blends = copied("blends")
    Run(blends).blend_json("mean").write_text('{"scores": {}}')
    torn = tmp_path / "torn"
    (torn / "m" / "fold0").mkdir(parents=True)
    (torn / "m" / "fold0" / "log.jsonl").write_text("")
    (torn / "config.toml").write_text("")
    notes = {row.run: row.notes for row in list_runs(tmp_path, "name").rows}
    assert notes[unfinished][0] == f"not finished; train on with: ens train-folds {unfinished / 'config.toml'}"
    assert notes[student] == ("not finished; go on with the same ens distill",)
    assert notes[retrained] == (f"blend 'mean' was fitted on another 'vit' than {retrained} holds now",)
    assert "config.toml: not valid TOML" in notes[config][0] and len(notes[config]) == 1
    assert notes[old][0].startswith(f"{Run(old).provenance_json}: has no key 'facts'; lost: ") and len(notes[old]) == 1
    assert notes[blends] == (f"{Run(blends).blend_json('mean')}: not a blend of format 2",)
    assert notes[torn][0].startswith("not a run directory (it has no folds.csv)")
    rows = {row.run: row for row in list_runs(tmp_path).rows}
    assert (rows[unfinished].done, rows[unfinished].folds) == (3, 4) and rows[unfinished].single == "resnet"
    for run in (retrained, blends):
        assert rows[run].blend == "" and rows[run].single_scores is not None
    assert rows[old].blend == "mean" and rows[config].blend == "mean"
    out = printed(capsys, list_runs(tmp_path))
    assert f"{Run(old).provenance_json}: has no key 'facts'" in out and "on unknown data" in out


def test_where_there_is_no_run(tmp_path):
    with pytest.raises(UserError) as error:
        list_runs(tmp_path)
    assert str(error.value) == f"{tmp_path}: holds no run of ens; make one with: ens train-folds FILE"
    with pytest.raises(UserError) as error:
        list_runs(tmp_path / "none")
    assert str(error.value) == f"{tmp_path / 'none'}: no such folder; make one with: ens train-folds FILE"


def test_members_whose_best_epoch_was_chosen_on_these_rows_are_marked(copied, tmp_path, capsys):
    run = copied("run")
    note = "* optimistic: its best epoch was chosen on these rows"
    row = read_run(run)
    assert not row.blend_optimistic and not row.single_optimistic
    assert note not in printed(capsys, list_runs(tmp_path))
    other = next(member for member in row.members if member != row.single)
    path = Run(run).member(other).settings_json
    write_json(path, read_json(path) | {"keep": "best"})
    row = read_run(run)
    assert row.blend_optimistic and not row.single_optimistic  # the blend has both members
    out = printed(capsys, list_runs(tmp_path))
    assert note in out and "of 1 *" in out and "of the blend's 2" in out and "of the blend's 2 *" not in out
    shutil.rmtree(run / "blends")
    path = Run(run).member(row.single).settings_json
    write_json(path, read_json(path) | {"keep": "best"})
    row = read_run(run)
    assert row.single_optimistic and not row.blend_optimistic
    out = printed(capsys, list_runs(tmp_path))
    assert f"best single {row.single}," in out and "of 2 finished *" in out


def test_a_single_is_told_as_the_best_of_those_that_the_blend_has(copied, tmp_path, capsys):
    run = copied("run")
    shutil.rmtree(run / "blends")
    blend_run(Run(run), BlendOptions("mean", members=["vit"]))
    row = read_run(run)
    assert (row.single, row.singles, row.members) == ("vit", 1, ("resnet", "vit"))
    out = printed(capsys, list_runs(tmp_path))
    assert "best single vit," in out and "of the blend's 1" in out


def test_a_run_stands_by_its_member_where_that_is_better_than_its_blend_of_one(copied, tmp_path):
    for name, blend, single in (("alone", 0.6, 0.3), ("fair", 0.5, 0.7), ("many", 0.4, 0.2)):
        run = copied(name)
        if name != "many":
            shutil.rmtree(run / "blends")
            blend_run(Run(run), BlendOptions("mean", members=["vit"]))
        path = Run(run).blend_json("mean")
        held = read_json(path)
        held["scores"]["blend"]["log_loss"]["value"] = blend
        for own in held["scores"]["members"].values():
            own["log_loss"]["value"] = single
        write_json(path, held)
    # of the many, the best member is chosen on these rows: the blend counts
    assert [row.run.name for row in list_runs(tmp_path).rows] == ["alone", "many", "fair"]


def test_links_are_followed_but_no_run_is_told_twice(copied, tmp_path):
    far, near = copied("far/away"), copied("here/near")
    here = tmp_path / "here"
    (here / "linked").symlink_to(far)
    (here / "again").symlink_to(near)  # sorts before the run itself
    (here / "loop").symlink_to(here)
    (here / "self").symlink_to("self")
    assert list(find_runs(here)) == [here / "linked", here / "near"]
    (tmp_path / "all").symlink_to(here)
    assert list(find_runs(tmp_path / "all")) == [tmp_path / "all" / "linked", tmp_path / "all" / "near"]


def test_a_name_with_a_line_break_stays_on_its_line():
    assert layout.escaped("a\nb\x1b[1m\u2028é 한 \udc80[b]") == "a\\nb\\x1b[1m\\u2028é 한 \\udc80[b]"


def test_names_with_line_breaks_tear_no_table(made, capsys):
    compared = replace(compare([made / "resnet", made / "vit"]), classes=("a\nb", "c"))
    show_comparison(compared)
    assert "a\\nb (12)" in capsys.readouterr().out
    (found,) = finding("repeats", "error", ["x\ny.png"], ("odd row", "odd rows"), "look at it")
    show_audit(SimpleNamespace(findings=[found]))
    assert "x\\ny.png" in capsys.readouterr().out


def test_the_best_of_several_looks_better_than_it_is(made):
    """Of the two members as two systems: what `bias_of_best` gives, by their scores in resamples of their rows."""
    run = Run(made)
    members = {row.member: row for row in members_table(run)}
    metrics = ("log_loss", "accuracy")
    systems = [
        System(made, "", name, {metric: row.scores[metric].value for metric in metrics})
        for name, row in members.items()
    ]
    found = selection_bias(systems, metrics)
    assert (found.systems, found.rows) == (2, 24)
    rows = read_rows(run)
    outcomes = [outcome(rows.labels, softmax(read_member(run, name, rows)[0].mean(axis=0))) for name in members]
    drawn = bootstrap(rows.labels, outcomes, rows.clusters, 2)
    values = np.array([system.values["accuracy"] for system in systems])
    assert found.by["accuracy"] == pytest.approx(bias_of_best(values, drawn["accuracy"]))
    assert found.by["accuracy"] > 0 and found.by["log_loss"] > 0
    assert selection_bias(systems[:1], metrics) is None
    gone = [replace(systems[1], member="gone"), systems[0]]
    assert selection_bias(gone, metrics) is None


def test_a_blend_for_other_class_shares_is_no_rival_of_others(copied):
    """Its score is of rows that count otherwise, so that the best of both is none."""
    run = Run(copied("run"))
    values = {"log_loss": 0.5, "accuracy": 0.9}
    blend_run(run, BlendOptions("mean", name="shifted", priors="uniform"))
    blend_run(run, BlendOptions("mean", name="plain"))
    mean, plain, shifted = (System(run.path, name, "", values) for name in ("mean", "plain", "shifted"))
    assert selection_bias([mean, plain], ["accuracy"]).systems == 2
    assert selection_bias([mean, shifted], ["accuracy"]) is None


def test_the_list_says_how_much_better_the_best_looks(copied, tmp_path, capsys):
    for name in ("one", "two"):
        copied(name)
    out = printed(capsys, list_runs(tmp_path))
    assert (
        "the best of 2 runs looks better than it is (selection bias): by 0.0000 nats of log loss and 0.00 points of "
        "accuracy, on average over resamples of their 24 rows in which the best is chosen again"
    ) in " ".join(out.split())
    shutil.rmtree(tmp_path / "two")
    assert "selection bias" not in printed(capsys, list_runs(tmp_path))


def test_a_run_by_itself_lists_all_its_blends(copied, tmp_path, monkeypatch, capfd):
    run = copied("run")
    blend_run(Run(run), BlendOptions("vote", name="one", members=["vit"], metric="macro_f1"))
    blend_run(Run(run), BlendOptions("mean", name="shifted", priors="uniform"))
    held = read_json(Run(run).blend_json("one"))
    held["scores"]["blend"]["log_loss"]["value"] = 0.1234
    write_json(Run(run).blend_json("one"), held)
    status, out, _ = ens(monkeypatch, capfd, "runs", run)
    table, below = out[out.index("3 blends of") :].split("members: ")
    lines = {line[:16].split("  ")[0].strip(): line for line in table.splitlines()}
    assert status == 0 and max(map(len, table.splitlines())) <= 80
    numbers = dict(part.split()[::-1] for part in below.splitlines()[0].split(", "))
    accuracy = held["scores"]["blend"]["accuracy"]
    value, low, high = (f"{100 * accuracy[key]:.2f}" for key in ("value", "low", "high"))
    assert lines["one *"].split() == ["one", "*", "vote", numbers["vit"], value, f"[{low},", f"{high}]", "0.1234"]
    assert sorted(numbers) == ["resnet", "vit"] and "* recommended: the lowest log loss" in below
    for text in ("for macro F1", "for other class shares", "best single"):
        assert text in table
    assert "the best of 2 blends looks better than it is" in below  # the shifted one is no rival
    listed = json.loads(ens(monkeypatch, capfd, "runs", run, "--json")[1])["result"]["blends"]["blends"]
    assert [row["name"] for row in listed] == ["one", "mean", "shifted", "best single"]
    assert [row["is_best"] for row in listed] == [True, False, False, False]
    assert "blends of" not in ens(monkeypatch, capfd, "runs", tmp_path)[1]


def test_a_run_without_a_blend_says_how_to_get_one_and_a_damaged_one_is_listed_still(copied, monkeypatch, capfd):
    run = copied("run")
    shutil.rmtree(run / "blends")
    assert f"no blend is saved yet: ens blend {run}" in ens(monkeypatch, capfd, "runs", run)[1]
    Run(run).folds_csv.write_text("id,fold\n")
    status, out, _ = ens(monkeypatch, capfd, "runs", run)
    assert status == 0 and "folds.csv: " in out and "no blend is saved" not in out

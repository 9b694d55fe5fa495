"""What `ens tta-predict` says beside the class: sets, abstention, and for which blends it can't."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from commands import ens
from recorder import Recorder

import ensemble
from ensemble.blend import BlendOptions, ExternalFiles, blend_run, load_blend
from ensemble.blend.described import read_described
from ensemble.blend.held_out import load_held_out, save_held_out
from ensemble.conformal.calibrate import calibrate, prediction_sets, with_most_probable
from ensemble.conformal.choose import choose
from ensemble.conformal.rows import HeldOut
from ensemble.errors import UserError
from ensemble.events import SILENT
from ensemble.files.reading import read_json
from ensemble.files.sealed import write_json
from ensemble.predictions.certainty import CertaintyRequest
from ensemble.run import Run
from ensemble.tta.certainty import certainty_columns, columns_digest
from ensemble.tta.predict import PredictionRequest, tta_predict
from ensemble.tta.sets import sets_and_abstention


@pytest.fixture(scope="module")
def run(noise_run, paint):
    for index in range(9):
        paint(noise_run.parent / "test" / f"{index}.png", 60, 44)
    return noise_run


def held_out(run, name="mean"):
    return load_held_out(Run(run), name, read_described(Run(run), name)["held_out"], 2)


def test_the_cross_fitted_probabilities_are_kept_with_the_blend(run):
    rows, result = held_out(run), read_json(run / "blends" / "mean.json")["scores"]
    loss = -np.log(rows.probabilities[np.arange(24), rows.labels]).mean()
    assert loss == pytest.approx(result["blend"]["log_loss"]["value"], rel=1e-6)
    folds = pd.read_csv(run / "folds.csv")
    assert rows.folds.tolist() == folds["fold"].tolist() and not rows.grouped
    assert result["selective"]["risks"][0] == pytest.approx(1 - result["blend"]["accuracy"]["value"])


def test_without_the_options_nothing_changes(run, tmp_path):
    asked = CertaintyRequest(sets=0.7, abstain=0.9)
    for name, certainty in (("plain.csv", None), ("asked.csv", asked), ("again.csv", None)):
        tta_predict(PredictionRequest(Run(run), run.parent / "test", tmp_path / name, certainty=certainty), SILENT)
    plain, again = ((tmp_path / name).read_bytes() for name in ("plain.csv", "again.csv"))
    assert plain == again == (tmp_path / "asked.csv").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "again.csv", "asked.certainty.csv", "asked.csv", "plain.csv"
    ]  # fmt: skip


def test_a_table_of_an_earlier_prediction_is_not_taken_for_this_ones(run, tmp_path):
    events = Recorder()
    (tmp_path / "s.certainty.csv").write_text("of yesterday")
    tta_predict(PredictionRequest(Run(run), run.parent / "test", tmp_path / "s.csv"), events)
    line = (
        f"{tmp_path / 's.certainty.csv'} is of an earlier prediction, not of this one: delete it, or ask for it again"
    )
    assert line in events.messages


def test_sets_are_those_of_the_networks_of_each_fold(run, monkeypatch, capfd, tmp_path):
    status, out, _ = ens(
        monkeypatch, capfd, "tta-predict", run, run.parent / "test", "--sets", 0.7, "--abstain", 0.9, "-o",
        tmp_path / "s.csv", "--json",
    )  # fmt: skip
    document = json.loads(out)
    assert status == 0 and document["result"]["certainty"] == str(tmp_path / "s.certainty.csv")
    assert any(line.startswith("sets at 0.7 (score: ") for line in document["said"])
    table = pd.read_csv(tmp_path / "s.certainty.csv", dtype={"set": str})
    assert table.columns.tolist() == ["id", "class", "probability", "set", "abstain"]

    blend, rows = load_blend(Run(run), "mean"), held_out(run)
    calibrated = calibrate(rows, choose(rows, 0.7, None).score, 0.7, None, 2)
    predictor = ensemble.load(run)
    paths = sorted((run.parent / "test").glob("*.png"))
    of_folds = []
    for fold in range(2):
        alone = [
            type(member)(**{**vars(member), "eval_models": member.eval_models[fold : fold + 1]})
            for member in predictor.members
        ]
        one = type(predictor)(**{**vars(predictor), "members": tuple(alone)})
        of_folds.append(ensemble.predict(one, paths).probabilities)
    mean = np.mean(of_folds, axis=0)
    want = with_most_probable(prediction_sets(calibrated, of_folds), mean)
    assert [set(cell.split("|")) for cell in table["set"]] == [
        {blend.classes[number] for number in np.flatnonzero(each)} for each in want
    ]
    assert table["probability"].to_numpy() == pytest.approx(mean.max(axis=1), abs=1e-5)
    assert set(table["abstain"]) <= {0, 1}

    loaded = ensemble.load(run, sets=0.7, abstain=0.9)
    found = ensemble.predict(loaded, paths)
    assert ["|".join(each) for each in found.sets] == table["set"].tolist()
    assert found.abstain.astype(int).tolist() == table["abstain"].tolist()
    assert ensemble.predict(predictor, paths).sets is None


def test_unreadable_images_have_empty_cells_and_pictures_show_their_set(run, monkeypatch, capfd, tmp_path):
    shutil.copytree(run.parent / "test", tmp_path / "some")
    (tmp_path / "some" / "3.png").write_bytes(b"no image")
    output = tmp_path / "s.csv"
    status, _, err = ens(
        monkeypatch, capfd, "tta-predict", run, tmp_path / "some", "--sets", 0.6, "--on-bad", "skip", "-o", output
    )
    assert status == 0, err
    table = pd.read_csv(tmp_path / "s.certainty.csv", dtype=str, keep_default_na=False)
    assert table.loc[table["id"] == "3.png", ["class", "probability", "set"]].to_numpy().tolist() == [["", "", ""]]
    assert (table.loc[table["id"] != "3.png", "set"] != "").all()
    picture = tmp_path / "some" / "0.png"
    status, out, _ = ens(
        monkeypatch, capfd, "tta-predict", run, picture, "--sets", 0.9, "--abstain", 0.9, "-o", tmp_path / "p.csv"
    )
    assert status == 0 and "; set: " in out and "p.certainty.csv" in out
    assert pd.read_csv(tmp_path / "p.certainty.csv")["id"].tolist() == [picture.as_posix()]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--sets", 1.5), "--sets 1.5: must be between 0 and 1, such as 0.9"),
        (("--abstain", 0), "--abstain 0: must be between 0 and 1, such as 0.01"),
        (("--sets", "0.9", "--sets-by", "colour"), "--sets-by colour: must be one of class, group"),
        (("--sets-by", "class"), "--sets-by class goes with --sets, which names the level"),
        (("--sets", "0.9", "--sets-by", "group"), "--sets-by group: no rows of this run share a group; leave it out"),
        (("--sets", "0.9", "--networks", "soup"), "--sets: --networks soup have no out-of-fold rows to calibrate on"),
        (("--abstain", "0.001"), "--abstain 0.001: the out-of-fold rows show so low an error rate for no share"),
    ],
)  # fmt: skip
def test_what_can_not_be_asked_is_one_line(run, monkeypatch, capfd, tmp_path, options, line):
    words = ("tta-predict", run, run.parent / "test", "-o", tmp_path / "s.csv", *options)
    if "soup" in options:
        monkeypatch.setattr("ensemble.tta.prepare.blend_networks", lambda *_: {})
    status, _, err = ens(monkeypatch, capfd, *words)
    assert status == 2 and line in err and not list(tmp_path.iterdir())


def refused(run, name, **asked):
    with pytest.raises(UserError) as error:
        ensemble.load(run, name, **asked)
    return str(error.value)


def test_blends_whose_rows_promise_nothing_are_refused(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    blend_run(Run(copy), BlendOptions("mean", priors="uniform", name="shifted"))
    assert "for other class shares" in refused(copy, "shifted", sets=0.6)
    assert "for other class shares" in refused(copy, "shifted", sets=0.6, sets_by="class", abstain=0.5)
    [shifted] = ensemble.load(copy, "shifted", sets=0.5, sets_by="class").certainty
    assert shifted.names == ("set",) and shifted.notes[0].endswith(" classes on average, at the given class shares")
    assert "takes 13 rows of each class; too few are of a, b" in refused(copy, "shifted", sets=0.6, sets_by="class")

    described = read_json(copy / "blends" / "mean.json")
    write_json(copy / "blends" / "mean.json", {key: value for key, value in described.items() if key != "held_out"})
    assert "fit it again with: ens blend" in refused(copy, "mean", sets=0.9)
    write_json(copy / "blends" / "mean.json", described)
    shutil.copy(copy / "blends/held-out/shifted.safetensors", copy / "blends/held-out/mean.safetensors")
    assert "not the file that the blend 'mean' was saved with" in refused(copy, "mean", sets=0.9)
    (copy / "blends/held-out/mean.safetensors").unlink()
    assert "no such file; fit it again" in refused(copy, "mean", sets=0.9)

    cascade = replace(load_blend(Run(copy), "shifted"), stages=(None,))
    with pytest.raises(UserError, match="'shifted' is a cascade, whose rows leave at different stages"):
        sets_and_abstention(Run(copy), "shifted", cascade, "folds", CertaintyRequest(0.9))

    settings = read_json(copy / "vit" / "settings.json")
    write_json(copy / "vit" / "settings.json", settings | {"keep": "best"})
    assert 'vit kept its best epochs (keep = "best")' in refused(copy, "shifted", sets=0.6, sets_by="class")


def test_an_exported_file_says_that_it_can_not(exported_noise):
    with pytest.raises(UserError, match="an exported file gives the average over the folds' networks"):
        ensemble.load(exported_noise, sets=0.9)


def test_external_members_and_runs_of_the_same_folds(run, tmp_path):
    labels = pd.read_csv(run / "folds.csv")
    draw = np.random.default_rng(0)

    def table(path, ids):
        first = draw.uniform(0.1, 0.9, len(ids))
        pd.DataFrame({"id": ids, "a": first, "b": 1 - first}).to_csv(path, index=False)
        return path

    test_ids = sorted(path.name for path in (run.parent / "test").glob("*.png"))
    given = ExternalFiles("svm", table(tmp_path / "oof.csv", labels["id"]), table(tmp_path / "test.csv", test_ids))
    copy = shutil.copytree(run, tmp_path / "a")
    blend_run(Run(copy), BlendOptions("vote", external=[given], name="with-svm"))
    shutil.copytree(run, tmp_path / "b")
    blend_run(Run(copy), BlendOptions("mean", with_runs=[tmp_path / "b"], name="both"))
    for name in ("with-svm", "both"):
        events = Recorder()
        request = PredictionRequest(
            Run(copy), run.parent / "test", tmp_path / f"{name}.csv", name, certainty=CertaintyRequest(0.7)
        )
        assert len(pd.read_csv(tta_predict(request, events).certainty)) == 9
        warned = any("the test predictions of svm are like its out-of-fold ones" in line for line in events.messages)
        assert warned == (name == "with-svm")
    assert held_out(copy, "both").folds.tolist() == labels["fold"].tolist()


def test_a_blend_with_costs_says_what_its_class_costs_on_average(run, tmp_path):
    classes = Run(run).read_classes()
    head, first, second = ",".join(["true", *classes]), f"{classes[0]},0,1", f"{classes[1]},9,0"
    (tmp_path / "costs.csv").write_text("\n".join([head, first, second]) + "\n")
    blend_run(Run(run), BlendOptions("mean", "expected_cost", name="priced", costs=tmp_path / "costs.csv"))
    certainty = CertaintyRequest(abstain=0.9)
    request = PredictionRequest(Run(run), run.parent / "test", tmp_path / "out.csv", "priced", certainty=certainty)
    made = tta_predict(request, SILENT)
    table = pd.read_csv(tmp_path / "out.certainty.csv", dtype={"class": str})
    assert list(table) == ["id", "class", "probability", "abstain", "expected_cost"]
    costs = made.probabilities @ np.array([[0.0, 1], [9, 0]])
    assert table["class"].tolist() == [classes[number] for number in costs.argmin(axis=1)]
    assert table["expected_cost"].tolist() == pytest.approx(costs.min(axis=1).tolist(), rel=1e-5)


def test_external_members_alone_are_compared_with_the_rows_of_all_folds(run, tmp_path):
    rows = pd.read_csv(run / "folds.csv")
    images = sorted(path.name for path in (run.parent / "test").glob("*.png"))
    true = np.linspace(0.8, 0.99, len(rows))  # so good that greedy gives no other member a weight
    for fold, wrong in ((0, 0.4), (1, 0.2)):
        true[rows.index[rows["fold"] == fold][0]] = wrong
    first = np.where(rows["label"] == "a", true, 1 - true)
    oof, test = tmp_path / "oof.csv", tmp_path / "test.csv"
    pd.DataFrame({"id": rows["id"], "a": first, "b": 1 - first}).to_csv(oof, index=False)
    new = np.linspace(0.06, 0.96, len(images))
    pd.DataFrame({"id": images, "a": new, "b": 1 - new}).to_csv(test, index=False)
    copy = shutil.copytree(run, tmp_path / "run")
    blend_run(Run(copy), BlendOptions("greedy", external=[ExternalFiles("svm", oof, test)], name="alone"))
    blend, kept = load_blend(Run(copy), "alone"), held_out(copy, "alone")
    assert blend.members == ("svm",) and len(np.unique(kept.folds)) == 2

    asked, output = CertaintyRequest(sets=0.95), tmp_path / "s.csv"
    tta_predict(PredictionRequest(Run(copy), run.parent / "test", output, "alone", certainty=asked), SILENT)
    table = pd.read_csv(tmp_path / "s.certainty.csv", dtype={"set": str})
    first = np.where(table["class"] == "a", table["probability"], 1 - table["probability"])
    answer = np.stack([first, 1 - first], axis=1)
    calibrated = calibrate(kept, choose(kept, 0.95, None).score, 0.95, None, 2)
    want = with_most_probable(prediction_sets(calibrated, [answer, answer]), answer)
    assert table["set"].tolist() == ["|".join(np.array(["a", "b"])[each]) for each in want]
    assert (want.sum(axis=1) == 2).sum() not in (0, len(want))


def drawn(counts, seed=0, clusters=None):
    """Out-of-fold rows of two folds: so many of each class, of which the last is the hardest."""
    draw, labels = np.random.default_rng(seed), np.repeat(np.arange(len(counts)), counts)
    z = draw.normal(size=(len(labels), len(counts)))
    z[np.arange(len(labels)), labels] += np.where(labels == len(counts) - 1, 0.5, 2.5)
    probabilities = (np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)).astype(np.float32)
    rows = np.arange(len(labels))
    return HeldOut(probabilities, labels, rows % 2, rows if clusters is None else clusters)


def keep_rows(copy, name, rows):
    """Replace the blend's out-of-fold rows."""
    described = read_json(copy / "blends" / f"{name}.json")
    write_json(copy / "blends" / f"{name}.json", described | {"held_out": save_held_out(Run(copy), name, rows)})


def columns_of(copy, name="mean", **asked):
    run = Run(copy)
    return certainty_columns(run, name, load_blend(run, name), "folds", CertaintyRequest(**asked))


def test_by_class_the_coverage_is_that_of_each_class(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    keep_rows(copy, "mean", drawn([300, 100], clusters=np.arange(400) // 4))
    of_classes = choose(held_out(copy), 0.9, "class").of_classes
    shares = " to ".join(f"{share:.1%} ({name})" for share, name in sorted(zip(of_classes, "ab", strict=True)))
    line = columns_of(copy, sets=0.9, sets_by="class")[0].notes[0]
    assert f"hold the true class in {shares}, and" in line
    assert line.endswith("; rows count one by one, also those that share a group")
    assert "shares" not in columns_of(copy, sets=0.9, sets_by="group")[0].notes[0]
    keep_rows(copy, "mean", drawn([300, 3]))
    assert (
        "1 class has fewer than 50 rows and no promise of their own at 0.9, but one together (b); of 3 rows in all "
        "they are in every set"
    ) in columns_of(copy, sets=0.9, sets_by="class")[0].notes


def test_shards_are_named_by_the_threshold_that_was_found(run, tmp_path, monkeypatch):
    copy = shutil.copytree(run, tmp_path / "run")
    keep_rows(copy, "mean", drawn([500, 500]))
    digests = []
    for certainty in (0.9, 0.9, 0.999):
        monkeypatch.setattr("ensemble.conformal.selective.CERTAINTY", certainty)
        digests.append(columns_digest(columns_of(copy, abstain=0.12)))
    assert digests[0] == digests[1] != digests[2]


def test_a_set_has_the_class_that_costs_decide_for(run, tmp_path):
    (tmp_path / "costs.csv").write_text("class,a,b\na,0,1\nb,50,0\n")
    copy = shutil.copytree(run, tmp_path / "run")
    blend_run(Run(copy), BlendOptions("mean", metric="expected_cost", costs=tmp_path / "costs.csv", name="dear"))
    keep_rows(copy, "dear", drawn([500, 500]))
    # Every image is decided for b, which is less probable than a in some; at 0.1 sets are of one class at most.
    tta_predict(
        PredictionRequest(
            Run(copy), run.parent / "train", tmp_path / "s.csv", "dear", certainty=CertaintyRequest(sets=0.1)
        ),
        SILENT,
    )
    table = pd.read_csv(tmp_path / "s.certainty.csv")
    assert (table["class"] == "b").all() and (table["probability"] < 0.5).any()
    assert all(name in cell.split("|") for name, cell in zip(table["class"], table["set"], strict=True))

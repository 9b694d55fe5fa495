"""A run from Python: trained, blended, predicted, reported and compared by the functions that the commands call."""

import json

import numpy as np
import pytest
from PIL import Image

import ensemble as ens
from ensemble.blend import members_table
from ensemble.run import Run


class Recorder:
    def __init__(self):
        self.messages, self.steps = [], set()

    def message(self, line):
        self.messages.append(line)

    def progress(self, text, done, total):
        self.steps.add(text)

    def epoch_finished(self, member, fold, epoch): ...

    def job_finished(self, member, fold, seconds, error): ...


def test_a_run_that_is_there_shows_its_members(art):
    run = ens.Run("runs/art")
    members, rows = run.members, {row.member: row for row in members_table(Run(run.path))}
    assert members.index.tolist() == ["resnet", "vit"] and members["folds_done"].tolist() == [2, 2]
    for name, row in members.iterrows():
        score = rows[name].scores["accuracy"]
        assert row["accuracy"] == score.value and row["accuracy_std"] == pytest.approx(score.std)
        assert (row["accuracy_low"], row["accuracy_high"]) == (score.low, score.high)
    (art / "runs/art/vit/fold1/done.json").unlink()
    (art / "runs/art/resnet/fold0/done.json").unlink()
    (art / "runs/art/resnet/fold1/done.json").unlink()
    members = run.members
    assert members["folds_done"].tolist() == [0, 1] and members["rows"].tolist() == [0, 12]
    assert members["accuracy"].isna().tolist() == [True, False]
    (art / "runs/art/vit/fold0/done.json").unlink()
    assert run.members["accuracy"].isna().all()


def test_training_goes_on_and_a_blend_predicts_files_and_images(art, capfd):
    (art / "runs/art/vit/fold1/done.json").unlink()
    run = ens.train_folds("art.toml", changes=["train.epochs=1"])
    assert "4 jobs, 3 of them done" in capfd.readouterr().out  # without events, messages are printed
    heard = Recorder()
    blend = run.blend("vote", metric="macro_f1", name="mine", events=heard)
    assert blend.name == "mine" and (art / "runs/art/blends/mine.json").is_file()
    assert capfd.readouterr().out == "" and "fitting the blend" in heard.steps
    assert blend.scores.index.tolist() == ["blend", "plain mean", "resnet", "vit"]
    assert set(blend.gains["metric"]) >= {"macro_f1", "accuracy", "log_loss"}
    file = "data/art/train/a/0.png"
    made = blend.predict([file, Image.open(file), np.array(Image.open(file))])
    assert made.probabilities.shape == (3, 2) and np.ptp(made.probabilities, axis=0).max() == 0
    assert np.array_equal(run.predict(file, "mine").probabilities, made.probabilities[:1])
    assert np.array_equal(ens.predict(ens.load(run, "mine"), file).probabilities, made.probabilities[:1])
    assert "P(better)" in blend._repr_html_() and repr(blend).startswith("<RunBlend 'mine' of 2 members")


def test_an_experiment_may_be_a_config(art):
    config = ens.Config(
        run="runs/new",
        data={"train": "data/art/train", "image_size": 32},
        folds={"k": 2},
        train={"epochs": 1, "batch_size": 8},
        backbone=[{"name": "resnet", "timm": "test_resnet", "pretrained": False}],
    )
    run = ens.train_folds(config, events=ens.Silent())
    assert run == ens.Run("runs/new") and run.members["folds_done"].tolist() == [2]


def test_the_rules_for_an_experiment_hold_for_a_config_too(art):
    backbone = {"name": "resnet", "timm": "test_resnet", "pretrained": False, "train": {"strategy": "probe"}}
    config = ens.Config(run="runs/new", data={"train": "data/art/train"}, backbone=[backbone])
    with pytest.raises(ens.UserError, match=r"^backbone 'resnet': strategy 'probe' needs weights to start from"):
        ens.train_folds(config, events=ens.Silent())
    wrong = config.model_copy(update={"backbone": (config.backbone[0].model_copy(update={"train": {"epochz": 1}}),)})
    with pytest.raises(ens.UserError, match=r"^unknown key backbone.0.train.epochz; did you mean 'epochs'\?"):
        ens.train_folds(wrong, events=ens.Silent())


def test_jobs_that_fail_are_an_error(art):
    changes = ["backbone.resnet.train={ lr = 1e30 }", "backbone.vit.train={ lr = 1e30 }", "run=runs/new"]
    with pytest.raises(ens.RunFailure, match=r"^4 jobs failed: resnet fold 0"):
        ens.train_folds("art.toml", changes=changes, events=ens.Silent())
    assert ens.Run("runs/new").members["folds_done"].tolist() == [0, 0]


def test_data_are_checked_and_an_experiment_is_written(art, capfd):
    (art / "data/art/train/a/cut.png").write_bytes(b"\x89PNG")
    found = ens.check_data("data/art/train", output="found.json")
    assert found.worst == "error" and "error" in found._repr_html_() and "findings, worst: error" in repr(found)
    assert json.loads((art / "found.json").read_text())["worst"] == "error"
    assert "found.json: all rows concerned" in capfd.readouterr().out
    (art / "data/art/train/a/cut.png").unlink()
    config = ens.init_config("data/art/train", "mine.toml")
    assert config.folds.k == 5 and "wrote mine.toml" in capfd.readouterr().out
    with pytest.raises(ens.UserError, match=r"^mine.toml: exists already"):
        ens.init_config("data/art/train", "mine.toml")


def test_runs_are_compared_and_reported(art):
    run = ens.Run("runs/art")
    compared = ens.compare_runs(run, run.member("vit").path, events=ens.Silent())
    assert compared.scores.loc["members of runs/art"].index.tolist() == ["resnet", "vit"]
    gains = compared.gains.loc["members of runs/art"].loc["vit"]
    assert gains["metric"].tolist() == ["accuracy", "log_loss"]
    block = compared.comparison.blocks[0]
    assert gains["value"].tolist() == [block.accuracy[1].value, block.log_loss[1].value]
    assert compared.verdict[0] in repr(compared) and "log loss at its best temperature" in compared._repr_html_()
    page = ens.write_report("runs/art", "page.html", events=ens.Silent())
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_a_blend_whose_file_was_replaced_predicts_no_more(art):
    run = ens.Run("runs/art")
    first = run.blend("mean", events=ens.Silent())
    assert first.predict("data/art/train/a/0.png").labels
    run.blend("mean", events=ens.Silent())  # the same again
    assert first.predict("data/art/train/a/0.png").labels
    run.blend("mean", priors="uniform", metric="log_loss", name="mean", events=ens.Silent())
    with pytest.raises(ens.UserError, match=r"mean.json: is no longer this blend; fit it again, with another name="):
        first.predict("data/art/train/a/0.png")


def test_one_name_is_no_list_of_names(art):
    for what, call in (
        ("views", lambda: ens.Run("runs/art").blend("mean", views="identity")),
        ("members", lambda: ens.Run("runs/art").blend("mean", members="vit")),
        ("changes", lambda: ens.train_folds("art.toml", changes="train.epochs=1")),
    ):
        with pytest.raises(ens.UserError, match=rf"^{what}: want a list, as in \["):
            call()
    with pytest.raises(TypeError, match=r"^Run\.blend\(\) got an unexpected keyword argument 'nmae'$"):
        ens.Run("runs/art").blend("mean", nmae="mine")
    with pytest.raises(ens.UserError, match="compare_runs: name two runs, or one with several members"):
        ens.compare_runs()
    with pytest.raises(ens.UserError, match=r"predictions: NoneType; give an array \(N, M, C\)"):
        ens.fit_blend(None, [0, 1])
    with pytest.raises(ens.UserError, match=r"batch: ndarray; want a tensor"):
        ens.apply_views(np.zeros((1, 3, 2, 2)), "d4")

"""`ens distill`: a student of a run, what it may learn from, and what is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import ens
from recorder import Recorder

from ensemble.backbones.weights import read_tensors, write_state
from ensemble.blend.compare import compare
from ensemble.blend.oof import read_oof
from ensemble.config import Train, load_run_config
from ensemble.distill.distill import distill, only_the_teacher_tells
from ensemble.distill.student import DistillOptions, student_experiment
from ensemble.errors import UserError
from ensemble.events import SILENT
from ensemble.files.sealed import write_json
from ensemble.run import Run
from ensemble.train.jobs import train_folds
from ensemble.train.losses import fold_loss
from ensemble.train.rows import Rows
from ensemble.train.unlabelled import Unlabelled, with_unlabelled

OPTIONS = DistillOptions("test_resnet", name="small", changes=("train.epochs=2",))
SPEEDS = {"resnet": {"float32": 1000.0}, "vit": {"float32": 500.0}}


def copied(noise_run, folder):
    """A copy of the run, whose student is to take its teachers in float32, however fast this machine is now."""
    run = Run(shutil.copytree(noise_run.parent, folder / "noise") / "run")
    write_json(run.member("small").teachers_json, SPEEDS)
    return run


def bits(run, fold):
    """The bytes of a student's fold: its weights and its out-of-fold logits."""
    job = run.member("small").fold(fold)
    return job.model_file.read_bytes(), job.oof_file.read_bytes()


def retrain(run, member, fold):
    """Other weights for a finished fold, as if it had learned from its own held-out rows."""
    job = run.member(member).fold(fold)
    tensors, metadata = read_tensors(job.model_file)
    changed = {name: value + torch.ones_like(value) for name, value in tensors.items()}
    write_state(job.model_file, changed, {key: metadata[key] for key in ("member", "fold")})
    job.finish(0.0)


@pytest.fixture(scope="module")
def taught(noise_run, tmp_path_factory):
    """A run with a finished student, and what was found of it. Not to be changed."""
    run = copied(noise_run, tmp_path_factory.mktemp("taught"))
    return run, distill(run, OPTIONS, SILENT)


@pytest.fixture
def run(noise_run, tmp_path):
    return copied(noise_run, tmp_path)


def test_student_is_a_member_like_others(taught):
    run, found = taught
    settings = run.member("small").read_settings()
    assert (settings["timm"], settings["epochs"], settings["image_size"]) == ("test_resnet", 2, 32)
    learned_from = settings["learned_from"]
    assert learned_from["teachers"] == ["resnet", "vit"] and len(learned_from["teachers' networks"]) == 2
    assert (learned_from["teacher weight"], learned_from["temperature"]) == (0.9, 1.0)
    assert run.members["folds_done"].to_dict() == {"resnet": 2, "small": 2, "vit": 2}
    assert (found.student, found.teachers, found.views) == ("small", ("resnet", "vit"), 2)
    assert found.teachers_ms == pytest.approx(2 * (1 + 2)) and found.student_ms > 0
    (block,) = found.comparison.blocks
    assert [item.name for item in block.items] == ["mean of resnet, vit", "small"]
    assert block.scores[1]["accuracy"].value == pytest.approx(run.members.loc["small", "accuracy"])
    assert [backbone.name for backbone in load_run_config(run.config_toml).backbone] == ["resnet", "vit"]


def test_fold_learns_only_from_the_networks_of_that_fold(taught, run):
    for member in ("resnet", "vit"):
        retrain(run, member, 1)
    distill(run, OPTIONS, SILENT)
    assert bits(run, 0) == bits(taught[0], 0)
    assert bits(run, 1) != bits(taught[0], 1)


@pytest.mark.parametrize("member", ["resnet", "vit"])
def test_each_teacher_is_heard(taught, run, member):
    retrain(run, member, 0)
    distill(run, OPTIONS, SILENT)
    assert bits(run, 0) != bits(taught[0], 0)


def test_without_weight_the_teachers_change_nothing(run, tmp_path):
    """What else than the teacher differs from plain training would show here: chances that it draws, say."""
    distill(run, replace(OPTIONS, teacher_weight=0.0), SILENT)
    other = Run(tmp_path / "plain")
    assert train_folds(student_experiment(run, OPTIONS).model_copy(update={"run": other.path}), SILENT) == []
    assert bits(other, 0) == bits(run, 0)


class Killed(Exception):
    pass


def test_killed_and_started_again_it_gives_the_same_bits(taught, run):
    def stop(text, done, total):
        if text.startswith("small fold 0 epoch 2"):
            raise Killed

    with pytest.raises(Killed):
        distill(run, OPTIONS, Recorder(on_progress=stop))
    assert len(run.member("small").fold(0).read_log()) == 1
    distill(run, OPTIONS, SILENT)
    assert bits(run, 0) == bits(taught[0], 0) and bits(run, 1) == bits(taught[0], 1)


def test_images_without_a_label_teach_too(taught, run, paint, tmp_path):
    for index in range(3):
        paint(tmp_path / "more" / f"new-{index}.png", 40, 40)
    distill(run, replace(OPTIONS, unlabelled=tmp_path / "more"), SILENT)
    assert bits(run, 0) != bits(taught[0], 0) and bits(run, 1) != bits(taught[0], 1)
    assert run.members.loc["small", "rows"] == 24
    with pytest.raises(UserError, match=r"small: learned with unlabelled images = .*, and is now asked to with null"):
        distill(run, OPTIONS, SILENT)


def test_only_the_teacher_tells_of_images_without_a_label_and_none_that_a_fold_may_not_see():
    """The second image is a copy of a row that fold 0 holds out."""
    rows = Rows(
        np.array(["a", "b", "c"]), (Path("a"),) * 3, np.array([0, 1, 1]), np.array([0, 1, 1], np.int8), ("x", "y"),
        np.array([1.0, 3.0, 1.0]), ("d",) * 3,
    )  # fmt: skip
    unlabelled = Unlabelled(np.array(["u", "v"]), (Path("u"),) * 2, ("e", "f"), np.array([[True, False], [True, True]]))
    both = with_unlabelled(rows, unlabelled, only_the_teacher_tells(unlabelled, 2))
    assert both.train_rows(0).tolist() == [1, 2, 3] and both.train_rows(1).tolist() == [0, 3, 4]
    loss = fold_loss(both, 0, Train(label_smoothing=0.1), torch.device("cpu"))
    assert loss.row_weights.tolist() == [0.0, 1.5, 0.5, 1.0, 0.0]
    targets = torch.from_numpy(both.targets(0, np.array([1, 3])))
    assert loss.row_losses(torch.tensor([[3.0, 0.0], [3.0, 0.0]]), targets)[1] == 0


@pytest.mark.parametrize("change", ["train.sampler=balanced", "train.augment_rare=true"])
def test_what_goes_by_class_is_refused_of_images_without_one(run, tmp_path, change):
    with pytest.raises(UserError, match="which --unlabelled images have none of"):
        distill(run, replace(OPTIONS, unlabelled=tmp_path, changes=(change,)), SILENT)


def test_finished_student_is_left_as_it_is_and_teaches_no_other_unless_named(run):
    distill(run, OPTIONS, SILENT)
    before = bits(run, 0)
    other = distill(run, replace(OPTIONS, name="other"), SILENT)
    assert other.teachers == ("resnet", "vit")
    events = Recorder()
    again = distill(run, OPTIONS, events)  # although there is one member more
    assert again.teachers == ("resnet", "vit") and events.epochs == [] and bits(run, 0) == before
    assert distill(run, replace(OPTIONS, name="third", teachers=["other"]), SILENT).teachers == ("other",)


def test_unfinished_members_are_no_teachers_and_that_is_told(run):
    run.member("vit").fold(1).done_json.unlink()
    events = Recorder()
    run.member("small").teachers_json.unlink()
    assert distill(run, OPTIONS, events).teachers == ("resnet",)
    assert "no teachers, since they are not finished: vit" in events.messages


def test_teachers_that_were_named_after_a_stop_before_the_first_fold_are_timed(run):
    """The speeds of those that were named before are there already."""
    write_json(run.member("small").teachers_json, {"vit": SPEEDS["vit"]})
    assert distill(run, replace(OPTIONS, teachers=["resnet"]), SILENT).teachers == ("resnet",)
    assert list(json.loads(run.member("small").teachers_json.read_text())).count("resnet") == 1


def test_damaged_teacher_ends_its_fold_alone(run):
    file = run.member("vit").fold(1).model_file
    file.write_bytes(file.read_bytes()[:-8] + b"damaged!")
    with pytest.raises(UserError, match=r"vit/fold1/model\.safetensors"):
        distill(run, OPTIONS, SILENT)
    assert run.member("small").fold(0).is_done()


def test_command_says_what_the_student_reaches_at_which_cost(taught, monkeypatch, capfd):
    run, _ = taught
    words = ["distill", run, "--into", "test_resnet", "--name", "small", "--set", "train.epochs=2"]
    status, out, err = ens(monkeypatch, capfd, *words)
    assert status == 0 and err == ""
    assert "gain over mean of resnet, vit" in out and "its 2 teachers: 6.0 ms, " in out
    status, out, _ = ens(monkeypatch, capfd, *words, "--json")
    result = json.loads(out)["result"]
    assert (result["student"], result["teachers"], result["teachers_ms"]) == ("small", ["resnet", "vit"], 6.0)
    assert len(result["comparison"]["blocks"][0]["scores"]) == 2 and result["verdict"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"teachers": ["resnet", "vot"]}, "no member 'vot'; nearest: vit"),
        ({"teachers": ["small"]}, "'small' can't be its own teacher; name others with --teachers"),
        ({"name": "vit"}, "has a member 'vit' that is no student; give the student another name with --name"),
        ({"into": "test_resnat"}, "unknown timm model 'test_resnat'; nearest: test_resnet"),
        ({"changes": ("train.epoch=3",)}, "unknown key .*train.epoch"),
        ({"changes": ('train.strategy="probe"', "pretrained=true")}, "a probe is fitted to the labels at once"),
        ({"name": "no/name"}, "no/name"),
    ],
)
def test_refused_before_anything_is_trained(run, changes, says):
    before = run.config_toml.read_bytes()
    with pytest.raises(UserError, match=says):
        distill(run, replace(OPTIONS, **changes), SILENT)
    assert run.config_toml.read_bytes() == before and not run.member("small").is_begun()


def test_unfinished_teacher_that_is_named_is_refused(run):
    run.member("vit").fold(1).done_json.unlink()
    with pytest.raises(UserError, match="member 'vit' is not finished: fold 1; train on with: ens train-folds"):
        distill(run, replace(OPTIONS, teachers=["vit"]), SILENT)


def test_teacher_that_chose_its_epochs_on_held_out_rows_is_refused(run):
    settings = run.member("vit").settings_json
    write_json(settings, {**json.loads(settings.read_text()), "keep": "best"})
    with pytest.raises(UserError, match="vit kept the epochs that are best on its held-out rows"):
        distill(run, OPTIONS, SILENT)


def test_teachers_of_balanced_classes_and_a_student_that_is_not_are_refused(run):
    settings = run.member("vit").settings_json
    write_json(settings, {**json.loads(settings.read_text()), "loss": "logit_adjusted"})
    with pytest.raises(UserError, match="vit was trained with loss = 'logit_adjusted', the student would be with 'cro"):
        distill(run, OPTIONS, SILENT)
    alone = replace(OPTIONS, teachers=["resnet"], changes=("train.loss=logit_adjusted",))
    with pytest.raises(UserError, match="resnet was trained with loss = 'cross_entropy', the student would be with 'l"):
        distill(run, alone, SILENT)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"temperature": 3.0}, r"small: learned with temperature = 1.0, and is now asked to with 3.0"),
        ({"teacher_weight": 0.5}, r"small: learned with teacher weight = 0.9, and is now asked to with 0.5"),
        ({"teachers": ["vit"]}, r"small: learned with teachers = .*, and is now asked to with "),
        ({"changes": ("train.epochs=3",)}, r"holds it with epochs = 2, the config says 3"),
    ],
)
def test_a_student_is_held_to_what_it_began_with(taught, tmp_path, changes, says):
    run = Run(shutil.copytree(taught[0].path.parent, tmp_path / "copy") / "run")
    with pytest.raises(UserError, match=says):
        distill(run, replace(OPTIONS, **changes), SILENT)


def test_a_student_is_not_finished_from_teachers_that_have_changed(taught, tmp_path):
    run = Run(shutil.copytree(taught[0].path.parent, tmp_path / "copy") / "run")
    retrain(run, "vit", 1)
    with pytest.raises(UserError, match="small: learned with teachers' networks = "):
        distill(run, OPTIONS, SILENT)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, "go on with the same ens distill"),
        ({"learned_from": {"round": 1}}, "go on with the same ens pseudo"),
        ({"soup": ["resnet", "vit"]}, "make it again with: ens soup .*run --members resnet,vit --name small"),
    ],
)
def test_one_that_is_not_finished_goes_on_as_it_began(taught, tmp_path, changes, says):
    run = Run(shutil.copytree(taught[0].path.parent, tmp_path / "copy") / "run")
    member = run.member("small")
    write_json(member.settings_json, {**member.read_settings(), **changes})
    member.fold(1).done_json.unlink()
    with pytest.raises(UserError, match=f"member 'small' is not finished: fold 1; {says}$"):
        read_oof(run, members=["small"])
    with pytest.raises(UserError, match=f"member 'small' is not finished: fold 1; {says}$"):
        compare([member.path, run.member("vit").path])


def test_train_folds_refuses_the_students_name_without_its_teachers(taught, tmp_path):
    run = Run(shutil.copytree(taught[0].path.parent, tmp_path / "copy") / "run")
    with pytest.raises(UserError, match=r"holds it with learned_from = .*, the config says null"):
        train_folds(student_experiment(run, OPTIONS), SILENT)

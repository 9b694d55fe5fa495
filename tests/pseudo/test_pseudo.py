"""`ens pseudo`: what it gains and refuses, and that no label of a fold reaches that fold's student."""

import json
import shutil

import numpy as np
import pytest
from commands import ens
from PIL import Image
from recorder import Recorder

from ensemble.blend import BlendOptions, blend_run
from ensemble.blend.compare import compare
from ensemble.blend.oof import read_oof
from ensemble.config import load_config
from ensemble.data.logits import load_logits
from ensemble.errors import UserError
from ensemble.events import SILENT
from ensemble.files.sealed import write_json
from ensemble.pseudo.command import PseudoOptions, self_train
from ensemble.pseudo.gain import gains
from ensemble.run import Run
from ensemble.train.jobs import train_folds
from ensemble.tta.predict import PredictionRequest, tta_predict

LEARNS = {"lr": 0.01, "epochs": 8}  # where the teachers have hardly begun


def student(folder, run, events=SILENT, **options):
    return self_train(Run(run), folder / "unlabelled", PseudoOptions(**{"rounds": 1, **options}), events)


def tree(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_student_that_gains_is_a_member_like_all_others(colours, tmp_path):
    folder, run = colours
    events = Recorder()
    first, second = student(folder, run, events, rounds=2, changes=LEARNS)
    assert first.kept and first.gains["log_loss"].low > 0
    assert (first.teachers, first.students, first.team) == (("resnet",), ("resnet-pseudo1",), ("resnet-pseudo1",))
    assert second.teachers == ("resnet-pseudo1",)
    settings = json.loads((run / "resnet-pseudo1" / "settings.json").read_text())
    assert settings["learned_from"]["teachers"] == ["resnet"] and settings["learned_from"]["round"] == 1
    assert settings["lr"] == 0.01
    assert "resnet-pseudo1" in read_oof(Run(run)).members
    blend_run(Run(run), BlendOptions("mean", members=("resnet", "resnet-pseudo1"), name="both"))
    made = tta_predict(PredictionRequest(Run(run), folder / "unlabelled", tmp_path / "s.csv", "both"), SILENT)
    assert np.isfinite(made.probabilities).all()
    member = Run(run).member("resnet-pseudo1")
    member.set_aside("as if the command had been killed before the round was decided")
    before = tree(member.path)
    del before[member.aside_json]
    assert [each.gains for each in student(folder, run, rounds=2, changes=LEARNS)] == [first.gains, second.gains]
    assert tree(member.path) == before


def test_a_student_that_is_not_finished_is_set_aside_and_goes_on(colours):
    folder, run = colours

    def stop(text, done, total):
        if text.startswith("resnet-pseudo1 fold 1"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        student(folder, run, Recorder(on_progress=stop), changes=LEARNS)
    member = Run(run).member("resnet-pseudo1")
    assert member.fold(0).is_done() and not member.fold(1).is_done()
    assert member.why_aside() == "its round of self-training is not finished; go on with the same ens pseudo"
    assert read_oof(Run(run)).members == ("resnet",)
    shutil.copytree(run / "resnet", run / "later")  # a member that has been added to the run since
    events = Recorder()
    (made,) = student(folder, run, events, changes=LEARNS)
    assert made.kept and made.teachers == ("resnet",) and member.why_aside() is None
    assert any(
        line.startswith("no teachers, since the first round began without them: later") for line in events.messages
    )


def test_shuffled_labels_gain_nothing_and_the_student_is_set_aside(colour_run):
    def shuffle(table):
        table["label"] = np.random.default_rng(0).permutation(table["label"])

    folder = colour_run(shuffle)
    run, events = Run(folder / "run"), Recorder()
    (made,) = student(folder, run.path, events, rounds=3, changes=LEARNS)
    assert not made.kept and made.gains["log_loss"].low <= 0
    assert "resnet-pseudo1 set aside: used only where they are named with --members" in events.messages[-1]
    oof = read_oof(run)
    assert oof.members == ("resnet",)
    assert oof.left_out == {"resnet-pseudo1": "round 1 of self-training gained nothing that is sure"}
    assert read_oof(run, members=("resnet-pseudo1",)).members == ("resnet-pseudo1",)
    assert [item.name for item in compare([run.path]).blocks[0].items] == ["resnet", "resnet-pseudo1"]


def test_teachers_of_balanced_classes_are_heard_with_the_prior_of_their_training_rows(colour_run, monkeypatch):
    """Of fold 0's training rows, those of fold 1, a quarter is red; of fold 1's a half."""

    def rarer(table):
        table.loc[[row for row in range(24) if row % 8 == 2], "label"] = "blue"

    folder, heard = colour_run(rarer), []

    def hear(logits, *others):
        heard.append(logits)
        raise KeyboardInterrupt

    monkeypatch.setattr("ensemble.pseudo.command.soft_targets", hear)
    for loss in ("cross_entropy", "logit_adjusted"):
        member = Run(folder / "run").member("resnet")
        write_json(member.settings_json, {**member.read_settings(), "loss": loss})
        for fold in member.folds():
            fold.finish(1.0)
        with pytest.raises(KeyboardInterrupt):
            student(folder, folder / "run")
    prior = np.log([[9 / 12, 3 / 12], [6 / 12, 6 / 12]])  # blue, red
    assert np.allclose(heard[1] - heard[0], prior[:, None], atol=1e-5)


def test_no_label_of_a_fold_reaches_its_student(colour_run):
    """The labels of fold 0's rows are turned round: the teacher and the student of fold 0 stay the same to the bit, and
    those of fold 1, which learn from these labels, do not."""

    def turn(table):
        of_fold = table["fold"] == 0
        table.loc[of_fold, "label"] = table.loc[of_fold, "label"].map({"red": "blue", "blue": "red"})

    runs = [Run(make / "run") for make in (colour_run(), colour_run(turn))]
    for run in runs:
        student(run.path.parent, run.path)
    for name in ("resnet", "resnet-pseudo1"):
        one, other = (run.member(name).fold(0) for run in runs)
        assert one.model_file.read_bytes() == other.model_file.read_bytes()
        assert load_logits(one.oof_file).values.tobytes() == load_logits(other.oof_file).values.tobytes()
        one, other = (run.member(name).fold(1) for run in runs)
        assert one.model_file.read_bytes() != other.model_file.read_bytes()


def test_a_team_gains_nothing_over_itself(colours):
    found = gains(Run(colours[1]), ("resnet",), ("resnet",), "macro_f1")
    assert list(found) == ["macro_f1", "accuracy", "log_loss"]
    assert all((gain.value, gain.low, gain.high) == (0, 0, 0) for gain in found.values())


def test_a_student_is_held_to_what_it_learned_from(colours, tmp_path):
    folder, run = colours
    student(folder, run)
    with pytest.raises(UserError, match=r"resnet-pseudo1: learned with power = 2.0, and is now asked to with 1.0"):
        student(folder, run, power=1.0)
    shutil.copytree(folder / "unlabelled", tmp_path / "unlabelled")
    (tmp_path / "unlabelled" / "u00.png").unlink()
    with pytest.raises(UserError, match="learned with unlabelled images = "):
        student(tmp_path, run)
    with pytest.raises(UserError, match=r"holds it with lr = 0.0001, the config says 0.01"):
        student(folder, run, changes={"lr": 0.01})


def test_training_goes_on_beside_students(colours):
    folder, run = colours
    student(folder, run)
    before = tree(run / "resnet-pseudo1")
    config = load_config(folder / "e.toml", (f'run="{run}"',))
    assert train_folds(config, SILENT) == []
    assert tree(run / "resnet-pseudo1") == before
    named = config.backbone[0].model_copy(update={"name": "resnet-pseudo1"})
    with pytest.raises(UserError, match=r"resnet-pseudo1'.* holds it with learned_from = "):
        train_folds(config.model_copy(update={"backbone": (named,)}), SILENT)


def test_copies_of_labelled_rows_are_left_out_or_kept_from_their_fold(colours, tmp_path, monkeypatch):
    folder, run = colours
    images = shutil.copytree(folder / "unlabelled", tmp_path / "unlabelled")
    shutil.copy(folder / "train" / "00.png", images / "same.png")
    Image.open(folder / "train" / "01.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(images / "mirrored.png")
    events = Recorder()
    student(tmp_path, run, events)
    assert "1 image is a byte-for-byte copy of a labelled row or of another one, and left out" in events.messages
    assert (
        "1 image is like a labelled row, or a copy of one: no fold learns from it that holds the row out"
        in events.messages
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--students", "vit"), "no member 'vit' to have a student; there are: resnet"),
        (("--set", "train.mixupp=1"), "mixupp"),
        (("--set", "train.keep=best"), "resnet-pseudo1: its epochs would be chosen on the rows that score it"),
        (("--set", "train.strategy=probe"), "needs weights to start from"),
        (("--set", "epochs"), "--set epochs: must be KEY=VALUE"),
        (
            ("--set", "epochs=6"),
            "--set epochs=6: students differ from their members in [train] only: --set train.epochs=6",
        ),
        (("--metric", "expected_cost"), "expected_cost"),
    ],
)
def test_wrong_options_are_one_line(colours, monkeypatch, capfd, words, said):
    folder, run = colours
    status, _, errors = ens(monkeypatch, capfd, "pseudo", run, folder / "unlabelled", *words)
    assert status == 2 and said in errors and "Traceback" not in errors
    assert not (run / "resnet-pseudo1").exists()


def test_wrong_input_is_one_line(colours, tmp_path, monkeypatch, capfd):
    folder, run = colours
    (tmp_path / "empty").mkdir()
    status, _, errors = ens(monkeypatch, capfd, "pseudo", run, tmp_path / "empty")
    assert status == 2 and "no images" in errors
    status, _, errors = ens(monkeypatch, capfd, "pseudo", run, folder / "train")
    assert status == 2 and f"{folder / 'train'}: holds no image that is not a labelled row of the run" in errors
    settings = run / "resnet" / "settings.json"
    before = settings.read_bytes()
    write_json(settings, {**json.loads(before), "keep": "best"})
    status, _, errors = ens(monkeypatch, capfd, "pseudo", run, folder / "unlabelled")
    assert status == 2 and "resnet kept the epochs that are best on its held-out rows" in errors
    settings.write_bytes(before)
    (run / "resnet" / "fold1" / "done.json").unlink()
    status, _, errors = ens(monkeypatch, capfd, "pseudo", run, folder / "unlabelled")
    assert status == 2 and "member 'resnet' is not finished: fold 1; train on with: ens train-folds" in errors


def test_the_command_says_what_a_round_gained(colours, monkeypatch, capfd):
    folder, run = colours
    words = ("--rounds", 1, "--set", "train.lr=0.01", "--set", "train.epochs=8", "--json")
    status, printed, errors = ens(monkeypatch, capfd, "pseudo", run, folder / "unlabelled", *words)
    (made,) = json.loads(printed)["result"]["rounds"]
    assert status == 0 and made["kept"] and made["gains"]["log_loss"]["low"] > 0
    assert "round 1: the mean of resnet-pseudo1 gains over its teachers" in errors
    assert "resnet-pseudo1: kept" in errors


def test_logits_that_a_prediction_stored_are_used(colours, tmp_path):
    from ensemble.tta.member_logits import member_logits

    folder, run = colours
    files = sorted((folder / "unlabelled").iterdir())
    computed = member_logits(Run(run), "resnet", ("identity",), files, "unlabelled", SILENT)
    assert computed.shape == (2, 24, 2)
    blend_run(Run(run), BlendOptions("mean"))
    events = Recorder()
    tta_predict(PredictionRequest(Run(run), folder / "unlabelled", tmp_path / "s.csv"), events)
    assert any("so no network is run" in line for line in events.messages)
    for fold in Run(run).member("resnet").folds():
        fold.model_file.unlink()
    again = member_logits(Run(run), "resnet", ("identity",), files, "unlabelled", SILENT)
    assert again.tobytes() == computed.tobytes()

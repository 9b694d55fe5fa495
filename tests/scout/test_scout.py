"""`ens scout` from its command line, on noise with tiny networks."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import ens
from huggingface_hub import constants
from safetensors.torch import save_file

from ensemble.backbones import hub, timm_model
from ensemble.blend.oof import read_oof
from ensemble.config import load_config
from ensemble.errors import UserError
from ensemble.events import SILENT
from ensemble.run import Run
from ensemble.scout.forecast import forecaster
from ensemble.scout.probes import out_of_fold, probe_all
from ensemble.train.heads import Heads
from ensemble.train.jobs import train_folds

NAMES = ("test_convnext", "test_resnet", "test_vit")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, paint):
    """24 images in train/, and weights of three networks in weights/."""
    folder = tmp_path_factory.mktemp("scouted")
    for index in range(24):
        paint(folder / "train" / "ab"[index % 2] / f"{index}.png", 40, 40)
    torch.manual_seed(0)
    (folder / "weights").mkdir()
    for name in NAMES:
        state = timm_model.create(name, 5, 64).state_dict()
        save_file({key: value.contiguous() for key, value in state.items()}, folder / "weights" / f"{name}.safetensors")
    return folder


@pytest.fixture
def scouted(folder, tmp_path, monkeypatch, capfd):
    """scouted(*words): status, output and error of the command, run in an empty folder, at 64 px."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        return ens(monkeypatch, capfd, "scout", *words, "--image-size", 64)

    return run


@pytest.fixture
def experiment(folder, tmp_path):
    """experiment(backbones): an experiment file in which they are fine-tuned."""

    def write(backbones, name="given.toml", more=""):
        path = tmp_path / name
        path.write_text(
            f'run = "{tmp_path / "run"}"\nseed = 3\n[data]\ntrain = "{folder / "train"}"\nimage_size = 64\n'
            f"[folds]\nk = 3\n[train]\nepochs = 4\nlr = 5e-4\nbatch_size = 4\n"
            f'dtype = "float32"\nmemory_format = "channels_last"\n{more}[tta]\nviews = ["identity"]\n'
            f"{backbones}"
        )
        return path

    return write


def backbone(name, folder, more=""):
    weights = folder / "weights" / f"{name}.safetensors"
    return f'[[backbone]]\nname = "{name}"\ntimm = "{name}"\nweights = "{weights}"\n{more}'


def test_it_writes_the_experiment_of_the_chosen_blend(scouted, folder):
    status, output, error = scouted(folder / "train", "--weights-dir", folder / "weights", "--json")
    assert status == 0, error
    result = json.loads(output)["result"]
    front = result["front"]
    assert sorted(single["name"] for single in front["singles"]) == sorted(NAMES)
    losses = [single["scores"]["log_loss"]["value"] for single in front["singles"]]
    assert losses == sorted(losses)
    config = load_config(Path("scout.toml"))
    assert sorted(each.name for each in config.backbone) == sorted(front["blends"][result["chosen"]]["members"])
    for each in config.backbone:
        assert (each.weights, each.image_size) == (folder / "weights" / f"{each.name}.safetensors", 64)
    assert (config.folds.k, config.train.strategy, config.train.epochs) == (5, "partial", 30)
    assert "backbones as linear probes, out of fold, 24 rows, the best log loss first" in error
    letters = {single["name"]: letter for single, letter in zip(front["singles"], "ABC", strict=True)}
    for name, letter in letters.items():
        assert f" {letter} {name}" in error
    chosen = " ".join(sorted(letters[name] for name in front["blends"][result["chosen"]]["members"]))
    assert re.search(rf"^ {result['chosen'] + 1} \* +{chosen} +\d", error, re.MULTILINE)
    assert max(map(len, error[error.index("backbones as") : error.index("* chosen")].splitlines())) <= 80
    assert "wrote scout.toml: read it, then run  ens train-folds scout.toml" in error


def test_what_was_probed_is_kept_and_another_blend_can_be_picked(scouted, folder):
    status, output, error = scouted(folder / "train", "--weights-dir", folder / "weights", "--pick", 1, "-o", "1.toml")
    assert status == 0, error
    status, output, error = scouted(folder / "train", "--weights-dir", folder / "weights", "--pick", 1, "-o", "2.toml")
    assert status == 0, error
    assert output.count(": probed before") == 3
    assert Path("1.toml").read_text().replace("1.toml", "2.toml") == Path("2.toml").read_text()
    assert len(load_config(Path("2.toml")).backbone) == 1  # the cheapest blend is one network
    status, _, error = scouted(folder / "train", "--weights-dir", folder / "weights", "--pick", 99, "-o", "3.toml")
    assert status == 2
    assert re.search(r"--pick 99: must be the number of a blend, 1 to \d", error)
    assert not Path("3.toml").exists()


def test_an_experiments_own_backbones_are_tried_and_keep_their_settings(scouted, folder, experiment):
    scratch = '[[backbone]]\nname = "new"\ntimm = "test_vit"\npretrained = false\n'
    path = experiment(backbone("test_resnet", folder, "train = { lr = 1e-4 }\n") + scratch)
    status, output, error = scouted(path)
    assert status == 0, error
    assert "new skipped: trains from scratch, so that there are no trained features to probe" in output
    config, given = load_config(Path("scout.toml")), load_config(path)
    assert [each.name for each in config.backbone] == ["test_resnet"]
    assert config.backbone[0].train == {"lr": 1e-4}
    assert (config.data, config.folds, config.train, config.run) == (given.data, given.folds, given.train, given.run)
    assert not config.run.exists()


def test_probes_have_the_logits_that_train_folds_gives_them(folder, experiment):
    probes, rows, skipped = probe_all(
        load_config(experiment(backbone("test_resnet", folder, 'train = { strategy = "probe" }\n'))), SILENT
    )
    config = load_config(experiment(backbone("test_resnet", folder, 'train = { strategy = "probe" }\n')))
    assert train_folds(config, SILENT) == []
    oof = read_oof(Run(config.run))
    assert skipped == []
    assert probes.names == oof.members
    np.testing.assert_array_equal(rows.ids, oof.rows.ids)
    np.testing.assert_array_equal(probes.folds, oof.rows.folds)
    np.testing.assert_allclose(probes.z[0], oof.values[0][0], atol=1e-5)


def test_a_rows_logits_come_from_the_classifier_that_was_fitted_without_its_fold():
    heads = Heads(torch.tensor([[[1.0], [2.0]], [[10.0], [20.0]]]), torch.tensor([[0.0, 1.0], [0.0, 5.0]]), (1.0, 1.0))
    logits = out_of_fold(torch.tensor([[1.0], [2.0], [3.0]]), heads, np.array([1, 0, -1], dtype=np.int8))
    np.testing.assert_array_equal(logits, [[10, 25], [2, 5], [0, 0]])


def test_what_cannot_be_probed_is_skipped_in_one_line(scouted, folder, experiment, tmp_path):
    torch.save({"x": torch.zeros(1)}, tmp_path / "other.pth")
    broken = '[[backbone]]\nname = "broken"\ntimm = "test_vit"\nweights = "other.pth"\n'
    status, output, error = scouted(experiment(broken + backbone("test_resnet", folder)))
    assert status == 0, error
    assert re.search(r"^broken skipped: other.pth: does not fit 'test_vit': ", output, re.MULTILINE)
    status, _, error = scouted(experiment(broken), "-o", "none.toml")
    assert status == 2
    assert error.startswith(
        "ens: none of 1 backbone could be probed; give weights files of your own with --weights-dir FOLDER (broken "
    )


def test_a_hub_out_of_reach_costs_a_line_for_each_backbone(scouted, folder, experiment, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # else the tries take a minute
    hub = "".join(
        f'[[backbone]]\nname = "{name}"\ntimm = "{name}.r160_in1k"\n' for name in ("test_vit", "test_convnext")
    )
    status, output, error = scouted(experiment(hub + backbone("test_resnet", folder)))
    assert status == 0, error
    lines = re.findall(r"^(\w+) skipped: the pretrained weights of '(\S+)' could not be loaded", output, re.MULTILINE)
    assert lines == [("test_vit", "test_vit.r160_in1k"), ("test_convnext", "test_convnext.r160_in1k")]


def test_after_one_that_could_not_be_reached_the_hub_is_asked_no_more():
    with hub.asked_until_unreachable() as ask_no_more:
        ask_no_more()
        with pytest.raises(UserError) as caught:
            timm_model.create("test_vit.r160_in1k", 2, 64, pretrained=True)
        assert hub.is_unreachable(caught.value)
    assert not constants.HF_HUB_OFFLINE
    assert not hub.is_unreachable(UserError("another"))


def test_a_budget_is_planned_from_timed_steps(scouted, folder, experiment):
    path = experiment(backbone("test_resnet", folder))
    status, output, error = scouted(path, "--budget", "10h", "--json")
    assert status == 0, error
    plan = json.loads(output)["result"]["plan"]
    assert [(each["name"], each["image_size"], each["epochs"]) for each in plan["members"]] == [("test_resnet", 96, 8)]
    config = load_config(Path("scout.toml"))
    assert (config.backbone[0].image_size, config.backbone[0].train) == (96, {"epochs": 8})
    status, output, error = scouted(path, "--budget", "0.001s", "-o", "none.toml")
    assert status == 2
    assert "--budget: 0:00 is too little for anything; the least is 1m, for test_resnet at 64 px for 2 epochs" in error
    assert not Path("none.toml").exists()


def test_a_plan_for_images_stands_in_the_file_that_init_writes(scouted, folder, tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "test_resnet.safetensors").symlink_to(folder / "weights" / "test_resnet.safetensors")
    status, output, error = scouted(folder / "train", "--weights-dir", "one", "--budget", "10h")
    assert status == 0, error
    config = load_config(Path("scout.toml"))
    assert (config.backbone[0].image_size, config.backbone[0].train) == (96, {"epochs": 60})
    assert "test_resnet at 96 px, 60 epochs" in output


def test_a_forecast_goes_with_epochs_and_pixels(folder, experiment):
    config = load_config(experiment(backbone("test_resnet", folder)))
    probes_config = config.model_copy(
        update={"backbone": (config.backbone[0].model_copy(update={"train": {"strategy": "probe"}}),)}
    )
    _, rows, _ = probe_all(probes_config, SILENT)
    seconds = forecaster(config, rows, SILENT)
    one, two, three = (seconds(config.backbone[0], 64, epochs) for epochs in (8, 16, 24))
    assert one > 0
    assert three - two == pytest.approx(two - one)
    assert seconds(config.backbone[0], 128, 8) == pytest.approx(4 * one)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["{folder}/train", "--weights-dir", "{folder}/train/a"],
            "0 weights files in it, none of which ens recognises",
        ),
        (["{folder}/train", "--weights-dir", "{folder}/none"], "--weights-dir wants a folder of weights files"),
        (["{folder}/train", "--budget", "soon"], "--budget soon: must be a time, as 90m, 2h or 1h30m"),
        (["{folder}/train", "-o", "there.toml"], "there.toml: exists already; choose another name with -o"),
        (["given.toml", "--label", "x"], "given.toml: an experiment file says itself what its data are"),
        (["none.toml"], "none.toml: no such file; write one with: ens init"),
        (["probes.toml", "--budget", "1h"], "trains probes, and --budget is for fine-tuning"),
    ],
)
def test_bad_input_is_one_line_before_anything_is_probed(scouted, folder, experiment, words, line):
    experiment(backbone("test_resnet", folder))
    experiment(backbone("test_resnet", folder), "probes.toml", 'strategy = "probe"\n')
    Path("there.toml").write_text("mine")
    status, output, error = scouted(*(word.format(folder=folder) for word in words))
    assert status == 2
    assert line in error
    assert len(error.strip().splitlines()) == 1
    assert "skipped" not in output

"""Averages of epochs: equal ones, their learning rate, and what a run that uses them keeps."""

import pytest
import torch
from recorder import Recorder

from ensemble.backbones.weights import read_state
from ensemble.config import load_config
from ensemble.files.sealed import write_json
from ensemble.run import Run
from ensemble.train.jobs import train_folds
from ensemble.train.step import learning_rate
from ensemble.train.swa import add_to_average


def test_the_average_of_networks_by_hand():
    average, model = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    for count, value in enumerate((1.0, 3.0, 8.0)):
        with torch.no_grad():
            model.weight.fill_(value)
        add_to_average(average, model, count)
    assert average.weight.item() == pytest.approx(4.0) and torch.equal(average.bias, model.bias)


def test_the_rate_stays_where_averaging_begins_but_not_in_the_warm_up():
    assert [learning_rate(step, 109, 9, 2.0, 59) for step in (34, 59, 80, 108)] == pytest.approx(
        [learning_rate(34, 109, 9, 2.0), 1.0, 1.0, 1.0]
    )
    assert learning_rate(50, 109, 9, 2.0, 0) == pytest.approx(2.0)


def train(started_run, folder, name, **changes):
    """The first fold's weights of a short run on the images of `started_run`."""
    file = folder / f"{name}.toml"
    text = (started_run.parent / "e.toml").read_text().replace("seeds = 2\n", "")
    file.write_text(text.replace(f'run = "{started_run}"', f'run = "{folder / name}"'))
    settings = {"epochs": 1, **changes}
    assert (
        train_folds(load_config(file, tuple(f"train.{key}={value}" for key, value in settings.items())), Recorder())
        == []
    )
    return read_state(Run(folder / name).member("net").fold(0).model_file)


def test_the_average_of_one_epoch_is_that_epoch_but_for_the_batch_norms(started_run, tmp_path):
    plain = train(started_run, tmp_path, "plain", ema=0)
    swa = train(started_run, tmp_path, "swa", swa_epochs=1)
    measured = [name for name in plain if name.endswith(("running_mean", "running_var"))]
    weights = [name for name in plain if plain[name].is_floating_point() and name not in measured]
    assert weights and all(torch.equal(plain[name], swa[name]) for name in weights)
    assert not any(torch.equal(plain[name], swa[name]) for name in measured)
    frozen = train(started_run, tmp_path, "frozen", swa_epochs=1, freeze_bn="true")
    start = train(started_run, tmp_path, "start", ema=0, freeze_bn="true")
    assert all(torch.equal(start[name], frozen[name]) for name in measured)


def test_a_run_that_is_older_than_the_key_goes_on(started_run, tmp_path):
    train(started_run, tmp_path, "older")
    run = Run(tmp_path / "older")
    settings = {key: value for key, value in run.member("net").read_settings().items() if key != "swa_epochs"}
    write_json(run.member("net").settings_json, settings)
    run.member("net").fold(0).done_json.unlink()
    train(started_run, tmp_path, "older")
    assert "swa_epochs" not in run.member("net").read_settings() and run.member("net").fold(0).is_done()

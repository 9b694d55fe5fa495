"""Refits: the recipe on all rows, what they predict, and what is refused."""

import json
import shutil

import numpy as np
import pytest
import torch
from commands import ens as ens_command
from recorder import Recorder

import ensemble as ens
from ensemble.backbones.weights import read_state
from ensemble.config import load_config
from ensemble.errors import UserError
from ensemble.files.sealed import write_json
from ensemble.refit.jobs import refit
from ensemble.run import Run
from ensemble.train.heads import fit_head, fit_heads
from ensemble.train.jobs import train_folds
from ensemble.train.probe import load_heads


@pytest.fixture
def cli(monkeypatch, capfd):
    return lambda *words: ens_command(monkeypatch, capfd, *words)


def test_refits_see_all_rows_and_are_averaged_at_prediction(own_started_run, started_run, cli, tmp_path):
    run, events = Run(own_started_run), Recorder()
    refits, failures = refit(run, None, 2, events)
    assert failures == [] and [str(each) for each in refits] == [
        "net refit 0", "net refit 1", "net-2 refit 0", "net-2 refit 1"
    ]  # fmt: skip
    # All 24 images in each of 6 epochs, of 4 jobs; a fold's network sees 16 of them.
    assert max(total for _, _, total in events.steps if total > 24) == 4 * 6 * 24
    first = run.member("net").refit(0)
    assert first.is_done() and not first.oof_file.exists()
    assert len(first.read_log()) == 6 and not any("held_out_log_loss" in line for line in first.read_log())
    states = [read_state(run.member("net").refit(number).model_file) for number in (0, 1)]
    assert not torch.equal(states[0]["fc.weight"], states[1]["fc.weight"])

    before = first.model_file.stat().st_mtime_ns
    status, out, _ = cli("refit", run, "--seeds", "2", "--json")
    said = json.loads(out)
    assert status == 0 and said["result"]["refits"] == [str(each) for each in refits]
    assert any(line.startswith("refits have no out-of-fold score") for line in said["said"])
    assert first.model_file.stat().st_mtime_ns == before

    test = started_run.parent / "test"
    files = sorted(test.iterdir())
    made = ens.predict(ens.load(run, "mean", networks="refit"), files).probabilities
    alone = []
    for number in (0, 1):
        one = Run(shutil.copytree(run.path, tmp_path / f"one{number}"))
        for name in ("net", "net-2"):
            shutil.rmtree(one.member(name).refit(1 - number).path)
        alone.append(ens.predict(ens.load(one, "mean", networks="refit"), files).probabilities)
    assert np.allclose(made, (alone[0] + alone[1]) / 2, atol=1e-6)
    assert not np.allclose(alone[0], alone[1], atol=1e-4)
    status, out, err = cli("tta-predict", run, files[0], "--networks", "refit")
    assert status == 0 and "refits have no out-of-fold score" in out, err
    status, out, err = cli("tta-predict", run, test, "--networks", "refit", "-o", tmp_path / "r.csv")
    assert status == 0 and "2 members x 2 refits" in out, err
    assert "by refits on all rows; the score is the recipe's" in run.submissions_csv.read_text()
    assert cli("verify", run)[0] == 0

    shutil.rmtree(run.member("net").refit(1).path)
    with pytest.raises(UserError, match=r"^net has 1 of the 2 refits that net-2 has, and they predict together"):
        ens.load(run, "mean", networks="refit")


def test_a_stopped_refit_goes_on_and_ends_with_the_same_bits(own_started_run, started_run, tmp_path):
    whole, stopped = Run(own_started_run), Run(shutil.copytree(started_run, tmp_path / "stopped"))
    refit(whole, ["net"], 1, Recorder())

    def stop(text, done, total):
        if "epoch 3/6" in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        refit(stopped, ["net"], 1, Recorder(on_progress=stop))
    job = stopped.member("net").refit(0)
    assert job.state_file.is_file() and not job.is_done()
    refit(stopped, ["net"], 1, Recorder())
    want, got = (read_state(run.member("net").refit(0).model_file) for run in (whole, stopped))
    assert all(torch.equal(want[name], got[name]) for name in want) and not job.state_file.exists()


def test_what_can_not_be_refitted_is_refused(own_started_run, cli):
    run = Run(own_started_run)
    run.member("net").fold(2).done_json.unlink()
    for words, line in (
        (("--members", "net"), "fold 2 is not finished, and only the folds say what the recipe is worth"),
        (("--members", "nut"), "no member 'nut'; nearest: net"),
    ):
        status, _, err = cli("refit", run, *words)
        assert status == 2 and line in err and err.count("\n") == 1, err
    shutil.copytree(run.member("net-2").path, run.member("other").path)
    status, _, err = cli("refit", run, "--members", "other")
    assert status == 2 and "has no backbone of this name, so its recipe is not known" in err


def test_refits_of_other_settings_are_refused(own_started_run):
    run = Run(own_started_run)
    refit(run, None, 1, Recorder())
    member = run.member("net")
    write_json(member.settings_json, {**member.read_settings(), "epochs": 7})
    with pytest.raises(UserError, match="refit0: was trained with other settings than net has now"):
        ens.load(run, "mean", networks="refit")


@pytest.mark.parametrize("strategy", ["probe", "probe-then-full"])
def test_probes_are_refitted_on_all_rows(started_run, tmp_path, strategy):
    file = tmp_path / "probe.toml"
    text = (
        (started_run.parent / "e.toml")
        .read_text()
        .replace("seeds = 2", f'train = {{ strategy = "{strategy}", epochs = 1 }}')
    )
    file.write_text(text.replace(str(started_run), str(tmp_path / "run")))
    assert train_folds(load_config(file), Recorder()) == []
    run = Run(tmp_path / "run")
    assert refit(run, None, 1, Recorder())[1] == []
    member = run.member("net")
    of_folds, of_all = load_heads(member.probe_file), load_heads(member.refit_probe_file)
    assert of_all.weights.shape[0] == 1 and of_all.strengths[0] == np.median(of_folds.strengths)
    state = read_state(member.refit(0).model_file)
    assert torch.equal(state["fc.weight"], of_all.weights[0]) == (strategy == "probe")


def test_keep_best_is_refused(started_run, tmp_path, cli):
    file = tmp_path / "best.toml"
    text = (started_run.parent / "e.toml").read_text().replace("seeds = 2", 'train = { keep = "best", epochs = 1 }')
    file.write_text(text.replace(str(started_run), str(tmp_path / "run")))
    assert train_folds(load_config(file), Recorder()) == []
    status, _, err = cli("refit", tmp_path / "run")
    assert status == 2 and 'net: keep = "best" lets held-out rows choose the epoch' in err


def test_one_head_on_all_rows_is_that_of_a_fold_that_holds_out_the_others():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 60)
    features = torch.from_numpy((np.eye(3)[labels] + rng.normal(size=(60, 3))).astype(np.float32))[None]
    folds = np.repeat([0, 1, 2], 20).astype(np.int8)
    heads = fit_heads(features, labels, folds, 3)
    rows = folds != 1
    head = fit_head(features[:, rows], labels[rows], 3, heads.strengths[1])
    assert torch.allclose(head.weights[0], heads.weights[1], atol=2e-3)
    assert torch.allclose(head.biases[0], heads.biases[1], atol=2e-3)

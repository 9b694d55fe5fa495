"""Averages of networks: what is averaged, how near it is to the ensemble, what is refused, and what it predicts."""

import json

import numpy as np
import pytest
import torch
from commands import ens as ens_command
from safetensors.torch import load_file

import ensemble as ens
from ensemble.backbones.weights import read_state, write_state
from ensemble.blend import load_blend
from ensemble.data.logits import load_logits
from ensemble.errors import UserError
from ensemble.events import SILENT
from ensemble.files.sealed import write_json
from ensemble.run import Run
from ensemble.soup.average import average, moved_norms
from ensemble.soup.closeness import closeness
from ensemble.soup.folds import soup_folds
from ensemble.soup.greedy import select, select_without
from ensemble.soup.members import require_one_start
from ensemble.soup.recipes import soup_members
from ensemble.train.batch_norms import estimate

LAST = ("layer4.0.conv2.", "layer4.0.bn2.", "layer4.0.downsample.")  # what makes a test_resnet's last features


@pytest.fixture
def cli(monkeypatch, capfd):
    return lambda *words: ens_command(monkeypatch, capfd, *words)


# ---- the average ---------------------------------------------------------------------------------------------------


def test_weights_are_averaged_and_counts_are_the_first_ones():
    states = [
        {"weight": torch.tensor([first, 2.0]), "num_batches_tracked": torch.tensor(count)}
        for first, count in ((1.0, 10), (2.0, 20), (6.0, 30))
    ]
    mean = average(states)
    assert mean["weight"].tolist() == [3.0, 2.0] and mean["weight"].dtype == torch.float32
    assert mean["num_batches_tracked"].item() == 10


def test_batch_norms_that_moved_are_estimated_anew_and_frozen_ones_are_left():
    model = torch.nn.Sequential(torch.nn.BatchNorm2d(1), torch.nn.BatchNorm2d(1))
    states = [{name: value.clone() for name, value in model.state_dict().items()} for _ in range(2)]
    states[1]["0.running_mean"] += 1
    norms = moved_norms(model, states)
    assert norms == [model[0]]
    # Of the values 0, 2 the mean is 1 and the variance (n - 1) 2; of 4, 8 they are 6 and 8.
    batches = [torch.tensor([low, high]).view(2, 1, 1, 1) for low, high in ((0.0, 2.0), (4.0, 8.0))]
    estimate(model, norms, batches)
    assert model[0].running_mean.item() == pytest.approx(3.5) and model[0].running_var.item() == pytest.approx(5.0)
    assert model[1].running_mean.item() == 0 and model[1].running_var.item() == 1
    assert not model[0].training and model[0].momentum == 0.1


def test_closeness_is_what_a_hand_computes():
    networks = np.log(np.array([[[0.9, 0.1], [0.6, 0.4]], [[0.5, 0.5], [0.2, 0.8]]], dtype=np.float32))
    ensemble = np.array([[0.7, 0.3], [0.4, 0.6]])
    near = closeness(networks, np.log(ensemble).astype(np.float32))
    assert near.images == 2 and near.agreement == 1 and near.divergence == pytest.approx(0, abs=1e-7)
    # The first network has class 0 for both images, the second class 0 (the first of a tie) and 1: 1/2 and 1.
    assert near.networks_agreement == 0.75
    want = np.mean([np.sum(ensemble * (np.log(ensemble) - each)) / 2 for each in networks])
    assert near.networks_divergence == pytest.approx(want) and near.barrier == pytest.approx(-want)
    far = closeness(networks, np.log(ensemble[:, ::-1]).astype(np.float32))
    assert far.agreement == 0 and far.barrier > 0


# ---- fold soups of a run -------------------------------------------------------------------------------------------


def test_a_fold_soup_is_the_average_of_the_fold_networks_and_predicts_by_the_blend(own_started_run, started_run, cli):
    run, test = Run(own_started_run), started_run.parent / "test"
    status, out, _ = cli("soup", run, "--on", test)
    assert status == 0, out
    assert "net: 3 networks averaged, 0 batch norms estimated anew" in out and "net-2: 3 networks averaged" in out
    assert f"on 5 images of {test} it predicts the ensemble's class" in out and "no out-of-fold score" in out
    states = [load_file(run.member("net").fold(number).model_file) for number in range(3)]
    soup = read_state(run.member("net").soup().model_file)
    want = torch.stack([state["layer1.0.conv1.weight"].double() for state in states]).mean(0).float()
    assert torch.equal(soup["layer1.0.conv1.weight"], want)
    means = torch.stack([state["layer1.0.bn1.running_mean"] for state in states])
    assert torch.allclose(soup["layer1.0.bn1.running_mean"], means.mean(0))  # nearer to the ensemble than anew

    files = sorted(test.iterdir())
    predictor = ens.load(run, "mean", networks="soup")
    assert predictor.folds == 1 and [len(member.eval_models) for member in predictor.members] == [1, 1]
    made = ens.predict(predictor, files).probabilities
    status, out, _ = cli("tta-predict", run, test, "--networks", "soup", "-o", run.path.parent / "soup.csv", "--json")
    said = json.loads(out)["said"]
    assert status == 0 and any("2 members x 1 soup" in line for line in said)
    assert any(line.startswith("soups have no out-of-fold score") for line in said)
    saved = load_logits(run.path / "predictions" / "test-mean+soup.safetensors")
    assert np.allclose(np.exp(saved.values[0]), made, atol=1e-6)  # it holds logarithms


def test_stored_logits_of_soups_and_folds_are_kept_apart(own_started_run, started_run, cli, tmp_path):
    run, test = Run(own_started_run), started_run.parent / "test"
    soup_folds(run, None, test, SILENT)
    written = {}
    for turn, networks in enumerate(("folds", "soup", "folds", "soup")):
        output = tmp_path / f"{turn}.csv"
        status, out, _ = cli("tta-predict", run, test, "--networks", networks, "-o", output, "--form", "probability")
        assert status == 0 and "damaged" not in out, out
        assert ("no network is run" in out) == (turn >= 2)
        assert written.setdefault(networks, output.read_bytes()) == output.read_bytes()
    assert written["folds"] != written["soup"]
    board = (run.path / "submissions.csv").read_text()
    assert board.count("by soups of the folds, which have no out-of-fold score") >= 2


def test_a_soup_of_other_folds_than_there_are_is_refused(own_started_run, cli):
    run = Run(own_started_run)
    with pytest.raises(
        UserError, match=r"net: has no soup of its fold networks; make it with: ens soup .* --members net$"
    ):
        ens.load(run, "mean", networks="soup")
    soup_folds(run, ["net"], None, SILENT)
    fold = run.member("net").fold(1)
    state = {
        name: value + 0.01 if value.is_floating_point() else value
        for name, value in read_state(fold.model_file).items()
    }
    write_state(fold.model_file, state, {"member": "net", "fold": "1"})
    fold.finish(1.0)
    with pytest.raises(UserError, match=r"soup: was made of other fold networks than net has now; again: ens soup"):
        ens.load(run, "mean", networks="soup")


def test_networks_that_do_not_connect_are_refused(own_started_run, cli):
    run = Run(own_started_run)
    soup_folds(run, ["net"], None, SILENT)
    state = read_state(run.member("net").fold(0).model_file)
    state["fc.weight"] *= 20
    for number in range(3):  # one function, its last features in other places
        order = torch.arange(len(state["fc.weight"][0])).roll(number * 7)
        moved = {name: value[order] if name.startswith(LAST) and value.ndim else value for name, value in state.items()}
        fold = run.member("net").fold(number)
        write_state(
            fold.model_file, moved | {"fc.weight": state["fc.weight"][:, order]}, {"member": "net", "fold": str(number)}
        )
        fold.finish(1.0)
    status, out, err = cli("soup", run, "--members", "net")
    assert status == 1 and err == "ens: refused, since the networks don't connect: net\n", out
    assert "(a single network for 100.00%)" in out and "refused, since its networks don't connect" in out
    assert not run.member("net").soup().model_file.exists()


def test_members_from_scratch_and_of_different_architectures_are_refused(noise_run, tmp_path, cli):
    status, _, err = cli("soup", noise_run)
    assert status == 2 and err.startswith("ens: resnet: was trained from scratch") and err.count("\n") == 1
    members = [Run(tmp_path).member(name) for name in ("a", "b", "c")]
    for member, timm, start in zip(members, ("resnet18", "resnet34", "resnet18"), ("x", "x", "y"), strict=True):
        write_json(member.settings_json, {"timm": timm, "start": start})
    with pytest.raises(UserError, match=r"^a and b have different architectures \(resnet18 and resnet34\)"):
        require_one_start(members[:2])
    with pytest.raises(UserError, match=r"^a and c have different starts \(x and y\)"):
        require_one_start(members[::2])
    write_json(members[0].settings_json, {"timm": "resnet18", "start": "x", "head": "knn"})
    with pytest.raises(UserError, match=r"^a: classifiers of the kind 'knn' have no average$"):
        require_one_start(members[:1])
    write_json(members[0].settings_json, {"timm": "resnet18", "start": ["x", "y"]})
    with pytest.raises(UserError, match=r"^a: each fold starts from other weights"):
        require_one_start(members[:1])


def test_verify_checks_soups_and_says_how_they_are_made_again(own_started_run, cli):
    run = Run(own_started_run)
    soup_folds(run, ["net"], None, SILENT)
    assert cli("verify", run)[0] == 0
    file = run.member("net").soup().model_file
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    status, out, _ = cli("verify", run)
    assert status == 1 and f"lost: the soup of net; ens soup {run} --members net makes it again" in out


# ---- soups of members ----------------------------------------------------------------------------------------------


def test_greedy_selection_by_hand():
    losses = {(0,): 0.5, (1,): 0.4, (2,): 0.6, (0, 1): 0.45, (1, 2): 0.3}
    assert select(3, losses.__getitem__) == (1, 2)  # 1 is the best; 0 makes it worse, 2 better
    assert select(1, {(0,): 1.0}.__getitem__) == (0,)


def test_what_fold_i_is_made_of_does_not_depend_on_its_labels():
    rng = np.random.default_rng(0)
    labels, folds = rng.integers(0, 2, 60), np.repeat([0, 1, 2], 20)
    quality = {(0,): 1.0, (1,): 1.5, (2,): -1.0, (0, 1): 2.0, (0, 1, 2): 0.5}
    values = {
        choice: (quality[choice] * (2 * np.eye(2)[labels] - 1) + rng.normal(size=(60, 2))).astype(np.float32)
        for choice in quality
    }
    seen = []

    def logits(choice, fold):
        seen.append(fold)
        return values[choice][folds == fold]

    assert select_without(0, 3, logits, labels, folds) == (1, 0)
    assert set(seen) == {1, 2}
    other = np.where(folds == 0, 1 - labels, labels)
    assert select_without(0, 3, logits, other, folds) == (1, 0)


def test_a_soup_of_members_is_a_member_with_its_own_out_of_fold_logits(own_started_run, cli):
    run = Run(own_started_run)
    status, out, err = cli("soup", run, "--members", "net,net-2", "--name", "both")
    assert status == 0, err
    assert "both fold 0: net" in out and "next: ens compare" in out
    oof = load_logits(run.member("both").fold(1).oof_file)
    assert oof.values.shape == (2, 8, 2) and oof.views == ("identity", "hflip")
    assert cli("blend", run, "--method", "mean", "--name", "three")[0] == 0
    assert load_blend(run, "three").members == ("both", "net", "net-2")
    assert cli("soup", run, "--members", "net,net-2", "--name", "both")[0] == 0  # made again
    assert cli("verify", run)[0] == 0
    assert cli("compare", f"{run}/net", f"{run}/both")[0] == 0
    soup_folds(run, ["net"], None, SILENT)
    assert cli("report", run)[0] == 0
    page = run.report_html.read_text()
    assert "net also has the soup of its folds, which predicts their ensemble’s class for" in page


def test_a_soup_of_members_is_what_any_of_them_is(own_started_run):
    """Else the networks of its folds would be taken for one, as a probe's are, and its score for an honest one."""
    run = Run(own_started_run)
    first, other = (run.member(name) for name in ("net", "net-2"))
    write_json(first.settings_json, {**first.read_settings(), "strategy": "probe"})
    write_json(other.settings_json, {**other.read_settings(), "keep": "best", "learned_from": {"teachers": ["net"]}})
    for member in (first, other):
        for fold in member.folds():
            fold.finish(1.0)
    soup_members(run, ["net", "net-2"], "both", SILENT)
    soup = run.member("both")
    assert soup.read_settings()["strategy"] == "full" and soup.is_optimistic()
    assert soup.read_settings()["learned_from"] == {"teachers": ["net"]} and "learned_from" not in first.read_settings()


def test_names_and_members_that_do_not_fit_are_refused_in_one_line(started_run, cli):
    for words, line in (
        (("--members", "net,net-2", "--name", "net"), "is there already and is no soup; choose another name"),
        (("--members", "net", "--name", "x"), "a soup of members needs two or more of them"),
        (("--members", "net,nat", "--name", "x"), "no member 'nat'; nearest: net"),
        (("--members", "net,net-2", "--name", "a/b"), "member name 'a/b': use letters, digits"),
        (
            (
                "--members",
                "nut",
            ),
            "no member 'nut'; nearest: net",
        ),
        (("--on", started_run.parent / "test", "--name", "x"), "--on goes without --name"),
    ):
        status, _, err = cli("soup", started_run, *words)
        assert status == 2 and line in err and err.count("\n") == 1, err

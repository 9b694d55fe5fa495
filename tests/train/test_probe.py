"""Linear probes of a member, from files to files: prediction's bits, and a start for the whole network."""

import json
import re

import numpy as np
import pytest
import timm
import torch
from recorder import Recorder
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression

from ensemble.backbones import timm_model
from ensemble.config import load_config
from ensemble.data.folds import read_folds
from ensemble.data.logits import load_logits
from ensemble.data.pixels.decode import Files
from ensemble.data.pixels.preprocess import load_preprocess
from ensemble.errors import Damaged, UserError
from ensemble.events import SILENT
from ensemble.files.reading import read_json
from ensemble.files.sealed import write_json
from ensemble.inference.member import load_fold, load_member
from ensemble.inference.predict import Group, batch_rows, forward_views, predict_stream
from ensemble.run import Run
from ensemble.train import probe
from ensemble.train.evaluate import Evaluation
from ensemble.train.heads import fit_heads
from ensemble.train.jobs import train_folds
from ensemble.train.probe import load_heads, member_features, probe_member
from ensemble.train.rows import Rows, TrainingData

CPU = torch.device("cpu")
VIEWS = ("identity", "hflip")


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """weights(architecture): a safetensors file of it, as it is made."""
    folder = tmp_path_factory.mktemp("weights")

    def file(name):
        path = folder / f"{name}.safetensors"
        if not path.is_file():
            torch.manual_seed(0)
            save_file({key: value.contiguous() for key, value in timm.create_model(name).state_dict().items()}, path)
        return path

    return file


@pytest.fixture
def experiment(tmp_path, paint, weights):
    """experiment(*changes, ...): train on 3 classes of 14 images in three folds; the run, and what was said."""
    for index in range(42):
        paint(tmp_path / "images" / "abc"[index % 3] / f"{index}.png", width=36 + index % 5, height=36)

    def train(*changes, run="run", name="test_resnet", strategy="probe", extra="", more=""):
        file = tmp_path / f"{run}.toml"
        file.write_text(
            f'run = "{tmp_path / run}"\nworkers = 1\n[data]\ntrain = "{tmp_path / "images"}"\nimage_size = 32\n{extra}'
            f'[folds]\nk = 3\n[train]\nstrategy = "{strategy}"\nepochs = 1\nbatch_size = 8\n'
            'dtype = "float32"\nmemory_format = "channels_last"\n[tta]\nbatch_size = 5\n'
            f'[[backbone]]\nname = "net"\ntimm = "{name}"\nweights = "{weights(name)}"\n{more}'
        )
        events = Recorder()
        assert train_folds(load_config(file, changes), events) == []
        return tmp_path / run, events.messages

    return train


def oof(run, fold):
    return load_logits(Run(run).member("net").fold(fold).oof_file)


def files_of(run):
    """The run's rows as they are evaluated, their files, and the preprocessing."""
    table = read_folds(Run(run))
    preprocess = load_preprocess(Run(run).member("net").preprocess_json)
    paths = [run.parent / "images" / each for each in table["id"]]
    files = Files(paths, preprocess.decoding)
    labels = np.array(["abc".index(label) for label in table["label"]])
    rows = Rows(table["id"].to_numpy(np.str_), tuple(paths), labels, table["fold"].to_numpy(np.int8), ("a", "b", "c"))
    return TrainingData(rows, files, {preprocess.decoding: files}), paths, preprocess


# ---- the strategy "probe" ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_prediction_repeats_the_probes_logits_to_the_bit(experiment, name):
    run, _ = experiment(name=name)
    data, paths, preprocess = files_of(run)
    member = load_member(Run(run).member("net"), 3, 3, CPU)
    chunks = [paths[::-1][start : start + 20] for start in range(0, len(paths), 20)]
    backwards = [chunk.values[0] for chunk in predict_stream([member], chunks, [VIEWS], 5, CPU)]
    assert len(member.eval_models) == 1 and member.eval_models[0].outputs == 3  # the folds share their network
    for fold in range(3):
        kept = oof(run, fold)
        rows = np.flatnonzero(data.rows.folds == fold)
        assert kept.ids.tolist() == data.rows.ids[rows].tolist() and len(rows) == 14
        assert kept.views == VIEWS and kept.classes == ("a", "b", "c")
        assert kept.meta == {"member": "net", "fold": str(fold)}
        group = Group(preprocess, VIEWS, member.eval_models)
        values = forward_views(group, data.squares(preprocess, VIEWS, rows), batch_rows(5, CPU), CPU)[0]
        assert np.array_equal(values[fold], kept.values)
        beside = np.concatenate([values[fold] for values in backwards], axis=1)[:, ::-1]
        assert np.array_equal(beside[:, rows], kept.values)
        assert np.abs(kept.values).max() > 0.1


@pytest.mark.parametrize("head", ["lda", "gaussian", "knn"])
def test_prediction_repeats_another_heads_logits_to_the_bit(experiment, head):
    run, messages = experiment(f"train.head={head}")
    data, paths, _ = files_of(run)
    member = load_member(Run(run).member("net"), 3, 3, CPU)
    chunks = [paths[::-1][start : start + 20] for start in range(0, len(paths), 20)]
    backwards = [chunk.values[0] for chunk in predict_stream([member], chunks, [VIEWS], 5, CPU)]
    values = np.concatenate(backwards, axis=2)[:, :, ::-1]
    assert len(member.eval_models) == 1 and member.eval_models[0].outputs == 3
    for fold in range(3):
        assert np.array_equal(values[fold][:, data.rows.folds == fold], oof(run, fold).values)
        assert not np.array_equal(values[(fold + 1) % 3][:, data.rows.folds == fold], oof(run, fold).values)
        (line,) = Run(run).member("net").fold(fold).read_log()
        assert line["strategy"] == "probe" and line["chosen"] and 0 <= line["held_out_accuracy"] <= 1
        alone = load_fold(Run(run).member("net").fold(fold), 3, "float32", CPU)[1]
        assert alone.outputs == 1
    assert any(f" 3 {head} heads in " in message and "chosen: " in message for message in messages)
    kept = [name for name in timm_model.read_state(Run(run).member("net").fold(0).model_file) if name[:3] == "fc."]
    assert ("fc.neighbours" in kept, "fc.directions" in kept) == (head == "knn", head == "gaussian")


def test_a_classifier_that_is_not_in_its_file_is_damage(experiment):
    run, _ = experiment("train.head=knn")
    settings = Run(run).member("net").settings_json
    write_json(settings, {**read_json(settings), "head": "gaussian"})
    for fold in range(3):
        done = Run(run).member("net").fold(fold).done_json
        write_json(done, {key: value for key, value in read_json(done).items() if key != "settings"})
    with pytest.raises(Damaged, match=r"fold0/model.safetensors: .*holds no gaussian classifier \(it lacks 'weight'\)"):
        load_member(Run(run).member("net"), 3, 3, CPU)


def test_a_run_of_an_older_ens_that_had_no_other_heads_goes_on(experiment):
    run, _ = experiment()
    member = Run(run).member("net")
    write_json(
        member.settings_json, {key: value for key, value in read_json(member.settings_json).items() if key != "head"}
    )
    for fold in range(3):
        done = member.fold(fold).done_json
        write_json(done, {key: value for key, value in read_json(done).items() if key != "settings"})
    _, messages = experiment()
    assert any("3 of them done" in message for message in messages)
    with pytest.raises(UserError, match='holds it with head = "linear", the config says "knn"'):
        experiment("train.head=knn")


def test_heads_of_one_network_share_its_features(experiment, weights, monkeypatch):
    calls = []

    def counted(*facts):
        calls.append(facts)
        return member_features(*facts)

    monkeypatch.setattr(probe, "member_features", counted)
    lines = [
        f'[[backbone]]\nname = "{name}"\ntimm = "test_resnet"\nweights = "{weights("test_resnet")}"\n'
        f'image_size = {size}\ntrain = {{ head = "{head}" }}\n'
        for name, head, size in (("lda", "lda", 32), ("knn", "knn", 32), ("larger", "knn", 40))
    ]
    run, _ = experiment(more="".join(lines))
    assert len(calls) == 2
    alone, _ = experiment("train.head=knn", run="alone")
    for fold in range(3):
        beside = load_logits(Run(run).member("knn").fold(fold).oof_file)
        assert np.array_equal(beside.values, oof(alone, fold).values)


def test_each_fold_holds_its_own_head_on_one_frozen_network(experiment, weights):
    run, _ = experiment()
    heads = load_heads(Run(run).member("net").probe_file)
    start = timm_model.read_state(weights("test_resnet"))
    for fold in range(3):
        state = timm_model.read_state(Run(run).member("net").fold(fold).model_file)
        assert torch.equal(state["fc.weight"], heads.weights[fold])
        assert torch.equal(state["fc.bias"], heads.biases[fold])
        for key, value in start.items():
            assert key.startswith("fc.") or torch.equal(state[key], value)
    assert not torch.equal(heads.weights[0], heads.weights[1])


def test_the_heads_are_those_of_features_computed_on_their_own(experiment, weights):
    run, _ = experiment()
    data, _, preprocess = files_of(run)
    # by hand: timm's own network, PIL's pixels, no code of training's
    model = timm.create_model("test_resnet", num_classes=0).eval()
    own = {key: value for key, value in timm_model.read_state(weights("test_resnet")).items() if key[:3] != "fc."}
    model.load_state_dict(own)
    margin = (preprocess.decode_size - 32) // 2
    pixels = np.stack([data.eval_pixels[preprocess.decoding].squares([row])[0] for row in range(42)])[
        :, margin : margin + 32, margin : margin + 32
    ]
    mean, std = np.array(preprocess.mean), np.array(preprocess.std)
    images = torch.from_numpy(((pixels / 255 - mean) / std).astype(np.float32)).permute(0, 3, 1, 2)
    with torch.inference_mode():
        features = torch.stack([model(images), model(images.flip(3))])
    heads = load_heads(Run(run).member("net").probe_file)
    for fold in range(3):
        train = np.flatnonzero(data.rows.folds != fold)
        flat = features[:, train].flatten(0, 1).double().numpy()
        middle, spread = flat.mean(0), flat.std(0)
        scale = np.where(spread > 0, spread, np.inf)
        model = LogisticRegression(C=1 / (heads.strengths[fold] * len(flat)), tol=1e-9, max_iter=10_000)
        model.fit((flat - middle) / scale, np.tile(data.rows.labels[train], 2))
        held = np.flatnonzero(data.rows.folds == fold)
        want = ((features[:, held].numpy() - middle) / scale) @ model.coef_.T + model.intercept_
        got = oof(run, fold).values
        assert got - got.mean(-1, keepdims=True) == pytest.approx(want - want.mean(-1, keepdims=True), abs=0.02)


def test_done_markers_log_and_what_is_said(experiment):
    run, said = experiment()
    heads = load_heads(Run(run).member("net").probe_file)
    assert heads.weights.shape[:2] == (3, 3) and heads.biases.shape == (3, 3) and len(heads.strengths) == 3
    assert said[0].startswith("net: ") and said[0].endswith(" loaded, left aside: fc.bias, fc.weight, none missing")
    assert said[1] == "42 images, 3 classes; 3 jobs, 0 of them done; on cpu"
    strengths = ", ".join(f"{strength:.2g}" for strength in heads.strengths)
    line = rf"net: features in \d+\.\d s, 3 probes in \d+\.\d s; L2 strengths chosen: {re.escape(strengths)}"
    assert re.fullmatch(line, said[-2]) and said[-1].startswith("the best probe, net, is wrong on ")
    data, _, _ = files_of(run)
    for fold in range(3):
        directory = Run(run).member("net").fold(fold)
        assert directory.is_done()
        names = {"model.safetensors", "oof.safetensors", "log.jsonl"}
        done = read_json(directory.done_json)
        assert set(done["files"]) == names and {path.name for path in directory.path.iterdir()} == names | {
            "done.json",
            "inference.json",
        }
        (line,) = [json.loads(line) for line in directory.log_file.read_text().splitlines()]
        assert line["strategy"] == "probe" and line["strength"] == heads.strengths[fold]
        logits, labels = oof(run, fold).values.mean(0), data.rows.labels[data.rows.folds == fold]
        assert line["held_out_accuracy"] == pytest.approx((logits.argmax(1) == labels).mean(), abs=1e-5)
        log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        assert line["held_out_log_loss"] == pytest.approx(-log_p[np.arange(14), labels].mean(), abs=1e-5)


def test_a_finished_probe_is_left_as_it_is(experiment):
    run, _ = experiment()
    before = [path.stat().st_mtime_ns for path in sorted((run / "net").rglob("*.safetensors"))]
    _, said = experiment()
    assert said == ["42 images, 3 classes; 3 jobs, 3 of them done; on cpu"]
    assert [path.stat().st_mtime_ns for path in sorted((run / "net").rglob("*.safetensors"))] == before


def test_the_same_again_gives_the_same_bits_cached_or_not(experiment):
    one, _ = experiment(run="one")
    two, _ = experiment(run="two", extra='cache = "off"\n')
    for fold in range(3):
        assert np.array_equal(oof(one, fold).values, oof(two, fold).values)


def test_killed_before_its_folds_were_written_it_is_fitted_again(experiment):
    run, _ = experiment(run="one")
    before = [oof(run, fold).values for fold in range(3)]
    Run(run).member("net").probe_file.unlink()  # which is written last
    Run(run).member("net").fold(1).done_json.unlink()
    experiment(run="one")
    assert Run(run).member("net").probe_file.is_file() and Run(run).member("net").fold(1).is_done()
    assert all(np.array_equal(oof(run, fold).values, before[fold]) for fold in range(3))


def test_sample_weights_reach_the_probe(tmp_path, paint, weights):
    rows = [f"{paint(tmp_path / f'{index}.png').name},{'ab'[index % 2]},{{}}" for index in range(24)]
    found = []
    for run, heavy in (("even", 1.0), ("odd", 20.0)):
        lines = [row.format(heavy if index % 2 else 1.0) for index, row in enumerate(rows)]
        (tmp_path / f"{run}.csv").write_text("\n".join(["path,label,weight", *lines]) + "\n")
        (tmp_path / f"{run}.toml").write_text(
            f'run = "{tmp_path / run}"\n[data]\ntrain = "{tmp_path / f"{run}.csv"}"\nimage_size = 32\n'
            f'weight = "weight"\n[folds]\nk = 2\n[train]\nstrategy = "probe"\n'
            f'[[backbone]]\nname = "net"\ntimm = "test_resnet"\nweights = "{weights("test_resnet")}"\n'
        )
        assert train_folds(load_config(tmp_path / f"{run}.toml"), SILENT) == []
        logits = np.concatenate([oof(tmp_path / run, fold).values for fold in (0, 1)], axis=1)
        found.append((logits[..., 1] - logits[..., 0]).mean())
    assert found[1] - found[0] > 1  # odds of 20 to 1 instead of 1 to 1 are worth 3


# ---- features ------------------------------------------------------------------------------------------------------


def test_features_come_in_the_order_of_the_rows_whatever_the_chunk(experiment, weights, monkeypatch):
    run, _ = experiment()
    data, _, preprocess = files_of(run)
    model = timm_model.create("test_resnet", 3, 32, weights=weights("test_resnet")).eval()
    found, rows = {}, []
    monkeypatch.setattr(probe, "CHUNK", 1)
    for batch_size in (5, 64):  # both are 16 on a CPU: 42 rows are three chunks of one batch
        found[batch_size] = member_features(model, data, Evaluation(preprocess, VIEWS, batch_size, CPU), rows.append)
    assert rows == [16, 16, 10] * 2
    assert found[5].dtype == torch.float32 and found[5].shape[:2] == (2, 42)
    monkeypatch.setattr(probe, "CHUNK", 32)
    whole = member_features(model, data, Evaluation(preprocess, VIEWS, 5, CPU), rows.append)
    assert torch.equal(found[64], found[5]) and torch.equal(whole, found[5]) and rows[-1] == 42
    kept = oof(run, 0)
    heads = load_heads(Run(run).member("net").probe_file)
    logits = found[5][:, data.rows.folds == 0] @ heads.weights[0].T + heads.biases[0]
    assert torch.allclose(logits, torch.from_numpy(kept.values), atol=1e-4)


def test_what_is_written_is_what_fit_heads_gives(experiment, tmp_path, weights):
    run, _ = experiment()
    data, _, preprocess = files_of(run)
    events, evaluation, other = Recorder(), Evaluation(preprocess, VIEWS, 5, CPU), Run(tmp_path / "other").member("net")

    def create():
        return timm_model.create("test_resnet", 3, 32, weights=weights("test_resnet"))

    probe_member(other, create(), data, evaluation, False, events)
    assert [step[1:] for step in events.steps] == [(0, 42), (42, 42)] and "images/s" in events.steps[1][0]
    assert len(events.messages) == 1 and events.jobs == []
    features = member_features(create().eval(), data, evaluation, lambda rows: None)
    want = fit_heads(features, data.rows.labels, data.rows.folds, 3)
    for kept in (load_heads(Run(each).member("net").probe_file) for each in (run, tmp_path / "other")):
        assert torch.equal(kept.weights, want.weights) and torch.equal(kept.biases, want.biases)
        assert kept.strengths == want.strengths
    assert Run(tmp_path / "other").member("net").folds() == []  # the folds are to be trained yet


# ---- and then more -------------------------------------------------------------------------------------------------


def test_training_starts_from_the_probes_head(experiment):
    # A vit: a batch norm would drift from its weights without any learning rate.
    probed, _ = experiment(run="probed", name="test_vit")
    still = ("train.lr=1e-9", "train.weight_decay=0")
    tuned, said = experiment(*still, run="tuned", name="test_vit", strategy="probe-then-full")
    partly, _ = experiment(*still, run="partly", name="test_vit", strategy="probe-then-partial")
    learned, _ = experiment("train.lr=1e-3", run="learned", name="test_vit", strategy="probe-then-full")
    plain, _ = experiment(*still, run="plain", name="test_vit", strategy="full")
    assert any(re.match(r"net: features in .* L2 strengths chosen: ", line) for line in said)
    assert Run(probed).member("net").probe_file.read_bytes() == Run(tuned).member("net").probe_file.read_bytes()
    for fold in range(3):
        want = oof(probed, fold).values
        assert np.abs(want).max() > 0.1
        assert oof(tuned, fold).values == pytest.approx(want, abs=1e-4)
        assert oof(partly, fold).values == pytest.approx(want, abs=1e-4)
        assert np.abs(oof(learned, fold).values - want).max() > 1e-2
        assert np.abs(oof(plain, fold).values).max() < 1e-4  # a fresh classifier is 0


def test_after_the_probe_it_goes_on_with_the_folds(experiment):
    whole, _ = experiment(run="whole", name="test_vit", strategy="probe-then-full")
    run, _ = experiment(run="cut", name="test_vit", strategy="probe-then-full")
    for fold in (1, 2):
        for path in Run(run).member("net").fold(fold).path.iterdir():
            path.unlink()
    before = Run(run).member("net").probe_file.stat().st_mtime_ns
    _, said = experiment(run="cut", name="test_vit", strategy="probe-then-full")
    assert Run(run).member("net").probe_file.stat().st_mtime_ns == before  # not fitted again
    assert not any("features in" in line for line in said)
    assert all(np.array_equal(oof(run, fold).values, oof(whole, fold).values) for fold in range(3))


def test_a_probe_whose_fold_was_deleted_writes_it_again(experiment):
    run, _ = experiment()
    before = oof(run, 1).values
    for path in Run(run).member("net").fold(1).path.iterdir():
        path.unlink()
    experiment()
    assert Run(run).member("net").fold(1).is_done() and np.array_equal(oof(run, 1).values, before)

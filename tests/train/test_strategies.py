"""Where training starts and what it changes: from scratch, probes, parts, all of it, another run's member."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from recorder import Recorder
from safetensors.torch import load_file, save_file

from ensemble.backbones import timm_model
from ensemble.backbones.weights import read_state, write_state
from ensemble.config import load_config
from ensemble.data.folds import read_folds
from ensemble.data.logits import load_logits
from ensemble.device import choose_device
from ensemble.errors import UserError
from ensemble.files.reading import read_json
from ensemble.inference.member import load_member
from ensemble.inference.predict import predict_stream
from ensemble.run import Run
from ensemble.train.jobs import train_folds

EXPERIMENT = """
run = "{run}"
workers = 1
[data]
train = "{train}"
image_size = 32
[folds]
k = {k}
[train]
epochs = 2
batch_size = 4
dtype = "float32"
memory_format = "channels_last"
[[backbone]]
name = "net"
timm = "{timm}"
{lines}
"""


@pytest.fixture
def experiment(tmp_path, paint):
    """experiment(run, *lines): an experiment file on 2 classes of 8 images; lines go into the backbone's table."""
    for index in range(16):
        paint(tmp_path / "images" / "ab"[index % 2] / f"{index:02}.png", width=36 + index % 5, height=36)

    def write(run, *lines, timm="test_resnet", train="images", k=2):
        file = tmp_path / f"{run}.toml"
        text = EXPERIMENT.format(run=tmp_path / run, train=tmp_path / train, timm=timm, k=k, lines="\n".join(lines))
        file.write_text(text)
        return file

    return write


@pytest.fixture
def start(tmp_path):
    """A file of weights of a test_resnet with 7 classes, none of them at a round number."""
    torch.manual_seed(3)
    model = timm_model.create("test_resnet", 7, 32)
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.add_(torch.rand_like(value), alpha=0.01)
    file = tmp_path / "start.safetensors"
    save_file(model.state_dict(), file)
    return file


def train(file, *changes):
    events = Recorder()
    assert train_folds(load_config(file, changes), events) == []
    return events.messages


def fold(run, number=0):
    return load_file(Run(run).member("net").fold(number).model_file)


def changed(before, after):
    """Names of what differs, the classifier aside."""
    assert before.keys() == after.keys()
    return {name for name in after if not name.startswith("fc.") and not torch.equal(before[name], after[name])}


def below(state, *prefixes):
    return {name for name in state if name.startswith(prefixes) and not name.startswith("fc.")}


# ---- what changes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"strategy": "probe"}, ()),
        ({"strategy": "partial", "stages": 1}, ("layer4.",)),
        ({"strategy": "partial"}, ("layer3.", "layer4.")),
        ({"strategy": "probe-then-partial", "stages": 1}, ("layer4.",)),
        ({"strategy": "probe-then-full"}, ("",)),
        ({"strategy": "full"}, ("",)),
        ({}, ("",)),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_what_a_strategy_trains(experiment, start, tmp_path, settings, parts):
    file = experiment("run", f'weights = "{start}"', "train = {{ {} }}".format(
        ", ".join(f"{key} = {json.dumps(value)}" for key, value in settings.items())
    ))  # fmt: skip
    said = train(file)
    before, after = load_file(start), fold(tmp_path / "run")
    assert changed(before, after) == below(after, *parts) if parts else changed(before, after) == set()
    assert after["fc.weight"].shape[0] == 2 and after["fc.weight"].any()
    probed = settings.get("strategy", "").startswith("probe")
    assert Run(tmp_path / "run").member("net").probe_file.is_file() == probed
    assert any(line.startswith("net: features in ") for line in said) == probed
    held = read_json(Run(tmp_path / "run").member("net").settings_json)
    assert held["strategy"] == settings.get("strategy", "full")


def test_from_scratch_nothing_is_left_of_pretrained_weights(experiment, tmp_path):
    """Where nothing is said of it, pretrained is on, but nothing is fetched."""
    said = train(experiment("scratch", 'train = { strategy = "scratch" }'))
    train(experiment("none", "pretrained = false"))
    assert not any("features" in line for line in said)
    assert not changed(fold(tmp_path / "scratch"), fold(tmp_path / "none"))
    assert read_json(Run(tmp_path / "scratch").member("net").settings_json)["start"] == "scratch"
    assert read_json(Run(tmp_path / "none").member("net").settings_json)["strategy"] == "scratch"


@pytest.mark.parametrize("strategy", ["probe-then-partial", "probe-then-full"])
def test_training_starts_at_its_folds_own_probe(experiment, start, tmp_path, strategy):
    file = experiment("run", f'weights = "{start}"', f'train = {{ strategy = "{strategy}", lr = 1e-12 }}')
    train(file, "train.epochs=1", "train.hflip=false")
    heads = load_file(Run(tmp_path / "run").member("net").probe_file)
    assert not torch.allclose(heads["weights"][0], heads["weights"][1])
    for number in (0, 1):
        after = fold(tmp_path / "run", number)
        torch.testing.assert_close(after["fc.weight"], heads["weights"][number], rtol=0, atol=1e-9)
        torch.testing.assert_close(after["fc.bias"], heads["biases"][number], rtol=0, atol=1e-9)


def test_a_probes_bits_are_predictions(experiment, start, tmp_path):
    train(experiment("run", f'weights = "{start}"', 'train = { strategy = "probe" }'))
    same_as_prediction(tmp_path / "run", tmp_path / "images")


@pytest.mark.parametrize("numbers", [{"dtype": "bfloat16", "memory_format": "contiguous"}, {"micro_batch": 3}])
def test_numbers_set_by_hand_and_the_bits_are_predictions(experiment, tmp_path, numbers):
    lines = ", ".join(f"{key} = {json.dumps(value)}" for key, value in numbers.items())
    said = train(experiment("run", "pretrained = false", f"train = {{ {lines} }}"))
    found = read_json(Run(tmp_path / "run").member("net").numerics_json)
    assert {key: found[key] for key in numbers} == numbers and found["compile"] is False
    way = "bfloat16, contiguous, 4" if "dtype" in numbers else "float32, channels_last, 3"
    assert any(line.startswith(f"net: {way} images at a time: ") for line in said)
    same_as_prediction(tmp_path / "run", tmp_path / "images")


def same_as_prediction(run, images):
    """Every fold's OOF logits are what `ens tta-predict` makes of the same files."""
    member = load_member(Run(run).member("net"), 2, 2, choose_device())
    for number in (0, 1):
        oof = load_logits(Run(run).member("net").fold(number).oof_file)
        paths = [images / name for name in oof.ids]
        (chunk,) = predict_stream([member], [paths], [oof.views], 64, choose_device())
        assert np.array_equal(oof.values, chunk.values[0][number])


# ---- what does not go together -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "end"),
    [
        (
            ['weights = "x.safetensors"', 'train = { strategy = "scratch" }'],
            "scratch starts without weights; remove weights",
        ),
        *(
            (
                ["pretrained = false", f'train = {{ strategy = "{strategy}" }}'],
                f"strategy '{strategy}' needs weights to start from; give some, or use strategy = \"scratch\"",
            )
            for strategy in ("probe", "partial", "probe-then-partial", "probe-then-full")
        ),
        (
            ['train = { head = "knn" }'],
            "head = 'knn' is fitted on frozen features; it needs strategy = \"probe\" (now 'full')",
        ),
    ],
)
def test_strategies_and_weights_that_do_not_go_together(experiment, lines, end):
    file = experiment("run", *lines)
    with pytest.raises(UserError) as error:
        load_config(file)
    assert str(error.value) == f"{file}: backbone 'net': {end}"


def test_full_goes_with_no_weights_too(experiment):
    load_config(experiment("run", "pretrained = false", 'train = { strategy = "full" }'))


def test_a_strategy_that_is_changed_is_refused(experiment, start, tmp_path):
    weights, own = f'weights = "{start}"', tmp_path / "run" / "net"
    train(experiment("run", weights, 'train = { strategy = "partial" }'), "train.epochs=1")
    with pytest.raises(UserError) as error:
        train(experiment("run", weights, 'train = { strategy = "full" }'), "train.epochs=1")
    assert str(error.value) == (
        f'backbone \'net\': {own} holds it with strategy = "partial", the config says "full": set it back, give the '
        f"backbone another name, or delete {own} to train it again"
    )


def test_crops_of_a_size_that_the_network_does_not_take_are_named_before_training(experiment, tmp_path):
    file = experiment("run", "pretrained = false", "train = { crop_size = 40 }", timm="test_vit")
    with pytest.raises(UserError) as error:
        train(file)
    assert str(error.value) == (
        "backbone 'net': does not work at crop_size = 40: Input height (40) should be divisible by patch size (16)."
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("size", [24, 40])
def test_crops_of_another_size_are_only_for_training(experiment, tmp_path, size):
    train(experiment("run", "pretrained = false", f"train = {{ crop_size = {size} }}"))
    train(experiment("plain", "pretrained = false"))
    assert read_json(Run(tmp_path / "run").member("net").preprocess_json)["image_size"] == 32
    assert changed(fold(tmp_path / "run"), fold(tmp_path / "plain"))
    same_as_prediction(tmp_path / "run", tmp_path / "images")


# ---- another run's member ------------------------------------------------------------------------------------------


@pytest.fixture
def source(experiment, tmp_path, paint):
    """A run of three folds on the same images plus a third class."""
    file = experiment("source", "pretrained = false", timm="test_vit", train="more", k=3)
    shutil.copytree(tmp_path / "images", tmp_path / "more")
    for index in range(6):
        paint(tmp_path / "more" / "c" / f"{index}.png", width=36, height=40)
    train(file, "train.epochs=1")
    return tmp_path / "source"


STILL = ("train.epochs=1", "train.lr=1e-12", "train.weight_decay=0", "seed=1")


def test_fold_i_starts_from_the_sources_fold_i_mod_its_k(experiment, source, tmp_path):
    line = f'weights = "{source / "net"}"'
    said = train(experiment("four", line, timm="test_vit", k=4), *STILL)
    starts = [fold(source, number) for number in range(3)]
    assert not torch.allclose(starts[0]["blocks.0.mlp.fc1.weight"], starts[1]["blocks.0.mlp.fc1.weight"])
    for number in range(4):
        after = fold(tmp_path / "four", number)
        assert after["head.weight"].shape == (2, 64) and starts[0]["head.weight"].shape == (3, 64)
        for name in after.keys() - {"head.weight", "head.bias"}:
            torch.testing.assert_close(after[name], starts[number % 3][name], rtol=0, atol=1e-9)
    theirs = read_folds(Run(source)).set_index("id")["fold"]
    ours = read_folds(Run(tmp_path / "four")).set_index("id")["fold"]
    seen = sum(theirs[name] != ours[name] % 3 for name in ours.index)
    assert 0 < seen < 16
    assert (
        f"warning: net starts from weights that were trained on {seen} of the rows it is scored on: its out-of-fold "
        "score will be too good"
    ) in said
    held = read_json(Run(tmp_path / "four").member("net").settings_json)["start"]
    assert isinstance(held, list) and len(held) == 3


def test_the_same_folds_leak_nothing_and_one_file_leaks(experiment, source, tmp_path):
    said = train(experiment("same", f'weights = "{source / "net"}"', timm="test_vit", train="more", k=3), *STILL[:3])
    assert not any("warning" in line for line in said)
    file = Run(source).member("net").fold(1).model_file
    said = train(experiment("file", f'weights = "{file}"', timm="test_vit", train="more", k=3), *STILL[:3])
    others = (read_folds(Run(source))["fold"] != 1).sum()
    assert any(line.startswith(f"warning: net starts from weights that were trained on {others} of") for line in said)
    for number in range(3):
        after = fold(tmp_path / "file", number)
        torch.testing.assert_close(after["norm.weight"], fold(source, 1)["norm.weight"], rtol=0, atol=1e-9)


@pytest.mark.parametrize("strategy", ["probe", "probe-then-full"])
def test_probes_share_the_features_of_the_sources_fold_0_which_is_told(experiment, source, tmp_path, strategy):
    """The same folds, so that networks that start from their own fold's would leak nothing."""
    line = f'weights = "{source / "net"}"'
    file = experiment("same", line, f'train = {{ strategy = "{strategy}" }}', timm="test_vit", train="more", k=3)
    seen = (read_folds(Run(source))["fold"] != 0).sum()
    assert any(
        said.startswith(f"warning: net is probed on the features of {source / 'net' / 'fold0' / 'model.safetensors'}, ")
        and f"trained on {seen} of the rows" in said
        for said in train(file, *STILL[:3])
    )


def test_a_source_that_was_trained_again_is_noticed(experiment, source, tmp_path):
    file = experiment("run", f'weights = "{source / "net"}"', timm="test_vit")
    train(file, *STILL)
    fold = Run(source).member("net").fold(2)
    state = read_state(fold.model_file)
    write_state(fold.model_file, {name: value + 1 for name, value in state.items()}, {})
    fold.mark_done([fold.model_file, fold.oof_file])
    with pytest.raises(UserError, match=r"holds it with start = \[\"[0-9a-f]+"):
        train(file, *STILL)


# ---- images that change --------------------------------------------------------------------------------------------


class Stopped(Exception):
    pass


class StopInFold1(Recorder):
    def progress(self, text, done, total):
        if text.startswith("net fold 1 epoch 1/"):
            raise Stopped


@pytest.fixture
def stopped(experiment, tmp_path):
    """stopped(ending, *changes): a run that was stopped in its second fold, of images in this format."""

    def run(ending, *changes):
        for path in (tmp_path / "images").rglob("*.png"):
            Image.open(path).save(path.with_suffix(ending))
            if ending != ".png":
                path.unlink()
        file = experiment("run", "pretrained = false")
        with pytest.raises(Stopped):
            train_folds(load_config(file, changes), StopInFold1())
        return file

    return run


def test_an_image_that_changed_its_size_is_noticed_at_the_next_start(stopped, tmp_path, paint):
    file = stopped(".png")
    paint(tmp_path / "images" / "a" / "00.png", 50, 36)
    with pytest.raises(UserError, match="holds a run with another data fingerprint"):
        train(file)


@pytest.mark.parametrize("cache", ["auto", "off"])
def test_without_a_cache_and_with_one_a_stopped_run_goes_on(stopped, experiment, tmp_path, cache):
    change = f"data.cache={cache}"
    train(stopped(".png", change), change)
    train(experiment("whole", "pretrained = false"), change)
    for number in (0, 1):
        a, b = fold(tmp_path / "run", number), fold(tmp_path / "whole", number)
        assert all(torch.equal(a[name], b[name]) for name in b)
    same_as_prediction(tmp_path / "run", tmp_path / "images")

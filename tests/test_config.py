"""The experiment file: read, changed from the command line, refused with the key that is wrong."""

import tomllib
from pathlib import Path

import pytest

from ensemble.config import Backbone, Config, Data, Folds, Train, Tta, load_config, train_settings
from ensemble.errors import UserError
from ensemble.toml import to_toml, toml_value

FULL = """
run = "runs/art"
seed = 7

[data]
train = "data/my art/train.csv"
image_size = 160
crop = [300, 200]
path = "file"
label = "kind"
id = "n"
group = "person"

[folds]
k = 3
method = "grouped"
fold = "part"

[train]
epochs = 3
batch_size = 32
lr = 3e-4
warmup_epochs = 0.5
weight_decay = 0.01
label_smoothing = 0
ema = 0
crop_area = [0.5, 0.9]
hflip = false
color_jitter = 0.1
strategy = "partial"

[tta]
views = ["identity"]
batch_size = 16

[[backbone]]
name = "convnext"
timm = "convnext_tiny.fb_in22k_ft_in1k"

[[backbone]]
name = "swin"
timm = "swin_tiny_patch4_window7_224"
pretrained = false
weights = "weights/own.safetensors"
image_size = 224
train = { lr = 1e-4, strategy = "probe", crop_area = [0.2, 1.0] }
"""

SHORT = """
run = "r"

[data]
train = "d"

[[backbone]]
name = "net"
timm = "test_resnet"
"""


@pytest.fixture
def load(tmp_path):
    """load(text, *changes): the config of an experiment file with that text."""

    def read(text, *changes):
        (tmp_path / "art.toml").write_text(text, encoding="utf-8")
        return load_config(tmp_path / "art.toml", changes)

    return read


@pytest.fixture
def refusal(load, tmp_path):
    """refusal(text, *changes): what is said against it, less the name of the file that it must begin with."""

    def refuse(text, *changes):
        with pytest.raises(UserError) as caught:
            load(text, *changes)
        line = str(caught.value)
        assert "\n" not in line
        if line.startswith("--set"):
            return line
        assert line.startswith(f"{tmp_path / 'art.toml'}: ")
        return line.removeprefix(f"{tmp_path / 'art.toml'}: ")

    return refuse


# ---- what is read --------------------------------------------------------------------------------------------------


def test_full_file(load):
    own = {"lr": 1e-4, "strategy": "probe", "crop_area": [0.2, 1.0]}
    swin = Backbone(
        name="swin",
        timm="swin_tiny_patch4_window7_224",
        pretrained=False,
        weights=Path("weights/own.safetensors"),
        image_size=224,
        train=own,
    )
    assert load(FULL) == Config(
        run=Path("runs/art"),
        seed=7,
        data=Data(
            train=Path("data/my art/train.csv"),
            image_size=160,
            crop=(300, 200),
            path="file",
            label="kind",
            id="n",
            group="person",
        ),
        folds=Folds(k=3, method="grouped", fold="part"),
        train=Train(
            epochs=3,
            batch_size=32,
            lr=3e-4,
            warmup_epochs=0.5,
            weight_decay=0.01,
            label_smoothing=0.0,
            ema=0.0,
            crop_area=(0.5, 0.9),
            hflip=False,
            color_jitter=0.1,
            strategy="partial",
        ),
        tta=Tta(views=("identity",), batch_size=16),
        backbone=(Backbone(name="convnext", timm="convnext_tiny.fb_in22k_ft_in1k"), swin),
    )


def test_short_file_takes_the_defaults(load):
    config = load(SHORT)
    assert (config.seed, config.folds.k, config.data.image_size) == (0, 5, 224)
    assert config.train == Train() and config.tta.views == ("identity", "hflip")
    assert config.backbone == (Backbone(name="net", timm="test_resnet", pretrained=True),)


def test_backbones_own_train_settings_lie_over_the_common_ones(load):
    config = load(FULL)
    common, own = (train_settings(config, backbone) for backbone in config.backbone)
    assert common == config.train
    assert (own.lr, own.strategy, own.crop_area) == (1e-4, "probe", (0.2, 1.0))
    assert (own.epochs, own.hflip, own.ema) == (3, False, 0.0)


# ---- unknown and missing keys --------------------------------------------------------------------------------------


def test_unknown_key_is_answered_with_the_nearest(refusal):
    assert refusal("sed = 1\n" + SHORT) == "unknown key sed; did you mean 'seed'?"
    assert refusal(SHORT + "\n[train]\nepocs = 3") == "unknown key train.epocs; did you mean 'epochs'?"
    assert refusal(SHORT + "\n[tta]\nview = []") == "unknown key tta.view; did you mean 'views'?"
    assert refusal(SHORT + '\ntim = "x"') == "unknown key backbone.0.tim; did you mean 'timm'?"
    own = FULL.replace("{ lr = 1e-4", "{ epoch = 4")
    assert refusal(own) == "unknown key backbone.1.train.epoch; did you mean 'epochs'?"


def test_unknown_key_near_to_none_is_answered_with_all_of_them(refusal):
    assert refusal(SHORT + "\n[folds]\nzzz = 1") == "unknown key folds.zzz; known keys: k, method, fold, near_copies"
    known = "run, seed, workers, gpus_per_job, data, folds, train, tta, log, backbone"
    assert refusal("zzz = 1\n" + SHORT) == f"unknown key zzz; known keys: {known}"


@pytest.mark.parametrize(
    "line, key",
    [
        ('run = "r"', "run"),
        ('[data]\ntrain = "d"', "data"),
        ('train = "d"', "data.train"),
        ('[[backbone]]\nname = "net"\ntimm = "test_resnet"', "backbone"),
        ('timm = "test_resnet"', "backbone.0.timm"),
    ],
)
def test_missing_key(refusal, line, key):
    assert SHORT.count(line) == 1
    assert refusal(SHORT.replace(line, "")) == f"{key} is missing"


# ---- wrong values --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line, says",
    [
        ("[train]\nepochs = 'many'", "train.epochs = 'many': input should be a valid integer, unable to parse string"),
        ("[train]\nepochs = 0", "train.epochs = 0: input should be greater than 0"),
        ("[train]\nlr = inf", "train.lr = inf: input should be a finite number"),
        ("[train]\nlr = -1", "train.lr = -1: input should be greater than 0"),
        ("[train]\nema = 1", "train.ema = 1: input should be less than 1"),
        ("[train]\nstrategy = 'body'", "train.strategy = 'body': input should be 'scratch', 'probe', 'partial', "),
        (
            "[train]\nsampler = 'balanced'\nloss = 'logit_adjusted'",
            "sampler = 'balanced' and loss = 'logit_adjusted' mend the same imbalance twice: take one",
        ),
        (
            "[train]\ntrivial_augment = true\naugment_rare = true",
            "trivial_augment gives all classes what augment_rare gives the rarer ones: take one",
        ),
        ("[train]\ncrop_area = 0.5", "train.crop_area = 0.5: input should be a valid tuple"),
        ("[train]\ncrop_area = [0.5]", "train.crop_area.1 is missing"),
        ("[train]\ncrop_area = [0.5, 2]", "train.crop_area.1 = 2: input should be less than or equal to 1"),
        ("[folds]\nk = 1", "folds.k = 1: input should be greater than or equal to 2"),
        ("[folds]\nmethod = 'random'", "folds.method = 'random': input should be 'stratified', 'grouped' or"),
        ("[tta]\nviews = []", "tta.views = []: tuple should have at least 1 item"),
        ("[[backbone]]\nname = 'a/b'\ntimm = 'x'", "backbone.1.name = 'a/b': string should match pattern"),
        ("train = { lr = -1 }", "backbone.0.train.lr = -1: input should be greater than 0"),
        ("train = 3", "backbone.0.train = 3: input should be a valid dictionary"),
    ],
)
def test_wrong_value_is_named_with_its_key(refusal, line, says):
    assert refusal(f"{SHORT}\n{line}").startswith(says)


def test_gpus_of_a_job(load, refusal):
    assert load(SHORT).gpus_per_job == "auto"
    for text, value in (("4", 4), ('"1/4"', "1/4"), ('"1/1"', "1/1")):
        assert load(f"gpus_per_job = {text}\n{SHORT}").gpus_per_job == value
        assert load(SHORT, f"gpus_per_job={text.strip(chr(34))}").gpus_per_job == value  # as the option gives it
    for text, value in (
        ("0", "0"),
        ("-1", "-1"),
        ("true", "True"),
        ("0.5", "0.5"),
        ('"2/3"', "'2/3'"),
        ('"1/0"', "'1/0'"),
    ):
        line = f'gpus_per_job = {value}: must be "auto", a number of GPUs (1, 2, ...), or "1/k": k jobs on each GPU'
        assert refusal(f"gpus_per_job = {text}\n{SHORT}") == line


@pytest.mark.parametrize("place", ["[train]\ncrop_area = {}", "train = {{ crop_area = {} }}"])
def test_crop_area_out_of_order(refusal, load, place):
    line = "crop_area = [{}] must be two shares with 0 < first <= second"
    assert refusal(f"{SHORT}\n{place.format('[0.9, 0.1]')}") == line.format("0.9, 0.1")
    assert refusal(f"{SHORT}\n{place.format('[0, 0.1]')}") == line.format("0.0, 0.1")
    load(f"{SHORT}\n{place.format('[0.5, 0.5]')}")


def test_two_backbones_of_one_name(refusal):
    second = '\n[[backbone]]\nname = "net"\ntimm = "test_vit"'
    assert refusal(SHORT + second) == "two backbones are named 'net': give each its own name"


@pytest.mark.parametrize("name", ["blends", "predictions", "tensorboard", "wandb"])
def test_backbone_named_like_a_folder_of_the_run(refusal, name):
    line = f"a backbone cannot be named {name!r}: the run keeps its own files there"
    assert refusal(SHORT.replace("net", name, 1)) == line


def test_file_that_is_not_toml(refusal):
    assert refusal(SHORT + "\nepochs: 3").startswith("not valid TOML: Expected '=' after a key")


def test_path_without_a_text_file(tmp_path):
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    says = {
        "no.toml": "{}: no such file; write one with: ens init DATA -o {}",
        "": "{}: is a folder; write an experiment file with: ens init {}",
        "bytes.toml": "{}: not valid TOML: ",
    }
    for name, line in says.items():
        with pytest.raises(UserError) as caught:
            load_config(tmp_path / name)
        assert str(caught.value).startswith(line.format(tmp_path / name, tmp_path / name))


# ---- --set ---------------------------------------------------------------------------------------------------------


def test_set_changes_any_key(load):
    config = load(
        FULL,
        "seed=0",
        "run=runs/other place",
        "train.epochs=9",
        "train.hflip=true",
        "train.crop_area=[0.1, 0.2]",
        "tta.views=['hflip', 'identity']",
        "data.group='who'",
        "backbone.swin.timm=swin_s3_tiny_224",
        "backbone.swin.train.lr=0.5",
        "backbone.convnext.train.epochs=4",
    )
    assert (config.seed, config.run, config.data.group) == (0, Path("runs/other place"), "who")
    assert (config.train.epochs, config.train.hflip, config.train.crop_area) == (9, True, (0.1, 0.2))
    assert config.tta.views == ("hflip", "identity")
    convnext, swin = config.backbone
    assert (swin.timm, swin.train["lr"], swin.train["strategy"]) == ("swin_s3_tiny_224", 0.5, "probe")
    assert convnext.train == {"epochs": 4}


def test_set_makes_tables_that_the_file_leaves_out(load):
    config = load(SHORT, "train.epochs=9", "backbone.net.train.lr=1", "folds.k=2")
    assert (config.train.epochs, config.folds.k, config.backbone[0].train) == (9, 2, {"lr": 1})


def test_later_set_wins_and_may_hold_an_equals_sign(load):
    assert load(SHORT, "seed=1", "seed=2", "run=a=b").model_dump(include={"seed", "run"}) == {
        "seed": 2,
        "run": Path("a=b"),
    }


@pytest.mark.parametrize(
    "change, says",
    [
        ("seed", "must be KEY=VALUE, for example --set train.epochs=3"),
        ("=3", "must be KEY=VALUE, for example --set train.epochs=3"),
        ("seed.x=3", "'seed' is a value, not a table"),
        ("tta.views.0=hflip", "'views' is a value, not a table"),
        ("backbone.net.name.x=3", "'name' is a value, not a table"),
        ("backbone.net=3", "name the backbone and its key: backbone.NAME.KEY=VALUE"),
        ("backbone.swin.timm=x", "no backbone is named 'swin'; there are: net"),
    ],
)
def test_wrong_forms_of_set(refusal, change, says):
    assert refusal(SHORT + "\n[tta]\nviews = ['identity']", *["seed=3", change]) == f"--set {change}: {says}"


def test_set_on_backbones_without_a_name(refusal):
    change = "backbone.net.timm=x"
    says = f"--set {change}: no backbone is named 'net'; there are: "
    assert refusal(SHORT.replace('name = "net"', ""), change).startswith(says)
    assert refusal('backbone = ["net"]', change).startswith(says)


def test_set_of_an_unknown_key_or_a_wrong_value(refusal):
    assert refusal(SHORT, "train.epoch=3") == "unknown key train.epoch; did you mean 'epochs'?"
    assert refusal(SHORT, "backbone.net.tim=x") == "unknown key backbone.0.tim; did you mean 'timm'?"
    assert refusal(SHORT, "train.epochs=").startswith("train.epochs = '': input should be a valid integer")


# ---- writing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [FULL, SHORT])
def test_config_written_and_read_again_is_the_same(load, text):
    config = load(text)
    again = load(to_toml(config))
    assert again == config
    assert load(to_toml(again)) == config


def test_written_file_names_every_default(load):
    values = tomllib.loads(to_toml(load(SHORT)))
    assert values["train"] == {**Train().model_dump(exclude_none=True), "crop_area": [0.35, 1.0]}
    assert values["backbone"] == [{"name": "net", "timm": "test_resnet", "pretrained": True}]


def written_and_read(value):
    return tomllib.loads(f"value = {toml_value(value)}")["value"]


@pytest.mark.parametrize(
    "text", ['"a" and \\', "C:\\data", "한글\tand\nlines", "e\u0301", "\x00\x1f\x7f", "", "'", "😀"]
)
def test_strings_are_written_as_toml_reads_them(text):
    assert written_and_read(text) == text


@pytest.mark.parametrize("value", [0, -3, 1e-5, 1e22, 0.1, 3.0, True, [], [1, 2], ["a"], {"lr": 1e-4, "views": ["x"]}])
def test_numbers_lists_and_tables_are_written_as_toml_reads_them(value):
    again = written_and_read(value)
    assert again == value and type(again) is type(value)


def test_label_may_be_a_list_of_columns(tmp_path):
    text = 'run = "r"\n[data]\ntrain = "t.csv"\nlabel = {}\n[[backbone]]\nname = "a"\ntimm = "resnet18"\n'
    path = tmp_path / "e.toml"
    path.write_text(text.format('["rust", "scab"]'))
    config = load_config(path)
    assert config.data.label == ("rust", "scab")
    path.write_text(to_toml(config))
    assert load_config(path) == config
    for value, line in {
        '["rust"]': "data.label = ['rust']: a list names two or more different columns of 0 and 1",
        '["rust", "rust"]': "data.label = ['rust', 'rust']: a list names two or more different columns of 0 and 1",
        "3": "data.label = 3: input should be a valid string",
    }.items():
        path.write_text(text.format(value))
        with pytest.raises(UserError) as caught:
            load_config(path)
        assert str(caught.value) == f"{path}: {line}"


def test_seeds_are_members_of_their_own(load, refusal):
    config = load(SHORT + "\nseeds = 3")
    assert [backbone.name for backbone in config.backbone] == ["net", "net-2", "net-3"]
    assert {(backbone.timm, backbone.seeds) for backbone in config.backbone} == {("test_resnet", None)}
    assert load(SHORT, "backbone.net.seeds=2").backbone == config.backbone[:2]
    assert load(to_toml(config)) == config
    assert refusal(SHORT + "\nseeds = 0") == "backbone.0.seeds = 0: input should be greater than 0"
    same = SHORT + "\nseeds = 2\n[[backbone]]\nname = 'net-2'\ntimm = 'test_vit'"
    assert refusal(same) == "two backbones are named 'net-2': give each its own name"
    wrong = SHORT + "\nseeds = 4\n[[backbone]]\nname = 'other'\ntimm = 'test_vit'\ntrain = { epoch = 1 }"
    assert refusal(wrong) == "unknown key backbone.1.train.epoch; did you mean 'epochs'?"  # as it is written


def test_swa_averages_epochs_that_there_are(refusal):
    assert refusal(SHORT + "\n[train]\nepochs = 3\nswa_epochs = 4") == "swa_epochs = 4 is more than epochs = 3"
    assert "take one of the two" in refusal(SHORT + "\n[train]\nswa_epochs = 4\nkeep = 'best'")

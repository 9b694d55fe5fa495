"""The command line: help for everything, one line for every mistake, the right exit status."""

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from ensemble import cli
from ensemble.config import load_config, to_toml

ROOT = Path(__file__).parent.parent
TINY = '[[backbone]]\nname = "resnet"\ntimm = "test_resnet"\npretrained = false\n'


def ens(monkeypatch, capfd, *words):
    """Run `ens` with these words: its exit status, what it printed, and its error lines."""
    monkeypatch.setattr(sys, "argv", ["ens", *map(str, words)])
    status = 0
    try:
        cli.main()
    except SystemExit as ended:
        status = ended.code
    printed = capfd.readouterr()
    return status, printed.out, printed.err


@pytest.fixture
def images(tmp_path, paint):
    for index in range(12):
        paint(tmp_path / "images" / "ab"[index % 2] / f"{index}.png")
    return tmp_path / "images"


def experiment(tmp_path, images, extra=TINY, data=""):
    file = tmp_path / "e.toml"
    train = "[train]\nepochs = 1\nbatch_size = 4\n"
    file.write_text(
        f'run = "{tmp_path / "run"}"\n[data]\ntrain = "{images}"\nimage_size = 32\n{data}[folds]\nk = 2\n{train}{extra}'
    )
    return file


def test_every_command_has_help_with_an_example_and_a_place_in_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, command in cli.ens.commands.items():
        assert command.help and "Example: ens" in command.help, name
        assert f"ens {name}" in readme, name
        for option in command.params:
            assert isinstance(option, click.Argument) or option.help, (name, option.name)


def test_every_config_key_is_in_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    from ensemble import config

    for table in (config.Data, config.Folds, config.Train, config.Tta, config.Backbone):
        for key in table.model_fields:
            assert f"`{key}`" in readme, key


@pytest.mark.parametrize("statement", ["import ensemble", "import ensemble.blend", "from ensemble import cli, init"])
def test_torch_is_not_loaded_by(statement):
    code = f"{statement}; import sys; sys.exit('torch' in sys.modules or 'timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_help_and_blend_do_not_load_torch():
    for words in (["--help"], ["blend", "nowhere"], ["train-folds", "--help"]):
        code = (
            f"import sys; sys.argv = ['ens', *{words}]\nfrom ensemble import cli\n"
            "try: cli.main()\nexcept SystemExit: pass\nsys.exit('torch' in sys.modules)"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0


def test_the_whole_way(monkeypatch, capfd, tmp_path, images):
    file = experiment(tmp_path, images)
    status, out, _ = ens(monkeypatch, capfd, "train-folds", file)
    assert status == 0 and "12 images, 2 classes; 2 jobs, 0 of them done" in out
    assert re.search(r"resnet +2/2 +\d+\.\d\d ±", out) and f"next: ens blend {tmp_path / 'run'} --method stack" in out
    for method in ("mean", "vote", "greedy", "stack"):
        status, out, _ = ens(monkeypatch, capfd, "blend", tmp_path / "run", "--method", method)
        assert status == 0 and "plain mean" in out and "P(better)" in out
    sample = tmp_path / "sample.csv"
    sample.write_text("ImageID,ans\n3,0\n0,0\n")
    words = ["tta-predict", tmp_path / "run", images, "--blend", "vote", "--sample-submission", sample]
    status, out, _ = ens(monkeypatch, capfd, *words, "-o", tmp_path / "s.csv")
    assert status == 0 and "2 rows of class numbers (0 = a, 1 = b)" in out
    assert re.fullmatch(r"ImageID,ans\n3,[01]\n0,[01]\n", (tmp_path / "s.csv").read_text())


def test_init_writes_a_file_that_trains(monkeypatch, capfd, tmp_path, images):
    file = tmp_path / "mine.toml"
    status, out, _ = ens(monkeypatch, capfd, "init", images, "-o", file)
    assert status == 0 and "12 images, 2 classes" in out and f"wrote {file}" in out
    config = load_config(file)
    assert config.data.train == images
    small = config.model_copy(update={"run": tmp_path / "run", "backbone": config.backbone[:1]})
    file.write_text(to_toml(small))
    changes = [f"backbone.{small.backbone[0].name}.{change}" for change in ("timm=test_resnet", "pretrained=false")]
    words = [word for change in (*changes, "train.epochs=1") for word in ("--set", change)]
    assert ens(monkeypatch, capfd, "train-folds", file, *words)[0] == 0


@pytest.mark.parametrize(
    ("extra", "data", "line"),
    [
        (TINY, "image_sise = 3\n", "unknown key data.image_sise; did you mean 'image_size'?"),
        (TINY.replace("test_resnet", "tset_resnet"), "", "unknown timm model 'tset_resnet'; nearest: test_resnet"),
        (TINY.replace("pretrained = false", 'weights = "no.safetensors"'), "", "no.safetensors: no such weights file"),
        (TINY.replace("test_resnet", "test_vit"), "", ""),
        (TINY + "lr = 1e-4\n", "", "unknown key backbone.0.lr; it is a key of train: write train = { lr = ... } there"),
    ],
)
def test_mistakes_in_the_experiment_end_with_status_2_and_one_line(
    monkeypatch, capfd, tmp_path, images, extra, data, line
):
    changes = [] if line else ["--set", "data.image_size=8"]
    status, _, err = ens(monkeypatch, capfd, "train-folds", experiment(tmp_path, images, extra, data), *changes)
    assert status == 2 and len(err.strip().splitlines()) == 1 and err.startswith("ens: ")
    assert (line or "backbone 'resnet': does not work at image_size = 8: ") in err
    assert not (tmp_path / "run").exists()


def test_an_unreadable_image_is_named(monkeypatch, capfd, tmp_path, images):
    (images / "a" / "bad 사진.jpg").write_text("not an image")
    status, _, err = ens(monkeypatch, capfd, "train-folds", experiment(tmp_path, images))
    assert status == 2 and "bad 사진.jpg: not a readable image" in err and "Traceback" not in err
    (images / "a" / "bad 사진.jpg").unlink()  # nothing is trained yet, so the run may start with other images
    assert ens(monkeypatch, capfd, "train-folds", experiment(tmp_path, images))[0] == 0


def test_a_failed_job_ends_with_status_1_after_the_table(monkeypatch, capfd, tmp_path, images):
    extra = TINY + TINY.replace('"resnet"', '"bad"') + "train = { lr = 1e30, epochs = 3 }\n"
    status, out, err = ens(monkeypatch, capfd, "train-folds", experiment(tmp_path, images, extra))
    assert status == 1 and "members, out of fold" in out
    assert err.startswith("ens: 2 jobs failed: bad fold 0: the loss turned nan in epoch ")
    status, out, _ = ens(monkeypatch, capfd, "blend", tmp_path / "run", "--method", "mean")
    assert status == 0 and "left out: bad (" in out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["train-folds", "none.toml"], "ens: none.toml: no such file; write one with: ens init DATA -o none.toml"),
        (
            ["blend", "nowhere"],
            "ens: nowhere: not a run directory (it has no folds.csv); make one with: ens train-folds",
        ),
        (["tta-predict", "nowhere", "x"], "ens: nowhere: not a run directory"),
        (["init", "nowhere"], "ens: nowhere: "),
        (["blend"], "ens: name either a RUN, or --labels with --add; see: ens blend --help"),
        (["tta-predict"], "Error: Missing argument 'RUN'."),
        (["blnd"], "Error: No such command 'blnd'."),
        (["blend", "x", "--method", "best"], "Error: Invalid value for '--method': 'best' is not one of"),
    ],
)
def test_wrong_words_end_with_status_2(monkeypatch, capfd, tmp_path, words, line):
    monkeypatch.chdir(tmp_path)
    status, _, err = ens(monkeypatch, capfd, *words)
    assert status == 2 and line in err and "Traceback" not in err


def test_every_config_in_the_repository_loads():
    files = sorted((ROOT / "configs").glob("*.toml"))
    assert {file.stem for file in files} >= {"digits", "art_painting", "food42", "food42_transfer", "mask18"}
    for file in files:
        config = load_config(file)
        assert file.read_text(encoding="utf-8").startswith(f"# ens train-folds configs/{file.name}")
        from ensemble.backbones import check_name

        for backbone in config.backbone:
            check_name(backbone.timm)


def test_the_digits_config_is_the_demos():
    from ensemble.demo import EXPERIMENT

    text = EXPERIMENT.format(run='"ens-demo/run"', train='"ens-demo/digits/train"')
    assert (ROOT / "configs" / "digits.toml").read_text(encoding="utf-8").endswith(text)


def test_food_transfers_from_the_first_runs_weights_to_another_class_count(monkeypatch, capfd, tmp_path, paint):
    """The two food experiments at toy size: 3 classes from scratch, then 2 others from the first run's weights."""
    for name, classes in (("first", "abc"), ("second", "xy")):
        for index in range(12):
            paint(tmp_path / name / classes[index % len(classes)] / f"{index}.png")
    small = ["data.image_size=32", "train.epochs=1", "train.batch_size=4", "folds.k=2"]
    scratch = [
        *small,
        f"run={tmp_path / 'one'}",
        f"data.train={tmp_path / 'first'}",
        "backbone.resnet18.timm=test_resnet",
    ]
    words = [word for change in scratch for word in ("--set", change)]
    assert ens(monkeypatch, capfd, "train-folds", ROOT / "configs" / "food42.toml", *words)[0] == 0
    second = [*small, f"run={tmp_path / 'two'}", f"data.train={tmp_path / 'second'}"]
    for name in ("probe", "last", "all"):
        second += [f"backbone.{name}.timm=test_resnet", f"backbone.{name}.train.epochs=1"]
        second += [f"backbone.{name}.weights={tmp_path / 'one' / 'resnet18' / 'fold0' / 'model.safetensors'}"]
    words = [word for change in second for word in ("--set", change)]
    status, out, _ = ens(monkeypatch, capfd, "train-folds", ROOT / "configs" / "food42_transfer.toml", *words)
    assert status == 0 and all(name in out for name in ("probe", "last", "all"))


def test_the_mask_config_keeps_people_on_one_side_and_crops_at_prediction_too(monkeypatch, capfd, tmp_path, paint):
    from ensemble import rundir
    from ensemble.data.folds import read_folds
    from ensemble.data.pixels import load_preprocess

    rows = ["path,label,person"]
    for index in range(48):
        paint(tmp_path / "images" / f"{index}.png", width=48, height=64)
        rows.append(f"images/{index}.png,{index // 6 % 4},p{index // 3}")
    (tmp_path / "train.csv").write_text("\n".join(rows))
    (tmp_path / "info.csv").write_text("ImageID,ans\n7.png,0\n5.png,0\n")
    config = load_config(ROOT / "configs" / "mask18.toml")
    names = [backbone.name for backbone in config.backbone]
    changes = [f"run={tmp_path / 'run'}", f"data.train={tmp_path / 'train.csv'}", "data.image_size=32"]
    changes += ["data.crop=[40, 40]", "train.epochs=1", "train.batch_size=8", "folds.k=2"]
    for name in names:
        changes += [f"backbone.{name}.timm=test_resnet", f"backbone.{name}.pretrained=false"]
    words = [word for change in changes for word in ("--set", change)]
    assert ens(monkeypatch, capfd, "train-folds", ROOT / "configs" / "mask18.toml", *words)[0] == 0
    folds = read_folds(tmp_path / "run")
    assert folds.groupby("group")["fold"].nunique().max() == 1 and folds["group"].nunique() == 16
    assert load_preprocess(rundir.preprocess_json(tmp_path / "run", names[0])).crop == (40, 40)
    words = ["blend", tmp_path / "run", "--method", "vote", "--metric", "macro_f1"]
    assert ens(monkeypatch, capfd, *words)[0] == 0
    words = ["tta-predict", tmp_path / "run", tmp_path / "images", "--sample-submission", tmp_path / "info.csv"]
    assert ens(monkeypatch, capfd, *words, "-o", tmp_path / "s.csv")[0] == 0
    assert re.fullmatch(r"ImageID,ans\n7\.png,[0-3]\n5\.png,[0-3]\n", (tmp_path / "s.csv").read_text())

"""The command line: help for everything, one line for every mistake, the right exit status."""

import functools
import json
import multiprocessing
import re
import subprocess
import sys
import traceback
import warnings
from pathlib import Path

import pytest
from commands import ens

import ensemble
from ensemble import cli
from ensemble.config import load_config
from ensemble.files.reading import read_json
from ensemble.run import Run
from ensemble.toml import to_toml

ROOT = Path(__file__).parents[2]
TINY = '[[backbone]]\nname = "resnet"\ntimm = "test_resnet"\npretrained = false\n'


@pytest.fixture
def images(tmp_path, paint):
    for index in range(12):
        paint(tmp_path / "images" / "ab"[index % 2] / f"{index}.png")
    return tmp_path / "images"


def experiment(tmp_path, images, extra=TINY, data=""):
    file = tmp_path / "e.toml"
    train = '[train]\nepochs = 1\nbatch_size = 4\ndtype = "float32"\nmemory_format = "channels_last"\n'
    file.write_text(
        f'run = "{tmp_path / "run"}"\n[data]\ntrain = "{images}"\nimage_size = 32\n{data}[folds]\nk = 2\n{train}{extra}'
    )
    return file


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


def test_a_wrong_command_line_is_told_before_scipy_is_loaded():
    code = (
        "import sys; sys.argv = ['ens', 'train-folds', 'nowhere.toml']\nfrom ensemble import cli\n"
        "try: cli.main()\nexcept SystemExit: pass\nsys.exit('scipy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0


def test_the_whole_way(monkeypatch, capfd, tmp_path, images):
    file = experiment(tmp_path, images)
    status, out, _ = ens(monkeypatch, capfd, "train-folds", file)
    assert status == 0 and "12 images, 2 classes; 2 jobs, 0 of them done" in out
    assert re.search(r"resnet +2/2 +\d+\.\d\d ±", out) and f"next: ens blend {tmp_path / 'run'}" in out
    for method in ("mean", "vote", "greedy", "stack"):
        status, out, _ = ens(monkeypatch, capfd, "blend", tmp_path / "run", "--method", method)
        assert status == 0 and "plain mean" in out and "P(better)" in out
    sample = tmp_path / "sample.csv"
    sample.write_text("ImageID,ans\n3,0\n0,0\n")
    words = ["tta-predict", tmp_path / "run", images, "--blend", "vote", "--sample-submission", sample]
    status, out, _ = ens(monkeypatch, capfd, *words, "-o", tmp_path / "s.csv")
    assert (
        status == 0 and out.count("class numbers: 0 = a, 1 = b") == 1 and "(2 rows of class numbers; the first: " in out
    )
    assert f"next: ens report {tmp_path / 'run'}" in out.splitlines()[-1]
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
    changes += ("train.epochs=1", "train.strategy=scratch", "train.dtype=float32", "train.memory_format=channels_last")
    words = [word for change in changes for word in ("--set", change)]
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


def test_gpus_per_job_goes_before_the_experiment_file(monkeypatch, capfd, tmp_path, images):
    file = experiment(tmp_path, images)
    file.write_text("gpus_per_job = 7\n" + file.read_text())
    status, _, err = ens(monkeypatch, capfd, "train-folds", file, "--gpus-per-job", "half")
    assert status == 2 and err.startswith(f"ens: {file}: gpus_per_job = 'half': must be \"auto\", a number of GPUs")


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
        from ensemble.backbones.timm_model import check_name

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
    small += ["train.dtype=float32", "train.memory_format=channels_last"]
    scratch = [
        *small,
        f"run={tmp_path / 'one'}",
        f"data.train={tmp_path / 'first'}",
        "backbone.resnet18.timm=test_resnet",
        "backbone.resnet34.timm=test_resnet",
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
    from ensemble.data.folds import read_folds
    from ensemble.data.pixels.preprocess import load_preprocess

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
    folds = read_folds(Run(tmp_path / "run"))
    assert folds.groupby("group")["fold"].nunique().max() == 1 and folds["group"].nunique() == 16
    assert load_preprocess(Run(tmp_path / "run").member(names[0]).preprocess_json).crop == (40, 40)
    words = ["blend", tmp_path / "run", "--method", "vote", "--metric", "macro_f1"]
    assert ens(monkeypatch, capfd, *words)[0] == 0
    words = ["tta-predict", tmp_path / "run", tmp_path / "images", "--sample-submission", tmp_path / "info.csv"]
    assert ens(monkeypatch, capfd, *words, "-o", tmp_path / "s.csv")[0] == 0
    assert re.fullmatch(r"ImageID,ans\n7\.png,[0-3]\n5\.png,[0-3]\n", (tmp_path / "s.csv").read_text())


# ---- for machines --------------------------------------------------------------------------------------------------


def document(out):
    """stdout, which must be one strict JSON document and nothing else."""

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    return json.loads(out, parse_constant=refuse)


def as_json(monkeypatch, capfd, *words):
    status, out, err = ens(monkeypatch, capfd, *words, "--json")
    assert status == 0, err
    found = document(out)
    assert list(found) == ["command", "ens", "result", "said"]
    assert found["command"] == words[0] and found["ens"] == ensemble.__version__
    assert all(line in err for line in found["said"])
    return found["result"], found["said"], err


def test_the_whole_way_in_json(monkeypatch, capfd, tmp_path, images):
    """The whole way; what the tables say is said in numbers that are not rounded."""
    call = functools.partial(as_json, monkeypatch, capfd)
    run = tmp_path / "run"
    monkeypatch.chdir(tmp_path)

    result, said, _ = call("init", images, "-o", tmp_path / "mine.toml")
    assert result == {"experiment": str(tmp_path / "mine.toml")} and "12 images, 2 classes: a 6, b 6" in said
    other = TINY.replace('"resnet"', '"vit"').replace("test_resnet", "test_vit") + "image_size = 48\n"
    result, said, err = call("train-folds", experiment(tmp_path, images, TINY + other))
    assert result["run"] == str(run) and result["failed"] == [] and "members, out of fold" in err
    resnet = result["members"][0]
    assert (resnet["member"], resnet["done"], resnet["folds"], resnet["rows"]) == ("resnet", [0, 1], 2, 12)
    own = resnet["scores"]["accuracy"]
    assert own["n"] == 2 and own["low"] <= own["value"] <= own["high"]
    assert own["mean"] == pytest.approx(sum(own["folds"]) / 2)
    assert own["std"] == pytest.approx(abs(own["folds"][0] - own["folds"][1]) / 2**0.5)
    assert f"next: ens blend {run}" in said

    result, said, _ = call("blend", run, "--method", "mean", "--prune")
    held = read_json(run / "blends" / "mean.json")["scores"]
    for name in ("blend", "mean"):
        for metric, score in held[name].items():
            assert {key: result[name][metric][key] for key in score} == score
    assert {gain["metric"] for gain in result["gains"]} == {"log_loss", "accuracy", "macro_f1", "balanced_accuracy"}
    assert (result["method"], result["metric"], result["path"]) == ("mean", "log_loss", str(run / "blends/mean.json"))
    assert set(result["weights"]) == {"resnet", "vit"} and result["pruned"]["passes"][0] == 4
    verdict, *rest = said
    assert verdict.startswith("mean predicts ") and not {"fitted", "tests"} & set(result)
    assert rest == [
        f"saved {run / 'blends/mean.json'}", f"next: ens tta-predict {run} IMAGES --blend mean -o submission.csv"
    ]  # fmt: skip

    result, _, _ = call("compare", run)
    (block,) = result["blocks"]
    assert [item["name"] for item in block["items"]] == ["resnet", "vit"] and result["rows"] == 12
    assert len(block["verdict"]) == 1 and block["accuracy"][0]["value"] == 0
    assert not {"losses", "predicted", "folds", "ids", "labels"} & {*block, *result}

    result, _, _ = call("tta-oof", run, "--views", "vflip")
    assert result == {"members": ["resnet", "vit"]}
    result, _, _ = call("tta-search", run)
    assert result["chosen"][0] == "identity" and len(result["sizes"]) == 3
    assert result["path"] == str(run / "tta-search.json")

    result, _, _ = call("tta-predict", run, images, "-o", tmp_path / "s.csv")
    assert (result["submission"], result["rows"], result["unreadable"]) == (str(tmp_path / "s.csv"), 12, 0)
    assert result["blend"] == "mean" and "ids" not in result
    result, said, _ = call("submissions", run, "--board", "s.csv=0.5", "--note", "s.csv=first")
    (entry,) = result["submissions"]
    assert (entry["values"]["board"], entry["values"]["note"], entry["state"]) == ("0.5", "first", "")
    assert entry["values"]["views"] == "identity,hflip" and entry["values"]["rows"] == "12"
    assert float(entry["values"]["log_loss"]) == pytest.approx(held["blend"]["log_loss"]["value"], rel=1e-5)
    assert result["trust"] == [] and len(said) == 2 and said[0].startswith("entered in ")

    result, _, _ = call("runs", tmp_path)
    (row,) = result["rows"]
    assert (row["run"], row["blend"], row["done"]) == (str(run), "mean", 4) and result["groups"] == [[0]]
    assert row["blend_scores"]["accuracy"]["value"] == held["blend"]["accuracy"]["value"]

    (tmp_path / "cache").mkdir()
    result, _, _ = call("cache", "--folder", tmp_path / "cache")
    assert result == {"folder": str(tmp_path / "cache"), "bytes": 0, "kept": []}
    result, _, _ = call("cache", "--folder", tmp_path / "cache", "--clear")
    assert result["removed_bytes"] == 0

    labels = "\n".join(f"{row},{'ab'[row % 2]}" for row in range(20))
    (tmp_path / "train.csv").write_text(f"id,label\n{labels}\n")
    for name in ("oof", "test"):
        lines = "\n".join(f"{row},{0.3 + 0.02 * row:.2f},{0.7 - 0.02 * row:.2f}" for row in range(20))
        (tmp_path / f"{name}.csv").write_text(f"id,a,b\n{lines}\n")
    words = ["--labels", "train.csv", "--add", "x=oof.csv,test.csv", "--method", "mean", "--apply", "sub/out.csv"]
    result, _, _ = call("blend", *words)
    assert result["submission"] == "sub/out.csv" and result["path"] is None and result["rows"] == 20
    result, _, _ = call("submissions", "sub")
    assert [entry["values"]["members"] for entry in result["submissions"]] == ["x"]
    assert result["submissions"][0]["values"]["file"] == str(tmp_path / "sub" / "out.csv")


def test_every_command_takes_json():
    for name, command in cli.ens.commands.items():
        (option,) = [own for own in command.params if own.name == "as_json"]
        assert option.opts == ["--json"] and "one JSON document" in option.help, name


def test_the_demo_prints_json_too(monkeypatch, capfd, tmp_path):
    from ensemble import demo

    def short(folder, events):
        events.message("1. ens train-folds")
        print("a table")
        (folder / "run").mkdir(parents=True)
        (folder / "run" / "folds.csv").write_text("")
        events.message("images and answers")
        return {"mean": {"accuracy": 0.5}}

    monkeypatch.setattr(demo, "run_demo", short)
    result, said, err = as_json(monkeypatch, capfd, "demo", tmp_path / "demo")
    assert result == {"run": str(tmp_path / "demo" / "run"), "held_out": {"mean": {"accuracy": 0.5}}}
    assert said == ["1. ens train-folds", "images and answers"] and "a table" in err
    assert lines_of(tmp_path / "demo" / "run")[1:3] == said  # also what was said before there was a run


@pytest.mark.parametrize(
    ("words", "command", "line"),
    [
        (["blend", "nowhere"], "blend", "nowhere: not a run directory (it has no folds.csv); make one with: ens trai"),
        (["tta-predict"], "tta-predict", "Missing argument 'RUN'."),
        (["runs", "nowhere"], "runs", "nowhere: no such folder"),
        (["submissions", ".", "--board", "s.csv"], "submissions", "--board s.csv: want FILE=SCORE"),
        (["blnd"], "ens", "No such command 'blnd'."),
    ],
)
def test_mistakes_are_in_the_document_too(monkeypatch, capfd, tmp_path, words, command, line):
    monkeypatch.chdir(tmp_path)
    status, out, err = ens(monkeypatch, capfd, *words, "--json")
    found = document(out)
    assert status == 2 and found["error"].startswith(line) and found["error"] in err
    if command != "ens":
        assert found["command"] == command
    assert (found["result"], found["said"]) == (None, [])


def test_a_failure_has_its_result_and_its_error_in_one_document(monkeypatch, capfd, tmp_path, images):
    extra = TINY + TINY.replace('"resnet"', '"bad"') + "train = { lr = 1e30, epochs = 3 }\n"
    status, out, err = ens(monkeypatch, capfd, "train-folds", experiment(tmp_path, images, extra), "--json")
    found = document(out)
    assert status == 1 and found["error"].startswith("2 jobs failed: bad fold 0: the loss turned nan")
    assert len(found["result"]["failed"]) == 2 and found["result"]["members"][0]["scores"] == {}
    assert f"ens: {found['error']}" in err
    log = (tmp_path / "run" / "ens.log").read_text(encoding="utf-8")
    assert f"error: {found['error']}\n" in log and "ends with status 1 after " in log


def test_results_are_made_plain():
    import numpy as np

    from ensemble.cli.plain import plain
    from ensemble.scoring.bootstrap import Score

    score = Score(0.5, float("nan"), float("inf"), (0.5,))
    assert plain(score) == {"value": 0.5, "low": None, "high": None, "mean": 0.5, "std": None, "n": 1, "folds": [0.5]}
    values = {1: np.array([[1.5, np.nan]], dtype=np.float32), "b": (np.int8(3), np.bool_(True), Path("x"), None)}
    assert plain(values) == {"1": [[1.5, None]], "b": [3, True, "x", None]}
    assert plain({"run": Run("runs/art")}) == {"run": "runs/art"}
    with pytest.raises(TypeError, match="object is not plain: leave it out"):
        plain(object())


# ---- the log -------------------------------------------------------------------------------------------------------


def lines_of(run):
    """What a run's log says, without the times and process numbers, which each line has."""
    text = (run / "ens.log").read_text(encoding="utf-8")
    matches = [re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ (\d+) (.*)|    .*", line) for line in text.splitlines()]
    assert all(matches)
    return [match[2] or match[0] for match in matches]


def test_what_a_command_said_is_in_the_runs_log(monkeypatch, capfd, tmp_path, images):
    file, run = experiment(tmp_path, images), tmp_path / "run"
    status, out, _ = ens(monkeypatch, capfd, "train-folds", file, "--set", "train.lr=0.002", "--set", "seed = 1")
    assert status == 0
    log = lines_of(run)
    assert log[0] == f"begins: ens {ensemble.__version__}: ens train-folds {file} --set train.lr=0.002 --set 'seed = 1'"
    assert log[1] == "12 images, 2 classes; 2 jobs, 0 of them done; on cpu"
    assert log[-2] == f"next: ens blend {run}" and log[-2] in out
    assert re.fullmatch(r"ends with status 0 after \d+\.\d s", log[-1])
    assert ens(monkeypatch, capfd, "blend", run, "--members", "none")[0] == 2
    added = lines_of(run)[len(log) :]
    assert added[0].endswith(f"ens blend {run} --members none") and added[1].startswith("error: ")
    assert added[2].startswith("ends with status 2")


def test_an_audit_of_an_experiment_is_in_the_log_of_its_run(monkeypatch, capfd, tmp_path, images):
    file, run = experiment(tmp_path, images), tmp_path / "run"
    assert ens(monkeypatch, capfd, "check", file, "-o", tmp_path / "audit.json")[0] in (0, 1)
    assert not run.exists()  # nor is one made
    assert ens(monkeypatch, capfd, "train-folds", file)[0] == 0
    before = len(lines_of(run))
    status, _, _ = ens(monkeypatch, capfd, "check", file)
    added = lines_of(run)[before:]
    assert added[0] == f"begins: ens {ensemble.__version__}: ens check {file}"
    assert added[1].startswith(f"{file} trains on ") and any(
        line.startswith(f"{run / 'audit.json'}: ") for line in added
    )
    assert added[-1].startswith(f"ends with status {status} ")


def test_a_check_ends_with_the_command_that_goes_on(monkeypatch, capfd, tmp_path, images):
    def last(*words):
        status, out, _ = ens(monkeypatch, capfd, "check", *words, "-o", tmp_path / "audit.json")
        return status, out.splitlines()[-1]

    file, given = experiment(tmp_path, images), ("--test", images, "--fail-on", "never")
    assert last(images, *given) == (0, f"next: ens init {images} --test {images}")
    assert last(images, *given, "--fix", tmp_path / "all of them.csv") == (
        0,
        f"next: ens init '{tmp_path / 'all of them.csv'}' --test {images}",
    )
    assert last(file, "--fail-on", "never") == (0, f"next: ens train-folds {file}")
    assert not last(file, "--fail-on", "never", "--fix", tmp_path / "b.csv")[1].startswith("next: ")  # names a table
    status, line = last(images, "--test", images, "--fail-on", "note")
    assert status == 1 and not line.startswith("next: ")


def test_where_there_is_no_run_there_is_no_log(monkeypatch, capfd, tmp_path, images):
    (tmp_path / "no-run").mkdir()
    assert ens(monkeypatch, capfd, "blend", tmp_path / "no-run")[0] == 2
    assert list((tmp_path / "no-run").iterdir()) == []
    file = experiment(tmp_path, images, TINY.replace("test_resnet", "tset_resnet"))
    assert ens(monkeypatch, capfd, "train-folds", file)[0] == 2
    assert not (tmp_path / "run").exists()


def test_a_log_that_can_not_be_written_stops_nothing(monkeypatch, capfd, tmp_path, images):
    run = tmp_path / "run"
    (run / "ens.log").mkdir(parents=True)
    assert ens(monkeypatch, capfd, "train-folds", experiment(tmp_path, images))[0] == 0
    assert list((run / "ens.log").iterdir()) == []


def test_a_mistake_of_ens_keeps_its_traceback_and_names_the_log(monkeypatch, capfd, tmp_path):
    from ensemble import blend

    def broken(*_, **__):
        warnings.warn("odd", UserWarning, stacklevel=1)
        raise ZeroDivisionError("a bug")

    run = tmp_path / "run"
    run.mkdir()
    (run / "folds.csv").write_text("")
    monkeypatch.setattr(blend, "blend_run", broken)
    with pytest.raises(ZeroDivisionError) as error, pytest.warns(UserWarning, match="odd"):
        ens(monkeypatch, capfd, "blend", run, "--json")
    last = traceback.format_exception(error.value)[-1]
    assert last == f"ens: this should not happen; what led to it is in {run / 'ens.log'}\n"
    assert document(capfd.readouterr().out)["error"] == "ZeroDivisionError: a bug"
    log = lines_of(run)
    assert log[1] == "warning: UserWarning: odd" and log[2] == "Traceback (most recent call last):"
    assert log[-2] == "    ZeroDivisionError: a bug" and log[-1].startswith("ends with status 1")


def write_log(folder, number):
    from ensemble.run.log import open_log

    log = open_log(Run(folder))
    for turn in range(200):
        log(f"{number} {turn}\nmore of {number} {turn}")


@pytest.mark.process
def test_two_processes_share_a_log(tmp_path):
    (tmp_path / "folds.csv").write_text("")
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_log, args=(tmp_path, number)) for number in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    log = lines_of(tmp_path)
    pairs = [(log[row], log[row + 1]) for row in range(0, 800, 2)]
    assert len(log) == 800 and all(more == f"    more of {line}" for line, more in pairs)
    assert {line for line, _ in pairs} == {f"{number} {turn}" for number in range(2) for turn in range(200)}


# ---- the ledger ----------------------------------------------------------------------------------------------------


def test_a_submission_is_entered_and_the_ledger_is_never_in_the_way(monkeypatch, capfd, tmp_path, images):
    run = tmp_path / "run"
    assert ens(monkeypatch, capfd, "train-folds", experiment(tmp_path, images))[0] == 0
    assert ens(monkeypatch, capfd, "blend", run, "--method", "mean")[0] == 0
    status, out, _ = ens(monkeypatch, capfd, "submissions", run)
    assert status == 0 and "no submission is recorded; ens tta-predict records those that it writes" in out
    words = ["tta-predict", run, images, "-o"]
    status, _, err = ens(monkeypatch, capfd, *words, run / "submissions.csv")
    assert status == 2 and "submissions.csv: belongs to the run" in err
    (run / "submissions.csv").write_text("id,label\n")
    status, out, _ = ens(monkeypatch, capfd, *words, tmp_path / "s.csv")
    assert status == 0 and "warning: not entered in the ledger: " in out and (tmp_path / "s.csv").is_file()
    (run / "submissions.csv").unlink()
    for number, board in enumerate(("80", "81", "82")):
        path = tmp_path / f"{number}.csv"
        assert ens(monkeypatch, capfd, *words, path)[0] == 0
        status, out, _ = ens(monkeypatch, capfd, "submissions", run, "--board", f"{path}={board}")
    assert status == 0 and "no rank correlation of accuracy out of fold and on the board" in out
    (tmp_path / "1.csv").unlink()
    status, out, _ = ens(monkeypatch, capfd, "submissions", tmp_path)
    rows = [line.split()[0] for line in out.splitlines() if ".csv" in line and "[" not in line]
    assert status == 0 and out.index("0.csv ") < out.index("2.csv ") and "(gone)" in out and len(rows) >= 3

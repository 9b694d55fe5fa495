"""`ens tta-predict RUN photo.jpg ...`: pictures that are named one by one."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from recorder import Recorder

import ensemble
from ensemble.cli import ens
from ensemble.data.inputs import pictures_or_source
from ensemble.errors import UserError


@pytest.fixture(scope="module")
def run(noise_run, paint):
    """A finished run with its blend "mean"; beside it the images 0.png to 3.png in test/."""
    for index in range(4):
        paint(noise_run.parent / "test" / f"{index}.png", 40, 40, seed=1)
    return noise_run


@pytest.fixture
def test(run, monkeypatch):
    monkeypatch.chdir(run.parent)
    return Path("test")


def predict(*arguments: str | Path) -> Result:
    return CliRunner().invoke(ens, ["tta-predict", "run", *map(str, arguments)])


def test_one_picture_is_printed_and_nothing_is_written(run, test):
    before = sorted(run.parent.rglob("*"))
    result = predict(test / "0.png")
    assert result.exit_code == 0, result.output
    made = ensemble.predict(run, test / "0.png")
    best, other = np.argsort(-made.probabilities[0])
    chances = 100 * made.probabilities[0]
    assert result.output == (
        f"test/0.png: {made.classes[best]} {chances[best]:.1f} %, {made.classes[other]} {chances[other]:.1f} %\n"
    )
    assert [path for path in sorted(run.parent.rglob("*")) if path not in before] in ([], [run / "ens.log"])


def test_several_pictures_a_pattern_and_a_folder_each_once(run, test):
    result = predict(test / "2.png", test / "[01].png", test / "0.png", "--json")
    answer = json.loads(result.stdout)["result"]
    assert answer["ids"] == ["test/2.png", "test/0.png", "test/1.png"] and answer["classes"] == ["a", "b"]
    want = ensemble.predict(run, [test / f"{number}.png" for number in (2, 0, 1)]).probabilities
    assert np.array_equal(np.array(answer["probabilities"], dtype=np.float32), want)
    assert len(json.loads(predict(test / "2.png", test, "--json").stdout)["result"]["ids"]) == 4


def test_a_csv_is_written_where_one_is_asked_for(run, test, tmp_path):
    result = predict(test / "0.png", test / "1.png", "-o", tmp_path / "s.csv", "--form", "probability")
    assert result.exit_code == 0 and f"wrote {tmp_path / 's.csv'} (2 rows of one probability per class" in result.output
    rows = (tmp_path / "s.csv").read_text().splitlines()
    assert rows[0] == "id,a,b" and rows[1].startswith("test/0.png,") and len(rows) == 3
    (tmp_path / "sample.csv").write_text("id,label\n1,a\n0,a\n")
    predict(test / "0.png", test / "1.png", "-o", tmp_path / "t.csv", "--sample-submission", tmp_path / "sample.csv")
    assert [row.split(",")[0] for row in (tmp_path / "t.csv").read_text().splitlines()] == ["id", "1", "0"]


def test_a_picture_that_cannot_be_read(test, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"id,label\n1,a\n")
    result = predict(test / "0.png", tmp_path / "bad.png")
    assert isinstance(result.exception, UserError) and "bad.png: not a readable image" in str(result.exception)
    result = predict(test / "0.png", tmp_path / "bad.png", "--on-bad", "skip")
    assert result.exit_code == 0 and "bad.png: not a readable image" in result.output


def test_at_most_five_classes_are_shown():
    from ensemble.predictions.pictures import PredictedPictures

    chances = np.array([[0.3, 0.05, 0.05, 0.05, 0.05, 0.5]], dtype=np.float32)
    (line,) = PredictedPictures(("x.png",), tuple("abcdef"), chances, {}, None).lines()
    assert line == "x.png: f 50.0 %, a 30.0 %, b 5.0 %, c 5.0 %, d 5.0 %, ..."


@pytest.mark.parametrize(
    ("named", "text"),
    [
        ("https://localhost:9/a.jpg", "^https://localhost:9/a.jpg is an address, and ens fetches nothing: download it"),
        ("https://localhost:9/a.csv", "^https://localhost:9/a.csv is an address"),
        ("none.jpg", "^none.jpg: no such file or folder$"),
        ("none*.jpg", r"^none\*.jpg: no file matches$"),
        ("e.toml", "^e.toml: an experiment file; want a picture, a folder of pictures, or a table"),
        ("run/a.bin", "^run/a.bin: neither a picture that ens reads nor a table"),
    ],
)
def test_what_is_no_picture_is_named(test, named, text):
    Path("run/a.bin").write_bytes(b"\x00\x01")
    with pytest.raises(UserError, match=text):
        pictures_or_source([Path(named)])
    with pytest.raises(UserError, match=text):
        pictures_or_source([test / "0.png", Path(named)])
    assert isinstance(predict(named).exception, UserError)


def test_folders_and_tables_stay_what_they_are(test, tmp_path):
    (tmp_path / "t.csv").write_text("path\n")
    (tmp_path / "photo").write_bytes((test / "0.png").read_bytes())
    (tmp_path / "empty").mkdir()
    assert pictures_or_source([test]) == test and pictures_or_source([Path("te[s]t")]) == test
    assert pictures_or_source([tmp_path / "t.csv"]) == tmp_path / "t.csv"
    assert pictures_or_source([tmp_path / "photo"]) == [tmp_path / "photo"]
    with pytest.raises(UserError, match=r"t\.csv: a table has to be the only thing that is named"):
        pictures_or_source([tmp_path / "t.csv", test])
    with pytest.raises(UserError, match="empty: no images in it or below it"):
        pictures_or_source([tmp_path / "empty", test])


def test_an_address_is_never_fetched(run, test, tmp_path):
    with pytest.raises(UserError, match=r"^https://localhost:9/a\.jpg is an address"):
        ensemble.predict(run, ["test/0.png", "https://localhost:9/a.jpg"])
    for command in (
        ["init", "https://localhost:9/train.csv"],
        ["check", "http://localhost:9/train.csv"],
        ["init", "train", "--test", "https://localhost:9/test.csv"],
        ["tta-predict", "run", "test", "--sample-submission", "ftp://localhost:9/s.csv"],
        ["train-folds", "e.toml", "--set", 'data.train="https://localhost:9/t.csv"'],
        ["blend", "run", "--add", "x=https://localhost:9/t.parquet", "--name", "n"],
    ):
        result = CliRunner().invoke(ens, command)
        assert isinstance(result.exception, UserError) and "localhost:9" in str(result.exception), command
        assert "is an address, and ens fetches nothing" in str(result.exception), command


def test_a_folder_s_files_that_are_left_out_are_named(run, test, tmp_path):
    (tmp_path / "mixed" / "a").mkdir(parents=True)
    for name in ("0.png", "a/1.jpe", "bare"):
        Image.open(test / "0.png").save(tmp_path / "mixed" / name, "JPEG" if name.endswith("jpe") else "PNG")
    for name in ("x.heic", "a/y.HEIC", "notes.txt", "Thumbs.db"):
        (tmp_path / "mixed" / name).touch()
    result = predict(tmp_path / "mixed", "-o", tmp_path / "s.csv")
    assert result.exit_code == 0, result.output
    said = result.output.splitlines()
    assert (
        "warning: 2 pictures are left out: ens can't read .heic; convert them to JPEG or PNG (a/y.HEIC, x.heic)" in said
    )
    assert "1 file that is no image by its ending is left out (notes.txt)" in said
    rows = (tmp_path / "s.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["id", "0.png", "a/1.jpe", "bare"]


def test_training_says_what_is_left_out(run, tmp_path):
    from ensemble.config import load_config
    from ensemble.train.setup import read_data

    for name in ("train/a", "train/b", "valid"):
        shutil.copytree(
            run.parent / "train" / name[-1] if name != "valid" else run.parent / "test", tmp_path / "d" / name
        )
    (tmp_path / "d" / "train" / "a" / "x.heic").touch()
    said: list[str] = []
    config = load_config(run.parent / "e.toml", [f'data.train="{tmp_path / "d"}"', f'run="{tmp_path / "r"}"'])
    samples = read_data(config, Recorder(said))
    assert len(samples) == 24 and samples.ids[0].startswith("a/")
    assert said == [
        f"train in {tmp_path / 'd'} holds the training images; not trained on: valid (4 images)",
        "warning: 1 picture is left out: ens can't read .heic; convert it to JPEG or PNG (a/x.heic)",
    ]

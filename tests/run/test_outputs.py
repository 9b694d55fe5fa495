"""No command writes over a run's own files, nor over what it reads."""

import os
import shutil

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image
from report_runs import noisy_logits, write_run

from ensemble.cli import ens
from ensemble.errors import UserError
from ensemble.run import Run
from ensemble.run.outputs import require_output


@pytest.fixture
def run(tmp_path):
    labels = np.arange(60) % 3
    members = {name: noisy_logits(labels, 3, 2, seed) for seed, name in enumerate(("net", "vit"))}
    train = tmp_path / "train.csv"
    train.write_text("path,label\n")
    config = (
        f'run = "{tmp_path / "run"}"\n[data]\ntrain = "{train}"\n[[backbone]]\nname = "net"\ntimm = "test_resnet"\n'
    )
    return write_run(tmp_path / "run", ("a", "b", "c"), labels, np.arange(60) // 3 % 3, members, config=config)


def told(*words):
    result = CliRunner().invoke(ens, [str(word) for word in words])
    return result.exception, result.output


OWNED = [
    "folds.csv",
    "FOLDS.CSV",
    "config.toml",
    "classes.json",
    "provenance.json",
    "contents.json",
    "tta-search.json",
    "submissions.csv",
    "ens.log",
    "net/settings.json",
    "net/fold0/model.safetensors",
    "net/fold0/oof.safetensors",
    "vit/fold0/new.html",
    "blends/mean.json",
    "Blends/mean.json",
    "predictions/test-mean.csv",
    "net/../folds.csv",
    ".hidden",
]


@pytest.mark.parametrize("name", OWNED)
def test_a_file_of_a_run_is_refused(run, name):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != "ens.log"}
    error, _ = told("report", run, "-o", run / name)
    assert isinstance(error, UserError)
    assert str(error) == f"{run / name}: belongs to the run {run}; name a file outside of the run"
    assert all(path.read_bytes() == content for path, content in before.items())


def test_links_lead_to_the_file(run, tmp_path):
    (tmp_path / "link.csv").symlink_to(run / "folds.csv")
    (tmp_path / "folder").symlink_to(run / "net")
    os.link(tmp_path / "train.csv", tmp_path / "hard.csv")
    for path in (tmp_path / "link.csv", tmp_path / "folder" / "fold0" / "log.jsonl"):
        with pytest.raises(UserError, match="belongs to the run"):
            require_output(path)
    with pytest.raises(UserError, match=r"hard\.csv: is what the command reads, .*train\.csv; name another"):
        require_output(tmp_path / "hard.csv", [tmp_path / "train.csv"])
    with pytest.raises(UserError, match=r"NEW\.csv: is what the command reads"):
        require_output(tmp_path / "NEW.csv", [tmp_path / "new.csv"])


def test_a_file_that_the_run_was_trained_on_is_refused(run, tmp_path):
    for command, reason in (
        ("report", "is what the command reads"),
        ("relabel", "it is in the way: name another file"),
    ):
        error, _ = told(command, run, "-o", tmp_path / "train.csv")
        assert isinstance(error, UserError) and reason in str(error)
    assert (tmp_path / "train.csv").read_text() == "path,label\n"


def test_what_ens_can_not_have_written_is_refused(run, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "notes.txt").write_text("mine")
    for name, reason in (
        ("a.png", "is not text, so ens did not write it"),
        ("notes.txt", "was not written by this command"),
    ):
        before = (tmp_path / name).read_bytes()
        error, _ = told("report", run, "-o", tmp_path / name)
        assert isinstance(error, UserError) and reason in str(error)
        assert (tmp_path / name).read_bytes() == before


def test_what_was_written_may_be_written_again(run, tmp_path):
    for _ in range(2):
        for words in ((), ("-o", run / "report.html"), ("-o", run / "second.html"), ("-o", tmp_path / "page.html")):
            error, output = told("report", run, *words)
            assert error is None, output
        error, output = told("relabel", run, "-o", tmp_path / "relabel.csv")
        assert error is None, output


def test_external_blends_and_checks_are_held_to_it_too(tmp_path):
    rng = np.random.default_rng(0)
    ids = [f"r{row}" for row in range(40)]
    labels = pd.DataFrame({"id": ids, "label": ["a", "b"] * 20, "fold": np.arange(40) // 8})
    labels.to_csv(tmp_path / "labels.csv", index=False)
    values = rng.random(40)
    for name in ("oof.csv", "test.csv"):
        pd.DataFrame({"id": ids, "a": values, "b": 1 - values}).to_csv(tmp_path / name, index=False)
    words = ["blend", "--labels", tmp_path / "labels.csv", "--add", f"x={tmp_path / 'oof.csv'},{tmp_path / 'test.csv'}"]
    for name in ("labels.csv", "oof.csv", "test.csv", "submissions.csv", "Submissions.csv"):
        error, _ = told(*words, "--apply", tmp_path / name)
        assert isinstance(error, UserError) and f"{name}: is what the command reads" in str(error)
    for _ in range(2):
        error, output = told(*words, "--apply", tmp_path / "made.csv")
        assert error is None, output
    for option in ("-o", "--fix"):
        error, _ = told("check", tmp_path / "labels.csv", option, tmp_path / "labels.csv")
        assert isinstance(error, UserError) and "labels.csv: " in str(error)


def test_a_run_does_not_begin_over_a_table_of_that_name(tmp_path, paint):
    from ensemble.config import load_config
    from ensemble.events import SILENT
    from ensemble.train.jobs import train_folds

    for name in "ab":
        for number in range(6):
            paint(tmp_path / "train" / name / f"{name}{number}.png")
    (tmp_path / "run").mkdir()
    table = Run(tmp_path / "run").folds_csv
    table.write_text("mine")
    (tmp_path / "e.toml").write_text(
        f'run = "{tmp_path / "run"}"\n[data]\ntrain = "{tmp_path / "train"}"\nimage_size = 32\n[folds]\nk = 2\n'
        '[train]\nepochs = 1\n[[backbone]]\nname = "n"\ntimm = "test_resnet"\npretrained = false\n'
    )
    with pytest.raises(UserError, match=r"folds\.csv: exists already, but no run wrote it"):
        train_folds(load_config(tmp_path / "e.toml"), SILENT)
    assert table.read_text() == "mine"


def test_a_folder_with_another_digits_toml_is_no_demo(tmp_path):
    from ensemble.demo import run_demo
    from ensemble.events import SILENT

    (tmp_path / "digits.toml").write_text("mine")
    with pytest.raises(UserError, match="is there already and is no demo"):
        run_demo(tmp_path, SILENT)
    assert (tmp_path / "digits.toml").read_text() == "mine"
    shutil.rmtree(tmp_path)

"""The commands of the pages, run block by block in a folder as a reader has it.

All run but those below a comment that says why not (<!-- not run: it needs a cluster -->), and `pip install`, whose
packages are there. A command ends with status 0, if the comment names no other (<!-- ends with status 1 -->). Of the
output that a page shows below a block everything has to be printed that holds no number.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from commands import ens
from doc_pages import PAGES, ROOT, blocks, command_lines, notebook
from PIL import Image

pytestmark = pytest.mark.process
GUIDES = sorted((PAGES / "guides").glob("*.md"))
EXPERIMENT = """
run = "{run}"
[data]
train = "data/art/train"
image_size = 32
[folds]
k = {k}
near_copies = false
[train]
epochs = {epochs}
lr = {lr}
batch_size = 16
dtype = "float32"
memory_format = "channels_last"
[[backbone]]
name = "lite0"
timm = "test_resnet"
{start}
"""
WEIGHTS = "weights/test_resnet.safetensors"


@pytest.fixture
def read(monkeypatch, capfd):
    """read(page): run all that a page tells its reader to run. tiny: the experiment that takes the place of what
    `ens init` and `ens scout` write, whose networks start from weights of a hub."""

    def run(line, status, tiny):
        words = shlex.split(line, comments=True)
        if words[:2] == ["pip", "install"]:
            return ""
        if words[0] == "python":
            return subprocess.run([sys.executable, *words[1:]], check=True, text=True, stdout=subprocess.PIPE).stdout
        assert words[0] == "ens", f"{line}: not run here; say why not above its block: <!-- not run: ... -->"
        written = Path(words[words.index("-o") + 1]) if words[1] in ("init", "scout") else None
        if written:
            written.unlink(missing_ok=True)  # left by the page before
        ended, out, err = ens(monkeypatch, capfd, *words[1:])
        assert ended == status, f"{line}: {out}{err}"
        if written:
            written.write_text(tiny, encoding="utf-8")
        return out + err

    def page(path, tiny=""):
        printed, count = None, 0
        for part in notebook.parts(path.read_text(encoding="utf-8")):
            if name := notebook.file_name(part):
                Path(name).write_text(part.text, encoding="utf-8")
            if part.language == "text" and printed is not None:
                assert not_printed(part.text, printed) == []
            printed = None
            if not is_run(part):
                continue
            count += 1
            if part.remark == notebook.STOPPED:
                printed = stopped(part.text)
                continue
            status = re.fullmatch(r"ends with status (\d)", part.remark)
            assert status or not part.remark, f"{path}, line {part.line}: {part.remark}"
            printed = "".join(run(line, int(status[1]) if status else 0, tiny) for line in command_lines(part))
        return count

    return page


def is_run(part):
    return part.language == "" and not part.remark.startswith("not run: ")


def not_printed(shown, printed):
    """What a page shows that was not printed: lines without a number, and what stands in the first column."""
    printed = " ".join(printed.split())
    wanted = [" ".join(line.split()) for line in shown.splitlines() if not re.search(r"\d|^\.\.\.$", line)]
    wanted += [re.split(r"\s{2,}", line.strip())[0] for line in shown.splitlines() if re.search(r"\d", line)]
    return [words for words in wanted if not re.search(r"\d", words) and words not in printed]


def stopped(line):
    """What a training prints that is stopped by Ctrl-C after two epochs."""
    words = [sys.executable, "-m", "ensemble.cli", *shlex.split(line)[1:]]
    process = subprocess.Popen(words, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    while process.poll() is None and not any(
        log.read_text().count("\n") >= 2 for log in Path("runs").glob("*/*/fold*/log.jsonl")
    ):
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    printed = process.communicate(timeout=100)[0]
    assert process.returncode == 130 and "ens: stopping after epoch " in printed and "ens: stopped; kept: " in printed
    return printed


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """The working directory, with the docs of a checkout."""
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_is_not_printed_is_found():
    printed = "a table\n        accuracy %   it is\n ──────\n blend       98.1   above\nsaid in\nsome words, 12 %\n"
    shown = "a table\n    accuracy %      it is\n ───\n blend     97.0  above\n...\nsaid in some"
    assert not_printed(shown, printed) == []
    shown = "a tables\n  accuracy  it was\n mean     97.0  above\nsaid"
    assert not_printed(shown, printed) == ["a tables", "accuracy it was", "mean"]


@pytest.mark.parametrize("name", ["food", "masks"])
def test_a_tutorial(name, checkout, read):
    assert read(PAGES / "tutorials" / f"{name}.md") >= 2


def test_the_art_tutorial_and_the_pages_that_start_from_such_images(checkout, read, monkeypatch):
    assert read(PAGES / "tutorials" / "art.md") == 5
    (checkout / "data/art/train/dog/dog_030.jpg").unlink()  # the fault that ens check finds
    tiny = (checkout / "drawn.toml").read_text(encoding="utf-8").replace("runs/drawn", "runs/art")
    for page in (PAGES / "quick-start.md", PAGES / "quick-start.ko.md", ROOT / "README.md", ROOT / "README.ko.md"):
        folder = checkout / f"of-{page.name}"
        shutil.copytree(checkout / "data", folder / "data")
        without = shutil.ignore_patterns("blends", "predictions", "submissions.csv")
        shutil.copytree(checkout / "runs/drawn", folder / "runs/art", ignore=without)
        monkeypatch.chdir(folder)
        assert read(page, tiny) == (6 if "quick" in page.name else 1)
        answers = pd.read_csv("submission.csv")["file"].tolist()
        assert answers == pd.read_csv("data/art/sample_submission.csv")["file"].tolist()
        assert Path("runs/art/report.html").is_file()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with what the guides name: art.toml and its run runs/art, of the members lite0, lite0-2 and lite0-3 with
    the blend "mean"; its images in data/art/, the weights that its networks started from, and other tools' files."""
    from ensemble.blend import BlendOptions, blend_run
    from ensemble.config import load_config
    from ensemble.events import SILENT
    from ensemble.run import Run
    from ensemble.train.jobs import train_folds

    folder = tmp_path_factory.mktemp("guides")
    before = Path.cwd()
    os.chdir(folder)
    try:
        write_images_and_tables()
        first = EXPERIMENT.format(run="start", k=2, epochs=4, lr=2e-3, start="pretrained = false")
        Path("start.toml").write_text(first, encoding="utf-8")
        assert train_folds(load_config(Path("start.toml")), SILENT) == []
        Path(WEIGHTS).parent.mkdir()
        shutil.copy("start/lite0/fold0/model.safetensors", WEIGHTS)
        start = f'weights = "{WEIGHTS}"\nseeds = 3'
        Path("art.toml").write_text(EXPERIMENT.format(run="runs/art", k=3, epochs=1, lr=1e-4, start=start))
        assert train_folds(load_config(Path("art.toml")), SILENT) == []
        blend_run(Run(Path("runs/art")), BlendOptions("mean"))
    finally:
        os.chdir(before)
    return folder


def write_images_and_tables():
    """In the working directory: dark images of class a and bright ones of b, enough for promises of 99 %, twelve to
    predict, and twelve of no class; and predictions of both as other tools write them."""
    draw = np.random.default_rng(0)

    def table(names):
        return pd.DataFrame({"id": names, "label": ["ab"[index % 2] for index in range(len(names))]})

    def picture(path, low, high):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(low, high, (32, 32, 3), dtype=np.uint8)).save(path)

    train = table([f"{'ab'[index % 2]}/{index:03}.png" for index in range(480)])
    test = table([f"test{index:03}.png" for index in range(12)])
    for folder, rows in (("data/art/train", train), ("data/art/test", test)):
        for name, label in zip(rows["id"], rows["label"], strict=True):
            picture(Path(folder, name), *((0, 120) if label == "a" else (120, 240)))
    for index in range(12):
        picture(Path("photos", f"{index}.png"), 20 * index, 20 * index + 5)
    for file, rows in (("train.csv", train), ("labels.csv", test)):
        rows.to_csv(file, index=False)
    for file in ("sample.csv", "data/art/sample_submission.csv"):
        test[::-1].assign(label="a").to_csv(file, index=False)
    for of_train, of_test in (
        ("oof_xgb.csv", "test_xgb.csv"),
        ("knn.csv", "knn_test.csv"),
        ("svm.npz", "svm_test.npz"),
    ):
        for file, rows in ((of_train, train), (of_test, test)):
            of_a = 0.5 + np.where(rows["label"] == "a", 1, -1) * draw.uniform(-0.05, 0.45, len(rows))
            if file.endswith(".npz"):
                np.savez(file, values=np.stack([of_a, 1 - of_a], axis=1), ids=rows["id"].to_numpy(str))
            else:
                pd.DataFrame({"id": rows["id"], "a": of_a, "b": 1 - of_a}).to_csv(file, index=False)


@pytest.mark.parametrize(
    "path", [path for path in GUIDES if any(map(is_run, blocks(path)))], ids=lambda path: path.stem
)
def test_a_guide(path, trained, tmp_path, read, monkeypatch):
    shutil.copytree(trained, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    for name in ("a", "b"):
        shutil.copytree("runs/art", f"runs/{name}")
    assert read(path)

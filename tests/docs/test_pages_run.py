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
ART = """
run = "runs/art"
[data]
train = "data/art/train"
image_size = 32
[folds]
k = 3
near_copies = false
[train]
epochs = 1
lr = 1e-4
batch_size = 16
dtype = "float32"
memory_format = "channels_last"
[[backbone]]
name = "lite0"
timm = "test_resnet"
weights = "weights/test_resnet.safetensors"
seeds = 3
"""
GUIDES = sorted(path for path in (PAGES / "guides").glob("*.md") if any(map(command_lines, blocks(path))))


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
            if part.language != "" or part.remark.startswith("not run: "):
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


def not_printed(shown, printed):
    """What a page shows that was not printed: lines without a number, and what stands in the first column."""
    printed = " ".join(printed.split())
    wanted = [" ".join(line.split()) for line in shown.splitlines() if not re.search(r"\d|^\.\.\.$", line)]
    wanted += [re.split(r"\s{2,}", line.strip())[0] for line in shown.splitlines() if re.search(r"\d", line)]
    return [words for words in wanted if not re.search(r"\d", words) and words not in printed]


def stopped(line):
    """What a training prints that is stopped by Ctrl-C after its first epoch."""
    words = [sys.executable, "-m", "ensemble.cli", *shlex.split(line)[1:]]
    process = subprocess.Popen(words, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    while process.poll() is None and not any(Path("runs").glob("*/*/fold*/log.jsonl")):
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    printed = process.communicate(timeout=100)[0]
    assert process.returncode == 130, printed
    return printed


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """The working directory, with the docs of a checkout."""
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_is_not_printed_is_found():
    printed = "a table\n        accuracy %   it is\n ──────\n blend       98.1   above\nsaid in\nsome words, 12 %\n"
    assert (
        not_printed("a table\n    accuracy %      it is\n ───\n blend     97.0  above\n...\nsaid in some", printed)
        == []
    )
    assert not_printed("a tables\n  accuracy  it was\n mean     97.0  above\nsaid", printed) == [
        "a tables",
        "accuracy it was",
        "mean",
    ]


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
    """A folder with what the guides name: art.toml, its run runs/art of the members lite0, lite0-2 and lite0-3 with the
    blend "mean", its images in data/art/ (of class a dark, of b bright), and the weights that they started from."""
    from ensemble.blend import BlendOptions, blend_run
    from ensemble.config import load_config
    from ensemble.events import SILENT
    from ensemble.run import Run
    from ensemble.train.jobs import train_folds

    folder = tmp_path_factory.mktemp("guides")
    draw = np.random.default_rng(0)
    for part, count in (("train", 480), ("test", 12)):
        for index in range(count):
            pixels = draw.integers(0, 120, (32, 32, 3), dtype=np.uint8) + np.uint8(index % 2 * 120)
            name = f"{part}{index:03}.png"
            path = folder / "data/art" / (f"train/{'ab'[index % 2]}/{name}" if part == "train" else f"test/{name}")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    names = [f"test{index:03}.png" for index in reversed(range(12))]
    sample = pd.DataFrame({"id": names, "label": "a"})
    sample.to_csv(folder / "data/art/sample_submission.csv", index=False)
    truth = sample.assign(label=["ab"[int(name[4:7]) % 2] for name in names])
    sample.to_csv(folder / "sample.csv", index=False)
    truth.to_csv(folder / "labels.csv", index=False)
    train = pd.DataFrame({"id": [f"{'ab'[index % 2]}/train{index:03}.png" for index in range(480)]})
    train["label"] = train["id"].str[0]
    train.to_csv(folder / "train.csv", index=False)
    for file, rows in (("oof_xgb.csv", train), ("test_xgb.csv", truth), ("knn.csv", train), ("knn_test.csv", truth),
                       ("svm.npz", train), ("svm_test.npz", truth)):  # as other tools write them  # fmt: skip
        of_a = np.where(rows["label"] == "a", 1, -1) * draw.uniform(-0.05, 0.45, len(rows)) + 0.5
        if file.endswith(".npz"):
            np.savez(folder / file, values=np.stack([of_a, 1 - of_a], axis=1), ids=rows["id"].to_numpy(str))
        else:
            pd.DataFrame({"id": rows["id"], "a": of_a, "b": 1 - of_a}).to_csv(folder / file, index=False)
    for index in range(12):  # of no class
        pixels = np.full((32, 32, 3), draw.integers(0, 256, 3), dtype=np.uint8)
        (folder / "photos").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / "photos" / f"{index}.png")
    (folder / "weights").mkdir()
    (folder / "art.toml").write_text(ART, encoding="utf-8")
    start = ART.replace("runs/art", "start").replace("k = 3", "k = 2").replace("epochs = 1", "epochs = 4")
    start = start.replace("lr = 1e-4", "lr = 2e-3").replace(
        'weights = "weights/test_resnet.safetensors"\nseeds = 3', ""
    )
    (folder / "start.toml").write_text(start + "pretrained = false\n", encoding="utf-8")
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert train_folds(load_config(Path("start.toml")), SILENT) == []
        shutil.copy("start/lite0/fold0/model.safetensors", "weights/test_resnet.safetensors")
        assert train_folds(load_config(Path("art.toml")), SILENT) == []
        blend_run(Run(Path("runs/art")), BlendOptions("mean"))
    finally:
        os.chdir(before)
    return folder


@pytest.mark.parametrize("path", GUIDES, ids=lambda path: path.stem)
def test_a_guide(path, trained, tmp_path, read, monkeypatch):
    shutil.copytree(trained, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    for name in ("a", "b"):
        shutil.copytree("runs/art", f"runs/{name}")
    read(path)

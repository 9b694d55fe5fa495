"""`ens export` of a cascade: the folder, that it predicts as the run does, and that no network is in it twice."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from commands import ens
from recorder import Recorder

import ensemble
from ensemble.blend import load_blend
from ensemble.blend.described import read_described
from ensemble.blend.oof import read_oof
from ensemble.blend.recipe import Recipe
from ensemble.blend.stages import Stage
from ensemble.cascade.command import CascadeOptions, cascade_run
from ensemble.cascade.fits import as_stage, new_fits
from ensemble.cascade.order import restricted
from ensemble.cascade.result import read_cascade
from ensemble.errors import RunFailure
from ensemble.export import parity
from ensemble.export.formats import Artifact
from ensemble.exported.cascade_description import read_cascade_json
from ensemble.exported.engines import ENGINES
from ensemble.exported.model import load_exported
from ensemble.publish.command import PublishOptions, publish_run
from ensemble.run import Run

FIRST = {("resnet", "identity")}
SECOND = FIRST | {("vit", "hflip")}


@pytest.fixture(scope="module")
def files(noise_run):
    return sorted((noise_run.parent / "train").glob("*/*.png"))


@pytest.fixture(scope="module")
def run(noise_run, files):
    """Its blend cascade, of whose images 8 exit at the first stage and 7 at the second; it has the scores of fast."""
    run = Run(noise_run)
    cascade_run(run, CascadeOptions("mean", max_loss=9, name="fast"), Recorder())
    scores = read_described(run, "fast")["scores"]
    whole, oof = load_blend(run, "mean"), read_oof(run)
    first, second = (as_stage(new_fits(restricted(oof, pairs), Recipe("mean")), 0.5) for pairs in (FIRST, SECOND))

    def saved(*stages: Stage) -> np.ndarray:
        replace(whole, stages=stages).save(run, "cascade", scores)
        return np.sort(ensemble.predict(run, files, blend="cascade").probabilities.max(axis=1))

    confident = saved(first)  # all exit at the first stage
    first = replace(first, threshold=float(confident[-9:-7].mean()))
    asked = saved(replace(first, threshold=1.0), second)  # none at the first, all at the second
    assert len(asked) == 24
    second = replace(second, threshold=float(asked[11:13].mean()))
    saved(first, second)
    return noise_run


@pytest.fixture(scope="module")
def exported(run):
    """The folder, in one that is published."""
    return publish_run(Run(run), PublishOptions(run.parent / "shop", "cascade"), Recorder())


@pytest.mark.parametrize("engine", ENGINES)
def test_a_folder_gives_the_runs_predictions(exported, run, files, engine):
    want = ensemble.predict(ensemble.load(run, "cascade"), files)
    found = load_exported(exported, 1, engine).predict(files)
    assert found.labels == want.labels and found.classes == want.classes
    assert np.abs(found.probabilities - want.probabilities).max() < 1e-5
    parity = read_cascade_json(exported).description.parity
    assert parity.changed == 0 and parity.rows == 24 and parity.largest < 1e-5


def test_no_network_is_in_it_twice(exported, exported_noise):
    names = {path.name: path.stat().st_size for path in exported.iterdir()}
    assert sorted(names) == [
        "cascade.json", "networks0.onnx", "networks1.onnx", "stage0.onnx", "stage1.onnx", "stage2.onnx",
        "view0.onnx", "view1.onnx", "view2.onnx", "view3.onnx",
    ]  # fmt: skip
    assert sum(names.values()) < 1.2 * exported_noise.stat().st_size + 100_000
    graphs = read_cascade_json(exported).graphs
    assert [[(each.member, each.view, each.networks) for each in stage.passes] for stage in graphs.stages] == [
        [("resnet", "identity", 0)],
        [("vit", "hflip", 1)],
        [("resnet", "hflip", 0), ("vit", "identity", 1)],
    ]
    assert graphs.thresholds[2] == 0 and 0.5 < graphs.thresholds[0] < 1


def test_it_says_what_it_is_worth_and_costs(exported, run):
    made, scored = read_cascade_json(exported), read_cascade(Run(run), "fast")
    assert made.description.blend == "cascade"
    assert (made.ms, made.whole_ms, made.description.rows) == (scored.worth.ms, scored.whole.ms, 24)
    assert made.description.scores["log_loss"].high == scored.worth.scores["log_loss"].high
    assert {name: (each.networks, each.views) for name, each in made.description.members.items()} == {
        "resnet": (2, ("identity", "hflip")),
        "vit": (2, ("identity", "hflip")),
    }


def test_its_card_says_that_it_is_a_cascade(exported, run):
    card = (exported.parent / "README.md").read_text(encoding="utf-8")
    assert "in a folder of ONNX files of " in card and "further ones only for images that these are not sure of" in card
    assert "ens predict-file model photo.jpg" in card and "in the order of `classes` in `cascade.json`" in card
    assert f"ens cascade {run} --blend mean --name cascade" in card and "By class" not in card
    value = read_cascade(Run(run), "fast").worth.scores["accuracy"].value
    assert f"| **this model** | {100 * value:.2f} " in card


def test_what_is_refused(run, exported, monkeypatch, capfd, tmp_path):
    output = shutil.copytree(exported, tmp_path / "art")
    (output / "notes.txt").write_text("mine")
    for words, line in (
        (("-o", output), "art: holds notes.txt, which ens export did not write; name another folder"),
        (("-o", tmp_path / "a.onnx"), "a.onnx: a cascade is exported as a folder of several graphs; name one"),
        (("-o", tmp_path / "b", "--format", "pt2"), "is a cascade, which is exported as ONNX: leave --format pt2 out"),
        (("-o", tmp_path / "b", "--dtype", "bfloat16"), "--dtype bfloat16 is tried for whole blends: leave it out"),
        (("-o", run / "blends" / "b"), "belongs to the run"),
    ):
        status, _, err = ens(monkeypatch, capfd, "export", run, "--blend", "cascade", *words)
        assert status == 2 and line in err and len(err.splitlines()) == 1
    assert (output / "notes.txt").read_text() == "mine" and not (tmp_path / "b").exists()


def test_what_every_stage_is_compared_by(run):
    """One row that is far off is allowed, as of an exchanged neighbour, but not that it exits elsewhere."""
    blend, squares = load_blend(Run(run), "cascade"), {"squares_32": np.zeros((40, 1))}
    first = blend.stages[0].threshold
    want = np.tile(np.array([0.999, 0.001], np.float32), (3, 40, 1))

    def compared(stage, confidence):
        found = want.copy()
        found[stage, 7] = confidence, 1 - confidence
        made = Artifact({}, ("an engine",), lambda name: lambda some: found[:, starts(some)], lambda *_: None)
        given.clear()
        return parity.compare(blend, want, made, squares, Recorder())

    def starts(some):
        start = sum(given)
        given.append(len(some["squares_32"]))
        return slice(start, start + given[-1])

    given = []
    assert compared(0, 0.999 - 2e-5).largest == pytest.approx(2e-5, rel=0.1)
    assert compared(1, first + 0.001).changed == 0
    with pytest.raises(RunFailure, match="1 of 40 training images exit at another stage than in the run"):
        compared(0, first - 0.001)
    with pytest.raises(RunFailure, match="of 40 training images it predicts another class for 1"):
        compared(2, 0.3)
    want[0, 7] = first + 3e-5, 1 - first - 3e-5
    assert compared(0, first - 3e-5).changed == 0  # a tie

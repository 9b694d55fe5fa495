"""Prediction by a blend of members of several runs: the bits of one run, its stored logits, and a run that is gone."""

import shutil

import numpy as np
import pytest
from recorder import Recorder

import ensemble
from ensemble.blend import Blend, BlendOptions, blend_run
from ensemble.blend.methods import Chain
from ensemble.blend.methods.mean import Mean
from ensemble.blend.sources import Sources
from ensemble.errors import UserError
from ensemble.events import SILENT
from ensemble.run import Run
from ensemble.tta.apply import blend_folds
from ensemble.tta.predict import PredictionRequest, tta_predict


@pytest.fixture(scope="module")
def parted(noise_run):
    """The run of both members; its member resnet alone in run a, and vit in run b; and their blend, in a."""
    folder = noise_run.parent
    for name, other in (("a", "vit"), ("b", "resnet")):
        shutil.copytree(noise_run, folder / name, ignore=shutil.ignore_patterns(other, "blends", "predictions"))
    blend_run(Run(folder / "a"), BlendOptions("mean", with_runs=[folder / "b"]))
    return folder


def predicted(run, images, blend):
    events = Recorder()
    made = tta_predict(PredictionRequest(Run(run), images, run / f"{blend}.csv", blend), events)
    return made.probabilities, events.messages


def test_of_different_numbers_of_folds_each_network_counts_equally():
    sources = Sources({"b": "../b"}, {"": (0, 1), "b": (0, 0)})
    views, chain = (("identity",),) * 2, Chain("mean", Mean())
    blend = Blend("mean", "log_loss", ("a", "b/x"), views, ("x", "y"), ((1.0,),) * 2, chain, sources=sources)
    first = np.array([[[[0.0, 0.0]]], [[[4.0, 0.0]]]], dtype=np.float32)  # (K, V, N, C) of 2 folds
    second = np.array([[[[2.0, 0.0]]]], dtype=np.float32)  # of one
    expected = (1 / (1 + np.exp(-1.0)) + 1 / (1 + np.exp(-3.0))) / 2
    assert blend_folds(blend, [first, second]) == pytest.approx(np.array([[expected, 1 - expected]]), abs=1e-6)
    assert (blend.networks("a", 2), blend.networks("b/x", 2)) == (2, 1)


def test_the_bits_are_those_of_one_run_and_stored_logits_of_both_are_used(parted, noise_run):
    images = parted / "train"
    want, _ = predicted(noise_run, images, "mean")
    blend_run(Run(parted / "b"), BlendOptions("mean"))
    predicted(parted / "b", images, "mean")
    found, said = predicted(parted / "a", images, "mean-b")
    assert np.array_equal(found, want)
    assert any("50% of their logits are stored already" in line for line in said)
    blend_run(Run(parted / "a"), BlendOptions("vote", with_runs=[parted / "b"]))
    _, said = predicted(parted / "a", images, "vote-b")
    assert any("all their logits are stored already, so no network is run" in line for line in said)
    pictures = sorted(images.glob("*/*.png"))[:3]
    one, several = (
        ensemble.predict(run, pictures, blend=name).probabilities
        for run, name in ((noise_run, "mean"), (parted / "a", "mean-b"))
    )
    assert np.array_equal(one, several)
    assert Run(parted / "a").predict(pictures[0], blend="mean-b").probabilities.shape == (1, 2)


def test_a_run_that_is_gone_is_named_before_anything_is_predicted(parted):
    shutil.move(parted / "b", parted / "moved")
    try:
        for attempt in (
            lambda: predicted(parted / "a", parted / "train", "mean-b"),
            lambda: ensemble.load(parted / "a", "mean-b"),
        ):
            with pytest.raises(
                UserError, match=f"^{parted / 'b'}: is no run directory, but a blend of .* holds its me"
            ):
                attempt()
    finally:
        shutil.move(parted / "moved", parted / "b")


def test_a_run_with_the_folds_of_another_is_blended_with_it(noise_run, tmp_path, cache_of_the_tests):
    """As the line on folds that don't fit says: its folds.csv as a table."""
    config = ensemble.Config(
        run=tmp_path / "again",
        data={
            "train": noise_run / "folds.csv", "path": "id", "images": noise_run.parent / "train", "image_size": 32,
            "cache": str(cache_of_the_tests),
        },
        folds={"fold": "fold"},
        train={"epochs": 1, "batch_size": 8, "dtype": "float32", "memory_format": "channels_last", "lr": 2e-3},
        backbone=[{"name": "resnet", "timm": "test_resnet", "pretrained": False}],
    )  # fmt: skip
    again = ensemble.train_folds(config, events=SILENT)
    made = Run(noise_run).blend("mean", with_runs=[again], events=SILENT)
    assert list(made.weights.index) == ["resnet", "vit", "again/resnet"] and made.result.folds == 2

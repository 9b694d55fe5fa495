"""Prediction: the same pixels as in training, the blend per fold set, a batch at a time."""

import dataclasses

import numpy as np
import pytest
import torch

from ensemble import rundir
from ensemble.blend import Blend, ForeignFiles, blend_run, load_blend
from ensemble.config import load_config
from ensemble.data.folds import read_folds
from ensemble.data.pixels import load_preprocess
from ensemble.errors import UserError
from ensemble.logits import load_logits
from ensemble.train.jobs import train_folds
from ensemble.tta.predict import load_member, middle, normalise, predict_stream
from ensemble.tta.run import blend_folds, tta_predict
from ensemble.tta.views import VIEWS, check_views

CPU = torch.device("cpu")
QUIET = {"show": lambda text, done, total: None, "say": lambda text: None}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of two members that see different pixels, with its images beside it."""
    folder = tmp_path_factory.mktemp("predict")
    from PIL import Image

    noise = np.random.default_rng(0)
    for index in range(24):
        image = Image.fromarray(noise.integers(0, 256, (40, 48, 3), dtype=np.uint8))
        path = folder / "images" / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    file = folder / "e.toml"
    members = "".join(
        f'[[backbone]]\nname = "{name}"\ntimm = "test_{name}"\npretrained = false\nimage_size = {size}\n'
        for name, size in (("resnet", 32), ("vit", 48))
    )
    file.write_text(
        f'run = "{folder / "run"}"\n[data]\ntrain = "{folder / "images"}"\n[folds]\nk = 2\n'
        f"[train]\nepochs = 1\nbatch_size = 8\n[tta]\nbatch_size = 7\n{members}"
    )
    train_folds(load_config(file), *QUIET.values())
    blend_run(folder / "run", "mean")
    return folder / "run"


def test_prediction_repeats_the_out_of_fold_logits_to_the_bit(run):
    table = read_folds(run)
    for name in ("resnet", "vit"):
        member = load_member(run, name, 2, 2, CPU)
        for fold in (0, 1):
            kept = load_logits(rundir.oof_file(rundir.fold_dir(run, name, fold)))
            ids = table["id"].tolist()[::-1]  # another order, so other neighbours in every batch
            paths = [run.parent / "images" / each for each in ids]
            parts = [values[0][fold] for values in predict_stream([member], paths, [kept.views], 7, CPU)]
            rows = [ids.index(each) for each in kept.ids]
            assert np.array_equal(np.concatenate(parts, axis=1)[:, rows], kept.values)


def test_prediction_follows_the_stored_preprocessing(run):
    paths = sorted((run.parent / "images").rglob("*.png"))[:3]
    file = rundir.preprocess_json(run, "resnet")
    stored = load_preprocess(file)
    outputs = []
    for change in ({}, {"std": (0.5, 0.5, 0.9)}, {"crop": (20, 20)}, {}):
        dataclasses.replace(stored, **change).save(file)
        member = load_member(run, "resnet", 2, 2, CPU)
        outputs.append(next(predict_stream([member], paths, [("identity",)], 7, CPU))[0])
    assert np.array_equal(outputs[0], outputs[3])
    assert not np.allclose(outputs[0], outputs[1]) and not np.allclose(outputs[0], outputs[2])


def test_images_are_read_a_batch_at_a_time(run, tmp_path):
    good = sorted((run.parent / "images").rglob("*.png"))[:7]
    bad = tmp_path / "bad.png"
    bad.write_text("no image")
    stream = predict_stream([load_member(run, "resnet", 2, 2, CPU)], [*good, bad], [("identity",)], 7, CPU)
    assert next(stream)[0].shape == (2, 1, 7, 2)  # the bad file has not been opened yet
    with pytest.raises(UserError, match=r"bad\.png: not a readable image"):
        next(stream)


def test_the_blend_is_applied_to_each_folds_set_and_probabilities_are_averaged():
    blend = Blend("mean", "log_loss", ("a", "b"), (("identity",),) * 2, ("x", "y"), ((1.0,),) * 2, {})
    first = np.array([[[[0.0, 0.0]]], [[[4.0, 0.0]]]], dtype=np.float32)  # (K, V, N, C) of member a
    second = np.array([[[[2.0, 0.0]]], [[[0.0, 0.0]]]], dtype=np.float32)
    # fold 0: mean logits 1, 0; fold 1: mean logits 2, 0
    expected = (1 / (1 + np.exp(-1.0)) + 1 / (1 + np.exp(-2.0))) / 2
    assert blend_folds(blend, [first, second]) == pytest.approx(np.array([[expected, 1 - expected]]), abs=1e-6)


def test_predictions_are_saved_with_ids_and_match_the_submission(run, tmp_path):
    made = tta_predict(run, run.parent / "images", tmp_path / "s.csv", **QUIET)
    saved = load_logits(rundir.predictions_file(run, "images", "mean"))
    assert saved.ids.tolist() == made.ids.tolist() == sorted(read_folds(run)["id"])
    assert np.allclose(np.exp(saved.values[0]), made.probabilities, atol=1e-6)
    assert made.probabilities.sum(axis=1) == pytest.approx(np.ones(24), abs=1e-6)
    lines = (tmp_path / "s.csv").read_text().splitlines()
    best = np.array(made.classes)[made.probabilities.argmax(axis=1)]
    assert lines == ["id,label", *(f"{name},{label}" for name, label in zip(made.ids, best, strict=True))]


def test_views_other_than_the_blends_are_refused(run, tmp_path):
    with pytest.raises(UserError, match="the blend was fitted on the views identity,hflip, not identity: fit one"):
        tta_predict(run, run.parent / "images", tmp_path / "s.csv", views=["identity"], **QUIET)


def test_a_foreign_member_s_test_predictions_stand_beside_each_fold(run, tmp_path):
    ids, labels = read_folds(run)["id"].tolist(), read_folds(run)["label"].tolist()
    files = []
    for kind in ("oof", "test"):
        shares = {"a": "0.9,0.1", "b": "0.2,0.8"}
        lines = [f"{name},{shares[own]}" for name, own in zip(ids, labels, strict=True)]
        (tmp_path / f"{kind}.csv").write_text("\n".join(["id,a,b", *lines[::-1]]))
        files.append(tmp_path / f"{kind}.csv")
    said = []
    blend_run(run, "mean", name="both", foreign=[ForeignFiles("knn", *files)], say=said.append)
    try:
        made = tta_predict(run, run.parent / "images", tmp_path / "s.csv", blend_name="both", **QUIET)
        blend = load_blend(run, "both")
        own = [load_member(run, name, 2, 2, CPU) for name in ("resnet", "vit")]
        paths = [run.parent / "images" / name for name in made.ids]
        parts = list(predict_stream(own, paths, [("identity", "hflip")] * 2, 7, CPU))
        values = [np.concatenate([part[m] for part in parts], axis=2) for m in range(2)]
        share = np.array([0.9 if labels[ids.index(name)] == "a" else 0.2 for name in made.ids])
        given = np.log(np.stack([share, 1 - share], axis=1)).astype(np.float32)
        expected = blend_folds(blend, [*values, np.stack([given[None]] * 2)])
        assert made.probabilities == pytest.approx(expected, abs=1e-5)
        rundir.foreign_file(run, "both", "knn").unlink()
        with pytest.raises(UserError, match="holds knn, which ens did not train, without test predictions; fit it ag"):
            tta_predict(run, run.parent / "images", tmp_path / "s.csv", blend_name="both", **QUIET)
    finally:
        rundir.blend_json(run, "both").unlink()


def test_a_member_trained_again_makes_its_blend_stale(run, tmp_path):
    file = rundir.oof_file(rundir.fold_dir(run, "vit", 1))
    kept = load_logits(file)
    dataclasses.replace(kept, values=kept.values + 1).save(file)
    try:
        with pytest.raises(UserError, match=r"blend 'mean' was fitted on another 'vit' than .*; fit it again"):
            tta_predict(run, run.parent / "images", tmp_path / "s.csv", **QUIET)
    finally:
        kept.save(file)


def test_a_form_that_the_sample_cannot_hold_is_refused_before_any_image_is_read(run, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "broken.png").write_text("no image")
    (tmp_path / "sample.csv").write_text("id,x,y\nbroken.png,0,0\n")
    with pytest.raises(UserError, match="a label needs one column beside the id; the header has: x, y"):
        tta_predict(
            run,
            tmp_path / "images",
            tmp_path / "s.csv",
            sample_submission=tmp_path / "sample.csv",
            form="label",
            **QUIET,
        )


def test_a_sample_may_name_some_of_the_images_in_its_own_order(run, tmp_path):
    sample = tmp_path / "sample.csv"
    sample.write_text("id,label\n5,a\n2,a\n")
    said = []
    made = tta_predict(
        run, run.parent / "images", tmp_path / "s.csv", QUIET["show"], sample_submission=sample, say=said.append
    )
    assert made.ids.tolist() == ["5", "2"] and said[0] == f"22 images are not in {sample} and are left out"
    whole = tta_predict(run, run.parent / "images", tmp_path / "all.csv", **QUIET)
    rows = [whole.ids.tolist().index(name) for name in ("b/5.png", "a/2.png")]
    assert np.array_equal(made.probabilities, whole.probabilities[rows])


def test_with_several_blends_one_must_be_named(run, tmp_path):
    blend_run(run, "mean", name="other")
    try:
        with pytest.raises(UserError, match=r"holds 2 blends \(mean, other\); choose one with --blend"):
            tta_predict(run, run.parent / "images", tmp_path / "s.csv", **QUIET)
    finally:
        rundir.blend_json(run, "other").unlink()


def test_a_cut_model_file_is_named(run, tmp_path):
    file = rundir.model_file(rundir.fold_dir(run, "vit", 1))
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    try:
        with pytest.raises(UserError, match=r"vit/fold1: is not finished, or its files are cut short"):
            tta_predict(run, run.parent / "images", tmp_path / "s.csv", **QUIET)
    finally:
        file.write_bytes(whole)


def test_normalise_and_middle_by_hand(run):
    stored = dataclasses.replace(
        load_preprocess(rundir.preprocess_json(run, "resnet")), mean=(0, 0.5, 1), std=(1, 0.5, 2)
    )
    batch = torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)
    assert normalise(batch, stored)[0, :, 0, 0].tolist() == pytest.approx([1.0, 1.0, 0.0])
    assert middle(torch.arange(25).view(1, 1, 5, 5), 3).flatten().tolist() == [6, 7, 8, 11, 12, 13, 16, 17, 18]


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        ("identity", [1, 2, 3, 4]),
        ("hflip", [2, 1, 4, 3]),
        ("vflip", [3, 4, 1, 2]),
        ("rot90", [2, 4, 1, 3]),
        ("rot180", [4, 3, 2, 1]),
        ("rot270", [3, 1, 4, 2]),
    ],
)
def test_views_move_pixels(view, expected):
    assert VIEWS[view](torch.tensor([[[[1, 2], [3, 4]]]])).flatten().tolist() == expected


def test_unknown_and_repeated_views_are_refused():
    with pytest.raises(UserError, match=r"unknown view 'hflp'; did you mean 'hflip'\?"):
        check_views(["identity", "hflp"])
    with pytest.raises(UserError, match="view 'hflip' is named twice: it would only count double"):
        check_views(["hflip", "hflip"])

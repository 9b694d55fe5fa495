"""Prediction: the same pixels as in training, the blend per fold set, a batch at a time."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from recorder import Recorder

from ensemble.blend import Blend, BlendOptions, ExternalFiles, blend_run, load_blend
from ensemble.blend.methods import Chain
from ensemble.blend.methods.mean import Mean
from ensemble.config import load_config
from ensemble.data.folds import read_folds
from ensemble.data.logits import load_logits
from ensemble.data.pixels.decode import decode, middle_square
from ensemble.data.pixels.preprocess import Decoding, load_preprocess
from ensemble.device import side_by_side, streams
from ensemble.errors import RunFailure, UserError
from ensemble.events import SILENT
from ensemble.inference import predict
from ensemble.inference.decodings import decodings
from ensemble.inference.eval_model import logits_of
from ensemble.inference.member import load_member
from ensemble.inference.network_input import normalise
from ensemble.inference.predict import Group, forward_groups, forward_views, predict_stream
from ensemble.run import Run
from ensemble.train.jobs import train_folds
from ensemble.tta.apply import blend_folds
from ensemble.tta.chunks import chunk_rows
from ensemble.tta.predict import PredictionRequest, tta_predict

CPU = torch.device("cpu")
QUIET = {"show": lambda text, done, total: None, "say": lambda text: None}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of two members that see different pixels, with its images beside it."""
    folder = tmp_path_factory.mktemp("predict")
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
        '[train]\nepochs = 1\nbatch_size = 8\ndtype = "float32"\nmemory_format = "channels_last"\n'
        f"[tta]\nbatch_size = 7\n{members}"
    )
    train_folds(load_config(file), SILENT)
    blend_run(Run(folder / "run"), BlendOptions("mean"))
    return folder / "run"


def predicted(run, images, output, **settings):
    return tta_predict(PredictionRequest(Run(run), images, output, **settings), SILENT)


def test_prediction_repeats_the_out_of_fold_logits_to_the_bit(run):
    table = read_folds(Run(run))
    for name in ("resnet", "vit"):
        member = load_member(Run(run).member(name), 2, 2, CPU)
        for fold in (0, 1):
            kept = load_logits(Run(run).member(name).fold(fold).oof_file)
            ids = table["id"].tolist()[::-1]  # another order, so other neighbours in every batch
            paths = [run.parent / "images" / each for each in ids]
            parts = [
                chunk.values[0][fold] for chunk in predict_stream([member], in_chunks(paths), [kept.views], 7, CPU)
            ]
            rows = [ids.index(each) for each in kept.ids]
            assert np.array_equal(np.concatenate(parts, axis=1)[:, rows], kept.values)


def test_prediction_follows_the_stored_preprocessing(run):
    paths = sorted((run.parent / "images").rglob("*.png"))[:3]
    stored = load_member(Run(run).member("resnet"), 2, 2, CPU)
    assert stored.preprocess == load_preprocess(Run(run).member("resnet").preprocess_json)
    outputs = []
    for change in ({}, {"std": (0.5, 0.5, 0.9)}, {"crop": (20, 20)}, {}):
        member = dataclasses.replace(stored, preprocess=dataclasses.replace(stored.preprocess, **change))
        outputs.append(next(predict_stream([member], [paths], [("identity",)], 7, CPU)).values[0])
    assert np.array_equal(outputs[0], outputs[3])
    assert not np.allclose(outputs[0], outputs[1]) and not np.allclose(outputs[0], outputs[2])


def test_images_are_read_a_chunk_at_a_time(run, tmp_path):
    good = sorted((run.parent / "images").rglob("*.png"))[:7]
    bad = tmp_path / "bad.png"
    bad.write_text("no image")
    stream = predict_stream([load_member(Run(run).member("resnet"), 2, 2, CPU)], [good, [bad]], [("identity",)], 7, CPU)
    assert next(stream).values[0].shape == (2, 1, 7, 2)  # the bad file has not been opened yet
    with pytest.raises(UserError, match=r"bad\.png: not a readable image"):
        next(stream)


def test_an_image_that_is_skipped_shifts_no_row(run, tmp_path):
    good = sorted((run.parent / "images").rglob("*.png"))[:7]
    bad = tmp_path / "bad.png"
    bad.write_text("no image")
    members = [load_member(Run(run).member(name), 2, 2, CPU) for name in ("resnet", "vit")]
    views = [("identity", "hflip"), ("identity",)]
    whole = next(predict_stream(members, [good], views, 7, CPU))
    chunk = next(predict_stream(members, [[*good[:3], bad, *good[3:]]], views, 7, CPU, on_bad="skip"))
    assert list(chunk.unreadable) == [3] and "bad.png: not a readable image" in chunk.unreadable[3]
    assert whole.unreadable == {}
    for got, want in zip(chunk.values, whole.values, strict=True):
        assert np.isnan(got[:, :, 3]).all() and np.array_equal(np.delete(got, 3, axis=2), want)


def test_images_in_memory_give_what_their_files_give(run):
    paths = sorted((run.parent / "images").rglob("*.png"))[:7]
    members = [load_member(Run(run).member("vit"), 2, 2, CPU)]
    images = [Image.open(path) for path in paths]
    chunks = list(predict_stream(members, [paths, images], [("hflip",)], 7, CPU))
    assert np.array_equal(chunks[0].values[0], chunks[1].values[0])


def test_wide_views_are_cut_from_wide_squares(run):
    """The vit takes 48 px out of 50, and cuts its windows from 54."""
    path = min((run.parent / "images").rglob("*.png"))
    member = load_member(Run(run).member("vit"), 2, 2, CPU)
    assert (member.preprocess.decode_size, member.preprocess.cropping.size) == (50, 54)
    views = ("identity", "top-left", "bottom-right*hflip")
    (chunk,) = predict_stream([member], [[path]], [views], 7, CPU)
    wide = decode(path, member.preprocess.cropping)
    wide = torch.from_numpy(middle_square(wide).copy()).permute(2, 0, 1)[None]
    for v, window in ((1, wide[..., :48, :48]), (2, wide[..., 6:, 6:].flip(-1))):
        images = normalise(window.contiguous(memory_format=torch.channels_last), member.preprocess)
        batch = torch.cat([images, torch.zeros(15, 3, 48, 48)])
        with torch.inference_mode():
            want = torch.stack([logits_of(own, batch)[0, 0] for own in member.eval_models]).numpy()
        assert np.allclose(chunk.values[0][:, v, 0], want, atol=1e-5)
        assert not np.allclose(chunk.values[0][:, v, 0], chunk.values[0][:, 0, 0], atol=1e-5)


def test_a_view_of_another_size_is_decoded_at_that_size(run):
    """The resnet takes 32 px out of what it decodes; at 64 px the same part is decoded anew, not enlarged."""
    path = min((run.parent / "images").rglob("*.png"))
    member = load_member(Run(run).member("resnet"), 2, 2, CPU)
    assert (member.preprocess.image_size, member.preprocess.decode_size) == (32, 33)
    (chunk,) = predict_stream([member], [[path]], [("identity", "size64*hflip")], 7, CPU)
    larger = decode(path, Decoding(66, member.preprocess.interpolation, None))
    window = torch.from_numpy(middle_square(larger)[1:65, 1:65, :].copy()).permute(2, 0, 1)[None].flip(-1)
    images = normalise(window.contiguous(memory_format=torch.channels_last), member.preprocess)
    batch = torch.cat([images, torch.zeros(15, 3, 64, 64)])
    with torch.inference_mode():
        want = torch.stack([logits_of(each, batch)[0, 0] for each in member.eval_models]).numpy()
    assert np.allclose(chunk.values[0][:, 1, 0], want, atol=1e-5)
    assert not np.allclose(chunk.values[0][:, 1, 0], chunk.values[0][:, 0, 0], atol=1e-5)


def test_a_batch_that_does_not_fit_is_halved(run):
    """A network that runs out of memory with more than 16 images stands for a GPU that is too small for 64."""
    paths = sorted((run.parent / "images").rglob("*.png"))
    member = load_member(Run(run).member("resnet"), 2, 2, CPU)
    (whole,) = predict_stream([member], [paths], [("identity",)], 64, CPU)
    sizes = []

    def full(module, inputs):
        sizes.append(len(inputs[0]))
        if len(inputs[0]) > 16:
            raise torch.OutOfMemoryError("CUDA out of memory")

    for own in member.eval_models:
        own.exact.register_forward_pre_hook(full)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predict, "batch_rows", lambda batch_size, device: batch_size)
        (halved,) = predict_stream([member], [paths], [("identity",)], 64, CPU)
    assert sizes[0] == 64 and 32 in sizes and sizes[-1] == 16
    assert np.allclose(halved.values[0], whole.values[0], atol=1e-5)

    def none_fits(module, inputs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    member.eval_models[0].exact.register_forward_pre_hook(none_fits)
    with pytest.raises(RunFailure, match="out of memory with 16 images at a time; predict on a device with more"):
        next(predict_stream([member], [paths], [("identity",)], 64, CPU))


def test_work_done_is_told_as_images(run):
    paths = sorted((run.parent / "images").rglob("*.png"))
    members = [load_member(Run(run).member(name), 2, 2, CPU) for name in ("resnet", "vit")]
    told = []
    list(predict_stream(members, in_chunks(paths), [("identity", "hflip")] * 2, 7, CPU, advance=told.append))
    assert sum(told) == pytest.approx(len(paths)) and min(told) > 0


def test_any_number_of_threads_gives_the_same_bits(run):
    paths = sorted((run.parent / "images").rglob("*.png")) * 3
    members = [load_member(Run(run).member(name), 2, 2, CPU) for name in ("resnet", "vit")]
    views = [("identity", "rotate10", "scale1.2"), ("hflip", "top-left")]
    (one,) = predict_stream(members, [paths], views, 64, CPU)
    usual = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert streams(CPU) == 3
        (three,) = predict_stream(members, [paths], views, 64, CPU)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(usual)
    for a, b in zip(one.values, three.values, strict=True):
        assert np.array_equal(a, b)


def test_members_are_computed_together_as_each_by_itself(run):
    members = [load_member(Run(run).member(name), 2, 2, CPU) for name in ("resnet", "vit")]
    groups = [
        Group(member.preprocess, ("identity", "hflip")[: 2 - m], member.eval_models) for m, member in enumerate(members)
    ]
    sides = {decoding for group in groups for decoding in decodings(group.preprocess, group.views)}
    squares = {
        side: torch.randint(0, 256, (19, side.size, side.size, 3), dtype=torch.uint8) for side in sorted(sides, key=str)
    }
    told = []
    together = forward_groups(groups, squares, 16, CPU, advance=told.append)
    assert sum(told) == pytest.approx(19)
    for group, found in zip(groups, together, strict=True):
        alone = forward_views(group, squares, 16, CPU)
        assert [array.shape for array in found] == [(1, len(group.views), 19, 2)] * 2
        assert all(np.array_equal(a, b) for a, b in zip(found, alone, strict=True))


def test_threads_without_a_network_help_with_another_s():
    usual = torch.get_num_threads()
    torch.set_num_threads(6)
    try:
        for items, share, want in ((2, True, 3), (4, True, 1), (1, True, 6), (2, False, 1)):
            assert side_by_side(lambda _: torch.get_num_threads(), range(items), CPU, share) == [want] * items
        assert torch.get_num_threads() == 6
    finally:
        torch.set_num_threads(usual)


def test_chunks_are_bounded_by_their_bytes(run):
    small = [load_preprocess(Run(run).member(name).preprocess_json) for name in ("resnet", "vit")]
    assert chunk_rows(small, 4, 64, "cpu") == 1024  # 20,000 bytes an image
    large = [dataclasses.replace(small[0], image_size=896, decode_size=1024)]
    assert chunk_rows(large, 2, 64, "cpu") == 64  # 3 MB an image
    assert chunk_rows(large, 2, 16, "cpu") == 64 and chunk_rows(large, 2, 100, "cpu") == 100
    assert chunk_rows(small[:1], 4, 64, "cpu", [("identity", "size1024")]) == 64  # 3 MB an image and more
    assert chunk_rows(small[:1], 36, 64, "cpu") == 192  # 36 networks: 227 images
    assert chunk_rows(small[:1], 36, 64, "cuda") == 1024 and chunk_rows([], 0, 64, "cpu") == 1024


def in_chunks(paths, size=10):
    return [paths[start : start + size] for start in range(0, len(paths), size)]


def test_the_blend_is_applied_to_each_folds_set_and_probabilities_are_averaged():
    blend = Blend(
        "mean", "log_loss", ("a", "b"), (("identity",),) * 2, ("x", "y"), ((1.0,),) * 2, Chain("mean", Mean())
    )
    first = np.array([[[[0.0, 0.0]]], [[[4.0, 0.0]]]], dtype=np.float32)  # (K, V, N, C) of member a
    second = np.array([[[[2.0, 0.0]]], [[[0.0, 0.0]]]], dtype=np.float32)
    # fold 0: mean logits 1, 0; fold 1: mean logits 2, 0
    expected = (1 / (1 + np.exp(-1.0)) + 1 / (1 + np.exp(-2.0))) / 2
    assert blend_folds(blend, [first, second]) == pytest.approx(np.array([[expected, 1 - expected]]), abs=1e-6)


def test_predictions_are_saved_with_ids_and_match_the_submission(run, tmp_path):
    made = predicted(run, run.parent / "images", tmp_path / "s.csv")
    saved = load_logits(Run(run).predictions_file("images", "mean"))
    assert saved.ids.tolist() == made.ids.tolist() == sorted(read_folds(Run(run))["id"])
    assert np.allclose(np.exp(saved.values[0]), made.probabilities, atol=1e-6)
    assert made.probabilities.sum(axis=1) == pytest.approx(np.ones(24), abs=1e-6)
    lines = (tmp_path / "s.csv").read_text().splitlines()
    best = np.array(made.classes)[made.probabilities.argmax(axis=1)]
    assert lines == ["id,label", *(f"{name},{label}" for name, label in zip(made.ids, best, strict=True))]


def test_views_other_than_the_blends_are_refused(run, tmp_path):
    with pytest.raises(UserError, match="the blend was fitted on the views identity,hflip, not identity: fit one"):
        predicted(run, run.parent / "images", tmp_path / "s.csv", views=["identity"])


def test_an_external_member_s_test_predictions_stand_beside_each_fold(run, tmp_path):
    ids, labels = read_folds(Run(run))["id"].tolist(), read_folds(Run(run))["label"].tolist()
    files = []
    for kind in ("oof", "test"):
        shares = {"a": "0.9,0.1", "b": "0.2,0.8"}
        lines = [f"{name},{shares[own]}" for name, own in zip(ids, labels, strict=True)]
        (tmp_path / f"{kind}.csv").write_text("\n".join(["id,a,b", *lines[::-1]]))
        files.append(tmp_path / f"{kind}.csv")
    recorder = Recorder()
    blend_run(Run(run), BlendOptions("mean", name="both", external=[ExternalFiles("knn", *files)]), events=recorder)
    try:
        made = predicted(run, run.parent / "images", tmp_path / "s.csv", blend_name="both")
        blend = load_blend(Run(run), "both")
        own = [load_member(Run(run).member(name), 2, 2, CPU) for name in ("resnet", "vit")]
        paths = [run.parent / "images" / name for name in made.ids]
        parts = list(predict_stream(own, in_chunks(paths), [("identity", "hflip")] * 2, 7, CPU))
        values = [np.concatenate([part.values[m] for part in parts], axis=2) for m in range(2)]
        share = np.array([0.9 if labels[ids.index(name)] == "a" else 0.2 for name in made.ids])
        given = np.log(np.stack([share, 1 - share], axis=1)).astype(np.float32)
        expected = blend_folds(blend, [*values, np.stack([given[None]] * 2)])
        assert made.probabilities == pytest.approx(expected, abs=1e-5)
        Run(run).external_file("both", "knn").unlink()
        with pytest.raises(UserError, match="holds knn, which ens did not train, without test predictions; fit it ag"):
            predicted(run, run.parent / "images", tmp_path / "s.csv", blend_name="both")
    finally:
        Run(run).blend_json("both").unlink()


def test_a_member_trained_again_makes_its_blend_stale(run, tmp_path):
    fold = Run(run).member("vit").fold(1)
    file, marker = fold.oof_file, fold.done_json.read_bytes()
    kept = load_logits(file)
    dataclasses.replace(kept, values=kept.values + 1).save(file)
    fold.mark_done([fold.model_file, file, fold.log_file])
    try:
        with pytest.raises(UserError, match=r"blend 'mean' was fitted on another 'vit' than .*; fit it again"):
            predicted(run, run.parent / "images", tmp_path / "s.csv")
    finally:
        kept.save(file)
        fold.done_json.write_bytes(marker)


def test_a_form_that_the_sample_cannot_hold_is_refused_before_any_image_is_read(run, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "broken.png").write_text("no image")
    (tmp_path / "sample.csv").write_text("id,x,y\nbroken.png,0,0\n")
    with pytest.raises(UserError, match="a label needs one column beside the id; the header has: x, y"):
        predicted(run, tmp_path / "images", tmp_path / "s.csv", sample_submission=tmp_path / "sample.csv", form="label")


def test_a_sample_may_name_some_of_the_images_in_its_own_order(run, tmp_path):
    sample = tmp_path / "sample.csv"
    sample.write_text("id,label\n5,a\n2,a\n")
    events = Recorder()
    request = PredictionRequest(Run(run), run.parent / "images", tmp_path / "s.csv", sample_submission=sample)
    made = tta_predict(request, events)
    assert made.ids.tolist() == ["5", "2"]
    assert f"22 images are not in {sample} and left out (a/0.png, a/10.png, a/12.png, ...)" in events.messages
    some = made.probabilities  # read before the whole set's are written over them
    whole = predicted(run, run.parent / "images", tmp_path / "all.csv")
    rows = [whole.ids.tolist().index(name) for name in ("b/5.png", "a/2.png")]
    assert np.array_equal(some, whole.probabilities[rows])


def test_with_several_blends_one_must_be_named(run, tmp_path):
    blend_run(Run(run), BlendOptions("mean", name="other"))
    try:
        with pytest.raises(UserError, match=r"holds 2 blends \(mean, other\); choose one with --blend"):
            predicted(run, run.parent / "images", tmp_path / "s.csv")
    finally:
        Run(run).blend_json("other").unlink()


def test_a_cut_model_file_is_named(run, tmp_path):
    file = Run(run).member("vit").fold(1).model_file
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    shutil.rmtree(run / "predictions" / "logits")  # with which the network is not needed
    try:
        with pytest.raises(UserError, match=r"vit/fold1: is not finished, or its files are cut short"):
            predicted(run, run.parent / "images", tmp_path / "s.csv")
    finally:
        file.write_bytes(whole)


def test_normalise_by_hand(run):
    stored = dataclasses.replace(
        load_preprocess(Run(run).member("resnet").preprocess_json), mean=(0, 0.5, 1), std=(1, 0.5, 2)
    )
    for dtype in (torch.uint8, torch.float32):
        batch = torch.full((1, 3, 2, 2), 255, dtype=dtype)
        assert normalise(batch, stored)[0, :, 0, 0].tolist() == pytest.approx([1.0, 1.0, 0.0], abs=1e-6)
        assert (batch == 255).all()
    each = torch.tensor([[10, 20], [30, 40]], dtype=torch.uint8).expand(1, 3, 2, 2)
    assert normalise(each, stored)[0, 0].flatten().tolist() == pytest.approx([10 / 255, 20 / 255, 30 / 255, 40 / 255])
    assert normalise(each, stored).is_contiguous(memory_format=torch.channels_last)

"""Test logits that a run stores: another blend of the same images runs no network, and ends with the same bits."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from recorder import Recorder

from ensemble.blend import BlendOptions, blend_run, load_blend
from ensemble.data.logits import load_logits
from ensemble.files.reading import read_json
from ensemble.files.sealed import write_json
from ensemble.inference.formats import Inference, save_inference
from ensemble.run import Run
from ensemble.tta import member_views
from ensemble.tta.predict import PredictionRequest, tta_predict

NONE = "all their logits are stored already, so no network is run"


@pytest.fixture(scope="module")
def run(noise_run):
    """A finished run of two members, two folds and two views each, and several blends of them."""
    blend_run(Run(noise_run), BlendOptions("stack"))
    blend_run(Run(noise_run), BlendOptions("mean", name="alone", members=["vit"]))
    blend_run(Run(noise_run), BlendOptions("mean", name="plain", members=["vit"], views=["identity"]))
    return noise_run


@pytest.fixture(autouse=True)
def nothing_stored(run):
    shutil.rmtree(run / "predictions", ignore_errors=True)


@pytest.fixture
def images(tmp_path, paint):
    """20 images, 00.png to 19.png."""
    for index in range(20):
        paint(tmp_path / "test" / f"{index:02}.png", 40, 40)
    return tmp_path / "test"


def predict(run, images, blend="mean", **more):
    """The bytes of both files, what was said, and how many images' worth of networks were run."""
    events = Recorder()
    output = run.parent / "s.csv"
    settings = {"blend_name": blend, "form": "probability", "shard_rows": 6} | more
    made = tta_predict(PredictionRequest(Run(run), images, output, **settings), events)
    said = events.messages
    said = said[next(row for row, line in enumerate(said) if " in all; " in line) :]
    done = [done for text, done, _ in events.steps if text.startswith("predicting")]
    return (output.read_bytes(), made.predictions.read_bytes()), said, round(done[-1] - done[0], 6) if done else 0


def stored_files(run):
    return sorted((run / "predictions" / "logits").glob("*/[!.]*"))


def test_another_blend_of_the_same_images_runs_no_network(run, images):
    fresh = predict(run, images, "stack")[0]
    shutil.rmtree(run / "predictions")
    _, said, ran = predict(run, images)
    assert ran == 20 and said[0].startswith("20 images, 2 members x 2 folds, 4 views in all; on cpu")
    folder = Run(run).logits_dir("test")
    # 20 images x 2 folds x 4 views x 2 classes x 4 bytes
    assert said[1] == (
        f"their logits (1.28 kB) are stored in {folder}, so that another blend of these images runs no network; delete "
        "that folder to free the space"
    )
    assert len(stored_files(run)) == 4  # a shard each
    again, said, ran = predict(run, images, "stack")
    assert ran == 0 and said == [f"20 images, 2 members x 2 folds, 4 views in all; {NONE}"] and again == fresh
    assert predict(run, images, "alone")[1:] == ([f"20 images, 1 member x 2 folds, 2 views in all; {NONE}"], 0)
    assert predict(run, images, "plain")[1:] == ([f"20 images, 1 member x 2 folds, 1 view in all; {NONE}"], 0)


def test_torch_is_not_even_imported_then(run, images, tmp_path):
    predict(run, images)
    code = (
        "import sys; from ensemble import cli; sys.argv = ['ens', *sys.argv[1:]]\n"
        "try:\n    cli.main()\nfinally:\n    print('torch' in sys.modules)"
    )
    words = [sys.executable, "-c", code, "tta-predict", run, images, "-o", tmp_path / "s.csv", "--blend", "stack"]
    made = subprocess.run(words, capture_output=True, text=True, check=True)
    assert made.stdout.splitlines()[-1] == "False" and NONE in made.stdout


def test_only_what_is_missing_is_computed(run, images, paint):
    fresh = predict(run, images)[0]
    shutil.rmtree(run / "predictions")
    predict(run, images, "plain")  # one of the four columns
    assert "; 25% of their logits are stored already" in (found := predict(run, images))[1][0]
    assert found[0] == fresh and found[2] == 20
    paint(images / "05.png", 40, 40, seed=9)
    paint(images / "new.png", 40, 40)
    changed, said, ran = predict(run, images)
    assert ran == 2 and "90% of their logits are stored already" in said[0]
    shutil.rmtree(run / "predictions")
    assert predict(run, images)[0] == changed != fresh


def test_other_samples_find_their_rows(run, images, tmp_path):
    predict(run, images)
    sample = tmp_path / "sample.csv"
    sample.write_text("\n".join(["id,a,b", *(f"{index:02}.png,0,0" for index in (19, 3, 7, 0, 11, 12, 4, 15))]))
    found, said, ran = predict(run, images, "stack", sample_submission=sample, form=None)
    assert ran == 0 and NONE in said[-1]
    shutil.rmtree(run / "predictions")
    assert predict(run, images, "stack", sample_submission=sample, form=None)[0] == found


def test_a_file_of_the_same_size_and_time_of_change_is_another_one(run, images):
    predict(run, images)
    old = (images / "00.png").stat()
    (images / "00.png").write_bytes((images / "01.png").read_bytes()[: old.st_size])
    os.utime(images / "00.png", ns=(old.st_atime_ns, old.st_mtime_ns))  # but its entry in the folder changed
    assert predict(run, images, "stack")[2] == 1


def test_a_fold_that_was_trained_again_is_computed_again(run, images):
    predict(run, images)
    marker = Run(run).member("vit").fold(1).done_json
    whole = marker.read_text()
    try:
        write_json(marker, {**read_json(marker), "seconds": 99.0})
        assert "50% of their logits are stored already" in predict(run, images)[1][0]
        assert predict(run, images)[2] == 0
    finally:
        marker.write_text(whole)
    assert predict(run, images)[2] == 0  # both are stored


@pytest.mark.parametrize("place", ["header", "values", "cut", "swapped"])
def test_damaged_files_are_noticed_and_cost_only_their_rows(run, images, place):
    fresh = predict(run, images)[0]
    first, second, *_ = stored_files(run)
    content = bytearray(first.read_bytes())
    if place == "swapped":
        first.write_bytes(second.read_bytes())
    elif place == "cut":
        first.write_bytes(content[:-1])
    else:
        content[60 if place == "header" else len(content) // 2] ^= 1
        first.write_bytes(content)
    again, said, ran = predict(run, images)
    assert again == fresh and ran in (2, 6)  # a shard's images: three of 6 and one of 2
    folder = Run(run).logits_dir("test")
    assert said[1] == f"{folder}: removed damaged files (1); their logits are computed again"
    assert len(stored_files(run)) == 4 and predict(run, images)[2] == 0


def test_the_space_is_bounded_and_what_was_not_used_for_longest_goes_first(run, images, tmp_path):
    _, said, _ = predict(run, images, stored_bytes=1279)
    assert not stored_files(run) and said[1] == (
        "their logits are not stored for other blends: they would take 1.28 kB, and the run may store 1.28 kB in all "
        "(--keep-gb sets that)"
    )
    assert "their logits are not stored" in predict(run, images, stored_bytes=0)[1][1] and not stored_files(run)
    for name in ("one", "two"):
        shutil.copytree(images, tmp_path / name)
        predict(run, tmp_path / name)
    one, two = ([path for path in stored_files(run) if path.parent.name == name] for name in ("one", "two"))
    for path in stored_files(run):
        os.utime(path, (1, 1 if path in one[:2] else 2))
    total = sum(path.stat().st_size for path in stored_files(run))
    left_by_a_kill, in_work = (one[0].parent / f".{name}.safetensors.1.tmp" for name in ("left", "new"))
    left_by_a_kill.touch()
    os.utime(left_by_a_kill, (1, 1))
    in_work.touch()  # by another process, now
    predict(run, images, stored_bytes=total + 1280 - 1)
    left = stored_files(run)
    assert set(two) <= set(left) and len(set(one) & set(left)) == 3 and len(left) == 4 + 3 + 4
    assert list(one[0].parent.glob(".*")) == [in_work]
    assert predict(run, images, stored_bytes=1)[2] == 0  # what is there is used


def test_images_that_can_not_be_read_need_no_network_either(run, images):
    for index in (3, 4):
        (images / f"0{index}.png").write_bytes(b"no image")
    _, said, ran = predict(run, images, on_bad="skip")
    assert ran == 20 and said[2] == "2 of 20 images could not be read and have no prediction:"
    fresh = predict(run, images, "stack", on_bad="skip")
    assert fresh[2] == 0 and fresh[1][-2:] == said[-2:] and said[-1].startswith("  04.png: not a readable image (cann")
    good = (images / "00.png").read_bytes()
    (images / "03.png").write_bytes(good)
    ran = predict(run, images, on_bad="skip")[2]
    values = load_logits(Run(run).predictions_file("test", "mean")).values[0]
    assert ran == 1 and np.array_equal(values[3], values[0]) and np.isnan(values[4]).all()


def test_two_processes_store_what_each_computes(run, images):
    """While one predicts, another one stores the logits of the same images by another blend."""
    whole = []

    def meanwhile(text, done, total):
        if text.startswith("predicting") and not whole:
            whole.append(predict(run, images, "alone", stored_bytes=10_000)[0])

    events = Recorder(on_progress=meanwhile)
    tta_predict(PredictionRequest(Run(run), images, run.parent / "both.csv", "mean", shard_rows=6), events)
    assert whole and len(stored_files(run)) == 8  # four shards each
    assert predict(run, images, "mean")[2] == predict(run, images, "alone")[2] == 0
    assert predict(run, images, "alone")[0] == whole[0]


def test_a_column_counts_its_own_member_and_view(run):
    blend = load_blend(Run(run), "mean")
    views = dict(zip(blend.members, blend.views, strict=True))
    whole = member_views.member_views(Run(run), views, blend.classes, 2, 64, "cpu")
    assert [(own.member, own.view) for own in whole] == [
        (member, view) for member in ("resnet", "vit") for view in ("identity", "hflip")
    ]
    assert len({own.digest for own in whole}) == 4
    small = {"vit": ("hflip",)}
    assert member_views.member_views(Run(run), small, blend.classes, 2, 64, "cpu") == (whole[3],)


def test_logits_of_torch_are_none_of_an_engine_that_can_not_compute_here(run, monkeypatch):
    """Without the packages that write ONNX, torch computes what OpenVINO is asked for."""
    file = Run(run).member("vit").fold(0).inference_json
    before = file.read_bytes()
    save_inference(file, Inference("cpu", engine="openvino"))
    digests = set()
    for absent in ("", "openvino", "onnxscript"):
        monkeypatch.setattr(member_views, "find_spec", lambda name, absent=absent: name != absent or None)
        (column,) = member_views.member_views(Run(run), {"vit": ["identity"]}, ("a", "b"), 2, 64, "cpu")
        digests.add(column.digest)
    file.write_bytes(before)
    assert len(digests) == 2

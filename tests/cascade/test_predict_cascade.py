"""Prediction by a cascade: no later stage is asked about an image that has exited, and the answers are to the bit
those of the stages by themselves."""

import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from recorder import Recorder

import ensemble
from ensemble.blend import Blend, load_blend
from ensemble.blend.oof import read_oof
from ensemble.blend.recipe import Recipe
from ensemble.cascade.fits import as_stage, new_fits
from ensemble.cascade.order import restricted
from ensemble.data.logits import load_logits
from ensemble.errors import UserError
from ensemble.inference import compiled
from ensemble.inference.formats import Inference, save_inference
from ensemble.run import Run
from ensemble.run.networks import UNSCORED
from ensemble.soup.folds import soup_folds
from ensemble.tta.predict import PredictionRequest, tta_predict

FIRST = {("resnet", "identity")}
SECOND = FIRST | {("vit", "hflip")}


@pytest.fixture(scope="module")
def images(noise_run, paint):
    for index in range(20):
        paint(noise_run.parent / "test" / f"{index:02}.png", 40, 40)
    return noise_run.parent / "test"


@pytest.fixture(scope="module")
def run(noise_run, images):
    """The blends first and second, of the stages by themselves, and cascade, at whose first stage 8 of the 20 images
    exit, and 7 others at the second."""
    run = Run(noise_run)
    whole, oof = load_blend(run, "mean"), read_oof(run)
    stages = [as_stage(new_fits(restricted(oof, pairs), Recipe("mean")), 0.5) for pairs in (FIRST, SECOND)]
    for name, (blend, _) in zip(("first", "second"), replace(whole, stages=tuple(stages)).stage_blends, strict=False):
        blend.save(run, name)
    first, second = (probabilities(noise_run, images, name).max(axis=1) for name in ("first", "second"))
    threshold = np.sort(first)[11:13].mean()
    second_threshold = np.sort(second[first < threshold])[4:6].mean()
    made = replace(stages[0], threshold=float(threshold)), replace(stages[1], threshold=float(second_threshold))
    replace(whole, stages=made).save(run, "cascade")
    return noise_run


@pytest.fixture(autouse=True)
def nothing_stored(request):
    if "run" in request.fixturenames:
        shutil.rmtree(request.getfixturevalue("run") / "predictions", ignore_errors=True)


def predict(run, images, blend="cascade", **more):
    """The saved prediction, and the events."""
    events = Recorder()
    settings = {"blend_name": blend, "form": "probability", "shard_rows": 6} | more
    return tta_predict(PredictionRequest(Run(run), images, run.parent / "s.csv", **settings), events), events


def probabilities(run, images, blend="cascade", **more):
    return predict(run, images, blend, **more)[0].probabilities


def test_each_image_is_answered_by_the_stage_at_which_it_exits(run, images):
    found, events = predict(run, images)
    first, second, whole = (probabilities(run, images, name) for name in ("first", "second", "mean"))
    stages = load_blend(Run(run), "cascade").stages
    exited = first.max(axis=1) >= np.float32(stages[0].threshold)
    then = ~exited & (second.max(axis=1) >= np.float32(stages[1].threshold))
    assert (exited.sum(), then.sum()) == (8, 7)
    want = np.where(exited[:, None], first, np.where(then[:, None], second, whole))
    assert np.array_equal(found.probabilities, want)
    assert events.messages[-1] == "of 20 images, so many exited at each stage of the cascade: 8, 7, 5"


def test_later_networks_never_see_what_has_exited(run, images):
    predict(run, images)
    by_view = {}
    for path in (run / "predictions" / "logits" / "test").glob("[!.]*.safetensors"):
        logits = load_logits_of(path)
        for name, count in logits.items():
            by_view[name] = by_view.get(name, 0) + count
    assert by_view == {"resnet identity": 20, "vit hflip": 12, "resnet hflip": 5, "vit identity": 5}


def load_logits_of(path):
    """How many images' logits a stored file holds of each member and view."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return {name: file.get_tensor(digest).shape[1] for digest, name in file.metadata().items() if " " in name}


@pytest.mark.parametrize("more", [{"shard_rows": 20}, {"shard_rows": 1}, {"stored_bytes": 0}])
def test_the_same_bits_however_it_is_chunked(run, images, more):
    first = predict(run, images)[0].predictions.read_bytes()
    shutil.rmtree(run / "predictions")
    assert predict(run, images, **more)[0].predictions.read_bytes() == first


def test_stored_logits_are_used_and_completed(run, images):
    fresh = probabilities(run, images, "mean")
    made, events = predict(run, images)  # all that it needs is stored
    assert not [step for step in events.steps if step[0].startswith(("predicting", "loading"))]
    shutil.rmtree(run / "predictions")
    assert np.array_equal(probabilities(run, images), made.probabilities)  # now only some of mean's are
    again, events = predict(run, images)
    assert not [step for step in events.steps if step[0].startswith("predicting")]
    assert np.array_equal(again.probabilities, made.probabilities)
    assert np.array_equal(probabilities(run, images, "mean"), fresh)


def test_after_a_stop_it_resumes_with_the_same_bytes(run, images):
    whole = predict(run, images)[0].predictions.read_bytes()
    shutil.rmtree(run / "predictions")

    def stop(text, done, total):
        if text.startswith("predicting") and done > 12:
            raise KeyboardInterrupt

    events = Recorder(on_progress=stop)
    request = PredictionRequest(Run(run), images, run.parent / "s.csv", "cascade", form="probability", shard_rows=6)
    with pytest.raises(KeyboardInterrupt):
        tta_predict(request, events)
    found, events = predict(run, images)
    assert "resuming: 2 of 4 shards are finished" in events.messages
    assert found.predictions.read_bytes() == whole


def test_two_that_share_the_shards_end_with_the_same_bytes(run, images):
    whole = predict(run, images)[0].predictions.read_bytes()
    shutil.rmtree(run / "predictions")
    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(lambda number: predict(run, images, stored_bytes=0), range(2)))
    assert made[0][0].predictions.read_bytes() == whole and {each.is_new for each, _ in made} == {True, False}
    line = re.compile(r"of \d+ images, so many exited at each stage of the cascade: (\d+), (\d+), (\d+)")
    said = [found.groups() for _, events in made for text in events.messages if (found := line.fullmatch(text))]
    assert np.array(said, dtype=int).sum(axis=0).tolist() == [8, 7, 5]


def test_an_image_that_cannot_be_read_is_left_out_alone(run, images, tmp_path):
    folder = shutil.copytree(images, tmp_path / "test")
    (folder / "03.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"03\.png"):
        predict(run, folder)
    found = probabilities(run, folder, on_bad="skip")
    assert np.flatnonzero(np.isnan(found).any(axis=1)).tolist() == [3]
    shutil.rmtree(run / "predictions")
    sound = np.arange(20) != 3
    assert np.array_equal(found[sound], probabilities(run, images)[sound])


def test_a_later_network_without_its_engine_is_named(run, images, monkeypatch):
    file = Run(run).member("vit").fold(0).inference_json
    before = file.read_bytes()
    monkeypatch.setattr(compiled, "installed", lambda: ())
    try:
        save_inference(file, Inference("cpu", engine="openvino"))
        messages = predict(run, images)[1].messages
    finally:
        file.write_bytes(before)
    named = [line for line in messages if "is not installed here; torch computes it in float32 instead" in line]
    assert len(named) == 1 and named[0].startswith("vit: was evaluated with OpenVINO")


def test_python_gives_the_same_bits(run, images):
    files = sorted(images.iterdir())
    want = load_logits(predict(run, images)[0].predictions).values[0]  # a file holds logarithms
    loaded = ensemble.load(run, "cascade")
    assert np.array_equal(np.log(ensemble.predict(loaded, files).probabilities), want)
    assert np.allclose(np.log(ensemble.predict(loaded, files[0]).probabilities), want[:1], atol=1e-5)  # one by one


def test_it_is_read_back_as_it_was_saved(run):
    blend = load_blend(Run(run), "cascade")
    assert [stage.members for stage in blend.stages] == [("resnet",), ("resnet", "vit")]
    assert blend.stages[1].views == (("identity",), ("hflip",))
    asked = blend.stage_blends
    assert [type(each) for each, _ in asked] == [Blend] * 3 and asked[-1][1] == 0
    assert asked[-1][0] == replace(load_blend(Run(run), "mean"), stages=())


def test_what_is_damaged_is_one_line(run):
    blend = load_blend(Run(run), "cascade")
    one, two = blend.stages
    replace(blend, stages=(two, one)).save(Run(run), "bad")
    with pytest.raises(UserError, match=r"bad\.json: not a whole blend .stage 1 does not add to the stage before it"):
        load_blend(Run(run), "bad")
    replace(blend, stages=(replace(one, threshold=1.5),)).save(Run(run), "bad")
    with pytest.raises(UserError, match="stage 0 has other views than members, or a threshold outside of 0 to 1"):
        load_blend(Run(run), "bad")
    Run(run).blend_json("bad").unlink()


def test_soups_are_asked_by_the_same_stages(own_started_run, started_run):
    """Of two members with one soup each; with the threshold of 0.5 all images exit at the first stage."""
    run = Run(own_started_run)
    soup_folds(run, None, None, Recorder())
    oof = read_oof(run)
    stage = as_stage(new_fits(restricted(oof, {("net", "identity")}), Recipe("mean")), 0.5)
    replace(load_blend(run, "mean"), stages=(stage,)).save(run, "cascade")
    found, events = predict(own_started_run, started_run.parent / "test", networks="soup")
    assert UNSCORED["soup"] in events.messages
    assert events.messages[-1] == "of 5 images, so many exited at each stage of the cascade: 5, 0"
    assert np.allclose(found.probabilities.sum(axis=1), 1)

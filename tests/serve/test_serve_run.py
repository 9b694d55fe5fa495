"""A run behind the server predicts what `ensemble.predict` does."""

import numpy as np
import pytest
from serve_model import form, post, service_of

import ensemble
from ensemble.errors import UserError
from ensemble.predictions.certainty import CertaintyRequest
from ensemble.serve.app import make_app
from ensemble.serve.model import load_model


@pytest.mark.parametrize("max_batch", [3, 16])
def test_a_run_predicts_as_from_python(noise_run, max_batch):
    """In batches of a few, which are computed one by one, and in one that is full."""
    files = sorted((noise_run.parent / "train").rglob("*.png"))[:11]
    expected = ensemble.predict(noise_run, files)
    service = service_of(load_model(noise_run, None, None, 1), max_batch=max_batch)
    try:
        app = make_app(service)
        content = form(*[(file.name, file.read_bytes()) for file in files])
        status, answer = post(app, *content, "/predict?members=true")
    finally:
        service.close()
    assert status == 200 and answer["model"] == "run"
    assert [image["name"] for image in answer["images"]] == [file.name for file in files]
    assert [image["class"] for image in answer["images"]] == expected.labels
    found = np.array([[image["probabilities"][name] for name in "ab"] for image in answer["images"]], dtype=np.float32)
    np.testing.assert_allclose(found, expected.probabilities, atol=1e-5)
    for image in answer["images"]:
        assert list(image["members"]) == ["resnet", "vit"]
        assert all(abs(sum(values.values()) - 1) < 1e-6 for values in image["members"].values())


def test_a_members_probabilities_are_its_own_views_and_folds(noise_run):
    """By hand: softmax of the mean over the views, averaged over the folds."""
    from ensemble.inference.predict import predict_stream
    from ensemble.tta.images import load

    (file,) = sorted((noise_run.parent / "train").rglob("*.png"))[:1]
    predictor = load(noise_run)
    (chunk,) = predict_stream(predictor.members, [[file]], predictor.views, 16, predictor.device)
    model = load_model(noise_run, "mean", "folds", 1)
    _, of_members = model.predict([model.decode(file.read_bytes())])
    for values, found in zip(chunk.values, of_members, strict=True):
        exponents = np.exp(values.astype(np.float64).mean(axis=1))[:, 0]  # (K, C)
        expected = (exponents / exponents.sum(axis=1, keepdims=True)).mean(axis=0)
        np.testing.assert_allclose(found[0], expected, rtol=1e-5)


def test_sets_and_abstention_are_answered_where_they_are_asked_for(noise_run):
    files = sorted((noise_run.parent / "train").rglob("*.png"))[:9]
    expected = ensemble.predict(ensemble.load(noise_run, sets=0.7, abstain=0.9), files)
    service = service_of(load_model(noise_run, None, None, 1, certainty=CertaintyRequest(0.7, None, 0.9)))
    try:
        status, answer = post(make_app(service), *form(*[(file.name, file.read_bytes()) for file in files]))
    finally:
        service.close()
    assert status == 200
    assert [tuple(image["set"]) for image in answer["images"]] == expected.sets
    assert [image["abstain"] for image in answer["images"]] == expected.abstain.tolist()


def test_a_run_that_can_not_be_served_is_a_line(noise_run, tmp_path):
    with pytest.raises(UserError, match="none"):
        load_model(noise_run, "none", None, 1)
    with pytest.raises(UserError, match="--sets 2: must be between 0 and 1"):
        load_model(noise_run, None, None, 1, certainty=CertaintyRequest(2))
    with pytest.raises(UserError, match="--engine is for exported files"):
        load_model(noise_run, None, None, 1, "onnxruntime")
    with pytest.raises(UserError, match="not a run directory"):
        load_model(tmp_path, None, None, 1)


def test_a_cascade_asks_later_members_only_where_it_must(noise_run):
    """Half of the images exit at its first stage, and have no votes of the other member."""
    from dataclasses import replace

    from ensemble.blend import load_blend
    from ensemble.blend.oof import read_oof
    from ensemble.blend.recipe import Recipe
    from ensemble.cascade.fits import as_stage, new_fits
    from ensemble.cascade.order import restricted
    from ensemble.run import Run

    run = Run(noise_run)
    files = sorted((noise_run.parent / "train").rglob("*.png"))[:10]
    stage = as_stage(new_fits(restricted(read_oof(run), {("resnet", "identity")}), Recipe("mean")), 0.5)
    whole = load_blend(run, "mean")
    replace(whole, stages=(stage,)).stage_blends[0][0].save(run, "first")
    first = ensemble.predict(noise_run, files, blend="first").probabilities.max(axis=1)
    threshold = float(np.sort(first)[4:6].mean())
    replace(whole, stages=(replace(stage, threshold=threshold),)).save(run, "cascade")
    expected = ensemble.predict(noise_run, files, blend="cascade")
    service = service_of(load_model(noise_run, "cascade", None, 1), max_batch=16)
    try:
        content = form(*[(file.name, file.read_bytes()) for file in files])
        status, answer = post(make_app(service), *content, "/predict?members=true")
    finally:
        service.close()
    assert status == 200
    asked = [list(image["members"]) for image in answer["images"]]
    assert asked == [["resnet"] if sure else ["resnet", "vit"] for sure in first > threshold] and len(asked[0]) > 0
    found = np.array([[image["probabilities"][name] for name in "ab"] for image in answer["images"]], dtype=np.float32)
    np.testing.assert_allclose(found, expected.probabilities, atol=1e-5)

"""An exported file in Python: opened, and asked for probabilities."""

import numpy as np
import pytest
from exported_file import CLASSES, content, description, expected
from onnx import helper
from PIL import Image

import ensemble
from ensemble.errors import UserError
from ensemble.exported.engines import ENGINES, engine_for
from ensemble.exported.model import BATCH, load_exported
from ensemble.exported.seal import sealed, with_metadata

COLOURS = np.array([[255, 51, 0], [0, 204, 102], [51, 0, 255], [102, 102, 0]], dtype=np.uint8)


@pytest.fixture(scope="module", params=ENGINES)
def model(request, exported):
    return load_exported(exported, 1, request.param)


def plain(row):
    """An image of one colour that has to be scaled and cut."""
    return np.broadcast_to(COLOURS[row], (60, 90, 3)).copy()


def squares(model, rows):
    each = [model.decode(plain(row)) for row in rows]
    return {name: np.stack([one[name] for one in each]) for name in each[0]}


def test_probabilities_of_the_blend_and_of_its_members(model):
    blend, members = model.probabilities(squares(model, range(4)))
    want, want_members = expected(COLOURS / 255)
    assert blend.dtype == members.dtype == np.float32
    np.testing.assert_allclose(blend, want, atol=1e-6)
    np.testing.assert_allclose(members, want_members, atol=1e-6)
    assert model.classes == CLASSES and model.decide(blend).tolist() == [0, 1, 2, 0]


def test_any_number_of_images_at_a_time(model):
    for count in (3, 1, 2, 0):
        blend, members = model.probabilities({name: array[:count] for name, array in squares(model, range(4)).items()})
        np.testing.assert_allclose(blend, expected(COLOURS / 255)[0][:count], atol=1e-6)
        assert members.shape == (2, count, 3)
    backwards, _ = model.probabilities({name: array[::-1] for name, array in squares(model, range(4)).items()})
    np.testing.assert_allclose(backwards[::-1], expected(COLOURS / 255)[0], atol=1e-6)


def test_every_form_of_an_image_is_decoded_alike(model, tmp_path, paint):
    path = paint(tmp_path / "a.png", 50, 41)
    with Image.open(path) as image:
        forms = [path, str(path), path.read_bytes(), image, np.asarray(image)]
        decoded = [model.decode(form) for form in forms]
    assert {name: array.shape for name, array in decoded[0].items()} == {
        "squares_32": (32, 32, 3), "squares_40": (40, 40, 3)
    }  # fmt: skip
    for other in decoded[1:]:
        assert all(np.array_equal(other[name], decoded[0][name]) for name in decoded[0])


def test_predictions_of_many_images_are_those_of_each(model, tmp_path, paint):
    images = [plain(row % 4) for row in range(2 * BATCH + 3)]
    made = model.predict(images)
    np.testing.assert_allclose(made.probabilities, expected(COLOURS[np.arange(len(images)) % 4] / 255)[0], atol=1e-6)
    assert made.labels[:4] == ["red", "green", "blue", "red"] and made.classes == CLASSES
    path = paint(tmp_path / "a.png")
    with Image.open(path) as image:
        several = model.predict([path, image, np.asarray(image)]).probabilities
    assert (several == several[0]).all()


def test_ensemble_load_and_predict_take_a_file(exported):
    loaded = ensemble.load(str(exported))
    assert isinstance(loaded, ensemble.ExportedModel) and loaded.summary().startswith("blend mean of 2 members, ")
    whole = ensemble.predict(exported, plain(1))
    assert whole.labels == ensemble.predict(loaded, plain(1)).labels == ["green"]
    for wrong in ({"blend": "mean"}, {"views": ["hflip"]}, {"networks": "soup"}):
        with pytest.raises(UserError, match="an exported file holds one blend with its views and networks"):
            ensemble.load(exported, **wrong)
    with pytest.raises(UserError, match="chosen when the run was loaded"):
        ensemble.predict(loaded, plain(1), blend="mean")


def test_few_images_are_left_to_the_engine_that_opens_first(monkeypatch):
    assert [engine_for("auto", count) for count in (1, 31, 32, 100)] == ["onnxruntime", "onnxruntime", "auto", "auto"]
    assert engine_for("openvino", 1) == "openvino"
    monkeypatch.setattr("ensemble.exported.engines.find_spec", lambda name: None if name == "onnxruntime" else object())
    assert engine_for("auto", 1) == "auto"


def test_costs_decide(tmp_path):
    costs = ((0.0, 1.0, 1.0), (1.0, 0.0, 1.0), (90.0, 90.0, 0.0))
    (tmp_path / "a.onnx").write_bytes(content(description(costs=costs)))
    assert load_exported(tmp_path / "a.onnx").predict([plain(row) for row in range(3)]).labels == ["blue"] * 3


def test_an_image_that_cannot_be_read_is_named(model, tmp_path, paint):
    for data, reason in ((b"", "upload: empty"), (b"<html>", "upload: not a readable image")):
        with pytest.raises(UserError, match=reason):
            model.decode(data, "upload")
    with pytest.raises(UserError, match=r"upload: an array float64 \(3, 3\); want uint8"):
        model.decode(np.zeros((3, 3)), "upload")
    with pytest.raises(UserError, match="upload: 2 images; give one at a time"):
        model.decode(np.zeros((2, 8, 8, 3), np.uint8), "upload")
    good, bad = paint(tmp_path / "a.png"), tmp_path / "b.png"
    bad.write_bytes(b"\x89PNG\r\n")
    with pytest.raises(UserError, match=r"b\.png: not a readable image"):
        model.predict([good, bad])
    with pytest.raises(UserError, match=r"images\[1\]: .*none: no such file"):
        model.predict([good, tmp_path / "none"])
    with pytest.raises(UserError, match="images: there are none"):
        model.predict([])
    probabilities, unreadable = model.predict_files([good, bad, good], "skip")
    assert np.isnan(probabilities).any(axis=1).tolist() == [False, True, False]
    assert list(unreadable) == [1] and "not a readable image" in unreadable[1]


def test_squares_of_another_shape_are_refused(model):
    whole = squares(model, [0])
    for wrong in ({}, {**whole, "squares_40": whole["squares_32"]}, {**whole, "squares_32": np.zeros((1, 32, 32, 3))}):
        with pytest.raises(ValueError, match="want uint8"):
            model.probabilities(wrong)


def test_files_that_ens_did_not_write(exported, tmp_path):
    path, whole = tmp_path / "x.onnx", exported.read_bytes()
    cases = [
        (b"id,label\n", "not an ONNX file"),
        (whole[:-100], "ens did not write it, or its end is lost"),
        (whole.replace(b"sharp", b"shard"), "damaged"),
        (content(description(format=2)), "format 2, and this ens reads format 1"),
    ]
    for data, reason in cases:
        path.write_bytes(data)
        with pytest.raises(UserError, match=reason) as caught:
            load_exported(path)
        assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    with pytest.raises(UserError, match="no such file"):
        load_exported(tmp_path / "none.onnx")


def test_a_graph_that_an_engine_cannot_run(tmp_path, model):
    path = tmp_path / "x.onnx"
    about = {"ens": description().to_json()}
    unknown = helper.make_graph([helper.make_node("Nonsense", ["a"], ["probabilities"])], "x", [], [])
    for graph in (unknown, helper.make_graph([], "x", [], [])):
        made = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)])
        path.write_bytes(sealed(with_metadata(made.SerializeToString(), about)))
        with pytest.raises(UserError, match="can't run it") as caught:
            load_exported(path, engine=model.engine.name)
        assert "\n" not in str(caught.value)


def test_an_engine_that_is_not_installed(exported, monkeypatch):
    with pytest.raises(UserError, match="engine 'tensorrt': want one of auto, openvino, onnxruntime"):
        load_exported(exported, engine="tensorrt")
    monkeypatch.setattr("ensemble.exported.engines.find_spec", lambda name: None if name == "openvino" else object())
    assert load_exported(exported).engine.name == "onnxruntime"
    with pytest.raises(UserError, match="OpenVINO is not installed: pip install openvino"):
        load_exported(exported, engine="openvino")
    monkeypatch.setattr("ensemble.exported.engines.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'needs OpenVINO or ONNX Runtime, .*: pip install "ens-vision\[export\]"'):
        load_exported(exported)

"""An exported cascade: each image is answered by the stage at which it exits, and what is wrong with a folder is one
line."""

import json
import shutil

import numpy as np
import pytest
from commands import ens
from exported_cascade import SIDE, THRESHOLDS, stage_probabilities, write_cascade
from exported_file import CLASSES
from PIL import Image

import ensemble
from ensemble.errors import UserError
from ensemble.exported import cascade
from ensemble.exported.engines import ENGINES
from ensemble.exported.model import load_exported
from ensemble.files.sealed import write_json
from ensemble.serve.model import load_model

EXITS = [1, 2, 0, 0, 1, 0, 1, 2]  # of PICTURES


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_cascade(tmp_path_factory.mktemp("exported") / "art")


def pictures():
    """Of one colour on the left and another on the right."""
    made = np.zeros((8, SIDE, SIDE, 3), dtype=np.uint8)
    colours = np.random.default_rng(0).integers(0, 255, (8, 2, 3))
    made[:, :, : SIDE // 2], made[:, :, SIDE // 2 :] = colours[:, None, None, 0], colours[:, None, None, 1]
    return made


def expected(exits=EXITS):
    """The probabilities of the stages at which the pictures exit, and those of the members that were asked."""
    stages = stage_probabilities(pictures())
    probabilities = np.array([stages[stage][0][row] for row, stage in enumerate(exits)])
    members = np.full((2, len(exits), 3), np.nan)
    for row, stage in enumerate(exits):
        for place, of_member in enumerate(stages[stage][1].values()):
            members[place, row] = of_member[row]
    return probabilities, members


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("at_once", [True, False])
def test_each_image_is_answered_by_the_stage_at_which_it_exits(folder, engine, at_once):
    model = load_exported(folder, 1, engine, at_once)
    probabilities, members = model.probabilities({"squares_32": pictures()})
    want, want_members = expected()
    assert probabilities.dtype == members.dtype == np.float32 and model.classes == CLASSES
    np.testing.assert_allclose(probabilities, want, atol=1e-5)
    np.testing.assert_allclose(members, want_members, atol=1e-5)
    for rows in ([], [2], [1, 4], [7, 6, 5, 4, 3, 2, 1, 0]):
        some, _ = model.probabilities({"squares_32": pictures()[rows]})
        np.testing.assert_allclose(some, want[rows].reshape(-1, 3), atol=1e-5)
    assert model.description.scores["accuracy"].value == 0.9 and model.summary().startswith("blend fast of 2 members, ")


def test_an_image_that_exits_early_costs_no_later_network(folder, monkeypatch):
    opened, computed = [], []

    def spied(engine, path, outputs, *more):
        opened.append(path.name)
        made = open_engine(engine, path, outputs, *more)

        def compute(inputs):
            computed.append((path.name, rows_of(inputs)))
            return made.compute(inputs)

        return cascade.Engine(made.name, made.version, made.threads, compute)

    def rows_of(inputs):
        first = next(iter(inputs.values()))
        return first.shape[2] if "logits_0" in inputs else first.shape[0]

    open_engine = cascade.open_engine
    monkeypatch.setattr(cascade, "open_engine", spied)
    model = load_exported(folder, 1, at_once=False)
    model.probabilities({"squares_32": pictures()[[2, 3, 5]]})  # all exit at the first stage
    assert sorted(opened) == ["networks0.onnx", "stage0.onnx", "view0.onnx"]
    computed.clear()
    model.probabilities({"squares_32": pictures()})
    assert computed == [
        ("view0.onnx", 8), ("networks0.onnx", 8), ("stage0.onnx", 8),
        ("view0.onnx", 5), ("networks1.onnx", 5), ("stage1.onnx", 5),
        ("view1.onnx", 2), ("networks0.onnx", 2), ("networks1.onnx", 2), ("stage2.onnx", 2),
    ]  # fmt: skip
    assert len(opened) == len(set(opened)) == 7


def test_python_the_command_and_the_server_take_the_folder(folder, tmp_path, monkeypatch, capfd):
    want = [CLASSES[best] for best in expected()[0].argmax(axis=1)]
    for row, pixels in enumerate(pictures()):
        (tmp_path / "test").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "test" / f"{row}.png")
    files = [tmp_path / "test" / f"{row}.png" for row in range(8)]
    assert ensemble.predict(folder, files).labels == ensemble.load(folder).predict(files).labels == want
    with pytest.raises(UserError, match="an exported file holds one blend"):
        ensemble.load(folder, networks="soup")
    output = tmp_path / "s.csv"
    status, out, err = ens(monkeypatch, capfd, "predict-file", folder, tmp_path / "test", "-o", output)
    assert status == 0 and "8 images; blend fast of 2 members, 4 networks in all; by " in out, err
    assert output.read_text() == "id,label\n" + "".join(f"{row}.png,{label}\n" for row, label in enumerate(want))
    status, out, _ = ens(monkeypatch, capfd, "predict-file", folder, files[2], "--json")
    assert status == 0
    np.testing.assert_allclose(json.loads(out)["result"]["probabilities"], expected()[0][[2]], atol=1e-5)
    for images in (tmp_path / "test", files[2]):
        status, _, err = ens(monkeypatch, capfd, "predict-file", folder, images, "-o", folder / "cascade.json")
        assert status == 2 and "cascade.json: is what the command reads" in err
    served = load_model(folder, None, None, 1)
    probabilities, members = served.predict([served.decode(path.read_bytes()) for path in files])
    np.testing.assert_allclose(probabilities, expected()[0], atol=1e-5)
    assert np.isnan(members[1]).any(axis=1).tolist() == [exit == 0 for exit in EXITS]
    with pytest.raises(UserError, match="--blend and --networks choose within a run"):
        load_model(folder, "fast", None, 1)


def changed(folder, **changes):
    """cascade.json with other values, and a checksum of them."""
    path = folder / "cascade.json"
    found = json.loads(path.read_text())
    del found["checksum"]
    write_json(path, found | changes)


def test_what_is_wrong_with_a_folder_is_one_line(folder, tmp_path):
    other = write_cascade(tmp_path / "other", name="slow")
    path = tmp_path / "art"
    graphs = json.loads((folder / "cascade.json").read_text())["graphs"]
    stages, (view, _) = graphs["stages"], graphs["views"]

    def flipped(name):
        content = bytearray((path / name).read_bytes())
        content[len(content) // 2] ^= 1
        (path / name).write_bytes(content)

    cases = {
        r"networks1\.onnx: no such file, and cascade\.json names it": lambda: (path / "networks1.onnx").unlink(),
        r"networks1\.onnx: of another export than cascade\.json": lambda: shutil.copy(other / "networks1.onnx", path),
        r"view0\.onnx: of another export": lambda: shutil.copy(other / "cascade.json", path),
        r"stage2\.onnx: (not a file|damaged)": lambda: flipped("stage2.onnx"),
        r"cascade\.json: damaged": lambda: flipped("cascade.json"),
        r"cascade\.json: no such file, and it says how": lambda: (path / "cascade.json").unlink(),
        r"cascade\.json: .* has no checksum": lambda: (path / "cascade.json").write_text("{}"),
        r"a cascade of format 2, and this ens reads format 1": lambda: changed(path, format=2),
        r"cascade\.json: has no key 'ms'|key 'ms' should be": lambda: changed(path, ms="fast"),
        r"it has no stages": lambda: changed(path, graphs=graphs | {"stages": []}),
        r"stage 0 blends what no stage": lambda: changed(path, graphs=graphs | {"stages": stages[1:]}),
        r"stage 0 needs a graph": lambda: changed(path, graphs=graphs | {"networks": []}),
        r"squares that it does not describe": lambda: changed(
            path, graphs=graphs | {"views": [view | {"squares": "x"}] * 2}
        ),
        r"lies outside of the folder": lambda: changed(
            path, graphs=graphs | {"networks": [{"file": "../x.onnx", "digest": "0" * 16}] * 2}
        ),
    }
    for reason, spoil in cases.items():
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(folder, path)
        spoil()
        with pytest.raises(UserError, match=reason) as caught:
            load_exported(path)
        assert str(caught.value).startswith(f"{path}") and "\n" not in str(caught.value), reason
    with pytest.raises(UserError, match=r"stage0\.onnx: one graph of the cascade 'fast', .*; name its folder"):
        load_exported(folder / "stage0.onnx")
    with pytest.raises(UserError, match="is a folder, and no cascade that ens export wrote"):
        load_exported(tmp_path)


def test_thresholds_decide(tmp_path):
    for threshold, exits in ((1e-6, [0] * 8), (1.0, [2] * 8)):
        path = write_cascade(tmp_path / f"{threshold}", (threshold, threshold, 0.0))
        found, _ = load_exported(path, 1).probabilities({"squares_32": pictures()})
        np.testing.assert_allclose(found, expected(exits)[0], atol=1e-5)
    assert THRESHOLDS[-1] == 0

"""`ens export`: the file, what it says of itself, and what can't be exported."""

import json
import shutil
import sys

import numpy as np
import onnxruntime
import pytest
import torch
from commands import ens
from recorder import Recorder

import ensemble
from ensemble.blend import read_result
from ensemble.data.pixels.decode import decode, middle_square
from ensemble.errors import UserError
from ensemble.export import bfloat16
from ensemble.export.export import ExportRequest, export
from ensemble.export.networks import load_exact
from ensemble.exported import seal
from ensemble.exported.description import parse_description
from ensemble.run import Run
from ensemble.soup.folds import soup_folds


def squares_of(description, files):
    return {
        name: np.stack([middle_square(decode(file, decoding)) for file in files])
        for name, decoding in description.inputs.items()
    }


def test_a_file_gives_the_runs_probabilities_and_describes_itself(exported_noise, noise_run):
    path = exported_noise
    seal.check(path)
    description = parse_description(seal.read_metadata(path), str(path))
    files = sorted((noise_run.parent / "train").glob("*/*.png"))[:7]
    want = ensemble.predict(noise_run, files)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map["ens"] == description.to_json()
    found = session.run(["probabilities"], squares_of(description, files))[0]
    assert np.abs(found - want.probabilities).max() < 1e-5
    assert description.classes == want.classes == ("a", "b")
    assert (description.blend, description.method, description.networks) == ("mean", "mean", "folds")
    assert {name: (each.timm, each.networks) for name, each in description.members.items()} == {
        "resnet": ("test_resnet", 2),
        "vit": ("test_vit", 2),
    }
    scores = read_result(Run(noise_run), "mean").blend
    assert description.scores["log_loss"].high == scores["log_loss"].high and description.scores_of_folds is None
    assert (description.rows, description.parity.rows, description.parity.changed) == (24, 24, 0)
    assert description.versions["ens"] == ensemble.__version__ and set(description.versions) > {"torch", "onnx"}
    assert len(description.data) == 64


def test_the_command_and_what_it_does_not_overwrite(noise_run, tmp_path, monkeypatch, capfd, exported_noise):
    output = tmp_path / "art.onnx"
    shutil.copy(exported_noise, output)  # an export may be replaced
    status, out, _ = ens(monkeypatch, capfd, "export", noise_run, "--blend", "mean", "-o", output, "--json")
    document = json.loads(out)
    assert status == 0 and document["result"]["bytes"] == output.stat().st_size
    assert document["result"]["description"]["parity"]["changed"] == 0
    assert any("2 members, 4 networks, " in line for line in document["said"])
    assert output.read_bytes()[:1000] == exported_noise.read_bytes()[:1000]
    for content in (b"\0 a picture", b"mine\n", b"no archive PK\x05\x06" + bytes(8) + b"\xff" * 8 + bytes(2)):
        output.write_bytes(content)
        status, _, err = ens(monkeypatch, capfd, "export", noise_run, "-o", output)
        assert status == 2 and "art.onnx: exists already and was not written by ens export; name another file" in err
        assert output.read_bytes() == content
    status, _, err = ens(monkeypatch, capfd, "export", noise_run, "-o", noise_run / "blends" / "x.onnx")
    assert status == 2 and "belongs to the run" in err
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    status, _, err = ens(monkeypatch, capfd, "export", noise_run, "-o", tmp_path / "b.onnx")
    assert status == 2 and 'pip install "ens-vision[export]"' in err and len(err.splitlines()) == 1


def test_members_of_other_runs_keep_the_names_that_tell_them_apart(noise_run):
    folds = [Run(noise_run).member("vit").fold(number) for number in range(2)]
    both = load_exact({"vit": folds, "other/vit": folds[:1]}, 2, Recorder())
    assert [(member.name, len(member.eval_models)) for member in both] == [("vit", 2), ("other/vit", 1)]
    assert {each.inference.dtype for member in both for each in member.eval_models} == {"float32"}


def test_pytorchs_own_format(noise_run, tmp_path, exported_noise):
    made = export(ExportRequest(Run(noise_run), tmp_path / "a.pt2", format="pt2"), Recorder())
    extra = {"ens.json": ""}
    program = torch.export.load(made.output, extra_files=extra)
    assert parse_description({"ens": extra["ens.json"]}, "a.pt2") == made.description
    files = sorted((noise_run.parent / "train").glob("*/*.png"))[:3]
    want = ensemble.predict(noise_run, files).probabilities
    for count in (1, 3):
        squares = squares_of(made.description, files[:count])
        found = program.module()(*map(torch.from_numpy, squares.values()))[0]
        assert np.abs(found.numpy() - want[:count]).max() < 1e-5
    export(ExportRequest(Run(noise_run), made.output, format="pt2"), Recorder())  # an export may be replaced


def test_soups_have_the_scores_of_the_folds(own_started_run, tmp_path):
    run = Run(own_started_run)
    soup_folds(run, None, None, Recorder())
    made = export(ExportRequest(run, tmp_path / "a.onnx", networks="soup"), Recorder())
    description = parse_description(seal.read_metadata(made.output), "a.onnx")
    assert {each.networks for each in description.members.values()} == {1}
    assert description.scores is None and description.scores_of_folds["accuracy"].value > 0


def test_a_member_that_ens_did_not_train(noise_run, tmp_path, monkeypatch, capfd):
    path = noise_run / "blends" / "mean.json"
    run = shutil.copytree(noise_run, tmp_path / "run")
    path = run / "blends" / "mean.json"
    found = json.loads(path.read_text())
    del found["checksum"]
    found["foreign"], found["views"][1] = [found["members"][1]], ["given"]
    found["view_weights"][1] = [1.0]
    path.write_text(json.dumps(found))
    status, _, err = ens(monkeypatch, capfd, "export", run, "-o", tmp_path / "a.onnx")
    assert status == 2 and "blend 'mean' holds vit, which ens did not train and can't export; fit one without it" in err
    assert "--members resnet" in err and not (tmp_path / "a.onnx").exists()


def test_bfloat16_is_allowed_only_where_it_keeps_the_predictions(noise_run, tmp_path, monkeypatch):
    openvino = pytest.importorskip("openvino")
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("the CPU has no bfloat16")
    events = Recorder()
    request = ExportRequest(Run(noise_run), tmp_path / "a.onnx", dtype="bfloat16")
    assert export(request, events).description.dtype == "float32"  # 24 rows tell nothing
    line = next(line for line in events.messages if line.startswith("bfloat16 changes the class of "))
    assert " of 24 out-of-fold rows and the log loss by " in line and "the file is computed in float32" in line
    monkeypatch.setattr(bfloat16, "LEAST_ROWS", 24)
    monkeypatch.setattr(bfloat16, "CHANGED", 1.0)
    monkeypatch.setattr(bfloat16, "LOSS", 1.0)
    made = export(request, events)
    assert made.description.dtype == "bfloat16" and "OpenVINO may compute the file in it" in events.messages[-1]
    assert parse_description(seal.read_metadata(made.output), "a.onnx") == made.description


def test_what_bfloat16_may_change():
    assert bfloat16.Tried(1000, 1, -0.0005).is_kept
    assert not bfloat16.Tried(1000, 2, 0.0).is_kept
    assert not bfloat16.Tried(1000, 0, -0.0006).is_kept
    assert not bfloat16.Tried(299, 0, 0.0).is_kept


def test_where_bfloat16_cannot_be_tried(noise_run, tmp_path):
    for change, message in (
        ({"networks": "soup"}, "is tried on out-of-fold rows, and --networks soup has none"),
        ({"format": "pt2"}, "is for OpenVINO, which reads no pt2 file"),
    ):
        with pytest.raises(UserError, match=message):
            export(ExportRequest(Run(noise_run), tmp_path / "a.onnx", dtype="bfloat16", **change), Recorder())

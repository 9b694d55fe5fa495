"""The digest and the metadata of an exported file, which are read without the onnx package."""

import numpy as np
import onnx
import pytest

from ensemble.data.pixels.preprocess import Decoding
from ensemble.errors import Damaged, UserError
from ensemble.exported import seal
from ensemble.exported.description import Description, ExportedMember, ExportedScore, Parity, parse_description

DESCRIPTION = Description(
    format=1,
    classes=("고양이", "NA"),
    inputs={"squares_64": Decoding(64, "bicubic", None)},
    blend="stack",
    method="stack",
    members={"net": ExportedMember("test_resnet", 2, ("identity", "hflip"))},
    networks="folds",
    scores={"accuracy": ExportedScore(0.5, 0.25, 0.75)},
    scores_of_folds=None,
    rows=24,
    costs=((0.0, 1.0), (5.0, 0.0)),
    dtype="float32",
    parity=Parity(24, 1e-7, 0),
    versions={"ens": "0.1.0"},
    data="abc",
    created="2026-01-01T00:00:00+00:00",
)


def model_bytes():
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [None])
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [None])
    weights = onnx.numpy_helper.from_array(np.arange(300, dtype=np.float32)[:1], "w")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Add", ["x", "w"], ["y"])], "g", [x], [y], [weights])
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)]).SerializeToString()


@pytest.fixture
def exported(tmp_path):
    path = tmp_path / "a.onnx"
    path.write_bytes(seal.sealed(seal.with_metadata(model_bytes(), {"ens": DESCRIPTION.to_json(), "more": "x" * 300})))
    return path


def refused(call, path):
    with pytest.raises(UserError) as caught:
        call(path)
    return str(caught.value)


def test_what_is_appended_is_metadata_to_onnx(exported):
    model = onnx.load(exported)
    onnx.checker.check_model(model)
    found = {entry.key: entry.value for entry in model.metadata_props}
    assert list(found) == ["ens", "more", "ens-digest"]
    assert found["ens"] == DESCRIPTION.to_json()
    assert seal.read_metadata(exported) == found
    assert parse_description(found, "a.onnx") == DESCRIPTION


def test_every_changed_byte_is_found(exported):
    seal.check(exported)
    whole = exported.read_bytes()
    for place in range(len(whole)):
        exported.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(UserError):
            seal.check(exported)
    exported.write_bytes(whole[:200] + bytes([whole[200] ^ 1]) + whole[201:])
    with pytest.raises(Damaged, match=r"a\.onnx: damaged: its bytes are not those that ens wrote; copy it again"):
        seal.check(exported)


@pytest.mark.parametrize("content", [b"", b"\x08", b"no model", b"\x89PNG" + bytes(100)])
def test_what_is_no_model(exported, content):
    exported.write_bytes(content)
    assert "not an ONNX file" in refused(seal.check, exported)


@pytest.mark.parametrize("length", [b"\xff" * 8 + b"\x7f", b"\xff" * 9 + b"\x7f"])
def test_a_length_beyond_any_file(exported, length):
    exported.write_bytes(b"\x12" + length)
    assert "not a whole ONNX file" in refused(seal.read_metadata, exported)


def test_foreign_and_cut_files(exported, tmp_path):
    whole = exported.read_bytes()
    exported.write_bytes(model_bytes())
    assert "ens did not write it, or its end is lost" in refused(seal.check, exported)
    exported.write_bytes(whole[:-1])
    assert "its end is lost" in refused(seal.check, exported)
    assert "not a whole ONNX file" in refused(seal.read_metadata, exported)
    exported.write_bytes(whole + b"\0")
    assert "its end is lost" in refused(seal.check, exported)
    assert refused(seal.check, tmp_path / "none.onnx").endswith("none.onnx: no such file")
    assert "is a folder" in refused(seal.check, tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"format": 1', '"format": 2', "a file of format 2, and this ens reads format 1"),
        ('["고양이", "NA"]', '["a", "a"]', "one is there twice"),
        ("[0.0, 1.0], ", "", "its costs have not a row and a column for each class"),
        ('"size": 64', '"size": null', "one without a size"),
        ('"rows": 24, "costs"', '"rows": "24", "costs"', "key 'rows' should be a valid integer, but is \"24\""),
        ('"blend": "stack"', '"blend": "stack", "colour": 1', "unknown key 'colour'"),
    ],
)
def test_a_description_that_does_not_fit(old, new, message):
    text = DESCRIPTION.to_json()
    assert old in text
    with pytest.raises(UserError, match=r"a\.onnx: .*write it again with: ens export") as caught:
        parse_description({"ens": text.replace(old, new)}, "a.onnx")
    assert message in str(caught.value)


def test_metadata_of_others():
    with pytest.raises(UserError, match=r"a\.onnx: not a file that ens export wrote"):
        parse_description({"author": "x"}, "a.onnx")

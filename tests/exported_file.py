"""A small file as `ens export` writes it, made by hand: two members that tell the mean colours of an image, at 32 and
at 40 px, and their mean."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from ensemble.data.pixels.preprocess import Decoding
from ensemble.exported.description import Description, ExportedMember, ExportedScore, Parity
from ensemble.exported.seal import sealed, with_metadata

CLASSES = ("red", "green", "blue")
INPUTS = {"squares_32": Decoding(32, "bicubic", None), "squares_40": Decoding(40, "bilinear", None)}
SHARPNESS = {"squares_32": 9.0, "squares_40": 3.0}  # of the members, in this order


def description(**changes):
    known = {
        "format": 1,
        "classes": CLASSES,
        "inputs": INPUTS,
        "blend": "mean",
        "method": "mean",
        "members": {name: ExportedMember("test_resnet", 2, ("identity",)) for name in ("sharp", "soft")},
        "networks": "folds",
        "scores": {"accuracy": ExportedScore(0.9, 0.8, 0.95)},
        "scores_of_folds": None,
        "rows": 24,
        "costs": None,
        "dtype": "float32",
        "parity": Parity(16, 1e-7, 0),
        "versions": {"ens": "0.1.0"},
        "data": "0" * 64,
        "created": "2026-01-01T00:00:00",
    }
    return Description(**{**known, **changes})


def content(about=None):
    """The bytes of the file. about: its description; None for that above."""
    about = about or description()
    nodes, members = [], []
    constants = {"divisor": np.float32(255), "sides": np.array([1, 2]), "first": np.array([0])}
    for name in INPUTS:
        constants[f"sharpness_{name}"] = np.float32(SHARPNESS[name])
        nodes += [
            helper.make_node("Cast", [name], [f"pixels_{name}"], to=TensorProto.FLOAT),
            helper.make_node("Div", [f"pixels_{name}", "divisor"], [f"images_{name}"]),
            helper.make_node("ReduceMean", [f"images_{name}", "sides"], [f"colours_{name}"], keepdims=0),
            helper.make_node("Mul", [f"colours_{name}", f"sharpness_{name}"], [f"logits_{name}"]),
            helper.make_node("Softmax", [f"logits_{name}"], [f"alone_{name}"], axis=1),
            helper.make_node("Unsqueeze", [f"alone_{name}", "first"], [f"member_{name}"]),
        ]
        members.append(f"member_{name}")
    nodes += [
        helper.make_node("Concat", members, ["member_probabilities"], axis=0),
        helper.make_node("ReduceMean", ["member_probabilities", "first"], ["probabilities"], keepdims=0),
    ]
    squares = [
        helper.make_tensor_value_info(name, TensorProto.UINT8, ["batch", decoding.size, decoding.size, 3])
        for name, decoding in INPUTS.items()
    ]
    outputs = [
        helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 3]),
        helper.make_tensor_value_info("member_probabilities", TensorProto.FLOAT, [2, "batch", 3]),
    ]
    held = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "blend", squares, outputs, held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return sealed(with_metadata(model.SerializeToString(), {"ens": about.to_json()}))


def expected(colours):
    """Each member's probabilities and the blend's for images of one colour each, float64 (N, 3) of [0, 1]."""
    members = []
    for sharpness in SHARPNESS.values():
        powers = np.exp(sharpness * np.asarray(colours))
        members.append(powers / powers.sum(axis=1, keepdims=True))
    return np.mean(members, axis=0), np.array(members)

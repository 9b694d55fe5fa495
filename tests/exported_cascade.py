"""A small cascade as `ens export` writes it, made by hand: members that tell the mean colours of an image's left half.
Sharp is asked first, then soft, then both about the mirrored image."""

from dataclasses import asdict

import numpy as np
from exported_file import description
from onnx import TensorProto, helper, numpy_helper

from ensemble.data.pixels.preprocess import Decoding
from ensemble.exported.cascade_description import (
    CascadeGraphs,
    ExportedCascade,
    ExportedStage,
    GraphFile,
    MemberPass,
    ViewGraph,
)
from ensemble.exported.description import ExportedMember
from ensemble.exported.seal import digest_in, sealed, with_metadata
from ensemble.files.sealed import write_json

SIDE = 32
SHARPNESS = {"sharp": (9.0, 6.0), "soft": (3.0, 2.0)}  # of each member's two networks
VIEWS = ("identity", "hflip")
STAGES = (
    {"sharp": ("identity",)},
    {"sharp": ("identity",), "soft": ("identity",)},
    {"sharp": VIEWS, "soft": VIEWS},
)
THRESHOLDS = (0.88, 0.6, 0.0)


def model(nodes, inputs, outputs, **constants):
    """A graph as it is serialised. inputs, outputs: name -> the shape; squares are bytes."""

    def values(shapes):
        kinds = {name: TensorProto.UINT8 if name.startswith("squares") else TensorProto.FLOAT for name in shapes}
        return [helper.make_tensor_value_info(name, kinds[name], shape) for name, shape in shapes.items()]

    held = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "part", values(inputs), values(outputs), held)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return made.SerializeToString()


def view_graph(mirrored):
    columns = np.arange(SIDE)[:: -1 if mirrored else 1].copy()
    nodes = [
        helper.make_node("Cast", ["squares_32"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Gather", ["planes", "columns"], ["turned"], axis=3),
        helper.make_node("Div", ["turned", "divisor"], ["images"]),
    ]
    shapes = {"squares_32": ["batch", SIDE, SIDE, 3]}, {"images": ["batch", 3, SIDE, SIDE]}
    return model(nodes, *shapes, columns=columns, divisor=np.float32(255))


def networks_graph(sharpness):
    nodes = [
        helper.make_node("Slice", ["images", "start", "middle", "width"], ["left"]),
        helper.make_node("ReduceMean", ["left", "sides"], ["colours"], keepdims=0),
        helper.make_node("Unsqueeze", ["colours", "start"], ["one"]),
        helper.make_node("Mul", ["one", "sharpness"], ["logits"]),
    ]
    constants = {"start": np.array([0]), "middle": np.array([SIDE // 2]), "width": np.array([3])}
    sides, sharpness = np.array([2, 3]), np.array(sharpness, dtype=np.float32)[:, None, None]
    shapes = {"images": ["batch", 3, SIDE, SIDE]}, {"logits": [2, "batch", 3]}
    return model(nodes, *shapes, sides=sides, sharpness=sharpness, **constants)


def blend_graph(members, views):
    nodes = []
    for number in range(members):
        nodes += [
            helper.make_node("ReduceMean", [f"logits_{number}", "one"], [f"mean_{number}"], keepdims=0),
            helper.make_node("Softmax", [f"mean_{number}"], [f"each_{number}"], axis=2),
            helper.make_node("ReduceMean", [f"each_{number}", "zero"], [f"member_{number}"], keepdims=1),
        ]
    nodes += [
        helper.make_node("Concat", [f"member_{number}" for number in range(members)], ["member_probabilities"], axis=0),
        helper.make_node("ReduceMean", ["member_probabilities", "zero"], ["probabilities"], keepdims=0),
    ]
    inputs = {f"logits_{number}": [2, views, "batch", 3] for number in range(members)}
    outputs = {"probabilities": ["batch", 3], "member_probabilities": [members, "batch", 3]}
    return model(nodes, inputs, outputs, one=np.array([1]), zero=np.array([0]))


def write_cascade(folder, thresholds=THRESHOLDS, name="fast"):
    """The folder. name: of the cascade, which stands in every graph."""
    contents = {f"view{number}.onnx": view_graph(bool(number)) for number in range(2)}
    contents |= {f"networks{number}.onnx": networks_graph(each) for number, each in enumerate(SHARPNESS.values())}
    contents |= {
        f"stage{number}.onnx": blend_graph(len(stage), len(stage["sharp"])) for number, stage in enumerate(STAGES)
    }
    contents = {file: sealed(with_metadata(each, {"ens-part": name})) for file, each in contents.items()}
    members = list(SHARPNESS)
    asked = ([("sharp", 0)], [("soft", 0)], [("sharp", 1), ("soft", 1)])
    files = {file: GraphFile(file, digest_in(content)) for file, content in contents.items()}
    stages = tuple(
        ExportedStage(
            tuple(MemberPass(member, VIEWS[view], view, members.index(member)) for member, view in passes),
            files[f"stage{number}.onnx"],
            STAGES[number],
            thresholds[number],
        )
        for number, passes in enumerate(asked)
    )
    graphs = CascadeGraphs(
        tuple(ViewGraph(files[f"view{number}.onnx"], "squares_32") for number in range(2)),
        tuple(files[f"networks{number}.onnx"] for number in range(2)),
        stages,
    )
    about = description(
        inputs={"squares_32": Decoding(SIDE, "bicubic", None)},
        blend=name,
        members={member: ExportedMember("test_resnet", 2, VIEWS) for member in members},
    )
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in contents.items():
        (folder / file).write_bytes(content)
    write_json(folder / "cascade.json", asdict(ExportedCascade(1, about, graphs, 118.0, 462.0)))
    return folder


def stage_probabilities(squares):
    """Each stage's probabilities, and those of its members, of squares uint8 (N, side, side, 3)."""
    halves = {"identity": squares[:, :, : SIDE // 2], "hflip": squares[:, :, SIDE // 2 :]}
    colours = {view: (half / 255).mean(axis=(1, 2)) for view, half in halves.items()}
    found = []
    for stage in STAGES:
        members = {}
        for member, views in stage.items():
            mean = np.mean([colours[view] for view in views], axis=0)
            powers = np.exp(np.array(SHARPNESS[member])[:, None, None] * mean)
            members[member] = (powers / powers.sum(axis=-1, keepdims=True)).mean(axis=0)
        found.append((np.mean(list(members.values()), axis=0), members))
    return found

"""A cascade as a folder of graphs, so that an image that exits early costs only the networks that it came to, and no
network is stored twice, or computed twice for a view:

    view0.onnx ...       from squares to the normalised images of a view
    networks0.onnx ...   from these to the logits of a member's networks
    stage0.onnx ...      from logits to the probabilities of a stage's blend
    cascade.json         which of them each stage needs, and when an image exits

A member of a cascade is first asked under one view, and under others stages later: so its networks can't be one graph
with what any one stage computes besides.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from typing_extensions import TypedDict

from ensemble.blend import Blend
from ensemble.blend.described import read_described
from ensemble.blend.saved import load_blend
from ensemble.errors import UserError
from ensemble.events import Events
from ensemble.export.blending import Blending
from ensemble.export.ensemble_module import example_of, input_names, outputs_of
from ensemble.export.ensemble_onnx import add_blending, concatenated, network_of, require_size
from ensemble.export.formats import Artifact, Probabilities
from ensemble.export.front import Front
from ensemble.export.join import Joined
from ensemble.export.networks import as_module
from ensemble.exported import seal
from ensemble.exported.cascade import stage_answers
from ensemble.exported.cascade_description import (
    CASCADE_JSON,
    FORMAT,
    CascadeGraphs,
    ExportedCascade,
    ExportedStage,
    GraphFile,
    MemberPass,
    ViewGraph,
)
from ensemble.exported.description import PART_KEY, Description
from ensemble.exported.engines import Compute, installed, open_engine
from ensemble.files.reading import Count, Finite, parse_json
from ensemble.files.sealed import write_json
from ensemble.inference.member import LoadedMember
from ensemble.inference.to_onnx import Graphs, graph_of, with_weights
from ensemble.run import Run
from ensemble.tta.early_exit import exit_stages


def cascade_artifact(
    name: str,
    blend: Blend,
    loaded: Sequence[LoadedMember],
    scores: "CascadeScores | None",
    known: Graphs,
    events: Events,
) -> Artifact:
    """The folder of a cascade, before it is one.

    name: of the cascade
    scores: what it is worth; None where that is not known
    known: graphs of architectures, as in `ensemble_to_onnx`

    Raises UserError that names a member that PyTorch's exporter can't write, or whose networks are too large for one
    file.
    """
    members = {member.name: member for member in loaded}
    passes = [(members[member], view) for stage in exit_stages(blend) for member, view in stage.added]
    fronts = {(member.preprocess, view): Front(member.preprocess, [view]).eval() for member, view in passes}
    inputs = input_names(list(fronts.values()))
    networks = dict.fromkeys((member.name, fronts[member.preprocess, view].size) for member, view in passes)
    contents: dict[str, bytes] = {}

    def add(file: str, joined: Joined) -> GraphFile:
        contents[file] = seal.sealed(seal.with_metadata(joined.to_bytes("ens"), {PART_KEY: name}))
        return GraphFile(file, seal.digest_in(contents[file]))

    views = []
    for number, front in enumerate(fronts.values()):
        [squares] = [name for name, decoding in inputs.items() if [decoding] == front.decodings]
        views.append(ViewGraph(add(f"view{number}.onnx", _view_graph(front, squares)), squares))
    of_networks = []
    for number, (member, size) in enumerate(networks):
        events.progress("exporting the networks", number, len(networks))
        joined = _networks_graph(members[member], size, len(blend.classes), known)
        of_networks.append(add(f"networks{number}.onnx", joined))
    events.progress("exporting the networks", len(networks), len(networks))
    stages = []
    for number, stage in enumerate(exit_stages(blend)):
        added = tuple(
            MemberPass(
                member=member,
                view=view,
                images=list(fronts).index((members[member].preprocess, view)),
                networks=list(networks).index((member, fronts[members[member].preprocess, view].size)),
            )
            for member, view in stage.added
        )
        graph = add(f"stage{number}.onnx", _blend_graph(stage.blend, members))
        stages.append(ExportedStage(added, graph, stage.blend.trained, stage.threshold))
    graphs = CascadeGraphs(tuple(views), tuple(of_networks), tuple(stages))

    def opened(engine: str) -> Probabilities:
        threads = torch.get_num_threads()
        ready: dict[GraphFile, Compute] = {
            graph: open_engine(engine, contents[graph.file], outputs, threads, "float32").compute
            for graph, outputs in graphs.outputs.items()
        }

        def probabilities(squares: Mapping[str, np.ndarray]) -> np.ndarray:
            answer = stage_answers(graphs, ready.__getitem__, squares)
            every = np.arange(len(next(iter(squares.values()))))
            return np.stack([answer(number, every)[0] for number in range(len(stages))])

        return probabilities

    def save(folder: Path, description: Description) -> None:
        for file, content in contents.items():
            (folder / file).write_bytes(content)
        ms, whole_ms = (None, None) if scores is None else (scores["worth"]["ms"], scores["whole"]["ms"])
        write_json(folder / CASCADE_JSON, asdict(ExportedCascade(FORMAT, description, graphs, ms, whole_ms)))

    return Artifact(inputs, installed(), opened, save)


def _view_graph(front: Front, squares: str) -> Joined:
    """From `squares` to `images` float32 (batch, 3, S, S)."""
    joined, [decoding] = Joined(), front.decodings
    joined.add_input(squares, ["batch", decoding.size or 0, decoding.size or 0, 3], np.uint8)
    part = with_weights(graph_of(front, {squares: example_of(decoding)}, "images"), front)
    [images] = joined.add_part(part, "front/", {squares: squares})
    joined.add_output("images", ["batch", 3, front.size, front.size], images)
    return joined


def _networks_graph(member: LoadedMember, size: int, classes: int, known: Graphs) -> Joined:
    """From `images` float32 (batch, 3, size, size) to `logits` float32 (K, batch, C)."""
    joined = Joined()
    networks = torch.nn.ModuleList(map(as_module, member.eval_models)).eval().requires_grad_(False)
    require_size(networks)
    joined.add_input("images", ["batch", 3, size, size], np.float32)
    folds = member.eval_models[0].outputs
    logits = []
    for number, network in enumerate(networks):
        part = network_of(member.name, network, size, known)
        [found] = joined.add_part(part, f"{number}/", {"images": "images"})
        shape = joined.add_constant([folds, -1, classes], f"{number}/shape")
        logits.append(joined.add_node("Reshape", [found, shape], f"{number}/folds"))
    joined.add_output("logits", [folds * len(networks), "batch", classes], concatenated(joined, logits, "all", axis=0))
    return joined


def _blend_graph(blend: Blend, members: Mapping[str, LoadedMember]) -> Joined:
    """From `logits_0`, ... float32 (K, V, batch, C) of each member to the blend's outputs."""
    joined, classes = Joined(), len(blend.classes)
    shapes = [(outputs_of(members[name]), len(views)) for name, views in blend.trained.items()]
    names = [f"logits_{number}" for number in range(len(shapes))]
    for name, (networks, views) in zip(names, shapes, strict=True):
        joined.add_input(name, [networks, views, "batch", classes], np.float32)
    add_blending(joined, Blending(blend, [networks for networks, _ in shapes]).eval(), shapes, names, classes)
    return joined


class _Cost(TypedDict):
    ms: Finite


class CascadeScores(TypedDict):
    """Of what `ens cascade` has saved: the whole blend's name, how many rows it was scored on, and milliseconds per
    image in the mean."""

    blend: str
    rows: Count
    whole: _Cost
    worth: _Cost


def read_cascade_scores(run: Run, name: str) -> CascadeScores | None:
    """None for a cascade that was saved without its scores. Raises UserError that names the file and the key."""
    scores = read_described(run, name).get("scores")
    if not scores:
        return None
    again = f"make it again with: ens cascade {run}"
    return parse_json(json.dumps(scores), CascadeScores, str(run.blend_json(name)), again)


def cascade_of(run: Run, name: str) -> str | None:
    """The name of the blend that a cascade was made of; None for a plain blend, and where that is not known."""
    scores = read_cascade_scores(run, name) if load_blend(run, name).stages else None
    return None if scores is None else scores["blend"]


def require_own_folder(folder: Path) -> None:
    """Raise UserError unless a cascade may be written to this folder: none is there, or one that ens export wrote."""
    if folder.suffix == ".onnx" or folder.is_file():
        raise UserError(f"{folder}: a cascade is exported as a folder of several graphs; name one, such as -o art")
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name != CASCADE_JSON and not re.fullmatch(r"(view|networks|stage)\d+\.onnx", path.name):
            raise UserError(f"{folder}: holds {path.name}, which ens export did not write; name another folder")

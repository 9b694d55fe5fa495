"""An exported cascade, computed: small graphs that are called one after the other, for those images alone that did not
exit before."""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from ensemble.errors import UserError
from ensemble.exported import seal
from ensemble.exported.cascade_description import (
    CASCADE_JSON,
    CascadeGraphs,
    ExportedCascade,
    GraphFile,
    read_cascade_json,
)
from ensemble.exported.description import AGAIN
from ensemble.exported.engines import Compute, Engine, open_engine
from ensemble.files import sealed
from ensemble.predictions.early_exit import run_stages

StageAnswer = Callable[[int, np.ndarray], list[np.ndarray]]


def stage_answers(
    graphs: CascadeGraphs, graph_of: Callable[[GraphFile], Compute], squares: Mapping[str, np.ndarray]
) -> StageAnswer:
    """What the stages answer for n images. squares: uint8 (n, side, side, 3) of each input.

    Returns a function of the number of a stage and of rows int64 (m,), for which the stages before it have been asked:
    it computes what the stage adds, and gives the blend's probabilities float32 (m, C), and those of each of the
    stage's members by itself, float32 (M, m, C).
    """
    count = len(next(iter(squares.values())))
    logits: dict[tuple[str, str], np.ndarray] = {}  # of each member and view float32 (K, n, C)

    def answer(number: int, rows: np.ndarray) -> list[np.ndarray]:
        stage = graphs.stages[number]
        images: dict[int, np.ndarray] = {}
        for each in stage.passes:
            if each.images not in images:
                view = graphs.views[each.images]
                [images[each.images]] = graph_of(view.graph)({view.squares: squares[view.squares][rows]})
            [found] = graph_of(graphs.networks[each.networks])({"images": images[each.images]})
            place = (each.member, each.view)
            if place not in logits:
                logits[place] = np.empty((len(found), count, found.shape[-1]), dtype=np.float32)
            logits[place][:, rows] = found
        inputs = {
            f"logits_{place}": np.stack([logits[member, view][:, rows] for view in views], axis=1)
            for place, (member, views) in enumerate(stage.views.items())
        }
        return graph_of(stage.blend)(inputs)

    return answer


def open_cascade(folder: Path, engine: str, threads: int, at_once: bool) -> tuple[ExportedCascade, str, Engine]:
    """What `ens export` wrote of a cascade, the digest of all of it, and what computes it as if it were one graph;
    `member_probabilities` are NaN of members that an image did not come to.

    engine: "openvino" or "onnxruntime"
    at_once: whether all graphs are opened now, else when an image first comes to them

    Raises UserError for a graph that is missing, damaged or of another export, for a `cascade.json` as
    `read_cascade_json` does, and where the engine can't read a graph.
    """
    cascade = read_cascade_json(folder)
    graphs, outputs = cascade.graphs, cascade.graphs.outputs
    for graph in outputs:
        _require_graph(folder, graph)
    opened: dict[GraphFile, Engine] = {}
    lock = threading.Lock()

    def open_graph(graph: GraphFile) -> Engine:
        with lock:
            if graph not in opened:
                dtype = cascade.description.dtype
                opened[graph] = open_engine(engine, folder / graph.file, outputs[graph], threads, dtype)
            return opened[graph]

    for graph in outputs if at_once else ():
        open_graph(graph)
    members = {name: place for place, name in enumerate(cascade.description.members)}
    classes = len(cascade.description.classes)

    def compute(squares: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        answer = stage_answers(graphs, lambda graph: open_graph(graph).compute, squares)
        count = len(next(iter(squares.values())))
        probabilities = np.empty((count, classes), dtype=np.float32)
        of_members = np.full((len(members), count, classes), np.nan, dtype=np.float32)

        def answered(number: int, rows: np.ndarray) -> np.ndarray:
            found, of_stage = answer(number, rows)
            probabilities[rows] = found
            for name, values in zip(graphs.stages[number].views, of_stage, strict=True):
                of_members[members[name], rows] = values
            return found

        run_stages(graphs.thresholds, count, answered)
        return [probabilities, of_members]

    digest = sealed.file_checksum(folder / CASCADE_JSON) or ""
    version = open_graph(graphs.stages[0].blend).version
    return cascade, digest, Engine(engine, version, threads, compute)


def _require_graph(folder: Path, graph: GraphFile) -> None:
    path = folder / graph.file
    if not path.is_file():
        raise UserError(f"{path}: no such file, and {CASCADE_JSON} names it; copy the whole folder again, or {AGAIN}")
    if seal.check(path) != graph.digest:
        raise UserError(
            f"{path}: of another export than {CASCADE_JSON}, which names a file of other bytes; copy the whole folder "
            f"again, or {AGAIN}"
        )

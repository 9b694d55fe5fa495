"""What an exported cascade says of itself: `cascade.json`, in the folder of its graphs."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ensemble.errors import UserError
from ensemble.exported.description import AGAIN, Description, require_whole
from ensemble.exported.engines import OUTPUTS
from ensemble.files import sealed
from ensemble.files.reading import Count, Finite, read_json

CASCADE_JSON = "cascade.json"
FORMAT = 1
FIRST_GRAPH = "stage0.onnx"


@dataclass(frozen=True)
class GraphFile:
    """A graph of the cascade.

    file: its name in the folder
    digest: 16 hex digits, of all its bytes
    """

    file: str
    digest: str


@dataclass(frozen=True)
class ViewGraph:
    """From squares to the normalised images of one view, `images` float32 (batch, 3, S, S).

    graph: where it is
    squares: the name of its input, one of the `inputs` of the `Description`
    """

    graph: GraphFile
    squares: str


@dataclass(frozen=True)
class MemberPass:
    """A member's networks on the images of a view.

    member, view: their names
    images: the number of the graph that makes the images
    networks: that of the graph of the networks, from `images` to `logits` float32 (K, batch, C)
    """

    member: str
    view: str
    images: Count
    networks: Count


@dataclass(frozen=True)
class ExportedStage:
    """A stage of the cascade.

    passes: what it computes that no stage before it has
    blend: the graph from the logits of each member, `logits_0`, `logits_1`, ... float32 (K, V, batch, C), to
        `probabilities` float32 (batch, C), and `member_probabilities` float32 (M, batch, C)
    views: the M members that are blended, with their V views, in the order of the graph's inputs
    threshold: an image whose largest probability is at least this exits here; 0 of the last stage
    """

    passes: tuple[MemberPass, ...]
    blend: GraphFile
    views: dict[str, tuple[str, ...]]
    threshold: Finite


@dataclass(frozen=True)
class CascadeGraphs:
    """How the graphs of a cascade go together.

    views: those that make images
    networks: those of the members' networks
    stages: in order, that of the whole blend last
    """

    views: tuple[ViewGraph, ...]
    networks: tuple[GraphFile, ...]
    stages: tuple[ExportedStage, ...]

    @property
    def thresholds(self) -> list[float]:
        """Of each stage."""
        return [stage.threshold for stage in self.stages]

    @property
    def outputs(self) -> dict[GraphFile, tuple[str, ...]]:
        """All graphs, each with the names of its outputs."""
        return {
            **{view.graph: ("images",) for view in self.views},
            **dict.fromkeys(self.networks, ("logits",)),
            **{stage.blend: OUTPUTS for stage in self.stages},
        }


@dataclass(frozen=True)
class ExportedCascade:
    """What is in an exported cascade.

    format: 1
    description: what a plain file says of itself
    graphs: its files, and how they go together
    ms: milliseconds per image in the mean, out of fold, of the run on the machine that made the cascade; None where
        that is not known
    whole_ms: those of the whole blend
    """

    format: Count
    description: Description
    graphs: CascadeGraphs
    ms: Finite | None
    whole_ms: Finite | None


def is_cascade(folder: Path) -> bool:
    """Whether a folder is an exported cascade, perhaps not all of it."""
    return (folder / CASCADE_JSON).is_file() or (folder / FIRST_GRAPH).is_file()


def is_exported(path: Path) -> bool:
    """Whether it is a file, or an exported cascade, rather than a run."""
    return path.suffix == ".onnx" or path.is_file() or is_cascade(path)


def read_cascade_json(folder: Path) -> ExportedCascade:
    """Raises UserError that names the file if ens did not write it, if it is of another format, damaged, or if its
    parts don't go together."""
    path = folder / CASCADE_JSON
    if not path.is_file():
        raise UserError(f"{path}: no such file, and it says how the cascade's graphs go together; {AGAIN}")
    if sealed.file_checksum(path) is None:
        raise UserError(f"{path}: not a file that ens export wrote: it has no checksum; {AGAIN}")
    found = read_json(path, dict[str, Any], AGAIN).get("format")
    if found != FORMAT:
        raise UserError(
            f"{path}: a cascade of format {found!r}, and this ens reads format {FORMAT}; read it with the ens that "
            f"wrote it, or {AGAIN}"
        )
    cascade = read_json(path, ExportedCascade, AGAIN)
    require_whole(cascade.description, str(path))
    for problem in _problems(cascade):
        raise UserError(f"{path}: {problem}; {AGAIN}")
    return cascade


def _problems(cascade: ExportedCascade) -> Iterator[str]:
    """What does not go together."""
    graphs, members = cascade.graphs, cascade.description.members
    names = [graph.file for graph in graphs.outputs]
    if len(set(names)) < len(names) or any(Path(name).name != name for name in names):
        yield "a graph is there twice, or lies outside of the folder"
    if any(view.squares not in cascade.description.inputs for view in graphs.views):
        yield "the images of a view are made of squares that it does not describe"
    *earlier, last = graphs.thresholds or [1.0]
    if last != 0 or not all(0 < threshold <= 1 for threshold in earlier):
        yield "it has no stages, or thresholds that are none"
    computed: set[tuple[str, str]] = set()
    for number, stage in enumerate(graphs.stages):
        if any(each.images >= len(graphs.views) or each.networks >= len(graphs.networks) for each in stage.passes):
            yield f"stage {number} needs a graph that it does not name"
        computed.update((each.member, each.view) for each in stage.passes)
        needed = {(member, view) for member, views in stage.views.items() for view in views}
        if not needed or not needed <= computed or not set(stage.views) <= set(members):
            yield f"stage {number} blends what no stage has computed, or a member that it does not describe"

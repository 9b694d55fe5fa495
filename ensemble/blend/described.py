"""The JSON of a blend: what stands in it, and that it fits together."""

from collections.abc import Collection
from typing import Any, NotRequired

from typing_extensions import TypedDict

from ensemble.blend import methods, scaling
from ensemble.blend.sources import Sources, require_sources
from ensemble.blend.stages import SavedStage
from ensemble.errors import UserError
from ensemble.files.reading import Count, Finite, read_json
from ensemble.run import Run

FORMAT = 2
SCALED_FORMAT = 3  # of a blend with a scaling, which an ens that knows only format 2 would leave out


class SavedSources(TypedDict):
    """`Sources` as JSON."""

    others: dict[str, str]
    sets: dict[str, list[Count]]


class Described(TypedDict):
    """The JSON of a blend. params: what `Chain.params` holds beside arrays. arrays: the shapes of those, which are in
    the safetensors of `sha256`. fitted_on: see `oof_digests`. scores: those of `ensemble.blend.result`; of a cascade,
    which has stages, those of `ensemble.cascade.result`. held_out: SHA-256 of the file of `ensemble.blend.held_out`."""

    format: int
    method: str
    metric: str
    members: list[str]
    views: list[list[str]]
    view_weights: list[list[Finite]]
    foreign: list[str]  # the external members: a key of format 2
    classes: list[str]
    params: dict[str, Any]
    arrays: dict[str, list[Count]]
    sha256: str
    costs: NotRequired[list[list[Finite]]]
    calibration: NotRequired[str]  # of format 3
    runs: NotRequired[SavedSources]  # of a blend of several runs
    stages: NotRequired[list[SavedStage]]  # of a cascade
    fitted_on: NotRequired[dict[str, str]]
    scores: NotRequired[dict[str, Any]]
    held_out: NotRequired[str]


def read_described(run: Run, name: str) -> Described:
    """A blend's JSON. Raises UserError that names the file if it is of another format, or doesn't fit together."""
    path, again = run.blend_json(name), f"fit it again with: ens blend {run}"
    if read_json(path, dict[str, Any], again).get("format") not in (FORMAT, SCALED_FORMAT):
        raise UserError(f"{path}: not a blend of format {FORMAT}; {again}")
    found = read_json(path, Described, again)
    members, views, classes = found["members"], found["views"], found["classes"]
    counts = [[len(of_member) for of_member in each] for each in (views, found["view_weights"])]
    if not members or len(set(members)) < len(members) or len(views) != len(members) or counts[0] != counts[1]:
        raise UserError(f"{path}: its members, views and view weights don't go together; {again}")
    if any(not names or len(set(names)) < len(names) for names in views) or not {*found["foreign"]} <= {*members}:
        raise UserError(f"{path}: a member has no view or one twice, or an external one is no member; {again}")
    others = found["runs"]["others"] if "runs" in found else {}
    if any(not _is_name(member, others) for member in members):
        raise UserError(f"{path}: a member's name can't be that of a folder; {again}")
    try:
        if (sources := sources_of(found)) is not None:
            require_sources(sources, members, found["foreign"])
    except ValueError as error:
        raise UserError(f"{path}: {error}; {again}") from None
    if len(set(classes)) < len(classes) or len(classes) < 2:
        raise UserError(f"{path}: its classes are fewer than two, or one is there twice; {again}")
    methods.require_method(found["method"])
    scaling.require_kind(found.get("calibration", "temperature"))
    return found


def sources_of(found: Described) -> Sources | None:
    """Where the members of a blend of several runs lie; None of one run."""
    if "runs" not in found:
        return None
    saved = found["runs"]
    return Sources(saved["others"], {name: tuple(folds) for name, folds in saved["sets"].items()})


def _is_name(member: str, others: Collection[str]) -> bool:
    run, slash, plain = member.rpartition("/")
    is_plain = plain not in ("", ".", "..") and not set(plain) & {"\\", "\0"} and len(plain.encode()) <= 200
    return is_plain and (not slash or run in others)

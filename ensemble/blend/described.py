"""The JSON of a saved blend: what it was fitted on, and the scores that a report shows beside it."""

from pathlib import Path
from typing import Any, NotRequired

from typing_extensions import TypedDict

from ensemble import rundir
from ensemble.blend import methods
from ensemble.errors import UserError
from ensemble.files.reading import Count, Finite, read_json
from ensemble.scoring.metrics import columns

FORMAT = 2


class Described(TypedDict):
    """What a blend is. scores: see `read_scores`."""

    format: int
    method: str
    metric: str
    members: list[str]
    views: list[list[str]]
    view_weights: list[list[Finite]]
    foreign: list[str]
    classes: list[str]
    params: dict[str, Any]
    arrays: dict[str, list[Count]]
    sha256: str
    fitted_on: NotRequired[dict[str, str]]
    scores: NotRequired[dict[str, Any]]


class SavedScore(TypedDict):
    value: Finite
    low: Finite
    high: Finite
    folds: list[float]


class SavedGain(TypedDict):
    against: str
    metric: str
    value: Finite
    low: Finite
    high: Finite
    p_better: Finite


class SavedBin(TypedDict):
    low: Finite
    high: Finite
    rows: Count
    accuracy: float
    confidence: float


class Diversity(TypedDict):
    costs: dict[str, SavedGain]


class Scores(TypedDict):
    """The part of a `BlendResult` that is read again; scores by metric."""

    rows: Count
    blend: dict[str, SavedScore]
    mean: dict[str, SavedScore]
    members: dict[str, dict[str, SavedScore]]
    best: dict[str, str]
    gains: list[SavedGain]
    calibration: dict[str, dict[str, Finite]]
    reliability: dict[str, list[SavedBin]]
    diversity: Diversity
    weights: dict[str, dict[str, Finite]]
    view_weights: dict[str, dict[str, Finite]]
    views: NotRequired[dict[str, list[str]]]
    unused: list[str]
    notes: list[str]
    left_out: dict[str, str]


class _Scored(TypedDict):
    scores: Scores


def read_described(run: Path, name: str) -> Described:
    """A blend's JSON. Raises UserError that names the file if it is of another format, or doesn't fit together."""
    path, again = rundir.blend_json(run, name), f"fit it again with: ens blend {run}"
    if read_json(path, dict[str, Any], again).get("format") != FORMAT:
        raise UserError(f"{path}: not a blend of format {FORMAT}; {again}")
    found = read_json(path, Described, again)
    members, views, classes = found["members"], found["views"], found["classes"]
    counts = [[len(own) for own in each] for each in (views, found["view_weights"])]
    if not members or len(set(members)) < len(members) or len(views) != len(members) or counts[0] != counts[1]:
        raise UserError(f"{path}: its members, views and view weights don't go together; {again}")
    if any(not own or len(set(own)) < len(own) for own in views) or not {*found["foreign"]} <= {*members}:
        raise UserError(f"{path}: a member has no view or one twice, or a foreign one is no member; {again}")
    if any(not _is_name(member) for member in members):
        raise UserError(f"{path}: a member's name can't be that of a folder; {again}")
    if len(set(classes)) < len(classes) or len(classes) < 2:
        raise UserError(f"{path}: its classes are fewer than two, or one is there twice; {again}")
    methods.require_method(found["method"])
    return found


def _is_name(member: str) -> bool:
    return member not in ("", ".", "..") and not set(member) & {"/", "\\", "\0"} and len(member.encode()) <= 200


def read_scores(run: Path, name: str) -> Scores | None:
    """The scores that a blend was saved with; None where it was saved without. Raises UserError as above, and where
    they are not those of `BlendResult`."""
    path, again = rundir.blend_json(run, name), f"fit it again with: ens blend {run}"
    if not read_described(run, name).get("scores"):
        return None
    found = read_json(path, _Scored, again)["scores"]
    for where, own in (("blend", found["blend"]), ("mean", found["mean"]), *found["members"].items()):
        lacking = [metric for metric in columns() if metric not in own]
        if lacking:
            raise UserError(f"{path}: its scores of {where} have no {lacking[0]}; {again}")
    if any(found["best"].get(metric) not in found["members"] for metric in columns()):
        raise UserError(f"{path}: its best single members are not among its members; {again}")
    return found

"""A fitted blend: saved as JSON and safetensors, loaded with checks, applied to members' logits."""

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NotRequired

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load
from typing_extensions import TypedDict

from ensemble.blend import methods, scaling, view_weights
from ensemble.blend.oof import EXTERNAL_VIEW, fold_logits
from ensemble.blend.sources import Sources, other_runs, require_sources, source
from ensemble.blend.stages import SavedStage, Stage, describe_stages, load_stages, require_stages, stage_arrays
from ensemble.errors import RunFailure, UserError
from ensemble.files.reading import Count, Finite, read_json
from ensemble.files.sealed import write_json
from ensemble.files.tensors import of_array, read_bytes, write_tensors
from ensemble.run import Run
from ensemble.scoring.row_values import cheapest

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


@dataclass(frozen=True)
class Blend:
    """A fitted blend and what it was fitted on.

    method, metric: as `ens blend` was told.
    members: M names.
    views: for each member the names of those that it is given; ("given",) for an external member.
    classes: C names.
    view_weights: for each member, what each of its views counts, sum 1.
    chain: what was fitted.
    external: members that ens did not train.
    costs: float64 (C, C), what it costs to predict the column's class for an image of the row's: images are then
        decided for the class of the least expected cost. None: for the most probable one.
    sources: the runs of its members; None where all are of the run that holds the blend.
    stages: of a cascade, the blends that predict before the whole one; () where the whole one predicts at once.
    calibration: as `ens blend` was told.
    """

    method: str
    metric: str
    members: tuple[str, ...]
    views: tuple[tuple[str, ...], ...]
    classes: tuple[str, ...]
    view_weights: tuple[tuple[float, ...], ...]
    chain: methods.Chain
    external: tuple[str, ...] = ()
    costs: np.ndarray | None = None
    sources: Sources | None = None
    stages: tuple[Stage, ...] = ()
    calibration: str = "temperature"

    @property
    def stage_blends(self) -> tuple[tuple["Blend", float], ...]:
        """The blends that predict one after the other, each with the confidence at which an image exits: those of the
        stages, then the whole one, at which all exit."""
        whole = replace(self, stages=())
        earlier = (
            replace(whole, method=each.chain.method, members=each.members, views=each.views,
                    view_weights=each.view_weights, chain=each.chain)
            for each in self.stages
        )  # fmt: skip
        thresholds = (*(stage.threshold for stage in self.stages), 0.0)
        return tuple(zip((*earlier, whole), thresholds, strict=True))

    @property
    def all_views(self) -> tuple[str, ...]:
        """The views that any of the members that ens trained is given, in order of first use."""
        return tuple(dict.fromkeys(view for names in self.views for view in names if names != EXTERNAL_VIEW))

    @property
    def trained(self) -> dict[str, tuple[str, ...]]:
        """The views of the members that ens trained, in the blend's order."""
        return {name: views for name, views in zip(self.members, self.views, strict=True) if views != EXTERNAL_VIEW}

    def networks(self, member: str, folds: int) -> int:
        """How many networks a member has, one for each fold of its run. folds: of the run that holds the blend."""
        return folds if self.sources is None else max(self.sources.folds_of(member)) + 1

    def apply(self, values: Sequence[np.ndarray]) -> np.ndarray:
        """Probabilities float64 (N, C), rows sum to 1, of the logits of M members, each float32 (V, N, C).

        Members, their views and classes in the blend's order. Raises ValueError for another shape, RunFailure for
        logits that are NaN or infinite.
        """
        shapes = [np.shape(member) for member in values]
        rows = shapes[0][1] if shapes and len(shapes[0]) == 3 else -1
        want = [(len(names), rows, len(self.classes)) for names in self.views]
        if shapes != want:
            raise ValueError(f"logits are {shapes}, want {want}")
        for member, logits in zip(self.members, values, strict=True):
            if not np.isfinite(logits).all():
                row = int(np.flatnonzero(~np.isfinite(logits).all(axis=(0, 2)))[0])
                raise RunFailure(f"{member}: NaN or infinite logits in row {row} of those to predict")
        z = view_weights.apply([np.array(weights) for weights in self.view_weights], values, slice(None))
        return methods.apply(self.chain, z)

    def decide(self, probabilities: np.ndarray) -> np.ndarray:
        """The class that each row of probabilities (N, C) is decided for, int64 (N,)."""
        return probabilities.argmax(axis=1) if self.costs is None else cheapest(probabilities, self.costs)

    def save(self, run: Run, name: str, scores: Mapping[str, Any] | None = None, held_out: str | None = None) -> None:
        """Write blends/<name>.safetensors, then blends/<name>.json, which vouches for it; each atomically.

        scores: as JSON, kept beside the blend, which does without them. held_out: what `save_held_out` gave.
        """
        params = self.chain.params()
        found = {key: v for key, v in params.items() if isinstance(v, np.ndarray)} | stage_arrays(self.stages)
        arrays = {key: np.ascontiguousarray(v) for key, v in found.items()}
        path = run.blend_file(name)
        write_tensors(path, {key: of_array(value) for key, value in arrays.items()}, {"blend": name})
        description = {
            "format": FORMAT,
            "method": self.method,
            "metric": self.metric,
            "members": list(self.members),
            "views": [list(names) for names in self.views],
            "view_weights": [list(weights) for weights in self.view_weights],
            "foreign": list(self.external),
            "classes": list(self.classes),
            "params": {key: v for key, v in params.items() if key not in arrays},
            "arrays": {key: list(v.shape) for key, v in arrays.items()},
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "fitted_on": oof_digests(run, self.sources, _trained_views(self.members, self.views)),
            "scores": scores or {},
        }
        if self.costs is not None:
            description["costs"] = self.costs.tolist()
        if self.sources is not None:
            description["runs"] = asdict(self.sources)
        if self.calibration != "temperature":
            description |= {"format": SCALED_FORMAT, "calibration": self.calibration}
        if self.stages:
            description["stages"] = describe_stages(self.stages)
        if held_out is not None:
            description["held_out"] = held_out
        write_json(run.blend_json(name), description)


def oof_digests(run: Run, sources: Sources | None, views: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """SHA-256 of each member's OOF values under its views (those of `views`), in the order of the folds: what a blend
    was fitted on. Views that are added later change nothing. Raises UserError as `source`."""
    digests = {}
    for member, names in views.items():
        whole = hashlib.sha256()
        for fold in source(run, sources, member).folds():
            if fold.oof_file.is_file():
                logits = fold_logits(fold)
                there = [logits.views.index(view) for view in names if view in logits.views]
                whole.update(np.ascontiguousarray(logits.values[there]).tobytes())
        digests[member] = whole.hexdigest()
    return digests


def _trained_views(members: Sequence[str], views: Sequence[Sequence[str]]) -> dict[str, Sequence[str]]:
    """The views of the members that ens trained."""
    return {member: names for member, names in zip(members, views, strict=True) if tuple(names) != EXTERNAL_VIEW}


def check_sources(run: Run, name: str) -> None:
    """Raise UserError, naming the member, if one was trained again after the blend was fitted on it, or is gone."""
    found = read_described(run, name)
    fitted_on = found.get("fitted_on", {})
    now = oof_digests(run, _sources(found), _trained_views(found["members"], found["views"]))
    changed = [member for member in fitted_on if fitted_on[member] != now.get(member)]
    if changed:
        member = source(run, _sources(found), changed[0])
        other = f"another {changed[0]!r} than {member.run} holds now"
        again = "".join(f" {other_run}" for other_run in other_runs(run, _sources(found)))
        command = "cascade" if "stages" in found else "blend"
        raise UserError(f"blend {name!r} was fitted on {other}; fit it again with: ens {command} {run}{again}")


def require_name(name: str) -> None:
    """Raise UserError unless `name` can be a file's name everywhere."""
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise UserError(f"blend name {name!r}: use letters, digits, '_', '-' and '.' only")


def list_blends(run: Run) -> list[str]:
    """Names of the run's blends, sorted."""
    return sorted(path.stem for path in run.blend_json("x").parent.glob("*.json") if path.name[0] != ".")


def load_blend(run: Run, name: str) -> Blend:
    """Read what `Blend.save` wrote.

    Raises UserError if there is no such blend, naming those there are, or if its two files are not whole, of another
    format, or don't belong together.
    """
    require_name(name)
    path, tensors = run.blend_json(name), run.blend_file(name)
    if not path.is_file():
        there = list_blends(run)
        hint = f"there are: {', '.join(there)}" if there else f"make one with: ens blend {run}"
        raise UserError(f"{run}: no blend {name!r}; {hint}")
    again = f"fit it again with: ens blend {run}"
    found = read_described(run, name)
    try:
        content = read_bytes(tensors)
    except FileNotFoundError:
        raise UserError(f"{tensors}: no such file; {again}") from None
    try:
        if hashlib.sha256(content).hexdigest() != found["sha256"]:
            raise UserError(f"{tensors}: not the file that {path.name} was written with; {again}")
        arrays = load(content)
        shapes = {key: list(value.shape) for key, value in arrays.items()}
        if shapes != found["arrays"]:
            raise UserError(f"{tensors}: holds {shapes}, {path.name} says {found['arrays']}; {again}")
        costs = np.array(found["costs"], dtype=np.float64) if "costs" in found else None
        if costs is not None and costs.shape != 2 * (len(found["classes"]),):
            raise ValueError(f"costs are {costs.shape}, want a row and a column for each class")
        whole = {key: value for key, value in arrays.items() if "." not in key}
        blend = Blend(
            method=found["method"],
            metric=found["metric"],
            members=tuple(found["members"]),
            views=tuple(tuple(names) for names in found["views"]),
            classes=tuple(found["classes"]),
            view_weights=tuple(tuple(weights) for weights in found["view_weights"]),
            chain=methods.load(found["method"], found["params"] | whole, len(found["members"]), len(found["classes"])),
            external=tuple(found["foreign"]),
            costs=costs,
            sources=_sources(found),
            stages=load_stages(found.get("stages", []), arrays, len(found["classes"])),
            calibration=found.get("calibration", "temperature"),
        )
        require_stages(blend.stages, dict(zip(blend.members, blend.views, strict=True)))
        return blend
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise UserError(f"{path}: not a whole blend ({error}); {again}") from None


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
        if (sources := _sources(found)) is not None:
            require_sources(sources, members, found["foreign"])
    except ValueError as error:
        raise UserError(f"{path}: {error}; {again}") from None
    if len(set(classes)) < len(classes) or len(classes) < 2:
        raise UserError(f"{path}: its classes are fewer than two, or one is there twice; {again}")
    methods.require_method(found["method"])
    scaling.require_kind(found.get("calibration", "temperature"))
    return found


def _sources(found: Described) -> Sources | None:
    if "runs" not in found:
        return None
    saved = found["runs"]
    return Sources(saved["others"], {name: tuple(folds) for name, folds in saved["sets"].items()})


def _is_name(member: str, others: Collection[str]) -> bool:
    run, slash, plain = member.rpartition("/")
    is_plain = plain not in ("", ".", "..") and not set(plain) & {"\\", "\0"} and len(plain.encode()) <= 200
    return is_plain and (not slash or run in others)

"""A fitted blend: saved as JSON and safetensors, loaded with checks, applied to members' logits."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from ensemble.blend import methods, view_weights
from ensemble.blend.described import FORMAT, SCALED_FORMAT, read_described, sources_of
from ensemble.blend.oof import EXTERNAL_VIEW, fold_logits
from ensemble.blend.sources import Sources, other_runs, source
from ensemble.blend.stages import Stage, describe_stages, load_stages, require_stages, stage_arrays
from ensemble.errors import RunFailure, UserError
from ensemble.files.sealed import write_json
from ensemble.files.tensors import of_array, read_bytes, write_tensors
from ensemble.run import Member, Run
from ensemble.scoring.row_values import cheapest


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


Digests = dict[tuple[Path, tuple[str, ...]], str]  # of members' OOF values, by their directory and views


def oof_digests(
    run: Run, sources: Sources | None, views: Mapping[str, Sequence[str]], known: Digests | None = None
) -> dict[str, str]:
    """SHA-256 of each member's OOF values under its views (those of `views`), in the order of the folds: what a blend
    was fitted on. Views that are added later change nothing. Raises UserError as `source`.

    known: those that were worked out before are not worked out again; further ones are added. None for none.
    """
    known = {} if known is None else known
    digests = {}
    for member, names in views.items():
        of_member = source(run, sources, member)
        key = of_member.path, tuple(names)
        if key not in known:
            known[key] = _oof_digest(of_member, names)
        digests[member] = known[key]
    return digests


def _oof_digest(member: Member, views: Sequence[str]) -> str:
    whole = hashlib.sha256()
    for fold in member.folds():
        if fold.oof_file.is_file():
            logits = fold_logits(fold)
            there = [logits.views.index(view) for view in views if view in logits.views]
            whole.update(np.ascontiguousarray(logits.values[there]).tobytes())
    return whole.hexdigest()


def _trained_views(members: Sequence[str], views: Sequence[Sequence[str]]) -> dict[str, Sequence[str]]:
    """The views of the members that ens trained."""
    return {member: names for member, names in zip(members, views, strict=True) if tuple(names) != EXTERNAL_VIEW}


def check_sources(run: Run, name: str, known: Digests | None = None) -> None:
    """Raise UserError, naming the member, if one was trained again after the blend was fitted on it, or is gone.

    known: as of `oof_digests`, where several blends are checked.
    """
    found = read_described(run, name)
    fitted_on = found.get("fitted_on", {})
    now = oof_digests(run, sources_of(found), _trained_views(found["members"], found["views"]), known)
    changed = [member for member in fitted_on if fitted_on[member] != now.get(member)]
    if changed:
        member = source(run, sources_of(found), changed[0])
        other = f"another {changed[0]!r} than {member.run} holds now"
        again = "".join(f" {other_run}" for other_run in other_runs(run, sources_of(found)))
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
            sources=sources_of(found),
            stages=load_stages(found.get("stages", []), arrays, len(found["classes"])),
            calibration=found.get("calibration", "temperature"),
        )
        require_stages(blend.stages, dict(zip(blend.members, blend.views, strict=True)))
        return blend
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise UserError(f"{path}: not a whole blend ({error}); {again}") from None

"""A fitted blend as a thing: saved as JSON and safetensors, loaded with checks, applied to members' logits."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ensemble import rundir
from ensemble.blend import methods
from ensemble.errors import RunFailure, UserError
from ensemble.logits import load_logits

FORMAT = 1


@dataclass(frozen=True)
class Blend:
    """A fitted blend and what it was fitted on.

    method, metric: as `ens blend` was told. members, views, classes: names, in the order of the logits' axes.
    params: arrays, numbers and strings by name (see each method's `fit`).
    """

    method: str
    metric: str
    members: tuple[str, ...]
    views: tuple[str, ...]
    classes: tuple[str, ...]
    params: dict[str, Any]

    def check(self, members: Sequence[str], views: Sequence[str], classes: Sequence[str]) -> None:
        """Raise UserError, naming the first difference, unless these are what the blend was fitted on, in its order."""
        for what, own, given in (
            ("members", self.members, members),
            ("views", self.views, views),
            ("classes", self.classes, classes),
        ):
            if tuple(given) != own:
                lacking = [name for name in own if name not in given] or [name for name in given if name not in own]
                which = f"{lacking[0]!r} is on one side only" if lacking else "their order differs"
                raise UserError(
                    f"the {self.method} blend was fitted on {len(own)} {what} and is given {len(given)}: {which}; "
                    "give it the same ones, or fit a new one with: ens blend RUN"
                )

    def apply(self, values: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
        """Probabilities float64 (N, C), rows sum to 1, of logits (M, V, N, C), or a list of M arrays (V, N, C).

        Members, views and classes in the blend's order (`check` compares names). A member's views are averaged as
        logits, as they were in fitting. Raises ValueError for another shape, RunFailure for logits that are NaN or
        infinite.
        """
        want = (len(self.views), len(self.classes))
        shapes = [np.shape(member) for member in values]
        if len(shapes) != len(self.members) or any(
            len(shape) != 3 or (shape[0], shape[2]) != want or shape != shapes[0] for shape in shapes
        ):
            raise ValueError(f"logits are {shapes}, want {len(self.members)} times ({want[0]}, N, {want[1]})")
        z = np.stack([mean_of_views(member) for member in values])
        for m, member in enumerate(self.members):
            if not np.isfinite(z[m]).all():
                row = int(np.flatnonzero(~np.isfinite(z[m]).all(axis=1))[0])
                raise RunFailure(f"{member}: NaN or infinite logits in row {row} of those to predict")
        return methods.apply(self.method, self.params, z)

    def save(self, run: Path, name: str, scores: dict[str, Any] | None = None) -> None:
        """Write blends/<name>.safetensors, then blends/<name>.json, which vouches for it; each atomically.

        scores: anything JSON that a report may show beside the blend; not read back.
        """
        arrays = {key: np.ascontiguousarray(v) for key, v in self.params.items() if isinstance(v, np.ndarray)}
        plain = {key: v for key, v in self.params.items() if not isinstance(v, np.ndarray)}
        content = save(arrays)
        with rundir.replacing(rundir.blend_file(run, name)) as temporary:
            temporary.write_bytes(content)
        description = {
            "format": FORMAT,
            "method": self.method,
            "metric": self.metric,
            "members": list(self.members),
            "views": list(self.views),
            "classes": list(self.classes),
            "params": plain,
            "arrays": {key: list(v.shape) for key, v in arrays.items()},
            "sha256": hashlib.sha256(content).hexdigest(),
            "fitted_on": oof_digests(run, self.members),
            "scores": scores or {},
        }
        rundir.write_json(rundir.blend_json(run, name), description)


def oof_digests(run: Path, members: Sequence[str]) -> dict[str, str]:
    """SHA-256 of each member's OOF values, in the order of the folds: what a blend was fitted on."""
    digests = {}
    for member in members:
        whole = hashlib.sha256()
        for fold in rundir.folds_of(run, member):
            path = rundir.oof_file(rundir.fold_dir(run, member, fold))
            if path.is_file():
                whole.update(load_logits(path).values.tobytes())
        digests[member] = whole.hexdigest()
    return digests


def check_sources(run: Path, name: str) -> None:
    """Raise UserError, naming the member, if one was trained again after the blend was fitted on it."""
    fitted_on = rundir.read_json(rundir.blend_json(run, name)).get("fitted_on", {})
    now = oof_digests(run, list(fitted_on))
    changed = [member for member in fitted_on if fitted_on[member] != now[member]]
    if changed:
        other = f"another {changed[0]!r} than {run} holds now"
        raise UserError(f"blend {name!r} was fitted on {other}; fit it again with: ens blend {run}")


def mean_of_views(values: np.ndarray) -> np.ndarray:
    """One member's logits float32 (N, C) from its views' (V, N, C): their mean, so the geometric mean of the views."""
    with np.errstate(invalid="ignore"):  # inf - inf: the caller looks for what is not finite and names it
        return np.asarray(np.mean(values, axis=0, dtype=np.float32))


def require_name(name: str) -> None:
    """Raise UserError unless `name` can be a file's name everywhere."""
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise UserError(f"blend name {name!r}: use letters, digits, '_', '-' and '.' only")


def list_blends(run: Path) -> list[str]:
    """Names of the run's blends, sorted."""
    return sorted(path.stem for path in rundir.blend_json(run, "x").parent.glob("*.json") if path.name[0] != ".")


def load_blend(run: Path, name: str) -> Blend:
    """Read what `Blend.save` wrote.

    Raises UserError if there is no such blend, naming those there are, or if its two files are not whole, of another
    format, or don't belong together.
    """
    require_name(name)
    path, tensors = rundir.blend_json(run, name), rundir.blend_file(run, name)
    if not path.is_file():
        there = list_blends(run)
        hint = f"there are: {', '.join(there)}" if there else f"make one with: ens blend {run} --method stack"
        raise UserError(f"{run}: no blend {name!r}; {hint}")
    again = f"fit it again with: ens blend {run}"
    found = rundir.read_json(path)
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise UserError(f"{path}: not a blend of format {FORMAT}; {again}")
    try:
        content = tensors.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{tensors}: no such file; {again}") from None
    try:
        if hashlib.sha256(content).hexdigest() != found["sha256"]:
            raise UserError(f"{tensors}: not the file that {path.name} was written with; {again}")
        arrays = load(content)
        shapes = {key: list(value.shape) for key, value in arrays.items()}
        if shapes != found["arrays"]:
            raise UserError(f"{tensors}: holds {shapes}, {path.name} says {found['arrays']}; {again}")
        methods.require_method(found["method"])
        names = [tuple(str(item) for item in found[key]) for key in ("members", "views", "classes")]
        return Blend(found["method"], found["metric"], names[0], names[1], names[2], found["params"] | arrays)
    except (KeyError, TypeError, SafetensorError) as error:
        raise UserError(f"{path}: not a whole blend ({type(error).__name__}: {error}); {again}") from None

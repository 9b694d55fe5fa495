"""Which blend of a run, and what it makes of its members' logits. Never imports torch."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np

from ensemble import rundir
from ensemble.blend import Blend, list_blends, load_blend
from ensemble.data.logits import load_logits
from ensemble.data.samples import nfc
from ensemble.errors import UserError

Given = Callable[[int, int], Sequence[np.ndarray]]  # of rows start to stop: float32 (1, n, C) of each foreign member


def find_blend(run: Path, name: str | None, views: Sequence[str] | None) -> tuple[str, Blend]:
    """The blend of this name, or the run's only one. Raises UserError if `views` are not those it was fitted on."""
    rundir.require_run(run)
    name = choose_blend(run, name)
    blend = load_blend(run, name)
    if views is None or set(views) == set(blend.all_views):
        return name, blend
    from ensemble.inference.views import expand

    if set(expand(views)) != set(blend.all_views):
        raise UserError(
            f"the blend was fitted on the views {','.join(blend.all_views)}, not {','.join(views)}: fit one on these "
            f"(ens blend {run} --views {','.join(views)}), or leave --views out"
        )
    return name, blend


def choose_blend(run: Path, name: str | None) -> str:
    """`name`, or the only blend there is. Raises UserError rather than guess between several."""
    there = list_blends(run)
    if name is not None:
        return name
    if len(there) != 1:
        found = (
            f"holds {len(there)} blends ({', '.join(there)}); choose one with --blend" if there else "holds no blend"
        )
        raise UserError(f"{run}: {found}" + ("" if there else f"; fit one with: ens blend {run} --method stack"))
    return there[0]


def foreign_predictions(run: Path, blend_name: str, blend: Blend, ids: Sequence[str]) -> Given:
    """The kept test predictions of the foreign members for these N ids, by rows. Raises UserError without."""
    found: list[tuple[np.ndarray, np.ndarray]] = []
    for member in blend.foreign:
        path = rundir.foreign_file(run, blend_name, member)
        if not path.is_file():
            raise UserError(
                f"blend {blend_name!r} holds {member}, which ens did not train, without test predictions; fit it again "
                f"with: ens blend {run} --add {member}=OOF,TEST"
            )
        test = load_logits(path, mapped=True)
        wanted = np.array([nfc(str(name)) for name in ids])
        found.append((test.values, test.find(wanted, f"the test predictions of {member}")))
    return lambda start, stop: [np.asarray(values[:, rows[start:stop]]) for values, rows in found]


def blend_chunk(
    blend: Blend, values: Sequence[np.ndarray], unreadable: Collection[int], given: Sequence[np.ndarray], count: int
) -> np.ndarray:
    """Probabilities float32 (n, C) of n = `count` images, NaN in the rows that could not be read.

    values: of each member that ens trained its logits, float32 (K, V, n, C). given: of each foreign member float32
    (1, n, C).
    """
    probabilities = np.full((count, len(blend.classes)), np.nan, dtype=np.float32)
    rows = np.setdiff1d(np.arange(count), list(unreadable))
    if len(rows):
        folds = len(values[0]) if values else 1
        # A foreign member has one prediction: it stands beside each fold's. Foreign members come last in a blend.
        every = [*values, *(np.repeat(other[None], folds, axis=0) for other in given)]
        probabilities[rows] = blend_folds(blend, [member[:, :, rows] for member in every])
    return probabilities


def blend_folds(blend: Blend, values: Sequence[np.ndarray]) -> np.ndarray:
    """Probabilities (N, C) of logits (K, V, N, C) of each member: blended per fold, then averaged over the folds."""
    folds = len(values[0])
    return np.asarray(sum(blend.apply([member[fold] for member in values]) for fold in range(folds)) / folds)

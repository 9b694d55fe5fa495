"""What is predicted for each row by fits that never saw it: of a saved blend, or of the members' plain mean."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ensemble.blend import BlendResult, check_sources, list_blends, load_blend, read_result
from ensemble.blend.crossfit import plain_average
from ensemble.blend.oof import Rows, read_oof, read_rows
from ensemble.blend.probabilities import geometric_mean
from ensemble.blend.refitted import cross_fitted
from ensemble.errors import UserError
from ensemble.events import Events
from ensemble.files import sealed
from ensemble.run import Run


@dataclass(frozen=True)
class Predicted:
    """Out-of-fold predictions of N rows.

    blend: the name of the saved blend; None of the plain mean.
    basis: whose predictions they are, in words.
    rows: the N rows.
    probabilities: float64 (N, C).
    predicted: int64 (N,), the class that each row is decided for.
    made_of: member -> the checksums of its folds' out-of-fold logits, see `checksums`.
    """

    blend: str | None
    basis: str
    rows: Rows
    probabilities: np.ndarray
    predicted: np.ndarray
    made_of: dict[str, tuple[str, ...]]

    @property
    def wrong(self) -> np.ndarray:
        """Whether each row is predicted wrongly, bool (N,)."""
        return np.asarray(self.predicted != self.rows.labels)


def read_predicted(run: Run, blend: str | None, events: Events) -> Predicted:
    """The predictions of the run's blend of this name; None: of the saved one with the lowest log loss that can be
    told from the run alone, else of the members' plain mean. Raises UserError as `read_oof` does, and for a blend that
    can't be told from it."""
    found = _named(run, blend) if blend is not None else _best(run)
    if found is None:
        oof = read_oof(run)
        probabilities = geometric_mean(plain_average(oof))
        basis = f"the plain mean of {len(oof.members)} members" if len(oof.members) > 1 else oof.members[0]
        return Predicted(
            None, basis, oof.rows, probabilities, probabilities.argmax(axis=1), checksums(run, oof.members)
        )
    events.progress(f"reading the predictions of blend {found.name}", 0, 1)
    probabilities = cross_fitted(run, found)
    predicted, made_of = found.fitted.decide(probabilities), checksums(run, tuple(found.members))
    return Predicted(found.name, f"blend {found.name}", read_rows(run), probabilities, predicted, made_of)


def checksums(run: Run, members: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """member -> what its folds' files of out-of-fold logits hold of themselves, by which it is seen whether a member
    was trained again; "" of an older ens. Raises UserError that names a damaged file."""
    return {
        name: tuple(
            sealed.file_checksum(fold.oof_file) or "" for fold in run.member(name).folds() if fold.oof_file.is_file()
        )
        for name in members
    }


def _named(run: Run, name: str) -> BlendResult:
    result = read_result(run, name)
    why = None if result is None else _unsuitable(result)
    if result is None:
        is_cascade = bool(load_blend(run, name).stages)
        why = "is a cascade; name the blend that it was made of" if is_cascade else "was saved without scores"
    if why is not None:
        raise UserError(f"blend {name!r} {why}")
    assert result is not None
    check_sources(run, name)
    return result


def _best(run: Run) -> BlendResult | None:
    found = []
    for name in list_blends(run):
        try:
            result = read_result(run, name)
            if result is not None and _unsuitable(result) is None:
                check_sources(run, name)
                found.append(result)
        except UserError:  # damaged, or of members that were trained again: ens report and ens verify say so
            continue
    return min(found, key=lambda each: (round(each.blend["log_loss"].value, 9), each.name), default=None)


def _unsuitable(result: BlendResult) -> str | None:
    """Why a blend's predictions can't be made again from the run alone, or are of other rows."""
    if result.fitted.sources is not None:
        return "is of several runs; slices are those of one run's rows: name a blend of this run alone"
    if result.external:
        return f"holds {result.external[0]}, whose out-of-fold predictions are not in the run; name another blend"
    if result.shifted:
        return "is for other class shares than the rows have; name another blend"
    return None

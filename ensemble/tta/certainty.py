"""What is said of an image beside its class, where it is asked for: columns of a table beside the submission, fields of
a prediction in Python, of a server's answer. Never imports torch.

    submission.certainty.csv    id, class, probability, and what was asked for: set, abstain, unknown_score, unknown

A column is computed from what the blend was given (`BlendedRows`), shard by shard, and kept in the shard. To add one,
add a field to `CertaintyRequest` and a function to `certainty_columns`, which gives a `CertaintyColumns`.
"""

import csv
import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ensemble.blend import Blend
from ensemble.files.atomic import replacing
from ensemble.plural import pluralize
from ensemble.predictions.certainty import CertaintyRequest
from ensemble.run import Run
from ensemble.tta.apply import blend_sets, fold_sets

FORMAT = 2  # of the numbers in the columns: raise it when they change


@dataclass(frozen=True)
class BlendedRows:
    """n images that could be read, as the blend was given them.

    blend: the blend
    probabilities: float32 (n, C), its answer
    logits: of each of its members, in its order, float32 (K, V, n, C), of external members K is 1; () of a cascade,
        which does not ask all its members about every image
    features: float32 (n, D), by the run's frozen network; None where no column needs them
    """

    blend: Blend
    probabilities: np.ndarray
    logits: Sequence[np.ndarray]
    features: np.ndarray | None = None

    @property
    def of_folds(self) -> Iterator[np.ndarray]:
        """The blend's probabilities from the networks of one fold after the other, each float64 (n, C)."""
        return blend_sets(self.blend, self.logits, fold_sets(self.blend, [len(values) for values in self.logits]))


@dataclass(frozen=True)
class CertaintyColumns:
    """Columns of one kind.

    names: of the columns
    settings: all that determines their numbers beside the run's blend and networks, as JSON values
    notes: lines for the reader, before anything is predicted
    compute: of some images each column by name: bool (n,), float32 (n,), or bool (n, C), the classes of a set
    features: D, how many features of the run's frozen network it needs; 0 for none
    """

    names: tuple[str, ...]
    settings: Mapping[str, object]
    notes: tuple[str, ...]
    compute: Callable[[BlendedRows], dict[str, np.ndarray]]
    features: int = 0


def certainty_columns(
    run: Run, name: str, blend: Blend, networks: str, asked: CertaintyRequest | None
) -> tuple[CertaintyColumns, ...]:
    """What is asked for, ready to be computed; () for nothing. name: of the blend. networks: which predict, as in
    `PredictionRequest`. Raises UserError for what this blend or these networks can't give."""
    if asked is None or asked.is_empty:
        return ()
    from ensemble.tta.expected_cost import expected_cost_columns
    from ensemble.tta.sets import sets_and_abstention
    from ensemble.tta.unknown import unknown_columns

    found = sets_and_abstention(run, name, blend, networks, asked)
    return (*found, *unknown_columns(run, name, blend, networks, asked), *expected_cost_columns(blend))


def feature_count(columns: Sequence[CertaintyColumns]) -> int:
    """D, how many features of the frozen network the columns need; 0 for none."""
    return max((each.features for each in columns), default=0)


def column_names(columns: Sequence[CertaintyColumns]) -> list[str]:
    """All names, in order."""
    return [name for each in columns for name in each.names]


def columns_digest(columns: Sequence[CertaintyColumns]) -> str:
    """SHA-256 of all that determines the numbers of the columns, beside the run's blend and networks."""
    settings = [FORMAT, *(dict(each.settings) for each in columns)]
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def compute_columns(
    columns: Sequence[CertaintyColumns],
    blend: Blend,
    probabilities: np.ndarray,
    logits: Sequence[np.ndarray],
    unreadable: Collection[int],
    features: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Every column of n images by its name; False, and NaN, in the rows that could not be read.

    probabilities: float32 (n, C). logits: as in `BlendedRows`. unreadable: rows. features: float32
    (n, D), where a column needs them.
    """
    if not columns:
        return {}
    rows = np.setdiff1d(np.arange(len(probabilities)), list(unreadable))
    some_features = None if features is None else features[rows]
    some = BlendedRows(blend, probabilities[rows], [values[:, :, rows] for values in logits], some_features)
    found = {}
    for each in columns:
        for name, values in each.compute(some).items():
            whole = np.full((len(probabilities), *values.shape[1:]), np.nan if values.dtype.kind == "f" else 0)
            whole[rows] = values
            found[name] = whole.astype(values.dtype)
    return found


def names_in_set(members: np.ndarray, classes: Sequence[str]) -> tuple[str, ...]:
    """The classes of a set, bool (C,)."""
    return tuple(classes[number] for number in np.flatnonzero(members).tolist())


def certainty_path(output: Path) -> Path:
    """The table beside a submission."""
    return output.with_name(f"{output.stem}.certainty.csv")


def write_certainty(
    path: Path, ids: Sequence[str], blend: Blend, blocks: Iterable[tuple[np.ndarray, Mapping[str, np.ndarray]]]
) -> str:
    """Write a row for each of N images, atomically: its id, class and probability, and its columns; an image without a
    prediction has empty cells. Returns in words what the columns say of all.

    blocks: probabilities float32 (n, C) and columns of some images after the other's
    """
    start, totals, sizes = 0, dict[str, int](), list[np.ndarray]()
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        for probabilities, columns in blocks:
            if not start:
                writer.writerow(["id", "class", "probability", *columns])
            known = ~np.isnan(probabilities).any(axis=1)
            decided = blend.decide(np.nan_to_num(probabilities)).tolist()
            for row, is_known in enumerate(known):
                number = decided[row]
                cells = [_cell(values[row], blend.classes) for values in columns.values()]
                named = [blend.classes[number], f"{probabilities[row, number]:.7g}", *cells]
                writer.writerow([ids[start + row], *(named if is_known else [""] * len(named))])
            start += len(known)
            for name, values in columns.items():
                if values.ndim == 2:
                    sizes.append(values[known].sum(axis=1))
                elif values.dtype == bool:
                    totals[name] = totals.get(name, 0) + int(values[known].sum())
    found = [f"{name} in {total} of {start}" for name, total in totals.items()]
    if sizes:
        of_all = np.concatenate(sizes)
        found.insert(0, f"sets of {of_all.mean():.2f} classes on average, {(of_all == 1).mean():.1%} of them of one")
    return ", ".join([pluralize(start, "row"), *found])


def _cell(value: np.ndarray, classes: Sequence[str]) -> str:
    if value.ndim:  # "|" is rare in the name of a class
        return "|".join(name.replace("|", r"\|") for name in names_in_set(value, classes))
    return str(int(value)) if value.dtype == bool else f"{value:.7g}"

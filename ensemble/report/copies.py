"""Which images of a run are copies or look alike, from the search that ens check and training share."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ensemble.data.copies.align import LOOK_ALIKE
from ensemble.data.copies.near import Pairs, spread
from ensemble.data.copies.remembered import find_copies
from ensemble.data.copies.ties import counted, scan_folder
from ensemble.data.scan import scan
from ensemble.events import SILENT
from ensemble.report.run import RunResults

Pair = tuple[int, int, str]  # two rows and how they are alike, as in `near.Pairs`


@dataclass(frozen=True)
class Copies:
    """Copies among the images of a run.

    copies, look_alikes: pairs of the rows that were asked for
    text: how many there are among all images of the run, in the words of ens check and training; "" if there are none
    near: near copies were searched, not only exact ones
    """

    copies: tuple[Pair, ...]
    look_alikes: tuple[Pair, ...]
    text: str
    near: bool


def run_copies(results: RunResults, ids: np.ndarray, files: dict[str, Path]) -> Copies | None:
    """Copies and look-alikes among the rows, str (N,), of a run. If its images are gone, those that audit.json lists;
    None without one. files: of all images of the run, by id. Near copies are not searched if `folds.near_copies` is
    false."""
    place = {name: row for row, name in enumerate(ids.tolist())}
    if files and results.config is not None:
        names = list(files)
        near = results.config.folds.near_copies
        with scan_folder(results.config.data.cache) as folder:
            scanned = scan(list(files.values()), folder, SILENT)
            rows = np.arange(len(names))
            pairs = find_copies(scanned, rows, folder, SILENT) if near else spread(scanned.digests, [])
    elif results.audit is not None:
        listed = [pair for pair in results.audit.get("pairs") or [] if pair["sides"] == "train-train"]
        names, near = sorted({pair[side] for pair in listed for side in ("first", "second")}), True
        at = {name: row for row, name in enumerate(names)}
        first, second = (np.array([at[pair[side]] for pair in listed], dtype=np.int64) for side in ("first", "second"))
        ones = np.ones(len(listed), dtype=np.float32)
        # an older ens called it a copy where parts had been drawn over
        kinds = tuple(LOOK_ALIKE if pair["kind"] == "edited" else pair["kind"] for pair in listed)
        pairs = Pairs(first, second, kinds, ones)
    else:
        return None
    return Copies(*_of_rows(pairs, names, place), counted(pairs), near)


def _of_rows(pairs: Pairs, names: Sequence[str], place: dict[str, int]) -> tuple[tuple[Pair, ...], tuple[Pair, ...]]:
    """The copies and the look-alikes whose two images are both among the rows."""
    found: list[Pair] = []
    for one, other, kind in zip(pairs.first.tolist(), pairs.second.tolist(), pairs.kinds, strict=True):
        if names[one] in place and names[other] in place:
            found.append((place[names[one]], place[names[other]], kind))
    return tuple(p for p in found if p[2] != LOOK_ALIKE), tuple(p for p in found if p[2] == LOOK_ALIKE)

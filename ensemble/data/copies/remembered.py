"""The one search for copies that ens check, training and report share, remembered by what the files hold.

Its answer depends on the files' bytes alone, not on their order or names, and is kept in `copies/<key>.json` of ens's
cache: so all three say the same numbers, and the search runs once.
"""

import hashlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import PIL
from typing_extensions import TypedDict

from ensemble.data.copies.align import LOOK_ALIKE, ORIENTATIONS, Match
from ensemble.data.copies.near import Found, Pairs, search, spread
from ensemble.data.scan import Scan
from ensemble.data.scan_pieces import FORMAT, SIDE
from ensemble.errors import UserError
from ensemble.events import Events
from ensemble.files.reading import Count, Finite, read_json
from ensemble.files.sealed import write_json

VERSION = 2  # of near.py and align.py: raise it when they find other pairs
KINDS = {"re-encoded", "crop", LOOK_ALIKE, *ORIENTATIONS[1:]}


class Saved(TypedDict):
    """The JSON of a search.

    pairs: of each the first and the second file (positions among the sorted digests), kind and similarity.
    """

    pairs: list[tuple[Count, Count, str, Finite]]


def find_copies(scan: Scan, rows: np.ndarray, folder: Path, events: Events) -> Pairs:
    """Copies and look-alikes among these rows of a scan, as pairs of positions in `rows`. rows: int64 (N,). folder: of
    ens's cache; what can't be written there is done without."""
    digests = scan.digests[rows]
    known = sorted({digest for digest in digests.tolist() if digest})
    measured = f"{VERSION} {FORMAT} {SIDE} {PIL.__version__}"
    path = folder / "copies" / f"{hashlib.sha256(' '.join([measured, *known]).encode()).hexdigest()}.json"
    near = _recall(path, known)
    if near is None:
        near = search(scan, rows, events)
        _remember(path, known, near)
    return spread(digests, near)


def _recall(path: Path, known: list[str]) -> list[Found] | None:
    """What was found before; None where it was not, or where the file is damaged."""
    try:
        pairs = read_json(path, Saved)["pairs"]
    except (UserError, OSError):
        return None
    if not all(one < len(known) and other < len(known) and kind in KINDS for one, other, kind, _ in pairs):
        return None
    return [(known[one], known[other], Match(kind, similarity)) for one, other, kind, similarity in pairs]


def _remember(path: Path, known: list[str], near: list[Found]) -> None:
    place = {digest: at for at, digest in enumerate(known)}
    pairs = [(place[one], place[other], match.kind, match.similarity) for one, other, match in near]
    with suppress(OSError):
        write_json(path, {"pairs": pairs}, indent=None)

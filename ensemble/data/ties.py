"""Which rows show one picture and so must stay on one side of every fold, besides the user's own groups.

A near copy in training gives its held-out twin away as a byte-for-byte copy does.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from ensemble.data.cache import cache_folder
from ensemble.data.folds import copies, joined
from ensemble.data.near import Pairs, joined_rows, near_copies
from ensemble.data.scan import scan
from ensemble.data.table import Samples
from ensemble.progress import Show

Say = Callable[[str], None]

# Many pictures of one kind (frames of a film, things in one outline) are alike, and no copies. A set of so many rows
# and so large a share of all would also leave folds that can't be made.
SMALL, LARGE = 20, 0.1


def exact_groups(samples: Samples, say: Say) -> np.ndarray | None:
    """The groups, with those of byte-for-byte copies joined, str (N,), or None where nothing ties rows together. Says
    what it joined, and which copies have two labels."""
    first = copies(samples.paths)
    copied = np.flatnonzero(first != np.arange(len(first)))
    if len(copied):
        say(f"{len(copied)} images are byte for byte copies of another; a copy shares its original's fold")
        _say_clashes(samples, copied, first[copied], "copies carry another label than their original", say)
    return joined(samples.groups, first)


@contextmanager
def scan_folder(cache: str) -> Iterator[Path]:
    """Where a scan is remembered. cache: `data.cache`; "off" gives a folder that goes at the end."""
    if cache != "off":
        yield cache_folder(cache)
        return
    with TemporaryDirectory(prefix="ens-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def near_ties(pairs: Pairs, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The smallest row that each row is tied to by copies, int64 (rows,): itself where there is none. And whether it is
    left apart from its near copies, bool (rows,), for its set is too large for one; exact copies are tied all the same.
    """
    exact = np.array([kind == "exact" for kind in pairs.kinds], dtype=bool)
    same = joined_rows(Pairs(pairs.first[exact], pairs.second[exact], (), pairs.similarity[exact]), rows)
    tied = joined_rows(pairs, rows)
    _, files = np.unique(tied[same == np.arange(rows)], return_counts=True)  # the first of each set of exact copies
    apart = files[np.unique(tied, return_inverse=True)[1]] > max(LARGE * rows, SMALL)
    return np.where(apart, same, tied), apart


def near_groups(samples: Samples, groups: np.ndarray | None, cache: str, show: Show, say: Say) -> np.ndarray | None:
    """`groups` with those of near copies joined too: the same picture re-encoded, resized, mirrored, turned, cut or
    edited. Says how many there are. cache: `data.cache`, where a scan of the images is remembered."""
    with scan_folder(cache) as folder:
        pairs = near_copies(scan(samples.paths, folder, show), show)
    near = np.array([kind != "exact" for kind in pairs.kinds], dtype=bool)
    tied, apart = near_ties(pairs, len(samples))
    loose = near & apart[pairs.first]
    if groups is not None:
        loose &= groups[pairs.first] != groups[pairs.second]
    if loose.any():
        alike = np.unique(np.concatenate([pairs.first[loose], pairs.second[loose]]))
        say(
            f"warning: {len(alike)} of the {len(samples)} images hang together by likeness, "
            f"{str(samples.ids[alike[0]])!r} among them: more than copies would, so they are left apart; look at them "
            "with ens check, and give those that are one picture one data.group"
        )
    near &= ~apart[pairs.first]
    if not near.any():
        return groups
    first, second = pairs.first[near], pairs.second[near]
    rows = len(np.unique(np.concatenate([first, second])))
    say(
        f"{rows} images are near copies of another ({len(first)} pairs: re-encoded, resized, mirrored, turned, cut or "
        "edited), which share a fold; to see them: ens check; to leave them apart: folds.near_copies = false"
    )
    _say_clashes(samples, first, second, "pairs of near copies carry two labels", say)
    return joined(groups, tied)


def _say_clashes(samples: Samples, first: np.ndarray, second: np.ndarray, what: str, say: Say) -> None:
    assert samples.labels is not None
    clash = np.flatnonzero(samples.labels[first] != samples.labels[second])
    if len(clash):
        pair = f"{str(samples.ids[first[clash[0]]])!r} and {str(samples.ids[second[clash[0]]])!r}"
        say(f"warning: {len(clash)} {what}, the first are {pair}")

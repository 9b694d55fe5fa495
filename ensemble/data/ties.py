"""Which rows show one picture and so must stay on one side of every fold, besides the user's own groups.

A near copy in training gives its held-out twin away as a byte-for-byte copy does.
"""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from ensemble.data.cache import cache_folder
from ensemble.data.folds import copies, joined
from ensemble.data.near import joined_rows, near_copies
from ensemble.data.scan import scan
from ensemble.data.table import Samples
from ensemble.progress import Show

Say = Callable[[str], None]

# Many pictures of one kind (8 px digits: 98% of them in one set) are alike, and no copies. A set of so many rows and so
# large a share of all would also leave folds that can't be made.
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


def near_groups(samples: Samples, groups: np.ndarray | None, cache: str, show: Show, say: Say) -> np.ndarray | None:
    """`groups` with those of near copies joined too: the same picture re-encoded, resized, mirrored, turned, cut or
    edited. Says how many there are. cache: `data.cache`, where a scan of the images is remembered."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory())) if cache == "off" else cache_folder(cache)
        pairs = near_copies(scan(samples.paths, folder, show), show)
    near = np.array([kind != "exact" for kind in pairs.kinds], dtype=bool)
    tied = joined_rows(pairs, len(samples))
    _, which, sizes = np.unique(tied, return_inverse=True, return_counts=True)
    large = sizes[which] > max(LARGE * len(samples), SMALL)
    if large.any():
        row = int(np.flatnonzero(large)[0])
        say(
            f"warning: {large.sum()} of the {len(samples)} images hang together by likeness, {str(samples.ids[row])!r} "
            "among them: more than copies would, so they are left apart; look at them with ens check, and give those "
            "that are one picture one data.group"
        )
        near &= ~large[pairs.first]
        tied = np.where(large, np.arange(len(samples)), tied)
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

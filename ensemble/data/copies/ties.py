"""Which rows show one picture and so must stay on one side of every fold, besides the user's own groups.

A near copy in training gives its held-out twin away as a byte-for-byte copy does; another photo of one person may.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from ensemble.data.cache.folder import cache_folder
from ensemble.data.copies.near import Pairs, joined_rows
from ensemble.data.copies.remembered import find_copies
from ensemble.data.folds import copies, first_of_each, joined
from ensemble.data.samples import Samples
from ensemble.data.scan import scan
from ensemble.events import Events
from ensemble.plural import pluralize

# Many pictures of one kind (frames of a film, things in one outline) are alike, and no copies. A set of so many rows
# and so large a share of all would also leave folds that can't be made.
SMALL, LARGE = 20, 0.1


def exact_groups(samples: Samples, events: Events) -> np.ndarray | None:
    """The groups, with those of byte-for-byte copies joined, str (N,), or None where nothing ties rows together. Says
    what it joined, and which copies have two labels."""
    first = copies(samples.paths) if samples.digests is None else first_of_each(samples.digests)
    copied = np.flatnonzero(first != np.arange(len(first)))
    if len(copied):
        images = pluralize(len(copied), "image is a byte-for-byte copy", "images are byte-for-byte copies")
        events.message(f"{images} of another; a copy shares its original's fold")
        _say_clashes(
            samples,
            copied,
            first[copied],
            ("copy has another label than its original", "copies have another label than their original"),
            events,
        )
    return joined(samples.groups, first)


@contextmanager
def scan_folder(cache: str) -> Iterator[Path]:
    """Where a scan is remembered. cache: `data.cache`; "off" gives a folder that goes at the end."""
    if cache != "off":
        yield cache_folder(cache)
        return
    with TemporaryDirectory(prefix="ens-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def near_ties(pairs: Pairs, rows: int) -> np.ndarray:
    """The smallest row that each row is tied to, int64 (rows,): itself where there is none.

    Copies and look-alikes are tied, as long as their set is not too large for either: then its look-alikes are left
    apart, and its near copies too where they alone are too many. Exact copies are tied all the same.
    """
    same = joined_rows(pairs.where(pairs.exact), rows)
    tied = same
    for wider in (joined_rows(pairs.where(pairs.copies), rows), joined_rows(pairs, rows)):
        _, files = np.unique(wider[same == np.arange(rows)], return_counts=True)  # each set of exact copies once
        crowded = files[np.unique(wider, return_inverse=True)[1]] > max(LARGE * rows, SMALL)
        tied = np.where(crowded, tied, wider)
    return tied


def counted(pairs: Pairs) -> str:
    """How many copies and look-alikes there are, as ens check, training and report all say it; "" where none is."""
    exact, copied = pairs.exact, pairs.copies
    parts = []
    if copied.any():
        near = (copied & ~exact).sum()
        kinds = [f"{exact.sum():,} byte for byte"] if exact.any() else []
        kinds += [f"{near:,} re-encoded, resized, mirrored, turned or cut"] if near else []
        parts.append(f"copies: {_images(pairs.where(copied))} ({', '.join(kinds)})")
    if not copied.all():
        parts.append(f"look-alikes, perhaps of one person, object or scene: {_images(pairs.where(~copied))}")
    return "; ".join(parts)


def _images(pairs: Pairs) -> str:
    images = len(np.unique(np.concatenate([pairs.first, pairs.second])))
    return f"{pluralize(images, 'image')} in {pluralize(len(pairs.first), 'pair')}"


def near_groups(samples: Samples, groups: np.ndarray | None, cache: str, events: Events) -> np.ndarray | None:
    """`groups` with those of near copies joined too, and of look-alikes where the folds are still to be made. Most
    look-alikes are no copies, but one person on both sides of a fold costs more than folds that are a little uneven.

    Says how many there are. cache: `data.cache`, where the search is remembered.
    """
    with scan_folder(cache) as folder:
        scanned = scan(samples.paths, folder, events, samples.digests)
        found = find_copies(scanned, np.arange(len(samples)), folder, events)
    if not len(found.first):
        return groups
    pairs = found if samples.folds is None else found.where(found.copies)
    tied = near_ties(pairs, len(samples))
    loose = tied[pairs.first] != tied[pairs.second]
    if groups is not None:
        loose &= groups[pairs.first] != groups[pairs.second]
    if loose.any():
        alike = np.unique(np.concatenate([pairs.first[loose], pairs.second[loose]]))
        events.message(
            f"{'warning: ' if (loose & pairs.copies).any() else ''}{len(alike)} of the {len(samples)} images hang "
            f"together by likeness, {str(samples.ids[alike[0]])!r} among them: more than copies would, so they are "
            "left apart; look at them with ens check, and give those that are one picture one data.group"
        )
    fold = "the others share" if loose.any() else "they share"
    to_see = "to see them: ens check"
    if samples.folds is None:
        to_see = f"{fold} a fold; {to_see}; to leave them apart: folds.near_copies = false"
    events.message(f"{counted(found)}; {to_see}")
    near = pairs.copies & ~pairs.exact
    _say_clashes(
        samples,
        pairs.first[near],
        pairs.second[near],
        ("pair of near copies has two labels", "pairs of near copies have two labels"),
        events,
    )
    return joined(groups, tied)


def _say_clashes(
    samples: Samples, first: np.ndarray, second: np.ndarray, what: tuple[str, str], events: Events
) -> None:
    assert samples.labels is not None
    clash = np.flatnonzero(samples.labels[first] != samples.labels[second])
    if len(clash):
        pair = f"{str(samples.ids[first[clash[0]]])!r} and {str(samples.ids[second[clash[0]]])!r}"
        events.message(f"warning: {pluralize(len(clash), *what)} (first: {pair})")

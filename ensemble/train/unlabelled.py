"""Images without a label that a run's folds may learn from, and which of them each fold may not see."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ensemble.data.copies.near import Pairs
from ensemble.data.copies.remembered import find_copies
from ensemble.data.copies.ties import near_ties, scan_folder
from ensemble.data.digests import digests
from ensemble.data.samples import Samples, read_images
from ensemble.data.scan import scan
from ensemble.errors import UserError
from ensemble.events import Events
from ensemble.plural import pluralize
from ensemble.train.rows import Rows, SoftTargets


@dataclass(frozen=True)
class Unlabelled:
    """U images without a label. No two have the same bytes, nor has one those of a labelled row.

    ids: str (U,).
    paths: of the files, U.
    digests: SHA-256 of each file's bytes in hex, U.
    allowed: bool (K, U), whether a fold may learn from an image: not from a copy of a row that it holds out, nor from a
        look-alike.
    """

    ids: np.ndarray
    paths: tuple[Path, ...]
    digests: tuple[str, ...]
    allowed: np.ndarray

    def fingerprint(self) -> str:
        """SHA-256 of what the images hold, and of which folds may learn from them, whatever the files' names."""
        order = np.argsort(self.digests)
        text = "\n".join(self.digests[row] for row in order)
        return hashlib.sha256(text.encode() + self.allowed[:, order].tobytes()).hexdigest()


def read_unlabelled(images: Path, samples: Samples, folds: np.ndarray, cache: str, events: Events) -> Unlabelled:
    """The images of a folder or a table, for the folds of a run. Says how many are left out, and of what.

    samples: the run's labelled rows, with their digests. folds: of these rows, int8 (N,). cache: `data.cache`. Raises
    UserError if there is no image, if one can't be read, or if all are labelled rows.
    """
    assert samples.digests is not None
    ids, files, notes = read_images(images, events)
    for line in notes:
        events.message(line)
    with scan_folder(cache) as folder:
        found = digests(files, folder / "digests", events)
        first: dict[str, int] = {}  # the row of each content
        for row, digest in enumerate(found):
            first.setdefault(digest, row)
        known = set(samples.digests)
        new = [row for digest, row in first.items() if digest not in known]
        if len(new) < len(files):
            copies = pluralize(
                len(files) - len(new), "image is a byte-for-byte copy", "images are byte-for-byte copies"
            )
            events.message(f"{copies} of a labelled row or of another one, and left out")
        if not new:
            raise UserError(f"{images}: holds no image that is not a labelled row of the run")
        paths, of_new = tuple(files[row] for row in new), tuple(found[row] for row in new)
        scanned = scan([*samples.paths, *paths], folder, events, [*samples.digests, *of_new])
        for path, error in zip(paths, scanned.errors[len(samples) :], strict=True):
            if error is not None:
                raise UserError(f"{path}: {error}; replace it or remove it")
        pairs = find_copies(scanned, np.arange(len(samples) + len(new)), folder, events)
    allowed = allowed_folds(pairs, folds, len(new))
    if not allowed.all():
        count = int((~allowed.all(axis=0)).sum())
        one = "image is like a labelled row, or a copy of one: no fold learns from it that holds the row out"
        several = "images are like labelled rows, or copies of them: no fold learns from one whose row it holds out"
        events.message(pluralize(count, one, several))
    return Unlabelled(np.array([ids[row] for row in new]), paths, of_new, allowed)


def allowed_folds(pairs: Pairs, folds: np.ndarray, unlabelled: int) -> np.ndarray:
    """Which folds may learn from each of U unlabelled images, bool (K, U).

    pairs: copies and look-alikes among the N labelled rows and the unlabelled images behind them. folds: int8 (N,). An
    image is kept from the folds of the rows that it is paired with, and of those that it is tied to through others.
    """
    labelled = len(folds)
    held_out = np.flatnonzero(folds >= 0)
    tied = near_ties(pairs, labelled + unlabelled)
    like = np.zeros((int(folds.max()) + 1, labelled + unlabelled), dtype=bool)
    like[folds[held_out], tied[held_out]] = True  # by the set that the row is in
    like = like[:, tied]
    across = (pairs.first < labelled) & (pairs.second >= labelled)  # however large the set is
    first, second = pairs.first[across], pairs.second[across]
    of_fold = folds[first] >= 0
    like[folds[first[of_fold]], second[of_fold]] = True
    return np.asarray(~like[:, labelled:])


def with_unlabelled(rows: Rows, unlabelled: Unlabelled, soft: SoftTargets) -> Rows:
    """The labelled rows, and behind them the images with what is learned of them."""
    count = len(unlabelled.ids)
    assert rows.digests is not None
    return replace(
        rows,
        ids=np.concatenate([rows.ids, unlabelled.ids]),
        paths=(*rows.paths, *unlabelled.paths),
        labels=np.concatenate([rows.labels, np.full(count, -1, dtype=rows.labels.dtype)]),
        folds=np.concatenate([rows.folds, np.full(count, -1, dtype=rows.folds.dtype)]),
        digests=(*rows.digests, *unlabelled.digests),
        soft=soft,
    )

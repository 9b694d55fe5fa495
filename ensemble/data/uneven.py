"""Folds of very different sizes: a group that is larger than a fold takes one for itself, and its scores are not those
that "each scored on a fifth" promises."""

from dataclasses import dataclass

import numpy as np

from ensemble.data.folds import make_folds

TIMES = 1.5  # the rows of an even fold, from where it is told
SHOWN = 8  # sizes in a line


@dataclass(frozen=True)
class Uneven:
    """Folds of unequal sizes.

    sizes: rows of each fold.
    largest: the fold of most rows.
    rows: of the data set, with those never validated.
    why: what makes it so.
    advice: what to do.
    """

    sizes: tuple[int, ...]
    largest: int
    rows: int
    why: str
    advice: str

    def line(self) -> str:
        left = self.rows - self.sizes[self.largest]
        return (
            f"warning: the folds hold {written(self.sizes)} images: fold {self.largest} alone has "
            f"{self.sizes[self.largest]:,} of {self.rows:,}, and its models are trained on the other {left:,}; "
            f"{self.why}: {self.advice}"
        )


def uneven(folds: np.ndarray, groups: np.ndarray | None) -> Uneven | None:
    """What is uneven about folds, None where no fold has more than 1.5 times its share.

    folds: int (N,), -1 for rows never validated. groups: str (N,) that no fold parts, None where the folds are the
    user's own.
    """
    if folds.max() < 0:
        return None
    sizes = np.bincount(folds[folds >= 0])
    k, rows, largest = len(sizes), int(sizes.sum()), int(sizes.argmax())
    if sizes[largest] * k <= TIMES * rows:
        return None
    if groups is None:
        why, advice = "they are your own folds", "spread the images evenly, or leave folds.fold out"
        return Uneven(tuple(sizes.tolist()), largest, len(folds), why, advice)
    names, counts = np.unique(groups[folds >= 0], return_counts=True)
    most = int(counts.argmax())
    if counts[most] * k > rows:
        why = f"group {str(names[most])!r} has {counts[most]:,} images, more than a fold, and groups are never split"
    else:
        why = f"{len(names):,} groups can't be spread evenly over {k} folds, and groups are never split"
    fewer = _fewer(counts, k)
    advice = "name smaller groups (data.group) if they can be told apart"
    advice = f"set folds.k = {fewer}, or {advice}" if fewer else f"fewer folds don't mend it; {advice}"
    return Uneven(tuple(sizes.tolist()), largest, len(folds), why, advice)


def planned(
    labels: np.ndarray, classes: tuple[str, ...], k: int, groups: np.ndarray | None, seed: int = 0
) -> np.ndarray | None:
    """The folds that will be made, int8 (N,), where they may be uneven; None where all groups are so small that they
    can't be. Raises UserError as `make_folds` does."""
    # Groups of at most half a fold leave every fold at most 1.5 times its share, laid out by size.
    if groups is None or np.unique(groups, return_counts=True)[1].max() * k <= (TIMES - 1) * len(groups):
        return None
    return make_folds(labels, classes, k, seed, groups, None)


def written(sizes: tuple[int, ...]) -> str:
    """ "20, 1, 1, 1 and 1", the largest first."""
    ordered = [f"{size:,}" for size in sorted(sizes, reverse=True)]
    if len(ordered) > SHOWN:
        return f"{', '.join(ordered[: SHOWN - 1])}, ... and {ordered[-1]}"
    return f"{', '.join(ordered[:-1])} and {ordered[-1]}"


def _fewer(counts: np.ndarray, k: int) -> int | None:
    """The most folds below k over which groups of these sizes can be spread evenly enough, largest groups first."""
    for number in range(k - 1, 1, -1):
        sums = np.zeros(number, dtype=np.int64)
        for count in np.sort(counts)[::-1]:
            sums[sums.argmin()] += count
        if sums.max() * number <= TIMES * counts.sum():
            return number
    return None

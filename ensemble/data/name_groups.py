"""Groups that file names suggest: persons, scenes or films of which several images were taken.

A suggestion is made only where names fall into many small sets, and images of one set look more alike than others of
their class: running numbers and classes written into names are neither.
"""

import os
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image
from scipy.stats import rankdata

from ensemble.data.names import nfc
from ensemble.data.pixels.open_image import open_image
from ensemble.data.samples import Samples
from ensemble.errors import UserError
from ensemble.files.limits import too_many_pixels

FROM_NAMES = "from file names"  # of data.group
# 500 groups of 5 sketches of a thing, split by folds: a linear probe's score was 0.99 points too high [0.13, 1.78].
NAMED_GROUPS = (
    "If a group is one person, place or film, its images stand on both sides of a fold and make every score "
    f'optimistic: set data.group = "{FROM_NAMES}" for a run of its own'
)
FEWEST_GROUPS = 8
IN_GROUPS = 0.8  # of the rows have another one of their group
LARGEST = 0.2  # of the rows
PAIRS = 400  # that are looked at: at most 1,200 files, about 2 ms each
# AUC of "two of a group are more alike than two others of the class". Names that mean nothing give 0.5 +- 0.02.
ALIKE = 0.6
COUNTED = re.compile(r"^(.*?)[\s_.()-]*\d+\)?$")  # what stands before a last number
WORDS = re.compile(r"[\s_.-]*(frame|frm|img|image|photo|pic|shot|view|crop|face|f|no)$", re.IGNORECASE)


@dataclass(frozen=True)
class NameGroups:
    """Groups of N rows that file names suggest.

    part: which part of a name is the group.
    names: the group of each row, str (N,), "" where it has none.
    groups: how many groups of two or more rows there are.
    rows: how many rows are in one.
    median: rows of such a group.
    largest: rows of the largest one.
    alike: AUC of likeness within groups.
    """

    part: str
    names: np.ndarray
    groups: int
    rows: int
    median: float
    largest: int
    alike: float

    def each(self, alone: Sequence[str]) -> np.ndarray:
        """The group of each row, str (N,); a row without one is a group of its own, named by its entry in `alone`."""
        return np.array(
            [name or alone_name for name, alone_name in zip(self.names.tolist(), alone, strict=True)], dtype=np.str_
        )

    def describe(self) -> str:
        """A line for the user."""
        return (
            f"file names fall into {self.groups:,} groups of about {self.median:.0f} images ({self.part}), and two "
            f"images of a group are more alike than two of different groups in {100 * self.alike:.0f} % of comparisons"
        )


def grouped_by_name(samples: Samples, base: Path) -> Samples:
    """The samples with the groups that their files' names, seen from the folder `base`, suggest. Raises UserError if
    they suggest none."""
    found = suggested_groups(samples, base)
    if found is None:
        raise UserError(
            f"data.group = {FROM_NAMES!r}: the file names show no groups of images that are alike; take the key out"
        )
    return replace(samples, groups=found.each([str(name) for name in samples.ids]))


def suggested_groups(samples: Samples, base: Path) -> NameGroups | None:
    assert samples.labels is not None
    return name_groups(samples.paths, [samples.classes[label] for label in samples.labels], base)


def name_groups(files: Sequence[Path | None], labels: Sequence[str], base: Path) -> NameGroups | None:
    """What the names of N files, seen from the folder `base`, suggest. labels: the class of each row, "" for none."""
    paths = [None if file is None else PurePosixPath(nfc(os.path.relpath(file, base))) for file in files]
    keys = np.array([label_key(label) for label in labels], dtype=np.str_)
    found = []
    for part, key in _keys():
        names = np.array(
            ["" if path is None else key(path, label) for path, label in zip(paths, keys.tolist(), strict=True)],
            dtype=np.str_,
        )
        sizes = _sizes(names, keys)
        alike = None if sizes is None else _alike(names, keys, files)
        if sizes is not None and alike is not None and alike >= ALIKE:
            found.append(_named(part, names, sizes[sizes > 1], alike))
    best: NameGroups | None = None
    for groups in found:
        if best is None or groups.alike > best.alike + 0.02:
            best = groups
    for groups in found:  # subj00_1_3: two sessions of one person would else stand on both sides of a fold
        if best is not None and _contains(groups.names, best.names):
            across = _alike(groups.names, keys, files, best.names)
            best = groups if across is not None and across >= ALIKE else best
    return best


def _named(part: str, names: np.ndarray, counts: np.ndarray, alike: float) -> NameGroups:
    """counts: rows of each group of two or more, int64."""
    return NameGroups(
        part, names, len(counts), int(counts.sum()), float(np.median(counts)), int(counts.max()), round(alike, 3)
    )


def area(scores: np.ndarray, side: np.ndarray) -> float:
    """AUC: the share of pairs of a row of side 1 and one of side 0 in which the first has more; ties count half."""
    ones = int(side.sum())
    zeros = len(side) - ones
    return float((rankdata(scores)[side == 1].sum() - ones * (ones + 1) / 2) / (ones * zeros))


@lru_cache(maxsize=4096)
def label_key(name: str) -> str:
    """What two spellings of one class have in common: letters without case, width, Unicode form or separators.

    Names of one or two characters keep their case: they may be a set of written letters.
    """
    text = unicodedata.normalize("NFKC", name)
    text = "".join(letter for letter in text if unicodedata.category(letter) != "Cf")  # zero-width spaces, marks
    text = re.sub(r"[\s_-]+", " ", text).strip()
    return text.casefold() if len(text) > 2 else text


def _keys() -> list[tuple[str, Callable[[PurePosixPath, str], str]]]:
    """Ways to read a group from a path and its class's key; "" where it has none."""

    def folder(path: PurePosixPath, label: str) -> str:
        parent = path.parent.name
        return "" if parent == "" or label_key(parent) == label else str(path.parent)

    def before_the_number(path: PurePosixPath, label: str) -> str:
        match = COUNTED.match(path.stem)
        start = WORDS.sub("", match[1]) if match else ""
        return "" if not start or label_key(start) == label else start

    def first_part(path: PurePosixPath, label: str) -> str:
        parts = re.split(r"[\s_.-]+", path.stem)
        return parts[0] if len(parts) > 1 and label_key(parts[0]) != label else ""

    return [
        ("the folder", folder),
        ("what stands before the last number", before_the_number),
        ("the first part of the name", first_part),
    ]


def _sizes(names: np.ndarray, labels: np.ndarray) -> np.ndarray | None:
    """The sizes of the groups, int64; None where they are no groups of people or scenes: few, alone, or all but one, or
    all of a class in one."""
    groups, of, counts = np.unique(names, return_inverse=True, return_counts=True)
    shared = (counts > 1) & (groups != "")
    classes = np.unique(labels[labels != ""])
    if shared.sum() < max(FEWEST_GROUPS, 2 * len(classes)):
        return None
    if shared[of].mean() < IN_GROUPS or counts[shared].max() > max(2, LARGEST * len(names)):
        return None
    alone = np.where(names == "", len(groups) + np.arange(len(names)), of)
    pairs = np.unique(np.stack([np.unique(labels, return_inverse=True)[1], alone]), axis=1)
    if np.bincount(pairs[0]).min() < 2:
        return None
    return np.asarray(counts[groups != ""], dtype=np.int64)


def _contains(wide: np.ndarray, fine: np.ndarray) -> bool:
    """Whether each of the groups `fine`, str (N,), lies within one of fewer groups `wide`, str (N,)."""
    rows = (wide != "") & (fine != "")
    pairs = set(zip(fine[rows].tolist(), wide[rows].tolist(), strict=True))
    return len(pairs) == len({name for name, _ in pairs}) > len({name for _, name in pairs})


def _alike(
    names: np.ndarray, labels: np.ndarray, files: Sequence[Path | None], within: np.ndarray | None = None
) -> float | None:
    """AUC of likeness between pairs of a group and pairs of the same two classes but other groups; None without any.

    Likeness is the correlation of grey thumbnails of 8 x 8 cells. within: finer groups, str (N,), of which a pair of a
    group has two different ones.
    """
    random = np.random.default_rng(0)
    rows = np.flatnonzero(names != "")
    order = rows[np.lexsort((random.random(len(rows)), names[rows]))]
    together = np.flatnonzero(names[order][1:] == names[order][:-1])
    if within is not None:
        together = together[within[order][together] != within[order][together + 1]]
    together = random.permutation(together)[:PAIRS]
    one, other = order[together], order[together + 1]
    by_label = {label: rows[labels[rows] == label] for label in np.unique(labels[rows])}
    strangers = np.array([random.choice(by_label[labels[row]]) for row in other], dtype=np.int64)
    cells = {row: _cells(files[row]) for row in {*one.tolist(), *other.tolist(), *strangers.tolist()}}
    inside, outside = (
        np.array([(cells[a] * cells[b]).sum() for a, b in zip(one.tolist(), others.tolist(), strict=True)])
        for others in (other, strangers)
    )
    inside = inside[~np.isnan(inside)]
    outside = outside[(names[one] != names[strangers]) & ~np.isnan(outside)]
    if min(len(inside), len(outside)) < 10:
        return None
    return area(np.concatenate([outside, inside]), np.repeat([0, 1], [len(outside), len(inside)]))


def _cells(file: Path | None) -> np.ndarray:
    """8 x 8 mean greys, their mean taken off and scaled to length 1, float64 (64,); NaN if the file can't be read."""
    try:
        assert file is not None
        with open_image(file) as image:
            if too_many_pixels(image.size):
                return np.full(64, np.nan)
            image.draft("L", (64, 64))
            flat = np.asarray(image.convert("L").resize((8, 8), Image.Resampling.BOX), dtype=np.float64).ravel()
    except Exception:  # whatever a decoder raises; `ens check` names the file
        return np.full(64, np.nan)
    flat = flat - flat.mean()
    return np.asarray(flat / max(float(np.linalg.norm(flat)), 1e-9))

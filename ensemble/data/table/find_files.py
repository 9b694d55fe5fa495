"""The image files that a table's cells name, and which of its columns names them."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from ensemble.data.folders.listing import is_image
from ensemble.data.names import Matched, is_address, match_names, nfc, tidy, why_not
from ensemble.data.table.column_names import ID_NAMES, LABEL_NAMES, PATH_NAMES, SPLIT_NAMES, plain, rank
from ensemble.data.table.read import row_numbers
from ensemble.errors import UserError

SAMPLE_ROWS = 200  # whose files are looked for
MOST = 0.5  # share of the cells looked at that must name a file, where none does exactly
HELD_OUT = frozenset({"test", "testing", "val", "valid", "validation", "eval", "dev", "holdout"})

Listing = Callable[[Path], Sequence[str]]


@dataclass(frozen=True)
class Located:
    """The files that N cells name.

    files: N, None where a cell names none or several; `reason` says why.
    notes: lines on names that are written otherwise than the files'.
    written: the N cells.
    matched: what they mean among the names that are there; None if each cell is a path as it stands.
    existing: these names.
    """

    files: tuple[Path | None, ...]
    notes: tuple[str, ...]
    written: tuple[str, ...]
    matched: Matched | None
    existing: tuple[str, ...]

    def reason(self, row: int) -> str:
        """Why the name of a row without a file means none, in words that begin with it."""
        if self.matched is None:
            return f"{self.written[row]!r} is not there"
        return why_not(self.written[row], row, self.matched, self.existing)


@dataclass(frozen=True)
class ImageColumn:
    """The column that names the images.

    name: as the table writes it.
    folder: where its paths start, None for the table's own folder or the one that was given.
    notes: a line on each thing that was unsure.
    """

    name: str
    folder: Path | None
    notes: tuple[str, ...] = ()


def locate(folder: Path, written: Sequence[str], listing: Listing, labels: Sequence[str] | None = None) -> Located:
    """The files that N cells name, seen from `folder`.

    Cells that are paths as they stand cost a look each; only for others are the images below the folder listed, once.
    listing: gives their names, relative to the folder that it is given. labels: the class of each cell: of several
    files the one in a folder of that name is meant.
    """
    files = [_exact(folder, text) for text in written]
    missing = [row for row, file in enumerate(files) if file is None]
    if not missing:
        return Located(tuple(files), (), tuple(written), None, ())
    outside: dict[Path, list[int]] = defaultdict(list)
    for row in missing:
        text = tidy(written[row])
        if (text.startswith(("../", "/"))) and not is_address(text) and _is_folder((folder / text).parent):
            outside[(folder / text).parent].append(row)
    notes: list[str] = []
    for parent, rows in outside.items():
        names = _images_in(parent)  # not those below it: a cell "/a.png" would have the whole disk listed
        found = match_names([PurePosixPath(tidy(written[row])).name for row in rows], names)
        for row, place in zip(rows, found.rows.tolist(), strict=True):
            files[row] = None if place < 0 else parent / names[place]
        notes += found.notes
    existing = tuple(listing(folder)) if any(files[row] is None for row in missing) else ()
    matched = match_names(written, existing)
    for row in missing:
        if files[row] is None and matched.rows[row] >= 0:
            files[row] = folder / existing[matched.rows[row]]
    ambiguous = [] if labels is None else [row for row in missing if files[row] is None and row in matched.several]
    for row in ambiguous:
        assert labels is not None
        label = nfc(labels[row].strip()).casefold()
        of_label = [place for place in matched.several[row] if label in nfc(existing[place]).casefold().split("/")[:-1]]
        if len(of_label) == 1 and len(matched.several[row]) > 1:
            files[row] = folder / existing[of_label[0]]
    ambiguous = [row for row in ambiguous if files[row] is not None]
    if ambiguous:
        notes.append(
            f"{len(ambiguous):,} of {len(written):,} names are those of files in several folders, and are looked for "
            f"in that of their label: {written[ambiguous[0]]!r} is read as {str(files[ambiguous[0]])!r}"
        )
    return Located(tuple(files), (*notes, *matched.notes), tuple(written), matched, existing)


def find_image_column(
    source: Path, table: pd.DataFrame, listing: Listing, images: Path | None = None, labelled: bool = True
) -> ImageColumn | None:
    """The column of a table whose cells name images, and the folder that they lie in; None if there is none.

    images: the folder that paths start from; None: found. labelled: of several folders with such names, one that is
    not called like a test set is meant. Raises UserError that lists the folders if several fit.
    """
    folder = images or source.parent
    names = [str(name) for name in table.columns if str(name) not in row_numbers(table)]
    cells = {name: _sample(table[name]) for name in names}
    shares = {name: np.mean([_exact(folder, text) is not None for text in cells[name]]) for name in names}
    found = [name for name in names if shares[name] > 0]
    if found:
        found.sort(key=lambda name: (-shares[name], not table[name].is_unique, rank(name, PATH_NAMES)))
        others = ", ".join(map(repr, found[1:]))
        note = f"column {found[0]!r} is taken for the images; {others} holds files too (to change: data.path)"
        return ImageColumn(found[0], None, (note,) if others else ())
    existing = listing(folder)
    # "1" and "2" of a label also mean 1.jpg and 2.jpg.
    likely = [*PATH_NAMES, *ID_NAMES]
    names = [
        name for name in names if plain(name) in likely or (_distinct(cells[name]) and plain(name) not in LABEL_NAMES)
    ]
    names.sort(key=lambda name: (not _distinct(cells[name]), rank(name, PATH_NAMES), rank(name, ID_NAMES)))
    for name in names:
        matched = match_names(cells[name], existing)
        several = [existing[row] for rows in matched.several.values() if len(rows) > 1 for row in rows]
        if (matched.rows >= 0).mean() > MOST:
            used = {PurePosixPath(existing[row]).parent for row in matched.rows.tolist() if row >= 0}
            bare = not any("/" in tidy(text) for text in cells[name])
            below = folder / used.pop() if len(used) == 1 and bare else None
            return ImageColumn(name, None if images is not None or below == folder else below)
        fits = _fitting(cells[name], existing, several) if several else []
        if len(fits) == 1:
            return ImageColumn(name, folder / fits[0])
        if fits and labelled and _are_labels({fit.rpartition("/")[2] for fit in fits}, table, name):
            return ImageColumn(name, None)
        if fits:
            return _one_of(source, folder, name, fits, labelled)
    return None


def _are_labels(folders: set[str], table: pd.DataFrame, images: str) -> bool:
    """True if all these folders are called like cells of one column, which may be the label."""
    kept = [name for name in map(str, table.columns) if name != images and plain(name) not in SPLIT_NAMES]
    return any(
        {folder.casefold() for folder in folders} <= {text.strip().casefold() for text in table[name]} for name in kept
    )


def _fitting(cells: Sequence[str], existing: Sequence[str], several: Sequence[str]) -> list[str]:
    """Folders in each of which most cells mean one image, none of them within another."""
    above = {str(parent) for name in several for parent in PurePosixPath(name).parents if str(parent) != "."}
    inside: dict[str, list[str]] = {folder: [] for folder in above}
    for name in existing:
        at = name.find("/")
        while at >= 0:
            if name[:at] in inside:
                inside[name[:at]].append(name[at + 1 :])
            at = name.find("/", at + 1)
    fits: list[str] = []
    for folder in sorted(above, key=lambda name: (name.count("/"), name)):
        if any(folder.startswith(f"{other}/") for other in fits):
            continue
        if (match_names(cells, inside[folder]).rows >= 0).mean() > MOST:
            fits.append(folder)
    return fits


def _one_of(source: Path, folder: Path, column: str, fits: Sequence[str], labelled: bool) -> ImageColumn:
    """The one folder that is called like the table, or for a labelled table the one not called like a test set."""
    words = {name: set(re.findall(r"[a-z]+", name.lower())) for name in fits}
    alike = [name for name in fits if words[name] & set(re.findall(r"[a-z]+", source.stem.lower()))]
    kept = [name for name in fits if not words[name] & HELD_OUT] if labelled else []
    chosen = next((names[0] for names in (alike, kept) if len(names) == 1), None)
    each = " and in ".join(str(folder / name) for name in fits[:3]) + (", ..." if len(fits) > 3 else "")
    if chosen is None:
        raise UserError(
            f"{source}: the names in {column!r} are those of images in {each}: "
            + (
                f"say which are meant with --images {folder / fits[0]} (data.images in an experiment file)"
                if labelled
                else "write the paths with their folders"
            )
        )
    note = f"warning: the names in {column!r} are those of images in {each}; those in {folder / chosen} are taken"
    return ImageColumn(column, folder / chosen, (note,))


def _exact(folder: Path, text: str) -> Path | None:
    """The file of this very path, in any Unicode form and however its parts are joined."""
    if not text.strip() or is_address(text):
        return None
    for form in dict.fromkeys((text, nfc(text), tidy(text), unicodedata.normalize("NFD", tidy(text)))):
        try:
            if (folder / form).is_file():
                return folder / form
        except (OSError, ValueError):  # a cell of prose is longer than any file name; or it holds a zero byte
            return None
    return None


def _images_in(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir() if is_image(path) and path.is_file())
    except OSError as error:
        raise UserError(f"{folder}: the folder can't be read ({error.strerror})") from None


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _sample(column: "pd.Series[str]") -> list[str]:
    rows = np.unique(np.linspace(0, len(column) - 1, SAMPLE_ROWS).astype(int))
    return [str(text) for text in column.iloc[rows]]


def _distinct(cells: Sequence[str]) -> bool:
    return len(set(cells)) > 0.9 * len(cells)

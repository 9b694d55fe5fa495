"""Where the labelled images are, how large they are, and what the test set and the sample submission hold."""

import glob
import os
import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ensemble.data.folders.class_folders import Folder, tree
from ensemble.data.folders.layout import follow as follow_folders
from ensemble.data.folders.layout import option, refuse_loose, way
from ensemble.data.folders.listing import Listing, list_folder
from ensemble.data.pixels.open_image import open_image
from ensemble.data.samples import image_names, read_image_table, read_images
from ensemble.data.table.columns import find_columns
from ensemble.data.unpacked.local import as_local
from ensemble.errors import UserError
from ensemble.plural import pluralize

NOT_LABELS = ("submission", "test", "eval", "val")  # in the name of a table: not the one to train on
TABLE_ENDINGS = (".csv", ".tsv", ".jsonl", ".parquet", ".pq")
SAMPLE_FILES = 200  # whose headers are read


@dataclass(frozen=True)
class Source:
    """A table, or a folder of class folders.

    path: of it.
    notes: a line on each step to it.
    test: held-out folders of test images that lie beside it, with the number of images in each.
    validation: likewise, of validation images.
    classes: patterns of the class folders, where --test is one of the folders beside them.
    """

    path: Path
    notes: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    test: tuple[tuple[Path, int], ...] = ()
    validation: tuple[tuple[Path, int], ...] = ()


def follow(data: Path, sample_submission: Path | None, test: Path | None = None) -> Source:
    """From what the user named to the table or the folder of class folders that it means.

    A folder is left for the table in it that names images and their labels, or for its train folder. test: a folder of
    test images, which is none of the classes. Raises UserError if there is nothing there, if it can be read in several
    ways, or for two tables and neither named train.
    """
    data = as_local(data)
    if not data.exists():
        raise UserError(f"{data}: no such file or folder")
    if data.is_file():
        return Source(data)
    listing = list_folder(data)
    apart = None if test is None else _within(as_local(test), data)
    if sample_submission is not None:
        sample_submission = as_local(sample_submission, with_images=False)
    for place in way(_top(listing, apart)):
        folder = place.folder
        found = Source(folder.path, place.notes, (), _counted(place.test), _counted(place.validation))
        tables, failure = _tables(folder.path, sample_submission)
        if len(tables) > 1:
            tables = [table for table in tables if table.stem.lower().startswith("train")] or tables
            if len(tables) > 1:
                names = ", ".join(table.name for table in tables)
                raise UserError(
                    f"{folder.path}: several tables name images and labels ({names}); give one: ens init {tables[0]}"
                )
        if tables:
            note = f"{tables[0].name} in {folder.path} names the images and their labels, so it is what is trained on"
            return replace(found, path=tables[0], notes=(*place.notes, note))
        if failure is not None and (folder.direct or len(folder.inner) < 2):
            raise failure
    if folder.direct and not folder.inner and len(place.passed) > 1:
        refuse_loose(place, listing.below(folder.path).images)
    if apart is not None and apart.parent == folder.path:
        return replace(found, classes=("*", f"!{glob.escape(apart.name)}"))
    return found


def held_out(found: Source, test: Path | None) -> list[str]:
    """What the folders beside the training images are for: a line each. test: the one that was given."""
    lines = []
    for path, count in found.test if test is None else ():
        lines.append(
            f"{path} holds {pluralize(count, 'image')} to predict; to have them compared with the training images, "
            f"add --test {shlex.quote(str(path))}"
        )
    for path, count in found.validation:
        text = (
            f"{path} ({pluralize(count, 'image')}) is held out: ens validates on folds of the training images instead"
        )
        if found.path.is_dir():
            root = Path(os.path.commonpath([found.path, path]))
            both = option([f"{glob.escape(part.relative_to(root).as_posix())}/*" for part in (found.path, path)])
            text += f"; to train on both: ens init {shlex.quote(str(root))} {both}"
        lines.append(text)
    return lines


def _top(listing: Listing, apart: Path | None) -> Folder:
    """The folders of a listing, without the test folder where it would be one of the classes."""
    top = tree(listing)
    if apart is None:
        return top
    with suppress(UserError):
        if follow_folders(top).folder.path != apart.parent:
            return top
    return tree(listing, apart)


def _within(test: Path, data: Path) -> Path | None:
    """The test folder as it is called seen from `data`, if it lies in it."""
    if not test.is_dir() or data.resolve() not in test.resolve().parents:
        return None
    return data / test.resolve().relative_to(data.resolve())


def _counted(folders: Sequence[Folder]) -> tuple[tuple[Path, int], ...]:
    return tuple((folder.core.path, folder.total) for folder in folders)


def _tables(folder: Path, sample_submission: Path | None) -> tuple[list[Path], UserError | None]:
    """The tables in `folder` that name images and labels, and what the first of the others lacks."""
    usable: list[Path] = []
    failure: UserError | None = None
    for table in sorted(folder.iterdir()):
        known = table.suffix.lower() in TABLE_ENDINGS and not table.name.startswith(".")
        asked = sample_submission is not None and table.resolve() == sample_submission.resolve()
        if not known or asked or any(word in table.stem.lower() for word in NOT_LABELS):
            continue
        try:
            find_columns(table, read_image_table(table, table.parent, image_names)[0])
        except UserError as error:
            failure = failure or error
        else:
            usable.append(table)
    return usable, failure


def short_sides(paths: Sequence[Path]) -> np.ndarray:
    """Shorter sides in pixels, sorted, int64, of an even sample of the files; only their headers are read.

    Raises UserError that names a file that is not an image.
    """
    rows = np.unique(np.linspace(0, len(paths) - 1, SAMPLE_FILES).astype(int))
    sides = []
    for path in (paths[row] for row in rows):
        try:
            with open_image(path) as image:
                sides.append(min(image.size))
        except Exception:  # Pillow's plugins raise whatever a broken file leads them to
            raise UserError(f"{path}: not a readable image; replace it or remove it") from None
    return np.sort(np.array(sides, dtype=np.int64))


def look_at_test(test: Path, source: Path, train_paths: Sequence[Path]) -> tuple[list[str], list[str]]:
    """Ids of the test images and lines on them. Raises UserError if they would be trained on."""
    try:
        ids, files, notes = read_images(test)
    except UserError as error:
        hint = "; --test may also be the folder that its images lie in" if test.is_file() else ""
        raise UserError(f"{error}{hint}") from None
    seen = set(_real(train_paths))
    shared = sum(file in seen for file in _real(files))
    if shared and source.is_dir():
        raise UserError(
            f"{test}: {shared} of its images are among the training images of {source}; keep the two in folders of "
            "their own, for example train/<class>/ and test/"
        )
    warning = f"; warning: {shared} of them are training images too" if shared else ""
    return ids, [f"{pluralize(len(ids), 'test image')} in {test}{warning}", *notes]


def _real(files: Sequence[Path]) -> list[Path]:
    folders = {folder: folder.resolve() for folder in {file.parent for file in files}}
    return [folders[file.parent] / file.name for file in files]

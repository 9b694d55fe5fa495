"""Which files and folders hold packed images, and what reads them."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path, PurePosixPath

from ensemble.data.folders.listing import is_hidden, is_image, list_folder
from ensemble.data.folders.splits import role_of
from ensemble.data.unpacked.member import Packed
from ensemble.data.unpacked.source_names import source_name
from ensemble.data.unpacked.tables import ARROW, PARQUET, holds_images, read_tables, require_readable
from ensemble.data.unpacked.tars import read_tars
from ensemble.data.unpacked.zips import read_zip, zipped_table
from ensemble.errors import UserError

TARS = (".tar", ".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz")
TABLES = (*PARQUET, *ARROW)
FILES = (".zip", *TARS, *TABLES)
UNREAD = (".7z", ".rar", ".tar.zst", ".tzst")
# "train-00000-of-00004-0123456789abcdef" is a part of train, "0000" of the folder that it lies in.
NUMBER = re.compile(r"[-_.]?\d+(-of-\d+)?(-[0-9a-f]{16})?$")
HOLDERS = ("data", "default")  # what the Hub calls the folder of the files
CACHED = "cache-"  # files of `datasets` beside a saved data set, results of its own


@dataclass(frozen=True)
class Packing:
    """Packed images.

    source: the file or folder that holds them.
    files: which are read, one or more.
    read: reads what they hold, from their headers.
    parts: of a folder, the names of the parts of the data set; none where it is one.
    """

    source: Path
    files: tuple[Path, ...]
    read: Callable[[], Packed]
    parts: tuple[str, ...] = ()


def packing_of(path: Path) -> Packing | None:
    """What is packed in a file or folder; None for one that is read as it is. Raises UserError for a broken file."""
    if path.is_dir():
        return _packed_folder(path)
    if path.name.lower().endswith(UNREAD) and path.is_file():
        raise UserError(
            f"{source_name(path)}: an archive of a kind that is not read; unpack it, or pack it as a zip or tar"
        )
    if not path.name.lower().endswith(FILES) or not path.is_file():
        return None
    status = path.stat()
    return _packed_file(path, (status.st_size, status.st_mtime_ns))


@cache
def _packed_file(path: Path, stamp: tuple[int, int]) -> Packing | None:
    """stamp: size and time, by which another file of this name is known."""
    name = path.name.lower()
    if name.endswith(".zip"):
        return None if zipped_table(path) is not None else Packing(path, (path,), partial(read_zip, path))
    if name.endswith(TARS):
        return Packing(path, (path,), partial(read_tars, path, {"": [path]}))
    return Packing(path, (path,), partial(read_tables, path, {"": [path]})) if holds_images(path) else None


def _packed_folder(folder: Path) -> Packing | None:
    """A folder of tars or of tables with images in them, and of no images. Looked for are the folder itself and those
    in it that are named data, or like parts of a data set, and what these hold."""
    files = _files(folder, depth=2)
    if files is None:
        return None
    tars = [file for file in files if file.name.lower().endswith(TARS)]
    tables = [file for file in files if file.name.lower().endswith(TABLES) and not file.name.startswith(CACHED)]
    if not (tars or tables) or list_folder(folder).images:  # an archive often lies beside the folder that it unpacks to
        return None
    of_images = [file for part in splits(folder, tables).values() if require_readable(part[0]) for file in part]
    if tars and of_images:
        raise UserError(f"{folder}: holds images both in {tars[0].name} and in {of_images[0].name}; name one of them")
    if not tars and not of_images:
        return None
    of = splits(folder, tars or of_images)
    left_out = [file.relative_to(folder).as_posix() for file in tables if file not in of_images]
    read = partial(read_tars, folder, of) if tars else partial(read_tables, folder, of, left_out)
    return Packing(folder, tuple(tars or of_images), read, tuple(name.partition("/")[0] for name in of))


def _files(folder: Path, depth: int) -> list[Path] | None:
    """The files of a folder, sorted; None if there is an image among them."""
    found: list[Path] = []
    with suppress(OSError), os.scandir(folder) as entries:  # whoever lists it says what is wrong
        for entry in entries:
            path = folder / entry.name
            if is_hidden(entry.name):
                continue
            if entry.is_dir():
                is_part = entry.name in HOLDERS or role_of(entry.name)[0] is not None
                below = _files(path, depth - 1) if is_part and depth else []
                if below is None:
                    return None
                found += below
            elif entry.name.lower().endswith(FILES):
                found.append(path)
            elif is_image(path):
                return None
    return sorted(found)


def splits(folder: Path, files: Sequence[Path]) -> Mapping[str, Sequence[Path]]:
    """The files of each part of a data set by its name; one part is called ""."""
    of: dict[tuple[str, ...], list[Path]] = {}
    for file in files:
        place = PurePosixPath(file.relative_to(folder).as_posix())
        stem = next(place.name[: -len(end)] for end in sorted(FILES, key=len)[::-1] if place.name.lower().endswith(end))
        name = NUMBER.sub("", stem)
        parts = [*place.parent.parts, *([name] if name and not (name == "data" and place.parent.parts) else [])]
        of.setdefault(tuple(parts), []).append(file)
    if len(of) < 2:
        return {"": list(files)} if files else {}
    shared = 0
    while len({parts[shared : shared + 1] for parts in of}) == 1:
        shared += 1
    return {"/".join(parts[shared:]) or "rest": found for parts, found in of.items()}

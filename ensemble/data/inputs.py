"""What is named on a command line to be predicted: a folder, a table, or pictures one by one."""

import glob
from collections.abc import Sequence
from pathlib import Path

from ensemble.data.folders.listing import has_picture, is_image, list_folder
from ensemble.data.names import is_address, refuse_address
from ensemble.data.pixels.formats import IMAGE_ENDINGS
from ensemble.data.table.csv_text import is_text
from ensemble.data.unpacked.local import as_local, is_packed
from ensemble.errors import UserError

# Of a table that is packed, or a workbook, which the reading of tables refuses with what to do.
BINARY_TABLES = (".parquet", ".pq", ".gz", ".bz2", ".xz", ".zip", ".xlsx", ".xlsm", ".xls", ".ods")
LOOKED_AT = 1024  # bytes of a file that may be a table
WANTED = "a picture, a folder of pictures, or a table (CSV, Parquet) of their paths"


def pictures_or_source(named: Sequence[Path]) -> list[Path] | Path:
    """The image files that are named one by one, each once, in their order; or the single folder or table.

    A pattern that the shell left as it is ("*.jpg") is spelt out; a folder among several names gives the images in it.
    Raises UserError for what is neither picture, folder nor table, by name.
    """
    paths = [path for name in named for path in _spelt_out(name)]
    if len(paths) == 1 and is_packed(paths[0]):
        return [as_local(paths[0])] if paths[0].suffix.lower() in IMAGE_ENDINGS else paths[0]
    if len(paths) == 1 and (paths[0].is_dir() or is_table(paths[0])):
        return paths[0]
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            listing = list_folder(path)
            if not listing.images:
                raise UserError(listing.no_images())
            found += listing.images
        elif is_packed(path):
            raise UserError(f"{path}: has to be the only thing that is named; predict the others by themselves")
        elif is_table(path):
            raise UserError(f"{path}: a table has to be the only thing that is named; predict the others by themselves")
        else:
            found.append(path)
    return list(dict.fromkeys(found))


def is_table(path: Path) -> bool:
    """True for what may be a table, False for a picture. Raises UserError that says what a file of another kind is, and
    for what is not there."""
    refuse_address(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file or folder")
    if is_image(path) or has_picture(path):
        return False
    if path.suffix.lower() == ".toml":
        raise UserError(f"{path}: an experiment file; want {WANTED}")
    if path.suffix.lower() not in BINARY_TABLES:
        with path.open("rb") as stream:
            start = stream.read(LOOKED_AT)
        if b"\0" in start and not is_text(start):
            raise UserError(f"{path}: neither a picture that ens reads nor a table; want {WANTED}")
    return True


def _spelt_out(path: Path) -> list[Path]:
    if path.exists() or not glob.has_magic(str(path)) or is_address(str(path)):
        return [path]
    found = sorted(glob.glob(str(path)))  # noqa: PTH207 (Path.glob takes no absolute pattern)
    if not found:
        raise UserError(f"{path}: no file matches")
    return [Path(name) for name in found]

"""From what people name to a folder or table on this disk: what is packed (a zip, tars, Parquet with images in it) is
unpacked into the cache, what lies on an object store is fetched there. All that reads images begins here.

    art.zip               the folder that it would unpack to
    art.zip/test          a folder or a file in it
    food101               a folder of Parquet files; food101/train: the rows of one part, as a table
    s3://bucket/art       the folder, fetched
"""

import os
from pathlib import Path

from ensemble.data.names import refuse_address
from ensemble.data.unpacked.copies import Copy, copy_of
from ensemble.data.unpacked.fetch import fetch
from ensemble.data.unpacked.member import TABLE_NAME, some
from ensemble.data.unpacked.packing import Packing, packing_of
from ensemble.data.unpacked.source_names import source_name
from ensemble.errors import UserError
from ensemble.events import SILENT, Events
from ensemble.files.mirror import as_url

NOT_STORES = ("http", "https", "ftp", "ftps", "file", "local")  # they list no folders, or are this disk


def as_local(source: Path, events: Events = SILENT, with_images: bool = True) -> Path:
    """The folder or file on this disk that `source` means; most often itself, whether it is there or not.

    source: a path, or the URL of an object store.
    events: hears of the progress.
    with_images: whether to fetch what lies beside a table on an object store, too.

    Raises UserError for an address that isn't fetched, and for what can't be fetched or unpacked.
    """
    url = _url(source)
    path = source if url is None else fetch(url, events, with_images)
    packing, inner = _packing_in(path)
    return path if packing is None else _inside(copy_of(packing, events), packing.source, inner)


def image_folder(images: Path | None, events: Events = SILENT) -> Path | None:
    """The folder on this disk that a table's paths start from, where one was named."""
    place = None if images is None else as_local(images, events)
    return place.parent if place is not None and place.is_file() else place  # of a table that ens has made


def refuse_several_tables(folder: Path) -> None:
    """Raise UserError if a folder that is a copy holds several parts of a data set, with a table each."""
    tables = sorted(folder.glob(f"*/{TABLE_NAME}"))
    if tables:
        parts = ", ".join(source_name(table.parent) for table in tables)
        raise UserError(f"{source_name(folder)}: holds several parts of a data set; name one to train on: {parts}")


def is_packed(source: Path) -> bool:
    """Whether `source` is packed or lies in what is, or on an object store. Raises UserError for a broken file, and for
    an address that isn't fetched."""
    return _url(source) is not None or _packing_in(source)[0] is not None


def _url(source: Path) -> str | None:
    url = as_url(source)
    if url is not None and url.partition(":")[0] in NOT_STORES:
        refuse_address(source)
    return url


def _packing_in(path: Path) -> tuple[Packing | None, Path]:
    """What is packed in a path or, where that isn't there, in the nearest part of it that is; and the rest of it."""
    for place in (path, *path.parents):
        if not os.path.lexists(place):
            continue
        # the working folder, and those above it, are not looked into for a name that was mistyped
        if place != path and Path.cwd().is_relative_to(place.resolve()):
            break
        packing, inner = packing_of(place), path.relative_to(place)
        if packing is None or (place != path and place.is_dir() and inner.parts[0] not in packing.parts):
            break
        return packing, inner
    return None, Path()


def _inside(copy: Copy, source: Path, inner: Path) -> Path:
    """The folder of a copy, or what is called so in it; of a folder that ens has made a table of, that table."""
    for top in dict.fromkeys((copy.root, copy.top)):
        place = copy.top if inner == Path() else top / inner
        if ".." not in inner.parts and place.exists():
            return copy.table_in(place) or place
    there = sorted(path.name for path in copy.top.iterdir())
    raise UserError(f"{source_name(source)}: holds no {inner.as_posix()!r}, but {some(there)}")

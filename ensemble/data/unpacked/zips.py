"""What a zip holds."""

import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO
from zipfile import ZipFile, ZipInfo

from ensemble.data.folders.listing import is_hidden
from ensemble.data.unpacked.member import Member, Packed, decoded_names, require_pictures, some, unpacking
from ensemble.errors import UserError
from ensemble.plural import pluralize

ENCRYPTED, UTF8 = 0x1, 0x800  # bits of a member's flags
TABLES = (".csv", ".tsv", ".txt", ".jsonl")


def zipped_table(source: Path) -> str | None:
    """The name of the one file in a zip, if that is a table ("train.csv.zip"): it is read where the zip lies."""
    with unpacking(source), ZipFile(source) as archive:
        names = [info.filename for info in archive.infolist() if not info.is_dir()]
    names = [name for name in names if not any(map(is_hidden, name.split("/")))]
    return names[0] if len(names) == 1 and names[0].lower().endswith(TABLES) else None


def open_zipped_table(source: Path) -> IO[bytes]:
    """The bytes of the table in a zip. Raises UserError if the zip holds anything else too, or has a password."""
    name = zipped_table(source)
    if name is None:
        raise UserError(f"{source}: a zip that holds more than one table; name the one in it: {source}/NAME.csv")
    with unpacking(source):
        archive = ZipFile(source)
        try:
            return archive.open(name)
        except RuntimeError:  # a password
            raise UserError(f"{source}: has a password; unpack it with the password, and name the table") from None


def read_zip(source: Path) -> Packed:
    """What a zip holds. Raises UserError that says why it can't be unpacked."""
    with unpacking(source), ZipFile(source) as archive:
        infos = [info for info in archive.infolist() if not info.is_dir()]
    locked = next((info for info in infos if info.flag_bits & ENCRYPTED), None)
    if locked is not None:
        raise UserError(
            f"{source}: has a password (on {locked.filename!r}); unpack it with the password, and name the folder"
        )
    names = _names(infos, source)
    kept = [(name, info) for name, info in zip(names, infos, strict=True) if not _is_link(info)]
    require_pictures(source, [name for name, _ in kept])
    links = [name for name, info in zip(names, infos, strict=True) if _is_link(info)]
    notes = [f"{source.name}: {pluralize(len(links), 'link')} left out ({some(links)})"] if links else []
    return Packed(
        len(kept), sum(info.file_size for _, info in kept), partial(_members, source, kept), notes=tuple(notes)
    )


def _members(source: Path, kept: list[tuple[str, ZipInfo]]) -> Iterator[Member]:
    with ZipFile(source) as archive:
        for name, info in kept:
            with archive.open(info) as data:
                yield Member(name, data)


def _names(infos: list[ZipInfo], source: Path) -> list[str]:
    """Where a name is not marked as UTF-8, zipfile takes it for the CP437 of DOS, whatever it is."""
    unmarked = [info for info in infos if not info.flag_bits & UTF8 and not info.filename.isascii()]
    raw = [info.filename.encode("cp437", errors="replace") for info in unmarked]
    read = {id(info): name for info, name in zip(unmarked, decoded_names(raw, source), strict=True)} if raw else {}
    names = [read.get(id(info), info.filename) for info in infos]
    return [name if "/" in name else name.replace("\\", "/") for name in names]  # as some programs of Windows write


def _is_link(info: ZipInfo) -> bool:
    return stat.S_ISLNK(info.external_attr >> 16)

"""The members of a packed file, and which of them may be written to disk under which name."""

import errno
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ensemble.data.pixels.formats import IMAGE_ENDINGS
from ensemble.data.table.csv_text import decoded
from ensemble.errors import UserError
from ensemble.files.limits import Limit, allowed

UNPACKED = Limit("ENS_MAX_UNPACKED_BYTES", 2**40, "bytes")  # of a packed file; the largest public sets take half
BLOCK = 4096  # bytes of a disk that the smallest file takes
PACKED_ENDINGS = (".zip", ".tar", ".tgz", ".tbz2", ".txz", ".7z", ".rar")
SHOWN = 3

TABLE_NAME = "images.parquet"  # of the table that a copy gets where the packed files are rows


@dataclass(frozen=True)
class Member:
    """A file that is packed in another.

    name: its path in the copy, with / between its parts.
    data: its bytes, or what they are read from.
    """

    name: str
    data: bytes | IO[bytes]


@dataclass(frozen=True)
class Packed:
    """What files hold, by their headers.

    count: how many files will be written.
    nbytes: the sum of their sizes.
    members: gives one after the other; each must be written before the next is asked for.
    tables: the names of those that ens has made, each of the images in its folder.
    notes: a line on each thing that was left out.
    """

    count: int
    nbytes: int
    members: Callable[[], Iterator[Member]]
    tables: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def disk(self) -> int:
        """About how many bytes of the disk they take."""
        return self.nbytes + BLOCK * self.count


@contextmanager
def unpacking(source: Path) -> Iterator[None]:
    """Raise whatever a broken file leads its reader to as one UserError that names it."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # zipfile, tarfile and pyarrow raise whatever a broken file leads them to
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # of the disk, not of the file
            raise
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise UserError(f"{source}: can't be unpacked ({reason}); if it was cut short, download it again") from None


def require_allowed(source: Path, nbytes: int) -> None:
    """Raise UserError if more is unpacked than may be."""
    most = allowed(UNPACKED)
    if nbytes > most:
        raise UserError(
            f"{source}: unpacks to {nbytes:,} bytes or more, and ens unpacks {most:,}; if it is sound, set "
            f"{UNPACKED.variable}={nbytes}"
        )


def inside(name: str, source: Path) -> str:
    """The name of a member in the copy. Raises UserError for one that leads out of it, here or on Windows, where a
    backslash separates too."""
    steps = [step for step in re.split(r"[/\\]", name) if step not in ("", ".")]
    if not steps or name[0] in "/\\" or ".." in steps or "\0" in name or re.match(r"[A-Za-z]:", steps[0]):
        raise UserError(f"{source}: holds a file named {name!r}, which leads out of its folder; it is not unpacked")
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def decoded_names(names: Sequence[bytes], source: Path) -> list[str]:
    """Names whose encoding is not marked: UTF-8, or CP949 as Korean Windows writes them. Raises UserError if they are
    neither."""
    try:
        return decoded(b"\n".join(name.replace(b"\n", b" ") for name in names))[0].split("\n")
    except ValueError:
        odd = next(name for name in names if not name.isascii())
        raise UserError(
            f"{source}: the name {os.fsdecode(odd)!r} is neither UTF-8 nor Korean (CP949): unpack it with a program "
            "that knows its encoding, and name the folder"
        ) from None


def is_picture(name: str) -> bool:
    """Whether a name has the ending of a picture, or none."""
    last = name.rpartition("/")[2]
    return last.lower().endswith(IMAGE_ENDINGS) or "." not in last


def require_pictures(source: Path, names: Sequence[str]) -> None:
    """Raise UserError if none of the files is a picture."""
    if any(map(is_picture, names)):
        return
    inner = [name for name in names if name.lower().endswith(PACKED_ENDINGS)]
    if inner:
        raise UserError(
            f"{source}: holds no images, but other packed files ({some(inner)}), and ens unpacks one level: unpack it, "
            "and name one of these"
        )
    raise UserError(f"{source}: holds no images" + (f", only others ({some(names)})" if names else "; it is empty"))


def some(names: Sequence[str]) -> str:
    """The first few names in a line, and how many more there are."""
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more

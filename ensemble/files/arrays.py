"""npy and npz files: what their headers say, checked against the file and the limit before anything is allocated.

NumPy believes a header: an npy of 128 bytes that says 22 TiB ends in a MemoryError, and an npz of 8 MB may hold 8 GB.
"""

import math
import zipfile
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np

from ensemble.errors import UserError
from ensemble.files.limits import TABLE, require_at_most

MAGIC = b"\x93NUMPY"


def require_arrays(path: Path, file: BinaryIO) -> None:
    """Raise UserError, naming the file, if its arrays are more than may be read or more than it holds; whatever NumPy
    raises for a header that is none. Leaves the file at its beginning."""
    if file.read(len(MAGIC)) == MAGIC:
        file.seek(0, 2)
        _require(path, "its array", *_array(file, file.tell()))
    elif zipfile.is_zipfile(file):
        total = 0
        with zipfile.ZipFile(file) as archive:
            for item in archive.infolist():
                if item.filename.endswith(".npy"):
                    with archive.open(item) as member:
                        shape, itemsize, held = _array(member, item.file_size)
                    total += _require(path, f"{item.filename.removesuffix('.npy')!r}", shape, itemsize, held)
        require_at_most(TABLE, path, total)
    file.seek(0)


def _array(file: IO[bytes], size: int) -> tuple[tuple[int, ...], int, int]:
    """Shape, bytes of a number (0 for Python objects) and bytes that follow the header, of a file of this size."""
    if file.seekable():
        file.seek(0)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, 0 if dtype.hasobject else dtype.itemsize, size - file.tell()


def _require(path: Path, name: str, shape: tuple[int, ...], itemsize: int, held: int) -> int:
    count = math.prod(shape) * itemsize
    require_at_most(TABLE, path, count)
    if itemsize and (count > held or min(shape, default=0) < 0):
        text = f"{count:,} bytes by its header, but {held:,} follow it; save it again"
        raise UserError(f"{path}: {name} is {shape}, {text}")
    return count

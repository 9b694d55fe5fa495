"""What a scan remembers of the images that it measured, in a folder of ens's cache.

    scans/<version>/<name>.safetensors   the records and thumbnails of some images, and the checksum of its own bytes

A piece that was damaged, or is of another form, is removed, and its images are measured again.
"""

import uuid
from contextlib import suppress
from pathlib import Path

import numpy as np
import PIL

from ensemble.errors import Damaged
from ensemble.files import sealed
from ensemble.files.tensors import map_tensors, of_array, write_tensors

FORMAT = 3  # of the files and of what is measured: raise it when either changes
SIDE = 64  # of a thumbnail: 4 kB an image, and a mask drawn on a face is still tens of pixels

RECORD = np.dtype(
    [
        ("digest", "S64"),
        ("error", "S160"),
        ("format", "S12"),
        ("mode", "S8"),
        ("rules", "S96"),
        ("width", "i8"),
        ("height", "i8"),
        ("orientation", "i8"),
        ("frames", "i8"),
        ("mean", "f4", (3,)),
        ("std", "f4", (3,)),
        ("sharpness", "f4"),
    ]
)


def pieces_folder(cache: Path) -> Path:
    """Where the pieces of this version of ens and of Pillow lie."""
    return cache / "scans" / f"v{FORMAT}-{SIDE}-pillow{PIL.__version__}"


def recall(place: Path, rows: dict[str, list[int]], table: np.ndarray, thumbnails: np.ndarray) -> set[str]:
    """Fill the rows of what is remembered. Returns the digests of these.

    rows: of each digest the rows that have it.
    table: RECORD (N,).
    thumbnails: uint8 (N, SIDE, SIDE).
    """
    found: set[str] = set()
    for path in sorted(place.glob("[0-9a-f]*.safetensors")):
        piece = _sound_piece(path)
        if piece is None:
            continue
        records, small = piece
        for at, digest in enumerate(records["digest"].astype("U").tolist()):
            if digest in rows and digest not in found:
                table[rows[digest]] = records[at]
                thumbnails[rows[digest]] = small[at]
                found.add(digest)
    return found


def _sound_piece(path: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """The records, RECORD (n,), and thumbnails, uint8 (n, SIDE, SIDE), of a piece; None where it can't be read, or is
    not as it was written: it is then removed."""
    with suppress(OSError):
        with suppress(Damaged, KeyError, ValueError):
            if sealed.require_sound_file(path):
                arrays = map_tensors(path)
                records, small = arrays["facts"].reshape(-1).view(RECORD), arrays["thumbnails"]
                if small.shape == (len(records), SIDE, SIDE):
                    return records, small
        path.unlink()
    return None


def remember(place: Path, records: np.ndarray, small: np.ndarray) -> None:
    """Write a piece; a disk that can't be written costs only the next scan's time."""
    bytes_of_records = records.view(np.uint8).reshape(len(records), RECORD.itemsize)
    arrays = {"facts": bytes_of_records, "thumbnails": small}
    with suppress(OSError):
        write_tensors(
            place / f"{uuid.uuid4().hex[:16]}.safetensors",
            {name: of_array(array) for name, array in arrays.items()},
            {},
        )

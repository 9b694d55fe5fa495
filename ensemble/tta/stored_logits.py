"""Test logits that a run stores, so that another blend of the same images runs no network. Never imports torch.

    predictions/logits/<set>/<digest>.safetensors   logits of some images by some members under some views
    predictions/logits/.claim-1                     held for a moment, by a process that makes room

Logits are found by what determines them, not by the blend that asked for them: a member under a view by a digest of its
networks, its preprocessing and all else that may change a bit, an image by its path, size and times. So another blend,
fewer images or another order of them find all that they need, and only what is new is computed. Each file lists what is
in it, and its checksum (ensemble/files/sealed.py) is compared before any of it is used. It is named by what is in it,
so that any number of processes may add files at once.
"""

import hashlib
import json
import os
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ensemble.errors import Damaged, UserError
from ensemble.files import sealed
from ensemble.files.atomic import remove
from ensemble.files.claims import claimed_when_free
from ensemble.files.tensors import map_tensors, of_array, write_tensors
from ensemble.predictions.shards import file_state
from ensemble.tta.member_views import MemberView

ABANDONED = 86_400  # seconds, after which nobody writes a temporary file any more, whatever a machine's clock says
LIMIT = 4_000_000_000  # bytes of a run: 100,000 images of 7 classes take 200 MB (seven members, five folds, two views)


@dataclass(frozen=True)
class StoredLogits:
    """Which logits are stored of N images (U different ones) and Q member views, and where.

    folder: of the files
    member_views: Q, in the blend's order
    classes: C
    keys: S16 (U,), one for each different image, sorted
    image: int64 (N,), the place of each row's image in `keys`
    files: those that hold any of these logits, each checked
    file: int32 (U, Q), the number of the file that holds an image's logits, -1 if none does
    at: int32 (U, Q), their row in that file
    failed: bool (U,), whether an image could not be read when that was last tried
    damaged: how many files were damaged, and have been removed
    """

    folder: Path
    member_views: tuple[MemberView, ...]
    classes: int
    keys: np.ndarray
    image: np.ndarray
    files: tuple[Path, ...]
    file: np.ndarray
    at: np.ndarray
    failed: np.ndarray
    damaged: int

    def missing(self, rows: slice) -> np.ndarray:
        """bool (n, Q), whether the logits of these rows have to be computed."""
        return np.asarray(self.file[self.image[rows]] < 0)

    def missing_bytes(self) -> int:
        """Bytes of all logits that have to be computed."""
        numbers = np.array([each.folds * (each.width or self.classes) for each in self.member_views], dtype=np.int64)
        return 4 * int((self.file < 0).sum(axis=0) @ numbers)

    def read(self, rows: slice) -> list[np.ndarray]:
        """For each member view the logits of these rows, float32 (K, n, C), NaN where none are stored.

        Raises UserError if a file was removed since it was found.
        """
        images = self.image[rows]
        file, at = self.file[images], self.at[images]
        shapes = [(each.folds, len(images), each.width or self.classes) for each in self.member_views]
        values = [np.full(shape, np.nan, dtype=np.float32) for shape in shapes]
        for number in np.unique(file[file >= 0]).tolist():
            try:
                tensors = map_tensors(self.files[number])
            except OSError:
                raise UserError(f"{self.files[number]}: was removed; start the same command again") from None
            for q, member_view in enumerate(self.member_views):
                in_file = np.flatnonzero(file[:, q] == number)
                if len(in_file):
                    values[q][:, in_file] = tensors[member_view.digest][:, at[in_file, q]]
        return values


def find(
    folder: Path,
    files: Sequence[Path],
    member_views: tuple[MemberView, ...],
    classes: int,
    others: Sequence[Path] = (),
) -> StoredLogits:
    """What `folder` holds of N image files and Q member views; damaged files in it are removed. others: the folders of
    other runs, which hold some too."""
    keys, image = np.unique(_keys(files), return_inverse=True)
    file, at = (np.full((len(keys), len(member_views)), -1, dtype=np.int32) for _ in range(2))
    failed = np.zeros(len(keys), dtype=bool)
    used: list[Path] = []
    damaged = 0
    shapes = {each.digest: (each.folds, each.width or classes) for each in member_views}
    paths = [path for place in (folder, *others) for path in sorted(place.glob("[!.]*.safetensors"))]
    for path in paths:
        tensors = _checked(path, shapes)
        if tensors is None and path.parent != folder:
            continue
        if tensors is None:
            damaged += 1
            with suppress(OSError):
                remove(path)
            continue
        places, rows = _matches(keys, tensors["images"])
        failed[_matches(keys, tensors["failed"])[0]] = True
        new = [q for q, each in enumerate(member_views) if each.digest in tensors and (file[places, q] < 0).any()]
        for q in new:
            unknown = file[places, q] < 0
            file[places[unknown], q], at[places[unknown], q] = len(used), rows[unknown]
        if new:
            used.append(path)
            with suppress(OSError):
                os.utime(path)  # the least recently used files are removed first
    return StoredLogits(folder, member_views, classes, keys, image, tuple(used), file, at, failed, damaged)


def make_room(stored: StoredLogits, limit: int) -> bool:
    """Whether the missing logits fit beside those that are used, in at most `limit` bytes for the run; files that were
    least recently used are removed for them. What other processes have still to add is not counted: two that predict
    different images at once may exceed the limit together, until room is made the next time."""
    place = stored.folder.parent
    place.mkdir(parents=True, exist_ok=True)
    with claimed_when_free(place / ".claim"):
        new = stored.missing_bytes()
        states = {path: state for path in place.glob("*/*.safetensors") if (state := _state(path)) is not None}
        sizes = {path: state.st_size for path, state in states.items()}
        if new + sum(sizes.get(path, 0) for path in stored.files) > limit:  # those of other runs are not its own
            return False
        total = new + sum(sizes.values())
        for path in sorted(states, key=lambda path: states[path].st_mtime):
            if total <= limit:
                break
            if path not in stored.files:
                remove(path)
                total -= sizes[path]
        for temporary in place.glob("*/.*.tmp"):  # of writers that were killed
            state = _state(temporary)
            if state is not None and time.time() - state.st_mtime > ABANDONED:
                temporary.unlink(missing_ok=True)
    return True


def add(
    stored: StoredLogits,
    rows: np.ndarray,
    numbers: Sequence[int],
    values: Sequence[np.ndarray],
    unreadable: Collection[int],
) -> None:
    """Store the logits of n rows under the member views of these numbers. Raises OSError that names the file.

    rows: int64 (n,), of all N
    values: for each member view float32 (K, n, C)
    unreadable: those of the n rows that could not be read, which is stored too
    """
    images = stored.keys[stored.image[rows]]
    bad = np.array(sorted(unreadable), dtype=np.int64)
    good = np.setdiff1d(np.arange(len(rows)), bad)
    tensors = {"images": _bytes(images[good]), "failed": _bytes(images[bad])}
    for number, logits in zip(numbers, values, strict=True):
        tensors[stored.member_views[number].digest] = np.ascontiguousarray(logits[:, good])
    named = [stored.member_views[number] for number in numbers]
    path = stored.folder / f"{_name(tensors)}.safetensors"
    write_tensors(
        path,
        {name: of_array(array) for name, array in tensors.items()},
        {each.digest: f"{each.member} {each.view}" for each in named},
    )


def _state(path: Path) -> os.stat_result | None:
    """None of a file that another process has removed."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _keys(files: Sequence[Path]) -> np.ndarray:
    """S16 (N,)."""
    each = (json.dumps([str(file.absolute()), *file_state(file)]) for file in files)
    return np.frombuffer(b"".join(hashlib.sha256(text.encode()).digest()[:16] for text in each), dtype="S16")


def _bytes(keys: np.ndarray) -> np.ndarray:
    """uint8 (n, 16) of S16 (n,)."""
    return np.frombuffer(keys.tobytes(), dtype=np.uint8).reshape(-1, 16)


def _matches(keys: np.ndarray, in_file: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For those keys of a file, uint8 (n, 16), that are among the sorted `keys`: their places there and their rows in
    the file, int64 (m,) each."""
    names = np.frombuffer(in_file.tobytes(), dtype="S16")
    near = np.minimum(np.searchsorted(keys, names), len(keys) - 1)
    rows = np.flatnonzero(keys[near] == names)
    return near[rows], rows


def _checked(path: Path, shapes: Mapping[str, tuple[int, int]]) -> dict[str, np.ndarray] | None:
    """A file's arrays; None if its bytes are not those that were written, or its arrays not such as `add` writes.
    shapes: the number of networks, and of what each gives of an image, of the member views that are asked for, by their
    digests."""
    try:
        tensors = map_tensors(path) if sealed.require_sound_file(path) else {}
        for name, array in tensors.items():
            networks, width = shapes.get(name, (len(array), array.shape[-1]))
            logits_shape = (networks, len(tensors["images"]), width)
            if array.shape != ((len(array), 16) if name in ("images", "failed") else logits_shape):
                return None
        return tensors if path.stem == _name(tensors) else None
    except (OSError, Damaged, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _name(tensors: Mapping[str, np.ndarray]) -> str:
    """Of the file that holds them, by the images and member views that they belong to: a file that is written over
    another one holds the same."""
    about = "".join(sorted(tensors)).encode() + tensors["images"].tobytes() + b" " + tensors["failed"].tobytes()
    return hashlib.sha256(about).hexdigest()[:32]

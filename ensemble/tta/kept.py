"""Test logits that a run keeps, so that another blend of the same images runs no network. Never imports torch.

    predictions/logits/<set>/<digest>.safetensors   logits of some images by some members under some views
    predictions/logits/.lock                        one process at a time adds to them and removes some

Logits are found by what decides them, not by the blend that asked for them: a column (a member under a view) by a
digest of its networks, its preprocessing and all else that may move a bit, an image by its place, size and times. So
another blend, fewer images or another order of them find all they need, and what is new costs only itself. A file says
itself what is in it, and vouches for all its bytes (ensemble/files/sealed.py), before any of them is used.
"""

import hashlib
import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import PIL
from filelock import FileLock, Timeout

from ensemble import __version__, rundir
from ensemble.blend import GIVEN, Blend
from ensemble.data.cache.shards import key
from ensemble.data.pixels.preprocess import load_preprocess
from ensemble.errors import Damaged, UserError
from ensemble.files import sealed
from ensemble.files.tensors import map_tensors, of_array, write_tensors
from ensemble.run.vouched import digest_in_done

FORMAT = 1  # of the files, and of what is in them: raise it when either changes
LIMIT = 4_000_000_000  # bytes, of a run: 100,000 images of 7 classes take 200 MB (seven members, five folds, two views)


@dataclass(frozen=True)
class Column:
    """A member under a view. digest: of all that decides its logits of an image, hexadecimal."""

    member: str
    view: str
    digest: str


@dataclass(frozen=True)
class Kept:
    """What is kept of N wanted images and Q columns.

    folder: of the files. shape: folds and classes, (K, C). keys: S16 (U,), of the images that differ, sorted. image:
    int64 (N,), the key of each row. files: those that hold any of it, found whole. file, at: int32 (U, Q), where the
    logits of an image lie, a file's number (-1: nowhere) and a row in it. failed: bool (U,), images that could not be
    read when they were last tried. damaged: how many files were not whole, and are removed.
    """

    folder: Path
    columns: tuple[Column, ...]
    shape: tuple[int, int]
    keys: np.ndarray
    image: np.ndarray
    files: tuple[Path, ...]
    file: np.ndarray
    at: np.ndarray
    failed: np.ndarray
    damaged: int

    def lacking(self, rows: slice) -> np.ndarray:
        """bool (n, Q): what has to be computed of these rows."""
        return np.asarray(self.file[self.image[rows]] < 0)

    def nbytes(self) -> int:
        """Bytes of what is lacking."""
        return 4 * int((self.file < 0).sum()) * self.shape[0] * self.shape[1]

    def read(self, rows: slice) -> list[np.ndarray]:
        """Of each column the logits of these rows, float32 (K, n, C), NaN where there are none.

        Raises UserError if a file was removed since it was found whole.
        """
        images = self.image[rows]
        file, at = self.file[images], self.at[images]
        folds, classes = self.shape
        values = [np.full((folds, len(images), classes), np.nan, dtype=np.float32) for _ in self.columns]
        for number in np.unique(file[file >= 0]).tolist():
            try:
                tensors = map_tensors(self.files[number])
            except OSError:
                raise UserError(f"{self.files[number]}: was removed; start the same command again") from None
            for q, column in enumerate(self.columns):
                own = np.flatnonzero(file[:, q] == number)
                if len(own):
                    values[q][:, own] = tensors[column.digest][:, at[own, q]]
        return values


def columns(run: Path, blend: Blend, folds: int, batch_size: int, device: str) -> tuple[Column, ...]:
    """Each view of each of the blend's own members, in the blend's order.

    The small files of a member count with all their bytes, and with them the digest of each fold's weights, where its
    done marker has one; else weights count by size and time of change. The number of threads and the make of a GPU do
    not count: they may move a last bit, and hours of work are worth more.
    """
    out = []
    for member, views in zip(blend.members, blend.views, strict=True):
        if views == GIVEN:
            continue
        preprocess = load_preprocess(rundir.preprocess_json(run, member))
        files, models = [rundir.settings_json(run, member)], []
        for fold in range(folds):
            directory = rundir.fold_dir(run, member, fold)
            files += [rundir.done_json(directory), rundir.inference_json(directory)]
            model = rundir.model_file(directory)
            models.append(digest_in_done(model) or state(model)[:2])
        facts = {
            "format": FORMAT,
            "versions": [__version__, *map(version, ("torch", "timm")), PIL.__version__],
            "device": device,
            "batch_size": batch_size,
            "classes": blend.classes,
            "files": [hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "" for path in files],
            "models": models,
            "member": [member, asdict(preprocess), key(preprocess.decoding)],
        }
        text = json.dumps(facts, sort_keys=True)
        out += [Column(member, view, hashlib.sha256(f"{text} {view}".encode()).hexdigest()) for view in views]
    return tuple(out)


@contextmanager
def adding(folder: Path) -> Iterator[bool]:
    """Whether this process may add to what a run keeps, and remove some: no other one is doing so."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def find(folder: Path, files: Sequence[Path], columns: tuple[Column, ...], shape: tuple[int, int]) -> Kept:
    """What is kept in `folder` of these N image files and columns; see `Kept`. Files that are damaged are removed."""
    keys, image = np.unique(_keys(files), return_inverse=True)
    file, at = (np.full((len(keys), len(columns)), -1, dtype=np.int32) for _ in range(2))
    failed = np.zeros(len(keys), dtype=bool)
    used: list[Path] = []
    damaged = 0
    for path in sorted(folder.glob("[!.]*.safetensors")):
        tensors = _whole(path, shape)
        if tensors is None:
            damaged += 1
            with suppress(OSError):
                path.unlink()
            continue
        there, rows = _places(keys, tensors["images"])
        failed[_places(keys, tensors["failed"])[0]] = True
        new = [q for q, column in enumerate(columns) if column.digest in tensors and (file[there, q] < 0).any()]
        for q in new:
            own = file[there, q] < 0
            file[there[own], q], at[there[own], q] = len(used), rows[own]
        if new:
            used.append(path)
            with suppress(OSError):
                os.utime(path)  # what was not used for longest goes first
    return Kept(folder, columns, shape, keys, image, tuple(used), file, at, failed, damaged)


def make_room(kept: Kept, limit: int) -> bool:
    """Whether what `kept` lacks can be kept beside what it uses, in at most `limit` bytes for the run; what was not
    used for longest is removed for it. Only for whoever may add."""
    new = kept.nbytes()
    every = sorted(kept.folder.parent.glob("*/*.safetensors"), key=lambda path: path.stat().st_mtime)
    sizes = {path: path.stat().st_size for path in every}
    if new + sum(sizes[path] for path in kept.files) > limit:
        return False
    total = new + sum(sizes.values())
    for path in every:
        if total <= limit:
            break
        if path not in kept.files:
            path.unlink(missing_ok=True)
            total -= sizes[path]
    for temporary in kept.folder.parent.glob("*/.*.tmp"):  # of writers that were killed
        temporary.unlink(missing_ok=True)
    return True


def keep(
    kept: Kept, rows: np.ndarray, numbers: Sequence[int], values: Sequence[np.ndarray], unreadable: Collection[int]
) -> None:
    """Keep the logits of n rows under the columns of these numbers, each float32 (K, n, C).

    unreadable: those of the n that could not be read, which is remembered. Raises OSError that names the file.
    """
    images = kept.keys[kept.image[rows]]
    bad = np.array(sorted(unreadable), dtype=np.int64)
    good = np.setdiff1d(np.arange(len(rows)), bad)
    tensors = {"images": _bytes(images[good]), "failed": _bytes(images[bad])}
    for number, own in zip(numbers, values, strict=True):
        tensors[kept.columns[number].digest] = np.ascontiguousarray(own[:, good])
    names = {kept.columns[q].digest: f"{kept.columns[q].member} {kept.columns[q].view}" for q in numbers}
    path = kept.folder / f"{_name(tensors)}.safetensors"
    write_tensors(path, {key: of_array(array) for key, array in tensors.items()}, names)


def state(path: Path) -> tuple[int, int, int]:
    """Size and times of change in nanoseconds, the contents' and the file's own, which no copying sets back; of a file
    that is gone, which reading it will say, -1."""
    try:
        found = path.stat()
    except OSError:
        return -1, -1, -1
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _keys(files: Sequence[Path]) -> np.ndarray:
    """S16 (N,)."""
    each = (json.dumps([str(file.absolute()), *state(file)]) for file in files)
    return np.frombuffer(b"".join(hashlib.sha256(text.encode()).digest()[:16] for text in each), dtype="S16")


def _bytes(keys: np.ndarray) -> np.ndarray:
    """uint8 (n, 16) of S16 (n,)."""
    return np.frombuffer(keys.tobytes(), dtype=np.uint8).reshape(-1, 16)


def _places(keys: np.ndarray, held: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of what a file holds, uint8 (n, 16): where it lies among the sorted keys and in the file, int64 (m,) each."""
    names = np.frombuffer(held.tobytes(), dtype="S16")
    near = np.minimum(np.searchsorted(keys, names), len(keys) - 1)
    rows = np.flatnonzero(keys[near] == names)
    return near[rows], rows


def _whole(path: Path, shape: tuple[int, int]) -> dict[str, np.ndarray] | None:
    """A file's arrays, where its bytes are those that were written and its arrays those that `keep` writes."""
    try:
        tensors = map_tensors(path) if sealed.require_sound_file(path) else {}
        logits = (shape[0], len(tensors["images"]), shape[1])
        for name, own in tensors.items():
            if own.shape != ((len(own), 16) if name in ("images", "failed") else logits):
                return None
        return tensors if path.stem == _name(tensors) else None
    except (OSError, Damaged, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _name(tensors: Mapping[str, np.ndarray]) -> str:
    """Of the file that holds them, by what it is about: a file that is written over another one is the same one."""
    about = "".join(sorted(tensors)).encode() + tensors["images"].tobytes() + b" " + tensors["failed"].tobytes()
    return hashlib.sha256(about).hexdigest()[:32]

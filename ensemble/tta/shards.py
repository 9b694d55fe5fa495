"""Predicted rows in pieces on disk: a prediction of any size fits into memory, and goes on after a kill.

    predictions/.test-stack/<digest>.safetensors   probabilities of one shard's rows
    predictions/.test-stack.lock                   one process at a time

A shard is named by a digest of all that decides its numbers: how everything is predicted (`plan_digest`) and its own
rows. What doesn't fit any more therefore isn't found, and is done anew. Never imports torch.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load

from ensemble import rundir
from ensemble.data.pixels.preprocess import Preprocess
from ensemble.errors import UserError
from ensemble.files import sealed
from ensemble.files.atomic import clear_temporaries_of, require_writable
from ensemble.files.reading import parse_json
from ensemble.files.tensors import of_array, read_bytes, write_tensors
from ensemble.tta.kept import Column, state

FORMAT = 2  # of the files, and of what is in them: raise it when either changes
CHUNK_BYTES = 256 * 2**20  # of decoded squares
CHUNK_PASSES = 8192  # of an image through a network, under all its views


@dataclass(frozen=True)
class Shard:
    """Rows start to stop of those to predict, and the file that holds their probabilities once they are done."""

    path: Path
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@contextmanager
def only_one(predictions: Path) -> Iterator[None]:
    """Hold the lock of a predictions file. Raises UserError if another process has it."""
    require_writable(predictions)
    lock = FileLock(rundir.predictions_lock(predictions), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(f"{predictions}: another ens tta-predict is writing it; wait until that has ended") from None
    try:
        yield
    finally:
        lock.release()


def chunk_rows(preprocesses: Sequence[Preprocess], networks: int, batch_size: int, device: str) -> int:
    """How many images to decode, compute and save at a time: so many that their squares fill CHUNK_BYTES, and at most
    1,024. Members' own images are decoded at up to two sizes. On a CPU many networks take fewer, so that a kill costs a
    minute or two (35 networks and two views: 192 images, about 90 s)."""
    sides = {own for preprocess in preprocesses for own in (preprocess.decoding, preprocess.cropping)}
    rows = CHUNK_BYTES // sum(3 * (how.size or 0) ** 2 for how in sides) if sides else 1024
    if device == "cpu":
        rows = min(rows, CHUNK_PASSES // max(networks, 1))
    least = max(batch_size, 64)
    return int(min(max(rows // least, 1) * least, 1024))


def plan_digest(run: Path, blend: str, columns: Sequence[Column]) -> str:
    """SHA-256 of all that decides the numbers of every row: the blend's two files with all their bytes, and its
    members' networks and views, see `kept.columns`."""
    files = [rundir.blend_json(run, blend), rundir.blend_file(run, blend)]
    facts = {
        "format": FORMAT,
        "files": [hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "" for path in files],
        "columns": [column.digest for column in columns],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def divide(
    predictions: Path,
    plan: str,
    ids: Sequence[str],
    files: Sequence[Path],
    size: int,
    given: Callable[[int, int], Sequence[np.ndarray]],
) -> list[Shard]:
    """The shards of these rows, `size` rows each, in order.

    An image counts by its id, place, size and time of change, so that one that is replaced costs its own shard alone.
    given: of rows start to stop the predictions that were made elsewhere, which count with all their bytes.
    """
    folder = rundir.shards_dir(predictions)
    shards = []
    for start in range(0, len(ids), size):
        stop = min(start + size, len(ids))
        rows = [[ids[row], str(files[row].absolute()), *state(files[row])[:2]] for row in range(start, stop)]
        digest = hashlib.sha256(json.dumps([plan, rows]).encode())
        for values in given(start, stop):
            digest.update(np.ascontiguousarray(values).data)
        shards.append(Shard(folder / f"{digest.hexdigest()[:32]}.safetensors", start, stop))
    return shards


def keep_only(predictions: Path, shards: Sequence[Shard]) -> int:
    """Remove what lies beside these shards and what writers that were killed left; only while the lock is held. Returns
    how many shards of other images or settings were removed."""
    clear_temporaries_of(predictions)
    wanted = {shard.path for shard in shards}
    others = [path for path in rundir.shards_dir(predictions).glob("*") if path not in wanted]
    for path in others:
        path.unlink(missing_ok=True)
    return sum(path.suffix == ".safetensors" for path in others)


def write(shard: Shard, probabilities: np.ndarray, unreadable: dict[int, str]) -> None:
    """Write a shard's probabilities, float32 (n, C), atomically. unreadable: the reason for each row of them that is
    NaN. Raises OSError that names the file."""
    write_tensors(shard.path, {"probabilities": of_array(probabilities)}, {"unreadable": json.dumps(unreadable)})


def unreadable_rows(shard: Shard, classes: int) -> dict[int, str] | None:
    """Row (of all) -> reason for a shard that is done; None if it is not, or not as it was written."""
    try:
        sealed.require_sound_file(shard.path)
        with safe_open(shard.path, framework="numpy") as file:
            if file.get_slice("probabilities").get_shape() != [len(shard), classes]:
                return None
            if file.get_slice("probabilities").get_dtype() != "F32":
                return None
            reasons = parse_json((file.metadata() or {})["unreadable"], dict[int, str], "unreadable")
        return {shard.start + row: reason for row, reason in reasons.items() if 0 <= row < len(shard)}
    except (OSError, UserError, SafetensorError, KeyError):
        return None


def read(shard: Shard) -> np.ndarray:
    """The probabilities of a shard that is done, float32 (n, C). Raises UserError if it was damaged since."""
    try:
        return np.asarray(load(read_bytes(shard.path))["probabilities"])
    except (OSError, SafetensorError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{shard.path}: can't be read any more ({error}); start the same command again") from None


def remove(predictions: Path) -> None:
    """Remove all shards: what they held is in its place."""
    shutil.rmtree(rundir.shards_dir(predictions), ignore_errors=True)


def images_of(ids: Sequence[str], unreadable: dict[int, str], shown: int = 10) -> list[str]:
    """Lines that name images without a prediction, and why: the first few, and how many more there are."""
    lines = [f"  {ids[row]}: {unreadable[row]}" for row in sorted(unreadable)[:shown]]
    more = len(unreadable) - len(lines)
    return [*lines, f"  and {more} more"] if more else lines

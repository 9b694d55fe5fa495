"""Predicted rows in shards on disk: a prediction of any size fits into memory, and resumes after a kill.

    predictions/.test-stack/<digest>.safetensors   probabilities of one shard's rows
    predictions/.test-stack.lock                   held by the one process that predicts

A shard is named by a digest of all that determines its numbers: how everything is predicted (`plan_digest`) and its
rows. A shard that doesn't fit any more is therefore not found, and is predicted anew. Never imports torch.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load

from ensemble.data.pixels.preprocess import Preprocess
from ensemble.errors import UserError
from ensemble.files import sealed
from ensemble.files.atomic import clear_temporaries_of, require_writable
from ensemble.files.reading import parse_json
from ensemble.files.tensors import of_array, read_bytes, write_tensors
from ensemble.inference.decodings import decodings
from ensemble.run import Run
from ensemble.run.run import predictions_lock, shards_dir
from ensemble.tta.apply import ExternalRows
from ensemble.tta.stored_logits import MemberView, file_state

FORMAT = 2  # of the files and of what is in them: raise it when either changes
CHUNK_BYTES = 256 * 2**20  # of decoded squares
CHUNK_PASSES = 8192  # of an image through a network, under all its views


@dataclass(frozen=True)
class PredictionShard:
    """Some of the rows to predict, one after the other.

    path: of the file that holds their probabilities as soon as they are predicted
    start: the first row
    stop: the row after the last one
    """

    path: Path
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@contextmanager
def locked(predictions: Path) -> Iterator[None]:
    """Hold the lock of a predictions file. Raises UserError if another process has it, or if the file can't be
    written."""
    require_writable(predictions)
    lock = FileLock(predictions_lock(predictions), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(f"{predictions}: another ens tta-predict is writing it; wait until that has ended") from None
    try:
        yield
    finally:
        lock.release()


def chunk_rows(
    preprocesses: Sequence[Preprocess],
    networks: int,
    batch_size: int,
    device: str,
    views: Sequence[Sequence[str]] = (),
) -> int:
    """How many images to decode, compute and save at a time: so many that their squares fill CHUNK_BYTES, and at most
    1,024. A member's images are decoded at up to two sizes, and at more for those of its views that name a size. On a
    CPU many networks take fewer images, so that a kill costs a minute or two (35 networks and two views: 192 images,
    about 90 s)."""
    needed = {each for preprocess in preprocesses for each in (preprocess.decoding, preprocess.cropping)}
    for preprocess, member_views in zip(preprocesses, views, strict=False):
        needed.update(decodings(preprocess, member_views))
    rows = CHUNK_BYTES // sum(3 * (each.size or 0) ** 2 for each in needed) if needed else 1024
    if device == "cpu":
        rows = min(rows, CHUNK_PASSES // max(networks, 1))
    least = max(batch_size, 64)
    return int(min(max(rows // least, 1) * least, 1024))


def plan_digest(run: Run, blend: str, member_views: Sequence[MemberView]) -> str:
    """SHA-256 of all that determines the numbers of every row: the blend's two files with all their bytes, and its
    members' networks and views, see `stored_logits.member_views`."""
    files = [run.blend_json(blend), run.blend_file(blend)]
    facts = {
        "format": FORMAT,
        "files": [hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "" for path in files],
        "columns": [each.digest for each in member_views],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def divide(
    predictions: Path, plan: str, ids: Sequence[str], files: Sequence[Path], size: int, external: ExternalRows
) -> list[PredictionShard]:
    """The shards of N rows, in order.

    An image counts by its id, path, size and time of change, so that only its shard is predicted anew if it is
    replaced. The external members' predictions count with all their bytes.

    plan: what `plan_digest` gives
    ids, files: of the N images
    size: rows of a shard
    """
    folder = shards_dir(predictions)
    shards = []
    for start in range(0, len(ids), size):
        stop = min(start + size, len(ids))
        rows = [[ids[row], str(files[row].absolute()), *file_state(files[row])[:2]] for row in range(start, stop)]
        digest = hashlib.sha256(json.dumps([plan, rows]).encode())
        for values in external(start, stop):
            digest.update(np.ascontiguousarray(values).data)
        shards.append(PredictionShard(folder / f"{digest.hexdigest()[:32]}.safetensors", start, stop))
    return shards


def remove_others(predictions: Path, shards: Sequence[PredictionShard]) -> int:
    """Remove what lies beside these shards, and what killed writers left; only while the lock is held. Returns how many
    shards of other images or settings were removed."""
    clear_temporaries_of(predictions)
    current = {shard.path for shard in shards}
    others = [path for path in shards_dir(predictions).glob("*") if path not in current]
    for path in others:
        path.unlink(missing_ok=True)
    return sum(path.suffix == ".safetensors" for path in others)


def write(shard: PredictionShard, probabilities: np.ndarray, unreadable: dict[int, str]) -> None:
    """Write a shard's probabilities, float32 (n, C), atomically. unreadable: the reason for each row that is NaN.
    Raises OSError that names the file."""
    write_tensors(shard.path, {"probabilities": of_array(probabilities)}, {"unreadable": json.dumps(unreadable)})


def unreadable_rows(shard: PredictionShard, classes: int) -> dict[int, str] | None:
    """For each row (of all N) of a finished shard that could not be read the reason; None if the shard is not finished,
    or damaged."""
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


def read(shard: PredictionShard) -> np.ndarray:
    """The probabilities of a finished shard, float32 (n, C). Raises UserError if it was damaged since."""
    try:
        return np.asarray(load(read_bytes(shard.path))["probabilities"])
    except (OSError, SafetensorError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{shard.path}: can't be read any more ({error}); start the same command again") from None


def remove(predictions: Path) -> None:
    """Remove all shards, when what they hold has been written elsewhere."""
    shutil.rmtree(shards_dir(predictions), ignore_errors=True)


def unreadable_lines(ids: Sequence[str], unreadable: dict[int, str], shown: int = 10) -> list[str]:
    """Lines that name images without a prediction, and why: the first few, and how many more there are."""
    lines = [f"  {ids[row]}: {unreadable[row]}" for row in sorted(unreadable)[:shown]]
    more = len(unreadable) - len(lines)
    return [*lines, f"  and {more} more"] if more else lines

"""Predicted rows in shards on disk: a prediction of any size fits into memory, and resumes after a kill.

    predictions/.test-stack/<digest>.safetensors   probabilities of one shard's rows

A shard is named by a digest of all that determines its numbers: how everything is predicted (the digest of a plan) and
its rows. A shard that doesn't fit any more is therefore not found, and is predicted anew.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load

from ensemble.errors import UserError
from ensemble.events import Events
from ensemble.files import atomic, sealed
from ensemble.files.claims import Taken, claimed
from ensemble.files.reading import parse_json
from ensemble.files.tensors import of_array, read_bytes, write_tensors
from ensemble.plural import pluralize

COLUMN = "column "  # before the name of a column, in the names of a shard's tensors
FORMAT = 2  # of the files and of what is in them: raise it when either changes


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
def locked(claim_file: Path, predictions: Path, command: str) -> Iterator[None]:
    """Hold the claim on a file of predictions. Raises UserError if another process, of this command, has it."""
    with ExitStack() as stack:
        try:
            stack.enter_context(claimed(claim_file))
        except Taken as taken:
            raise UserError(
                f"{predictions}: another {command} is writing it ({taken}); wait until that has ended"
            ) from None
        yield


def divide(
    folder: Path,
    plan: str,
    ids: Sequence[str],
    files: Sequence[Path],
    size: int,
    external: Callable[[int, int], Sequence[np.ndarray]] = lambda start, stop: (),
) -> list[PredictionShard]:
    """The shards of N rows, in order.

    An image counts by its id, path, size and time of change, so that only its shard is predicted anew if it is
    replaced. The external members' predictions count with all their bytes.

    folder: where they lie
    plan: a digest of all that determines the numbers of every row
    ids, files: of the N images
    size: rows of a shard
    external: arrays of rows start to stop that count too
    """
    shards = []
    for start in range(0, len(ids), size):
        stop = min(start + size, len(ids))
        rows = [[ids[row], str(files[row].absolute()), *file_state(files[row])[:2]] for row in range(start, stop)]
        digest = hashlib.sha256(json.dumps([plan, rows]).encode())
        for values in external(start, stop):
            digest.update(np.ascontiguousarray(values).data)
        shards.append(PredictionShard(folder / f"{digest.hexdigest()[:32]}.safetensors", start, stop))
    return shards


def remove_others(folder: Path, shards: Sequence[PredictionShard], events: Events) -> None:
    """Remove what lies beside these shards: those of other images or settings, of which a message tells, and what
    killed writers left; only while no other process writes there."""
    current = {shard.path for shard in shards}
    others = [path for path in folder.glob("*") if path not in current and not path.is_dir()]
    for path in others:
        atomic.remove(path)
    removed = sum(path.suffix == ".safetensors" for path in others)
    if removed:
        shards_removed = pluralize(removed, "shard")
        events.message(f"removed {shards_removed} of a stopped prediction of other images or with other settings")


def file_state(path: Path) -> tuple[int, int, int]:
    """Size and times of change in nanoseconds, of the contents and of the file itself; the latter is not set back by
    copying. -1 each for a file that is gone: reading it will say so."""
    try:
        found = path.stat()
    except OSError:
        return -1, -1, -1
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def write(
    shard: PredictionShard,
    probabilities: np.ndarray,
    unreadable: dict[int, str],
    columns: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Write a shard's probabilities, float32 (n, C), atomically. unreadable: the reason for each row that is NaN.
    columns: what else is known of the rows, (n, ...) by name. Raises OSError that names the file."""
    arrays = {"probabilities": probabilities} | {f"{COLUMN}{name}": values for name, values in (columns or {}).items()}
    tensors = {name: of_array(values) for name, values in arrays.items()}
    write_tensors(shard.path, tensors, {"unreadable": json.dumps(unreadable)})


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
    return read_with_columns(shard, ())[0]


def read_with_columns(shard: PredictionShard, names: Sequence[str]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """As `read`, and these columns, in this order."""
    try:
        arrays = load(read_bytes(shard.path))
        probabilities = np.asarray(arrays["probabilities"])
        columns = {name: np.asarray(arrays[f"{COLUMN}{name}"]) for name in names}
        if all(len(each) == len(shard) for each in (probabilities, *columns.values())):
            return probabilities, columns
        raise KeyError(f"{len(probabilities)} rows, want {len(shard)}")
    except (OSError, SafetensorError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{shard.path}: can't be read any more ({error}); start the same command again") from None


def remove(folder: Path) -> None:
    """Remove all shards, when what they hold has been written elsewhere."""
    atomic.remove_folder(folder)


def report_unreadable(ids: Sequence[str], unreadable: dict[int, str], events: Events) -> None:
    """Name the images without a prediction."""
    if unreadable:
        events.message(f"{len(unreadable)} of {len(ids)} images could not be read and have no prediction:")
        for line in unreadable_lines(ids, unreadable):
            events.message(line)


def reason(line: str, file: Path) -> str:
    """What is wrong with an image, without its name and without advice."""
    return line.removeprefix(f"{file}: ").removesuffix("; replace it or remove it")


def unreadable_lines(ids: Sequence[str], unreadable: dict[int, str], shown: int = 10) -> list[str]:
    """Lines that name images without a prediction, and why: the first few, and how many more there are."""
    lines = [f"  {ids[row]}: {unreadable[row]}" for row in sorted(unreadable)[:shown]]
    more = len(unreadable) - len(lines)
    return [*lines, f"  and {more} more"] if more else lines

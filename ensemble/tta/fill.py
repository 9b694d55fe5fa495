"""The shards of a prediction, filled one after the other: stored logits are read, missing ones computed, and all
blended. Networks, and torch, are loaded only where logits are missing."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ensemble.blend import Blend
from ensemble.data.pixels.decode import decode
from ensemble.data.pixels.preprocess import Preprocess
from ensemble.errors import UserError
from ensemble.events import Events
from ensemble.predictions import shards
from ensemble.predictions.shards import Predicted, PredictionShard, reason
from ensemble.progress import paced
from ensemble.run import Fold, Run
from ensemble.tta import stored_logits
from ensemble.tta.apply import ExternalRows, blend_chunk
from ensemble.tta.stored_logits import MemberView, StoredLogits


@dataclass(frozen=True)
class PredictionPlan:
    """How N image files are predicted by a blend.

    run: that of the blend
    blend: the blend
    files: N, in the order of the rows
    external: the test predictions of the blend's external members
    preprocesses: of each member that ens trained, by its name, in the blend's order
    networks: of each of these members
    kind: of these networks: "folds", "soup" or "refit"
    folds: K, of the run itself
    batch_size: images per forward pass, as far as `batch_rows` takes it
    on_bad: "error" or "skip", at an image that can't be read
    """

    run: Run
    blend: Blend
    files: Sequence[Path]
    external: ExternalRows
    preprocesses: Mapping[str, Preprocess]
    networks: Mapping[str, Sequence[Fold]]
    kind: str
    folds: int
    batch_size: int
    on_bad: str


def plan_digest(run: Run, blend: str, member_views: Sequence[MemberView]) -> str:
    """SHA-256 of all that determines the numbers of every row: the blend's two files with all their bytes, and its
    members' networks and views, see `stored_logits.member_views`."""
    files = [run.blend_json(blend), run.blend_file(blend)]
    facts = {
        "format": shards.FORMAT,
        "files": [hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "" for path in files],
        "columns": [each.digest for each in member_views],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class MissingBlock:
    """Images of one shard whose logits are missing under the same member views.

    rows: int64 (n,), of all N
    numbers: those of the member views
    """

    rows: np.ndarray
    numbers: tuple[int, ...]


def fill(
    parts: Sequence[PredictionShard], plan: PredictionPlan, stored: StoredLogits, may_store: bool, events: Events
) -> dict[int, str]:
    """Predict the shards that are not finished, and write each as soon as it is.

    may_store: whether logits that are computed are added to `stored`. Returns for each row that could not be read the
    reason. Raises UserError that names such an image if it is not to be skipped.
    """
    unfinished, unreadable = shards.unfinished(parts, len(plan.blend.classes), plan.on_bad, events)
    failed = _still_unreadable(unfinished, plan, stored)
    blocks = {part: _missing_blocks(part, stored, failed) for part in unfinished}
    computed = _computed([block for part in unfinished for block in blocks[part]], plan, stored, events)

    def predicted(part: PredictionShard) -> Predicted:
        nonlocal may_store
        values = stored.read(slice(part.start, part.stop))
        reasons = {row: line for row, line in failed.items() if part.start <= row < part.stop}
        for block in blocks[part]:
            logits, bad = next(computed)
            reasons |= {int(block.rows[at]): reason(line, plan.files[block.rows[at]]) for at, line in bad.items()}
            for number, array in zip(block.numbers, logits, strict=True):
                values[number][:, block.rows - part.start] = array
            may_store = may_store and _stored(stored, block, logits, bad, events)
        return _blended(part, plan, stored, values, reasons)

    return unreadable | shards.fill(unfinished, len(parts), predicted)


def _missing_blocks(part: PredictionShard, stored: StoredLogits, failed: Mapping[int, str]) -> list[MissingBlock]:
    """What has to be computed of a shard: usually nothing, or all its rows under all member views."""
    missing = stored.missing(slice(part.start, part.stop))
    if not missing.any():
        return []
    missing[[row - part.start for row in failed if part.start <= row < part.stop]] = False
    patterns, pattern_of = np.unique(missing, axis=0, return_inverse=True)
    return [
        MissingBlock(
            part.start + np.flatnonzero(pattern_of.reshape(-1) == number), tuple(np.flatnonzero(pattern).tolist())
        )
        for number, pattern in enumerate(patterns)
        if pattern.any()
    ]


def _computed(
    blocks: Sequence[MissingBlock], plan: PredictionPlan, stored: StoredLogits, events: Events
) -> Iterator[tuple[list[np.ndarray], dict[int, str]]]:
    """For each block what `compute_logits` gives. Networks are loaded once, for all blocks."""
    if not blocks:
        return iter(())
    from ensemble.device import keep_freed_memory
    from ensemble.tta.predictor import compute_logits, load_networks_of

    keep_freed_memory()
    numbers = {number for block in blocks for number in block.numbers}
    names = list(dict.fromkeys(each.member for q, each in enumerate(stored.member_views) if q in numbers))
    members = load_networks_of({name: plan.networks[name] for name in names}, len(plan.blend.classes), events)
    total = len(plan.files)
    advance = paced(events, "predicting", total - sum(len(block.rows) for block in blocks), total)
    chunks = (
        ([plan.files[row] for row in block.rows], tuple(stored.member_views[number] for number in block.numbers))
        for block in blocks
    )
    return compute_logits(members, chunks, plan.batch_size, plan.on_bad, advance)


def _still_unreadable(parts: Sequence[PredictionShard], plan: PredictionPlan, stored: StoredLogits) -> dict[int, str]:
    """For each image that could not be read before, and still can't be, the reason: the few that a set may have are
    tried again without any network."""
    reasons = {}
    if plan.on_bad == "skip" and plan.preprocesses and stored.failed.any():
        decoding = next(iter(plan.preprocesses.values())).decoding
        rows = (row for part in parts for row in range(part.start, part.stop) if stored.failed[stored.image[row]])
        for row in rows:
            try:
                decode(plan.files[row], decoding)
            except UserError as error:
                reasons[row] = reason(str(error), plan.files[row])
    return reasons


def _stored(
    stored: StoredLogits, block: MissingBlock, logits: list[np.ndarray], unreadable: dict[int, str], events: Events
) -> bool:
    """Store what was computed. False, with a message, where that fails: predictions don't need it."""
    try:
        stored_logits.add(stored, block.rows, block.numbers, logits, unreadable)
    except OSError as error:
        events.message(f"{stored.folder}: no further logits are stored for other blends ({error.strerror})")
        return False
    return True


def _blended(
    part: PredictionShard,
    plan: PredictionPlan,
    stored: StoredLogits,
    values: Sequence[np.ndarray],
    reasons: Mapping[int, str],
) -> tuple[np.ndarray, dict[int, str]]:
    """The probabilities of a shard's rows, float32 (n, C), and the reasons for those that are NaN, by their rows in the
    shard. values: of each member view float32 (K, n, C). reasons: by rows of all N."""
    logits = [
        np.stack(
            [array for array, each in zip(values, stored.member_views, strict=True) if each.member == name], axis=1
        )
        for name in plan.preprocesses
    ]
    in_shard = {row - part.start: line for row, line in reasons.items()}
    external = plan.external(part.start, part.stop)
    return blend_chunk(plan.blend, logits, in_shard, external, len(part)), in_shard

"""The shards of a prediction, filled one after the other: stored logits are read, missing ones computed, and all
blended. Networks, and torch, are loaded only where logits are missing; those of a cascade's later stages only for the
images that the earlier ones leave open."""

import hashlib
import json
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ensemble.blend import Blend
from ensemble.data.pixels.decode import decode
from ensemble.data.pixels.preprocess import Preprocess
from ensemble.errors import UserError
from ensemble.events import Events
from ensemble.predictions import shards, sharing
from ensemble.predictions.shards import PredictionShard, reason
from ensemble.predictions.sharing import PredictedShard, Rest
from ensemble.progress import paced
from ensemble.run import Fold, Run
from ensemble.run.networks import FROZEN, FROZEN_VIEWS
from ensemble.tta import stored_logits
from ensemble.tta.apply import ExternalRows
from ensemble.tta.certainty import CertaintyColumns, columns_digest, compute_columns, feature_count
from ensemble.tta.early_exit import ExitStage, exit_stages, members_of, predict_with_exits
from ensemble.tta.member_views import MemberView
from ensemble.tta.stored_logits import StoredLogits

if TYPE_CHECKING:
    from ensemble.inference.member import LoadedMember

FROZEN_PAIR = (FROZEN, FROZEN_VIEWS[0])
Computed = tuple[list[np.ndarray], dict[int, str]]  # what `compute_logits` gives for a block


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
    certainty: what is said of each image beside its class
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
    certainty: tuple[CertaintyColumns, ...] = ()


def plan_digest(
    run: Run, blend: str, member_views: Sequence[MemberView], certainty: Sequence[CertaintyColumns] = ()
) -> str:
    """SHA-256 of all that determines the numbers of every row: the blend's two files with all their bytes, its members'
    networks and views, see `member_views`, and what is said beside the class."""
    files = [run.blend_json(blend), run.blend_file(blend)]
    facts = {
        "format": shards.FORMAT,
        "files": [hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "" for path in files],
        "columns": [each.digest for each in member_views],
    }
    if certainty:
        facts["certainty"] = columns_digest(certainty)
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class MissingBlock:
    """Images of one shard whose logits are missing under the same member views.

    rows: int64 (n,), of all N
    numbers: those of the member views
    """

    rows: np.ndarray
    numbers: tuple[int, ...]


def fill(rest: Rest, plan: PredictionPlan, stored: StoredLogits, may_store: bool, events: Events) -> np.ndarray:
    """Predict the shards that no other process predicts, write each as soon as it is, and wait for the others.

    may_store: whether logits that are computed are added to `stored`. Returns how many images exited at each stage
    of the blend here, int64 (S,). Raises UserError that names an image that can't be read, if it is not to be skipped.
    """
    failed = _still_unreadable(list(rest.left), plan, stored)
    stages = exit_stages(plan.blend)
    if feature_count(plan.certainty):
        stages = (replace(stages[0], added=(*stages[0].added, FROZEN_PAIR)), *stages[1:])
    to_compute = dict.fromkeys(rest.left, 0)  # images that the first networks have to see
    numbers: set[int] = set()  # of the member views that these networks give
    for part in rest.left:
        for block in _missing_blocks(part, np.arange(len(part)), stages[0], stored, failed):
            to_compute[part] += len(block.rows)
            numbers.update(block.numbers)
    exits_by_stage = np.zeros(len(stages), dtype=np.int64)
    networks: dict[str, LoadedMember] = {}

    @cache
    def pace() -> Callable[[float], None]:
        total = len(plan.files)
        return paced(events, "predicting", total - sum(to_compute.values()), total)

    def found(part: PredictionShard) -> None:
        if to_compute[part]:
            pace()(to_compute[part])

    def predict(taken: Iterator[PredictionShard]) -> Iterator[PredictedShard]:
        waiting: deque[PredictionShard] = deque()  # taken, and not yet given back
        blocks: deque[MissingBlock] = deque()  # of theirs, not yet given to the networks

        def take() -> bool:
            part = next(taken, None)
            if part is None:
                return False
            waiting.append(part)
            blocks.extend(_missing_blocks(part, np.arange(len(part)), stages[0], stored, failed))
            return True

        def first_blocks() -> Iterator[MissingBlock]:
            # Not past a shard that needs none: networks that are fed ahead would take all such shards at once.
            while blocks or (take() and blocks):
                yield blocks.popleft()

        def first_logits() -> Iterator[Computed]:
            return _computed(first_blocks(), numbers, plan, stored, networks, events, lambda images: pace()(images))

        stream = first_logits()

        def compute(block: MissingBlock, stage: ExitStage) -> Computed:
            nonlocal may_store, stream
            if stage is stages[0]:
                answer = next(stream, None)
                if answer is None:
                    stream = first_logits()
                    answer = next(stream)
                logits, bad = answer
            else:
                uncounted: Callable[[float], None] = lambda images: None  # noqa: E731 their number is not known before
                [(logits, bad)] = _computed([block], set(block.numbers), plan, stored, networks, events, uncounted)
            may_store = may_store and _stored(stored, block, logits, bad, events)
            return logits, bad

        while waiting or take():
            part = waiting.popleft()
            probabilities, exits, reasons, columns = _predicted(part, plan, stored, stages, failed, compute)
            exits_by_stage[:] += exits
            yield part, probabilities, reasons, columns

    rest.found = found
    sharing.fill(rest, predict, events)
    return exits_by_stage


def _predicted(
    part: PredictionShard,
    plan: PredictionPlan,
    stored: StoredLogits,
    stages: tuple[ExitStage, ...],
    failed: Mapping[int, str],
    compute: Callable[[MissingBlock, ExitStage], Computed],
) -> tuple[np.ndarray, np.ndarray, dict[int, str], dict[str, np.ndarray]]:
    """The probabilities of a shard's rows, float32 (n, C), how many rows exited at each stage, the reasons for those
    that are NaN, by their rows in the shard, and what is said of the rows beside their class. failed: as
    `_still_unreadable` gives them."""
    values = stored.read(slice(part.start, part.stop))
    reasons = {row - part.start: line for row, line in failed.items() if part.start <= row < part.stop}

    def compute_missing(stage: ExitStage, rows: np.ndarray) -> None:
        for block in _missing_blocks(part, rows, stage, stored, failed):
            logits, bad = compute(block, stage)
            for at, line in bad.items():
                row = int(block.rows[at])
                reasons[row - part.start] = reason(line, plan.files[row])
            for number, array in zip(block.numbers, logits, strict=True):
                values[number][:, block.rows - part.start] = array

    by_name = {(each.member, each.view): array for each, array in zip(stored.member_views, values, strict=True)}
    external = plan.external(part.start, part.stop)
    probabilities, exits = predict_with_exits(stages, len(part), by_name, reasons, compute_missing, external)
    logits: list[np.ndarray] = []
    if plan.certainty and len(stages) == 1:
        logits = [*members_of(plan.blend, by_name), *(array[None] for array in external)]
    features = by_name[FROZEN_PAIR][0] if FROZEN_PAIR in by_name else None
    columns = compute_columns(plan.certainty, plan.blend, probabilities, logits, reasons, features)
    return probabilities, exits, reasons, columns


def _missing_blocks(
    part: PredictionShard, rows: np.ndarray, stage: ExitStage, stored: StoredLogits, failed: Mapping[int, str]
) -> list[MissingBlock]:
    """What has to be computed of some rows of a shard, int64 (m,), for a stage: usually nothing, or all these rows
    under all member views that it adds."""
    # Of a blend of external members alone there are no views: an empty list would be of floats.
    added = np.array([(each.member, each.view) in stage.added for each in stored.member_views], dtype=bool)
    missing = stored.missing(slice(part.start, part.stop)) & added & np.isin(np.arange(len(part)), rows)[:, None]
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
    blocks: Iterable[MissingBlock],
    numbers: Collection[int],
    plan: PredictionPlan,
    stored: StoredLogits,
    networks: dict[str, "LoadedMember"],
    events: Events,
    advance: Callable[[float], None],
) -> Iterator[Computed]:
    """For each block what `compute_logits` gives. numbers: of all member views that blocks may lack. networks: those
    that are loaded, by member; each is loaded once, when the first block is asked for."""
    from ensemble.device import choose_device, keep_freed_memory
    from ensemble.inference.frozen import load_frozen
    from ensemble.tta.predictor import compute_logits, load_networks_of

    keep_freed_memory()
    names = dict.fromkeys(each.member for q, each in enumerate(stored.member_views) if q in numbers)
    lacking = {name: plan.networks[name] for name in names if name not in networks and name != FROZEN}
    networks |= load_networks_of(lacking, len(plan.blend.classes), events)
    if FROZEN in names and FROZEN not in networks:
        networks[FROZEN] = load_frozen(plan.run, choose_device())
    advance(0)
    chunks = (
        ([plan.files[row] for row in block.rows], tuple(stored.member_views[number] for number in block.numbers))
        for block in blocks
    )
    yield from compute_logits(networks, chunks, plan.batch_size, plan.on_bad, advance)


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

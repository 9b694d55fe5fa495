"""Several processes that share the shards of a prediction: each shard is predicted by one of them, and the last one to
leave removes them.

    predictions/.test-stack.claim-1                    held for a moment, by who begins, writes the result or leaves
    predictions/.test-stack/processes/.<name>.claim-1  held by each process that takes part, for as long as it does
    predictions/.test-stack/claims/.<digest>.claim-1   held by the process that predicts this shard

Nobody divides the work: whoever is free takes the next shard that no other process holds. A process that is lost loses
its claims (ensemble/files/claims.py), and another one takes its shard.
"""

import random
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ensemble.errors import RunFailure, UserError
from ensemble.events import Events
from ensemble.files import mirror
from ensemble.files.claims import Claim, ClaimLost, Taken, claimed, claimed_when_free, claims_in
from ensemble.plural import pluralize
from ensemble.predictions import shards
from ensemble.predictions.shards import PredictionShard
from ensemble.stop import safe_points

WAIT_SECONDS = 0.5  # between two looks at what other processes have finished, while there is nothing else to do
MARK = 16  # digits of a plan's digest, with which the names of its processes begin
LATE_SECONDS = 60.0  # that a file of another machine may take to be seen here
LOOK_SECONDS = 5.0  # between two looks while shards are predicted, for the progress

# A shard, its probabilities float32 (n, C), NaN in unreadable rows, for each of these rows of the shard the reason, and
# perhaps what else is known of the rows, (n, ...) by name.
PredictedShard = (
    tuple[PredictionShard, np.ndarray, dict[int, str]]
    | tuple[PredictionShard, np.ndarray, dict[int, str], dict[str, np.ndarray]]
)
# Predicts the shards that an iterator gives, in its order. Each is taken when it is asked for; a few may be asked for
# ahead of those that are given back.
Predict = Callable[[Iterator[PredictionShard]], Iterator[PredictedShard]]


@dataclass
class Rest:
    """The shards of a prediction that are not known to be finished, and what is known of the others.

    left: these shards, in their order
    total: how many there are of all
    classes: C
    on_bad: "error" or "skip": where unreadable images are an error, a shard of which an earlier call, or another
        process, has skipped some has to be predicted again
    unreadable: for each row of the finished ones that could not be read the reason
    found: told of each shard that another process has finished
    is_stopped: asked after each shard whether this process is to end, beside Ctrl-C
    taken: the claims on those that this process predicts, and what releases them
    """

    left: dict[PredictionShard, None]
    total: int
    classes: int
    on_bad: str
    unreadable: dict[int, str] = field(default_factory=dict)
    found: Callable[[PredictionShard], None] = lambda shard: None
    is_stopped: Callable[[], bool] = lambda: False
    taken: dict[PredictionShard, tuple[Claim, ExitStack]] = field(default_factory=dict)

    @property
    def done(self) -> int:
        return self.total - len(self.left)

    def finish(self, shard: PredictionShard, reasons: dict[int, str]) -> None:
        """Note that this process has finished a shard. reasons: by rows of all."""
        self.unreadable |= reasons
        del self.left[shard]

    def is_found(self, shard: PredictionShard) -> bool:
        """Whether another process has finished a shard, which is noted."""
        reasons = shards.unreadable_rows(shard, self.classes)
        if reasons is None or (reasons and self.on_bad == "error"):
            return False
        self.finish(shard, reasons)
        self.found(shard)
        return True

    def look(self) -> None:
        """Note what other processes have finished."""
        folders = {shard.path.parent for shard in self.left}
        for folder in folders:
            mirror.refresh(folder)
        there = {path.name for folder in filter(Path.is_dir, folders) for path in folder.iterdir()}
        for shard in [shard for shard in self.left if shard.path.name in there]:
            self.is_found(shard)

    def require_finished(self) -> None:
        """Raise RunFailure if a shard is not finished. To be called when other processes have predicted them; what one
        of another machine has written may take a minute to be seen (NFS)."""
        deadline = time.monotonic() + LATE_SECONDS
        while True:
            missing = [shard for shard in list(self.left) if not self.is_found(shard)]
            if not missing:
                return
            if time.monotonic() > deadline:
                raise RunFailure(
                    f"{missing[0].path}: is not there, although the processes that predict have ended; start the same "
                    "command again"
                )
            time.sleep(WAIT_SECONDS)


@contextmanager
def joined(folder: Path, lock: Path, plan: str, current: Sequence[PredictionShard], events: Events) -> Iterator[None]:
    """Take part in predicting the current shards of a plan (its digest). The first process removes what else lies in
    the folder, and the last one to leave the folder itself; it stays where the work inside raises, for the next start
    to go on from it."""

    def wait(taken: Taken) -> None:
        events.progress(f"waiting for {taken}", 0, 1)

    with ExitStack() as place:
        with claimed_when_free(lock, wait):
            (folder / "processes").mkdir(parents=True, exist_ok=True)
            others = _others(folder)
            if not others:
                shards.remove_others(folder, current, events)
            place.enter_context(taking_part(folder, plan))
        sharing = sum(name.startswith(f".{plan[:MARK]}") for name in others)
        if sharing:
            events.message(f"shares the shards with {pluralize(sharing, 'other process', 'other processes')}")
        if sharing < len(others):
            events.message(
                "another process predicts these images too, but by other networks, or with other versions or another "
                "kind of device: the two share no shards"
            )
        yield
    with claimed_when_free(lock, wait):
        if not _others(folder):
            shards.remove(folder)


@contextmanager
def taking_part(folder: Path, plan: str) -> Iterator[None]:
    """Let the shards lie in the folder for as long as this process needs them."""
    with claimed(folder / "processes" / f".{plan[:MARK]}.{secrets.token_hex(8)}.claim"):
        yield


def rest_of(parts: Sequence[PredictionShard], classes: int, on_bad: str, events: Events) -> Rest:
    """Which of the shards have to be predicted. Says how many do not, and which ones are damaged."""
    rest = Rest({}, len(parts), classes, on_bad)
    for shard in parts:
        is_there = shard.path.is_file()
        rest.left[shard] = None
        if not rest.is_found(shard) and is_there and shards.unreadable_rows(shard, classes) is None:
            events.message(f"{shard.path}: damaged; its rows are predicted again")
    if rest.done:
        events.message(f"resuming: {rest.done} of {len(parts)} shards are finished")
    return rest


def fill(rest: Rest, predict: Predict, events: Events) -> None:
    """Predict those shards that no other process holds, write each as soon as it is, and wait for the others.

    Raises UserError that names an image that can't be read, if it is not to be skipped.
    """

    def step() -> str | None:
        return f"shard {rest.done + 1} of {rest.total}" if rest.taken else None

    is_waiting = False
    try:
        with safe_points(step, lambda: f"{rest.done} of {rest.total} shards") as asked:
            while rest.left:
                holders: set[str] = set()
                has_filled = _fill_free(rest, predict, holders, asked)
                if has_filled or not rest.left:
                    is_waiting = False
                    continue
                if holders and not is_waiting:
                    count = pluralize(len(rest.left), "shard is", "shards are")
                    events.message(f"waiting: the last {count} being predicted by {', '.join(sorted(holders))}")
                    is_waiting = True
                time.sleep(WAIT_SECONDS)
                if rest.is_stopped():
                    raise KeyboardInterrupt
    except UserError as error:
        raise UserError(
            f"{error}; {rest.done} of {rest.total} shards are kept, and the same command then resumes (with --on-bad "
            "skip it leaves such images without a prediction)"
        ) from None


def _fill_free(rest: Rest, predict: Predict, holders: set[str], asked: Callable[[], bool]) -> bool:
    """Predict and write the shards that are free, one after the other. Returns whether there were any. holders: those
    of the other shards are added."""
    has_filled = False
    looked = time.monotonic()
    try:
        for shard, probabilities, reasons, *columns in predict(_free(rest, holders)):
            claim, release = rest.taken[shard]
            if _is_held(claim):  # else the process that took it over writes the same
                shards.write(shard, probabilities, reasons, *columns)
                rest.finish(shard, {shard.start + row: line for row, line in reasons.items()})
            has_filled = True
            del rest.taken[shard]
            release.close()
            if asked() or rest.is_stopped():
                raise KeyboardInterrupt
            if time.monotonic() - looked > LOOK_SECONDS:
                rest.look()
                looked = time.monotonic()
    finally:
        for _, release in rest.taken.values():
            release.close()
        rest.taken.clear()
    return has_filled


def _free(rest: Rest, holders: set[str]) -> Iterator[PredictionShard]:
    """Take one shard after the other of those that are left and free, each when it is asked for."""
    waiting = list(rest.left)[::-1]
    while waiting and not rest.is_stopped():
        shard = waiting.pop()
        if shard not in rest.left or rest.is_found(shard):
            continue
        claims = shard.path.parent / "claims"
        claims.mkdir(parents=True, exist_ok=True)  # again, where other processes that ended have removed all
        release = ExitStack()
        try:
            claim = release.enter_context(claimed(claims / f".{shard.path.stem}.claim"))
        except Taken as taken:
            if not holders:
                random.shuffle(waiting)  # so that not all processes ask for the same shards
            holders.add(str(taken))
            continue
        mirror.refresh_file(shard.path)
        if rest.is_found(shard):  # finished just before it was claimed
            release.close()
            continue
        rest.taken[shard] = claim, release
        yield shard


def _is_held(claim: Claim) -> bool:
    try:
        claim.require_held()
    except ClaimLost:
        return False
    return True


def _others(folder: Path) -> list[str]:
    """The names of the processes that take part and are not known to have died."""
    names = []
    for claim in claims_in(folder / "processes"):
        try:
            with claimed(claim):
                pass
        except Taken:
            names.append(claim.name)
    return names

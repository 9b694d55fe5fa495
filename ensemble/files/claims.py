"""Claims: which process works on something in a run directory, wherever several machines share that.

    fold0/.claim-1          who holds the fold: written once, by exclusive create
    fold0/.claim-1.<id>     a count that the holder raises every ten seconds, as long as it lives

No lock of the file system is used: NFS often has none that work. A claim of a process that has died on this machine is
taken over at once; any other when its count has stood still for a minute by the observer's own monotonic clock. Clocks
of two machines, and times of files, are never compared.

On an object store the exclusive create is a conditional put (If-None-Match).

A claim is not renamed or overwritten: who takes it over creates the next generation (.claim-2), of which there can be
one, looks again whether anything else has changed meanwhile, and removes the ones before. So a holder that was
suspended, and wakes, finds that its claim is gone, and writes nothing more (`require_held_at`, before each file gets
its name).
"""

import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ensemble.errors import RunFailure
from ensemble.files import shared
from ensemble.files.claim_files import (
    FoundClaim,
    claim_file,
    claim_text,
    count_file,
    read_claims,
    remove_claim,
)
from ensemble.files.mirror import refresh
from ensemble.files.process import is_here, is_known_dead, this_process

BEAT = 10.0  # seconds between two raises of the count
STALE = 60.0  # seconds for which the count stands still, until the claim is taken over
ATTEMPTS = 5  # to take what several processes try to take at the same moment
LONGEST_WAIT = 1.0  # seconds between two looks at a claim that is waited for

Clock = Callable[[], float]


class Taken(Exception):
    """The claim is held by another process, which the text names ("process 4242 on node3")."""


class ClaimLost(RunFailure):
    """Another process has taken the claim over."""


@dataclass(frozen=True)
class Claim:
    """A claim that a process holds. It may be pickled: a child of the holder can ask too whether it is held.

    path: what was claimed; the claim itself is the file of this name with its generation
    generation: 1, or more if it was taken over
    id: of the holder, never used twice
    """

    path: Path
    generation: int
    id: str

    @property
    def file(self) -> Path:
        return claim_file(self.path, self.generation)

    @property
    def count_file(self) -> Path:
        return count_file(self.path, self.generation, self.id)

    def holder(self, pauses: Sequence[float] | None = None) -> str | None:
        """Who has taken it over, in words; None while it is held. pauses: see `ensemble.files.shared`."""
        found = read_claims(self.path, pauses)
        if found and found[-1].generation == self.generation and found[-1].id == self.id:
            return None
        return str(found[-1]) if found else "another process, which has ended"

    def require_held(self) -> None:
        """Raise ClaimLost, a RunFailure, if another process has taken the claim over meanwhile."""
        holder = self.holder()
        if holder is not None:
            raise ClaimLost(
                f"{self.path.parent}: was taken over by {holder}, since this process gave no sign of life for "
                f"{STALE:.0f} seconds (was it suspended?); it writes nothing more there"
            )


_ids: set[str] = set()  # of the claims that this process holds or takes
_held: list[Claim] = []  # by this process, or by the one that it was forked from
_seen: dict[Path, tuple[FoundClaim, float]] = {}  # claims of others, and since when they are seen unchanged


@contextmanager
def claimed(path: Path, beat: float = BEAT, stale: float = STALE, clock: Clock = time.monotonic) -> Iterator[Claim]:
    """Hold the claim `path`, a name in a folder that is there. While it is held, what this process writes in that
    folder gets its name only if the claim wasn't lost (`ensemble.files.atomic`).

    beat, stale: seconds between two signs of life, and without one until the claim is taken over
    clock: in seconds, never set back; of this process

    Raises Taken at once if another process holds it, OSError if the folder can't be written.
    """
    with _holding(_take(path, stale, clock), beat) as claim:
        yield claim


@contextmanager
def claimed_when_free(
    path: Path,
    on_wait: Callable[[Taken], object] = lambda taken: None,
    beat: float = BEAT,
    stale: float = STALE,
    clock: Clock = time.monotonic,
) -> Iterator[Claim]:
    """As `claimed`, but wait until the claim is free. on_wait: is told, again and again, who holds it."""
    pause = 0.02
    while True:
        try:
            claim = _take(path, stale, clock)
            break
        except Taken as taken:
            on_wait(taken)
            time.sleep(pause)
            pause = min(LONGEST_WAIT, 1.5 * pause)
    with _holding(claim, beat):
        yield claim


@contextmanager
def claimed_by_parent(claim: Claim) -> Iterator[None]:
    """Hold what this process writes meanwhile to a claim of the process that started it, as that one's writes are."""
    _held.append(claim)
    try:
        yield
    finally:
        _held.remove(claim)


def claims_in(folder: Path) -> list[Path]:
    """What is claimed in a folder, by processes that may have died."""
    names = shared.contents(folder, lambda name: re.fullmatch(r".*-\d+", name) is not None)
    return [folder / name for name in sorted({name.rpartition("-")[0] for name in names})]


def holder_of(path: Path) -> str | None:
    """Who holds a claim, in words; None if nobody does."""
    found = read_claims(path)
    return str(found[-1]) if found else None


def free_abandoned(
    paths: Iterable[Path],
    wait: Callable[[float], None] = time.sleep,
    stale: float = STALE,
    clock: Clock = time.monotonic,
) -> None:
    """Free those of these claims whose holders have died, wherever they were. Waits until that is known: no longer than
    a beat for holders that live on other machines, `stale` seconds for those that have died there. wait: for so many
    seconds."""
    first = {path: read_claims(path)[-1:] for path in paths}
    unknown = [path for path, found in first.items() if found]
    while unknown:
        unknown = [path for path in unknown if _is_unknown(path, first[path][0], stale, clock)]
        if unknown:
            wait(LONGEST_WAIT)


def require_held_at(path: Path) -> None:
    """Raise ClaimLost if this process has lost a claim in a folder above the file `path`."""
    for claim in tuple(_held):
        if path.is_relative_to(claim.path.parent):
            claim.require_held()


def _is_unknown(path: Path, first: FoundClaim, stale: float, clock: Clock) -> bool:
    try:
        with claimed(path, stale=stale, clock=clock):
            return False  # it was free, or is now
    except Taken:
        if first.process is not None and is_here(first.process):
            return False  # and lives: that is known at once
        return read_claims(path)[-1:] == [first]
    except OSError:
        return False


def _take(path: Path, stale: float, clock: Clock) -> Claim:
    for _ in range(ATTEMPTS):
        before = read_claims(path)
        if before and not _is_abandoned(path, before[-1], stale, clock):
            raise Taken(str(before[-1]))
        claim = Claim(path, before[-1].generation + 1 if before else 1, os.urandom(8).hex())
        _ids.add(claim.id)
        if not shared.create(claim.file, claim_text(claim.id)):
            _ids.discard(claim.id)
            continue  # another process was faster: who, is read next
        if _stands(claim, before):
            for found in before:
                remove_claim(path, found.generation, found.id)
            return claim
        remove_claim(path, claim.generation, claim.id)
        _ids.discard(claim.id)
        time.sleep(random.uniform(0, 0.02))  # the others retreat too, and one of them is the first to be back
    raise Taken("another process, which takes it at this moment")


def _stands(claim: Claim, before: list[FoundClaim]) -> bool:
    """Whether a claim, just created, counts: nothing has appeared or changed since `before` was found abandoned. Of two
    processes that create claims of two generations at once, the second one to look sees both."""
    others = [found for found in read_claims(claim.path) if found.id != claim.id]
    return all(found in before for found in others)


def _is_abandoned(path: Path, found: FoundClaim, stale: float, clock: Clock) -> bool:
    if found.process is not None and is_known_dead(found.process):
        return True
    if found.process == this_process() and found.id not in _ids:  # it could not be given back: the store was gone
        return True
    now = clock()
    before, since = _seen.get(path, (None, now))
    if before != found:
        _seen[path] = (found, now)
        return False
    return now - since >= stale


@contextmanager
def _holding(claim: Claim, beat: float) -> Iterator[Claim]:
    process, ended = os.getpid(), threading.Event()
    beating = threading.Thread(target=_beat, args=(claim, ended, beat), name=f"claim {claim.path}", daemon=True)
    beating.start()
    _held.append(claim)
    try:
        refresh(claim.path.parent, claim.path.name)  # another machine may have worked here; this may take minutes
        yield claim
    finally:
        if os.getpid() == process:  # a child that was forked meanwhile holds nothing
            ended.set()
            beating.join()
            _held.remove(claim)
            _ids.discard(claim.id)
            with suppress(OSError):
                if claim.holder(()) is None:
                    remove_claim(claim.path, claim.generation, claim.id, ())
                else:
                    shared.delete(claim.count_file, ())


def _beat(claim: Claim, ended: threading.Event, beat: float) -> None:
    count = 0
    while not ended.wait(beat):
        count += 1
        with suppress(OSError):  # of a network that is gone for a while: the next beat tries again
            if claim.holder(()) is not None:
                shared.delete(claim.count_file, ())
                return
            shared.write(claim.count_file, str(count).encode(), ())

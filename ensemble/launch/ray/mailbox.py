"""What happens in the workers, on its way to the driver: an actor that holds a limited number of events.

The outcome of a job goes another way, so that nothing but words are lost with the mailbox, and no job waits for it.
"""

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ensemble.run.shapes import Epoch

MOST_EVENTS = 10_000  # that are kept until the driver takes them; older ones are dropped
SECONDS = 0.2  # between two batches of a worker
LAST_SECONDS = 5.0  # how long a worker waits at the end of a job until its last events have arrived
STATM = Path("/proc/self/statm")

Event = tuple[int, str, tuple[Any, ...]]  # number of the task, name of the method of `Events`, its arguments


class Mailbox:
    """An actor. Of the progress of a task it keeps only the last one."""

    def __init__(self) -> None:
        self.events: deque[Event] = deque(maxlen=MOST_EVENTS)
        self.progress: dict[int, Event] = {}

    def put(self, events: list[Event]) -> None:
        for event in events:
            if event[1] == "progress":
                self.progress[event[0]] = event
            else:
                self.events.append(event)

    def take(self) -> list[Event]:
        """All events that have come since the last call."""
        taken = [*self.events, *self.progress.values()]
        self.events.clear()
        self.progress.clear()
        return taken


@dataclass
class Sender:
    """The `Events` of a job in a worker, sent in batches from a thread of its own.

    box: the mailbox, as Ray knows it.
    number: of the task.
    peak: the most bytes of memory that this process alone has had meanwhile; 0 where the system doesn't tell.
    """

    box: Any
    number: int
    peak: int = 0
    _local: Mailbox = field(default_factory=Mailbox)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _sent: Future[None] | None = None  # the last batch. By ray.wait a task would give its CPU back meanwhile
    _is_over: threading.Event = field(default_factory=threading.Event)

    def message(self, line: str) -> None:
        self._add("message", line)

    def progress(self, text: str, done: float, total: float) -> None:
        self._add("progress", text, done, total)

    def epoch_finished(self, member: str, fold: int, epoch: Epoch) -> None:
        self._add("epoch_finished", member, fold, epoch)

    def job_finished(self, member: str, fold: int, seconds: float, error: str | None) -> None:
        self._add("job_finished", member, fold, seconds, error)

    def began(self, node: str) -> None:
        """Say on which node the task runs."""
        self._add("began", node)

    def _add(self, kind: str, *words: Any) -> None:
        with self._lock:
            self._local.put([(self.number, kind, words)])

    def _send(self) -> None:
        """Send what there is, unless the last batch is still on its way: nothing piles up where nobody takes it."""
        if self._sent is not None and not self._sent.done():
            return
        with self._lock:
            events = self._local.take()
        self._sent = self.box.put.remote(events).future() if events else None

    def _work(self) -> None:
        while not self._is_over.wait(SECONDS):
            self.peak = max(self.peak, memory())
            with suppress(Exception):  # whatever has become of the mailbox, the job goes on
                self._send()


@contextmanager
def sending(box: Any, number: int) -> Iterator[Sender]:
    """The events of a task; at the end all have arrived, if the mailbox answers."""
    sender = Sender(box, number)
    thread = threading.Thread(target=sender._work, daemon=True)
    thread.start()
    try:
        yield sender
    finally:
        sender._is_over.set()
        thread.join()
        sender.peak = max(sender.peak, memory())
        with suppress(Exception):
            for _ in range(2):  # one batch may be on its way, and another wait for it
                if sender._sent is not None:
                    wait([sender._sent], timeout=LAST_SECONDS)
                sender._send()
            if sender._sent is not None:
                wait([sender._sent], timeout=LAST_SECONDS)


def memory() -> int:
    """Bytes in memory that this process shares with no other and no file; 0 where the system doesn't tell."""
    try:
        _, resident, shared, *_ = map(int, STATM.read_text().split())
    except (OSError, ValueError):
        return 0
    return (resident - shared) * _page_size()


def _page_size() -> int:
    import resource

    return resource.getpagesize()

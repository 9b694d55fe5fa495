"""A tracker's thread: it opens the tracker when there is something to send, and ends with the first failure."""

import queue
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from ensemble.errors import UserError
from ensemble.events import Events
from ensemble.files import mirror
from ensemble.files.claims import Taken, claimed
from ensemble.run import Run
from ensemble.run.shapes import Epoch
from ensemble.trackers.opened import Opened, Start, Status
from ensemble.trackers.sent import Sent, read_sent, unsent
from ensemble.trackers.settings import Settings
from ensemble.trackers.table import TRACKERS, require_installed

LONGEST_WAIT = 30.0  # seconds at the end of a command for what a tracker has not taken yet


@dataclass(frozen=True)
class Link:
    """A run of a tracker that is open, and that no other process sends to. sent: what it was sent so far."""

    opened: Opened
    sent: Sent

    def send(self, series: str, number: int, line: Epoch) -> None:
        """Send an epoch, unless it was sent before. It is noted first: an epoch that is lost when the process is killed
        at this moment is better than one that is there twice."""
        before = self.sent.epochs.get(series, 0)
        if number <= before:
            return
        values = {key: float(value) for key, value in line.items() if isinstance(value, int | float) and key != "epoch"}
        self.sent.epochs[series] = number
        try:
            self.log(series, number, values)
        except Exception:
            self.sent.note(series, before)
            raise

    def log(self, series: str, step: int, values: Mapping[str, float]) -> None:
        """Send values. They are counted first: of a count that is too small, wandb would drop what comes next."""
        self.sent.logged += 1
        self.sent.store()
        self.opened.log(series, step, values)


Task = Callable[[Link], None]


@dataclass
class Sender:
    """Sends a run to a tracker, from a thread of its own.

    run: need not be there before the first task.
    name: of the tracker.
    events: is told, once, if the tracker fails.
    """

    run: Run
    name: str
    events: Events
    _status: Status = "finished"
    _tasks: "queue.SimpleQueue[Task | None]" = field(default_factory=queue.SimpleQueue)
    _thread: threading.Thread | None = None

    def put(self, task: Task | None) -> None:
        """Have something sent; None: what is missing, and nothing more. Returns at once."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=f"tracker {self.name}", daemon=True)
            self._thread.start()
        self._tasks.put(task)

    def end(self, status: Status) -> None:
        """Have all that is missing sent, and the tracker's run closed."""
        self._status = status
        self.put(None)

    def wait(self) -> None:
        """Wait for that, though not for long."""
        assert self._thread is not None
        self._thread.join(LONGEST_WAIT)
        if self._thread.is_alive():
            self.events.message(f"{self.name}: has not answered for {LONGEST_WAIT:.0f} seconds; {self._later()}")

    def _work(self) -> None:
        try:
            with ExitStack() as stack:
                link: Link | None = None
                while (task := self._tasks.get()) is not None:
                    link = link or self._open(stack)
                    task(link)
                if link is not None:
                    send_unsent(self.run, link)
                elif unsent(self.run, read_sent(self.run, self.name)):
                    self._open(stack)
        except Taken as taken:
            self.events.message(f"{self.name}: {taken} sends this run to it; nothing is sent from here")
        except Exception as error:  # trackers raise whatever their libraries do
            self.events.message(f"{self.name}: {_first_line(error)}; {self._later()}")

    def _later(self) -> str:
        return f"the epochs that it lacks are sent by the next ens train-folds or ens blend of {self.run}"

    def _open(self, stack: ExitStack) -> Link:
        """Claim the tracker's run and open it, and send what it lacks."""
        require_installed([self.name])
        path = self.run.tracker_json(self.name)
        path.parent.mkdir(exist_ok=True)
        stack.enter_context(claimed(path.with_name(f".{self.name}.claim")))
        sent, settings = read_sent(self.run, self.name), Settings.of(self.run)
        is_local = mirror.url_of(self.run.path) is None  # an object store takes no files that grow
        start = Start(
            name=self.run.path.name,
            project=settings.project,
            folder=self.run.path if is_local else Path.cwd() / self.run.path.name,
            id=sent.id,
            logged=sent.logged,
            settings=settings.values,
        )
        try:
            opened = TRACKERS[self.name](start)
        except Exception as error:
            if sent.id is None:
                raise
            again = f"if its run {sent.id} was deleted there, delete {path} to begin another"
            raise UserError(f"{_first_line(error)}; {again}") from error
        stack.callback(lambda: opened.close(self._status))
        sent.id = opened.id
        sent.store()
        link = Link(opened, sent)
        send_unsent(self.run, link)
        return link


def send_unsent(run: Run, link: Link) -> None:
    """Send the epochs of finished folds that the tracker lacks."""
    for series, number, line in unsent(run, link.sent):
        link.send(series, number, line)


def _first_line(error: Exception) -> str:
    text = next(iter(str(error).strip().splitlines()), "")
    if isinstance(error, UserError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__

"""What happens while ens works, for whoever wants to know: a progress bar, a log, --json, an experiment tracker.

Every function that takes long takes one `Events`. A listener is any object with these methods; they may be called from
several threads.
"""

from dataclasses import dataclass
from typing import Protocol

from ensemble.run.shapes import Epoch


class Events(Protocol):
    """Listens to work as it goes on."""

    def message(self, line: str) -> None:
        """A line for the reader: what was found, decided, or is wrong."""

    def progress(self, text: str, done: float, total: float) -> None:
        """How far the step called `text` is. A step is over when `done` falls or `total` changes."""

    def epoch_finished(self, member: str, fold: int, epoch: Epoch) -> None:
        """A fold finished an epoch of training; `epoch` is its line in log.jsonl."""

    def job_finished(self, member: str, fold: int, seconds: float, error: str | None) -> None:
        """A backbone x fold job ended. seconds: of training. error: why it failed; None if it is done."""


@dataclass(frozen=True)
class Silent:
    """Listens to nothing.

    >>> ens.Silent().message("Nobody hears this.")
    """

    def message(self, line: str) -> None:
        pass

    def progress(self, text: str, done: float, total: float) -> None:
        pass

    def epoch_finished(self, member: str, fold: int, epoch: Epoch) -> None:
        pass

    def job_finished(self, member: str, fold: int, seconds: float, error: str | None) -> None:
        pass


SILENT = Silent()


@dataclass(frozen=True)
class MessagesOnly:
    """Passes messages on to a listener, and nothing else."""

    listener: Events

    def message(self, line: str) -> None:
        self.listener.message(line)

    def progress(self, text: str, done: float, total: float) -> None:
        pass

    def epoch_finished(self, member: str, fold: int, epoch: Epoch) -> None:
        pass

    def job_finished(self, member: str, fold: int, seconds: float, error: str | None) -> None:
        pass


@dataclass(frozen=True)
class Several:
    """Passes everything on to each of its listeners, in their order."""

    listeners: tuple[Events, ...]

    def message(self, line: str) -> None:
        for listener in self.listeners:
            listener.message(line)

    def progress(self, text: str, done: float, total: float) -> None:
        for listener in self.listeners:
            listener.progress(text, done, total)

    def epoch_finished(self, member: str, fold: int, epoch: Epoch) -> None:
        for listener in self.listeners:
            listener.epoch_finished(member, fold, epoch)

    def job_finished(self, member: str, fold: int, seconds: float, error: str | None) -> None:
        for listener in self.listeners:
            listener.job_finished(member, fold, seconds, error)

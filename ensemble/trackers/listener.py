"""Training, as a tracker hears it: every epoch of every fold, and why one failed."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from ensemble.errors import UserError
from ensemble.events import Events, Several
from ensemble.run import Run
from ensemble.run.shapes import Epoch
from ensemble.trackers.opened import Status
from ensemble.trackers.sending import Link, Sender
from ensemble.trackers.sent import numbered, series_of
from ensemble.trackers.table import require_installed


@contextmanager
def tracked(run: Run, names: Sequence[str], events: Events) -> Iterator[Events]:
    """Yield `events`, joined by the trackers of these names: each is sent what is told to them.

    The run need not be there yet. At the end each tracker is also sent what it lacks of finished folds. Raises
    UserError if a tracker is not installed; one that fails later costs a line.
    """
    if not names:
        yield events
        return
    require_installed(names)
    senders = [Sender(run, name, events) for name in dict.fromkeys(names)]
    status: Status = "failed"
    try:
        yield Several((events, _Listener(run, senders)))
        status = "finished"
    except KeyboardInterrupt:
        status = "stopped"
        raise
    finally:
        for sender in senders:
            sender.end(status)
        for sender in senders:
            sender.wait()


@dataclass(frozen=True)
class _Listener:
    run: Run
    senders: Sequence[Sender]

    def message(self, line: str) -> None:
        pass

    def progress(self, text: str, done: float, total: float) -> None:
        pass

    def epoch_finished(self, member: str, fold: int, epoch: Epoch) -> None:
        for sender in self.senders:
            sender.put(partial(_send_epoch, self.run, member, fold, epoch))

    def job_finished(self, member: str, fold: int, seconds: float, error: str | None) -> None:
        if error is None:
            return
        for sender in self.senders:
            sender.put(partial(_send_error, series_of(member, fold), error))


def _send_epoch(run: Run, member: str, fold: int, epoch: Epoch, link: Link) -> None:
    """Send an epoch, and those before it that the tracker lacks."""
    series, last = series_of(member, fold), epoch.get("epoch", 1)
    before = link.sent.epochs.get(series, 0)
    if last > before + 1:
        try:
            lines = run.member(member).fold(fold).read_log()
        except (UserError, FileNotFoundError):  # it is written at this moment: they are sent when the fold is done
            return
        for number, line in numbered(lines[: last - 1], before):
            link.send(series, number, line)
    link.send(series, last, epoch)


def _send_error(series: str, error: str, link: Link) -> None:
    link.opened.note(f"{series}/error", error)

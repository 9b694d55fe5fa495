"""What a Python session hears of the work where it passes no `Events` of its own: printed lines and a progress bar."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ensemble.bar import progress_bar
from ensemble.escape import escaped
from ensemble.events import Events
from ensemble.progress import ProgressCallback
from ensemble.run.shapes import Epoch
from ensemble.terminal import print_line


@dataclass(frozen=True)
class Printed:
    """Prints messages on stdout, as the commands do.

    progress: the live bar, as `Events.progress`.
    """

    progress: ProgressCallback

    def message(self, line: str) -> None:
        print_line(escaped(line))

    def epoch_finished(self, member: str, fold: int, epoch: Epoch) -> None:
        pass

    def job_finished(self, member: str, fold: int, seconds: float, error: str | None) -> None:
        pass


@contextmanager
def listening(events: Events | None) -> Iterator[Events]:
    """Yield `events` or, for None, what prints."""
    if events is not None:
        yield events
        return
    with progress_bar() as progress:
        yield Printed(progress)

"""What a tracker was sent of a run, in RUN/.trackers/NAME.json: to send nothing twice, and what is missing later."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import NotRequired

from typing_extensions import TypedDict

from ensemble.errors import UserError
from ensemble.files.reading import Count, read_json
from ensemble.files.sealed import write_json
from ensemble.run import Run
from ensemble.run.shapes import Epoch


class Stored(TypedDict):
    """RUN/.trackers/NAME.json."""

    id: str
    epochs: dict[str, Count]
    logged: NotRequired[Count]  # older ones count the epochs alone


@dataclass
class Sent:
    """What a tracker was sent.

    path: where this is kept.
    id: of the tracker's run; None before there is one.
    epochs: by series ("resnet/fold0") the last epoch.
    logged: how many times values were sent, of epochs and of blends.
    """

    path: Path
    id: str | None = None
    epochs: dict[str, int] = field(default_factory=dict)
    logged: int = 0

    def store(self) -> None:
        """Keep it in the run."""
        write_json(self.path, {"id": self.id, "epochs": self.epochs, "logged": self.logged})

    def note(self, series: str, epoch: int) -> None:
        """Keep that the series was sent as far as this epoch."""
        self.epochs[series] = epoch
        self.store()


def series_of(member: str, fold: int) -> str:
    return f"{member}/fold{fold}"


def read_sent(run: Run, tracker: str) -> Sent:
    """What a tracker was sent so far. Raises UserError that names the file, if it can't be read."""
    path = run.tracker_json(tracker)
    if not path.is_file():
        return Sent(path)
    stored = read_json(path, Stored, f"delete it to begin another run of {tracker}")
    epochs = dict(stored["epochs"])
    return Sent(path, stored["id"], epochs, stored.get("logged", sum(epochs.values())))


def unsent(run: Run, sent: Sent) -> list[tuple[str, int, Epoch]]:
    """(series, epoch, line of the log) of the finished folds that were not sent: other processes have trained them, or
    the tracker could not be reached. Those whose files can't be read are left to the command that finds them damaged.
    """
    found = []
    for member in map(run.member, run.member_names()):
        for fold in member.folds():
            series = series_of(member.name, fold.number)
            try:
                lines = fold.read_log() if fold.is_done() else []
            except (UserError, FileNotFoundError):
                continue
            found += [(series, number, line) for number, line in numbered(lines, sent.epochs.get(series, 0))]
    return found


def numbered(lines: list[Epoch], before: int) -> list[tuple[int, Epoch]]:
    """The lines of a log with their epochs, from 1, of those after `before`. A probe's one line counts as one."""
    return [(number, line) for number, line in enumerate(lines, 1) if number > before]

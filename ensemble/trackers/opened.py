"""What a tracker is given to open a run of its own, and what it then offers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Status = Literal["finished", "failed", "stopped"]  # how a command ended


@dataclass(frozen=True)
class Start:
    """A run of ens, for a tracker.

    name: of the run, without its folder.
    project: what the tracker files it under.
    folder: where the tracker may keep files of its own.
    id: of the tracker's run; None: it makes a new one.
    logged: how many times earlier commands called `Opened.log` for this run.
    settings: of the experiment, by dotted keys.
    """

    name: str
    project: str
    folder: Path
    id: str | None
    logged: int
    settings: Mapping[str, str]


@dataclass(frozen=True)
class Opened:
    """A run of a tracker that is open. All of it may raise whatever the tracker's library raises.

    id: of the run, by which it is opened again.
    log: (series, step, values by name): of a series such as "resnet/fold0", at an epoch.
    note: (name, text).
    keep: a copy of a file; None: the tracker takes no files.
    close: let go of it, when all that it was sent is stored.
    """

    id: str
    log: Callable[[str, int, Mapping[str, float]], None]
    note: Callable[[str, str], None]
    keep: Callable[[Path], None] | None
    close: Callable[[Status], None]

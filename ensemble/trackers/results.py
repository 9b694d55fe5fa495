"""What a run gives in the end: the scores of its blends, and its report."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ensemble.events import Events
from ensemble.run import Run
from ensemble.scoring.bootstrap import Score
from ensemble.trackers.settings import Settings

if TYPE_CHECKING:
    from ensemble.trackers.sending import Link


def log_blend(run: Run, name: str, scores: Mapping[str, Score], events: Events) -> None:
    """Send the scores of a blend, with the ends of their intervals, to the trackers that the run's experiment names."""
    values: dict[str, float] = {}
    for metric, score in scores.items():
        values |= {metric: score.value, f"{metric}_low": score.low, f"{metric}_high": score.high}
    _send(run, events, lambda link: link.log(f"blends/{name}", 0, values))


def log_report(run: Run, path: Path, events: Events) -> None:
    """Send the page of `ens report` to those trackers that take files."""

    def keep(link: "Link") -> None:
        if link.opened.keep is not None:
            link.opened.keep(path)

    _send(run, events, keep)


def _send(run: Run, events: Events, task: "Callable[[Link], None]") -> None:
    names = Settings.of(run).to
    if not names:
        return
    from ensemble.trackers.sending import Sender

    senders = [Sender(run, name, events) for name in names]
    for sender in senders:
        sender.put(task)
        sender.end("finished")
    for sender in senders:
        sender.wait()

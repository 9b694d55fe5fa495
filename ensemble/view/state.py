"""How far a run is, as the page shows it: a document of plain values, from the run's files alone."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf, isfinite
from statistics import fmean, median, stdev
from typing import Any

from ensemble.blend.oof import Rows, read_rows
from ensemble.config import Config, load_config, train_settings
from ensemble.errors import UserError
from ensemble.run import Member, Run
from ensemble.run.shapes import Epoch
from ensemble.view.folds import FoldProgress, FoldWatcher
from ensemble.view.messages import last_messages

SHOWN = ("epoch", "loss", "lr", "held_out_log_loss", "held_out_accuracy", "images_per_second", "seconds")


@dataclass(frozen=True)
class MemberProgress:
    """How far a member is.

    name: of the member.
    epochs: how many each of its folds takes.
    is_prepared: whether a process prepares it now.
    folds: the progress of each.
    keeps_best: whether a fold keeps the epoch of the least held-out log loss, and not the last.
    """

    name: str
    epochs: int
    is_prepared: bool
    folds: Sequence[FoldProgress]
    keeps_best: bool = False


@dataclass
class RunWatcher:
    """Reads how far a run is, again and again."""

    run: Run
    watcher: FoldWatcher = field(default_factory=FoldWatcher)
    _rows: Rows | None = None

    def rows(self) -> Rows:
        """The run's rows, which stay as they are while it trains. Raises UserError as `read_rows` does."""
        if self._rows is None:
            self._rows = read_rows(self.run)
        return self._rows

    def state(self) -> dict[str, Any]:
        """What the page shows. Raises UserError where the run's folds can't be read."""
        self.run.refresh()
        rows = self.rows()
        fold_count = int(rows.folds.max()) + 1
        config = _config(self.run)
        members = [self._member(name, config, fold_count) for name in _names(self.run, config)]
        folds = [fold for member in members for fold in member.folds]
        counts = {state: sum(fold.state == state for fold in folds) for state in ("done", "training", "failed")}
        return {
            "run": self.run.path.name,
            "images": len(rows.ids),
            "classes": len(rows.classes),
            "folds": fold_count,
            "jobs": {"all": len(folds), **counts},
            "seconds_left": seconds_left(members),
            "members": [_plain(member) for member in members],
            "messages": last_messages(self.run),
        }

    def _member(self, name: str, config: Config | None, fold_count: int) -> MemberProgress:
        member = self.run.member(name)
        folds = [self.watcher.look(member.fold(number)) for number in range(fold_count)]
        is_prepared = self.watcher.is_worked_on(member.claim_file)
        return MemberProgress(name, _epochs(member, config), is_prepared, folds, _keeps_best(member))


def seconds_left(members: Sequence[MemberProgress]) -> float | None:
    """Seconds until all folds are done, where those in training go on side by side; None if none trains, or no epoch is
    over yet. A member that has no epoch yet is taken to be as fast as the mean of the others."""
    paces = {}
    for member in members:
        seconds = [line["seconds"] for fold in member.folds for line in fold.log if "seconds" in line]
        if seconds:
            paces[member.name] = median(seconds)
    at_once = sum(fold.state == "training" for member in members for fold in member.folds)
    if not paces or not at_once:
        return None
    mean = fmean(paces.values())
    left = sum(
        (member.epochs - len(fold.log)) * paces.get(member.name, mean)
        for member in members
        for fold in member.folds
        if fold.state not in ("done", "failed", "damaged")
    )
    return max(left, 0.0) / at_once


def _config(run: Run) -> Config | None:
    try:
        return load_config(run.config_toml)
    except UserError:
        return None


def _names(run: Run, config: Config | None) -> list[str]:
    """The members in the order of the experiment, then those that were added later."""
    named = [backbone.name for backbone in config.backbone] if config is not None else []
    return list(dict.fromkeys([*named, *run.member_names()]))


def _epochs(member: Member, config: Config | None) -> int:
    """That each fold takes; a probe has one."""
    try:
        if member.settings_json.is_file():
            settings = member.read_settings()
            return 1 if settings.get("strategy") == "probe" else settings.get("epochs", 1)
    except UserError:
        pass
    for backbone in config.backbone if config is not None else ():
        if config is not None and backbone.name == member.name:
            chosen = train_settings(config, backbone)
            return 1 if chosen.strategy == "probe" else chosen.epochs
    return 1


def _keeps_best(member: Member) -> bool:
    try:
        return member.is_optimistic()
    except UserError:
        return False


def _plain(member: MemberProgress) -> dict[str, Any]:
    folds = [
        {
            "fold": each.fold,
            "state": each.state,
            "accuracy": _fold_accuracy(each, member.keeps_best),
            "log": [_line(*line) for line in enumerate(each.log, 1)],
        }
        for each in member.folds
    ]
    return {
        "name": member.name,
        "epochs": member.epochs,
        "preparing": member.is_prepared,
        "accuracy": _accuracy(member),
        "folds": folds,
    }


def _accuracy(member: MemberProgress) -> dict[str, float | None] | None:
    """Mean and standard deviation over the finished folds, and how many they are."""
    found = [_fold_accuracy(fold, member.keeps_best) for fold in member.folds]
    scores = [score for score in found if score is not None]
    if not scores:
        return None
    return {"mean": fmean(scores), "std": stdev(scores) if len(scores) > 1 else None, "folds": len(scores)}


def _fold_accuracy(fold: FoldProgress, keeps_best: bool) -> float | None:
    """On the held-out rows, of the epoch that a finished fold kept; None where that was not scored."""
    if fold.state != "done" or not fold.log:
        return None
    kept = min(fold.log, key=_held_out_log_loss) if keeps_best else fold.log[-1]
    return kept.get("held_out_accuracy")


def _held_out_log_loss(line: Epoch) -> float:
    return line.get("held_out_log_loss", inf)


def _line(number: int, line: Epoch) -> dict[str, float | None]:
    """An epoch; a loss that went wrong is null, since JSON has no number for it."""
    shown = {key: value for key, value in line.items() if key in SHOWN and isinstance(value, int | float)}
    return {"epoch": number} | {key: value if isfinite(value) else None for key, value in shown.items()}

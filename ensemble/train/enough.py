"""How many epochs would have been enough, from what the logs say of the held-out rows."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from ensemble import rundir


def enough_epochs(run: Path, member: str) -> str | None:
    """A line, or None if the member is not finished or its epochs were not looked at.

    The held-out log loss after e epochs is compared with that at the end, paired over the folds: the fewest epochs that
    are not worse by more than one standard error would have been enough. (The learning rate falls over all epochs; a
    schedule for fewer falls earlier, and so reaches that score sooner rather than later.)
    """
    folds = rundir.folds_of(run, member)
    done = [fold for fold in folds if rundir.is_done(rundir.fold_dir(run, member, fold))]
    if len(done) < len(folds) or len(folds) < 2:
        return None
    logs = [_held_out(rundir.log_file(rundir.fold_dir(run, member, fold))) for fold in folds]
    epochs = sorted(set.intersection(*(set(log) for log in logs)))
    if len(epochs) < 2:
        return None
    losses = np.array([[log[epoch] for epoch in epochs] for log in logs])  # (K, looks)
    worse = losses - losses[:, -1:]
    error = worse.std(axis=0, ddof=1) / np.sqrt(len(logs))
    first = int(np.argmax(worse.mean(axis=0) <= error))  # the last one is equal to itself
    at, last = losses[:, first].mean(), losses[:, -1].mean()
    if epochs[first] == epochs[-1]:
        return (
            f"{member}: all {epochs[-1]} epochs were of use: held-out log loss {losses[:, -2].mean():.3f} after "
            f"{epochs[-2]}, {last:.3f} at the end; more may help"
        )
    return (
        f"{member}: {epochs[first]} of {epochs[-1]} epochs would have been enough: held-out log loss {at:.3f} then, "
        f"{last:.3f} at the end (the difference's standard error is {error[first]:.3f})"
    )


def _held_out(log: Path) -> dict[int, float]:
    lines: list[dict[str, Any]] = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return {line["epoch"]: line["held_out_log_loss"] for line in lines if {"epoch", "held_out_log_loss"} <= set(line)}

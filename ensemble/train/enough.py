"""How many epochs would have been enough, from what the logs say of the held-out rows."""

import numpy as np

from ensemble.errors import UserError
from ensemble.run import Fold, Member


def enough_epochs(member: Member) -> str | None:
    """A line, or None if the member is not finished or its epochs were not scored.

    The held-out log loss after e epochs is compared with that at the end, paired over the folds: the fewest epochs that
    are not worse by more than one standard error would have been enough. (The learning rate falls over all epochs; a
    schedule for fewer falls earlier, and so reaches that score sooner rather than later.)
    """
    folds = member.folds()
    if len(folds) < 2 or not all(fold.is_done() for fold in folds):
        return None
    try:
        logs = [_held_out(fold) for fold in folds]
    except UserError:  # a damaged log costs this line alone
        return None
    epochs = sorted(set.intersection(*(set(log) for log in logs)))
    if len(epochs) < 2:
        return None
    losses = np.array([[log[epoch] for epoch in epochs] for log in logs])  # (K, scored epochs)
    worse = losses - losses[:, -1:]
    error = worse.std(axis=0, ddof=1) / np.sqrt(len(logs))
    first = int(np.argmax(worse.mean(axis=0) <= error))  # the last one is equal to itself
    at, last = losses[:, first].mean(), losses[:, -1].mean()
    if epochs[first] == epochs[-1]:
        return (
            f"{member.name}: all {epochs[-1]} epochs were of use: held-out log loss {losses[:, -2].mean():.3f} after "
            f"{epochs[-2]}, {last:.3f} at the end; more may help"
        )
    return (
        f"{member.name}: {epochs[first]} of {epochs[-1]} epochs would have been enough: held-out log loss {at:.3f} "
        f"then, {last:.3f} at the end (the difference's standard error is {error[first]:.3f})"
    )


def _held_out(fold: Fold) -> dict[int, float]:
    """Held-out log loss by epoch."""
    return {
        line["epoch"]: line["held_out_log_loss"]
        for line in fold.read_log()
        if "epoch" in line and "held_out_log_loss" in line
    }

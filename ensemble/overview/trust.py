"""Whether out-of-fold scores predict those of the board."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ensemble.overview.ledger import Entry, is_number
from ensemble.scoring.metrics import METRICS

FEWEST = 3  # scores on the board: fewer do not show an order


@dataclass(frozen=True)
class Trust:
    """Whether out-of-fold scores predict the board's, for submissions on the same data.

    fingerprint: of these data; "" if it is not known
    metric: of the board's scores
    n: number of submissions
    tau: Kendall's rank correlation; NaN if all scores are equal
    gap: mean of the board's score minus the out-of-fold score
    lines: the same in words
    """

    fingerprint: str
    metric: str
    n: int
    tau: float
    gap: float
    lines: tuple[str, ...]


def trust(found: Sequence[Entry], metric: str = "accuracy") -> tuple[Trust, ...]:
    """How the board's scores, which are of `metric`, agree with those out of fold, for each data set with FEWEST or
    more. If the data are not known, each ledger counts as a data set.

    A board that counts to 100 is read as percent. Kendall's tau-b (1945) of so few scores is rough.
    """
    data: dict[str | Path, list[Entry]] = {}
    for entry in found:
        data.setdefault(entry.fingerprint or entry.ledger, []).append(entry)
    several = len(data) > 1
    results = []
    for key, some in data.items():
        which = f"data {key[:12]}: " if isinstance(key, str) else f"{key}: "
        results.append(_trust(some, metric, which if several else ""))
    return tuple(result for result in results if result is not None)


def _trust(found: Sequence[Entry], metric: str, which: str) -> Trust | None:
    """Of one data set; None of fewer than FEWEST. which: what the lines begin with."""
    from scipy.stats import kendalltau

    pairs = [(entry.values.get(metric, ""), entry.values.get("board", "")) for entry in found]
    known = [(float(out), float(board)) for out, board in pairs if is_number(out) and is_number(board)]
    if len(known) < FEWEST:
        return None
    outs, boards = zip(*known, strict=True)
    if METRICS[metric].factor == 100 and max(boards) > 1:
        boards = tuple(score / 100 for score in boards)
    varied = len(set(outs)) > 1 and len(set(boards)) > 1
    tau = float(kendalltau(outs, boards).statistic) if varied else math.nan
    gap = sum(board - out for out, board in zip(outs, boards, strict=True)) / len(known)
    shown = METRICS[metric].number(gap, "+") + " points" * (METRICS[metric].factor == 100)
    name = METRICS[metric].title
    order = f"rank correlation (Kendall's tau) of {name} out of fold and on the board: {tau:.2f}"
    if not varied:
        order = f"no rank correlation of {name} out of fold and on the board: all scores are equal"
    lines = (f"{which}{order}; n = {len(known)}, so it is rough", f"{which}mean of board minus out of fold: {shown}")
    return Trust(found[0].fingerprint, metric, len(known), tau, gap, lines)

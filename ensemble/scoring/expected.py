"""The range that a score leads one to expect on further rows."""

import math
from dataclasses import dataclass

import numpy as np

from ensemble.scoring.bootstrap import Score
from ensemble.scoring.metric import Metric
from ensemble.scoring.metrics import METRICS
from ensemble.scoring.wilson import Z

LEAST_ROWS = 30  # fewer promise no mean of losses and no score of classes: a single mistake moves these far
TAIL = 0.025  # on either side


@dataclass(frozen=True)
class Sample:
    """How many rows, and how many groups these have; None where no groups are known."""

    rows: int
    groups: int | None = None


def expected_range(metric: str, score: Score, known: Sample, new: Sample) -> tuple[float, float] | None:
    """The 95% prediction interval, low and high, of a metric on new rows that are like the known ones; None where there
    are fewer than `LEAST_ROWS` new rows, unless the metric lies between two bounds.

    metric: its name.
    score: of the known rows.
    known, new: how many rows and groups these are.

    Both samples vary, the new one by as much more as it has fewer rows, or groups where it has still fewer of these.
    A loss has the score's interval, widened by that. A score between two bounds is treated as a share of right rows,
    of as many rows as its interval is wide for: that of the new ones is beta-binomial.
    """
    this = METRICS[metric]
    ratio = min(new.rows / known.rows, (new.groups or new.rows) / (known.groups or known.rows))
    is_share = this.bounds == (0, 1) and not this.by_class
    if new.rows < LEAST_ROWS and not is_share:
        return None
    if this.bounds is None:
        wider = math.sqrt(1 + 1 / ratio)
        low, high = score.value - wider * (score.value - score.low), score.value + wider * (score.high - score.value)
        return low if this.needs == "costs" else max(low, 0.0), high
    least, most = this.bounds
    share = (score.value - least) / (most - least)
    counted = min(_rows_of(this, score, share), known.rows)
    draws = max(1, round(counted * ratio))
    if is_share and known.groups is None and new.groups is None:
        draws = new.rows
    low, high = _share_of_draws(share * counted, (1 - share) * counted, draws)
    return least + (most - least) * low, least + (most - least) * high


def _rows_of(metric: Metric, score: Score, share: float) -> float:
    """For how many rows Wilson's interval of the share is as wide as that of the score; infinite if it has no width."""
    assert metric.bounds is not None
    half = min((score.high - score.low) / (metric.bounds[1] - metric.bounds[0]) / 2, 0.499)
    # half (1 + u) = sqrt(share (1 - share) u + u^2 / 4) with u = Z^2 / rows
    square, linear = 0.25 - half**2, share * (1 - share) - 2 * half**2
    u = (math.sqrt(linear**2 + 4 * square * half**2) - linear) / (2 * square)
    return Z**2 / u if u > 0 else math.inf


def _share_of_draws(right: float, wrong: float, draws: int) -> tuple[float, float]:
    """Ends of the share of right ones among new draws, after so many right and wrong ones, by Jeffreys' prior: at most
    2.5 % lie below the lower one, and as many above the upper one."""
    from scipy.special import betaln, gammaln

    a, b, k = right + 0.5, wrong + 0.5, np.arange(draws + 1)
    ways = gammaln(draws + 1) - gammaln(k + 1) - gammaln(draws - k + 1)
    below = np.exp(ways + betaln(k + a, draws - k + b) - betaln(a, b)).cumsum()
    low, high = np.searchsorted(below / below[-1], [TAIL, 1 - TAIL])
    return float(low / draws), float(high / draws)

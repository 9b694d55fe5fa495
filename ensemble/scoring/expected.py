"""What a score lets expect of further rows."""

import math

from ensemble.scoring.bootstrap import Score
from ensemble.scoring.metrics import METRICS


def expected_range(metric: str, score: Score, rows: int, new: int) -> tuple[float, float]:
    """Where the metric of `new` other rows should lie in 95 of 100 cases, if they are like the `rows` of the score.

    Both samples vary: the score's interval is widened by sqrt(1 + rows / new), as the variance of a mean falls with the
    number of rows. Shares end at 0 and 1, losses at 0.
    """
    wider = math.sqrt(1 + rows / new)
    low, high = score.value - wider * (score.value - score.low), score.value + wider * (score.high - score.value)
    known = METRICS[metric]
    if known.bounds is not None:
        return max(low, known.bounds[0]), min(high, known.bounds[1])
    return low if known.needs == "costs" else max(low, 0.0), high

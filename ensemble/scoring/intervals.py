"""95% intervals of a score and of a gain of a blend or a member, from their resampled values.

A percentile bootstrap is too narrow for few rows, for skewed losses and near 100 %, and has no width where no row is
wrong. `benchmarks/coverage.py` measures how often these ones hold the truth; they take from the resamples only how a
value varies, and how skewed it is:

- a score between two bounds has Wilson's interval (JASA 1927) for as many rows as would vary as much, as surveys do it
  (Korn & Graubard, Survey Methodology 1998), and without a mistake for as many as there are;
- a loss has no upper bound, and a few rows make most of it: Student's interval, corrected for the skewness (Hall, "On
  the removal of skewness by transformation", JRSS B 1992);
- a gain of a bounded score has Student's interval, as if two rows more differed, one each way (Bonett & Price,
  "Adjusted Wald confidence interval for a difference of binomial proportions based on paired data", JEBS 2012);
- a gain in loss has on each side the wider one of Student's and the corrected one.

The variance of the rows alone is right for a cross-validated score in the limit of many rows (Bayle, Bayle, Janson &
Mackey, "Cross-validation confidence intervals for test error", NeurIPS 2020), where the folds' fits agree. Of few rows
they differ, and `fits` adds how much.
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from ensemble.scoring.metric import Metric
from ensemble.scoring.wilson import Z, wilson

SAME = 1e-12  # differences below this are the last bit's


@dataclass(frozen=True)
class Support:
    """What intervals rest on.

    clusters: how many are resampled.
    rows: their effective number (Kish: the squared sum of their weights over the sum of the squares).
    class_rows: the effective number for a mean over the classes, which the rarest classes decide.
    """

    clusters: int
    rows: float
    class_rows: float

    def of(self, metric: Metric) -> float:
        """`class_rows` or `rows`, whichever the metric rests on."""
        return self.class_rows if metric.by_class else self.rows


def score_interval(
    metric: Metric, value: float, drawn: np.ndarray, support: Support, fits: float = 0.0
) -> tuple[float, float]:
    """The ends of a score's 95% interval; NaN where the score is, or all its resampled values are.

    value: the score on all rows.
    drawn: float64 (B,), its resampled values.
    support: what they rest on.
    fits: the variance between the scores of the blends that were fitted without one fold.
    """
    spread = _spread(drawn, support, fits)
    if spread is None or np.isnan(value):
        return float("nan"), float("nan")
    if metric.bounds is None:
        low, high = _corrected(value, *spread, _student(support))
        return max(low, 0.0), high  # losses and costs
    least, most = metric.bounds
    share = (value - least) / (most - least)
    error = spread[0] / (most - least)
    known = support.of(metric)
    if 0 < share < 1 and error > SAME:
        known = share * (1 - share) / error**2
    low, high = wilson(np.array(share * known), np.array(known), _student(support)).tolist()
    # Rounding moves the ends of a score at a bound by a last bit.
    return min(least + (most - least) * low, value), max(least + (most - least) * high, value)


def gain_interval(
    metric: Metric, value: float, drawn: np.ndarray, support: Support, fits: float = 0.0
) -> tuple[float, float]:
    """The ends of a paired gain's 95% interval; NaN where all its resampled values are.

    value: the gain on all rows.
    drawn: float64 (B,), its resampled values.
    support, fits: as in `score_interval`.
    """
    if metric.bounds is not None:
        least, most = metric.bounds
        fits += 2 * (most - least) ** 2 / (support.rows * support.of(metric))
    spread = _spread(drawn, support, fits)
    if spread is None or np.isnan(value):
        return float("nan"), float("nan")
    t = _student(support)
    low, high = value - t * spread[0], value + t * spread[0]
    if metric.bounds is None:
        others = _corrected(value, *spread, t)
        return min(low, others[0]), max(high, others[1])
    return max(low, least - most), min(high, most - least)


def chance_of_gain(value: float, low: float, high: float) -> float:
    """The probability that a gain is above 0, for a normal error as large as the interval is wide on the side of 0.

    value: the gain.
    low, high: the ends of its 95% interval.

    It is above 0.975 where the interval lies above 0, and below 0.025 where it lies below. (The share of resamples
    above 0 would say 0.99 of two systems that differ on four rows, where a sign test says 0.94.)
    """
    if np.isnan(value) or value == 0:
        return 0.5 if value == 0 else float("nan")
    width = value - low if value > 0 else high - value
    if width <= SAME:
        return float(value > 0)
    return NormalDist().cdf(Z * value / width)


def _spread(drawn: np.ndarray, support: Support, more: float) -> tuple[float, float] | None:
    """The standard error and the skewness of resampled values, some of which may be NaN, with `more` variance; None
    where fewer than two are known."""
    known = drawn[~np.isnan(drawn)]
    if len(known) < 2:
        return None
    centred = known - known.mean()
    variance = float(centred @ centred) / (len(known) - 1) * support.clusters / max(support.clusters - 1, 1)
    error = float(np.sqrt(variance + more))
    if error <= SAME:
        return 0.0, 0.0
    return error, float((centred**3).mean()) / error**3


def _corrected(value: float, error: float, skewness: float, t: float) -> tuple[float, float]:
    """Student's interval, corrected for the skewness: Hall's transformation of the studentised value, inverted."""
    if abs(skewness) < 1e-6:
        return value - t * error, value + t * error

    def quantile(z: float) -> float:
        return float(3 / skewness * (np.cbrt(1 + skewness * (z - skewness / 6)) - 1))

    return value - error * quantile(t), value - error * quantile(-t)


def _student(support: Support) -> float:
    """The 0.975 quantile of Student's t for the clusters less one."""
    free = support.clusters - 1
    if free < 30:
        from scipy.special import stdtrit

        return float(stdtrit(max(free, 1), 0.975))
    return Z + (Z**3 + Z) / (4 * free) + (5 * Z**5 + 16 * Z**3 + 3 * Z) / (96 * free**2)

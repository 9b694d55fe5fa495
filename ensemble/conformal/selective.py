"""Selective classification: the error rate where only confident answers are given, and the confidence to ask for.

El-Yaniv & Wiener, "On the foundations of noise-free selective classification" (JMLR 2010).
"""

import math
from dataclasses import dataclass

import numpy as np

from ensemble.files.reading import Finite

SHARES = (1.0, 0.99, 0.95, 0.9, 0.8, 0.7, 0.5)  # of the rows that are answered, the most confident first
CERTAINTY = 0.9  # that the error rate of what is answered is at most the one asked for
STARTS = (0.25, 0.5, 0.75)  # shares of answered rows at which a sequence of tests begins
STEPS = 100  # tests that the rows are divided into


@dataclass(frozen=True)
class RiskCoverage:
    """The error rate of the most confident rows, by how many of the rows they are.

    area: under that curve (AURC): the mean, over the rows, of the error rate of those at least as confident. 0 to 1,
        smaller is better.
    low, high: its 95% interval.
    best: the area if all wrong rows were less confident than all right ones.
    shares: of the rows that are answered, 0 to 1.
    risks: the error rate at each share, 0 to 1; where a share divides equally confident rows, their average.
    """

    area: Finite
    low: Finite
    high: Finite
    best: Finite
    shares: tuple[Finite, ...]
    risks: tuple[Finite, ...]


@dataclass(frozen=True)
class Abstention:
    """From which confidence on an image is answered.

    threshold: that confidence.
    rate: the error rate that was asked for, 0 to 1; that of what is answered is not above it, with a certainty of 90 %.
    answered: the share of the out-of-fold rows that are answered, 0 to 1.
    error: the error rate of these rows.
    """

    threshold: float
    rate: float
    answered: float
    error: float


def risk_coverage(confidence: np.ndarray, wrong: np.ndarray, clusters: np.ndarray) -> RiskCoverage:
    """The risk-coverage curve of N rows.

    confidence: float (N,).
    wrong: bool (N,), whether the row is predicted wrongly.
    clusters: int64 (N,), see `ensemble.scoring.cross_fit`.

    Geifman, Uziel & El-Yaniv, "Bias-reduced uncertainty estimation for deep neural classifiers" (ICLR 2019). The
    interval is by the area's influence function (the delta method), over clusters.
    """
    from ensemble.scoring.cross_fit import standard_error

    rows = len(confidence)
    order = np.argsort(-confidence, kind="stable")
    falling, errors = confidence[order], wrong[order].astype(np.float64)
    # The last place of the rows that are as confident as each: they are answered together.
    last = np.searchsorted(-falling, -falling, "right") - 1
    answered = (last + 1) / rows
    risks = errors.cumsum()[last] / (last + 1)
    area = float(risks.mean())
    # What a row adds: its own place on the curve, and its error to the risks of all that are less confident.
    less = np.cumsum((1 / answered)[::-1])[::-1] / rows
    risked = np.cumsum((risks / answered)[::-1])[::-1] / rows
    first = np.searchsorted(-falling, -falling, "left")
    influence = np.empty(rows)
    influence[order] = risks - area + errors * less[first] - risked[first]
    margin = 1.96 * standard_error(influence, clusters)
    total = int(errors.sum())
    best = float((np.arange(1, total + 1) / np.arange(rows - total + 1, rows + 1)).sum() / rows)
    whole = np.append(0.0, _averaged(errors, falling).cumsum())
    counts = [max(1, round(share * rows)) for share in SHARES]
    return RiskCoverage(
        area=area,
        low=max(0.0, area - margin),
        high=min(1.0, area + margin),
        best=best,
        shares=SHARES,
        risks=tuple(float(whole[count] / count) for count in counts),
    )


def _averaged(errors: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """Errors (N,), of equally confident rows their mean. confidence: (N,), sorted."""
    where = np.unique(confidence, return_inverse=True)[1]
    return np.asarray((np.bincount(where, errors) / np.bincount(where))[where])


def abstention(confidence: np.ndarray, wrong: np.ndarray, clusters: np.ndarray, rate: float) -> Abstention | None:
    """The lowest confidence from which on the error rate is at most `rate`, with a certainty of 90 %; None where the
    rows show this for no confidence.

    confidence, wrong, clusters: as in `risk_coverage`.
    rate: the error rate to keep below, 0 to 1.

    Shares of the rows, the most confident first, are tested one after the other, from each of three starts on, for as
    long as the binomial upper bound of the error rate is not above `rate`: Angelopoulos, Bates, Candès, Jordan & Lei,
    "Learn then test" (2021), by fixed sequences, at a third of the uncertainty each. Where rows have groups, the bound
    is that of as many trials as there are groups.
    """
    rows = len(confidence)
    order = np.argsort(-confidence, kind="stable")
    falling, errors = confidence[order], wrong[order].cumsum()
    last = np.searchsorted(-falling, -falling, "right")  # rows that are answered with each
    is_first = np.zeros(rows, dtype=np.int64)  # of its group
    is_first[np.unique(clusters[order], return_index=True)[1]] = 1
    groups_among = is_first.cumsum()
    counts = np.unique(last[_tested(rows)])
    best = 0
    for start in STARTS:
        for count in counts[counts >= start * rows * (1 - 1e-9)]:
            groups = int(groups_among[count - 1])
            mistakes = math.ceil(errors[count - 1] * groups / count - 1e-9)
            if not _is_below(mistakes, groups, rate, (1 - CERTAINTY) / len(STARTS)):
                break
            best = max(best, int(count))
    if not best:
        return None
    return Abstention(float(falling[best - 1]), rate, best / rows, float(errors[best - 1] / best))


def least_rate(rows: int) -> float:
    """The lowest error rate that `abstention` can show with so many rows, even without a mistake: by the first test of
    the last start, which its other tests follow."""
    first = next(place + 1 for place in _tested(rows) if place + 1 >= STARTS[-1] * rows * (1 - 1e-9))
    return float(1 - ((1 - CERTAINTY) / len(STARTS)) ** (1 / first))


def _tested(rows: int) -> np.ndarray:
    """The places among the rows, the most confident first, of the last rows that the tests answer: int64, rising."""
    return np.asarray(np.linspace(0, rows - 1, min(STEPS, rows)).round().astype(np.int64))


def _is_below(mistakes: int, trials: int, rate: float, chance: float) -> bool:
    """Whether so few mistakes would happen by a chance of at most `chance` if their rate were `rate` or more."""
    from scipy.stats import binom

    return bool(binom.cdf(mistakes, trials, rate) <= chance)

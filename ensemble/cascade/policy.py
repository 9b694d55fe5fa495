"""When a cascade stops: at the first stage, from a certain one on, whose confidence reaches the threshold.

One threshold serves all stages. A threshold for each, chosen by backward induction, was tried on the paintings and is
cheaper on the rows that it was chosen on, but loses more than it was allowed on others: the few confident mistakes that
decide it are different ones there.
"""

from dataclasses import dataclass

import numpy as np

# Shares that may be wrong: from three quarters to 1 in 100,000, 16 for each power of ten.
THRESHOLDS = 1 - 10.0 ** (-np.arange(2, 81) / 16)


@dataclass(frozen=True)
class Limit:
    """What a cascade is chosen by: the cheapest that loses no more than `max_loss`, or the best that costs no more than
    `max_ms`; one of them is None.

    max_loss: log loss above that of the whole blend, in nats.
    max_ms: mean milliseconds per image.
    """

    max_loss: float | None = None
    max_ms: float | None = None


@dataclass(frozen=True)
class Policy:
    """Of a cascade of S stages.

    first: the number of the stage at which images may first exit; S - 1 where the whole blend is asked at once.
    threshold: the confidence at which they do.
    """

    first: int
    threshold: float


@dataclass(frozen=True)
class StageRows:
    """What the S stages answer for n rows.

    confidence: float64 (S, n), the largest probability.
    losses: float64 (S, n), in nats.
    """

    confidence: np.ndarray
    losses: np.ndarray


@dataclass(frozen=True)
class Tried:
    """All policies on some rows.

    policies: P of them.
    losses: mean log loss above that of the whole blend, float64 (P,).
    ms: mean milliseconds per image, float64 (P,).
    """

    policies: tuple[Policy, ...]
    losses: np.ndarray
    ms: np.ndarray


def last_stages(policy: Policy, confidence: np.ndarray) -> np.ndarray:
    """The number of the stage at which each row exits, int64 (n,), of confidences (S, n)."""
    # The largest confidence so far grows from stage to stage: the stages at which it is too small come first.
    so_far = np.maximum.accumulate(confidence[policy.first : -1], axis=0)
    return np.asarray(policy.first + (so_far < policy.threshold).sum(axis=0))


def row_ms(policy: Policy, last: np.ndarray, stage_ms: np.ndarray, decoding: float) -> np.ndarray:
    """Milliseconds of each row, float64 (n,). last: as `last_stages` gives. stage_ms, decoding: see `Costs`."""
    return np.asarray(np.cumsum(stage_ms)[last] + decoding * (last - policy.first + 1))


def try_all(rows: StageRows, stage_ms: np.ndarray, decoding: float) -> Tried:
    """Every policy on these rows. stage_ms: float64 (S,), without decoding."""
    stages, numbers = len(stage_ms), np.arange(rows.losses.shape[1])
    policies = [Policy(first, float(t)) for first in range(stages - 1) for t in THRESHOLDS] + [Policy(stages - 1, 1.0)]
    losses, ms = [], []
    for policy in policies:
        last = last_stages(policy, rows.confidence)
        losses.append(rows.losses[last, numbers].mean() - rows.losses[-1].mean())
        ms.append(row_ms(policy, last, stage_ms, decoding).mean())
    return Tried(tuple(policies), np.array(losses), np.array(ms))


def choose(tried: Tried, limit: Limit) -> Policy | None:
    """The policy that the rows recommend; None where none costs as little as the limit says."""
    if limit.max_ms is None:
        fits, order = tried.losses <= (limit.max_loss or 0.0), np.lexsort((tried.losses, tried.ms))
    else:
        fits, order = tried.ms <= limit.max_ms, np.lexsort((tried.ms, tried.losses))
    first = next((int(number) for number in order if fits[number]), None)
    return None if first is None else tried.policies[first]

"""The slices that are reported, each with what a reader needs to judge it."""

from collections.abc import Sequence

import numpy as np

from ensemble.slices.predicted import Predicted
from ensemble.slices.result import Example, Share, Slice
from ensemble.slices.rules import Candidate, Rule
from ensemble.slices.worse import share_interval

EXAMPLES = 12
MOSTLY = 0.5  # share of its wrong images from which on a slice is said to lie in another one


def describe(
    predicted: Predicted, candidates: Sequence[Candidate], p: np.ndarray, extremes: np.ndarray, alpha: float
) -> tuple[Slice, ...]:
    """The candidates whose adjusted p-value is at most alpha, the most extreme first; of one property and direction
    only the most extreme.

    candidates: J slices.
    p: float64 (J,), their adjusted p-values.
    extremes: float (J,), how extreme each is: the smaller, the more.
    """
    chosen: dict[tuple[str, ...], Candidate] = {}
    p_of: dict[tuple[str, ...], float] = {}
    for j in np.argsort(extremes, kind="stable"):
        if p[j] <= alpha:
            key = _direction(candidates[j].rule)
            if key not in chosen:
                chosen[key], p_of[key] = candidates[j], float(p[j])
    found: list[Slice] = []
    before: list[Candidate] = []
    for key, candidate in chosen.items():
        found.append(_described(predicted, candidate, p_of[key], before))
        before.append(candidate)
    return tuple(found)


def _direction(rule: Rule) -> tuple[str, ...]:
    if rule.value is not None or rule.low == rule.high:
        return rule.kind, rule.text
    return rule.kind, rule.of, "lowest" if rule.low is None else "highest"


def _described(predicted: Predicted, candidate: Candidate, p: float, before: Sequence[Candidate]) -> Slice:
    rows, wrong = candidate.rows, predicted.wrong
    others = np.setdiff1d(np.arange(len(wrong)), rows)
    clusters = np.arange(len(wrong)) if candidate.by_rows else predicted.rows.clusters
    of_wrong = rows[wrong[rows]]
    confidence = predicted.probabilities[of_wrong, predicted.predicted[of_wrong]]
    telling = of_wrong[np.argsort(-confidence, kind="stable")][:EXAMPLES]
    shares = [float(np.isin(of_wrong, other.rows).mean()) for other in before]
    most = int(np.argmax(shares)) if shares else -1
    return Slice(
        rule=candidate.rule,
        rows=len(rows),
        wrong=len(of_wrong),
        accuracy=Share(*share_interval(~wrong[rows], clusters[rows])),
        elsewhere=Share(*share_interval(~wrong[others], clusters[others])),
        of_its_classes=_of_classes(predicted, rows, others),
        p=p,
        examples=tuple(_example(predicted, row) for row in telling.tolist()),
        mostly_in=(before[most].rule.text, shares[most]) if shares and shares[most] >= MOSTLY else None,
    )


def _example(predicted: Predicted, row: int) -> Example:
    label, chosen = int(predicted.rows.labels[row]), int(predicted.predicted[row])
    p_label, p_chosen = (round(float(predicted.probabilities[row, c]), 4) for c in (label, chosen))
    classes = predicted.rows.classes
    return Example(str(predicted.rows.ids[row]), classes[label], classes[chosen], p_label, p_chosen)


def _of_classes(predicted: Predicted, rows: np.ndarray, others: np.ndarray) -> float | None:
    """The accuracy that the slice's classes have elsewhere, in its shares of them."""
    labels, count = predicted.rows.labels, len(predicted.rows.classes)
    inside, outside = np.bincount(labels[rows], minlength=count), np.bincount(labels[others], minlength=count)
    if (outside[inside > 0] == 0).any():
        return None
    right = np.bincount(labels[others], ~predicted.wrong[others], minlength=count)
    shares = inside / inside.sum()
    return float((shares * right / np.maximum(outside, 1)).sum())

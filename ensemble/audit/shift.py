"""Whether training and test images differ: adversarial validation on cheap features.

A classifier learns to tell the two sets apart. Where it can on images that it did not learn from, the sets differ in
something that a network may go by too. Its score is the AUC: the chance that it gives a test image more than a training
image, 0.5 if there is nothing to tell.
"""

from typing import Any

import numpy as np

from ensemble.audit.features import FEATURES, held_out_shares, sample
from ensemble.audit.findings import Finding, finding
from ensemble.data.name_groups import area

ROWS = 2000  # of each side
FEWEST = 30
REPORTED, FAR = 0.6, 0.9  # AUC from where a shift is a note, and a warning; the lower end of the interval counts
FEATURE_REPORTED = 0.6
DRAWS = 200


def shift(train: np.ndarray, test: np.ndarray, train_ties: np.ndarray, test_ties: np.ndarray) -> dict[str, Any] | None:
    """The AUC of held-out rows with a 95 % bootstrap interval over sets of copies, and each feature's own: {auc, low,
    high, features: [{name, auc, train, test}]}, the features that differ most first, with the medians of both sides.

    train, test: float (N, 12), (M, 12) of `features`. ties: int (N,), (M,), equal for copies across both. None where a
    side has fewer than 30 rows.
    """
    if min(len(train), len(test)) < FEWEST:
        return None
    rows, others = (sample(np.arange(len(side)), ROWS) for side in (train, test))
    values = np.concatenate([train[rows], test[others]])
    ties = np.unique(np.concatenate([train_ties[rows], test_ties[others]]), return_inverse=True)[1]
    side = np.repeat([0, 1], [len(rows), len(others)])
    scores = held_out_shares(values, side, ties)[:, 1]
    low, high = _interval(scores, side, ties)
    single = []
    for number, (name, _, form) in enumerate(FEATURES):
        auc = area(values[:, number], side)
        medians = [float(np.median(part[:, number])) for part in (train, test)]
        single.append({"name": name, "auc": round(auc, 4), "train": medians[0], "test": medians[1], "form": form})
    single.sort(key=lambda one: -abs(float(one["auc"]) - 0.5))  # type: ignore[arg-type]
    return {"auc": round(area(scores, side), 4), "low": low, "high": high, "features": single}


def check_shift(found: dict[str, Any] | None, test_ids: np.ndarray) -> list[Finding]:
    if found is None or found["low"] < REPORTED:
        return []
    telling = [one for one in found["features"] if abs(one["auc"] - 0.5) >= FEATURE_REPORTED - 0.5][:3]
    shown = [
        f"{one['name']} {one['form'].format(one['train'])} to {one['form'].format(one['test'])}" if one["form"]
        else str(one["name"])
        for one in telling
    ]  # fmt: skip
    text = (
        f"test images, which differ from the training images: trees tell them apart with AUC {found['auc']:.2f} "
        f"[{found['low']:.2f}, {found['high']:.2f}]"
    )
    advice = (
        "out-of-fold scores may not hold for them: see what differs, and augment for it; other shares of the classes "
        "can do it too"
    )
    level = "warning" if found["low"] >= FAR else "note"
    return finding("shift", level, test_ids, (text, text), advice, "test", shown or ["no single feature"])


def _interval(scores: np.ndarray, side: np.ndarray, ties: np.ndarray) -> tuple[float, float]:
    random = np.random.default_rng(0)
    sets = int(ties.max()) + 1
    order = np.argsort(scores, kind="stable")
    ranked, ones, owner = scores[order], side[order] == 1, ties[order]
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)  # of each distinct score
    draws = []
    for _ in range(DRAWS):
        weight = np.bincount(random.integers(0, sets, sets), minlength=sets)[owner].astype(float)
        up, down = (np.diff(np.cumsum(weight * mask)[last], prepend=0.0) for mask in (ones, ~ones))
        below = np.cumsum(down) - down
        draws.append(float((up * (below + down / 2)).sum() / (up.sum() * down.sum())))
    low, high = np.quantile(draws, [0.025, 0.975])
    return round(float(low), 4), round(float(high), 4)

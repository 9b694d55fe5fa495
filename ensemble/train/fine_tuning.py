"""Whether fine-tuning can pay, from what the probes still get wrong."""

import math
from collections.abc import Sequence

import numpy as np

from ensemble.errors import UserError
from ensemble.run import Member
from ensemble.train.rows import Rows

# Share of a probe's errors that fine-tuning corrected on the 1,698 art paintings (benchmarks/RESULTS.md), in %: of
# mobilenetv3_large 27, mobilenetv3_small 33, edgetpu and lite2 42, lite0 43.
CORRECTED = (0.27, 0.43)


def can_fine_tuning_pay(members: Sequence[Member], rows: Rows) -> str | None:
    """A line, or None if not all members are finished probes.

    The errors that fine-tuning usually corrects must be more than chance would make of so few: the two classifiers
    differ on about as many rows as the probe gets wrong, and the difference's standard error is that number's root.
    """
    sizes = np.bincount(rows.folds[rows.folds >= 0])
    wrong = {}
    for member in members:
        folds = member.folds()
        if len(folds) != len(sizes) or not all(fold.is_done() for fold in folds):
            return None
        try:
            lines = [fold.read_log()[-1] for fold in folds]
        except UserError:  # a damaged log costs this line alone
            return None
        if any(line.get("strategy") != "probe" for line in lines):
            return None
        accuracies = np.array([line["held_out_accuracy"] for line in lines])
        wrong[member.name] = round(float((sizes * (1 - accuracies)).sum()))
    name = min(wrong, key=lambda name: wrong[name])
    errors = wrong[name]
    low, high = (round(share * errors) for share in CORRECTED)
    told = f"the best probe, {name}, is wrong on {errors:,} of {sizes.sum():,} held-out rows"
    if CORRECTED[1] * errors <= 1.96 * math.sqrt(errors):
        return f"{told}: so few that what fine-tuning usually corrects (27 to 43 % of them) can't be told from chance"
    return (
        f"{told}; fine-tuning, which corrected 27 to 43 % of such errors on 1,698 paintings, can pay: it would correct "
        f"about {low} to {high} of them, {100 * low / sizes.sum():.1f} to {100 * high / sizes.sum():.1f} points of "
        "accuracy (ens init without --fast)"
    )

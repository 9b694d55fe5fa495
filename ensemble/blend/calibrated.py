"""What a blend's scaling is worth, and which groups its confidence is wrong about."""

import numpy as np

from ensemble.blend.oof import Rows
from ensemble.scoring.bootstrap import Gain, bootstrap, gain, scores
from ensemble.scoring.miscalibration import DOUBTED, by_group
from ensemble.scoring.outcomes import Outcome


def scaling_gain(rows: Rows, honest: Outcome, before: Outcome, weights: np.ndarray | None) -> Gain:
    """In log loss, of the blend over "no scaling", which is itself without its scaling."""
    outcomes, classes = [before, honest], len(rows.classes)
    drawn = bootstrap(rows.labels, outcomes, rows.clusters, classes, weights)
    table = scores(rows.labels, outcomes, rows.folds, classes, drawn, weights)
    return gain("log_loss", table, drawn, 1, 0, "no scaling")


def miscalibrated_groups(rows: Rows, honest: Outcome) -> int:
    """How many groups are right more or less often than their confidence says."""
    found = by_group(honest.most_probable == rows.labels, honest.confidence, rows.clusters)
    return sum(group.p < DOUBTED for group in found.values())

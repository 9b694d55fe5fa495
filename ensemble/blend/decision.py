"""What it is worth to decide for the class of the least expected cost, and not for the most probable one."""

from dataclasses import dataclass, replace

import numpy as np

from ensemble.blend.oof import Rows
from ensemble.files.reading import Finite
from ensemble.scoring.bootstrap import Gain, bootstrap, gain, scores
from ensemble.scoring.outcomes import Outcome


@dataclass(frozen=True)
class Decision:
    """Decisions by cost beside the most probable classes, of the same probabilities.

    saved: the gain in expected cost over "the most probable class".
    changed: the share of the rows that are decided for another class.
    """

    saved: Gain
    changed: Finite


def decision(rows: Rows, honest: Outcome, costs: np.ndarray, weights: np.ndarray | None) -> Decision:
    """honest: the blend's cross-fitted outcome. costs: float64 (C, C). weights: float64 (N,), what each row counts."""
    most = honest.most_probable
    values = {**honest.values, "expected_cost": costs[rows.labels, most]}
    outcomes, classes = [honest, replace(honest, predicted=most, values=values)], len(rows.classes)
    drawn = bootstrap(rows.labels, outcomes, rows.clusters, classes, weights)
    table = scores(rows.labels, outcomes, rows.folds, classes, drawn, weights)
    saved = gain("expected_cost", table, drawn, 0, 1, "the most probable class")
    return Decision(saved, float(np.average(honest.predicted != most, weights=weights)))

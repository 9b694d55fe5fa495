"""What a round of self-training gains, out of fold."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from ensemble.blend.methods.pool import at_best_temperature
from ensemble.blend.oof import read_oof
from ensemble.run import Run
from ensemble.scoring.bootstrap import Gain, bootstrap, gain, scores
from ensemble.scoring.cross_fit import cross_fit
from ensemble.scoring.metrics import HEADLINE
from ensemble.scoring.outcomes import outcome


def gains(run: Run, team: Sequence[str], before: Sequence[str], metric: str) -> dict[str, Gain]:
    """What the plain mean of the members of `team` gains over that of those of `before`, paired over the rows: by
    metric, `metric` first, then those of HEADLINE.

    Each mean is taken at its best temperature on the other folds: sharper targets alone would move the log loss.
    """
    oof = read_oof(run, members=list(dict.fromkeys([*team, *before])))
    rows = oof.rows
    member_logits = dict(zip(oof.members, (values.mean(axis=0) for values in oof.values), strict=True))
    metrics = tuple(dict.fromkeys((metric, *HEADLINE)))
    outcomes = []
    for names in (team, before):
        z = np.mean([member_logits[name] for name in names], axis=0)
        probs = cross_fit(partial(at_best_temperature, z, rows.labels), rows.folds, rows.clusters)
        outcomes.append(outcome(rows.labels, probs, metrics))
    drawn = bootstrap(rows.labels, outcomes, rows.clusters, oof.classes)
    table = scores(rows.labels, outcomes, rows.folds, oof.classes, drawn)
    return {name: gain(name, table, drawn, 0, 1, ", ".join(before)) for name in metrics}

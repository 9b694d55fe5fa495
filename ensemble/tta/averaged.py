"""What to expect of a prediction that averages the networks of all folds, from the logits that it has stored. Never
imports torch."""

import numpy as np

from ensemble.blend.averaging import FEWEST, MOST, Averaged, averaged, averaging_gain
from ensemble.blend.result import read_result
from ensemble.blend.sources import other_runs, source
from ensemble.errors import UserError
from ensemble.tta import stored_logits
from ensemble.tta.apply import fold_sets
from ensemble.tta.prepare import PreparedPrediction


def averaged_score(prediction: PreparedPrediction) -> Averaged | None:
    """Beside the blend's out-of-fold score, which is of one network for each row. None where that does not exist or is
    optimistic, where one network answers, or where fewer than FEWEST images have stored logits."""
    try:
        return _averaged_score(prediction)
    except UserError:  # another process made room for its logits, or the blend is fitted anew: the prediction stands
        return None


def _averaged_score(prediction: PreparedPrediction) -> Averaged | None:
    plan, stored = prediction.plan, prediction.stored
    blend, run = plan.blend, plan.run
    if plan.kind != "folds" or blend.stages or not blend.trained:
        return None
    if any(source(run, blend.sources, name).is_optimistic() for name in blend.trained):
        return None
    result = read_result(run, prediction.blend_name)
    if result is None:
        return None
    # Not every n-th: files may take turns, as those of two cameras do.
    rows = np.sort(np.random.default_rng(0).permutation(len(plan.files))[:MOST])
    others = [other.logits_dir(stored.folder.name) for other in other_runs(run, blend.sources)]
    files = [plan.files[row] for row in rows]
    found = stored_logits.find(stored.folder, files, stored.member_views, stored.classes, others)
    known = ~found.missing(slice(None)).any(axis=1)
    if known.sum() < FEWEST:
        return None
    by_name = {
        (each.member, each.view): values[:, known]
        for each, values in zip(found.member_views, found.read(slice(None)), strict=True)
    }
    logits = [
        np.stack([by_name[name, view] for view in views], axis=1)  # (K, V, n, C)
        for name, views in blend.trained.items()
    ]
    logits += [values[None][:, :, rows[known]] for values in plan.external(0, len(plan.files))]
    sets = fold_sets(blend, [len(values) for values in logits])
    if len(sets) < 2:
        return None
    chosen = [[values[fold] for values, fold in zip(logits, folds, strict=True)] for folds in sets]
    return averaged(averaging_gain(blend, chosen), result.blend)

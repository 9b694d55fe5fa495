"""A blend of predictions that are arrays: no run directory, and no torch."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ensemble.api import results
from ensemble.api.predictions import (
    Kind,
    Predictions,
    Zeros,
    by_member,
    columns_of,
    fit_logits,
    new_logits,
    require_kind,
)
from ensemble.blend import BlendResult
from ensemble.blend.costs import checked_costs
from ensemble.blend.external.checks import suspicious
from ensemble.blend.fit import fit_oof
from ensemble.blend.oof import EXTERNAL_VIEW, Oof, Rows
from ensemble.blend.recipe import Recipe
from ensemble.data.classes import listed
from ensemble.data.folds import across
from ensemble.errors import UserError
from ensemble.scoring.cross_fit import usable_folds


@dataclass(frozen=True, repr=False)
class FittedBlend:
    """A blend that was fitted on arrays.

    result: all that is known of it, see `BlendResult`.
    classes: (C,), the labels that the columns stand for.
    members: M names, in the order in which they were given.
    kind: what the numbers of the predictions are.
    zeros: by member, what its probabilities of exactly 0 are read as.
    """

    result: BlendResult
    classes: np.ndarray
    members: tuple[str, ...]
    kind: Kind
    zeros: Mapping[str, Zeros]

    @property
    def scores(self) -> pd.DataFrame:
        """Cross-fitted scores: a row for "blend", "plain mean" and each member; of each metric the value, the ends
        `_low` and `_high` of its 95% interval, and `_std`, the standard deviation over folds."""
        return results.blend_scores(self.result)

    @property
    def gains(self) -> pd.DataFrame:
        """What the blend gains over the plain mean ("mean") and over the best single member: a row for each, with the
        columns against, metric, value (positive is better), low, high (95%, paired) and p_better."""
        return results.blend_gains(self.result)

    @property
    def weights(self) -> pd.DataFrame:
        """Each member's weight and, where the method has one, its temperature."""
        return results.blend_weights(self.result)

    def predict_proba(self, predictions: Predictions) -> np.ndarray:
        """Blended probabilities, float64 (N, C), rows sum to 1.

        predictions: the members' for other rows, in a form that `fit_blend` takes and of the same kind. A dict may lack
        members of zero weight.

        Raises UserError as `fit_blend`.
        """
        arrays, used = by_member(predictions), self.result.fitted.members
        wanted = used if isinstance(predictions, Mapping) else self.members
        if not set(wanted) <= set(arrays) <= set(self.members):
            raise UserError(f"predictions: of {listed(arrays)}; want those of {listed(wanted)}")
        columns = next(iter(arrays.values())).shape[1]
        if columns != len(self.classes):
            raise UserError(f"predictions: {columns} columns; want one for each of the {len(self.classes)} classes")
        require_kind(arrays, self.kind)
        logits = [new_logits(arrays[name], self.kind, name, self.zeros[name]) for name in used]
        return self.result.fitted.apply([z[None] for z in logits])

    def predict(self, predictions: Predictions) -> np.ndarray:
        """The class of each row, (N,): the most probable one; with costs, that of the least expected cost. See
        `predict_proba`."""
        return np.asarray(self.classes[self.result.fitted.decide(self.predict_proba(predictions))])

    def __repr__(self) -> str:
        return f"<FittedBlend {results.blend_line(self.result)}>"

    def _repr_html_(self) -> str:
        return results.blend_html(self.result)


def fit_blend(
    oof: Predictions,
    labels: ArrayLike,
    *,
    method: str = "stack",
    metric: str = "log_loss",
    kind: Kind = "logits",
    folds: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    costs: ArrayLike | None = None,
) -> FittedBlend:
    """Blend members' out-of-fold predictions, and score the blend by cross-fitting.

    oof: floats (N, M, C) of N rows, M members and C classes; or each member's (N, C), in a dict by name or in a list.
    Each row's prediction has to come from a model that never saw the row.
    labels: (N,), integers or strings. Their different values in ascending order are what the columns stand for; where
    another order is meant, or a class has no row, a pandas.Categorical with its categories in the order of the columns.
    method: as `ens blend --method`: "mean", "vote", "pool", "greedy", "stack", "trees" or "auto".
    metric: what the blend is for, as `ens blend --metric`: "log_loss", "accuracy", "macro_f1", "roc_auc", ...
    kind: what the numbers are: "logits", "probabilities", "percentages" or "log-probabilities".
    folds: int (N,), 0 or more, the fold in which each row was held out; None: the rows are dealt into five folds.
    groups: (N,), of what has to share a fold, such as a person; intervals are over groups then.
    costs: float (C, C), with metric="expected_cost": what it costs to predict the column's class for a row whose true
    class is the row's. `FittedBlend.predict` then gives the class of the least expected cost.

    Raises UserError, naming member and row, for shapes that do not fit together, numbers that are not of this kind, an
    unknown method or metric, costs that do not go with it, and folds that divide a group. Warns of what looks wrong in
    the predictions.

    >>> import numpy as np
    >>> draw = np.random.default_rng(0)
    >>> labels = np.repeat(["cat", "dog", "fox"], 40)
    >>> logits = 2.0 * (labels[:, None] == np.unique(labels)) + draw.normal(size=(2, 120, 3))
    >>> blend = ens.fit_blend({"vit": logits[0], "resnet": logits[1]}, labels, method="vote")
    >>> blend.weights["weight"].round(2).to_dict()
    {'vit': 0.22, 'resnet': 0.78}
    >>> blend.scores.loc["blend", ["accuracy", "accuracy_low", "accuracy_high"]].round(3).tolist()
    [0.933, 0.87, 0.967]
    >>> blend.predict({"vit": logits[0, 1::40], "resnet": logits[1, 1::40]}).tolist()
    ['cat', 'dog', 'fox']
    """
    arrays = by_member(oof)
    require_kind(arrays, kind)
    members = tuple(arrays)
    count, columns = next(iter(arrays.values())).shape
    codes, classes = columns_of(labels, columns)
    names = tuple(str(name) for name in classes)
    _require_rows("labels", codes, count)
    matrix = checked_costs(costs, metric, names)
    rows = Rows(
        ids=np.array([str(row) for row in range(count)]),
        labels=codes,
        folds=_folds(folds, count),
        clusters=_clusters(groups, count),
        grouped=groups is not None,
        classes=names,
    )
    if folds is not None and groups is not None and across(rows.folds, rows.clusters):
        raise UserError(
            "folds: a group is in two folds; put it in one, or leave folds out: groups are then dealt whole"
        )
    counts = np.bincount(codes, minlength=columns)
    shares = dict(zip(names, ((counts + 1) / (count + columns)).tolist(), strict=True))
    # Before folds are dealt: those are no model's, and a class that is 0 in all rows of one was not unknown to a model.
    read = {name: fit_logits(arrays[name], kind, name, rows.folds, shares) for name in members}
    values, zeros = [z for z, _ in read.values()], {name: each for name, (_, each) in read.items()}
    rows = replace(rows, folds=usable_folds(rows.folds, rows.clusters))
    for line in suspicious(rows, list(members), np.stack(values), list(members)):
        warnings.warn(line.removeprefix("warning: "), stacklevel=2)
    views = (EXTERNAL_VIEW,) * len(members)
    logits = Oof(rows, members, views, tuple(z[None] for z in values), {}, external=members)
    result = fit_oof(logits, Recipe(method, metric, costs=matrix))
    return FittedBlend(result, classes, members, kind, zeros)


def _folds(folds: ArrayLike | None, count: int) -> np.ndarray:
    if folds is None:
        return np.zeros(count, dtype=np.int64)
    numbers = np.asarray(folds)
    _require_rows("folds", numbers, count)
    if numbers.dtype.kind not in "iu" or numbers.min() < 0:
        raise UserError("folds: want whole numbers, 0 or more: leave rows out that were in no held-out fold")
    return numbers.astype(np.int64)


def _clusters(groups: ArrayLike | None, count: int) -> np.ndarray:
    if groups is None:
        return np.arange(count)
    names = np.asarray(groups)
    _require_rows("groups", names, count)
    lacking = np.asarray(pd.isna(names))
    if lacking.any():
        raise UserError(f"groups: row {int(lacking.argmax())} has none; give a row without a group one of its own")
    return np.asarray(pd.factorize(names)[0], dtype=np.int64)


def _require_rows(what: str, values: np.ndarray, count: int) -> None:
    if values.shape != (count,):
        raise UserError(f"{what}: {values.shape}, but the predictions have {count} rows; want ({count},)")

"""A blend as a scikit-learn classifier on its members' predictions."""

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from ensemble.api.predictions import Kind, fit_logits, new_logits, require_kind
from ensemble.blend import methods
from ensemble.blend.costs import checked_costs
from ensemble.blend.recipe import Recipe
from ensemble.errors import UserError
from ensemble.scoring.cross_fit import usable_folds
from ensemble.scoring.row_values import cheapest


class BlendClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Blends members' predictions that stand side by side in X, as `StackingClassifier`'s final estimator.

    X: floats (N, M * C): the C columns of the first member, then those of the second, and so on; or (N, M, C). The
    columns of a member are in the order of `classes_`, which is that of `np.unique(y)`. Rows are first in either, since
    `cross_val_score` and the like divide them. Of two classes a member may have one column, where n_members says so:
    the second class's probability, or its logit against 0. `StackingClassifier` gives such.

    method: as `ens blend --method`: "mean", "vote", "pool", "greedy", "stack", "trees" or "auto".
    metric: what the blend is for, as `ens blend --metric`: "log_loss", "accuracy", "macro_f1", "roc_auc", ...
    kind: what the numbers are: "logits", "probabilities", "percentages" or "log-probabilities".
    n_members: M; None: the columns of X divided by the number of classes.
    costs: float (C, C), with metric="expected_cost": what it costs to predict the column's class for a row whose true
    class is the row's. `predict` then gives the class of the least expected cost.

    The predictions in X have to come from models that never saw the rows. `cross_val_score` of this estimator is then
    an honest score of the blend; with `params={"groups": groups}` its inner folds keep groups together.

    classes_: (C,), the labels.
    costs_: float64 (C, C), the costs in the order of `classes_`; None where there are none.
    n_members_: M.
    n_features_in_: M * C.

    >>> import numpy as np
    >>> from sklearn.model_selection import cross_val_score
    >>> draw = np.random.default_rng(0)
    >>> y = np.repeat([0, 1, 2], 40)
    >>> X = np.hstack([2 * np.eye(3)[y] + draw.normal(size=(120, 3)) for _ in range(4)])
    >>> cross_val_score(ens.BlendClassifier(method="pool"), X, y, cv=3).round(2).tolist()
    [1.0, 1.0, 1.0]
    >>> blend = ens.BlendClassifier(method="vote").fit(X, y)
    >>> blend.n_members_, blend.predict_proba(X[:2]).shape
    (4, (2, 3))
    """

    def __init__(
        self,
        method: str = "stack",
        metric: str = "log_loss",
        kind: Kind = "logits",
        n_members: int | None = None,
        costs: ArrayLike | None = None,
    ) -> None:
        self.method = method
        self.metric = metric
        self.kind = kind
        self.n_members = n_members
        self.costs = costs

    def fit(self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None) -> Self:
        """Fit the blend on X and labels (N,). groups: (N,), of what has to share a fold where the method
        cross-validates within these rows. Raises ValueError for what does not fit together."""
        values, labels = validate_data(self, _flat(X), y, dtype=np.float64, ensure_min_samples=2)
        check_classification_targets(labels)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        count = len(self.classes_)
        if count < 2:
            raise ValueError(f"y has {count} class, want two or more")
        self.n_members_ = self._members(values.shape[1], count)
        names = np.arange(len(codes)) if groups is None else np.asarray(groups)
        if names.shape != codes.shape:
            raise ValueError(f"groups are {names.shape}, want ({len(codes)},)")
        clusters = np.unique(names, return_inverse=True)[1].astype(np.int64)
        folds = usable_folds(np.zeros(len(codes), dtype=np.int64), clusters)
        try:
            arrays = self._by_member(values)
            require_kind(arrays, self.kind)
            self.costs_ = checked_costs(self.costs, self.metric, tuple(map(str, self.classes_)))
            shares = dict(zip(map(str, self.classes_), (np.bincount(codes) + 1) / (len(codes) + count), strict=True))
            one_fold = np.zeros(len(codes), dtype=np.int64)
            read = [fit_logits(array, self.kind, name, one_fold, shares) for name, array in arrays.items()]
            self.zeros_ = [zeros for _, zeros in read]
            z, codes = np.stack([logits for logits, _ in read]), codes.astype(np.int64)
            recipe = Recipe(self.method, self.metric, costs=self.costs_)
            self.chain_ = methods.fit(recipe, z, codes, folds, clusters)
        except UserError as error:
            raise ValueError(str(error)) from None
        return self

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Probabilities float64 (N, C), rows sum to 1, in the order of `classes_`."""
        check_is_fitted(self)
        values = validate_data(self, _flat(X), dtype=np.float64, reset=False)
        try:
            arrays = self._by_member(values)
            require_kind(arrays, self.kind)
            each = zip(arrays.items(), self.zeros_, strict=True)
            z = np.stack([new_logits(array, self.kind, name, zeros) for (name, array), zeros in each])
            return methods.apply(self.chain_, z)
        except UserError as error:
            raise ValueError(str(error)) from None

    def predict(self, X: ArrayLike) -> np.ndarray:
        """The class of each row, (N,): the most probable one; with costs, that of the least expected cost."""
        probabilities = self.predict_proba(X)
        best = probabilities.argmax(axis=1) if self.costs_ is None else cheapest(probabilities, self.costs_)
        return np.asarray(self.classes_[best])

    def _members(self, columns: int, count: int) -> int:
        members = columns // count if self.n_members is None else self.n_members
        is_single = self.n_members is not None and count == 2 and members == columns
        if members < 1 or not (members * count == columns or is_single):
            per_member = f"{count} for each member" if self.n_members is None else f"{members} x {count}"
            raise ValueError(f"X has {columns} feature(s), but y has {count} classes: want {per_member}")
        return members

    def _by_member(self, values: np.ndarray) -> dict[str, np.ndarray]:
        """Each member's (N, C) of X (N, M * C)."""
        each = values.reshape(len(values), self.n_members_, -1).swapaxes(0, 1)
        if each.shape[2] == 1:
            each = np.concatenate([_first_column(each, self.kind), each], axis=2)
        return {f"member {number}": array for number, array in enumerate(each)}


def _first_column(second: np.ndarray, kind: Kind) -> np.ndarray:
    """What belongs to the first of two classes, from what the second has."""
    match kind:
        case "logits":
            return np.zeros_like(second)
        case "log-probabilities":
            with np.errstate(divide="ignore"):
                return np.asarray(np.log1p(-np.exp(second)))
        case _:
            return np.asarray((100 if kind == "percentages" else 1) - second)


def _flat(X: ArrayLike) -> Any:
    """(N, M, C) as (N, M * C); all else as it is."""
    return X.reshape(len(X), -1) if isinstance(X, np.ndarray) and X.ndim == 3 else X

"""Predictions and labels that are arrays: checked, and read in one way or refused."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ensemble.blend.external.scale import (
    LARGEST,
    floored,
    least_probability,
    log_sums,
    raised,
    without_unknown_classes,
)
from ensemble.data.classes import in_order, listed
from ensemble.errors import UserError

Kind = Literal["logits", "probabilities", "percentages", "log-probabilities"]
Predictions = np.ndarray | Mapping[str, ArrayLike] | Sequence[ArrayLike]

SUM_TOLERANCE = 1e-3  # of a row of probabilities: what float16 loses
RANGE_TOLERANCE = 1e-6  # a softmax in float32 may end at 1.0000001


def by_member(predictions: Predictions) -> dict[str, np.ndarray]:
    """Each member's predictions by its name, float64 (N, C), N and C alike.

    Raises UserError, naming the member, for other shapes and for what holds no numbers.
    """
    if isinstance(predictions, pd.DataFrame):
        raise UserError("predictions: a DataFrame; give an array (N, M, C), or a dict of each member's array (N, C)")
    if not isinstance(predictions, np.ndarray | Mapping | Sequence):
        raise UserError(
            f"predictions: {type(predictions).__name__}; give an array (N, M, C), or a dict or a list of (N, C)"
        )
    if isinstance(predictions, np.ndarray):
        if predictions.ndim != 3:
            raise UserError(f"predictions: an array {predictions.shape}; want (N, M, C): rows, members, classes")
        predictions = list(predictions.swapaxes(0, 1))
    if not isinstance(predictions, Mapping):
        predictions = {f"member {number}": values for number, values in enumerate(predictions)}
    arrays: dict[str, np.ndarray] = {}
    for name, values in predictions.items():
        if str(name) in arrays:
            raise UserError(f"predictions: two members are named {str(name)!r}; give each its own name")
        arrays[str(name)] = array = _numbers(values, str(name))
        first = next(iter(arrays))
        if array.shape != arrays[first].shape:
            raise UserError(f"{name}: an array {array.shape}, but {first} is {arrays[first].shape}")
    if not arrays:
        raise UserError("predictions: there are no members; give one or more")
    return arrays


def _numbers(values: ArrayLike, name: str) -> np.ndarray:
    if isinstance(values, pd.DataFrame):
        raise UserError(f"{name}: a DataFrame, which is not joined by id; give frame.loc[ids, classes].to_numpy()")
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(f"{name}: not an array of numbers ({error})") from None
    if array.ndim != 2 or len(array) == 0 or array.shape[1] < 2:
        raise UserError(f"{name}: an array {array.shape}; want (N, C): a row for each sample, a column for each class")
    return array


def require_kind(arrays: Mapping[str, np.ndarray], kind: Kind) -> None:
    """Raise UserError for a kind that is none, and for logits that look like probabilities: of many rows, each of which
    sums to 1."""
    if kind not in get_args(Kind):
        raise UserError(f"kind {kind!r} is not one of: {', '.join(get_args(Kind))}")
    for name, values in arrays.items() if kind == "logits" else ():
        if len(values) > 1 and values.min() >= 0 and np.abs(values.sum(axis=1) - 1).max() <= SUM_TOLERANCE:
            raise UserError(f"{name}: its rows sum to 1, as those of probabilities do: say kind='probabilities'")


@dataclass(frozen=True)
class Zeros:
    """What a member's probabilities of exactly 0 are read as, as the rows of the fit say: a prediction for a row then
    depends on no other row.

    floor: the probability that is taken for 0.
    unknown: bool (C,), the classes that were 0 in all rows of the fit, as of a model that was trained without them.
    shares: float64 (C,), of each class among the labels, above 0: taken for the classes that are unknown.
    """

    floor: float
    unknown: np.ndarray
    shares: np.ndarray


def fit_logits(
    values: np.ndarray, kind: Kind, name: str, folds: np.ndarray, shares: Mapping[str, float]
) -> tuple[np.ndarray, Zeros]:
    """Logits float32 (N, C) of a member's predictions, float64 (N, C), for a fit, and how its zeros are read later.
    Those of probabilities are their logs; for what is exactly 0 see `ensemble.blend.external.scale`.

    folds: int (N,), those of the member's models. shares: of each class among the labels, above 0.
    Raises UserError that names the member and the row for numbers that are not of this kind.
    """

    def warn(text: str) -> None:
        warnings.warn(f"{name}: {text}", stacklevel=3)

    z = _logs(values, kind, name)
    each = np.array(list(shares.values()))
    zeros = Zeros(least_probability(z), np.asarray(np.isneginf(z).all(axis=0)), each)
    return floored(without_unknown_classes(z, folds, each, tuple(shares), warn), warn), zeros


def new_logits(values: np.ndarray, kind: Kind, name: str, zeros: Zeros) -> np.ndarray:
    """Logits float32 (N, C) of a member's predictions for other rows, float64 (N, C). Raises UserError as
    `fit_logits`."""
    z = _logs(values, kind, name)
    unknown = zeros.unknown & np.isneginf(z)
    if unknown.any():
        share = np.log(zeros.shares / zeros.shares[~zeros.unknown].sum())
        z = np.where(unknown, log_sums(z)[:, None] + share, z)
    return raised(z, zeros.floor)


def _logs(values: np.ndarray, kind: Kind, name: str) -> np.ndarray:
    """Logits float64 (N, C), -inf for probabilities that are 0."""

    def refuse(rows: np.ndarray, what: str) -> None:
        if rows.any():
            raise UserError(f"{name}: row {int(rows.argmax())}: {what} ({int(rows.sum())} rows)")

    refuse(np.isnan(values).any(axis=1), "NaN")
    if kind == "logits":
        refuse(np.abs(values).max(axis=1) > LARGEST, "an infinite logit")
        return values
    total = 100.0 if kind == "percentages" else 1.0
    probabilities = np.exp(values) if kind == "log-probabilities" else values / total
    lowest, highest = probabilities.min(axis=1), probabilities.max(axis=1)
    outside = np.asarray((lowest < -RANGE_TOLERANCE) | (highest > 1 + SUM_TOLERANCE))
    refuse(outside, f"{kind} out of their range: say what the numbers are with kind=")
    sums = probabilities.sum(axis=1)
    refuse(np.abs(sums - 1) > SUM_TOLERANCE, f"{kind} that do not sum to {total:g}")
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(np.clip(probabilities, 0, None) / sums[:, None]))


def columns_of(labels: ArrayLike, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The column of each label, int64 (N,), and the labels of the `count` columns.

    The columns stand for the categories of a pandas.Categorical, else for the different labels in ascending order.
    Raises UserError if that are not as many, or if the order is not clear.
    """
    values = labels.array if isinstance(labels, pd.Series) else labels
    if isinstance(values, pd.Categorical):
        classes, columns = values.categories.to_numpy(), values.codes.astype(np.int64)
    else:
        values = np.asarray(values)
        if values.ndim != 1:
            raise UserError(f"labels: an array {values.shape}; want (N,)")
        kinds = {type(value) for value in values.tolist()}
        if kinds not in ({int}, {str}, {bool}):
            raise UserError(f"labels: of {values.dtype}; want integers or strings")
        classes, columns = np.unique(values, return_inverse=True)
    by_order = "give them as pandas.Categorical(labels, categories=[...]), in the order of the columns"
    if (columns < 0).any():
        raise UserError(f"labels: row {int((columns < 0).argmax())} has none of the categories: {listed(classes)}")
    if len(classes) != count:
        raise UserError(f"labels: {len(classes)} classes, but the predictions have {count} columns: {by_order}")
    texts = [str(name) for name in classes]
    if not isinstance(values, pd.Categorical) and classes.dtype.kind not in "biu" and list(in_order(texts)) != texts:
        raise UserError(f"labels: numbers as strings, whose order may be {listed(texts)} or by value: {by_order}")
    return columns.astype(np.int64), classes

"""What the numbers of predictions that ens did not make are: probabilities, percentages, log-probabilities or logits.

Recognised by their range and the sums of their rows, and named in one line. What can be read in two ways is refused
until the user names one; scales that few tools write (logs to base 2 or 10, counts of votes) are not guessed at.
What is exactly 0 is treated here too: a log has no 0, and a 0 in one member would forbid a class to the whole blend.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ensemble.errors import UserError
from ensemble.scoring.row_values import FLOOR

KINDS = ("probabilities", "percentages", "log-probabilities", "logits")
SLACK = 1e-6  # a softmax in float32 may end at 1.0000001
LARGEST = float(np.finfo(np.float32).max)
ROUNDED = 20.0  # percentages: rows of many small classes, rounded to 0, may sum to so much less than 100
NEAR = 0.05  # numbers no farther outside of [0, 1], in rows whose sums are as near to 1, are meant as probabilities
BASES = {10: np.log(10), 2: np.log(2)}
# What is raised from 0 has so much of a row in all, at most. Votes of 10 (300 rows, 4 classes) so had a log loss of
# 0.81, with 0.4 % 0.87 and with 20 % 0.80; percentages without digits 0.71 with each.
RAISED = 0.03


@dataclass(frozen=True)
class Scale:
    """What the numbers of a file are.

    kind: one of KINDS.
    message: the line that tells the reader what they were read as.
    """

    kind: str
    message: str

    @property
    def total(self) -> float:
        """What a row of probabilities sums to."""
        return 100.0 if self.kind == "percentages" else 1.0


def recognised(values: np.ndarray, path: Path, name: str, kind: str | None = None) -> Scale:
    """What values float (N, C) are, finite or -inf; or `kind`, if the user names it.

    name: the member's, for messages. Raises UserError, saying how the reading is named, where it can't be told, for
    probabilities outside of [0, 1] and for logs to another base.
    """
    low, high = float(values.min()), float(values.max())
    sums = values.sum(axis=1, dtype=np.float64) if low > -LARGEST else np.full(len(values), -np.inf)
    seen = f"its values ({low:.4g} to {high:.4g}, rows sum to {_range(sums)})"
    if kind is not None:
        return Scale(kind, f"{seen} were read as {kind}, as you asked")
    option = f"--read-as {name}=KIND, KIND being one of {', '.join(KINDS)}"
    rounding = values.shape[1] * _unit(values) if low >= -SLACK else 0.0  # what a row's sum may lose
    spread = max(1e-3 * sums.max(), min(rounding, 0.02 * sums.max()))
    constant = len(sums) > 1 and sums.min() > 0.5 and np.ptp(sums) <= spread
    if low >= -SLACK and high <= 1 + SLACK:
        return Scale("probabilities", f"{seen} were read as probabilities")
    if low >= -SLACK:
        most = min(0.1 + rounding, ROUNDED)
        if high <= 100 + 1e-3 and sums.min() >= 100 - most and sums.max() <= 100 + most / 2 + 0.05:
            return Scale("percentages", f"{seen} were read as percentages")
    if low >= -NEAR and high <= 1 + NEAR and np.abs(sums - 1).max() <= NEAR:
        raise UserError(
            f"{path}: {seen} look like probabilities, but some are outside of [0, 1]: with --read-as "
            f"{name}=probabilities, negative ones count as 0 and each row is divided by its sum"
        )
    if low >= 0 or constant:
        raise UserError(
            f"{path}: {seen} may be logits, or probabilities that do not sum to 1 (each row is then divided by its "
            f"sum): say which with {option}"
        )
    if high <= SLACK:
        if np.abs(log_sums(values)).max() <= 0.02:
            return Scale("log-probabilities", f"{seen} were read as log-probabilities")
        for base, factor in BASES.items():
            if np.abs(log_sums(values * factor)).max() <= 0.02:
                raise UserError(
                    f"{path}: {seen} look like log-probabilities to base {base}: multiply them by {factor:.6g} for "
                    f"natural logs, or, if they are logits, say so with --read-as {name}=logits"
                )
    return Scale("logits", f"{seen} were read as logits")


def logits_of(values: np.ndarray, scale: Scale, ids: np.ndarray, warn: Callable[[str], None]) -> np.ndarray:
    """Logits float64 (N, C) of values that are of this scale: those of probabilities are their logs, -inf for 0."""
    if scale.kind in ("logits", "log-probabilities"):
        return np.where(values < -LARGEST, -np.inf, values)
    p = np.clip(values.astype(np.float64), 0, None)
    sums = p.sum(axis=1) / scale.total
    off = np.abs(sums - 1) > 1e-3 + values.shape[1] * _unit(values) / scale.total
    if off.any():
        warn(
            f"{int(off.sum())} of {len(ids)} rows do not sum to {scale.total:.4g} (first: id {str(ids[off][0])!r}, sum "
            f"{scale.total * sums[off][0]:.4g}); they were divided by their sums"
        )
    if scale.total == 1 and np.isin(values, (0, 1)).all():
        warn("it holds only 0 and 1, as labels do: how sure the model was can't be told")
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(p / p.sum(axis=1, keepdims=True)))


def without_unknown_classes(
    z: np.ndarray, folds: np.ndarray, shares: np.ndarray, classes: tuple[str, ...], warn: Callable[[str], None]
) -> np.ndarray:
    """Logits (N, C) in which a class that has probability 0 in all rows of a fold has its share of the labels instead.

    A model that was trained without a class gives it 0 everywhere; that says nothing of the images, and a blend with it
    would never choose the class. folds: int (N,). shares: (C,), above 0. A test set is one fold, -1.
    """
    z = z.copy()
    lacking: dict[tuple[int, ...], list[int]] = {}
    for fold in np.unique(folds).tolist():
        where = np.flatnonzero(folds == fold)
        unknown = np.isneginf(z[where]).all(axis=0)
        if len(where) > 1 and unknown.any():
            z[np.ix_(where, unknown)] = log_sums(z[where])[:, None] + np.log(shares[unknown] / shares[~unknown].sum())
            lacking.setdefault(tuple(np.flatnonzero(unknown).tolist()), []).append(fold)
    for unknown_classes, of_folds in lacking.items():
        first, more = unknown_classes[0], len(unknown_classes) - 1
        also = f" and {more} more classes" if more else ""
        of = f" of fold {', '.join(map(str, of_folds))}" if len(of_folds) < len(np.unique(folds)) else ""
        warn(
            f"gives {classes[first]!r}{also} a probability of exactly 0 in all {int(np.isin(folds, of_folds).sum())} "
            f"rows{of}, as a model does that was trained without the class; its share of the labels "
            f"({shares[first]:.2%}) is taken there"
        )
    return z


def floored(z: np.ndarray, warn: Callable[[str], None]) -> np.ndarray:
    """Logits float32 (N, C) without -inf: what has probability 0 is given half of the least probability above 0, at
    least 1e-15, at most 3 % of the row for all classes, and never more than what is least in its row."""
    zero = np.isneginf(z)
    if not zero.any():
        return np.asarray(z, dtype=np.float32)
    floor = least_probability(z)
    if floor > 1e-12:
        warn(
            f"{int(zero.sum()):,} of its {zero.size:,} probabilities are exactly 0 and were raised to {floor:.2g}: as "
            "0 they would forbid a class to the whole blend"
        )
    return raised(z, floor)


def least_probability(z: np.ndarray) -> float:
    """What `floored` gives to probabilities of 0 among logits (N, C)."""
    known = ~np.isneginf(z)
    least = float(np.exp((z - log_sums(z)[:, None])[known].min()))
    return float(np.clip(least / 2, FLOOR, RAISED / z.shape[1]))


def raised(z: np.ndarray, floor: float) -> np.ndarray:
    """Logits float32 (N, C) in which what is -inf has the probability `floor`, but never more than the least of its
    row: a row's numbers depend on no other row."""
    zero = np.isneginf(z)
    lowest = np.where(zero, np.inf, z).min(axis=1, keepdims=True)
    return np.where(zero, np.minimum(log_sums(z)[:, None] + np.log(floor), lowest), z).astype(np.float32)


def _unit(values: np.ndarray) -> float:
    """1 if all values are whole, 0.1 if all are tenths, ...; 0 of what is not rounded."""
    for digits in range(4):
        scaled = values.astype(np.float64) * 10**digits
        if np.abs(scaled - np.round(scaled)).max() < 1e-4 * 10**digits:
            return float(10.0**-digits)
    return 0.0


def log_sums(z: np.ndarray) -> np.ndarray:
    """Log of the sum of exp(z) in each row, float64 (N,)."""
    top = z.max(axis=1).astype(np.float64)
    return np.asarray(top + np.log(np.exp(z - top[:, None]).sum(axis=1)))


def _range(sums: np.ndarray) -> str:
    low, high = float(sums.min()), float(sums.max())
    return f"{low:.4g}" if f"{low:.4g}" == f"{high:.4g}" else f"{low:.4g} to {high:.4g}"

"""The area under the ROC curve of a score that tells unknown images from known ones."""

import math

import numpy as np


def auroc(known: np.ndarray, unknown: np.ndarray) -> float:
    """How likely one of the unknown scores (m,) is greater than one of the known ones (n,), a tie counting half."""
    return float(_beaten(known, unknown).mean())


def auroc_error(known: np.ndarray, unknown: np.ndarray) -> float:
    """Its standard error (DeLong et al., Comparing the areas under two or more correlated receiver operating
    characteristic curves, Biometrics 1988)."""
    of_unknown, of_known = _beaten(known, unknown), 1 - _beaten(unknown, known)
    return math.sqrt(sum(float(each.var(ddof=1)) / len(each) for each in (of_unknown, of_known)))


def _beaten(known: np.ndarray, unknown: np.ndarray) -> np.ndarray:
    """The share of the known scores that each of the unknown ones is greater than, float64 (m,)."""
    in_order = np.sort(known)
    left, right = (np.searchsorted(in_order, unknown, side) for side in ("left", "right"))
    return np.asarray((left + right) / 2 / len(known))

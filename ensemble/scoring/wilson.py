"""Wilson's interval of a share, which is sound for few rows and at 0 and 1. Never imports torch."""

from statistics import NormalDist

import numpy as np

Z = NormalDist().inv_cdf(0.975)


def wilson(right: np.ndarray, rows: np.ndarray, z: float = Z) -> np.ndarray:
    """The low and high ends of the 95% intervals of C shares, float64 (2, C); NaN of no rows.

    right: float (C,), how many rows are right.
    rows: float (C,), of how many.
    z: how many standard errors make it; another one for another level, or for few clusters of rows.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        share = right / rows
        middle = (share + z**2 / (2 * rows)) / (1 + z**2 / rows)
        half = z * np.sqrt(share * (1 - share) / rows + z**2 / (4 * rows**2)) / (1 + z**2 / rows)
    return np.asarray(np.clip(np.stack([middle - half, middle + half]), 0, 1))

"""Wilson's interval of a share, which is sound for few rows and at 0 and 1. Never imports torch."""

from statistics import NormalDist

import numpy as np

Z = NormalDist().inv_cdf(0.975)


def wilson(right: np.ndarray, rows: np.ndarray, z: float = Z) -> np.ndarray:
    """95% interval of a share, float64 (2, C), of `right` among `rows`, each (C,); NaN of no rows.

    z: how many standard errors make it; another one for another level, or for few clusters of rows.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        share = right / rows
        middle = (share + z**2 / (2 * rows)) / (1 + z**2 / rows)
        half = z * np.sqrt(share * (1 - share) / rows + z**2 / (4 * rows**2)) / (1 + z**2 / rows)
    return np.asarray(np.clip(np.stack([middle - half, middle + half]), 0, 1))

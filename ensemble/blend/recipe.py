"""What a blend is fitted by, as its owner asks for it."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Recipe:
    """What is fitted.

    method, metric: as `ens blend` is told; see `ensemble.blend.methods`.
    shares: float64 (C,), the classes' shares where the blend is to be used; None for those of the rows.
    costs: float64 (C, C), what mistakes cost, for a metric that needs it.
    calibration: what follows the method, one of `ensemble.blend.scaling.KINDS`.
    """

    method: str
    metric: str = "log_loss"
    shares: np.ndarray | None = None
    costs: np.ndarray | None = None
    calibration: str = "temperature"

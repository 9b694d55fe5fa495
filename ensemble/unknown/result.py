"""The result of `ens unknown`."""

from dataclasses import dataclass
from pathlib import Path

from ensemble.ood.choose import Trial


@dataclass(frozen=True)
class FittedDetector:
    """A detector that was fitted, chosen and saved.

    blend: the name of its blend
    path: the detector's file
    rows: how many training rows images are compared with
    trials: of all candidates, the best one first, which was taken
    rate: a false alarm rate to ask for, 0.01 or the lowest that the rows allow
    """

    blend: str
    path: Path
    rows: int
    trials: tuple[Trial, ...]
    rate: float

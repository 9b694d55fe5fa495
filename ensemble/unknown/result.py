"""What `ens unknown` answers."""

from dataclasses import dataclass
from pathlib import Path

from ensemble.ood.choose import Trial


@dataclass(frozen=True)
class FittedDetector:
    """What `ens unknown` answers.

    blend: its name
    path: of the detector
    rows: how many training rows images are compared with
    trials: of all candidates, the best one first, which was taken
    """

    blend: str
    path: Path
    rows: int
    trials: tuple[Trial, ...]

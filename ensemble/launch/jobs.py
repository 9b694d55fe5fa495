"""What every launcher is given: the work of a job, and who is told of it."""

from collections.abc import Callable
from dataclasses import dataclass

from ensemble.events import Events
from ensemble.launch.slots import Slot
from ensemble.run import Fold


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    seconds: of training, 0 unless it is done
    error: why it failed, else None
    is_locked: whether it was left to another process, which is training it or has ended it
    """

    seconds: float = 0.0
    error: str | None = None
    is_locked: bool = False


Work = Callable[[Fold, Slot, Events], Outcome]
Listen = Callable[[Fold], Events]  # who listens to a job
End = Callable[[Fold, Outcome], None]  # told of each job that ended

"""What may be asked beside an image's class."""

from dataclasses import dataclass

OF_FILES = (
    "an exported file gives the average over the folds' networks, which no out-of-fold row was predicted by; ask the "
    "run itself for prediction sets and abstention"
)


@dataclass(frozen=True)
class CertaintyRequest:
    """What is asked beside the classes; None for what is not.

    sets: the level of prediction sets: the share of images whose set is to hold the true class
    sets_by: "class" for a promise to each class, "group" where the images of a group count as one; None for neither
    abstain: the error rate that what is answered may have
    unknown: the share of images like the training rows that may be called unknown
    """

    sets: float | None = None
    sets_by: str | None = None
    abstain: float | None = None
    unknown: float | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing is asked."""
        return self == CertaintyRequest()

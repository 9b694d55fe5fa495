"""The files of a member that ens did not train."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ExternalFiles:
    """A member that ens did not train.

    name: of the member.
    oof: the file of its out-of-fold predictions.
    test: that of its predictions of the test set; None where there is none.
    kind: what its numbers are, one of `scale.KINDS`; None to see it by the numbers.
    """

    name: str
    oof: Path
    test: Path | None = None
    kind: str | None = None

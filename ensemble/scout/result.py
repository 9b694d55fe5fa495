"""What a scout has found."""

from dataclasses import dataclass

from ensemble.scoring.bootstrap import Gain, Score
from ensemble.scout.plan import Plan


@dataclass(frozen=True)
class Probed:
    """A backbone by itself, as a linear probe at the temperature that fits the other folds.

    name: of the member.
    timm: its architecture.
    image_size: side of its input, px.
    ms: milliseconds per image of a forward pass by one core, or by the GPU.
    scores: by metric, out of fold.
    gains: by metric, over the best backbone by itself; empty for that one.
    """

    name: str
    timm: str
    image_size: int
    ms: float
    scores: dict[str, Score]
    gains: dict[str, Gain]


@dataclass(frozen=True)
class Blended:
    """The best blend at its cost: no blend that was tried is as cheap and better.

    members: their names.
    ms: milliseconds per image of all of them.
    scores: by metric, each fold at the temperature that fits the others; chosen on these rows, so optimistic.
    nested: by metric, of the best blends at that cost, each chosen without the fold that it is scored on.
    gains: by metric, of `scores` over the best backbone by itself.
    by_fold: on how many folds `nested` chose the same members.
    """

    members: tuple[str, ...]
    ms: float
    scores: dict[str, Score]
    nested: dict[str, Score]
    gains: dict[str, Gain]
    by_fold: int


@dataclass(frozen=True)
class Front:
    """The blends that nothing cheaper beats.

    metric: by which they are compared.
    singles: each backbone, the best first.
    blends: from the cheapest to the best.
    simplest: position of the cheapest within one standard error of the best.
    tried, largest: how many sets of backbones were tried, and the most in one.
    rows: N. groups: of the rows, None where there are none. folds: K.
    """

    metric: str
    singles: tuple[Probed, ...]
    blends: tuple[Blended, ...]
    simplest: int
    tried: int
    largest: int
    rows: int
    groups: int | None
    folds: int


@dataclass(frozen=True)
class Scouted:
    """What `ens scout` answers.

    front: the backbones and their blends.
    skipped: a line for each backbone that could not be probed.
    chosen: position of the chosen blend in `front.blends`.
    plan: how it is fine-tuned within the budget; None without one.
    experiment: the file that was written.
    """

    front: Front
    skipped: tuple[str, ...]
    chosen: int
    plan: Plan | None
    experiment: str

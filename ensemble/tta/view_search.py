"""What a search for the best set of views has found."""

from dataclasses import dataclass

from ensemble.scoring.bootstrap import Gain, Score


@dataclass(frozen=True)
class BestOfSize:
    """The best set of one size.

    views: chosen on all rows, in the run's order
    ms: milliseconds per image with them
    scores: by metric, cross-fitted: each fold is scored by the best set of this size on the other folds
    gains: by metric, over the base view alone, likewise
    by_fold: for each fold the set that is chosen without it
    pareto: whether no other size is at least as cheap with at least as low a log loss, and better in one of the two
    """

    views: tuple[str, ...]
    ms: float
    scores: dict[str, Score]
    gains: dict[str, Gain]
    by_fold: tuple[tuple[str, ...], ...]
    pareto: bool


@dataclass(frozen=True)
class SingleView:
    """One view beside the base.

    view: its name
    ms: milliseconds that it adds per image
    added: by metric, what base and view together gain over the base alone
    alone: by metric, what the view alone gains over the base alone
    verdict: "helps", "hurts" or "no difference can be told", of `added` by the search's metric at 95%: if no view had
        any effect, 5% would still be said to help or hurt, by chance
    """

    view: str
    ms: float
    added: dict[str, Gain]
    alone: dict[str, Gain]
    verdict: str


@dataclass(frozen=True)
class ViewSearch:
    """What the search has found.

    metric: by which sets and sizes were chosen
    base: the view in every set
    chosen: the recommended set, the base alone where the whole search gains nothing
    found: the best set of the chosen size
    sizes: 1 to V views
    singles: each view but the base
    honest: by metric, the scores of the whole search, with the choice of the size nested in the cross-fitting
    honest_gains: by metric, over the base alone, likewise
    exhaustive: whether all sets were tried
    rows: N
    groups: how many groups the rows have; None for rows without groups
    folds: K
    notes: lines to print
    """

    metric: str
    base: str
    chosen: tuple[str, ...]
    found: tuple[str, ...]
    sizes: tuple[BestOfSize, ...]
    singles: tuple[SingleView, ...]
    honest: dict[str, Score]
    honest_gains: dict[str, Gain]
    exhaustive: bool
    rows: int
    groups: int | None
    folds: int
    notes: tuple[str, ...]

"""`ens tta-search`: the smallest set of views that is worth its cost. Never imports torch.

A set is scored as the blend `mean` would be with it: softmax of the mean logits of all members over all views in the
set, at one temperature. The mean over members commutes with the mean over views, so that all sets are made of one
array, the members' mean (V, N, C). Every set holds the base view, the image as it is. Of each size the set of the best
score is taken, and of the sizes the cheapest within one standard error of the best (`auto.choose`): the smallest, where
views cost the same. A set with a view that hurts is not taken, however low its log loss (`_harmless`): the mean of many
views may know better when it is wrong, and be wrong more often.
Both choices and the temperature are cross-fitted, so that no row is scored by what was chosen on it. Where the whole
search gains nothing on such rows, the base is what it recommends. That a view may hurt, and which, depends on the data:
Shanmugam et al., "Better Aggregation in Test-Time Augmentation" (ICCV 2021).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import numpy as np

from ensemble.blend.compare import differing_units, tells
from ensemble.blend.methods import auto
from ensemble.blend.methods.pool import centred, inverse_temperature
from ensemble.blend.oof import Oof
from ensemble.blend.probabilities import softmax
from ensemble.errors import UserError
from ensemble.events import SILENT, Events
from ensemble.scoring.bootstrap import Gain, Score, bootstrap, gain, scores
from ensemble.scoring.cross_fit import cross_fit, usable_folds
from ensemble.scoring.metrics import searchable
from ensemble.scoring.outcomes import Outcome, outcome
from ensemble.tta.view_losses import Set, Work, set_mean, set_metric, set_ms, tempered

BASE = "identity"
MOST_SETS, MOST_WORK = 1024, 500_000_000  # sets, and numbers in them: of more, sets are grown view by view
EQUAL = 1e-5  # scores that differ by less are the same: temperatures are fitted to some millionths of a nat
VERDICTS = {1: "helps", -1: "hurts", 0: "no difference can be told"}


@dataclass(frozen=True)
class Size:
    """The best set of one size.

    views: the set chosen on all rows, in the run's order; ms: what an image costs with it. scores, gains: by metric,
    cross-fitted: the best set of this size is chosen without the fold that is scored; gains are over the base view
    alone. by_fold: the set chosen without each fold. pareto: no other size is as cheap or cheaper and has as low or
    lower a log loss, one of the two strictly.
    """

    views: tuple[str, ...]
    ms: float
    scores: dict[str, Score]
    gains: dict[str, Gain]
    by_fold: tuple[tuple[str, ...], ...]
    pareto: bool


@dataclass(frozen=True)
class Single:
    """One view beside the base. ms: what it adds to an image's cost. added, alone: by metric, what the base and it, and
    it alone, gain over the base alone. verdict: on `added`, by the search's metric, one of VERDICTS, each at 95%: of
    V - 1 views that do nothing, 0.05 (V - 1) are told to do something by chance alone."""

    view: str
    ms: float
    added: dict[str, Gain]
    alone: dict[str, Gain]
    verdict: str


@dataclass(frozen=True)
class ViewSearch:
    """sizes: of 1 to V views. found: the set of the size that was chosen. chosen: the set that is recommended, the
    base where the whole procedure gains nothing. honest, honest_gains: by metric, the whole procedure's, the choice of
    the size included, nested in the cross-fitting. exhaustive: whether all sets were tried. groups: how many, None
    where the rows have none. notes: lines to print."""

    metric: str
    base: str
    chosen: tuple[str, ...]
    found: tuple[str, ...]
    sizes: tuple[Size, ...]
    singles: tuple[Single, ...]
    honest: dict[str, Score]
    honest_gains: dict[str, Gain]
    exhaustive: bool
    rows: int
    groups: int | None
    folds: int
    notes: tuple[str, ...]


def search_views(
    oof: Oof,
    pass_ms: np.ndarray,
    once_ms: float,
    metric: str = "log_loss",
    events: Events = SILENT,
) -> ViewSearch:
    """The cheapest set of views whose size's cross-fitted score is within one standard error of the best size's.

    pass_ms: float64 (M, V), milliseconds an image of each member and view; once_ms: what an image costs once, whatever
    the views. metric: one of `searchable`, by which sets and sizes are chosen; temperatures are fitted by log loss, and
    no class gets a bias. The base is `identity`, or the first view where there is none.
    Raises UserError for an unknown metric, fewer than two views, or fewer than two units (rows or groups); ValueError
    for members with different views, and for costs that are not of shape (M, V), negative or not finite.
    """
    if metric not in searchable():
        raise UserError(f"views can't be searched by {metric!r}; by one of: {', '.join(searchable())}")
    views = oof.views[0]
    if any(own != views for own in oof.views):
        raise ValueError(f"members have different views: {sorted(set(oof.views))}")
    if len(views) < 2:
        raise UserError(f"there is only the view {views[0]}: add others with: ens tta-oof RUN --views flips")
    costs = np.asarray(pass_ms, dtype=np.float64)
    if costs.shape != (len(oof.members), len(views)):
        raise ValueError(f"pass_ms is {costs.shape}, want {(len(oof.members), len(views))}: members x views")
    if not (np.isfinite(costs).all() and np.isfinite(once_ms) and costs.min() >= 0 and once_ms >= 0):
        raise ValueError("pass_ms and once_ms are milliseconds: finite, and 0 or more")
    work = _work(oof, costs.sum(axis=0), metric)
    labels, every, base, count = work.labels, np.arange(len(work.labels)), work.base, len(views)
    others = [v for v in range(count) if v != base]

    runs: list[Callable[[np.ndarray, np.ndarray], np.ndarray]] = []
    runs += [partial(_of_size, work, size) for size in range(1, count + 1)]
    runs += [partial(_probabilities, work, own) for own in [_with((base,), v) for v in others] + [(v,) for v in others]]
    runs += [partial(_whole, work)]
    outcomes = []
    for number, run in enumerate(runs):
        events.progress("comparing the sets of views", number, len(runs))
        outcomes.append(outcome(labels, cross_fit(run, work.folds, work.units), (metric,)))
    drawn = bootstrap(labels, outcomes, work.units, oof.classes)
    table = scores(labels, outcomes, work.folds, oof.classes, drawn)
    gains = [{m: gain(m, table, drawn, s, 0, views[base]) for m in drawn} for s in range(len(runs))]

    def names(sets: list[Set]) -> list[tuple[str, ...]]:
        return [tuple(views[v] for v in own) for own in sets]

    sets = _best_sets(work, every)
    ms = [float(once_ms) + set_ms(work, own) for own in sets]
    front = pareto(ms, [own["log_loss"].value for own in table[:count]])
    by_fold = [names(_best_sets(work, np.flatnonzero(work.folds != fold))) for fold in np.unique(work.folds)]
    of_size = zip(names(sets), ms, table, gains, zip(*by_fold, strict=True), front, strict=False)
    sizes = tuple(Size(*own) for own in of_size)
    singles = []
    for v, pair, alone in zip(others, range(count, len(runs)), gains[2 * count - 1 :], strict=False):
        differ = None if metric == "log_loss" else _differ(outcomes[pair], outcomes[0], work)
        added = gains[pair][metric]
        verdict = VERDICTS[tells(added, differ) if abs(added.value) > EQUAL else 0]
        singles.append(Single(views[v], float(work.ms[v]), gains[pair], alone, verdict))
    found = sizes[_choose_size(work, every) - 1].views
    return ViewSearch(
        metric=metric,
        base=views[base],
        chosen=found if _gains(gains[-1], metric) else (views[base],),
        found=found,
        sizes=sizes,
        singles=tuple(singles),
        honest=table[-1],
        honest_gains=gains[-1],
        exhaustive=work.exhaustive,
        rows=len(labels),
        groups=len(np.unique(work.units)) if oof.rows.grouped else None,
        folds=len(by_fold),
        notes=tuple(f"left out: {member} ({why})" for member, why in oof.left_out.items()),
    )


def pareto(ms: Sequence[float], losses: Sequence[float]) -> list[bool]:
    """Which of S candidates no other one beats: none is as cheap and as good, and better in at least one of the two."""
    pairs = list(zip(ms, losses, strict=True))
    return [not any(o[0] <= own[0] and o[1] <= own[1] and o != own for o in pairs) for own in pairs]


def _work(oof: Oof, ms: np.ndarray, metric: str) -> Work:
    rows, views = oof.rows, oof.views[0]
    z = oof.values[0].astype(np.float32)
    for own in oof.values[1:]:
        z += own
    z = centred(z / np.float32(len(oof.values)))
    folds = usable_folds(rows.folds, rows.units)
    cells = folds.copy()
    if len(np.unique(folds)) == 2:  # of one fold to train on, `cross_fit` makes parts: the nested choice needs them
        for fold in np.unique(folds):
            own = np.flatnonzero(folds == fold)
            cells[own] = usable_folds(folds[own], rows.units[own]) + len(folds) * fold
    cells = np.unique(cells, return_inverse=True)[1]
    right = np.stack([np.bincount(cells, own[np.arange(len(cells)), rows.labels]) for own in z])
    base, sets = views.index(BASE) if BASE in views else 0, 2 ** (len(views) - 1)
    exhaustive = sets <= MOST_SETS and sets * z[0].size <= MOST_WORK
    return Work(z, rows.labels, folds, rows.units, cells, np.bincount(cells), right, ms, metric, base, exhaustive)


def _of_size(work: Work, size: int, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """As `cross_fit` wants it: the set of that size that is best on the training rows."""
    return _probabilities(work, _best_sets(work, train)[size - 1], train, test)


def _whole(work: Work, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """As `_of_size`, with the size chosen on the training rows too, by cross-fitting among them."""
    return _of_size(work, _choose_size(work, train), train, test)


def _choose_size(work: Work, rows: np.ndarray) -> int:
    """The cheapest size within one standard error of the best, by cross-fitting among the rows, of those whose best set
    has no view that hurts."""

    def run(size: int, train: np.ndarray, test: np.ndarray) -> np.ndarray:
        return _of_size(work, size, rows[train], rows[test])

    sets = _best_sets(work, rows)  # a set of more views that are cheap may cost less than one of few
    sizes = [size for size in range(1, len(sets) + 1) if _harmless(work, sets[size - 1], rows)]
    order = sorted(sizes, key=lambda size: (set_ms(work, sets[size - 1]), size))
    runs = {str(size): partial(run, size) for size in order}
    own = work.labels[rows], work.folds[rows], work.units[rows]
    chosen, tried = auto.choose(runs, *own, work.z.shape[2], work.metric)
    return int(next((name for name, score in tried.items() if abs(score - tried[chosen]) < EQUAL), chosen))


def _harmless(work: Work, chosen: Set, rows: np.ndarray) -> bool:
    """Whether a set gets no fewer of the rows right than the base alone, and without any one of its views not more, by
    over one standard error. Metrics that weigh the classes may cost accuracy: they are asked alone."""
    if work.metric not in ("log_loss", "accuracy") or len(chosen) == 1:
        return True
    labels = work.labels[rows]
    units = np.unique(work.units[rows], return_inverse=True)[1]

    def gained(other: Set) -> tuple[float, float]:
        """How many more rows the set gets right than another one, and the standard error of that."""
        right, its = (set_mean(work, own, rows).argmax(axis=1) == labels for own in (chosen, other))
        each = np.bincount(units, right.astype(float) - its)
        return float(each.sum()), float(each.std() * np.sqrt(len(each)))

    if gained((work.base,))[0] < 0:
        return False
    without = [gained(tuple(v for v in chosen if v != own)) for own in chosen if own != work.base]
    return all(more >= -error for more, error in without)


def _gains(honest: dict[str, Gain], metric: str) -> bool:
    """Whether the whole search gains anything over the base on rows that it did not choose on; by log loss it may not
    cost accuracy either."""
    return honest[metric].value > EQUAL and (metric != "log_loss" or honest["accuracy"].value >= 0)


def _probabilities(work: Work, chosen: Set, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Of the test rows (n, C), at the temperature of the training rows."""
    key = chosen, _cells(work, train)
    if key not in work.inverse:
        guess = tempered(work, *key)[1]
        work.inverse[key] = inverse_temperature(set_mean(work, chosen, train), work.labels[train], guess)
    return softmax(set_mean(work, chosen, test) * work.inverse[key])


def _best_sets(work: Work, train: np.ndarray) -> list[Set]:
    """For each size the set of the best score on the training rows; of equal ones the cheapest, then the first."""
    parts = _cells(work, train)
    if parts not in work.best:
        near = tempered(work, (work.base,), parts)[2]

        def rank(chosen: Set) -> tuple[float, float, float]:
            score = 0.0 if work.metric == "log_loss" else -set_metric(work, chosen, parts)
            return score, tempered(work, chosen, parts, near)[0], set_ms(work, chosen)

        others = [v for v in range(len(work.z)) if v != work.base]
        found: list[Set] = [(work.base,)]
        for size in range(1, len(work.z)):
            if work.exhaustive:
                tried = [_with(extra, work.base) for extra in combinations(others, size)]
            else:
                tried = [_with(found[-1], v) for v in others if v not in found[-1]]
            found.append(min(tried, key=rank))
        work.best[parts] = found
    return work.best[parts]


def _cells(work: Work, rows: np.ndarray) -> tuple[int, ...]:
    return tuple(np.unique(work.cells[rows]).tolist())


def _with(chosen: Set, view: int) -> Set:
    return tuple(sorted((*chosen, view)))


def _differ(one: Outcome, other: Outcome, work: Work) -> int:
    """Units on which one is not right as often as the other."""
    right, its = (each.predicted == work.labels for each in (one, other))
    return int(differing_units(right[None], its, work.units)[0])

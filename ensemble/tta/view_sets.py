"""`ens tta-search`: the smallest set of views that is worth its cost. Never imports torch.

A set is scored as the blend `mean` would be with it: softmax of the mean logits of all members over all views of the
set, at one temperature. The mean over members commutes with the mean over views, so all sets are computed from one
array, the members' mean (V, N, C). Every set holds the base view, usually the image as it is. For each size the set
with the best score is chosen, and among the sizes the cheapest within one standard error of the best (`auto.choose`):
the smallest, where views cost the same. A set with a view that hurts is not chosen, however low its log loss
(`_is_harmless`): the mean of many views may be better calibrated and still be wrong more often.

Both choices and the temperature are cross-fitted, so that no row is scored by what was chosen on it. Where the whole
search gains nothing on such rows, the base is recommended. Whether a view hurts, and which one, depends on the data:
Shanmugam et al., "Better Aggregation in Test-Time Augmentation" (ICCV 2021).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import numpy as np

from ensemble.blend.compare import differing_clusters
from ensemble.blend.comparison import tells
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
from ensemble.tta.view_losses import SearchData, Set, set_mean, set_metric, set_ms, tempered
from ensemble.tta.view_search import BestOfSize, SingleView, ViewSearch

BASE = "identity"
MOST_SETS, MOST_WORK = 1024, 500_000_000  # sets, and numbers in all of them: beyond, sets are grown view by view
EQUAL = 1e-5  # scores that differ by less count as equal: temperatures are fitted to some millionths of a nat
VERDICTS = {1: "helps", -1: "hurts", 0: "no difference can be told"}


def search_views(
    oof: Oof,
    pass_ms: np.ndarray,
    decoding_ms: float,
    metric: str = "log_loss",
    events: Events = SILENT,
) -> ViewSearch:
    """The cheapest set of views whose size's cross-fitted score is within one standard error of the best size's.

    pass_ms: float64 (M, V), milliseconds per image for each member and view
    decoding_ms: milliseconds per image that are spent once, whatever the views
    metric: one of `searchable`, by which sets and sizes are chosen; temperatures are fitted by log loss, and no class
        gets a bias

    The base is `identity`, or the first view where there is no identity. Raises UserError for an unknown metric, fewer
    than two views, or fewer than two clusters (rows or groups); ValueError for members with different views, and for
    costs that are not of shape (M, V), negative or not finite.
    """
    _require_searchable(oof, pass_ms, decoding_ms, metric)
    data = _search_data(oof, np.asarray(pass_ms, dtype=np.float64).sum(axis=0), metric)
    views, labels = oof.views[0], data.labels
    measured = _measured(data, views, oof.classes, events)
    sizes = _sizes(data, views, decoding_ms, measured)
    found = sizes[_choose_size(data, np.arange(len(labels))) - 1].views
    return ViewSearch(
        metric=metric,
        base=views[data.base],
        chosen=found if _gains(measured.gains[-1], metric) else (views[data.base],),
        found=found,
        sizes=sizes,
        singles=_singles(data, views, measured),
        honest=measured.scores[-1],
        honest_gains=measured.gains[-1],
        exhaustive=data.exhaustive,
        rows=len(labels),
        groups=len(np.unique(data.clusters)) if oof.rows.grouped else None,
        folds=len(np.unique(data.folds)),
        notes=tuple(f"left out: {member} ({why})" for member, why in oof.left_out.items()),
    )


def _require_searchable(oof: Oof, pass_ms: np.ndarray, decoding_ms: float, metric: str) -> None:
    if metric not in searchable():
        raise UserError(f"views can't be searched by {metric!r}; by one of: {', '.join(searchable())}")
    views = oof.views[0]
    if any(member_views != views for member_views in oof.views):
        raise ValueError(f"members have different views: {sorted(set(oof.views))}")
    if len(views) < 2:
        raise UserError(f"there is only the view {views[0]}: add others with: ens tta-oof RUN --views flips")
    costs = np.asarray(pass_ms, dtype=np.float64)
    if costs.shape != (len(oof.members), len(views)):
        raise ValueError(f"pass_ms is {costs.shape}, want {(len(oof.members), len(views))}: members x views")
    if not (np.isfinite(costs).all() and np.isfinite(decoding_ms) and costs.min() >= 0 and decoding_ms >= 0):
        raise ValueError("pass_ms and decoding_ms are milliseconds: finite, and 0 or more")


@dataclass(frozen=True)
class _Measured:
    """What was cross-fitted, in this order: the best set of each size, base and view for each other view, each other
    view alone, the whole search. For V views that are 3 V - 1.

    outcomes: of the rows
    scores: by metric
    gains: by metric, over the base alone, which is the best set of size 1
    """

    outcomes: list[Outcome]
    scores: list[dict[str, Score]]
    gains: list[dict[str, Gain]]


def _measured(data: SearchData, views: Sequence[str], classes: int, events: Events) -> _Measured:
    others = _others(data)
    runs: list[Callable[[np.ndarray, np.ndarray], np.ndarray]] = [
        *(partial(_of_size, data, size) for size in range(1, len(views) + 1)),
        *(partial(_probabilities, data, _with((data.base,), v)) for v in others),
        *(partial(_probabilities, data, (v,)) for v in others),
        partial(_whole, data),
    ]
    outcomes = []
    for number, run in enumerate(runs):
        events.progress("comparing the sets of views", number, len(runs))
        outcomes.append(outcome(data.labels, cross_fit(run, data.folds, data.clusters), (data.metric,)))
    drawn = bootstrap(data.labels, outcomes, data.clusters, classes)
    table = scores(data.labels, outcomes, data.folds, classes, drawn)
    base = views[data.base]
    gains = [{m: gain(m, table, drawn, s, 0, base) for m in drawn} for s in range(len(runs))]
    return _Measured(outcomes, table, gains)


def _sizes(data: SearchData, views: Sequence[str], decoding_ms: float, measured: _Measured) -> tuple[BestOfSize, ...]:
    """The best set of each size, from one view to all."""

    def names(sets: list[Set]) -> list[tuple[str, ...]]:
        return [tuple(views[v] for v in chosen) for chosen in sets]

    sets = _best_sets(data, np.arange(len(data.labels)))
    ms = [float(decoding_ms) + set_ms(data, chosen) for chosen in sets]
    front = pareto(ms, [by_metric["log_loss"].value for by_metric in measured.scores[: len(sets)]])
    by_fold = [names(_best_sets(data, np.flatnonzero(data.folds != fold))) for fold in np.unique(data.folds)]
    of_size = zip(
        names(sets), ms, measured.scores, measured.gains, zip(*by_fold, strict=True), front, strict=False
    )  # the scores go on behind the sizes
    return tuple(BestOfSize(*fields) for fields in of_size)


def _singles(data: SearchData, views: Sequence[str], measured: _Measured) -> tuple[SingleView, ...]:
    """What each view but the base does, beside the base and alone."""
    others, singles = _others(data), []
    for place, v in enumerate(others):
        pair, alone = len(views) + place, len(views) + len(others) + place  # see `_Measured`
        differ = None if data.metric == "log_loss" else _differ(measured.outcomes[pair], measured.outcomes[0], data)
        added = measured.gains[pair][data.metric]
        verdict = VERDICTS[tells(added, differ) if abs(added.value) > EQUAL else 0]
        singles.append(SingleView(views[v], float(data.ms[v]), measured.gains[pair], measured.gains[alone], verdict))
    return tuple(singles)


def _others(data: SearchData) -> list[int]:
    """The views but the base."""
    return [v for v in range(len(data.z)) if v != data.base]


def pareto(ms: Sequence[float], losses: Sequence[float]) -> list[bool]:
    """For each of S candidates whether no other one is at least as cheap and as good, and better in one of the two."""
    pairs = list(zip(ms, losses, strict=True))
    return [not any(other[0] <= pair[0] and other[1] <= pair[1] and other != pair for other in pairs) for pair in pairs]


def _search_data(oof: Oof, ms: np.ndarray, metric: str) -> SearchData:
    rows, views = oof.rows, oof.views[0]
    z = oof.values[0].astype(np.float32)
    for logits in oof.values[1:]:
        z += logits
    z = centred(z / np.float32(len(oof.values)))
    folds = usable_folds(rows.folds, rows.clusters)
    cells = folds.copy()
    if len(np.unique(folds)) == 2:  # `cross_fit` divides the one fold that is left, which the nested choice needs
        for fold in np.unique(folds):
            in_fold = np.flatnonzero(folds == fold)
            cells[in_fold] = usable_folds(folds[in_fold], rows.clusters[in_fold]) + len(folds) * fold
    cells = np.unique(cells, return_inverse=True)[1]
    right = np.stack([np.bincount(cells, logits[np.arange(len(cells)), rows.labels]) for logits in z])
    base, sets = views.index(BASE) if BASE in views else 0, 2 ** (len(views) - 1)
    exhaustive = sets <= MOST_SETS and sets * z[0].size <= MOST_WORK
    return SearchData(
        z, rows.labels, folds, rows.clusters, cells, np.bincount(cells), right, ms, metric, base, exhaustive
    )


def _of_size(data: SearchData, size: int, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """For `cross_fit`: the probabilities of the test rows by the set of that size that is best on the training rows."""
    return _probabilities(data, _best_sets(data, train)[size - 1], train, test)


def _whole(data: SearchData, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """As `_of_size`, with the size chosen on the training rows too, by cross-fitting among them."""
    return _of_size(data, _choose_size(data, train), train, test)


def _choose_size(data: SearchData, rows: np.ndarray) -> int:
    """The cheapest size within one standard error of the best, by cross-fitting among the rows, of those whose best set
    has no view that hurts."""

    def run(size: int, train: np.ndarray, test: np.ndarray) -> np.ndarray:
        return _of_size(data, size, rows[train], rows[test])

    sets = _best_sets(data, rows)  # many cheap views may cost less than few expensive ones
    sizes = [size for size in range(1, len(sets) + 1) if _is_harmless(data, sets[size - 1], rows)]
    order = sorted(sizes, key=lambda size: (set_ms(data, sets[size - 1]), size))
    runs = {str(size): partial(run, size) for size in order}
    labels, folds, clusters = data.labels[rows], data.folds[rows], data.clusters[rows]
    chosen, tried = auto.choose(runs, labels, folds, clusters, data.z.shape[2], data.metric)
    return int(next((name for name, score in tried.items() if abs(score - tried[chosen]) < EQUAL), chosen))


def _is_harmless(data: SearchData, chosen: Set, rows: np.ndarray) -> bool:
    """False if the set gets fewer of the rows right than the base alone, or more without one of its views, by over one
    standard error. True for metrics that weigh the classes, which may cost accuracy."""
    if data.metric not in ("log_loss", "accuracy") or len(chosen) == 1:
        return True
    labels = data.labels[rows]
    clusters = np.unique(data.clusters[rows], return_inverse=True)[1]

    def gained(other: Set) -> tuple[float, float]:
        """How many more rows the set gets right than another one, and the standard error of that."""
        right, other_right = (set_mean(data, views, rows).argmax(axis=1) == labels for views in (chosen, other))
        of_unit = np.bincount(clusters, right.astype(float) - other_right)
        return float(of_unit.sum()), float(of_unit.std() * np.sqrt(len(of_unit)))

    if gained((data.base,))[0] < 0:
        return False
    without = [gained(tuple(v for v in chosen if v != left_out)) for left_out in chosen if left_out != data.base]
    return all(more >= -error for more, error in without)


def _gains(gains: dict[str, Gain], metric: str) -> bool:
    """Whether the whole search gains anything over the base on rows that it did not choose on. A gain in log loss must
    not cost accuracy."""
    return gains[metric].value > EQUAL and (metric != "log_loss" or gains["accuracy"].value >= 0)


def _probabilities(data: SearchData, chosen: Set, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Of the test rows (n, C), at the temperature that fits the training rows."""
    key = chosen, _cells(data, train)
    if key not in data.inverse:
        guess = tempered(data, *key)[1]
        data.inverse[key] = inverse_temperature(set_mean(data, chosen, train), data.labels[train], guess)
    return softmax(set_mean(data, chosen, test) * data.inverse[key])


def _best_sets(data: SearchData, train: np.ndarray) -> list[Set]:
    """For each size the set with the best score on the training rows; of equal ones the cheapest, then the first."""
    parts = _cells(data, train)
    if parts not in data.best:
        near = tempered(data, (data.base,), parts)[2]

        def rank(chosen: Set) -> tuple[float, float, float]:
            score = 0.0 if data.metric == "log_loss" else -set_metric(data, chosen, parts)
            return score, tempered(data, chosen, parts, near)[0], set_ms(data, chosen)

        others = _others(data)
        found: list[Set] = [(data.base,)]
        for size in range(1, len(data.z)):
            if data.exhaustive:
                tried = [_with(extra, data.base) for extra in combinations(others, size)]
            else:
                tried = [_with(found[-1], v) for v in others if v not in found[-1]]
            found.append(min(tried, key=rank))
        data.best[parts] = found
    return data.best[parts]


def _cells(data: SearchData, rows: np.ndarray) -> tuple[int, ...]:
    return tuple(np.unique(data.cells[rows]).tolist())


def _with(chosen: Set, view: int) -> Set:
    return tuple(sorted((*chosen, view)))


def _differ(one: Outcome, other: Outcome, data: SearchData) -> int:
    """How many clusters the two don't get right equally often."""
    right, other_right = (each.predicted == data.labels for each in (one, other))
    return int(differing_clusters(right[None], other_right, data.clusters)[0])

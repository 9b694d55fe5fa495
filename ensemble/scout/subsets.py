"""What each blend of up to four backbones is worth: the Pareto front of cost against score. Never imports torch.

A blend is the softmax of the mean logits of its members at one temperature, which is fitted on the other folds. The
best of hundreds of blends looks better than it is on the rows that chose it, so each point of the front is also scored
by nested cross-fitting: the best blend at that cost is chosen, and its temperature fitted, without the fold that it is
scored on. (The temperature is one number for all rows: while choosing it may be fitted on the rows that are compared.)
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import numpy as np

from ensemble.blend.methods.pool import centred, loss_and_softmax
from ensemble.blend.probabilities import softmax
from ensemble.events import Events
from ensemble.scoring.bootstrap import Gain, bootstrap, deviation, gain, scores
from ensemble.scoring.cross_fit import cross_fit, usable_folds
from ensemble.scoring.metrics import METRICS
from ensemble.scoring.outcomes import outcome
from ensemble.scout.result import Blended, Front, Probed
from ensemble.tta.view_losses import SearchData, Set, set_mean, set_metric, set_ms, tempered

LARGEST = 4  # backbones in a blend
MOST_WORK = 10_000_000_000  # logits in all blends: about a minute; beyond, blends are smaller
EQUAL = 1e-5  # scores that differ by less count as equal: temperatures are fitted to some millionths of a nat

Rank = tuple[float, float]  # the score, less is better, and the log loss, which decides between equal scores
Cells = tuple[int, ...]  # numbers of folds, 0 to K - 1


@dataclass(frozen=True)
class Probes:
    """Out-of-fold logits of M backbones on N rows.

    names, timm, image_sizes: of each
    ms: milliseconds per image of each, float64 (M,)
    z: float32 (M, N, C)
    labels, folds, clusters: int64 (N,)
    grouped: whether the clusters are groups
    """

    names: tuple[str, ...]
    timm: tuple[str, ...]
    image_sizes: tuple[int, ...]
    ms: np.ndarray
    z: np.ndarray
    labels: np.ndarray
    folds: np.ndarray
    clusters: np.ndarray
    grouped: bool


def find_front(probes: Probes, metric: str, events: Events) -> Front:
    """Score the backbones and their blends. metric: one of `searchable`. Raises UserError where the rows can't be
    divided."""
    data = _search_data(probes, metric)
    sets, largest = _sets(data)
    ranks = {}
    for number, chosen in enumerate(sets):
        if number % 16 == 0:
            events.progress("comparing the blends", number, len(sets))
        ranks[chosen] = _rank(data, chosen)
    points = _pareto(data, ranks)
    without = [_without(cell, data) for cell in range(len(data.rows))]
    ranks_without = {parts: {chosen: _rank_on(data, chosen, parts) for chosen in sets} for parts in without}
    singles: list[Set] = [(member,) for member in range(len(probes.names))]
    runs: list[Callable[[np.ndarray, np.ndarray], np.ndarray]] = [
        *(partial(_probabilities, data, chosen) for chosen in (*singles, *points)),
        *(partial(_nested, data, ranks_without, set_ms(data, point)) for point in points),
    ]
    outcomes = [outcome(data.labels, cross_fit(run, data.folds, data.clusters), (metric,)) for run in runs]
    drawn = bootstrap(data.labels, outcomes, data.clusters, data.z.shape[2])
    table = scores(data.labels, outcomes, data.folds, data.z.shape[2], drawn)
    order = sorted(range(len(singles)), key=lambda member: ranks[singles[member]])
    best = order[0]

    def gains(system: int) -> dict[str, Gain]:
        return {name: gain(name, table, drawn, system, best, probes.names[best]) for name in drawn}

    first, last = len(singles), len(singles) + len(points)
    blends = []
    for place, point in enumerate(points):
        ms = set_ms(data, point)
        names = tuple(probes.names[member] for member in point)
        by_fold = sum(_best(data, ranks_without[parts], ms) == point for parts in without)
        blends.append(Blended(names, ms, table[first + place], table[last + place], gains(first + place), by_fold))
    return Front(
        metric=metric,
        singles=tuple(
            Probed(
                probes.names[member], probes.timm[member], probes.image_sizes[member], float(probes.ms[member]),
                table[member], {} if member == best else gains(member),
            )
            for member in order
        ),
        blends=tuple(blends),
        simplest=_simplest(blends, drawn[metric][:, first:last], metric),
        tried=len(sets),
        largest=largest,
        rows=len(data.labels),
        groups=len(np.unique(data.clusters)) if probes.grouped else None,
        folds=len(without),
    )  # fmt: skip


def _search_data(probes: Probes, metric: str) -> SearchData:
    z = centred(probes.z)
    folds = usable_folds(probes.folds, probes.clusters)
    cells = np.unique(folds, return_inverse=True)[1]
    right = np.stack([np.bincount(cells, logits[np.arange(len(cells)), probes.labels]) for logits in z])
    return SearchData(
        z, probes.labels, folds, probes.clusters, cells, np.bincount(cells), right, probes.ms, metric, base=0,
        exhaustive=True,
    )  # fmt: skip


def _sets(data: SearchData) -> tuple[list[Set], int]:
    """All sets of up to four backbones, or of as many as can be tried in about a minute, and the most in one."""
    count = len(data.z)
    largest = min(LARGEST, count)
    while largest > 1 and sum(math.comb(count, size) for size in range(1, largest + 1)) * data.z[0].size > MOST_WORK:
        largest -= 1
    return [each for size in range(1, largest + 1) for each in combinations(range(count), size)], largest


def _rank(data: SearchData, chosen: Set) -> Rank:
    """Over all rows, each fold at the temperature that fits the others."""
    total = 0.0
    for cell, count in enumerate(data.rows):
        rows = np.flatnonzero(data.cells == cell)
        inverse = np.float32(tempered(data, chosen, _without(cell, data))[1])
        total += count * loss_and_softmax(set_mean(data, chosen, rows) * inverse, data.labels[rows])[0]
    return _scored(data, chosen, range(len(data.rows)), total / len(data.labels))


def _rank_on(data: SearchData, chosen: Set, parts: Cells) -> Rank:
    """On the rows of some cells, at the temperature that fits them."""
    return _scored(data, chosen, parts, tempered(data, chosen, parts)[0])


def _scored(data: SearchData, chosen: Set, parts: Sequence[int], loss: float) -> Rank:
    if data.metric == "log_loss":
        return loss, loss
    return -METRICS[data.metric].sign * set_metric(data, chosen, parts), loss


def _pareto(data: SearchData, ranks: Mapping[Set, Rank]) -> list[Set]:
    """The sets that none as cheap beats, from the cheapest to the best."""
    points: list[Set] = []
    for chosen in sorted(ranks, key=lambda chosen: (set_ms(data, chosen), ranks[chosen])):
        if not points or ranks[chosen][0] < ranks[points[-1]][0] - EQUAL:
            points.append(chosen)
    return points


def _best(data: SearchData, ranks: Mapping[Set, Rank], ms: float) -> Set:
    """The best set that costs no more."""
    return min((chosen for chosen in ranks if set_ms(data, chosen) <= ms), key=lambda chosen: ranks[chosen])


def _probabilities(data: SearchData, chosen: Set, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """For `cross_fit`: of the test rows (n, C), at the temperature that fits the training rows."""
    inverse = tempered(data, chosen, _cells(data, train))[1]
    return softmax(set_mean(data, chosen, test) * np.float32(inverse))


def _nested(
    data: SearchData,
    ranks_without: Mapping[Cells, Mapping[Set, Rank]],
    ms: float,
    train: np.ndarray,
    test: np.ndarray,
) -> np.ndarray:
    """As `_probabilities`, of the set that is best on the training rows among those that cost no more."""
    return _probabilities(data, _best(data, ranks_without[_cells(data, train)], ms), train, test)


def _cells(data: SearchData, rows: np.ndarray) -> Cells:
    return tuple(np.unique(data.cells[rows]).tolist())


def _without(cell: int, data: SearchData) -> Cells:
    return tuple(other for other in range(len(data.rows)) if other != cell)


def _simplest(blends: Sequence[Blended], drawn: np.ndarray, metric: str) -> int:
    """The cheapest blend within one standard error of the best, that of the paired difference (Breiman et al.,
    Classification and regression trees, 1984). drawn: the metric in each resample, float64 (resamples, blends)."""
    sign = METRICS[metric].sign
    values = [sign * blend.scores[metric].value for blend in blends]
    best = int(np.argmax(values))
    errors = [deviation(difference) for difference in (drawn - drawn[:, [best]]).T]
    return next(place for place, value in enumerate(values) if values[best] - value <= max(errors[place], EQUAL))

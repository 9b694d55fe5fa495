"""Selection bias: how much the best of several systems looks better than it is, since it was chosen by the very scores
that are shown. Never imports torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ensemble.blend import load_blend
from ensemble.blend.joined import join_rows
from ensemble.blend.oof import Rows, read_member, read_rows
from ensemble.blend.probabilities import softmax
from ensemble.errors import UserError
from ensemble.plural import pluralize
from ensemble.run import Run
from ensemble.scoring.bootstrap import bias_of_best, bootstrap
from ensemble.scoring.clusters import joined_clusters
from ensemble.scoring.metrics import METRICS
from ensemble.scoring.outcomes import outcome

MOST_SYSTEMS = 50  # the best ones: worse ones are hardly ever the best of a resample
MOST_NUMBERS = 200_000_000  # logits that are read for it: beyond, it would take long


@dataclass(frozen=True)
class System:
    """What was scored out of fold.

    run: its directory.
    blend: the name of its blend; "" for `member` alone.
    member: the name of a member, where there is no blend.
    values: metric -> its out-of-fold score.
    """

    run: Path
    blend: str
    member: str
    values: Mapping[str, float]


@dataclass(frozen=True)
class SelectionBias:
    """How much better the best of some systems looks than it is.

    systems: how many were compared.
    rows: the number of rows that all have.
    by: metric -> how much better than it is the best one by this metric looks on average.
    """

    systems: int
    rows: int
    by: dict[str, float]

    def line(self, what: str) -> str:
        """In words. what: the systems are, such as "run"."""
        told = " and ".join(f"{METRICS[metric].number(value)} {_unit(metric)}" for metric, value in self.by.items())
        return (
            f"the best of {pluralize(self.systems, what)} looks better than it is (selection bias): by {told}, on "
            f"average over resamples of their {pluralize(self.rows, 'row')} in which the best is chosen again"
        )


def selection_bias(systems: Sequence[System], metrics: Sequence[str]) -> SelectionBias | None:
    """Of systems on the same data; those that can't be read, that other runs or tools have a part in, or that are for
    other class shares don't count. None of fewer than two, of too many numbers, or where they have no row in common.

    The blends that are saved stand for those that were scored: in resamples they vary alike.
    """
    order = sorted(systems, key=lambda system: -METRICS[metrics[0]].sign * system.values[metrics[0]])
    rows: dict[Run, Rows] = {}
    answers: list[tuple[System, Run, np.ndarray]] = []
    numbers = 0
    for system in order[:MOST_SYSTEMS]:
        run = Run(system.run)
        try:
            known = rows.get(run) or read_rows(run)
            probs, read = _answers(run, known, system)
        except (UserError, OSError, ValueError, KeyError, TypeError):
            continue
        rows[run], numbers = known, numbers + read
        if numbers > MOST_NUMBERS:
            return None
        answers.append((system, run, probs))
    if len(answers) < 2:
        return None
    rows = {run: rows[run] for _, run, _ in answers}
    try:
        where = join_rows(rows, lambda line: None)
    except UserError:
        return None
    base, first = next(iter(rows.items()))
    labels = first.labels[where[base]]
    clusters = joined_clusters(
        [of_run.clusters[where[run]] for run, of_run in rows.items() if of_run.grouped], len(labels)
    )
    outcomes = []
    for _, run, probs in answers:
        columns = [rows[run].classes.index(name) for name in first.classes]
        outcomes.append(outcome(labels, probs[where[run]][:, columns]))
    drawn = bootstrap(labels, outcomes, clusters, len(first.classes))
    by = {}
    for metric in metrics:
        sign = METRICS[metric].sign
        values = np.array([system.values[metric] for system, _, _ in answers])
        by[metric] = bias_of_best(sign * values, sign * drawn[metric])
    return SelectionBias(len(answers), len(labels), by)


def _answers(run: Run, rows: Rows, system: System) -> tuple[np.ndarray, int]:
    """A system's probabilities (N, C) of its run's rows, and how many numbers were read. Raises UserError for one that
    is not of this run's networks alone, or for other class shares, and as `load_blend` and `read_member`."""
    if not system.blend:
        values, _ = read_member(run, system.member, rows)
        return softmax(values.mean(axis=0)), values.size
    blend = load_blend(run, system.blend)
    if blend.sources is not None or blend.external or blend.stages:
        raise UserError(f"{run}: blend {system.blend!r} is not of this run's networks alone")
    if blend.chain.prior_shift is not None:
        raise UserError(f"{run}: blend {system.blend!r} was scored for other class shares")
    members = [read_member(run, name, rows, views)[0] for name, views in blend.trained.items()]
    return blend.apply(members), sum(values.size for values in members)


def _unit(metric: str) -> str:
    title = METRICS[metric].title
    return (
        f"nats of {title}" if metric == "log_loss" else f"points of {title}" if METRICS[metric].factor == 100 else title
    )

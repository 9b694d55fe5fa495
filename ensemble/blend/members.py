"""The members of a run, each by itself."""

from dataclasses import dataclass

import numpy as np

from ensemble.blend.oof import finished, read_member, read_rows
from ensemble.blend.probabilities import softmax
from ensemble.run import Run
from ensemble.scoring.bootstrap import Score, bootstrap, scores
from ensemble.scoring.outcomes import Outcome, outcome


@dataclass(frozen=True)
class MemberRow:
    """One member's out-of-fold scores on the rows of its finished folds.

    member: its name.
    done: the numbers of its finished folds.
    folds: how many the run has.
    rows: how many the scores are of.
    scores: metric -> Score; empty where no fold is finished.
    optimistic: whether each fold kept the epoch that was best on these rows.
    """

    member: str
    done: tuple[int, ...]
    folds: int
    rows: int
    scores: dict[str, Score]
    optimistic: bool


def members_table(run: Run) -> list[MemberRow]:
    """Every member of the run with the OOF scores of its finished folds (views averaged), in order of name.

    Raises UserError as `read_rows` and `read_member` do.
    """
    rows = read_rows(run)
    numbers = np.unique(rows.folds)
    out = []
    for member in run.member_names():
        done = finished(run, member, rows)
        if not done:
            out.append(MemberRow(member, (), len(numbers), 0, {}, run.member(member).is_optimistic()))
            continue
        z = read_member(run, member, rows, folds=done)[0].mean(axis=0)
        where = np.flatnonzero(np.isin(rows.folds, done))
        labels = rows.labels[where]
        outcomes = member_outcomes(z[None, where], labels)
        drawn = bootstrap(labels, outcomes, rows.clusters[where], len(rows.classes))
        table = scores(labels, outcomes, rows.folds[where], len(rows.classes), drawn)
        optimistic = run.member(member).is_optimistic()
        out.append(MemberRow(member, tuple(done), len(numbers), len(where), table[0], optimistic))
    return out


def member_outcomes(z: np.ndarray, labels: np.ndarray) -> list[Outcome]:
    """The outcome of each member by itself, from z float32 (M, N, C)."""
    return [outcome(labels, softmax(member)) for member in z]

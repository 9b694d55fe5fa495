"""The rows that several runs have in common: joined by what their files hold, or by id. Never imports torch."""

from collections import Counter
from collections.abc import Callable
from itertools import permutations

import numpy as np

from ensemble.blend.oof import Rows
from ensemble.data.contents import row_digests
from ensemble.errors import UserError
from ensemble.run import Run


def join_rows(runs: dict[Run, Rows], say: Callable[[str], None]) -> dict[Run, np.ndarray]:
    """Each run's row numbers, int64 (N,), of the rows that all have, in the first run's order; checks what they say.

    Rows are joined by what their files hold where the runs keep digests, else by their ids. Says what was
    joined by its file. Raises UserError for other classes or labels, or no common row.
    """
    (base, first), *others = runs.items()
    for run, rows in others:
        lacking, more = (sorted(set(a) - set(b)) for a, b in permutations((first.classes, rows.classes)))
        if lacking or more:
            which = f"lacks the class {lacking[0]!r} of {base}" if lacking else f"has the class {more[0]!r}, {base} not"
            raise UserError(f"{run}: {which}; the classes must be the same")
    names = {base: first.ids} | {run: _renamed(run, rows.ids, base, say) for run, rows in others}
    ids = first.ids[np.all([np.isin(first.ids, of_run) for of_run in names.values()], axis=0)]
    if not len(ids):
        raise UserError(f"no row's id is in all of {', '.join(map(str, runs))}: nothing can be compared")
    orders = {run: np.argsort(of_run) for run, of_run in names.items()}
    where = {run: orders[run][np.searchsorted(of_run, ids, sorter=orders[run])] for run, of_run in names.items()}
    for run, rows in others:
        place = np.array([first.classes.index(name) for name in rows.classes])  # an older run may have another order
        both = first.labels[where[base]], place[rows.labels[where[run]]]
        wrong = np.flatnonzero(both[0] != both[1])
        if len(wrong):
            base_label, label = (first.classes[labels[wrong[0]]] for labels in both)
            what = f"id {str(ids[wrong[0]])!r} is labelled {label!r}, in {base} {base_label!r}"
            raise UserError(f"{run}: {what} ({len(wrong)} of {len(ids)} rows differ); the labels must be the same")
    return where


def rows_left_out(runs: dict[Run, Rows], where: dict[Run, np.ndarray]) -> str:
    """How many rows of which runs are not among those that all have, in words; "" if there are none."""
    left = {run: len(rows.ids) - len(where[run]) for run, rows in runs.items()}
    counts = ", ".join(f"{count} of {run}" for run, count in left.items() if count)
    return f"the {len(next(iter(where.values())))} rows that all have; rows left out: {counts}" if counts else ""


def _renamed(run: Run, ids: np.ndarray, base: Run, say: Callable[[str], None]) -> np.ndarray:
    """A run's ids, those of rows whose file is one of `base` under another id replaced by that. Ids change when a table
    gets a column of ids, or a folder another name. A file that is there twice is known by its id alone."""
    of_id, of_base = row_digests(run), row_digests(base)
    times, times_base = Counter(of_id.values()), Counter(of_base.values())
    there = {digest: id for id, digest in of_base.items() if times_base[digest] == 1}
    by_file = [there.get(of_id.get(id, "")) if times[of_id.get(id, "")] == 1 else None for id in ids.tolist()]
    claimed = {id for id in by_file if id is not None}
    renamed = [
        found if found is not None else (f"{run}: {id}" if id in claimed else id)
        for id, found in zip(ids.tolist(), by_file, strict=True)
    ]
    moved = [(new, old) for new, old in zip(renamed, ids.tolist(), strict=True) if new != old and new in claimed]
    if moved:
        say(
            f"{len(moved)} rows of {run} have other ids than in {base} and are joined by what their files hold: "
            f"{moved[0][1]!r} is {moved[0][0]!r} there"
        )
    return np.array(renamed)

"""Out-of-fold logits of the members of several runs, on the rows that all of them have. Never imports torch."""

from collections.abc import Callable, Sequence
from itertools import permutations

import numpy as np

from ensemble.blend.joined import join_rows, rows_left_out
from ensemble.blend.oof import Oof, Rows, read_oof
from ensemble.blend.partition import common_folds, fold_sets
from ensemble.blend.sources import Sources, run_names, seen_from
from ensemble.errors import UserError
from ensemble.plural import pluralize
from ensemble.run import Run
from ensemble.scoring.clusters import joined_clusters


def read_runs(
    runs: Sequence[Run], views: Sequence[str] | None, members: Sequence[str] | None, say: Callable[[str], None]
) -> tuple[Oof, Sources]:
    """The members of `runs`, joined as `ens compare` joins them, and where they lie, seen from the first run. Its
    members have their plain names, those of the others RUN/MEMBER; rows have the first run's ids and classes.

    views: which to read; None for those that each run was trained with. members: None for all that are finished. Says
    which rows are left out, and which groups of one run were divided by another. Raises UserError for a run that is
    named twice, members that are none of its, classes, their order or labels that differ, folds that have no clean
    partition in common, and as `read_oof` does.
    """
    places = [run.path.resolve() for run in runs]
    twice = [run for run, place in zip(runs, places, strict=True) if places.count(place) > 1]
    if twice:
        raise UserError(f"{twice[0]}: is named twice")
    names = run_names(runs)
    wanted = _by_run(names, members)
    read = {run: read_oof(run, views, wanted[run]) for run in runs}
    base = runs[0]
    every = {run: oof.rows for run, oof in read.items()}
    where = join_rows(every, say)
    if left := rows_left_out(every, where):
        say(f"blended on {left}")
    for run in runs[1:]:
        if read[run].rows.classes != read[base].rows.classes:
            raise UserError(
                f"{run}: its classes have another order than those of {base} (an older ens sorted numbers as text); "
                "train it again in a directory of its own to blend both"
            )
    rows = _joined_rows(every, where, say)
    folds = np.stack([read[run].rows.folds[where[run]] for run in runs])
    from ensemble.data.folds import fold_count

    sets = fold_sets(folds, rows.folds, [fold_count(run) for run in runs])
    prefixes = {run: f"{name}/" if name else "" for run, name in names.items()}
    return Oof(
        rows=rows,
        members=tuple(f"{prefixes[run]}{member}" for run in runs for member in read[run].members),
        views=tuple(of_member for run in runs for of_member in read[run].views),
        values=tuple(values[:, where[run]] for run in runs for values in read[run].values),
        left_out={f"{prefixes[run]}{member}": why for run in runs for member, why in read[run].left_out.items()},
    ), Sources(
        others={name: seen_from(base, run) for run, name in names.items() if name},
        sets={names[run]: tuple(of_run.tolist()) for run, of_run in zip(runs, sets, strict=True)},
    )


def _by_run(names: dict[Run, str], members: Sequence[str] | None) -> dict[Run, list[str] | None]:
    """The members asked for, by run and by their plain names. Raises UserError if one is of no run, or a run has
    none."""
    if members is None:
        return dict.fromkeys(names)
    unknown = [member for member in members if member.rpartition("/")[0] not in names.values()]
    if unknown:
        others = ", ".join(f"{name}/MEMBER" for name in names.values() if name)
        raise UserError(f"no member {unknown[0]!r}: those of other runs than the first are called {others}")
    wanted: dict[Run, list[str] | None] = {}
    for run, name in names.items():
        of_run = [member.rpartition("/")[2] for member in members if member.rpartition("/")[0] == name]
        if not of_run:
            raise UserError(f"--members names none of {run}; they are called {f'{name}/' if name else ''}MEMBER")
        wanted[run] = of_run
    return wanted


def _joined_rows(rows: dict[Run, Rows], where: dict[Run, np.ndarray], say: Callable[[str], None]) -> Rows:
    """The common rows, in folds that are clean for all runs. Raises UserError if there are none."""
    base = next(iter(rows))
    first, count = rows[base], len(where[base])
    grouped = [run for run in rows if rows[run].grouped]
    clusters = joined_clusters([rows[run].clusters[where[run]] for run in grouped], count)
    folds = np.stack([rows[run].folds[where[run]] for run in rows])
    for run, other in permutations(rows, 2):
        divided = _divided(rows[run].clusters[where[run]], rows[other].folds[where[other]])
        if run in grouped and divided:
            say(
                f"warning: {pluralize(divided, 'group of', 'groups of')} {run} stand in two or more folds of {other}: "
                "its networks have seen rows of the groups that they are scored on, which makes its scores, and the "
                "blend's, optimistic"
            )
    parts = common_folds(folds, clusters)
    if len(np.unique(parts)) < 2 <= max(len(np.unique(of_run)) for of_run in folds):
        others = ", ".join(str(run) for run in rows if run != base)
        raise UserError(
            f"{others}: its folds and groups tie all rows of {base} together, so that no blend of both can be scored "
            f"on rows that it was not fitted on; train it anew with the data, seed and k of {base}, or give it the "
            f'folds in {base.folds_csv} ([folds] fold = "fold")'
        )
    return Rows(first.ids[where[base]], first.labels[where[base]], parts, clusters, bool(grouped), first.classes)


def _divided(clusters: np.ndarray, folds: np.ndarray) -> int:
    """How many clusters have rows in two or more folds."""
    pairs = np.unique(np.stack([clusters, folds]), axis=1)
    return int((np.unique(pairs[0], return_counts=True)[1] > 1).sum())

"""`ens compare`: which recipe is really better? Members of runs, on the same out-of-fold rows. Never imports torch.

Intervals are those of `ensemble.scoring.intervals`, paired, and hold the trained networks fixed. Log loss is compared
at each item's best temperature (Guo et al., ICML 2017) on the other folds: label smoothing alone moves that of the
scores as they are.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from ensemble.blend.comparison import FEWEST, Block, Comparison, Item
from ensemble.blend.joined import join_rows, rows_left_out
from ensemble.blend.methods.pool import at_best_temperature
from ensemble.blend.oof import Rows, finished, read_member, read_rows
from ensemble.blend.partition import is_same_partition
from ensemble.blend.probabilities import softmax
from ensemble.blend.seeds import seed_lines
from ensemble.errors import UserError
from ensemble.events import SILENT, Events
from ensemble.run import Run
from ensemble.scoring.bootstrap import bootstrap, gain, scores
from ensemble.scoring.clusters import joined_clusters
from ensemble.scoring.cross_fit import cross_fit
from ensemble.scoring.intervals import gain_interval
from ensemble.scoring.metrics import METRICS
from ensemble.scoring.outcomes import Outcome, on_rows, outcome


def compare(paths: Sequence[Path], events: Events = SILENT) -> Comparison:
    """Compare runs (all their finished members) and members (RUN/MEMBER) on the out-of-fold rows that all have.

    Of several runs, members of one name are paired: a block for each name that at least two runs have, and one for the
    plain means of the names that all these runs have, if those are at least two. Where no name is in two runs, where
    only members are named, or of a single run, all members make one block. Views are averaged. Raises UserError for
    what is no run or member, a member named but not finished, fewer than two items, classes or labels that differ, no
    common row (or only one cluster), and as `read_rows` and `read_member` do.
    """
    rows: dict[Run, Rows] = {}
    found: list[tuple[Run, str]] = []
    notes: list[str] = []
    for path in paths:
        run, names = _members(path, rows, notes)
        found += [(run, name) for name in names]
    found, notes = list(dict.fromkeys(found)), list(dict.fromkeys(notes))  # one may be named twice
    if len(found) < 2:
        left = "".join(f"; {note}" for note in notes)
        raise UserError(
            f"{found[0][0].path / found[0][1]}: nothing to compare it with, name a second run or member{left}"
        )
    each_named = not any(Run(path).folds_csv.is_file() for path in paths)
    plan = _plan(found, each_named, notes)
    if Run(paths[0]).folds_csv.is_file() and plan[0][1][0].run == plan[0][1][-1].run:
        notes.append(_baseline(*found[0]))
    return _compared(plan, rows, notes, events)


def compare_with_mean(run: Run, member: str, others: Sequence[str]) -> Comparison:
    """Compare a member of a run with the plain mean of several others of it, the baseline. Raises UserError as
    `read_rows` and `read_member` do."""
    items = [_item(f"mean of {', '.join(others)}", run, others), _item(member, run, [member])]
    return _compared([(f"{member} and what it learned from", items)], {run: read_rows(run)}, [], SILENT)


def _compared(
    plan: Sequence[tuple[str, list[Item]]], rows: dict[Run, Rows], notes: list[str], events: Events
) -> Comparison:
    """The blocks of a plan, on the rows that all its runs have. Adds to `notes`."""
    used = list(dict.fromkeys(item.run for _, items in plan for item in items))
    joined = {run: rows[run] for run in used}
    where = join_rows(joined, notes.append)
    if left := rows_left_out(joined, where):
        notes.append(f"compared on {left}")
    notes += _other_folds({run: rows[run].folds[where[run]] for run in used})
    first, grouped = rows[used[0]], any(rows[run].grouped for run in used)
    labels = first.labels[where[used[0]]]
    clusters = joined_clusters([rows[run].clusters[where[run]] for run in used if rows[run].grouped], len(labels))
    if len(np.unique(clusters)) < 2:
        raise UserError("the runs have only one row (or group) in common: no interval can be drawn from it")
    columns = {run: [rows[run].classes.index(name) for name in first.classes] for run in used}
    logits = {
        (run, name): read_member(run, name, rows[run])[0].mean(axis=0)[where[run]][:, columns[run]]
        for run, name in {(item.run, name) for _, items in plan for item in items for name in item.members}
    }
    blocks = []
    for number, (title, items) in enumerate(plan):
        events.progress(f"comparing {title}", number, len(plan))
        z = [np.mean([logits[item.run, name] for name in item.members], axis=0) for item in items]
        folds = np.stack([rows[item.run].folds[where[item.run]] for item in items])
        blocks.append(_block(title, items, z, folds, labels, clusters, len(first.classes)))
    single = {
        (item.run, item.members[0]): (block.predicted[s] == labels, block.losses[s])
        for block in blocks
        for s, item in enumerate(block.items)
        if len(item.members) == 1
    }
    right, losses = ({key: both[part] for key, both in single.items()} for part in (0, 1))
    seeds = seed_lines(right, losses, clusters)
    ids = first.ids[where[used[0]]]
    return Comparison(ids, labels, clusters, grouped, first.classes, tuple(blocks), tuple(notes), seeds)


def _members(path: Path, rows: dict[Run, Rows], notes: list[str]) -> tuple[Run, list[str]]:
    """The run that `path` is or lies in, as first named, and the members meant; adds to `rows`. As in `ens blend`, a
    member that is named must be finished; of a whole run, those that are not are noted."""
    whole = Run(path).folds_csv.is_file() or not Run(path.parent).folds_csv.is_file()
    named = Run(path if whole else path.parent)
    run = next((known for known in rows if known.path.resolve() == named.path.resolve()), named)
    rows[run] = rows.get(run) or read_rows(run)
    there = _in_file_order(run, run.member_names())
    if not whole and path.name not in there:
        raise UserError(f"{run}: no member {path.name!r}; there are: {', '.join(there) or 'none'}")
    again = f"train on with: ens train-folds {run.config_toml}"
    ready: list[str] = []
    for name in there if whole else [path.name]:
        lacking = sorted(set(np.unique(rows[run].folds).tolist()) - set(finished(run, name, rows[run])))
        why = f"not finished: fold {', '.join(map(str, lacking))}"
        if lacking and not whole:
            raise UserError(f"{run}: member {name!r} is {why}; {run.member(name).how_to_go_on()}")
        (notes if lacking else ready).append(f"left out: {run.path / name} ({why})" if lacking else name)
    if not ready:
        raise UserError(f"{run}: no member has all its folds finished; {again}")
    return run, ready


def _in_file_order(run: Run, members: Sequence[str]) -> list[str]:
    """Members as the experiment file lists its backbones; those that it lacks last, by their names."""
    try:
        listed = [
            backbone["name"] for backbone in tomllib.loads(run.config_toml.read_text(encoding="utf-8"))["backbone"]
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return list(members)
    return sorted(members, key=lambda name: listed.index(name) if name in listed else len(listed))


def _baseline(run: Run, member: str) -> str:
    """Which member the others are compared with, where the user named none, and how to choose another."""
    file = run.config_toml
    why = f"the first in {file}" if file.is_file() else "the first by its name"
    return f"the baseline is {member}, {why}; for another, name it first: ens compare {run.path / 'MEMBER'} {run}"


def _plan(found: list[tuple[Run, str]], each_named: bool, notes: list[str]) -> list[tuple[str, list[Item]]]:
    """The blocks: their titles and items, in the order in which they were named."""
    if each_named and len({run for run, _ in found}) > 1 < len({name for _, name in found}):
        return [("the members named", [_item(str(run.path / name), run, [name]) for run, name in found])]
    runs_of: dict[str, list[Run]] = {}  # the member's name -> the runs that have it
    for run, name in found:
        runs_of.setdefault(name, []).append(run)
    common = {name: runs for name, runs in runs_of.items() if len(runs) > 1}
    if not common:
        if len({run for run, _ in found}) == 1:
            return [(f"members of {found[0][0]}", [_item(name, run, [name]) for run, name in found])]
        notes.append("no member's name is in two of the runs: all are compared with each other")
        return [("all members", [_item(str(run.path / name), run, [name]) for run, name in found])]
    alone = [
        _item(str(runs[0].path / name), runs[0], [name]).label for name, runs in runs_of.items() if name not in common
    ]
    if alone:
        notes.append(f"left out, as their names are in one run only: {', '.join(alone)}")
    plan = [(name, [_item(str(run), run, [name]) for run in runs]) for name, runs in common.items()]
    paired = list(dict.fromkeys(run for run, name in found if name in common))
    shared = [name for name, runs in common.items() if len(runs) == len(paired)]
    if len(shared) > 1:
        plan.append((f"the plain mean of {', '.join(shared)}", [_item(str(run), run, shared) for run in paired]))
    return plan


def _item(name: str, run: Run, members: Sequence[str]) -> Item:
    settings = [run.member(member).read_settings() for member in members]
    folds = [fold for member in members for fold in run.member(member).folds()]
    seconds = [fold.read_done().get("seconds") for fold in folds if fold.is_done()]
    epochs = {None if of_member.get("strategy") == "probe" else of_member.get("epochs") for of_member in settings}
    return Item(
        name=name,
        run=run,
        members=tuple(members),
        seconds=None if None in seconds else sum(of_fold or 0.0 for of_fold in seconds),
        epochs=epochs.pop() if len(epochs) == 1 else None,
        optimistic=any(of_member.get("keep") == "best" for of_member in settings),
    )


def _other_folds(folds: dict[Run, np.ndarray]) -> list[str]:
    """A line for each run that divides the common rows otherwise than the first. folds: int64 (N,) of each."""
    (base, first), *others = folds.items()
    return [
        f"the folds of {run} are not those of {base}: a difference holds the luck of the split too"
        for run, of_run in others
        if not is_same_partition(first, of_run)
    ]


def _block(
    title: str,
    items: list[Item],
    z: list[np.ndarray],
    folds: np.ndarray,
    labels: np.ndarray,
    clusters: np.ndarray,
    n: int,
) -> Block:
    """z: each item's logits, float32 (N, n) for n classes. folds: int64 (S, N)."""
    raw = [outcome(labels, softmax(logits)) for logits in z]
    honest = [
        cross_fit(partial(at_best_temperature, logits, labels), folds_of_run, clusters)
        for logits, folds_of_run in zip(z, folds, strict=True)
    ]
    tempered = [outcome(labels, probs) for probs in honest]
    drawn = bootstrap(labels, raw + tempered, clusters, n)  # at once, so that all see the same resamples
    columns = [
        replace(drawn, values={metric: drawn[metric][:, [s]] for metric in drawn}) for s in range(2 * len(items))
    ]
    parts = zip(raw + tempered, [*folds, *folds], columns, strict=True)
    table = [scores(labels, [result], of, n, column)[0] for result, of, column in parts]
    best = max(range(len(items)), key=lambda s: table[s]["accuracy"].value)
    first, second = range(len(items)), range(len(items), 2 * len(items))  # columns: as they are, at their temperatures
    right = np.stack([result.predicted == labels for result in raw])
    return Block(
        title=title,
        items=tuple(items),
        folds=folds,
        predicted=np.stack([result.predicted for result in raw]),
        losses=np.stack([result.losses for result in raw]),
        tempered_losses=np.stack([result.losses for result in tempered]),
        scores=tuple(table[: len(items)]),
        tempered=tuple(item["log_loss"] for item in table[len(items) :]),
        accuracy=tuple(gain("accuracy", table, drawn, s, 0, items[0].name) for s in first),
        log_loss=tuple(gain("log_loss", table, drawn, s, len(items), items[0].name) for s in second),
        differ=differing_clusters(right, right[0], clusters),
        best=best,
        behind=tuple(gain("accuracy", table, drawn, s, best, items[best].name, first) for s in first),
        behind_differ=differing_clusters(right, right[best], clusters),
        **_recalls(labels, raw, clusters, n),
    )


def differing_clusters(right: np.ndarray, other: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """Clusters on which each of bool (S, N) is not right as often as bool (N,), int64 (S,)."""
    where = np.unique(clusters, return_inverse=True)[1]
    return np.array([np.count_nonzero(np.bincount(where, hit.astype(float) - other)) for hit in right])


def _recalls(labels: np.ndarray, outcomes: list[Outcome], clusters: np.ndarray, classes: int) -> dict[str, np.ndarray]:
    """The fields `recall`, `recall_gain`, `recall_interval` and `marked` of a block."""
    recall, ends = np.full((len(outcomes), classes), np.nan), np.full((2, len(outcomes), classes), np.nan)
    marked = np.zeros(recall.shape, dtype=bool)
    for c in np.unique(labels):
        class_rows = np.flatnonzero(labels == c)
        right = np.stack([o.predicted[class_rows] == c for o in outcomes])
        recall[:, c] = right.mean(axis=1)
        # The accuracy on the class's rows alone, which are of class 0 and predicted 0 where they are right.
        parts = [
            replace(on_rows(o, class_rows), predicted=np.where(hit, 0, 1), metrics=("accuracy",))
            for o, hit in zip(outcomes, right, strict=True)
        ]
        drawn = bootstrap(np.zeros_like(class_rows), parts, clusters[class_rows], 2)
        gains = zip(recall[:, c] - recall[0, c], (drawn["accuracy"] - drawn["accuracy"][:, :1]).T, strict=True)
        ends[:, :, c] = np.transpose([gain_interval(METRICS["accuracy"], *each, drawn.support) for each in gains])
        ends[:, 0, c] = 0.0
        apart = (ends[0, :, c] > 0) | (ends[1, :, c] < 0)
        marked[:, c] = apart & (differing_clusters(right, right[0], clusters[class_rows]) >= FEWEST)
    return {"recall": recall, "recall_gain": recall - recall[0], "recall_interval": ends, "marked": marked}

"""What the commands print. Everything fits a terminal of 80 columns: an interval stands below its score, not beside."""

import textwrap

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ensemble.blend import BlendResult, Comparison, MemberRow
from ensemble.blend.compare import FEWEST, OPTIMISTIC, Block, Item, tells
from ensemble.blend.prune import Pruned
from ensemble.blend.score import Gain, Score
from ensemble.blend.view_sets import ViewSearch

STAR = " *"
HEADINGS = {"accuracy": "accuracy %", "macro_f1": "macro F1 %", "log_loss": "log loss"}
ALL_HEADINGS = HEADINGS | {"balanced_accuracy": "balanced acc. %"}
PAIRS = 10  # members: of more, a table of pairs does not fit
SIGNS = {"better": 1, "worse": -1}
ACROSS = 3  # items beside the baseline in a table of classes: more do not fit
MOST_CLASSES = 50  # of more, only those that are marked are shown


def show_members(rows: list[MemberRow]) -> None:
    """The members' out-of-fold scores: over all rows with a 95% interval, and the spread over folds."""
    table = _table("members, out of fold: score ± deviation over folds, [95% interval]", "member", "folds", *_metrics())
    for row in rows:
        cells = [_score(metric, row.scores[metric]) if row.scores else "-" for metric in HEADINGS]
        table.add_row(row.member + STAR * row.optimistic, f"{len(row.done)}/{row.folds}", *cells)
    _print(table)
    if any(row.optimistic for row in rows):
        print(f"{STAR.strip()} {OPTIMISTIC}")


def show_blend(result: BlendResult) -> None:
    """A blend beside the plain mean and every member, what it gains over them, and its weights."""
    shown = list(HEADINGS)
    if result.fitted.metric == "balanced_accuracy":
        shown[1] = "balanced_accuracy"
    headings = [ALL_HEADINGS[metric] for metric in shown]
    units = f"{result.rows} rows" + (f" in {result.groups} groups" if result.groups else "")
    title = (
        f"blend {result.name!r}, cross-fitted over {result.folds} folds, {units}: score ± over folds, [95% interval]"
    )
    table = _table(title, "", *headings, "weight, T")  # T: the member's temperature, below its weight
    table.add_row(f"blend {result.name}", *(_score(metric, result.blend[metric]) for metric in shown), style="bold")
    table.add_row("plain mean", *(_score(metric, result.mean[metric]) for metric in shown))
    for member, scores in result.members.items():
        read = "\n".join(f"{value:.3f}" for value in result.weights[member].values())
        mark = STAR * (member in result.optimistic)
        table.add_row(member + mark, *(_score(metric, scores[metric]) for metric in shown), read)
    _print(table)
    if result.optimistic:
        print(f"{STAR.strip()} {OPTIMISTIC}; so are the blend's and the mean's scores")
    title = f"what {result.name!r} gains, [95% interval of the paired difference]; positive is better"
    gains = _table(title, "over", "metric", "gain", "P(better)")
    for gain in (gain for metric in shown for gain in result.gains if gain.metric == metric):
        over = "the plain mean" if gain.against == "mean" else f"the best single, {gain.against}"
        gains.add_row(over, ALL_HEADINGS[gain.metric], _gain(gain), f"{gain.p_better:.3f}")
    _print(gains)
    for note in result.notes:
        print(note)
    for member, own in result.view_weights.items():
        if len(set(own.values())) > 1:
            print(f"views of {member}: " + ", ".join(f"{view} {weight:.3f}" for view, weight in own.items()))
    if result.unused:
        print(f"no part in it, and no time at prediction: {', '.join(result.unused)}")
    if result.pruned:
        _show_pruned(result)
    for member, why in result.left_out.items():
        print(f"left out: {member} ({why})")


def show_details(result: BlendResult) -> None:
    """How far a blend's probabilities can be believed, and how its members differ."""
    _show_calibration(result)
    if len(result.members) > 1:
        _show_diversity(result)


def show_held_out(scores: dict[str, dict[str, float]], rows: int, chosen: str) -> None:
    """Each blend's scores on images that were never trained on; `chosen` is the one that OOF rows alone would take."""
    table = _table(f"{rows} held-out images; * has the least out-of-fold log loss", "blend", *_metrics())
    for name, values in scores.items():
        cells = [f"{values['log_loss']:.4f}" if m == "log_loss" else f"{100 * values[m]:.2f}" for m in HEADINGS]
        table.add_row(f"{name}{' *' if name == chosen else ''}", *cells)
    _print(table)


def show_comparison(result: Comparison) -> None:
    """Each block of a comparison: scores, what is gained over the baseline at what cost, the verdict, the classes."""
    units = f"{len(result.labels)} rows" + (f" in {len(set(result.units.tolist()))} groups" if result.grouped else "")
    for note in result.notes:
        print(note)
    for block in result.blocks:
        print()
        title = f"{block.title}, out of fold, {units}: score ± deviation over folds, [95% interval]"
        table = _table(title, "", *_metrics(), "at temperature")
        for item, own, tempered in zip(block.items, block.scores, block.tempered, strict=True):
            f1 = _score("macro_f1", own["macro_f1"]).splitlines()[0]
            cells = [_score("accuracy", own["accuracy"]), f1, _score("log_loss", own["log_loss"])]
            table.add_row(escape(item.label), *cells, _score("log_loss", tempered))
        _print(table)
        _show_gained(block)
        for line in verdict(block):
            print(line)
        _show_classes(block, result)
    print()
    print("at temperature: log loss at the item's one best temperature, fitted on the other folds; gains are in that.")
    print("Intervals are over the rows, with the networks as they are: another seed moves the scores as well.")


def verdict(block: Block) -> list[str]:
    """In words: which items are better or worse than the baseline at 95%; of more than two, which may be the best."""
    lines = []
    for item, accuracy, loss, differ in zip(
        block.items[1:], block.accuracy[1:], block.log_loss[1:], block.differ[1:].tolist(), strict=True
    ):
        told = {"accuracy": tells(accuracy, differ), "log loss": tells(loss)}
        signs = {word: [metric for metric in told if told[metric] == sign] for word, sign in SIGNS.items()}
        what = ", ".join(f"{word} in {' and '.join(metrics)}" for word, metrics in signs.items() if metrics)
        few = f" but only {differ} differ, too few to tell" if differ < FEWEST and tells(accuracy) else ""
        gained = f"gained: accuracy {_gain(accuracy)}{few}, log loss {_gain(loss)}"
        lines.append(f"{what or 'no difference can be told at 95%'}: {item.label} ({gained})")
    if len(block.items) > 2:
        level = [
            f"{item.label} ({_gain(own)})"
            for s, (item, own) in enumerate(zip(block.items, block.behind, strict=True))
            if s != block.best and not tells(own, int(block.behind_differ[s]))
        ]
        lines.append(
            f"best by accuracy: {block.items[block.best].label}; "
            + (f"not to be told from it at 95%: {', '.join(level)}" if level else "all others are told from it at 95%")
        )
        lines.append(f"it is the best of {len(block.items)} by these very rows, so its lead is flattered")
    return lines


def _show_gained(block: Block) -> None:
    title = (
        f"gained over {block.items[0].label} (positive is better), P: share of resamples that are better, "
        "[95% interval, paired]; and what training took"
    )
    table = _table(title, "", "accuracy points", "log loss", "h:mm:ss", "epochs")
    for s, (item, *gains) in enumerate(zip(block.items, block.accuracy, block.log_loss, strict=True)):
        shown = [_gain(own).replace(" [", f", P {own.p_better:.3f}\n[") if s else "baseline" for own in gains]
        epochs = "-" if item.epochs is None else str(item.epochs)
        table.add_row(escape(item.label), *shown, _clock(item.seconds), epochs)
    _print(table)


def _show_classes(block: Block, result: Comparison) -> None:
    """Recall by class; items that do not fit beside the baseline have a table of their own."""
    rows = [int((result.labels == c).sum()) for c in range(len(result.classes))]
    compared = (len(block.items) - 1) * sum(count > 0 for count in rows)
    kept = [c for c, count in enumerate(rows) if count]
    if len(kept) > MOST_CLASSES:
        kept = [c for c in kept if block.marked[:, c].any()]
    for start in range(1, len(block.items), ACROSS):
        others = range(start, min(start + ACROSS, len(block.items)))
        title = f"recall % by class, and what is gained over {block.items[0].label}"
        table = _table(title, "class (rows)", *(_heading(block.items[s]) for s in (0, *others)))
        for c in kept:
            cells = [f"{100 * block.recall[0, c]:.1f}"]
            for s in others:
                gained, (low, high) = 100 * block.recall_gain[s, c], 100 * block.recall_interval[:, s, c]
                star = "* " if block.marked[s, c] else ""
                cells.append(f"{star}{100 * block.recall[s, c]:.1f} {gained:+.1f}\n[{low:+.1f}, {high:+.1f}]")
            table.add_row(escape(f"{result.classes[c]} ({rows[c]})"), *cells)
        if kept:
            _print(table)
    unit = "groups" if result.grouped else "rows"
    print(
        f"* interval without 0, and at least {FEWEST} {unit} that differ: {int(block.marked.sum())} of {compared} "
        f"comparisons; 5% of them, {0.05 * compared:.1f}, are expected by chance alone"
        + (f"; of {len(result.classes)} classes only those are shown" if len(kept) < sum(map(bool, rows)) else "")
    )


def _heading(item: Item) -> str:
    """A label in lines no wider than the column's numbers, broken after _ or / where it can be."""
    lines = textwrap.wrap(item.label.replace("_", "_ ").replace("/", "/ "), 13)
    return escape("\n".join(line.replace("_ ", "_").replace("/ ", "/") for line in lines))


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def _show_calibration(result: BlendResult) -> None:
    table = _table("calibration, cross-fitted", "", "log loss", "ECE %", "Brier score")
    for what, own in result.calibration.items():
        table.add_row(what, f"{own.log_loss:.4f}", f"{100 * own.ece:.2f}", f"{own.brier:.4f}")
    _print(table)
    stages = {"after its temperature" if len(result.reliability) > 2 else "blend": result.reliability["blend"]}
    if len(result.reliability) > 2:
        stages = {"before": result.reliability["blend before its temperature"]} | stages
    title = "reliability: rows, their mean confidence % and accuracy %"
    table = _table(title, "confidence %", *stages)
    bins = sorted({(own.low, own.high) for some in stages.values() for own in some})
    for low, high in bins:
        cells = []
        for some in stages.values():
            found = next((one for one in some if one.low == low), None)
            cells.append(f"{found.rows:6} {100 * found.confidence:6.1f} {100 * found.accuracy:6.1f}" if found else "-")
        table.add_row(f"{100 * low:.1f} to {100 * high:.1f}", *cells)
    _print(table)


def _show_diversity(result: BlendResult) -> None:
    own, members = result.diversity, list(result.members)
    count = len(members)
    if count <= PAIRS:
        title = "above the diagonal: rows on which two members disagree, %; below: correlation of their errors"
        table = _table(title, "", *(str(m + 1) for m in range(count)))
        for a, member in enumerate(members):
            above = [f"{100 * own.disagreement[a][b]:.1f}" for b in range(a + 1, count)]
            below = [f"{own.error_correlation[a][b]:.2f}" for b in range(a)]
            table.add_row(f"{a + 1} {member}", *below, "", *above)
        _print(table)
    if own.costs:
        metric = next(iter(own.costs.values())).metric
        table = _table(f"what leaving a member out costs, {ALL_HEADINGS[metric]} [95% interval]", "", "cost")
        for member, cost in own.costs.items():
            table.add_row(member, _gain(cost))
        _print(table)


def _show_pruned(result: BlendResult) -> None:
    own = result.pruned
    assert own is not None
    if own.passes[0] == own.passes[1] and len(own.members) == len(result.members):
        print("--prune: nothing can be left out without loss")
        return
    unit, factor = ("nats of log loss", 1) if result.fitted.metric == "log_loss" else ("points", 100)
    passes = f"; {own.passes[1]} of {own.passes[0]} forward passes remain" if own.passes[0] else ""
    print(
        f"--prune: without loss (it costs {factor * own.cost:+.4f} ± {factor * own.error:.4f} {unit}) can be left out: "
        f"{', '.join(_left(own, result)) or 'nothing'}{passes}"
    )
    print(
        f"to keep the rest: --members {','.join(own.members)}"
        + (f" --views {','.join(own.views)}" if own.views else "")
    )


def _left(own: Pruned, result: BlendResult) -> list[str]:
    views = dict.fromkeys(view for weights in result.view_weights.values() for view in weights)
    gone = [member for member in result.members if member not in own.members]
    return gone + [f"the view {view}" for view in views if own.views and view not in own.views]


def _metrics() -> list[str]:
    return list(HEADINGS.values())


def _table(title: str, first: str, *others: str) -> Table:
    """A table whose numbers are never cut: only its first column may be folded."""
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    table.add_column(first, overflow="fold")
    for heading in others:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _score(metric: str, score: Score) -> str:
    if metric == "log_loss":
        return f"{score.value:.4f} ±{score.std:.4f}\n[{score.low:.4f}, {score.high:.4f}]"
    value, low, high, std = (100 * number for number in (score.value, score.low, score.high, score.std))
    return f"{value:.2f} ±{std:.2f}\n[{low:.2f}, {high:.2f}]"


def _gain(gain: Gain) -> str:
    if gain.metric == "log_loss":
        return f"{gain.value:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]"
    return f"{100 * gain.value:+.2f} [{100 * gain.low:+.2f}, {100 * gain.high:+.2f}]"


def _print(table: Table) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)  # a file or a pipe has no width of its own
    title, table.title = table.title, None  # rich would wrap it at the table's width
    console.print(title, highlight=False, markup=False)
    console.print(table)


def show_view_search(found: ViewSearch) -> None:
    """The sets of views by size, what each view does beside the base, and the choice in a sentence."""
    shown = ("log_loss", "accuracy" if found.metric == "log_loss" else found.metric)
    headings = [ALL_HEADINGS[metric] for metric in shown]
    units = f"{found.rows} rows" + (f" in {found.groups} groups" if found.groups else "")
    for note in found.notes:
        print(note)
    table = _table(
        f"sets of views, out of fold, {units}, cross-fitted over {found.folds} folds:\n"
        f"score [95% interval], and below it what is gained over {found.base} alone",
        "views",
        *headings,
        "ms/image",
    )

    def cells(scores: dict[str, Score], gains: dict[str, Gain]) -> list[str]:
        both = [(_score(metric, scores[metric]).splitlines(), _gain(gains[metric])) for metric in shown]
        return [f"{score.split(' ')[0]} {ends}\n{gained}" for (score, ends), gained in both]

    last: tuple[str, ...] = ()
    for size in found.sizes:
        gone, new = ([view for view in a if view not in b] for a, b in ((last, size.views), (size.views, last)))
        own = (
            cells(size.scores, size.gains) if last else [cell.split("\n")[0] for cell in cells(size.scores, size.gains)]
        )
        steps = " ".join([*(f"- {view}" for view in gone), *(f"+ {view}" for view in new)]) if last else new[0]
        cost = f"{size.ms:.1f}{STAR if size.pareto else '  '}"
        cost += f"\n{size.by_fold.count(size.views)}/{found.folds}  " * bool(last)
        style = "bold" if size.views == found.chosen else None
        table.add_row(escape(f"{len(size.views)}: {steps}"), *own, cost, style=style)
        last = size.views
    table.add_row("the whole search", *cells(found.honest, found.honest_gains))
    _print(table)
    print(f"{STAR.strip()} no other size beats it in both cost and log loss; below: folds that choose that same set")
    tried = "all sets of each size were tried" if found.exhaustive else "sets were grown by the best next view"
    print(f"{tried}; in the whole search each fold is scored by sets and a size that are chosen without it")
    print()
    title = f"each view: what is gained over {found.base} alone by adding the view,\nand below by the view alone"
    table = _table(title, "view", *headings, "adding it")
    for single in found.singles:
        both = [f"{_gain(single.added[metric])}\n{_gain(single.alone[metric])}" for metric in shown]
        table.add_row(escape(single.view), *both, single.verdict.replace(" can", "\ncan"))
    _print(table)
    helps, hurts = (sum(single.verdict == verdict for single in found.singles) for verdict in ("helps", "hurts"))
    print(
        f"told by {headings[found.metric != 'log_loss'].removesuffix(' %')} at 95%, of {len(found.singles)} added: "
        f"{helps} helps, {hurts} hurts; {0.05 * len(found.singles):.2g} by chance alone, if none did anything"
    )
    print(_view_choice(found))


def _view_choice(found: ViewSearch) -> str:
    """One sentence."""
    metric, name = found.metric, ALL_HEADINGS[found.metric].removesuffix(" %")
    sign = -1 if metric == "log_loss" else 1
    best = max(found.sizes, key=lambda size: sign * size.scores[metric].value)
    own = next(size for size in found.sizes if size.views == found.chosen)
    alone = f"{found.base} alone"
    if own is best:
        why = f"no larger set is better by {name}" if len(own.views) == 1 else f"the best by {name}"
    else:
        lead = f"the best, of {len(best.views)} views, gains {_gain(best.gains[metric])}"
        why = f"the cheapest within one standard error of the best by {name} ({lead})"
        if len(own.views) == 1:
            why = f"no set beats it by more than one standard error of {name} ({lead})"
    if len(own.views) == 1:
        return f"choice: {alone}: {why}"
    cost = f"{own.ms:.1f} ms an image, where {alone} takes {found.sizes[0].ms:.1f}"
    return f"choice: {', '.join(own.views)}: {why}; {cost}; gained over {alone}: {_gain(own.gains[metric])}"

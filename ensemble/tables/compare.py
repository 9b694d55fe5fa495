"""A comparison of runs or members, and its verdict in words."""

import textwrap

from rich.markup import escape

from ensemble.blend import Comparison
from ensemble.blend.comparison import FEWEST, Block, Item, tells
from ensemble.escape import escaped
from ensemble.plural import pluralize
from ensemble.scoring.metrics import HEADLINE, columns
from ensemble.tables.layout import gain_cell, headings, new_table, print_line, print_table, score_cell

SIGNS = {"better": 1, "worse": -1}
ACROSS = 3  # items beside the baseline in a table of classes: more do not fit
MOST_CLASSES = 50  # of more, only those that are marked are shown


def show_comparison(result: Comparison) -> None:
    """Each block of a comparison: scores, what is gained over the baseline at what cost, the verdict, the classes."""
    rows = pluralize(len(result.labels), "row")
    rows += f" in {pluralize(len(set(result.clusters.tolist())), 'group')}" if result.grouped else ""
    for note in result.notes:
        print_line(note)
    for block in result.blocks:
        print_line()
        title = f"{block.title}, out of fold, {rows}: score ± deviation over folds, [95% interval]"
        table = new_table(title, "", *headings(columns()), "at temperature")
        for item, scores, tempered in zip(block.items, block.scores, block.tempered, strict=True):
            cells = [score_cell(metric, scores[metric]) for metric in columns()]
            cells = [  # no room for the intervals of those that nothing is said about
                cell if metric in HEADLINE else cell.splitlines()[0]
                for metric, cell in zip(columns(), cells, strict=True)
            ]
            table.add_row(escape(escaped(item.label)), *cells, score_cell("log_loss", tempered))
        print_table(table)
        _show_gained(block)
        for line in verdict(block):
            print_line(line)
        _show_classes(block, result)
    print_line()
    print_line("at temperature: log loss at one temperature per item, fitted on the other folds; gains are in that.")
    print_line("Intervals are over the rows, for these networks; another seed moves the scores as well.")
    for line in result.seeds:
        print_line(line)


def verdict(block: Block) -> list[str]:
    """Which items are better or worse than the baseline at 95%, in words; of more than two, which may be the best."""
    lines = []
    for item, accuracy, loss, differ in zip(
        block.items[1:], block.accuracy[1:], block.log_loss[1:], block.differ[1:].tolist(), strict=True
    ):
        found = {"accuracy": tells(accuracy, differ), "log loss": tells(loss)}
        signs = {word: [metric for metric in found if found[metric] == sign] for word, sign in SIGNS.items()}
        what = ", ".join(f"{word} in {' and '.join(metrics)}" for word, metrics in signs.items() if metrics)
        few = (
            f" but only {pluralize(differ, 'row differs', 'rows differ')}, too few to decide"
            if differ < FEWEST and tells(accuracy)
            else ""
        )
        gained = f"gained: accuracy {gain_cell(accuracy)}{few}, log loss {gain_cell(loss)}"
        lines.append(f"{what or 'no significant difference at 95%'}: {item.label} ({gained})")
    if len(block.items) > 2:
        level = [
            f"{item.label} ({gain_cell(behind)})"
            for s, (item, behind) in enumerate(zip(block.items, block.behind, strict=True))
            if s != block.best and not tells(behind, int(block.behind_differ[s]))
        ]
        lines.append(
            f"best by accuracy: {block.items[block.best].label}; "
            + (
                f"no significant difference to it at 95%: {', '.join(level)}"
                if level
                else "all others differ from it at 95%"
            )
        )
        lines.append(f"it was chosen as the best of {len(block.items)} on these rows, so its lead is optimistic")
    return lines


def _show_gained(block: Block) -> None:
    title = (
        f"gain over {block.items[0].label} (positive is better), P: how probable it is that it is better, "
        "[95% interval, paired]; and the cost of training"
    )
    table = new_table(title, "", "accuracy points", "log loss", "h:mm:ss", "epochs")
    for s, (item, *gains) in enumerate(zip(block.items, block.accuracy, block.log_loss, strict=True)):
        cells = [gain_cell(g).replace(" [", f", P {g.p_better:.3f}\n[") if s else "baseline" for g in gains]
        epochs = "-" if item.epochs is None else str(item.epochs)
        table.add_row(escape(escaped(item.label)), *cells, _clock(item.seconds), epochs)
    print_table(table)


def _show_classes(block: Block, result: Comparison) -> None:
    """Recall by class; items that do not fit beside the baseline get further tables."""
    rows = [int((result.labels == c).sum()) for c in range(len(result.classes))]
    compared = (len(block.items) - 1) * sum(count > 0 for count in rows)
    kept = [c for c, count in enumerate(rows) if count]
    if len(kept) > MOST_CLASSES:
        kept = [c for c in kept if block.marked[:, c].any()]
    for start in range(1, len(block.items), ACROSS):
        others = range(start, min(start + ACROSS, len(block.items)))
        title = f"recall % by class, and the gain over {block.items[0].label}"
        table = new_table(title, "class (rows)", *(_heading(block.items[s]) for s in (0, *others)))
        for c in kept:
            cells = [f"{100 * block.recall[0, c]:.1f}"]
            for s in others:
                gained, (low, high) = 100 * block.recall_gain[s, c], 100 * block.recall_interval[:, s, c]
                star = "* " if block.marked[s, c] else ""
                cells.append(f"{star}{100 * block.recall[s, c]:.1f} {gained:+.1f}\n[{low:+.1f}, {high:+.1f}]")
            table.add_row(escape(escaped(f"{result.classes[c]} ({rows[c]})")), *cells)
        if kept:
            print_table(table)
    unit = "groups" if result.grouped else "rows"
    print_line(
        f"* interval without 0, and at least {FEWEST} {unit} that differ: {int(block.marked.sum())} of {compared} "
        f"comparisons; {0.05 * compared:.1f} (5%) are expected by chance alone"
        + (f"; of {len(result.classes)} classes, only these are shown" if len(kept) < sum(map(bool, rows)) else "")
    )


def _heading(item: Item) -> str:
    """A label in lines no wider than the column's numbers, broken after _ or / where it can be."""
    lines = textwrap.wrap(escaped(item.label).replace("_", "_ ").replace("/", "/ "), 13)
    return escape("\n".join(line.replace("_ ", "_").replace("/ ", "/") for line in lines))


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"

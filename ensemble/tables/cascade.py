"""What a cascade is worth, beside the blend that it is made of, cascades of other limits, and fixed sets of members."""

from rich.markup import escape

from ensemble.cascade.result import Cascade, Worth
from ensemble.plural import pluralize
from ensemble.scoring.metrics import HEADLINE, METRICS
from ensemble.tables.layout import gain_cell, headings, new_table, print_line, print_table, score_cell

SHOWN = tuple(reversed(HEADLINE))  # log loss first: it is what the limit is about


def show_cascade(found: Cascade) -> None:
    """The table of what can be had at which cost, the stages, and the verdict in sentences."""
    rows = pluralize(found.rows, "row") + (f" in {pluralize(found.groups, 'group')}" if found.groups else "")
    table = new_table(
        f"cascades of blend {found.blend!r}, and sets of its members, out of fold, {rows},\n"
        f"chosen and fitted on other folds than those that are scored ({found.folds} folds):\n"
        "score, and below it the gain over the whole blend [95% interval];\n"
        "below the name, how many of the images get another class",
        "",
        *headings(SHOWN),
        "ms/image",
    )

    def add(name: str, worth: Worth, style: str | None = None) -> None:
        cells = [
            f"{METRICS[metric].number(worth.scores[metric].value)}\n{gain_cell(worth.gains[metric])}"
            for metric in SHOWN
        ]
        changed = f"{100 * worth.changed:.2f} % changed"
        table.add_row(escape(f"{name}\n{changed}"), *cells, f"{worth.ms:.1f}\n{_times(found, worth)}", style=style)

    whole = [f"{score_cell(metric, found.whole.scores[metric])}" for metric in SHOWN]
    table.add_row(escape(f"the whole blend {found.blend}"), *whole, f"{found.whole.ms:.1f}")
    for point in reversed(found.front):
        add(f"cascade that may lose {point.max_loss:g}", point.worth)
    for fixed in reversed(found.fixed):
        views = "one view" if fixed.views == 1 else pluralize(fixed.views, "view")
        add(f"always {', '.join(fixed.members)} ({views})", fixed.worth)
    add("this cascade", found.worth, "bold")
    print_table(table)
    if found.optimistic:
        print_line(f"all scores are optimistic: the best epochs of {', '.join(found.optimistic)} were kept")
    _show_stages(found)
    for line in _verdict(found):
        print_line(line)


def _show_stages(found: Cascade) -> None:
    if len(found.stages) < 2:
        return
    table = new_table("the stages of this cascade, in order", "asks", "ms/image", "exits, % of the images")
    for stage in found.stages:
        asks = "; ".join(f"{member} ({', '.join(views)})" for member, views in stage.added.items())
        table.add_row(escape(asks), f"{stage.ms:.1f}", f"{100 * stage.exits:.1f}")
    print_table(table)


def _verdict(found: Cascade) -> list[str]:
    worth = found.worth
    if len(found.stages) < 2:
        return [f"nothing is cheaper than the whole blend within {found.limit}"]
    gains = "; ".join(f"{METRICS[metric].title} {gain_cell(worth.gains[metric])}" for metric in SHOWN)
    return [
        f"{found.limit}: an image exits as soon as its most probable class has {100 * found.threshold:.2f} %; "
        f"{worth.ms:.1f} ms per image in the mean, the median {worth.p50_ms:.1f}, 99 % within {worth.p99_ms:.1f}; the "
        f"whole blend takes {found.whole.ms:.1f} ({_times(found, worth)} cheaper)",
        f"held out, gained over the whole blend: {gains}",
        f"out-of-fold rows have one network per member; prediction averages {found.networks}, at every stage, and the "
        "average decides: it is less confident, so that more images may go on to later stages",
    ]


def _times(found: Cascade, worth: Worth) -> str:
    return f"{found.whole.ms / worth.ms:.2f}x"

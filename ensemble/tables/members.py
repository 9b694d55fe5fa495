"""Scores of members, and of blends on images that were never trained on."""

from rich.markup import escape

from ensemble.blend import MemberRow
from ensemble.blend.comparison import OPTIMISTIC
from ensemble.escape import escaped
from ensemble.plural import pluralize
from ensemble.scoring.metrics import METRICS, columns
from ensemble.tables.layout import STAR, headings, new_table, print_line, print_table, score_cell


def show_members(rows: list[MemberRow]) -> None:
    """The members' out-of-fold scores: over all rows with a 95% interval, and the spread over folds."""
    table = new_table(
        "members, out of fold: score ± deviation over folds, [95% interval]", "member", "folds", *headings(columns())
    )
    for row in rows:
        cells = [score_cell(metric, row.scores[metric]) if row.scores else "-" for metric in columns()]
        table.add_row(escape(escaped(row.member)) + STAR * row.optimistic, f"{len(row.done)}/{row.folds}", *cells)
    print_table(table)
    if any(row.optimistic for row in rows):
        print_line(f"{STAR.strip()} {OPTIMISTIC}")


def show_held_out(scores: dict[str, dict[str, float]], rows: int, chosen: str) -> None:
    """Each blend's scores on images that were never trained on.

    chosen: the best blend by out-of-fold rows.
    """
    table = new_table(
        f"{pluralize(rows, 'held-out image')}; * has the lowest out-of-fold log loss", "blend", *headings(columns())
    )
    for name, values in scores.items():
        cells = [METRICS[metric].number(values[metric]) for metric in columns()]
        table.add_row(f"{escape(escaped(name))}{' *' if name == chosen else ''}", *cells)
    print_table(table)

"""How a table looks. Everything fits a terminal of 80 columns: an interval stands below its score, not beside, and
names are broken."""

import textwrap
from collections.abc import Iterable

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from ensemble import terminal
from ensemble.escape import escaped
from ensemble.scoring.bootstrap import Gain, Score
from ensemble.scoring.metrics import METRICS
from ensemble.tables.breaking import Breakable

STAR = " *"
WIDTH = 80  # of what has no width: a file, a pipe
GAP = 2  # between columns that stand close together
LEAST_NAME = 10  # columns that are left for names at least


def headings(metrics: Iterable[str]) -> list[str]:
    """Of columns, in lines no wider than an interval."""
    return ["\n".join(textwrap.wrap(METRICS[metric].heading, 14)) for metric in metrics]


def new_table(title: str, first: str, *others: str) -> Table:
    """A table whose numbers are never cut: only its first column may be folded."""
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    table.add_column(first, overflow="fold")
    for heading in others:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def score_cell(metric: str, score: Score) -> str:
    """A score with its deviation over folds, and below it the interval."""
    value, std, low, high = map(METRICS[metric].number, (score.value, score.std, score.low, score.high))
    return f"{value} ±{std}\n[{low}, {high}]"


def gain_cell(gain: Gain) -> str:
    value, low, high = (METRICS[gain.metric].number(number, "+") for number in (gain.value, gain.low, gain.high))
    return f"{value} [{low}, {high}]"


def print_line(text: str = "") -> None:
    terminal.print_line(escaped(text, lines=True))


def print_table(table: Table) -> None:
    """As wide as the terminal allows; a file or a pipe gets WIDTH columns. Nothing is cut: columns move together, names
    are broken, and in a terminal that is too narrow for the numbers these are too.

    Cells may have several lines. A name that may hold a line break has to go through `escaped` first.
    """
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    title, table.title = table.title, None  # rich would wrap it at the table's width
    for column in table.columns:
        column.header = escaped(str(column.header), lines=True)
        column._cells = [escaped(cell, lines=True) if isinstance(cell, str) else cell for cell in column._cells]
    _fit(table, console)
    with console.capture() as text:  # rich would print past the live bar of another console
        if title:
            console.print(escaped(str(title), lines=True), highlight=False, markup=False)
        console.print(table)
    print(text.get(), end="", flush=True)


def _fit(table: Table, console: Console) -> None:
    boundless = console.options.update_width(10_000)
    table.collapse_padding = Measurement.get(console, boundless, table).maximum > console.width
    numbers = [column for column in table.columns if column.no_wrap]
    cells = [[str(column.header), *map(str, column._cells)] for column in numbers]
    taken = sum(max(Measurement.get(console, boundless, cell).maximum for cell in column) + GAP for column in cells)
    if taken + LEAST_NAME > console.width:
        for column in numbers:
            column.no_wrap, column.overflow = False, "fold"
    for column in table.columns:
        if column not in numbers:
            column._cells = [Breakable(Text.from_markup(str(cell), emoji=False)) for cell in column._cells]

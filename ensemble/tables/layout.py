"""How a table looks. Everything fits a terminal of 80 columns: an interval stands below its score, not beside."""

from rich import box
from rich.console import Console
from rich.table import Table

from ensemble.escape import escaped
from ensemble.scoring.score import Gain, Score

STAR = " *"
HEADINGS = {"accuracy": "accuracy %", "macro_f1": "macro F1 %", "log_loss": "log loss"}
ALL_HEADINGS = HEADINGS | {"balanced_accuracy": "balanced acc. %"}


def metric_headings() -> list[str]:
    return list(HEADINGS.values())


def new_table(title: str, first: str, *others: str) -> Table:
    """A table whose numbers are never cut: only its first column may be folded."""
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    table.add_column(first, overflow="fold")
    for heading in others:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def score_cell(metric: str, score: Score) -> str:
    if metric == "log_loss":
        return f"{score.value:.4f} ±{score.std:.4f}\n[{score.low:.4f}, {score.high:.4f}]"
    value, low, high, std = (100 * number for number in (score.value, score.low, score.high, score.std))
    return f"{value:.2f} ±{std:.2f}\n[{low:.2f}, {high:.2f}]"


def gain_cell(gain: Gain) -> str:
    if gain.metric == "log_loss":
        return f"{gain.value:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]"
    return f"{100 * gain.value:+.2f} [{100 * gain.low:+.2f}, {100 * gain.high:+.2f}]"


def print_line(text: str = "") -> None:
    print(escaped(text, lines=True))


def print_table(table: Table) -> None:
    """Cells may have several lines: a name with a line break in it is for `escaped` to mend before."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)  # a file or a pipe has no width of its own
    title, table.title = table.title, None  # rich would wrap it at the table's width
    for column in table.columns:
        column.header = escaped(str(column.header), lines=True)
        column._cells = [escaped(cell, lines=True) if isinstance(cell, str) else cell for cell in column._cells]
    with console.capture() as text:  # rich would print past the live bar of another console
        if title:
            console.print(escaped(str(title), lines=True), highlight=False, markup=False)
        console.print(table)
    print(text.get(), end="", flush=True)

"""What was looked at on a machine, and what will be slow on it."""

from rich.markup import escape
from rich.table import Table

from ensemble.escape import escaped
from ensemble.overview.doctor import Item
from ensemble.tables.layout import print_table


def show_doctor(items: list[Item]) -> None:
    """A line for each thing, and below it what will be slow because of it."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column()
    for item in items:
        advice = "" if item.advice is None else f"\n-> {escaped(item.advice)}"
        table.add_row(escape(item.name), escape(escaped(item.found) + advice))
    print_table(table)

"""What an audit found, a row each."""

from rich import box
from rich.markup import escape
from rich.table import Table

from ensemble.audit.findings import Audit
from ensemble.escape import escaped
from ensemble.tables.layout import print_line, print_table

STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}


def show_audit(found: Audit) -> None:
    """The findings, the worst first, each with a few examples and what to do."""
    if not found.findings:
        print_line("nothing found")
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading, ratio in (("", None), ("found, for example", 3), ("what to do", 2)):
        table.add_column(heading, overflow="fold", ratio=ratio)
    for own in found.findings:
        side = "" if own.side == "train" else f"{own.side}: "
        some = ", ".join(map(escaped, own.examples)) + (", ..." if len(own.rows) > len(own.examples) else "")
        table.add_row(
            f"[{STYLES[own.level]}]{own.level}[/]",
            escape(f"{side}{own.count:,} {escaped(own.what)}\n{some}"),
            escape(escaped(own.advice)),
        )
    print_table(table)

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
    for finding in found.findings:
        side = "" if finding.side == "train" else f"{finding.side}: "
        some = ", ".join(map(escaped, finding.examples)) + (
            ", ..." if len(finding.rows) > len(finding.examples) else ""
        )
        table.add_row(
            f"[{STYLES[finding.level]}]{finding.level}[/]",
            escape(f"{side}{finding.count:,} {escaped(finding.what)}\n{some}"),
            escape(escaped(finding.advice)),
        )
    print_table(table)

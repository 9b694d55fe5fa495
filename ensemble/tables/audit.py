"""What an audit found, a paragraph each."""

from rich.markup import escape
from rich.table import Table

from ensemble.audit.findings import Audit
from ensemble.escape import escaped
from ensemble.tables.layout import print_line, print_table

STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}
ONE_LINE = 70  # characters of examples beyond which each has a line to itself


def show_audit(found: Audit) -> None:
    """The findings, the worst first, each with a few examples and what to do."""
    if not found.findings:
        print_line("nothing found")
        return
    print_line()
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column()
    for finding in found.findings:
        side = "" if finding.side == "train" else f"{finding.side}: "
        more = ", ..." if len(finding.rows) > len(finding.examples) else ""
        some = ", ".join(map(escaped, finding.examples)) + more
        if len(some) > ONE_LINE:
            some = "\n".join(map(escaped, finding.examples)) + more
        what = escape(f"{side}{finding.count:,} {escaped(finding.what)}")
        table.add_row(
            f"[{STYLES[finding.level]}]{finding.level}[/]",
            f"{what}\n[dim]{escape(some)}[/]\n-> {escape(escaped(finding.advice))}\n",
        )
    print_table(table)

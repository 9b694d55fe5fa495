"""What is risked where only the most confident rows are answered."""

from ensemble.conformal.selective import RiskCoverage
from ensemble.tables.layout import new_table, print_table


def show_risk_coverage(found: RiskCoverage) -> None:
    """The error rates of the most confident rows, and the area under their curve."""
    table = new_table(
        f"answering only the most confident rows: AURC {100 * found.area:.3f} % [{100 * found.low:.3f}, "
        f"{100 * found.high:.3f}], at best {100 * found.best:.3f} for as many errors",
        "answered %",
        *(f"{100 * share:g}" for share in found.shares),
    )
    table.add_row("of them wrong %", *(f"{100 * risk:.2f}" for risk in found.risks))
    print_table(table)

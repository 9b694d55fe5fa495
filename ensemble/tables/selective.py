"""What is risked where only the most confident rows are answered."""

from ensemble.conformal.selective import RiskCoverage
from ensemble.tables.layout import new_table, print_table

SHOWN = 0.9  # the share of the rows that the line is about


def risk_line(found: RiskCoverage) -> str:
    """What is risked with fewer answers, in one line."""
    risk = dict(zip(found.shares, found.risks, strict=True))
    return (
        f"of the most confident {SHOWN:.0%} of the rows {risk[SHOWN]:.2%} are wrong, of all {risk[1.0]:.2%}; area "
        f"under the risk-coverage curve (AURC) {100 * found.area:.3f} % [{100 * found.low:.3f}, {100 * found.high:.3f}]"
    )


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

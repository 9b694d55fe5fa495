"""What was submitted from the run: its out-of-fold score beside that of the board."""

from pathlib import Path
from typing import Any

from ensemble.errors import UserError
from ensemble.overview.ledger import Entry, entries, is_number
from ensemble.overview.trust import trust
from ensemble.report.run import RunResults
from ensemble.report.strips import axis, strip
from ensemble.scoring.metrics import METRICS


def section(results: RunResults) -> dict[str, Any] | None:
    """A table of the submissions, the newest last; None where there are none."""
    try:
        found = entries(results.run.path)
    except UserError as error:
        return {"missing": f"The submissions can’t be read: {error}."}
    if not found:
        return None
    rows = [_row(entry) for entry in found]
    ends = [row[key] for row in rows for key in ("low", "high", "board") if row[key] is not None]
    least, most = min(ends, default=0.0), max(ends, default=1.0)
    for row in rows:
        row["strip"] = None
        if None not in (row["low"], row["score"], row["high"]):
            row["strip"] = strip(row["low"], row["score"], row["high"], least, most)
            if row["board"] is not None:
                row["strip"]["zero"] = strip(0, row["board"], 0, least, most)["at"]
    number = METRICS["accuracy"].factor
    return {
        "rows": rows,
        "axis": axis(least, most, lambda tick: f"{number * tick:g}"),
        "trust": [line for one in trust(found) for line in one.lines],
    }


def _row(entry: Entry) -> dict[str, Any]:
    """Shares; a board that counts to 100 is read as percent, as `ens submissions` does."""
    values = entry.values
    score, low, high, board = (
        float(values[key]) if is_number(values.get(key, "")) else None
        for key in ("accuracy", "accuracy_low", "accuracy_high", "board")
    )
    if board is not None and board > 1:
        board /= METRICS["accuracy"].factor
    return {
        "file": Path(values.get("file", "").replace("\\", "/")).name,
        "state": entry.state,
        "about": ", ".join(values[key] for key in ("blend", "note") if values.get(key)),
        "written": values.get("written", "")[:16].replace("T", " "),
        "score": score,
        "low": low,
        "high": high,
        "board": board,
        "typed": values.get("board", ""),
    }

"""How well unknown images are told from the training rows."""

from collections.abc import Mapping

import numpy as np
from rich.markup import escape

from ensemble.plural import pluralize
from ensemble.tables.layout import new_table, print_line, print_table
from ensemble.unknown.result import FittedDetector


def show_unknown(found: FittedDetector) -> None:
    """The table of the candidates, and what the best one finds."""
    best = found.trials[0]
    kinds = [*(["left-out classes (worst)"] if best.left_out else []), *best.foreign]
    table = new_table(
        f"telling unknown images from {found.rows:,} out-of-fold rows of blend {found.blend!r},\n"
        "area under the ROC curve in % (50: by chance):",
        "scores",
        *(escape(kind) for kind in kinds),
    )
    for trial in found.trials:
        cells = (
            [f"{100 * _mean(trial.left_out):.1f} ({100 * min(trial.left_out.values()):.1f})"] if trial.left_out else []
        )
        cells += [f"{100 * value:.1f}" for value in trial.foreign.values()]
        table.add_row(" + ".join(trial.parts), *cells, style="bold" if trial is best else None)
    print_table(table)
    shares = [
        f"{100 * share:.0f} % of the {what}"
        for share, what in (
            (best.flagged_left_out, "images of a left-out class"),
            (best.flagged_foreign, best.foreign_images),
        )
        if share is not None
    ]
    print_line(
        f"taken: {' + '.join(best.parts)}; at 1 % false alarms it flags {' and '.join(shares)}"
        if len(best.parts) == 1
        else f"taken: the sum of {', '.join(best.parts)}; at 1 % false alarms it flags {' and '.join(shares)}"
    )
    if best.left_out:
        worst = min(best.left_out, key=best.left_out.__getitem__)
        print_line(f"hardest among {pluralize(len(best.left_out), 'left-out class', 'left-out classes')}: {worst}")


def _mean(values: Mapping[str, float]) -> float:
    return float(np.mean(list(values.values())))
